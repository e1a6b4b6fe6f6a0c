"""The programs by which NetworkPolicies are enforced on the embedded platform: iptables and ipset.

Those of the machine, or Debian's, unpacked; they work in the platform's network namespace only.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from local.debian import Progress, is_whole, system_program, unpack_debian, write_script

PACKAGES = [
    *("iptables", "libxtables12", "libip4tc2", "libip6tc2", "libnftnl11", "libmnl0"),
    *("libnfnetlink0", "libnetfilter-conntrack3", "ipset", "libipset13"),
]
#: Names as kube-router calls them, and Debian's programs.
PROGRAMS = {
    "iptables": "iptables-nft",
    "iptables-save": "iptables-nft-save",
    "iptables-restore": "iptables-nft-restore",
    "ipset": "ipset",
}
#: Everything that kube-router's rules are made of, in a namespace that is gone at once.
_TRIAL = (
    "ipset create probe hash:ip timeout 0 && "
    "iptables -A FORWARD -m set --match-set probe src -m comment --comment probe -j MARK --set-mark 1 && "
    "iptables -A FORWARD -m mark ! --mark 1 -j REJECT && iptables-save | iptables-restore"
)

#: The user that kube-router's certificate names.
USER = "kube-router"


def definitions() -> list[dict[str, Any]]:
    """Return kube-router's rights: to see what policies are about, and nothing else."""
    see = ["get", "list", "watch"]
    rules = [
        {
            "apiGroups": [""],
            "resources": ["namespaces", "pods", "services", "nodes", "endpoints"],
            "verbs": see,
        },
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": see},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": see},
    ]
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": USER}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": USER},
            "subjects": [{"apiGroup": group, "kind": "User", "name": USER}],
        },
    ]


def netfilter(folder: Path, progress: Progress) -> Path | None:
    """Return a folder with the programs; None, with a line that says so, where this kernel cannot do it.

    Args:
        folder: that scripts and packages are kept in.
        progress: takes the line.

    Raises:
        InputError: they are neither on PATH nor to be unpacked.
    """
    _write(folder, progress)
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    trial = subprocess.run(
        ["unshare", "--net", "sh", "-c", _TRIAL],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode == 0:
        return folder
    lines = trial.stderr.strip().splitlines() or ["no reason given"]
    unloaded = next((line for line in lines if "error while loading shared libraries" in line), "")
    if unloaded:
        why = f"a program does not start ({unloaded}). fix: sudo apt-get install -y iptables ipset"
    else:
        why = f"this kernel lacks what they need ({lines[-1]})"
    progress(f"NOTE: NetworkPolicies are not enforced here: {why}")
    return None


def _write(folder: Path, progress: Progress) -> None:
    root = folder / "debian"
    libraries = root / "usr/lib"
    unpacked = is_whole(root) and all((root / "usr/sbin" / name).exists() for name in PROGRAMS.values())
    if not unpacked and not all(system_program(name, folder) for name in PROGRAMS):
        unpack_debian(PACKAGES, root, progress)
        unpacked = True
    for name, program in PROGRAMS.items():
        own = root / "usr/sbin" / program
        if unpacked and own.exists():
            found = ":".join(str(path) for path in libraries.glob("*-linux-gnu"))
            variables = (f"LD_LIBRARY_PATH={found}", f"XTABLES_LIBDIR={found}/xtables")
            write_script(folder / name, ["env", *variables, str(own)])
        else:
            write_script(folder / name, [str(system_program(name, folder))])
