"""KServe in the cluster, with modelcar on, by its own charts; `cluster.kserve_fit` looks at what is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pulumi
import pulumi_kubernetes as kubernetes

from components.config.kserve import KServeSettings
from components.engine.options import child, unknown

_DEFAULTS = KServeSettings.model_fields

CERT_MANAGER_CHARTS = "https://charts.jetstack.io"


@dataclass(frozen=True, kw_only=True)
class KServePlatformArgs:
    """Which KServe is installed, and how.

    version: Version of KServe and of its charts.
    mode: The default deployment mode.
    namespace: Namespace of KServe's controller.
    chart_repository: Where KServe's charts are: oci://HOST/PATH, or a folder.
    cert_manager_version: Version of cert-manager, which KServe's webhooks need.
    modelcar_uid: User that the pods' processes run as (KServe's uidModelcar).
    modelcar_cpu: Processors of the containers that KServe adds to a pod for the weights.
    modelcar_memory: Memory of the containers that KServe adds to a pod for the weights.
    unread: In a preview, do not let the provider download the charts. Each release shows as changed then.
    """

    version: str = _DEFAULTS["version"].default
    mode: Literal["Standard", "Knative"] = "Standard"
    namespace: str = _DEFAULTS["namespace"].default
    chart_repository: str = _DEFAULTS["chart_repository"].default
    cert_manager_version: str = _DEFAULTS["cert_manager_version"].default
    modelcar_uid: int = _DEFAULTS["modelcar_uid"].default
    modelcar_cpu: str = _DEFAULTS["modelcar_cpu"].default
    modelcar_memory: str = _DEFAULTS["modelcar_memory"].default
    unread: bool = False

    def settings(self) -> KServeSettings:
        """Return them as settings, checked.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        own = {name: value for name, value in asdict(self).items() if name not in {"mode", "unread"}}
        return KServeSettings(install=True, **own)


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
        settings = args.settings()
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
