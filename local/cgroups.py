"""Control groups of a container that the platform runs in, version 2: made fit for containers inside of it.

There a group that has processes of its own cannot give controllers to groups below it, and all processes of a
container are in its topmost group. So they move into one below, as in moby's hack/dind. It is done before the
platform's pid namespace is made: in there the other processes have no number that they can be moved by.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from local.tool_list import Progress

ROOT = Path("/sys/fs/cgroup")
#: The group below, as moby calls it.
BELOW = "init"
#: Looks at what is still there: a process may start another one before it is moved.
TRIES = 10


def make_room(progress: Progress, root: Path = ROOT) -> None:
    """Let groups be made below this container's topmost one; elsewhere do nothing.

    Nothing is done with version 1, on a machine itself (the real topmost group has no type), or where no
    process is in the way, as with systemd in the container.

    Args:
        progress: takes a line for what cannot be done.
        root: where control groups are mounted.
    """
    if not (root / "cgroup.controllers").exists() or not (root / "cgroup.type").exists():
        return
    try:
        if not _processes(root):
            return
        (root / BELOW).mkdir(exist_ok=True)
        for _ in range(TRIES):
            for process in _processes(root):
                with suppress(ProcessLookupError):  # it has ended
                    _write(root / BELOW / "cgroup.procs", process)
            if not _processes(root):
                break
    except OSError as error:
        progress(f"NOTE: processes of this container cannot be moved into {root / BELOW}: {error}")
        return
    enabled = (root / "cgroup.subtree_control").read_text().split()
    for controller in (root / "cgroup.controllers").read_text().split():
        if controller not in enabled:
            try:
                _write(root / "cgroup.subtree_control", f"+{controller}")
            except OSError as error:
                progress(f"NOTE: pods have no cgroup controller {controller}: {error}")


def _processes(group: Path) -> list[str]:
    """Return the processes of a group; those of other pid namespaces show as 0, and stay."""
    return [number for number in (group / "cgroup.procs").read_text().split() if number != "0"]


def _write(file: Path, text: str) -> None:
    """Write to a file of the kernel's; each write is one order."""
    with file.open("w") as kernel:
        kernel.write(text)
