package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	kubeletSocket = "kubelet.sock"
	ownSocket     = "modelcar-gpu.sock"

	// Between two looks at the sockets and device nodes.
	interval = time.Second
	// … as long as the kubelet has not been registered with: it refuses pods with devices until then.
	startingInterval = 50 * time.Millisecond
	// Patience for one registration.
	callSeconds = 10 * time.Second
)

// A kubelet that restarts removes every plugin's socket, and each makes its own anew: whoever was there
// before is waited for that long, and so is a kubelet that has been registered with but does not watch.
var patience = 10 * time.Second

// Session keeps a plugin registered with the kubelet of a folder, across restarts of the kubelet.
type Session struct {
	plugin *Plugin
	folder string

	server       *grpc.Server
	own          socketID // our socket, as long as it is the one that we made
	registered   socketID // the kubelet's socket when we registered
	registeredAt time.Time
	other        string    // socket of another plugin of this resource
	otherSeenAt  time.Time // zero: never
}

// socketID tells a socket from one made anew under the same name; zero: there is none.
type socketID struct {
	inode   uint64
	changed syscall.Timespec
}

func identify(path string) socketID {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return socketID{}
	}
	stat := info.Sys().(*syscall.Stat_t)
	return socketID{stat.Ino, stat.Ctim}
}

// run serves until the context ends, then removes the socket.
func (s *Session) run(ctx context.Context) {
	defer s.stop()
	failed := ""
	for {
		err := s.look(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != failed {
			say("%v; tries again", err)
		}
		failed = ""
		if err != nil {
			failed = err.Error()
		}
		wait := interval
		if s.registered == (socketID{}) && s.other == "" {
			wait = startingInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look does what the sockets in the folder ask for.
func (s *Session) look(ctx context.Context) error {
	if s.server != nil && s.own != identify(s.path(ownSocket)) {
		s.stop() // a kubelet that starts removes all sockets
		s.registered = socketID{}
	}
	if s.server == nil {
		if err := s.serve(); err != nil {
			return err
		}
	}
	kubelet := identify(s.path(kubeletSocket))
	if other := s.otherPlugin(); other != "" {
		if s.other == "" {
			say("steps aside: %s serves %s on this node", other, s.plugin.config.Resource)
		}
		// What the kubelet watches of ours is left open, but nothing is sent any more: where a plugin has
		// registered after ours, the kubelet would answer the end of our stream by dropping the other
		// (k8s.io/kubernetes 1.34, pkg/kubelet/cm/devicemanager/plugin/v1beta1/handler.go, runClient).
		s.other, s.otherSeenAt = other, time.Now()
		return nil
	}
	if !s.otherSeenAt.IsZero() && time.Since(s.otherSeenAt) < patience {
		return nil
	}
	if s.other != "" {
		say("%s is gone: serves %s again", s.other, s.plugin.config.Resource)
		s.other, s.registered = "", socketID{}
		s.stop() // ends an old stream before the new registration, and the next look begins anew
		return nil
	}
	s.plugin.checkHealth()
	watched := s.plugin.streams.Load() > 0 || time.Since(s.registeredAt) < patience
	if kubelet == (socketID{}) || (kubelet == s.registered && watched) {
		return nil
	}
	if err := s.register(ctx); err != nil {
		return err
	}
	s.registered, s.registeredAt = kubelet, time.Now()
	return nil
}

func (s *Session) path(name string) string {
	return filepath.Join(s.folder, name)
}

func (s *Session) serve() error {
	path := s.path(ownSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	listener.SetUnlinkOnClose(false) // by its path: a late end would remove the socket of the next server
	s.server = grpc.NewServer()
	api.RegisterDevicePluginServer(s.server, s.plugin)
	s.own = identify(path)
	server := s.server
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			say("stopped serving: %v", err)
		}
	}()
	return nil
}

func (s *Session) stop() {
	if s.server == nil {
		return
	}
	s.server.Stop()
	if path := s.path(ownSocket); s.own == identify(path) { // else the kubelet has removed it
		os.Remove(path)
	}
	s.server, s.own = nil, socketID{}
}

func (s *Session) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callSeconds)
	defer cancel()
	connection, err := grpc.NewClient(
		"unix://"+s.path(kubeletSocket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("cannot reach the kubelet: %w", err)
	}
	defer connection.Close()
	options, _ := s.plugin.GetDevicePluginOptions(ctx, nil)
	request := &api.RegisterRequest{
		Version:      api.Version,
		Endpoint:     ownSocket,
		ResourceName: s.plugin.config.Resource,
		Options:      options,
	}
	if _, err := api.NewRegistrationClient(connection).Register(ctx, request); err != nil {
		return fmt.Errorf("the kubelet did not register %s: %w", s.plugin.config.Resource, err)
	}
	say("registered %s with the kubelet", s.plugin.config.Resource)
	return nil
}

// otherPlugin returns the socket of another plugin for NVIDIA's cards that answers; "" where there is none.
//
// A socket does not tell which resource it serves, and asking a plugin for its devices would take events from
// the kubelet. NVIDIA's plugin calls its socket nvidia-gpu.sock, GKE's nvidiaGPU-SECONDS.sock.
func (s *Session) otherPlugin() string {
	entries, err := os.ReadDir(s.folder)
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.Type()&os.ModeSocket == 0 || !strings.Contains(strings.ToLower(name), "nvidia") {
			continue
		}
		connection, err := net.DialTimeout("unix", s.path(name), time.Second)
		if err == nil { // refused: its plugin was killed and the socket is left over
			connection.Close()
			return name
		}
	}
	return ""
}
