"""What Google makes up for a new resource: numbers, times, addresses, defaults of the service."""

# ruff: noqa: ARG001, ARG005 (every maker takes the same)

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from local.standins.gcp_provider.accelerators import attached_ssds
from local.standins.gcp_provider.cloud import digits
from local.standins.gcp_provider.findings import at, text_at
from local.standins.gcp_provider.resources import Kind

KUBECONFIG: Final = "MODELCAR_GCP_STANDIN_KUBECONFIG"
# An address of RFC 5737 that nobody has, and a certificate that is none: a program that connects fails.
_NO_ENDPOINT: Final = "203.0.113.10"
_NO_CA: Final = base64.b64encode(
    b"-----BEGIN CERTIFICATE-----\nMADE UP BY THE STAND-IN\n-----END CERTIFICATE-----\n"
).decode()
_COMPUTE: Final = "https://www.googleapis.com/compute/v1/"
# What the REGULAR channel gives: https://cloud.google.com/kubernetes-engine/docs/release-notes (2026-09).
_VERSION: Final = "1.35.7-gke.1150000"
_SCOPES: Final = [
    f"https://www.googleapis.com/auth/{scope}"
    for scope in (
        "devstorage.read_only",
        "logging.write",
        "monitoring",
        "service.management.readonly",
        "servicecontrol",
        "trace.append",
    )
]

State = dict[str, Any]


class KubeconfigError(Exception):
    """The kubeconfig that the environment names cannot be used."""


def computed(kind: Kind, name: str, resolved: Mapping[str, Any]) -> State:
    """Return what Google makes up for a new resource; name: its Google resource name."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    maker = _COMPUTED.get(kind.class_name)
    return maker(name, resolved, now) if maker else {"etag": _etag(name + now)}


def _etag(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _repository(name: str, resolved: Mapping[str, Any], now: str) -> State:
    place, project, own = resolved.get("location"), resolved.get("project"), resolved.get("repositoryId")
    kind = str(resolved.get("format") or "").lower()
    return {
        "name": own,
        "registryUri": f"{place}-{kind}.pkg.dev/{project}/{own}",
        "createTime": now,
        "updateTime": now,
        "vulnerabilityScanningConfig": {
            "enablementConfig": "",
            "enablementState": "SCANNING_DISABLED",
            "enablementStateReason": "API containerscanning.googleapis.com is not enabled.",
        },
    }


def _account(name: str, resolved: Mapping[str, Any], now: str) -> State:
    return {"name": name, "uniqueId": digits(name + now, 21), "disabled": False}


def _network(name: str, resolved: Mapping[str, Any], now: str) -> State:
    number = digits(name + now, 19)
    return {
        "selfLink": _COMPUTE + name,
        "networkId": number,
        "numericId": number,
        "gatewayIpv4": "",
        "mtu": 1460,
        "routingMode": "REGIONAL",
        "internalIpv6Range": "",
        "bgpBestPathSelectionMode": "LEGACY",
    }


def _subnetwork(name: str, resolved: Mapping[str, Any], now: str) -> State:
    first = str(resolved.get("ipCidrRange") or "0.0.0.0/0").partition("/")[0]
    return {
        "selfLink": _COMPUTE + name,
        "creationTimestamp": now,
        "fingerprint": _etag(name + now),
        "gatewayAddress": first.rpartition(".")[0] + ".1",
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
        "privateIpGoogleAccess": False,
        "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
        "subnetworkId": int(digits(name + now, 15)),
        "secondaryIpRanges": [],
        "state": "",
    }


def _router(name: str, resolved: Mapping[str, Any], now: str) -> State:
    return {"selfLink": _COMPUTE + name, "creationTimestamp": now}


def _nat(name: str, resolved: Mapping[str, Any], now: str) -> State:
    return {
        "minPortsPerVm": 64,
        "enableDynamicPortAllocation": False,
        "enableEndpointIndependentMapping": False,
        "endpointTypes": ["ENDPOINT_TYPE_VM"],
        "autoNetworkTier": "PREMIUM",
        "drainNatIps": [],
    }


def _zones(location: str) -> list[str]:
    return [location] if location.count("-") > 1 else [f"{location}-{zone}" for zone in "abc"]


def _node_config() -> State:
    return {
        "machineType": "e2-medium",
        "diskSizeGb": 100,
        "diskType": "pd-balanced",
        "imageType": "COS_CONTAINERD",
        "loggingVariant": "DEFAULT",
        "serviceAccount": "default",
        "oauthScopes": _SCOPES,
        "metadata": {"disable-legacy-endpoints": "true"},
        "effectiveTaints": [],
        "shieldedInstanceConfig": {"enableIntegrityMonitoring": True, "enableSecureBoot": False},
    }


def _cluster(name: str, resolved: Mapping[str, Any], now: str) -> State:
    zones = _zones(str(resolved.get("location")))
    project, region = resolved.get("project"), zones[0].rpartition("-")[0]
    made: State = {
        "selfLink": f"https://container.googleapis.com/v1/{name}",
        "labelFingerprint": _etag(name + now)[:8],
        "masterVersion": _VERSION,
        "nodeVersion": _VERSION,
        "operation": "",
        "clusterIpv4Cidr": "10.60.0.0/14",
        "servicesIpv4Cidr": "34.118.224.0/20",
        "tpuIpv4CidrBlock": "",
        "nodeLocations": zones[1:] if len(zones) == 1 else zones,
        "subnetwork": f"projects/{project}/regions/{region}/subnetworks/default",
        "datapathProvider": "ADVANCED_DATAPATH",
        "defaultMaxPodsPerNode": 110,
        "emulatedVersion": "",
        "loggingService": "logging.googleapis.com/kubernetes",
        "monitoringService": "monitoring.googleapis.com/kubernetes",
        "releaseChannel": {"channel": "REGULAR"},
        "nodeConfig": _node_config(),
        "controlPlaneEndpointsConfig": {
            "dnsEndpointConfig": {
                "endpoint": f"gke-{hashlib.sha256(name.encode()).hexdigest()[:32]}-"
                f"{digits(f'project/{project}', 12)}.{region}.gke.goog",
                "allowExternalTraffic": False,
            },
            "ipEndpointsConfig": {"enabled": True},
        },
        **live_cluster(resolved),
    }
    if at(resolved, "controlPlaneEndpointsConfig", "ipEndpointsConfig", "enabled") is False:
        # Without an address GKE says so, whatever it was told.
        made["privateClusterConfig"] = {"enablePrivateEndpoint": True}
    if resolved.get("enableAutopilot"):
        made["workloadIdentityConfig"] = {"workloadPool": f"{project}.svc.id.goog"}
    return made


def _node_pool(name: str, resolved: Mapping[str, Any], now: str) -> State:
    zones = resolved.get("nodeLocations") or _zones(str(resolved.get("location")))
    own, cluster = name.rpartition("/")[2], str(resolved.get("cluster") or "").rpartition("/")[2]
    groups = [
        f"{_COMPUTE}projects/{resolved.get('project')}/zones/{zone}/instanceGroupManagers/"
        f"gke-{cluster}-{own}-{hashlib.sha256((name + str(zone)).encode()).hexdigest()[:8]}-grp"
        for zone in zones
    ]
    scaling = resolved.get("autoscaling")
    least = scaling.get("minNodeCount") if isinstance(scaling, dict) else None
    count = (
        resolved.get("initialNodeCount") or resolved.get("nodeCount") or (least if least is not None else 1)
    )
    return {
        "instanceGroupUrls": [url.replace("instanceGroupManagers", "instanceGroups") for url in groups],
        "managedInstanceGroupUrls": groups,
        "initialNodeCount": count,
        "nodeCount": count,
        "nodeLocations": zones,
        "version": _VERSION,
        "maxPodsPerNode": 110,
        "namePrefix": "",
        "operation": "",
        "management": {"autoRepair": True, "autoUpgrade": True},
        "upgradeSettings": {"strategy": "SURGE", "maxSurge": 1, "maxUnavailable": 0},
        "nodeConfig": {**_node_config(), **_attached_ssds(resolved)},
    }


def _attached_ssds(resolved: Mapping[str, Any]) -> State:
    count = attached_ssds(text_at(resolved, "nodeConfig", "machineType") or "")
    return {"ephemeralStorageLocalSsdConfig": {"localSsdCount": count}} if count else {}


_COMPUTED: Final[dict[str, Callable[[str, Mapping[str, Any], str], State]]] = {
    "Repository": _repository,
    "Account": _account,
    "Network": _network,
    "Subnetwork": _subnetwork,
    "Router": _router,
    "RouterNat": _nat,
    "Cluster": _cluster,
    "NodePool": _node_pool,
    "Service": lambda name, resolved, now: {},
}


def live_cluster(state: Mapping[str, Any]) -> State:
    """Return where a cluster is reached: the API server of a kubeconfig if the environment names one.

    state: of the cluster, which may have no address.

    Raises:
        KubeconfigError: that file cannot be read or names no server.
    """
    endpoint, authority = _reached(os.environ.get(KUBECONFIG, ""))
    endpoints = state.get("controlPlaneEndpointsConfig")
    by_address = endpoints.get("ipEndpointsConfig") if isinstance(endpoints, dict) else None
    has_address = not isinstance(by_address, dict) or by_address.get("enabled") is not False
    return {
        "endpoint": endpoint if has_address else "",
        "masterAuth": {
            "clientCertificate": "",
            "clientCertificateConfig": {"issueClientCertificate": False},
            "clientKey": "",
            "clusterCaCertificate": authority,
        },
    }


@functools.lru_cache(maxsize=4)
def _reached(path: str) -> tuple[str, str]:
    """Return (host and port, CA certificate in base64) of a kubeconfig's current context."""
    if not path:
        return _NO_ENDPOINT, _NO_CA
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        contexts = {item["name"]: item["context"] for item in content["contexts"]}
        clusters = {item["name"]: item["cluster"] for item in content["clusters"]}
        cluster = clusters[contexts[content["current-context"]]["cluster"]]
        authority = cluster.get("certificate-authority-data")
        if not authority and cluster.get("certificate-authority"):
            file = Path(path).parent / cluster["certificate-authority"]
            authority = base64.b64encode(file.read_bytes()).decode()
        return str(cluster["server"]).removeprefix("https://").rstrip("/"), str(authority or "")
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise KubeconfigError(
            f"{KUBECONFIG}: {path}: {type(error).__name__}: {error}. allowed: a kubeconfig whose current "
            "context has a server. fix: correct the path or unset the variable"
        ) from error
