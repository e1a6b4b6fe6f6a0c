package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Plugin answers the kubelet. What a container gets is what GKE's plugin gives it
// (GoogleCloudPlatform/container-engine-accelerators, pkg/gpu/nvidia): the card's node and the shared ones
// with permissions mrw, the driver's folder read-only, and no environment.
type Plugin struct {
	api.UnimplementedDevicePluginServer

	config  *Config
	streams atomic.Int32 // kubelets that watch the devices: one, or none

	mutex   sync.Mutex
	healthy map[string]bool
	changed chan struct{} // closed at the next change
}

func newPlugin(config *Config) *Plugin {
	plugin := &Plugin{config: config, healthy: map[string]bool{}, changed: make(chan struct{})}
	plugin.checkHealth()
	return plugin
}

// checkHealth looks at the nodes and tells whoever watches where that has changed.
func (p *Plugin) checkHealth() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	changed := false
	for _, device := range p.config.Devices {
		missing := missingNodes(append(slices.Clone(device.Paths), p.config.Shared...))
		before, known := p.healthy[device.ID]
		if known && before == (len(missing) == 0) {
			continue
		}
		p.healthy[device.ID] = len(missing) == 0
		changed = true
		if len(missing) > 0 {
			say("%s is unhealthy: no device node %s", device.ID, strings.Join(missing, ", "))
		} else if known {
			say("%s is healthy again", device.ID)
		}
	}
	if changed {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

func missingNodes(paths []string) []string {
	missing := []string{}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.Mode()&os.ModeDevice == 0 {
			missing = append(missing, path)
		}
	}
	return missing
}

func (p *Plugin) devices() ([]*api.Device, <-chan struct{}) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	devices := make([]*api.Device, 0, len(p.config.Devices))
	for _, device := range p.config.Devices {
		health := api.Unhealthy
		if p.healthy[device.ID] {
			health = api.Healthy
		}
		devices = append(devices, &api.Device{ID: device.ID, Health: health})
	}
	return devices, p.changed
}

// GetDevicePluginOptions asks the kubelet to let the plugin choose among free cards.
func (p *Plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{GetPreferredAllocationAvailable: true}, nil
}

// ListAndWatch sends the devices, and again with each change.
func (p *Plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	p.streams.Add(1)
	defer p.streams.Add(-1)
	for {
		devices, changed := p.devices()
		if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// GetPreferredAllocation takes the first free cards in nvidia-smi's order, so that the same pod on the same
// machine gets the same card: the kubelet itself chooses at random.
func (p *Plugin) GetPreferredAllocation(
	_ context.Context, request *api.PreferredAllocationRequest,
) (*api.PreferredAllocationResponse, error) {
	response := &api.PreferredAllocationResponse{}
	for _, container := range request.ContainerRequests {
		chosen := slices.Clone(container.MustIncludeDeviceIDs)
		for _, device := range p.config.Devices {
			wanted := len(chosen) < int(container.AllocationSize)
			free := slices.Contains(container.AvailableDeviceIDs, device.ID)
			if wanted && free && !slices.Contains(chosen, device.ID) {
				chosen = append(chosen, device.ID)
			}
		}
		response.ContainerResponses = append(
			response.ContainerResponses, &api.ContainerPreferredAllocationResponse{DeviceIDs: chosen})
	}
	return response, nil
}

// Allocate says what a container with these devices gets.
func (p *Plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		answer := &api.ContainerAllocateResponse{}
		for _, id := range container.DevicesIds {
			device, err := p.device(id)
			if err != nil {
				return nil, err
			}
			answer.Devices = append(answer.Devices, nodes(device.Paths)...)
		}
		answer.Devices = append(answer.Devices, nodes(p.config.Shared)...)
		for _, mount := range p.config.Mounts {
			answer.Mounts = append(answer.Mounts,
				&api.Mount{HostPath: mount.Host, ContainerPath: mount.Container, ReadOnly: true})
		}
		say("hands out %s", strings.Join(container.DevicesIds, ", "))
		response.ContainerResponses = append(response.ContainerResponses, answer)
	}
	return response, nil
}

func (p *Plugin) device(id string) (*Device, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for index := range p.config.Devices {
		if device := &p.config.Devices[index]; device.ID == id {
			if !p.healthy[id] {
				return nil, fmt.Errorf("device %s is unhealthy: its node is gone", id)
			}
			return device, nil
		}
	}
	return nil, fmt.Errorf("device %s is not one of this machine's", id)
}

func nodes(paths []string) []*api.DeviceSpec {
	specs := make([]*api.DeviceSpec, 0, len(paths))
	for _, path := range paths {
		inside := path
		if !strings.HasPrefix(path, "/dev/") { // a driver that keeps its nodes elsewhere
			inside = filepath.Join("/dev", filepath.Base(path))
		}
		specs = append(specs, &api.DeviceSpec{HostPath: path, ContainerPath: inside, Permissions: "mrw"})
	}
	return specs
}
