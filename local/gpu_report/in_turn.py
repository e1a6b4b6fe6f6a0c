"""Tokens per second of a pod and of bare vLLM that serve at the same time and are asked in turn.

A small model's speed is the processor's matter, and a machine of a cloud has fast minutes and slow ones: a
ratio of two starts that are minutes apart holds both. Here both servers share one card and one minute.
"""

from __future__ import annotations

from collections.abc import Mapping

from components.cluster.access import JSON
from local.gpu_report.bare import bare
from local.gpu_report.evidence import evidence
from local.gpu_report.load import Server, ask, rate
from local.gpu_report.runner import Found
from local.gpu_report.site import WINDOW, Model, Site

#: Of a card's memory, for each of both.
SHARE = 0.4


def in_turn(site: Site, model: Model, streams: tuple[int, ...], tokens: int, turns: int) -> Found:
    """Serve a model by a pod and by itself at once, and measure both in turn.

    Args:
        site: where.
        model: that is in the registry.
        streams: requests at once, one measurement for each.
        tokens: of each answer.
        turns: how often both are asked; who is first changes.

    Raises:
        Failed: one of both does not serve.
    """
    name = model.stack
    own = {"vllm": {"maxModelLen": WINDOW, "gpuMemoryUtilization": SHARE}} if site.gpus else {}
    site.select(name)
    site.configure(name, model, **own)
    site.up(name, f"{name}-in-turn")
    pod = site.ready_pod(name)
    files, cards = site.unpacked(model), _cards(site, name, pod)
    with bare(site.children, f"{name}-bare-in-turn", pod, files, site.folder / "scratch", cards) as start:
        servers = {"pod": site.server(name, pod), "bare": site.bare_server(name, start.url)}
        return {"limited": start.limited, "turns": [_asked(servers, one, tokens, turns) for one in streams]}


def _asked(servers: Mapping[str, Server], streams: int, tokens: int, turns: int) -> Found:
    for server in servers.values():
        ask(server, 16, streams)  # which compiles what a first batch of this size needs
    each: dict[str, list[float]] = {kind: [] for kind in servers}
    kinds = list(servers)
    for _ in range(turns):
        for kind in kinds:
            each[kind].append(rate(servers[kind], tokens, streams, 1)["tokensPerSecond"])
        kinds.reverse()
    return {"streams": streams, "tokens": tokens, **each}


def _cards(site: Site, name: str, pod: JSON) -> list[int] | None:
    """Return the indexes of the cards that the pod is on."""
    if not site.gpus:
        return None
    seen = evidence(site.cluster(name), pod)["processes"]
    nodes = {node for process in seen for node in process["nodes"]}
    return [card.index for card in site.gpus.cards if str(card.node) in nodes]
