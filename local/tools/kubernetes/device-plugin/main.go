// Command modelcar-device-plugin lets a kubelet advertise this machine's GPUs.
//
// It stands in for NVIDIA's device plugin on the embedded node of the local stack, and hands out what GKE's
// own plugin hands out. It speaks the kubelet's DevicePlugin API v1beta1.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

func main() {
	file := flag.String("config", "", "JSON `FILE` with resource, devices, shared and mounts")
	folder := flag.String("folder", filepath.Dir(api.KubeletSocket), "`FOLDER` of the kubelet's kubelet.sock")
	flag.Parse()
	if *file == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: modelcar-device-plugin --config FILE [--folder FOLDER]")
		os.Exit(2)
	}
	config, err := readConfig(*file)
	if err != nil {
		fmt.Fprintf(os.Stderr, "modelcar-device-plugin: %v\n", err)
		os.Exit(2)
	}
	describe(config)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	session := &Session{plugin: newPlugin(config), folder: *folder}
	session.run(ctx)
}

func describe(config *Config) {
	say("a stand-in of this project for NVIDIA's device plugin, which gives way where another one is there")
	for _, device := range config.Devices {
		say("%s: %s (%s)", config.Resource, device.ID, strings.Join(device.Paths, ", "))
	}
	say("with each of them: %s", strings.Join(config.Shared, ", "))
	for _, mount := range config.Mounts {
		say("and %s, read-only at %s", mount.Host, mount.Container)
	}
}

// say writes a line to the log.
func say(format string, arguments ...any) {
	line := fmt.Sprintf(format, arguments...)
	fmt.Fprintf(os.Stderr, "%s modelcar-device-plugin: %s\n", time.Now().UTC().Format(time.RFC3339), line)
}
