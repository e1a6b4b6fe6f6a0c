"""Put KServe on the platform: its own CRDs, roles and configuration, with modelcar switched on."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import yaml

from components.config.kserve import KServeSettings
from components.kserve.kserve_platform import values
from local.instance import Instance

NAMESPACE = "kserve"


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def crd_files(manifests: Path) -> list[Path]:
    """Return the files of KServe's CRDs (6 MB of YAML: applied as they are, never parsed here)."""
    files = sorted((manifests / "config/crd/full").rglob("serving.kserve.io_*.yaml"))
    # llmisvc/ belongs to another controller, and holds patches beside whole documents.
    return [path for path in files if "llmisvc" not in path.parts]


def definitions(manifests: Path) -> list[dict[str, Any]]:
    """Return what the controller needs before it starts: its namespace, roles and ConfigMap."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [namespace, *_roles(manifests), _config_map(manifests)]


def _roles(manifests: Path) -> list[dict[str, Any]]:
    """Bind the controller's own role to the user that its client certificate names."""
    user = {"kind": "User", "name": "kserve-controller-manager", "apiGroup": "rbac.authorization.k8s.io"}
    role = _documents(manifests / "config/rbac/role.yaml")
    binding = _documents(manifests / "config/rbac/role_binding.yaml")
    for document in binding:
        document["subjects"] = [user]
    election = _documents(manifests / "config/rbac/leader_election_role.yaml")
    election += _documents(manifests / "config/rbac/leader_election_role_binding.yaml")
    for document in election:
        document["metadata"]["namespace"] = NAMESPACE
        if document["kind"] == "RoleBinding":
            document["subjects"] = [user]
    return [*role, *binding, *election]


def _config_map(manifests: Path) -> dict[str, Any]:
    """KServe's shipped configuration, in Standard mode and without an ingress, which the platform lacks."""
    document = _documents(manifests / "config/configmap/inferenceservice.yaml")[0]
    data: dict[str, str] = {key: text for key, text in document["data"].items() if key != "_example"}
    _change(data, "deploy", defaultDeploymentMode="Standard")
    _change(
        data, "ingress", disableIngressCreation=True, enableGatewayApi=False, disableIstioVirtualHost=True
    )
    # What the program installs KServe with elsewhere.
    _change(
        data,
        "storageInitializer",
        **values(KServeSettings(), "Standard")["kserve"]["storage"],
    )
    metadata = {"name": "inferenceservice-config", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _change(data: dict[str, str], key: str, **values: object) -> None:
    section = json.loads(data[key])
    section.update(values)
    data[key] = json.dumps(section, indent=1)


def webhooks(manifests: Path, instance: Instance) -> list[dict[str, Any]]:
    """KServe's webhook configurations, by URL: the controller runs beside the API server, not in a pod."""
    bundle = base64.b64encode((instance.pki / "ca.crt").read_bytes()).decode()
    documents = _documents(manifests / "config/webhook/manifests.yaml")
    for document in documents:
        document["metadata"] = {"name": document["metadata"]["name"]}
        for webhook in document["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:9443{path}", "caBundle": bundle}
            webhook["admissionReviewVersions"] = ["v1", "v1beta1"]
    return documents
