"""`modelcar:kserve`: the KServe of the cluster."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from components.config.fields import (
    Label,
    Processors,
    Refused,
    matches,
    memory_field,
    without_credentials,
)
from components.config.section import Section

Version = Annotated[
    str,
    matches(
        re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+"),
        "not a release",
        "a release such as v0.19.0",
        "write v, and three numbers with dots between",
    ),
]


def _charts(pattern: str, allowed: str) -> BeforeValidator:
    """Return a validator of where charts are."""
    return matches(re.compile(pattern), "not a place of charts", allowed, "write the whole address, or path")


def _address(text: str) -> str:
    """Check the address of charts on a host; a folder is none."""
    if "://" not in text:
        return text
    try:
        url = urlsplit(text)
        right = bool(url.hostname) and url.port != 0
    except ValueError:  # of a port that does not exist, and of brackets that hold no address
        right = False
    if not right:
        raise Refused("not an address", "SCHEME://HOST[:PORT][/PATH]", "correct the host, or the port")
    return text


#: Written into the state in the clear.
_NO_CREDENTIALS = without_credentials("remove them, and log in with `helm registry login`; or name a mirror")


class KServeSettings(Section):
    """`modelcar:kserve`.

    install: install KServe by Helm, with cert-manager; otherwise they have to be there already. Of one
        stack of a cluster; a stack that has installed it keeps it until it is handed over.
    install_cert_manager: with `install`: install cert-manager too. False where the cluster has one; refused
        once this stack has installed it.
    verify: where they are there already, refuse a cluster whose KServe has modelcar switched off, or runs
        it as root.
    namespace: of its controller; fixed once this stack has installed it.
    version: of KServe and of its charts.
    chart_repository: where its charts are.
    cert_manager_version: of cert-manager, which KServe's webhooks need.
    cert_manager_repository: where cert-manager's chart is.
    image_registry: HOST/PATH that the charts' images were copied to, by the names that they have
        (`kserve/kserve-controller`, `jetstack/cert-manager-webhook`, `brancz/kube-rbac-proxy`), for a
        cluster that reaches no public registry.
    modelcar_uid: user that the pods' processes run as, so that the link to the weights can be followed.
    modelcar_cpu: processor time of the init container, and of the sidecar that keeps the weights mounted:
        request and limit. KServe's own 10m lets a container run 1 ms in each 100, the runtime's own work for
        its start too: the server waits for its weights meanwhile, 2.5 s of it on a machine with a GPU.
    modelcar_memory: memory of the init container, and of the sidecar that keeps the weights mounted: request
        and limit.
    """

    install: bool = False
    install_cert_manager: bool = True
    verify: bool = True
    namespace: Label = "kserve"
    version: Version = "v0.19.0"
    chart_repository: Annotated[
        str,
        _charts(r"oci://\S+|\.?/\S+", "oci://…, or a folder (/… or ./…)"),
        AfterValidator(_address),
        _NO_CREDENTIALS,
    ] = "oci://ghcr.io/kserve/charts"
    cert_manager_version: Version = "v1.21.2"
    cert_manager_repository: Annotated[
        str,
        _charts(r"(https|oci)://\S+|\.?/\S+", "https://…, oci://…, or a folder (/… or ./…)"),
        AfterValidator(_address),
        _NO_CREDENTIALS,
    ] = "https://charts.jetstack.io"
    image_registry: (
        Annotated[
            str,
            matches(
                re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*"),
                "not a place in a registry",
                "HOST[:PORT][/PATH], in lower case, without scheme",
                "for example europe-docker.pkg.dev/PROJECT/REPO",
            ),
        ]
        | None
    ) = None
    modelcar_uid: int = Field(1010, ge=1, le=65535)
    modelcar_cpu: Processors = "100m"
    modelcar_memory: Annotated[str, memory_field("15Mi")] = "15Mi"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces that come with it: the controller's, and cert-manager's where that is installed too."""
        if not self.install:
            return ()
        return (self.namespace, CERT_MANAGER) if self.install_cert_manager else (self.namespace,)


#: Namespace and release of cert-manager.
CERT_MANAGER = "cert-manager"
#: What KServe makes the modelcar and the server run as (uidModelcar), so that the link through /proc can be
#: followed.
MODELCAR_UID = 1010
