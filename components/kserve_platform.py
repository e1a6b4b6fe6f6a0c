"""KServe in the cluster: installed with modelcar on, or looked at before anything relies on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pulumi
import pulumi_kubernetes as kubernetes
from pydantic import Field

from components.fields import Label, quantity_field
from components.google.settings import Section
from components.options import child

#: KServe's own configuration: https://kserve.github.io/website/docs/admin-guide/configurations
CONFIG_MAP = "inferenceservice-config"


class KServeSettings(Section):
    """`modelcar:kserve`.

    install: install cert-manager and KServe by Helm; otherwise they have to be there already.
    verify: where they are there already, refuse a cluster whose KServe has modelcar switched off.
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


class ModelcarOffError(pulumi.RunError):
    """The cluster's KServe would accept an oci:// URI, and then fail to fetch it."""


def verify(settings: KServeSettings, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Read the configuration of the KServe that is there, and refuse one with modelcar off.

    With modelcar off, an InferenceService with an oci:// URI passes admission, and its pod fails later, in
    the storage initializer.

    Raises (inside of an output, so that the preview fails):
        ModelcarOffError: modelcar is off, or the configuration cannot be understood.
    """
    found = kubernetes.core.v1.ConfigMap.get("kserve-config", f"{settings.namespace}/{CONFIG_MAP}", opts=opts)
    found.data.apply(require_modelcar)
    return found


def modelcar_enabled(data: Mapping[str, str] | None) -> Any:
    """Return what KServe's configuration says of it: True where it is on, None where it says nothing."""
    try:
        return json.loads((data or {})["storageInitializer"]).get("enableModelcar")
    except (KeyError, ValueError, AttributeError):
        return None


def require_modelcar(data: Mapping[str, str] | None) -> None:
    """Check KServe's configuration.

    Raises:
        ModelcarOffError: modelcar is off in it.
    """
    enabled = modelcar_enabled(data)
    if enabled is not True:
        raise ModelcarOffError(
            f"ConfigMap {CONFIG_MAP}: storageInitializer.enableModelcar is {enabled}\n"
            "    allowed: true; otherwise oci:// URIs pass admission and fail in the pod\n"
            "    fix: helm upgrade … --set kserve.storage.enableModelcar=true, or install it with this stack "
            "(modelcar:kserve.install)"
        )
