"""An object that is about to be made, and that somebody else has made already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.cluster.access import JSON, Cluster, ClusterError
from components.config.cluster import DestinationSettings
from components.config.problems import NAMESPACE
from components.engine.this_stack import MARK
from modelcar.errors import InputError

#: The provider's own field managers: what an `up` made that broke off before it could say so.
PULUMI = "pulumi-kubernetes"

#: Where objects are, by kind.
KINDS = {
    "Namespace": "/api/v1/namespaces/{name}",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps/{name}",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}",
    "ServingRuntime": "/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/servingruntimes/{name}",
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{name}",
    "ScaledObject": "/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects/{name}",
}
#: A kind of cert-manager's, and what asks for it.
_CERTIFICATES = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/certificates.cert-manager.io"
CERT_MANAGER, KSERVE = "CertManagerNamespace", "KServeNamespace"
_ARGUMENT = "; in a program of your own, the argument `imports`"


@dataclass(frozen=True)
class Ways:
    """What leads on. instead: of making it. imports: what takes it over as it is; None where nothing does."""

    instead: str
    imports: str | None = None

    @property
    def takes_over(self) -> str:
        """What takes it over, in words."""
        return f"take it over as it is ({self.imports}; docs/migrate.md)" if self.imports else ""


_OTHER = Ways(f"another name ({NAMESPACE}:serviceName)")
_OF_MODEL = {
    kind: Ways(_OTHER.instead, f"{NAMESPACE}:importObjects: [{kind}]{_ARGUMENT}")
    for kind in ("NetworkPolicy", "ServingRuntime", "InferenceService")
}
_KSERVES = f"{NAMESPACE}:importExisting: [KServeNamespaces], for KServe's and cert-manager's{_ARGUMENT}"
#: By what an object is for.
WAYS = {
    "Namespace": Ways(f"{NAMESPACE}:createNamespace false", f"{NAMESPACE}:importExisting: [Namespace]"),
    KSERVE: Ways(f"{NAMESPACE}:kserve.install false, where KServe is there already", _KSERVES),
    CERT_MANAGER: Ways(
        f"{NAMESPACE}:kserve.installCertManager false, where cert-manager is there already", _KSERVES
    ),
    "ConfigMap": Ways(f"a {NAMESPACE}:placement other than auto"),
    "SharedRuntime": Ways(f"another name ({NAMESPACE}:sharedRuntime)"),
    **_OF_MODEL,
    "EgressPolicy": _OF_MODEL["NetworkPolicy"],
}


def refuse_existing(settings: DestinationSettings, wanted: Mapping[str, Any], use: str | None = None) -> None:
    """Refuse to make an object that is there and that this stack did not make.

    A cluster that cannot be asked is the provider's to tell of.

    Args:
        settings: how the cluster is reached. wanted: the object as the program declares it.
        use: what it is for, where its kind does not say it.

    Raises:
        pulumi.RunError: it is there, with who made it and what to do.
    """
    kind, metadata = str(wanted.get("kind")), wanted.get("metadata") or {}
    if kind not in KINDS:
        return
    if use == CERT_MANAGER:
        _refuse_cert_manager(_found(settings, _CERTIFICATES))
    path = KINDS[kind].format(namespace=metadata.get("namespace"), name=metadata.get("name"))
    found = _found(settings, path)
    if found is None:
        return
    name = "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))
    if told := _refusal(found, kind, _mark(metadata), ways_of(use or kind)):
        made_by, fix = told
        raise pulumi.RunError(f"{kind} {name} is there already, made by {made_by}: not changed\n  fix: {fix}")


def _found(settings: DestinationSettings, path: str) -> JSON | None:
    """Return what is there and stays; None where nothing is, or the cluster cannot be asked."""
    try:
        found = Cluster.of(settings).get(path)
    except (ClusterError, InputError):
        return None
    return None if found is None or "deletionTimestamp" in found["metadata"] else found


def _refuse_cert_manager(found: JSON | None) -> None:
    """Refuse a second cert-manager, wherever the first one is; found: one of its kinds.

    Helm would refuse it as well, after the namespace is made and in its own words.
    """
    if found is None:
        return
    notes = found["metadata"].get("annotations") or {}
    release = [notes.get(f"meta.helm.sh/release-{part}") for part in ("namespace", "name")]
    if release == ["cert-manager", "cert-manager"]:
        return  # perhaps this stack's own; its namespace tells
    by = f"Helm's release {release[0]}/{release[1]}" if all(release) else ", ".join(makers_of(found))
    raise pulumi.RunError(
        f"cert-manager is there already, made by {by or 'somebody else'}: not installed a second time\n"
        f"  fix: pulumi config set --path {NAMESPACE}:kserve.installCertManager false (in a program of your "
        "own, install_cert_manager=False)"
    )


def ways_of(use: str) -> Ways:
    """Return what leads on; use: what an object is for."""
    return WAYS.get(use, _OTHER)


def _refusal(found: JSON, kind: str, mark: str | None, ways: Ways) -> tuple[str, str] | None:
    """Return who made an object, and what to do; None where this stack may have made it.

    Args:
        mark: of this stack, on what it makes.
    """
    makers, other, takes_over = makers_of(found), _mark(found["metadata"]), ways.takes_over
    if not any(maker.startswith(PULUMI) for maker in makers):
        # With a Namespace goes all that is in it.
        delete = "" if kind == "Namespace" else ", or delete it"
        choose = f"choose {ways.instead}{delete}"
        return ", ".join(makers) or "somebody else", f"{takes_over}, or {choose}" if takes_over else choose
    if mark is None or other == mark:
        return None
    if other:
        gone = f"; where that stack is gone, {takes_over or 'delete it'}"
        return f"the stack {other}", f"choose {ways.instead}{gone}"
    if kind != "Namespace":
        return None
    # `destroy` of each stack that owns it would delete the other ones' models.
    return (
        "another stack or program of Pulumi, or by one of a version before 0.4.0",
        f"choose {ways.instead}; where an `up` of this stack made it and broke off, {takes_over}",
    )


def _mark(metadata: Mapping[str, Any]) -> str | None:
    found = (metadata.get("annotations") or {}).get(MARK)
    return None if found is None else str(found)


def makers_of(found: JSON) -> list[str]:
    """Return who wrote an object's fields, controllers that only report on it left out."""
    entries = found["metadata"].get("managedFields") or []
    return list(
        dict.fromkeys(str(one.get("manager")) for one in entries if one.get("subresource") != "status")
    )
