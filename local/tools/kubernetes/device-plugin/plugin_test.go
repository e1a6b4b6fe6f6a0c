package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// machine is a folder with two cards, the shared node and the driver; links stand for device nodes.
func machine(t *testing.T) *Config {
	folder := t.TempDir()
	for _, name := range []string{"nvidia0", "nvidia1", "nvidiactl"} {
		if err := os.Symlink("/dev/null", filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	return &Config{
		Resource: "nvidia.com/gpu",
		Devices: []Device{
			{ID: "GPU-a", Paths: []string{filepath.Join(folder, "nvidia0")}},
			{ID: "GPU-b", Paths: []string{filepath.Join(folder, "nvidia1")}},
		},
		Shared: []string{filepath.Join(folder, "nvidiactl")},
		Mounts: []Mount{{Host: folder, Container: "/usr/local/nvidia"}},
	}
}

// kubelet is the part of one that plugins talk to.
type kubelet struct {
	api.UnimplementedRegistrationServer
	folder     string
	server     *grpc.Server
	registered chan *api.RegisterRequest
}

func startKubelet(t *testing.T, folder string) *kubelet {
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries { // as CleanupPluginDirectory does
		os.Remove(filepath.Join(folder, entry.Name()))
	}
	listener, err := net.Listen("unix", filepath.Join(folder, kubeletSocket))
	if err != nil {
		t.Fatal(err)
	}
	made := &kubelet{folder: folder, server: grpc.NewServer(), registered: make(chan *api.RegisterRequest, 9)}
	api.RegisterRegistrationServer(made.server, made)
	go made.server.Serve(listener)
	t.Cleanup(made.server.Stop)
	return made
}

func (k *kubelet) Register(_ context.Context, request *api.RegisterRequest) (*api.Empty, error) {
	k.registered <- request
	return &api.Empty{}, nil
}

// plugin connects to what registered last, as the kubelet does.
func (k *kubelet) plugin(t *testing.T) api.DevicePluginClient {
	request := <-k.registered
	if request.Version != "v1beta1" || request.ResourceName != "nvidia.com/gpu" {
		t.Fatalf("registered %v", request)
	}
	connection, err := grpc.NewClient(
		"unix://"+filepath.Join(k.folder, request.Endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return api.NewDevicePluginClient(connection)
}

func watch(t *testing.T, plugin api.DevicePluginClient) grpc.ServerStreamingClient[api.ListAndWatchResponse] {
	stream, err := plugin.ListAndWatch(context.Background(), &api.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func health(t *testing.T, stream grpc.ServerStreamingClient[api.ListAndWatchResponse]) string {
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	told := []string{}
	for _, device := range response.Devices {
		told = append(told, device.ID+" "+device.Health)
	}
	return strings.Join(told, ", ")
}

func look(t *testing.T, session *Session) {
	t.Helper()
	if err := session.look(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, what, found, wanted string) {
	t.Helper()
	if found != wanted {
		t.Fatalf("%s: %s, not %s", what, found, wanted)
	}
}

// folder has a short path: a socket's has 108 bytes at most.
func folder(t *testing.T) string {
	made, err := os.MkdirTemp("", "kubelet")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(made) })
	return made
}

func TestDevicesAreListedAndHealthIsToldAsItChanges(t *testing.T) {
	config := machine(t)
	session := &Session{plugin: newPlugin(config), folder: folder(t)}
	defer session.stop()
	node := startKubelet(t, session.folder)
	look(t, session)
	stream := watch(t, node.plugin(t))
	expect(t, "at first", health(t, stream), "GPU-a Healthy, GPU-b Healthy")

	os.Remove(config.Devices[1].Paths[0])
	look(t, session)
	expect(t, "a node that is gone", health(t, stream), "GPU-a Healthy, GPU-b Unhealthy")

	os.Symlink("/dev/null", config.Devices[1].Paths[0])
	look(t, session)
	expect(t, "a node that is back", health(t, stream), "GPU-a Healthy, GPU-b Healthy")

	os.Remove(config.Shared[0])
	look(t, session)
	expect(t, "a shared node that is gone", health(t, stream), "GPU-a Unhealthy, GPU-b Unhealthy")
	expect(t, "registrations", string(rune('0'+len(node.registered))), "0")
}

func TestAContainerGetsItsCardTheSharedNodesAndTheDriver(t *testing.T) {
	config := machine(t)
	plugin := newPlugin(config)
	ask := func(ids ...string) (*api.AllocateResponse, error) {
		requests := []*api.ContainerAllocateRequest{{DevicesIds: ids}}
		return plugin.Allocate(context.Background(), &api.AllocateRequest{ContainerRequests: requests})
	}
	given, err := ask("GPU-b")
	if err != nil {
		t.Fatal(err)
	}
	answer := given.ContainerResponses[0]
	devices := []string{}
	for _, device := range answer.Devices {
		devices = append(devices, device.HostPath+" "+device.ContainerPath+" "+device.Permissions)
	}
	expect(t, "devices", strings.Join(devices, ", "),
		config.Devices[1].Paths[0]+" /dev/nvidia1 mrw, "+config.Shared[0]+" /dev/nvidiactl mrw")
	mount := answer.Mounts[0]
	if len(answer.Mounts) != 1 || mount.ContainerPath != "/usr/local/nvidia" || !mount.ReadOnly {
		t.Fatalf("mounts: %v", answer.Mounts)
	}
	if len(answer.Envs) != 0 {
		t.Fatalf("environment: %v", answer.Envs)
	}

	os.Remove(config.Devices[1].Paths[0])
	plugin.checkHealth()
	for id, reason := range map[string]string{"GPU-b": "unhealthy", "GPU-c": "not one of this machine's"} {
		if _, err := ask(id); err == nil || !strings.Contains(err.Error(), reason) {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

func TestTheFirstFreeCardIsPreferred(t *testing.T) {
	plugin := newPlugin(machine(t))
	prefer := func(size int32, must []string, available ...string) string {
		container := &api.ContainerPreferredAllocationRequest{
			AvailableDeviceIDs: available, MustIncludeDeviceIDs: must, AllocationSize: size}
		requests := []*api.ContainerPreferredAllocationRequest{container}
		answer, err := plugin.GetPreferredAllocation(
			context.Background(), &api.PreferredAllocationRequest{ContainerRequests: requests})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(answer.ContainerResponses[0].DeviceIDs, " ")
	}
	expect(t, "one of two", prefer(1, nil, "GPU-b", "GPU-a"), "GPU-a")
	expect(t, "the one that is free", prefer(1, nil, "GPU-b"), "GPU-b")
	expect(t, "one that must be", prefer(1, []string{"GPU-b"}, "GPU-b", "GPU-a"), "GPU-b")
	expect(t, "both", prefer(2, nil, "GPU-b", "GPU-a"), "GPU-a GPU-b")
}

func TestAKubeletThatRestartsIsRegisteredWithAgain(t *testing.T) {
	session := &Session{plugin: newPlugin(machine(t)), folder: folder(t)}
	defer session.stop()
	look(t, session) // before there is a kubelet
	first := startKubelet(t, session.folder)
	look(t, session)
	expect(t, "devices", health(t, watch(t, first.plugin(t))), "GPU-a Healthy, GPU-b Healthy")

	first.server.Stop()
	second := startKubelet(t, session.folder)
	look(t, session)
	expect(t, "devices", health(t, watch(t, second.plugin(t))), "GPU-a Healthy, GPU-b Healthy")
}

func TestItStepsAsideForAnotherPluginAndServesAgainWhenThatIsGone(t *testing.T) {
	patience = 0
	defer func() { patience = 10 * time.Second }()
	for _, name := range []string{"nvidia-gpu.sock", "nvidiaGPU-1732800000.sock"} {
		session := &Session{plugin: newPlugin(machine(t)), folder: folder(t)}
		node := startKubelet(t, session.folder)
		other, err := net.Listen("unix", filepath.Join(session.folder, name))
		if err != nil {
			t.Fatal(err)
		}
		look(t, session)
		if session.other != name || len(node.registered) > 0 {
			t.Fatalf("stepped aside for %q, registered %d times", session.other, len(node.registered))
		}

		other.(*net.UnixListener).SetUnlinkOnClose(false) // as one that was killed
		other.Close()
		look(t, session)
		look(t, session)
		expect(t, "devices", health(t, watch(t, node.plugin(t))), "GPU-a Healthy, GPU-b Healthy")
		session.stop()
	}
}

func TestAPluginThatComesLaterIsNotCutOff(t *testing.T) {
	config := machine(t)
	session := &Session{plugin: newPlugin(config), folder: folder(t)}
	defer session.stop()
	node := startKubelet(t, session.folder)
	look(t, session)
	stream := watch(t, node.plugin(t))
	health(t, stream)
	other, err := net.Listen("unix", filepath.Join(session.folder, "nvidia-gpu.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := stream.Recv() // neither a device nor the end: the kubelet would take it for the other's
		ended <- err
	}()
	os.Remove(config.Devices[0].Paths[0])
	look(t, session)
	select {
	case err := <-ended:
		t.Fatalf("the kubelet was told something: %v", err)
	case <-time.After(200 * time.Millisecond):
	}

	other.Close()
	patience = 0
	defer func() { patience = 10 * time.Second }()
	look(t, session)
	if err := <-ended; err == nil {
		t.Fatal("the old stream has to end before the new registration, or it takes that along")
	}
	look(t, session)
	expect(t, "devices", health(t, watch(t, node.plugin(t))), "GPU-a Unhealthy, GPU-b Healthy")
}

func TestTheSocketIsRemovedAtTheEnd(t *testing.T) {
	session := &Session{plugin: newPlugin(machine(t)), folder: folder(t)}
	ctx, cancel := context.WithCancel(context.Background())
	node := startKubelet(t, session.folder)
	over := make(chan bool)
	go func() {
		session.run(ctx)
		close(over)
	}()
	<-node.registered
	cancel()
	<-over
	if _, err := os.Lstat(filepath.Join(session.folder, ownSocket)); !os.IsNotExist(err) {
		t.Fatalf("the socket is still there: %v", err)
	}
}

func TestAWrongConfigurationIsRefusedInWords(t *testing.T) {
	good := machine(t)
	path := filepath.Join(t.TempDir(), "gpus.json")
	write := func(config any) error {
		text, _ := json.Marshal(config)
		os.WriteFile(path, text, 0o600)
		_, err := readConfig(path)
		return err
	}
	if err := write(good); err != nil {
		t.Fatal(err)
	}
	changed := func(change func(*Config)) Config {
		copied := *good
		copied.Devices, copied.Mounts = slices.Clone(good.Devices), slices.Clone(good.Mounts)
		change(&copied)
		return copied
	}
	for reason, wrong := range map[string]any{
		"cannot unmarshal": "words",
		"unknown field":    map[string]any{"resource": "nvidia.com/gpu", "gpus": 1},
		"resource":         changed(func(c *Config) { c.Resource = "gpu" }),
		"devices: none":    changed(func(c *Config) { c.Devices = nil }),
		"devices[1].id":    changed(func(c *Config) { c.Devices[1].ID = "GPU-a" }),
		"devices[0].paths": changed(func(c *Config) { c.Devices[0].Paths = nil }),
		"absolute paths":   changed(func(c *Config) { c.Shared = []string{"nvidiactl"} }),
		"mounts[0].host":   changed(func(c *Config) { c.Mounts[0].Host = "/no/such/folder" }),
	} {
		err := write(wrong)
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "fix: run `make up`") {
			t.Errorf("%s: %v", reason, err)
		}
	}
	if _, err := readConfig(path + ".not"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing file: %v", err)
	}
}
