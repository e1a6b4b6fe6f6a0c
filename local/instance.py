"""Where one embedded platform lives: its folders, addresses and names.

Everything that the platform opens listens inside a network namespace of its own, so nothing can
collide with a port of the host. Two checkouts can each run a platform: they take different slots.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.alone import unless_held
from local.slots import claim
from modelcar.errors import refuse

PROJECT = Path(__file__).resolve().parent.parent

KUBERNETES_VERSION = "1.36.3"
KSERVE_VERSION = "0.19.0"

#: Name of the platform that `make coldstart` makes and removes.
COLD_START = "coldstart"
#: … and that `make campaign` does.
CAMPAIGN = "campaign"
#: The commands that have such a platform.
OF_THEIR_OWN = {COLD_START: "`make coldstart`", CAMPAIGN: "`make campaign` or `make soak`"}

#: 198.18.0.0/15 is set aside for tests of network devices (RFC 2544), so no real host answers there.
SLOTS = range(0, 64)


@dataclass(frozen=True)
class Instance:
    """One platform. `slot` picks its link and pod network; `name` its state folder and buildx builder."""

    name: str
    slot: int
    state: Path

    @property
    def link(self) -> str:
        """Name of the host's end of the link into the platform (Linux allows 15 characters)."""
        return f"modelcar{self.slot}"

    @property
    def host_address(self) -> str:
        """Address of the host on the link."""
        return f"198.18.{self.slot}.1"

    @property
    def address(self) -> str:
        """Address of the platform, and of its one node, on the link."""
        return f"198.18.{self.slot}.2"

    @property
    def pod_cidr(self) -> str:
        """Pod network, routed from the host."""
        return f"10.244.{self.slot}.0/24"

    @property
    def registry(self) -> str:
        """HOST:PORT of the OCI registry."""
        return f"{self.address}:5000"

    @property
    def api_server(self) -> str:
        """URL of the Kubernetes API server."""
        return f"https://{self.address}:6443"

    @property
    def builder(self) -> str:
        """Name of the buildx builder."""
        return f"modelcar-{self.name}"

    @property
    def pki(self) -> Path:
        """Folder of keys and certificates."""
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        """Folder with a log file for each process."""
        return self.state / "logs"

    @property
    def pids(self) -> Path:
        """Folder with a pid file (pids as the host counts them) for each process."""
        return self.state / "pids"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def status_file(self) -> Path:
        """JSON written by the supervisor on each change."""
        return self.state / "status.json"

    @property
    def settings_file(self) -> Path:
        """The settings that the platform offers to the Pulumi program (`modelcar:platformFile`)."""
        return self.state / "platform.json"

    @property
    def buildx_config(self) -> Path:
        """buildx's own configuration folder, so that the user's builders are left alone."""
        return self.state / "buildx"

    @property
    def kubectl_cache(self) -> Path:
        """Where kubectl keeps for hours which kinds a cluster has: the next one at its address has others."""
        return self.state / "kubectl"

    @property
    def buildkit_socket(self) -> Path:
        """BuildKit's socket, which the host's buildx connects to."""
        return self.state / "buildkitd.sock"


def state_root() -> Path:
    """Return the folder of all platforms' state (`.local`, or MODELCAR_STATE).

    Raises:
        InputError: it is the project, or holds it: the state of the platform `local` would be its source.
    """
    root = _folder("MODELCAR_STATE", ".local")
    if root == PROJECT or root in PROJECT.parents:
        raise refuse(
            "MODELCAR_STATE",
            f"{root}, which {'is' if root == PROJECT else 'holds'} this project",
            allowed="a folder of its own",
            fix=f"unset MODELCAR_STATE (the default is {PROJECT / '.local'}), or name another folder",
        )
    return root


def cache_root() -> Path:
    """Return the folder of built tools and environments (`.cache`, or MODELCAR_CACHE)."""
    return _folder("MODELCAR_CACHE", ".cache")


def _folder(variable: str, default: str) -> Path:
    """Return the folder that a variable names; the project's own where it is unset or empty."""
    return Path(os.environ.get(variable) or PROJECT / default).resolve()


def link_owner(link: str) -> str | None:
    """Return whose a link is: the state folder of its platform, "" where nobody says; None: no such link."""
    try:
        return (Path("/sys/class/net") / link / "ifalias").read_text().strip()
    except OSError:
        return None


def slot_is_free(slot: int) -> bool:
    """Tell whether no platform's link holds the slot."""
    return not Path(f"/sys/class/net/modelcar{slot}").exists()


def run_lock(name: str) -> Path:
    """Return the file that a command holds as long as it works with a platform of its own."""
    return state_root() / f"{name}.lock"  # beside its folder, which it removes


@contextmanager
def only_run(name: str) -> Iterator[None]:
    """Hold the platform called `name`, so that nobody else starts or removes it.

    Raises:
        InputError: another command holds it.
    """
    with unless_held(run_lock(name)) as mine:
        if not mine:
            raise refuse(
                f"platform {name}",
                "in use by a command that still runs in this checkout",
                allowed=f"one {OF_THEIR_OWN[name]} at a time",
                fix="wait until it is over, or end it with Ctrl-C",
            )
        yield


def load(name: str) -> Instance:
    """Return the platform called `name`: with the slot it already has, else with the first free one.

    Raises:
        InputError: all slots are taken, or the state folder's path is too long for a Unix socket.
    """
    state = state_root() / name
    slot = _recorded_slot(state)
    if slot is None:
        slot = claim(filter(slot_is_free, SLOTS), state)
    if slot is None:
        raise refuse(
            "network links modelcar0…modelcar63",
            "all taken",
            allowed="a free slot",
            fix="stop a platform that you no longer need: `make down` in its checkout",
        )
    instance = Instance(name, slot, state)
    longest = len(str(instance.buildkit_socket))
    if longest > 100:  # sun_path holds 108 bytes (unix(7))
        raise refuse(
            "MODELCAR_STATE",
            f"{state} ({longest} characters with a socket's name)",
            allowed="a path that keeps Unix sockets under 100 characters",
            fix="set MODELCAR_STATE to a shorter folder, for example /tmp/modelcar",
        )
    return instance


def _recorded_slot(state: Path) -> int | None:
    """Return the slot that a platform has; None where it has none. What its file has to say may be cut."""
    recorded = state / "slot"
    try:
        slot = int(recorded.read_text())
        if slot in SLOTS:
            return slot
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        pass
    # A platform that runs says it by its link.
    print(
        f"NOTE: {recorded} holds no number from 0 to {SLOTS[-1]}: the platform takes its link's slot, or "
        f"a free one. To choose one: echo NUMBER > {recorded}",
        file=sys.stderr,
    )
    return next((slot for slot in SLOTS if link_owner(f"modelcar{slot}") == str(state)), None)
