"""containerd on the platform: its network, its registry, and its configuration file of either version."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from local.instance import Instance
from local.processor import architecture
from local.tools import Toolbox
from modelcar.errors import refuse

#: What holds an image's layers.
OVERLAYFS, EROFS = "overlayfs", "erofs"
VARIABLE = "MODELCAR_SNAPSHOTTER"
#: Layers that are unpacked at once.
JOBS = 4
#: Of erofs-utils 1.8.2 and newer: the same layer gives the same file, in the order of the tar.
MKFS = 'mkfs_options = ["-T0", "--mkfs-time", "--sort=none"]'


def snapshotter() -> str:
    """Return what MODELCAR_SNAPSHOTTER says: overlayfs where it says nothing, or erofs.

    Raises:
        InputError: it says something else, or this machine has no EROFS.
    """
    said = os.environ.get(VARIABLE) or OVERLAYFS
    if said not in {OVERLAYFS, EROFS}:
        raise refuse(VARIABLE, said, allowed=f"{OVERLAYFS} or {EROFS}", fix="unset it, or set one of these")
    if said == EROFS and (missing := lacking_for_erofs()):
        fix = "apt-get install erofs-utils (Debian 13, Ubuntu 26.04), modprobe erofs; or unset it"
        allowed = "Linux 6.12 with erofs, and mkfs.erofs 1.8 or newer"
        raise refuse(VARIABLE, f"{said}, and {', '.join(missing)}", allowed=allowed, fix=fix)
    return said


def lacking_for_erofs() -> list[str]:
    """Return what this machine lacks to keep layers as EROFS; nothing where it can."""
    missing = [] if shutil.which("mkfs.erofs") else ["mkfs.erofs is not on PATH"]
    if "erofs" not in Path("/proc/filesystems").read_text().split():
        missing.append("the kernel has no erofs")
    return missing


def erofs_settings(differ: str = MKFS) -> str:
    """Return what containerd 2.2 and newer is told to keep layers as EROFS, several at once.

    differ: settings of what makes an EROFS file of a layer.
    https://github.com/containerd/containerd/blob/v2.4.2/docs/snapshotters/erofs.md
    """
    return f'''[plugins."io.containerd.service.v1.diff-service"]
  default = ["{EROFS}", "walking"]
[plugins."io.containerd.differ.v1.erofs"]
  {differ}
[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_unpacks = {JOBS}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/{architecture()}"
  snapshotter = "{EROFS}"
  differ = "{EROFS}"
'''


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
    chosen = snapshotter()
    more = erofs_settings() if chosen == EROFS else ""
    return f'''{common}{more}[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{chosen}"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{sandbox_image}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{registries}"
[plugins."io.containerd.cri.v1.runtime"]
  {adjusts}
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{cni}"
'''
