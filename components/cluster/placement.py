"""`modelcar:placement auto`: where the storage URI goes, as the cluster's own KServe has shown.

Found out by the smoke test in an `up`, kept in a ConfigMap of the stack, and found out again when KServe, its
settings or the nodes have changed since. A preview makes nothing in the cluster: it takes what was found out
last.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.cluster.access import Cluster, ClusterError
from components.cluster.probe_image import NAME, push_probe
from components.cluster.smoke import kserve_version, smoke, table
from components.cluster.smoke_volumes import node_kinds
from components.config.fitted import fitted
from components.config.settings import Settings
from modelcar.base import read_base
from modelcar.errors import refuse

#: What every KServe honours that this project installs (docs/decisions/0001).
ASSUMED = "servingRuntime"
#: How the ConfigMap of a stack with a list of models begins.
_OF_LIST = "modelcar-smoke-test"


@dataclass(frozen=True)
class Found:
    """placement: to use. fingerprint: of the KServe that it was found out with; empty where it is assumed."""

    placement: str
    fingerprint: str = ""


def find(
    settings: Settings,
    project: Path,
    *,
    preview: bool,
    reachable: bool,
    say: Callable[[str], None],
    stack: str,
    registry: bool = True,
) -> Found:
    """Return the placement to use.

    Args:
        settings: of the stack, with placement auto.
        project: the program's folder.
        preview: nothing may be made in the cluster.
        reachable: whether the cluster can be asked at all.
        say: told what happens.
        stack: its name.
        registry: whether the stack's registry is there already; the test pushes an image to it.

    Raises:
        InputError: no placement works, KServe is not there, rights are missing, or API server or registry
            went away.
    """
    if settings.kserve.install or not reachable:
        why = f"as KServe {settings.kserve.version} honours it"
        say(f"placement auto: {ASSUMED}, {why if settings.kserve.install or registry else _later(settings)}")
        return Found(ASSUMED)

    try:
        cluster = Cluster.of(settings)
        kept = _kept(cluster, settings, stack)
        return _ask(cluster, settings, project, kept, preview=preview, registry=registry, say=say)
    except ClusterError as error:
        raise refuse(
            "modelcar:placement",
            f"auto, and the cluster cannot be asked: {error}",
            allowed="a cluster that this machine may ask and test",
            fix=f"try again; or set the placement yourself: pulumi config set modelcar:placement {ASSUMED}",
        ) from None


def _later(settings: Settings) -> str:
    return (
        f"as the test pushes an image, and this `pulumi up` makes the registry {settings.registry}; the next "
        "one tests"
    )


def _ask(
    cluster: Cluster,
    settings: Settings,
    project: Path,
    kept: Found | None,
    *,
    preview: bool,
    registry: bool,
    say: Callable[[str], None],
) -> Found:
    nodes = node_kinds(cluster)
    now = fingerprint(cluster, settings, nodes)
    if kept and (preview or kept.fingerprint == now):
        if not kept.fingerprint:
            say(f"placement auto: {kept.placement}, as before, and not tested yet; `pulumi up` tests it")
        elif kept.fingerprint != now:
            say("placement auto: KServe or nodes have changed since it was tested; `pulumi up` tests again")
        return kept
    if not registry:
        found = kept or Found(ASSUMED)
        say(f"placement auto: {found.placement}, {_later(settings)}")
        return found
    if preview:
        say(f"placement auto: not tested yet, so this preview assumes {ASSUMED}; `pulumi up` tests it")
        return Found(ASSUMED)
    # Of nodes of several kinds, or that may not be listed, one is tested, and what was assumed was not: what
    # serves already is changed only where it works no more.
    prefer = kept.placement if kept and (len(nodes) != 1 or not kept.fingerprint) else None
    return Found(_test(cluster, settings, project, prefer, say), now)


def fingerprint(cluster: Cluster, settings: Settings, nodes: tuple[str, ...]) -> str:
    """Return what changes when KServe, its settings, the deployment mode or the nodes' programs do."""
    path = f"/api/v1/namespaces/{settings.kserve.namespace}/configmaps/inferenceservice-config"
    config = (cluster.get(path) or {}).get("data") or {}
    content = json.dumps(
        [kserve_version(cluster, settings), config, settings.deployment_mode, nodes], sort_keys=True
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def config_map_name(settings: Settings, stack: str) -> str:
    """Return the name of the ConfigMap that keeps what was found out, for all models of a stack.

    Args:
        settings: of one of its models. stack: its name; several may share the namespace.
    """
    if not settings.name:
        return f"{settings.service_name}-smoke-test"
    fit = re.sub(r"[^a-z0-9]+", "-", stack.lower()).strip("-")
    return fitted(f"{_OF_LIST}-{fit}", 253, stack, exact=fit == stack)


def _kept(cluster: Cluster, settings: Settings, stack: str) -> Found | None:
    # That of a version before 0.4.0, which had it for every stack with a list, is kept; it tells of the same
    # cluster whoever made it.
    for name in (config_map_name(settings, stack), *([_OF_LIST] if settings.name else [])):
        found = cluster.get(f"/api/v1/namespaces/{settings.namespace}/configmaps/{name}")
        data = (found or {}).get("data") or {}
        if "placement" in data:
            return Found(str(data["placement"]), str(data.get("fingerprint", "")))
    return None


def _test(
    cluster: Cluster, settings: Settings, project: Path, prefer: str | None, say: Callable[[str], None]
) -> str:
    import httpx  # with a client of registries: only a test pushes

    from modelcar.registry import Target, in_words  # as above

    say("placement auto: testing which one this cluster's KServe honours")
    target = Target(settings.registry, NAME, settings.registry_insecure)
    try:
        digest = push_probe(read_base(settings.architecture), project, target)
    except (httpx.HTTPError, OSError) as error:
        why = in_words(target, error).problems[0].value if isinstance(error, httpx.HTTPError) else str(error)
        raise refuse(
            "modelcar:placement",
            f"auto, and the test's image cannot be pushed to {settings.registry}/{NAME}: {why}",
            allowed="a registry that is there, and takes an image from here",
            fix="make its repository, or log in to it; or set the placement yourself: pulumi config set "
            f"modelcar:placement {ASSUMED}",
        ) from None
    probe = f"{settings.registry}/{NAME}@{digest}"
    namespace = settings.smoke_namespace
    found = smoke(cluster, settings, probe, namespace=namespace, prefer=prefer, notice=say)
    for line in table(found):
        say(line)
    if found.chosen is None:
        reasons = "; ".join(f"{outcome.placement}: {outcome.reason}" for outcome in found.outcomes)
        raise refuse(
            "modelcar:placement",
            f"auto, and none works on this cluster: {reasons}",
            allowed="a KServe that honours one of them",
            fix="docs/operations/smoke-test.md says what each reason means",
        )
    return found.chosen
