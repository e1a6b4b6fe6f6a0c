"""A pool of nodes keeps its place among the settings: `google.nodes`, or `google.pools`.

Pulumi knows the first pool by its place, and every other one by its name. One that changes over is a new pool
to it, which it makes before it deletes the former one of the same name: Google refuses that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.config.pool_room import pools
from components.config.problems import problem
from components.config.stack import Stack
from components.google.replaced import made_with
from modelcar.errors import Problem

_WHERE = "docs/google-cloud.md, 'Retire the first pool'"


def problems(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield each pool whose name the last run had in the other place; outputs: of that run."""
    google = stack.google
    former: Mapping[str, Mapping[str, str]] = outputs.get("googleMadeWith") or {}
    if google is None:
        return
    now = made_with(google, {})
    places = {made.get("name"): key for key, made in former.items() if key.startswith(("nodes", "pools."))}
    for key, nodes in pools(google):
        place = "nodes" if nodes is google.nodes else f"pools.{nodes.name}"
        before = places.get(nodes.name)
        if before in (None, place) or _another_cluster(former[str(before)], now[place]):
            continue
        was = "google.nodes" if before == "nodes" else "google.pools"
        yield problem(
            f"{key}.name",
            f"{nodes.name}, which the last run had in {was}: Google would be asked for a second pool of this "
            "name, and refuse it",
            "a new name, or one that was in the same place",
            f"leave {nodes.name} in {was} ({_WHERE}: one without nodes, minNodes 0, costs nothing)",
        )


def _another_cluster(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Tell whether all pools are made anew anyway, in another cluster."""
    keys = ("project", "region", "cluster.location", "cluster.name")
    return any(key in before and key in now and before[key] != now[key] for key in keys)
