"""An object that is about to be made, and that somebody else has made already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from components.cluster.access import JSON, Cluster, ClusterError
from components.config.cluster import DestinationSettings
from components.config.problems import NAMESPACE
from modelcar.errors import InputError

#: The provider's own field managers: what an `up` made that broke off before it could say so.
PULUMI = "pulumi-kubernetes"

#: Where objects are, and the setting that takes them over (None: there is none), by kind.
KINDS: dict[str, tuple[str, str | None]] = {
    "Namespace": ("/api/v1/namespaces/{name}", "importExisting"),
    "NetworkPolicy": (
        "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}",
        "importObjects",
    ),
    "ServingRuntime": (
        "/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/servingruntimes/{name}",
        "importObjects",
    ),
    "InferenceService": (
        "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{name}",
        "importObjects",
    ),
    "ScaledObject": ("/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects/{name}", None),
}


def refuse_existing(settings: DestinationSettings, wanted: Mapping[str, Any]) -> None:
    """Refuse to make an object that is there and that no Pulumi program made.

    A cluster that cannot be asked is the provider's to tell of.

    Args:
        settings: how the cluster is reached. wanted: the object as the program declares it.

    Raises:
        pulumi.RunError: it is there, with who made it and what to do.
    """
    kind, metadata = str(wanted.get("kind")), wanted.get("metadata") or {}
    if kind not in KINDS:
        return
    path, setting = KINDS[kind]
    try:
        cluster = Cluster.of(settings)
        found = cluster.get(path.format(namespace=metadata.get("namespace"), name=metadata.get("name")))
    except (ClusterError, InputError):
        return
    if found is None or "deletionTimestamp" in found["metadata"]:
        return
    makers = makers_of(found)
    if any(maker.startswith(PULUMI) for maker in makers):
        return
    name = "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))
    other = f"{NAMESPACE}:createNamespace false" if kind == "Namespace" else "another name"
    fix = f"choose {other}, or delete it"
    if setting:
        elsewhere = "" if kind == "Namespace" else "; in a program of your own, the argument `imports`"
        fix = f"take it over as it is ({NAMESPACE}:{setting}: [{kind}]{elsewhere}; docs/migrate.md), {fix}"
    raise pulumi.RunError(
        f"{kind} {name} is there already, made by {', '.join(makers) or 'somebody else'}: not changed\n"
        f"  fix: {fix}"
    )


def makers_of(found: JSON) -> list[str]:
    """Return who wrote an object's fields, controllers that only report on it left out."""
    entries = found["metadata"].get("managedFields") or []
    return list(
        dict.fromkeys(str(one.get("manager")) for one in entries if one.get("subresource") != "status")
    )
