package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Config says what is handed out. `local/plan.py` writes it.
type Config struct {
	Resource string   `json:"resource"` // as a pod asks for it: nvidia.com/gpu
	Devices  []Device `json:"devices"`
	Shared   []string `json:"shared"` // nodes that every container with a device gets: /dev/nvidiactl, …
	Mounts   []Mount  `json:"mounts"` // read-only
}

// Device is one card: its id at the kubelet, and its nodes.
type Device struct {
	ID    string   `json:"id"`
	Paths []string `json:"paths"`
}

// Mount is a folder of the machine that every container with a device sees.
type Mount struct {
	Host      string `json:"host"`
	Container string `json:"container"`
}

const configFix = "run `make up` again, which writes this file from what nvidia-smi says"

// readConfig reads and checks a configuration; the error says what is wrong, what is allowed and what to do.
func readConfig(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, refuse(path, err.Error(), "a JSON file that can be read")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	config := &Config{}
	if err := decoder.Decode(config); err != nil {
		return nil, refuse(path, err.Error(), "a JSON object with resource, devices, shared and mounts")
	}
	domain, name, found := strings.Cut(config.Resource, "/")
	if !found || domain == "" || name == "" {
		return nil, refuse(path+": resource", fmt.Sprintf("%q", config.Resource), "DOMAIN/NAME, as nvidia.com/gpu")
	}
	if len(config.Devices) == 0 {
		return nil, refuse(path+": devices", "none", "one device or more")
	}
	seen := map[string]bool{}
	for index, device := range config.Devices {
		key := fmt.Sprintf("%s: devices[%d]", path, index)
		if device.ID == "" || seen[device.ID] {
			return nil, refuse(key+".id", fmt.Sprintf("%q", device.ID), "an id that no other device has")
		}
		if len(device.Paths) == 0 {
			return nil, refuse(key+".paths", "none", "the device's nodes, as /dev/nvidia0")
		}
		seen[device.ID] = true
		if err := absolute(key+".paths", device.Paths...); err != nil {
			return nil, err
		}
	}
	if err := absolute(path+": shared", config.Shared...); err != nil {
		return nil, err
	}
	for index, mount := range config.Mounts {
		key := fmt.Sprintf("%s: mounts[%d]", path, index)
		if err := absolute(key, mount.Host, mount.Container); err != nil {
			return nil, err
		}
		if info, err := os.Stat(mount.Host); err != nil || !info.IsDir() {
			return nil, refuse(key+".host", mount.Host, "a folder of this machine")
		}
	}
	return config, nil
}

func absolute(key string, paths ...string) error {
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return refuse(key, fmt.Sprintf("%q", path), "absolute paths")
		}
	}
	return nil
}

// refuse words an error as the rest of the project does: key, value, what is allowed, the fix.
func refuse(key, value, allowed string) error {
	return fmt.Errorf("%s: %s (allowed: %s; fix: %s)", key, value, allowed, configFix)
}
