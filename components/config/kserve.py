"""`modelcar:kserve`: the KServe of the cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.config.fields import Label, quantity_field, without_credentials
from components.config.section import Section

#: Written into the state in the clear.
_NO_CREDENTIALS = without_credentials("remove them, and log in with `helm registry login`; or name a mirror")


class KServeSettings(Section):
    """`modelcar:kserve`.

    install: install KServe by Helm, with cert-manager; otherwise they have to be there already.
    install_cert_manager: with `install`: install cert-manager too. False where the cluster has one.
    verify: where they are there already, refuse a cluster whose KServe has modelcar switched off, or runs
        it as root.
    namespace: of its controller.
    version: of KServe and of its charts.
    chart_repository: where its charts are.
    cert_manager_version: of cert-manager, which KServe's webhooks need.
    cert_manager_repository: where cert-manager's chart is.
    image_registry: HOST/PATH that the charts' images were copied to, by the names that they have
        (`kserve/kserve-controller`, `jetstack/cert-manager-webhook`, `brancz/kube-rbac-proxy`), for a
        cluster that reaches no public registry.
    modelcar_uid: user that the pods' processes run as, so that the link to the weights can be followed.
    modelcar_cpu, modelcar_memory: of the init container, and of the sidecar that keeps the weights mounted.
        KServe's own 10m lets a container run 1 ms in each 100, the runtime's own work for its start too: the
        server waits for its weights meanwhile, 2.5 s of it on a machine with a GPU.
    """

    install: bool = False
    install_cert_manager: bool = True
    verify: bool = True
    namespace: Label = "kserve"
    version: str = Field("v0.19.0", pattern=r"^v\d+\.\d+\.\d+$")
    chart_repository: Annotated[str, _NO_CREDENTIALS] = Field(
        "oci://ghcr.io/kserve/charts", pattern=r"^(oci://\S+|/\S+|\./\S+)$"
    )
    cert_manager_version: str = Field("v1.21.2", pattern=r"^v\d+\.\d+\.\d+$")
    cert_manager_repository: Annotated[str, _NO_CREDENTIALS] = Field(
        "https://charts.jetstack.io", pattern=r"^(https://\S+|oci://\S+|/\S+|\./\S+)$"
    )
    image_registry: str | None = Field(None, pattern=r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*$")
    modelcar_uid: int = Field(1010, ge=1, le=65535)
    modelcar_cpu: Annotated[str, quantity_field("100m")] = "100m"
    modelcar_memory: Annotated[str, quantity_field("15Mi")] = "15Mi"


#: What KServe makes the modelcar and the server run as (uidModelcar), so that the link through /proc can be
#: followed.
MODELCAR_UID = 1010
