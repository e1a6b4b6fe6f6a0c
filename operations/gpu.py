"""What a pod's server sees of its GPUs, and whether it computes on them: asked from inside of the pod.

`nvidia-smi` tells cards, driver and memory. Its list of processes is empty in a container, as the driver
counts them by the node's numbers. So the server's own processes are looked at: one that computes with CUDA
keeps /dev/nvidia-uvm and its card's /dev/nvidiaN open, and one that only asks about cards (NVML, nvidia-smi)
does not open the former.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from components.cluster.access import JSON, Cluster, ClusterError
from components.manifests.service import CONTAINER

#: MiB of a card in use from which a server is on it: a CUDA context alone takes some hundred, an idle card at
#: most a few.
IN_USE = 64
#: Where device plugins put the driver (GKE: /usr/local/nvidia), beside PATH.
_DRIVER = "/usr/local/nvidia"
_FIELDS = "index,name,uuid,driver_version,memory.total,memory.used"

#: Only what a POSIX shell has: the image may hold no other program. `-ef` compares what two names stand for.
SCRIPT = f"""
export LD_LIBRARY_PATH="{_DRIVER}/lib64${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
for smi in nvidia-smi {_DRIVER}/bin/nvidia-smi /usr/bin/nvidia-smi; do
  if command -v "$smi" >/dev/null 2>&1; then
    said=$("$smi" --query-gpu={_FIELDS} --format=csv,noheader,nounits 2>&1)
    echo "smi $? $smi"
    echo "$said" | while IFS= read -r line; do echo "said $line"; done
    break
  fi
done
if [ -r /proc/driver/nvidia/version ]; then
  read -r line < /proc/driver/nvidia/version && echo "driver $line"
fi
for node in /dev/nvidia[0-9] /dev/nvidia[0-9][0-9]; do if [ -c "$node" ]; then echo "node $node"; fi; done
for process in /proc/[0-9]*; do
  seen= uvm= cards=
  for fd in "$process"/fd/*; do
    if [ -e "$fd" ]; then
      seen=1
      if [ "$fd" -ef /dev/nvidia-uvm ]; then uvm=1; continue; fi
      for node in /dev/nvidia[0-9] /dev/nvidia[0-9][0-9]; do
        if [ "$fd" -ef "$node" ]; then case " $cards " in *" $node "*) ;; *) cards="$cards $node" ;; esac; fi
      done
    fi
  done
  name=
  read -r name 2>/dev/null < "$process/comm"
  if [ "$uvm" ] && [ "$cards" ]; then echo "uses ${{process#/proc/}} $cards $name"
  elif [ "$seen" ]; then echo "other ${{process#/proc/}} $name"; fi
done
echo end
"""


@dataclass(frozen=True)
class Card:
    """A card as nvidia-smi in the pod tells it. total, used: MiB; None where the driver does not tell."""

    index: int
    name: str
    uuid: str
    driver: str
    total: int | None
    used: int | None


@dataclass(frozen=True)
class Process:
    """A process of the pod that computes with CUDA. pid: in the pod. nodes: of the cards that it has open."""

    pid: int
    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What was seen from inside of a pod.

    smi: the nvidia-smi that was asked; empty where the image has none.
    trouble: what it said instead of cards.
    driver: the kernel driver's version, by /proc.
    nodes: device files of cards.
    looked_at: processes whose open files could be seen, those that use a card among them.
    """

    smi: str = ""
    cards: tuple[Card, ...] = ()
    trouble: str = ""
    driver: str = ""
    nodes: tuple[str, ...] = ()
    processes: tuple[Process, ...] = ()
    looked_at: int = 0


@dataclass(frozen=True)
class Verdict:
    """Of one question: passed (None where it could not be found out), what was seen, and what to do."""

    passed: bool | None
    evidence: str
    fix: str = ""
    details: dict[str, object] = field(default_factory=dict)


def look(cluster: Cluster, pod: JSON) -> Seen | str:
    """Look from inside of the server's container; where that is not possible, return why.

    Never raises: what cannot be seen is told as such.
    """
    metadata = pod["metadata"]
    try:
        said = cluster.execute(metadata["namespace"], metadata["name"], CONTAINER, ["sh", "-c", SCRIPT])
    except ClusterError as error:
        return str(error)
    if "end" not in said.splitlines():
        return f"the container's shell did not come to the end: {said.strip()[-200:] or 'it said nothing'}"
    return parse(said)


def parse(text: str) -> Seen:
    """Return what the script said."""
    smi, status, driver = "", "0", ""
    said: list[str] = []
    nodes: list[str] = []
    processes: list[Process] = []
    looked_at = 0
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        words = rest.split()
        if kind == "smi":
            status, _, smi = rest.partition(" ")
        elif kind == "said":
            said.append(rest)
        elif kind == "driver":
            found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", rest)
            driver = found[0] if found else ""
        elif kind == "node":
            nodes.append(rest)
        elif kind == "uses" and words:
            looked_at += 1
            here = tuple(word for word in words[1:] if re.fullmatch(r"/dev/nvidia\d+", word))
            processes.append(Process(int(words[0]), " ".join(words[1 + len(here) :]), here))
        elif kind == "other":
            looked_at += 1
    cards = tuple(_cards(said)) if status == "0" else ()
    trouble = "" if cards or not smi else " ".join(said)[:200] or f"exit status {status}"
    return Seen(smi, cards, trouble, driver, tuple(nodes), tuple(processes), looked_at)


def _cards(lines: list[str]) -> Iterator[Card]:
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 6 and cells[0].isdigit():
            index, name, uuid, driver, total, used = cells
            yield Card(int(index), name, uuid, driver, _mib(total), _mib(used))


def _mib(text: str) -> int | None:
    return int(text) if text.isdigit() else None  # [N/A] of cards that share the machine's memory


def verdicts(asked: int, seen: Seen | str, pod: JSON) -> tuple[Verdict, Verdict]:
    """Return whether the pod sees the GPUs that it asked for, and whether its server computes on them."""
    metadata = pod["metadata"]
    how = f"kubectl -n {metadata['namespace']} exec {metadata['name']} -c {CONTAINER} -- "
    if isinstance(seen, str):
        not_seen = f"not seen: {seen}"
        fix = f"it takes the right to use pods/exec; look yourself: {how}nvidia-smi"
        return Verdict(None, not_seen, fix), Verdict(None, not_seen, fix)
    return _sees(asked, seen, how), _uses(asked, seen, how)


def _sees(asked: int, seen: Seen, how: str) -> Verdict:
    """Judge by nvidia-smi; where the image has none, by device files and the kernel's driver."""
    details: dict[str, object] = {
        "cards": [vars(card) for card in seen.cards],
        "driver": seen.cards[0].driver if seen.cards else seen.driver,
    }
    if seen.trouble:
        fix = (
            "see that the driver at /usr/local/nvidia fits the node's; restart the node or its device plugin"
        )
        return Verdict(False, f"{seen.smi} shows no card: {seen.trouble}", fix, details)
    if seen.smi:
        cards = "; ".join(
            f"{card.index} {card.name}" + (f", {card.total} MiB" if card.total is not None else "")
            for card in seen.cards
        )
        evidence, count = f"{cards}; driver {seen.cards[0].driver}", len(seen.cards)
    else:
        evidence = (
            f"{', '.join(seen.nodes) or 'no /dev/nvidia0'}; "
            f"{'driver ' + seen.driver if seen.driver else 'no NVIDIA driver in the kernel'}; "
            "names not seen: no nvidia-smi in the image"
        )
        count = len(seen.nodes) if seen.driver else 0
    if count >= asked:
        return Verdict(True, evidence, "", details)
    fix = (
        "the node's device plugin did not hand them out: delete the pod, look at the plugin's log"
        f" ({how}sh -c 'ls -l /dev/nvidia*')"
    )
    return Verdict(False, f"{count} of {asked} GPUs: {evidence}", fix, details)


def _uses(asked: int, seen: Seen, how: str) -> Verdict:
    """Judge by the files that the server's processes have open, and by the memory in use on the cards."""
    details: dict[str, object] = {"processes": [vars(process) for process in seen.processes]}
    memory = [
        f"{card.used} of {card.total} MiB in use on GPU {card.index}"
        for card in seen.cards
        if card.used is not None
    ]
    if not seen.looked_at:
        fix = f"look on the node: nvidia-smi; or {how}sh -c 'ls -l /proc/*/fd | grep nvidia'"
        return Verdict(None, "; ".join(["no process can be looked at", *memory]), fix, details)
    if not seen.processes:
        fix = (
            "the server computes without it: is modelcar:serverImage a CPU build, or does an argument or "
            "CUDA_VISIBLE_DEVICES keep it off? Its log says device_config=cuda where it does not"
        )
        none = f"none of {seen.looked_at} processes has a card open (/dev/nvidia-uvm and /dev/nvidiaN)"
        return Verdict(False, "; ".join([none, *memory]), fix, details)
    using = ", ".join(
        f"{process.name or 'a process'} (pid {process.pid}) on {' '.join(process.nodes)}"
        for process in seen.processes
    )
    evidence = "; ".join([using, *memory])
    idle = [card for card in seen.cards if card.used is not None and card.used < IN_USE]
    if len(seen.cards) - len(idle) < min(asked, len(seen.cards)):
        fix = (
            "the server uses fewer GPUs than the pod pays for: modelcar:vllm.tensorParallelSize, or gpuCount"
        )
        return Verdict(False, evidence, fix, details)
    return Verdict(True, evidence, "", details)
