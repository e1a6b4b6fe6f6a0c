"""KServe in the cluster, with modelcar on, by its own charts; `cluster.kserve_fit` looks at what is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pulumi
import pulumi_kubernetes as kubernetes

from components.config.kserve import KServeSettings
from components.engine.options import OWNED, child, unknown

_DEFAULTS = KServeSettings.model_fields

_CERT_MANAGER = "cert-manager"
#: Parts of the values of cert-manager's chart that name an image each; the controller's stands at the top.
_CERT_MANAGER_PARTS = ("webhook", "cainjector", "acmesolver", "startupapicheck")
#: Serves the controller's metrics, in KServe's charts of v0.19 and v0.20.
RBAC_PROXY = "brancz/kube-rbac-proxy:v0.18.0"


@dataclass(frozen=True, kw_only=True)
class KServePlatformArgs:
    """Which KServe is installed, and how.

    version: Version of KServe and of its charts.
    mode: The default deployment mode.
    namespace: Namespace of KServe's controller.
    chart_repository: Where KServe's charts are: oci://HOST/PATH, or a folder.
    install_cert_manager: Install cert-manager too. False where the cluster has one.
    cert_manager_version: Version of cert-manager, which KServe's webhooks need.
    cert_manager_repository: Where cert-manager's chart is: https://HOST, oci://HOST/PATH, or a folder.
    image_registry: HOST/PATH that the charts' images were copied to, by the names that they have.
    modelcar_uid: User that the pods' processes run as (KServe's uidModelcar).
    modelcar_cpu: Processors of the containers that KServe adds to a pod for the weights.
    modelcar_memory: Memory of the containers that KServe adds to a pod for the weights.
    unread: In a preview, do not let the provider download the charts. Each release shows as changed then.
    """

    version: str = _DEFAULTS["version"].default
    mode: Literal["Standard", "Knative"] = "Standard"
    namespace: str = _DEFAULTS["namespace"].default
    chart_repository: str = _DEFAULTS["chart_repository"].default
    install_cert_manager: bool = _DEFAULTS["install_cert_manager"].default
    cert_manager_version: str = _DEFAULTS["cert_manager_version"].default
    cert_manager_repository: str = _DEFAULTS["cert_manager_repository"].default
    image_registry: str | None = _DEFAULTS["image_registry"].default
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

    KServe's webhooks get their certificate from cert-manager, so one has to be there: this one, or another.
    The chart's names are fixed and cluster-wide: a cluster has one KServe. Removing `kserve-crd` removes
    every InferenceService, and removing cert-manager every Certificate: where others use cert-manager,
    install it apart from this.

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
        # Helm removes no namespace that it made, so these are resources of their own.
        spaces = {
            space: kubernetes.core.v1.Namespace(
                f"{name}-namespace-{space}",
                metadata={"name": space, "annotations": OWNED},
                opts=child(self, opts),
            )
            for space in [settings.namespace, *([_CERT_MANAGER] if settings.install_cert_manager else [])]
        }
        needed: list[pulumi.Resource] = []
        if settings.install_cert_manager:
            place = settings.cert_manager_repository
            web = place.startswith("https://")
            needed.append(
                helm.Release(
                    f"{name}-cert-manager",
                    name=_CERT_MANAGER,
                    chart="cert-manager" if web else f"{place}/cert-manager",
                    repository_opts=helm.RepositoryOptsArgs(repo=place) if web else None,
                    version=settings.cert_manager_version,
                    namespace=_CERT_MANAGER,
                    values=cert_manager_values(settings),
                    description=description,
                    opts=child(self, opts, spaces[_CERT_MANAGER]),
                )
            )
        definitions = helm.Release(
            f"{name}-crds",
            name="kserve-crd",
            chart=f"{settings.chart_repository}/kserve-crd",
            version=settings.version,
            namespace=settings.namespace,
            description=description,
            opts=child(self, opts, spaces[settings.namespace]),
        )
        controller = helm.Release(
            name,
            name="kserve",
            chart=f"{settings.chart_repository}/kserve-resources",
            version=settings.version,
            namespace=settings.namespace,
            values=values(settings, args.mode),
            description=description,
            opts=child(self, opts, *needed, definitions),
        )
        self.version = controller.status.apply(lambda _: settings.version)
        self.register_outputs({"version": self.version})


def values(settings: KServeSettings, mode: str) -> dict[str, Any]:
    """Return the values of KServe's chart `kserve-resources` (v0.19, v0.20).

    In Standard mode no Ingress is made: a model is reached inside the cluster only, until somebody decides.
    """
    closed = mode == "Standard"
    made: dict[str, Any] = {
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
    if registry := settings.image_registry:
        made["storage"]["image"] = f"{registry}/kserve/storage-initializer"
        made["controller"] |= {
            "image": f"{registry}/kserve/kserve-controller",
            "rbacProxyImage": f"{registry}/{RBAC_PROXY}",
        }
        made |= {part: {"image": f"{registry}/kserve/{part}"} for part in ("agent", "router")}
    return {"kserve": made}


def cert_manager_values(settings: KServeSettings) -> dict[str, Any]:
    """Return the values of cert-manager's chart: its kinds, and where its images were copied to."""
    made: dict[str, Any] = {
        # By default the chart leaves its kinds behind; a removed stack leaves nothing.
        "crds": {"enabled": True, "keep": False},
        # Not in kube-system, where its leases would stay, and where GKE Autopilot lets nobody write:
        # https://cert-manager.io/docs/installation/compatibility/#gke-autopilot
        "global": {"leaderElection": {"namespace": _CERT_MANAGER}},
    }
    if registry := settings.image_registry:
        image = f"{registry}/jetstack/cert-manager-"
        made["image"] = {"repository": f"{image}controller"}
        made |= {part: {"image": {"repository": image + part}} for part in _CERT_MANAGER_PARTS}
    return made
