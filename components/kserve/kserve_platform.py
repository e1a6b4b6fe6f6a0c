"""KServe in the cluster, with modelcar on, by its own charts; `cluster.kserve_fit` looks at what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_kubernetes as kubernetes

from components.config.kserve import KServeSettings
from components.engine.options import child, unknown

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
