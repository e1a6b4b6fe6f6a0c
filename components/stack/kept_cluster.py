"""A stack stays in its cluster: Pulumi does not see that a context of kubectl's leads to another one.

Its provider compares kubeconfigs. Where the stack names none, but a context or nothing, Pulumi takes the
objects in its state for those of whatever cluster answers: nothing is made there, and nothing removed in the
former one.
https://github.com/pulumi/pulumi-kubernetes, DiffConfig in provider/pkg/provider/provider.go
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import yaml

from components.cluster import kubeconfig
from components.cluster.access import Cluster, ClusterError
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from modelcar.errors import InputError, refuse

#: Every cluster has this namespace for life, and no two the same: what Kubernetes has of an identity.
_PATH = "/api/v1/namespaces/kube-system"
_WHERE = "docs/troubleshooting.md, 'another cluster than the last run's'"


def is_asked(settings: Settings) -> bool:
    """Tell whether the stack itself says which cluster it is in, and not Google."""
    own = settings.kubeconfig or settings.kube_context or settings.google is None
    return bool(settings.uses_cluster and own)


def uid(settings: Settings, outputs: Mapping[str, Any], *, reachable: bool) -> tuple[str | None, list[str]]:
    """Return what tells the stack's cluster from others, as the outputs keep it, and what to doubt.

    A cluster that cannot be asked, or by somebody who may not, is taken for the last run's.

    Args:
        outputs: of the last run.
        reachable: whether the cluster can be asked.

    Raises:
        InputError: it is another one than in the last run, and Pulumi would not see it.
    """
    if not is_asked(settings):
        return None, []
    before = outputs.get("clusterUid")
    now = _uid(settings) if reachable else None
    if now is None or before in (None, now):
        return now or before, []
    other = f"another cluster than the last run's (its namespace kube-system has uid {now}, and had {before})"
    if settings.kubeconfig or not settings.check_reachable:
        doubt = (
            f"{other}: objects that no step below makes or replaces are not in it. Run `pulumi up --refresh` "
            f"if the former cluster is gone, else `pulumi destroy` there first ({_WHERE})"
        )
        return now, [doubt]
    context = settings.kube_context or _current() or "not set"
    raise refuse(
        f"{NAMESPACE}:kubeContext",
        f"{context}: {other}. Nothing would be made in it, and nothing removed in the former one",
        allowed="a context of the last run's cluster",
        fix="name that one (kubectl config get-contexts); to move, make a new stack, or `pulumi destroy` "
        f"with the former context first ({_WHERE})",
    )


def _uid(settings: Settings) -> str | None:
    try:
        found = Cluster.of(settings).get(_PATH) or {}
    except (ClusterError, InputError):
        return None
    return (found.get("metadata") or {}).get("uid")


def _current() -> str | None:
    with suppress(OSError, yaml.YAMLError):
        return kubeconfig.current_context()
    return None
