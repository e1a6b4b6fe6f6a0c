"""containerd on the platform: its network, its registry, and its configuration file of either version."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from local.instance import Instance
from local.tools import Toolbox


def service(instance: Instance, tools: Toolbox, sandbox_image: str) -> dict[str, Any]:
    """Write its configuration, and return the process; sandbox_image: the pause image."""
    cni = instance.state / "cni"
    cni.mkdir(exist_ok=True)
    ipam = {"type": "host-local", "subnet": instance.pod_cidr, "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    conflist = {"cniVersion": "0.4.0", "name": "modelcar", "plugins": [bridge]}
    (cni / "10-modelcar.conflist").write_text(json.dumps(conflist))
    hosts = instance.state / "registries" / instance.registry
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "hosts.toml").write_text(f'[host."http://{instance.registry}"]\n')
    config = instance.state / "containerd.toml"
    config.write_text(_configuration(instance, tools, sandbox_image, cni, hosts.parent))
    folders = {str(tools.programs[name].parent) for name in ("containerd-shim-runc-v2", "runc")}
    path = os.pathsep.join([*sorted(folders), os.environ.get("PATH", "")])
    argv = [tools["containerd"], "--config", str(config)]
    # The sandbox image must be there before the kubelet can make a pod.
    ready = {"unix": "/run/containerd/containerd.sock"}
    own = {"after": ["registry"], "env": {"PATH": path}}
    return {"name": "containerd", "argv": argv, "ready": ready, **own}


def _configuration(
    instance: Instance, tools: Toolbox, sandbox_image: str, cni: Path, registries: Path
) -> str:
    common = f'''version = {tools.containerd_config}
root = "{instance.state}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
'''
    # A sandbox may lack CAP_SYS_RESOURCE, without which a lower oom_score_adj is refused.
    adjusts, plugins = "restrict_oom_score_adj = true", tools.programs["bridge"].parent
    if tools.containerd_config < 3:
        name = 'plugins."io.containerd.grpc.v1.cri"'
        return f'''{common}[{name}]
  sandbox_image = "{sandbox_image}"
  {adjusts}
[{name}.cni]
  bin_dir = "{plugins}"
  conf_dir = "{cni}"
[{name}.registry]
  config_path = "{registries}"
'''
    return f'''{common}[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{sandbox_image}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{registries}"
[plugins."io.containerd.cri.v1.runtime"]
  {adjusts}
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{cni}"
'''
