"""KServe in the cluster: installed with modelcar on, or looked at before anything relies on it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pulumi
import pulumi_kubernetes as kubernetes
from pydantic import Field

from components.fields import Label, quantity, quantity_field
from components.google.settings import Section
from components.options import child
from modelcar.errors import Problem

#: KServe's own configuration: https://kserve.github.io/website/docs/admin-guide/configurations
CONFIG_MAP = "inferenceservice-config"

#: Kubernetes takes no user above it (runAsUser).
LAST_UID = 2**31 - 1
#: Bytes; less is a number without its unit, and no container starts in it.
LEAST_MEMORY = 4.0 * 1024**2
_EXPONENT = re.compile(r"\+?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+|[nu])")


class KServeSettings(Section):
    """`modelcar:kserve`.

    install: install cert-manager and KServe by Helm; otherwise they have to be there already.
    verify: where they are there already, refuse a cluster whose KServe has modelcar switched off, or runs
        it as root.
    namespace: of its controller.
    version: of KServe and of its charts.
    chart_repository: where its charts are.
    cert_manager_version: of cert-manager, which KServe's webhooks need.
    modelcar_uid: user that the pods' processes run as, so that the link to the weights can be followed.
    modelcar_cpu, modelcar_memory: of the sidecar that keeps the weights mounted.
    """

    install: bool = False
    verify: bool = True
    namespace: Label = "kserve"
    version: str = Field("v0.19.0", pattern=r"^v\d+\.\d+\.\d+$")
    chart_repository: str = Field("oci://ghcr.io/kserve/charts", pattern=r"^(oci://\S+|/\S+|\./\S+)$")
    cert_manager_version: str = Field("v1.17.0", pattern=r"^v\d+\.\d+\.\d+$")
    modelcar_uid: int = Field(1010, ge=1, le=65535)
    modelcar_cpu: Annotated[str, quantity_field("10m")] = "10m"
    modelcar_memory: Annotated[str, quantity_field("15Mi")] = "15Mi"


@dataclass(frozen=True)
class KServePlatformArgs:
    """settings: of KServe; mode: the default deployment mode (Standard or Knative)."""

    settings: KServeSettings
    mode: Literal["Standard", "Knative"]


class KServePlatform(pulumi.ComponentResource):
    """cert-manager and KServe, by their own charts at pinned versions, with modelcar on.

    KServe's webhooks get their certificate from cert-manager, so it has to be there. The chart's names are
    fixed and cluster-wide: a cluster has one KServe. Removing `kserve-crd` removes every InferenceService.

    Outputs:
        version: KServe's, known once its webhooks answer.
    """

    version: pulumi.Output[str]

    def __init__(
        self, name: str, args: KServePlatformArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the releases, each after what it needs."""
        super().__init__("modelcar:kserve:KServePlatform", name, None, opts)
        settings = args.settings
        helm = kubernetes.helm.v3
        cert_manager = helm.Release(
            f"{name}-cert-manager",
            name="cert-manager",
            chart="cert-manager",
            repository_opts=helm.RepositoryOptsArgs(repo="https://charts.jetstack.io"),
            version=settings.cert_manager_version,
            namespace="cert-manager",
            create_namespace=True,
            values={"crds": {"enabled": True}},
            opts=child(self, opts),
        )
        definitions = helm.Release(
            f"{name}-crds",
            name="kserve-crd",
            chart=f"{settings.chart_repository}/kserve-crd",
            version=settings.version,
            namespace=settings.namespace,
            create_namespace=True,
            opts=child(self, opts),
        )
        controller = helm.Release(
            name,
            name="kserve",
            chart=f"{settings.chart_repository}/kserve-resources",
            version=settings.version,
            namespace=settings.namespace,
            values=values(settings, args.mode),
            opts=child(self, opts, cert_manager, definitions),
        )
        self.version = controller.status.apply(lambda _: settings.version)
        self.register_outputs({"version": self.version})


def values(settings: KServeSettings, mode: str) -> dict[str, Any]:
    """Return the values of KServe's chart `kserve-resources` (v0.19).

    In Standard mode no Ingress is made: a model is reached inside the cluster only, until somebody decides.
    """
    closed = mode == "Standard"
    return {
        "kserve": {
            "storage": {
                "enableModelcar": True,
                "uidModelcar": settings.modelcar_uid,
                "cpuModelcar": settings.modelcar_cpu,
                "memoryModelcar": settings.modelcar_memory,
            },
            "controller": {
                "deploymentMode": mode,
                "gateway": {"disableIngressCreation": closed, "disableIstioVirtualHost": closed},
            },
        }
    }


class UnfitKServeError(pulumi.RunError):
    """The cluster's KServe would accept an oci:// URI, and its pod would then fail or never come about."""


def verify(settings: KServeSettings, mode: str, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Read the configuration of the KServe that is there, and refuse one that serves no modelcar.

    With modelcar off, an InferenceService with an oci:// URI passes admission, and its pod fails later, in
    the storage initializer. With a user that the pods may not have, the pod fails later too.

    Args:
        settings: of KServe.
        mode: Knative where any model is served so, otherwise Standard.
        opts: of what is read.

    Raises (inside of an output, so that the preview fails):
        UnfitKServeError: modelcar is off, what is said of it cannot work, or cannot be understood.
    """
    found = kubernetes.core.v1.ConfigMap.get("kserve-config", f"{settings.namespace}/{CONFIG_MAP}", opts=opts)
    found.data.apply(lambda data: require_modelcar(data, mode))
    return found


def require_modelcar(data: Mapping[str, str] | None, mode: str) -> None:
    """Check KServe's configuration.

    Raises:
        UnfitKServeError: something in it keeps modelcars from being served; it has all that is wrong.
    """
    if found := configuration_problems(data, mode):
        raise UnfitKServeError("\n".join(map(str, found)))


def modelcar_enabled(data: Mapping[str, str] | None) -> Any:
    """Return what KServe's configuration says of it: True where it is on, None where it says nothing."""
    return _storage_initializer(data).get("enableModelcar")


def configuration_problems(data: Mapping[str, str] | None, mode: str) -> list[Problem]:
    """Return what keeps this program's pods from being served by a KServe with this configuration.

    As KServe 0.19 reads it (GetStorageInitializerConfigs, ConfigureModelcarToContainer).

    Args:
        data: of the ConfigMap. mode: Standard or Knative.
    """
    section = _storage_initializer(data)
    enabled = section.get("enableModelcar")
    if enabled is not True:
        allowed = "true; otherwise oci:// URIs pass admission and fail in the pod"
        return [_problem("enableModelcar", enabled, allowed, "true")]
    checks = (
        _uid_problem(section.get("uidModelcar"), mode),
        _size_problem("cpuModelcar", section.get("cpuModelcar"), "10m", 0.0),
        _size_problem("memoryModelcar", section.get("memoryModelcar"), "15Mi", LEAST_MEMORY),
    )
    return [problem for problem in checks if problem]


def _storage_initializer(data: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        section = json.loads((data or {})["storageInitializer"])
    except (KeyError, ValueError):
        return {}
    return section if isinstance(section, dict) else {}


def _uid_problem(uid: Any, mode: str) -> Problem | None:
    """KServe makes server and sidecar this user, whatever their own manifests say.

    Where it says none, the pods' own holds, 1010; but in Knative mode a pod has none, and the sidecar is the
    image's user, root, whose files the server may not see through /proc.
    """
    if uid is None:
        if mode == "Standard":
            return None
        allowed = "a user above 0 in Knative mode; otherwise the sidecar is root, and the server cannot read"
        return _problem("uidModelcar", "not set", allowed, "1010")
    if type(uid) is int and 0 < uid <= LAST_UID:
        return None
    allowed = f"a whole number from 1 to {LAST_UID}, without quotes: pods are refused as root (runAsNonRoot)"
    return _problem("uidModelcar", json.dumps(uid), allowed, "1010")


def _size_problem(name: str, value: Any, example: str, least: float) -> Problem | None:
    """KServe takes its own default where nothing is said, and stops at what is no quantity."""
    if value is None or value == "":
        return None
    try:
        fits = quantity(value) >= least
    except (TypeError, ValueError):
        # With an exponent (`15e6`) it is one too, and nobody's mistake.
        fits = isinstance(value, str) and bool(_EXPONENT.fullmatch(value))
    if fits:
        return None
    more = f", at least {least / 1024**2:.0f}Mi" if least else ""
    allowed = f'a Kubernetes quantity in quotes{more}, for example "{example}"'
    return _problem(name, json.dumps(value), allowed, example)


def _problem(name: str, value: Any, allowed: str, wanted: str) -> Problem:
    fix = (
        f"helm upgrade … --set kserve.storage.{name}={wanted}, or install it with this stack "
        "(modelcar:kserve.install)"
    )
    return Problem(f"ConfigMap {CONFIG_MAP}, storageInitializer.{name}", str(value), allowed, fix)
