"""KServe in the cluster, installed with modelcar on; operations/kserve_fit.py looks at one that is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pulumi
import pulumi_kubernetes as kubernetes
from pydantic import Field

from components.fields import Label, quantity_field
from components.google.settings import Section
from components.options import child, unknown


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
    modelcar_cpu, modelcar_memory: of the init container, and of the sidecar that keeps the weights mounted.
        KServe's own 10m lets a container run 1 ms in each 100, the runtime's own work for its start too: the
        server waits for its weights meanwhile, 2.5 s of it on a machine with a GPU.
    """

    install: bool = False
    verify: bool = True
    namespace: Label = "kserve"
    version: str = Field("v0.19.0", pattern=r"^v\d+\.\d+\.\d+$")
    chart_repository: str = Field("oci://ghcr.io/kserve/charts", pattern=r"^(oci://\S+|/\S+|\./\S+)$")
    cert_manager_version: str = Field("v1.17.0", pattern=r"^v\d+\.\d+\.\d+$")
    modelcar_uid: int = Field(1010, ge=1, le=65535)
    modelcar_cpu: Annotated[str, quantity_field("100m")] = "100m"
    modelcar_memory: Annotated[str, quantity_field("15Mi")] = "15Mi"


CERT_MANAGER_CHARTS = "https://charts.jetstack.io"


@dataclass(frozen=True)
class KServePlatformArgs:
    """settings: of KServe; mode: the default deployment mode (Standard or Knative).

    unread: in a preview, do not let the provider download the charts; it shows each release as changed then.
    """

    settings: KServeSettings
    mode: Literal["Standard", "Knative"]
    unread: bool = False


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
        # The provider reads no chart of a release of which anything is not known yet.
        description = unknown() if args.unread and pulumi.runtime.is_dry_run() else None
        cert_manager = helm.Release(
            f"{name}-cert-manager",
            name="cert-manager",
            chart="cert-manager",
            repository_opts=helm.RepositoryOptsArgs(repo=CERT_MANAGER_CHARTS),
            version=settings.cert_manager_version,
            namespace="cert-manager",
            create_namespace=True,
            values={"crds": {"enabled": True}},
            description=description,
            opts=child(self, opts),
        )
        definitions = helm.Release(
            f"{name}-crds",
            name="kserve-crd",
            chart=f"{settings.chart_repository}/kserve-crd",
            version=settings.version,
            namespace=settings.namespace,
            create_namespace=True,
            description=description,
            opts=child(self, opts),
        )
        controller = helm.Release(
            name,
            name="kserve",
            chart=f"{settings.chart_repository}/kserve-resources",
            version=settings.version,
            namespace=settings.namespace,
            values=values(settings, args.mode),
            description=description,
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
