"""What Google cannot change of a repository, cluster or pool: a change makes it anew, and models on it stop.

Google's provider deletes such a pool before it makes the next one, since both have the same name. The
program does not see the provider's plan, so each run tells in its outputs what things were made with, and
the next one compares. A test holds the table to what the stand-in of the provider replaces, for every
setting. Sources: the provider's documentation ("forces a new resource"), and
https://github.com/hashicorp/terraform-provider-google/issues/23248 for the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi

from components.config import gpus
from components.config.google import GoogleSettings, NodeSettings

#: Settings of a pool (`google.nodes`) that a pool keeps for life, beside its place.
OF_POOL = (
    *("name", "gpu", "gpus_per_node", "driver", "provisioning", "reservation"),
    *("service_account", "secondary_boot_disk", "local_ssds"),
)
#: Those that Google changes by making one node after another anew:
#: https://cloud.google.com/kubernetes-engine/docs/how-to/node-pools#update-nodes
NODE_BY_NODE = ("machine_type", "disk_type", "disk_gb", "image_streaming", "parallel_pulls")

#: The pool of a created cluster for what is not a model; it has the account of the first pool.
SYSTEM = "system"

#: By the resource (`repository`, `cluster`, `system`, `nodes`, `pools.NAME`) what it was made with, by the
#: setting; a pool's zones too, whose nodes go with them.
MadeWith = dict[str, dict[str, str]]


def made_with(google: GoogleSettings, disks: Mapping[str, int]) -> MadeWith:
    """Return what the stack's resources are made with.

    Args:
        disks: size of the boot disk of each pool, in GB, by its name.
    """
    found: MadeWith = {}
    if not google.repository.existing:
        found["repository"] = {
            "project": google.project,
            "region": google.region,
            "repository.name": google.repository.name,
        }
    cluster = {
        "project": google.project,
        "cluster.location": str(google.location or ""),
        "cluster.name": str(google.cluster.name or google.cluster.stack_reference),
    }
    if google.cluster.create:
        found["cluster"] = {**cluster, "region": google.region}
        found[SYSTEM] = {"name": SYSTEM, _alias("service_account"): _shown(google.nodes.service_account)}
    for nodes in google.all_pools:
        key = "nodes" if nodes is google.nodes else f"pools.{nodes.name}"
        values = {name: getattr(nodes, name) for name in (*OF_POOL, *NODE_BY_NODE)}
        # All pools have the account of the first one. Of provisioning, only spot is the nodes' own.
        values["service_account"] = google.nodes.service_account
        values["provisioning"] = "spot" if nodes.spot else "not spot"
        values |= {"disk_type": nodes.boot_disk_type, "disk_gb": disks.get(nodes.name, nodes.disk_gb)}
        values["local_ssds"] = nodes.ssds_per_node
        values["zones"] = ", ".join(sorted(google.zones_of(nodes)))
        own = {_alias(name): _shown(value) for name, value in values.items()}
        # A cluster of the stack's own that is made anew takes its pools with it.
        place = found.get("cluster", cluster)
        found[key] = {**place, **own}
    return found


def told(
    former: Mapping[str, Mapping[str, str]] | None,
    now: MadeWith,
    models: Mapping[str, Sequence[str]],
    had_pools: bool = False,
    *,
    gone: bool = False,
) -> Iterator[str]:
    """Yield, for the head of a preview, what is made anew and which models stop.

    Args:
        former: what the last run told; None where it told nothing of it.
        now: what the stack says now.
        models: by the key of a pool the models that have pods on it.
        had_pools: whether the last run had pools, whatever it told of them.
        gone: whether the stack has no `modelcar:google` any more.
    """
    if former is None:
        if had_pools and gone:
            yield (
                "DELETED: all that this stack made in Google Cloud, as modelcar:google is gone: its pools, "
                "and its cluster and its repository with all images, where it made these"
            )
        elif had_pools:
            yield (
                "what the pools were made with is not known yet (the last run was an earlier version's): "
                "a step below that replaces a node pool stops its models"
            )
        return
    for key, made in _with_system(former).items():
        wanted = now.get(key)
        if wanted is None:
            if key != SYSTEM:  # it goes with its cluster
                yield _gone(key, made, gone=gone)
            continue
        made = _with_own_ssds(made)
        changed = {
            name: (before, wanted[name])
            for name, before in made.items()
            if wanted.get(name, before) != before
        }
        left = _zones(made) - _zones(wanted) if _zones(made) and _zones(wanted) else set()
        changed.pop(_alias("zones"), None)
        rolling = {_alias(name) for name in NODE_BY_NODE}
        anew = {name: change for name, change in changed.items() if name not in rolling}
        if anew:
            yield _anew(key, made, anew, models)
        elif changed:
            stops = _stops(models.get(key, ()))
            yield (
                f"pool {made['name']}: its nodes are made anew one after another ({_changes(changed)}), and "
                f"{stops} on each meanwhile"
            )
        if left and not anew:
            yield (
                f"pool {made['name']}: its nodes in {', '.join(sorted(left))} are deleted (zones "
                f"{made['zones']} → {wanted['zones']}), and {_stops(models.get(key, ()))} there until nodes "
                "in another zone serve"
            )


def _zones(made: Mapping[str, str]) -> set[str]:
    """Return the zones of a pool; none where it did not tell them, as versions before 0.4.0."""
    return set(filter(None, made.get(_alias("zones"), "").split(", ")))


def _with_system(former: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
    """Return it with the system pool of a created cluster, which versions before 0.4.0 did not tell."""
    account = _alias("service_account")
    first = former.get("nodes", {})
    if "cluster" not in former or SYSTEM in former or account not in first:
        return former
    return {**former, SYSTEM: {"name": SYSTEM, account: first[account]}}


def _with_own_ssds(made: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a pool was made with, with the local SSDs that its machine always has.

    Versions before 0.4.0 told only those that the stack set.
    """
    ssds, machine = _alias("local_ssds"), gpus.MACHINES.get(made.get(_alias("machine_type"), ""))
    if machine is None or made.get(ssds):
        return made
    return {**made, ssds: _shown(machine.own_ssds)}


def _anew(
    key: str,
    made: Mapping[str, str],
    changed: Mapping[str, tuple[str, str]],
    models: Mapping[str, Sequence[str]],
) -> str:
    why = _changes(changed)
    if key == "repository":
        return (
            f"REPLACED: repository {made['repository.name']} ({why}): all images in it are deleted, those of "
            "former versions too, and every model is pushed again"
        )
    if key == "cluster":
        every = [name for names in models.values() for name in names]
        return (
            f"REPLACED: cluster {made['cluster.name']} ({why}): all that runs on it is deleted, and "
            f"{_stops(every)} until the new one serves"
        )
    if key == SYSTEM:
        return (
            f"REPLACED: pool {SYSTEM} ({why}): it is deleted before the new one is made, and all that runs "
            "on it stops until then, KServe too"
        )
    return (
        f"REPLACED: pool {made['name']} ({why}): it is deleted before the new one is made, and "
        f"{_stops(models.get(key, ()))} until new nodes serve; they may be hard to get"
    )


def _gone(key: str, made: Mapping[str, str], *, gone: bool) -> str:
    if key == "repository" and gone:
        return (
            f"DELETED: repository {made['repository.name']}, with all images in it, those of former versions "
            "too"
        )
    if key == "repository":
        return f"repository {made['repository.name']} is no longer this stack's own"
    if key == "cluster":
        return f"DELETED: cluster {made['cluster.name']}, with all that runs on it"
    return f"DELETED: pool {made['name']}; models that were on it " + (
        "have no node of this stack's any more" if gone else "move to another one"
    )


def _stops(models: Sequence[str]) -> str:
    if not models:
        return "no model stops"
    return f"{', '.join(models)} {'stop' if len(models) > 1 else 'stops'}"


def _changes(changed: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(
        f"{name} {before or 'none'} → {after or 'none'}" for name, (before, after) in changed.items()
    )


def _alias(name: str) -> str:
    return str(NodeSettings.model_fields[name].alias)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in {None, 0} else str(value)


def output(google: GoogleSettings, pools: Mapping[str, Any]) -> pulumi.Output[MadeWith]:
    """Return what the next run compares with: known once the pools are as it says.

    Args:
        pools: the components (`GpuNodePool`) by the pool's name.
    """
    disks = {name: pool.disk_gb for name, pool in pools.items()}
    there = [pool.name for pool in pools.values()]
    return pulumi.Output.all(*there).apply(lambda _: made_with(google, disks))
