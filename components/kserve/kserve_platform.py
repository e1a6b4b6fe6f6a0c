"""KServe in the cluster, with modelcar on, by its own charts; `cluster.kserve_fit` looks at what is there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Literal

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster import existing, webhooks
from components.cluster.guard import ClusterAccess, guarded
from components.config.arguments import validated
from components.config.cluster import DestinationSettings
from components.config.kserve import CERT_MANAGER, KServeSettings
from components.engine.inputs import Arguments
from components.engine.options import child, imported, unknown
from components.engine.secrets import used
from components.engine.this_stack import marked
from components.engine.threads import in_thread
from components.kserve.spec import in_own_words
from modelcar.errors import InputError

_DEFAULTS = KServeSettings.model_fields

#: Parts of the values of cert-manager's chart that name an image each; the controller's stands at the top.
_CERT_MANAGER_PARTS = ("webhook", "cainjector", "acmesolver", "startupapicheck")
#: Serves the controller's metrics, in KServe's charts of v0.19 and v0.20.
RBAC_PROXY = "brancz/kube-rbac-proxy:v0.18.0"


@dataclass(frozen=True, kw_only=True)
class KServePlatformArgs(Arguments):
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
    firewall_rule: What lets the control plane through to KServe's webhooks, told where they do not answer.
    access: How the API server is asked whether KServe's webhooks answer. Without it nothing waits for them.
    imports: Kinds of objects that are there already (Namespace: those of KServe and cert-manager), and are
        taken over as they are.
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
    firewall_rule: str = webhooks.WAY_IN
    access: ClusterAccess | None = None
    imports: Collection[Literal["Namespace"]] = ()

    def settings(self) -> KServeSettings:
        """Return them as settings, checked.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        validated(DestinationSettings, {"deployment_mode": self.mode}, {"deploymentMode": "mode"})
        names = {field.name for field in fields(self)} & KServeSettings.model_fields.keys()
        return KServeSettings(install=True, **{name: getattr(self, name) for name in names})


class KServePlatform(pulumi.ComponentResource):
    """cert-manager and KServe, by their own charts at pinned versions, with modelcar on.

    KServe's webhooks get their certificate from cert-manager, so one has to be there: this one, or another.
    The chart's names are fixed and cluster-wide: a cluster has one KServe. Removing `kserve-crd` removes
    every InferenceService, and removing cert-manager every Certificate: where others use cert-manager,
    install it apart from this.

    A release of KServe is done some seconds before its webhooks answer, and the API server refuses an
    InferenceService until then. Let models depend on `ready` (`depends_on=[kserve.ready]`) and not on the
    component, which does not wait. Without `access` nobody is asked: `ready` is there with the release.

    Outputs:
        version: KServe's, known once its webhooks answer.
        ready: the component itself, for `depends_on`: there once its webhooks answer.

    Raises (inside of the outputs):
        pulumi.RunError: the API server does not reach the webhooks.
    """

    version: pulumi.Output[str]
    ready: pulumi.Output[pulumi.Resource]

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
        uses = {settings.namespace: existing.KSERVE}
        if settings.install_cert_manager:
            uses[CERT_MANAGER] = existing.CERT_MANAGER
        spaces = {
            space: kubernetes.core.v1.Namespace(
                f"{name}-namespace-{space}",
                metadata={"name": space, "annotations": marked()},
                opts=imported(
                    child(self, opts),
                    "Namespace",
                    args.imports,
                    space,
                    hooks=guarded(use, f"{name}-namespace-{space}", args.access),
                ),
            )
            for space, use in uses.items()
        }
        needed: list[pulumi.Resource] = []
        if settings.install_cert_manager:
            place = settings.cert_manager_repository
            web = place.startswith("https://")
            needed.append(
                helm.Release(
                    f"{name}-cert-manager",
                    name=CERT_MANAGER,
                    chart="cert-manager" if web else f"{place}/cert-manager",
                    repository_opts=helm.RepositoryOptsArgs(repo=place) if web else None,
                    version=settings.cert_manager_version,
                    namespace=CERT_MANAGER,
                    values=cert_manager_values(settings),
                    description=description,
                    opts=child(self, opts, spaces[CERT_MANAGER]),
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
        self.ready = self._answering(controller, args)
        self.version = pulumi.Output.all(controller.status, self.ready).apply(lambda _: settings.version)
        self.register_outputs({"version": self.version})

    def _answering(
        self, controller: kubernetes.helm.v3.Release, args: KServePlatformArgs
    ) -> pulumi.Output[pulumi.Resource]:
        """Return the component once its webhooks answer; at once in a preview, and where nobody is asked."""
        access = args.access
        if access is None or pulumi.runtime.is_dry_run():
            return controller.urn.apply(lambda _: self)

        async def wait(found: list[Any]) -> pulumi.Resource:
            try:
                await in_thread(
                    webhooks.await_answer,
                    access.place(found[1]),
                    args.namespace,
                    args.firewall_rule,
                    patience=webhooks.PATIENCE,
                    say=pulumi.log.info,
                )
            except InputError as error:
                said = f"KServe is installed, and no model was declared:\n{error}"
                with in_own_words():
                    raise pulumi.RunError(said) from None
            return self

        return pulumi.Output.all(controller.status, used(access.kubeconfig)).apply(wait)


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
        "global": {"leaderElection": {"namespace": CERT_MANAGER}},
    }
    if registry := settings.image_registry:
        image = f"{registry}/jetstack/cert-manager-"
        made["image"] = {"repository": f"{image}controller"}
        made |= {part: {"image": {"repository": image + part}} for part in _CERT_MANAGER_PARTS}
    return made
