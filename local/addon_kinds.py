"""Programs that a platform has on request: KEDA, Knative, Argo CD, and what they need."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from local import addon_argocd
from local.instance import Instance
from local.oci_push import digest_of
from local.pki import NODE
from local.plan import SERVICE_CIDR, TOOL_IMAGE
from local.platform import PlatformError
from local.tool_build import download_module
from local.tool_list import KNATIVE, Progress
from local.tools import Toolbox


@dataclass(frozen=True)
class Addon:
    """programs: names of tools that run in it, by the images that its objects name.

    objects: makes them, of the platform. after: addons that it needs. namespace: of its pods.
    restarts: processes of the platform that look for it when they start only.
    images: pushes those that hold more than one program, and returns them as `programs` does.
    """

    programs: dict[str, str]
    objects: Callable[[Instance, Toolbox], list[dict[str, Any]]]
    namespace: str
    after: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()
    images: Callable[[Instance, Toolbox, Progress], dict[str, str]] = lambda *_: {}


def _services(instance: Instance, tools: Toolbox) -> list[dict[str, Any]]:
    """kube-proxy on the node, as kubeadm has it: addresses of Services lead to their pods.

    Raises:
        PlatformError: the machine's kernel does not let a namespace have rules of its own.
    """
    if tools.netfilter is None:
        raise PlatformError("services need iptables in a network namespace, which this kernel does not have")
    name = "kube-proxy"
    metadata = {"name": name, "namespace": "kube-system"}
    labels = {"k8s-app": name}
    privileged = {"privileged": True, "runAsUser": 0}
    # The node has no way to the addresses of Services, and needs one before a rule can change them.
    route = f"ip route replace {SERVICE_CIDR} dev eth0 src {instance.address}"
    # iptables are programs of this machine, with their libraries.
    folders = {"bin": "/bin", "usr": "/usr", "lib": "/lib", "lib64": "/lib64", "rules": str(tools.netfilter)}
    mounts = [{"name": key, "mountPath": path, "readOnly": True} for key, path in folders.items()]
    pod = {
        "serviceAccountName": name,
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "initContainers": [
            {
                "name": "route",
                "image": f"{instance.registry}/{TOOL_IMAGE}@{digest_of(instance.state / 'base')}",
                "command": ["sh", "-c", route],
                "securityContext": privileged,
            }
        ],
        "containers": [
            {
                "name": name,
                "image": "built/kube-proxy",
                "args": [
                    "--proxy-mode=iptables",
                    f"--hostname-override={NODE}",
                    f"--cluster-cidr={instance.pod_cidr}",
                    "--conntrack-max-per-core=0",
                    "--healthz-bind-address=127.0.0.1:10256",
                    "--metrics-bind-address=127.0.0.1:10249",
                ],
                "env": [
                    {"name": "PATH", "value": f"{tools.netfilter}:/usr/sbin:/usr/bin"},
                    {"name": "KUBERNETES_SERVICE_HOST", "value": instance.address},
                    {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"},
                ],
                "securityContext": privileged,
                "readinessProbe": {"httpGet": {"host": "127.0.0.1", "port": 10256, "path": "/healthz"}},
                "volumeMounts": mounts,
            }
        ],
        "volumes": [{"name": key, "hostPath": {"path": path}} for key, path in folders.items()],
    }
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"modelcar:{name}"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:node-proxier"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
        _on_the_node(metadata, labels, pod),
    ]


def _on_the_node(metadata: dict[str, str], labels: dict[str, str], pod: dict[str, Any]) -> dict[str, Any]:
    """Return a Deployment of one pod that uses the node's network, and so cannot be there twice."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _dns(instance: Instance, _: Toolbox) -> list[dict[str, Any]]:
    """CoreDNS on the node's own address, where the kubelet sends the pods' questions."""
    corefile = f""".:53 {{
    bind {instance.address}
    errors
    health 127.0.0.1:8053
    ready 127.0.0.1:8054
    kubernetes cluster.local in-addr.arpa ip6.arpa
    cache 30
}}
"""
    name = "coredns"
    metadata = {"name": name, "namespace": "kube-system"}
    labels = {"k8s-app": name}
    reads = [
        {
            "apiGroups": [""],
            "resources": ["endpoints", "services", "pods", "namespaces"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]
    rbac = "rbac.authorization.k8s.io"
    pod = {
        "serviceAccountName": name,
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {
                "name": name,
                "image": "built/coredns",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "securityContext": {
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                    "readOnlyRootFilesystem": True,
                },
                "readinessProbe": {"httpGet": {"host": "127.0.0.1", "port": 8054, "path": "/ready"}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
            }
        ],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": reads},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"Corefile": corefile}},
        _on_the_node(metadata, labels, pod),
    ]


def _keda(_: Instance, tools: Toolbox) -> list[dict[str, Any]]:
    module = Path(download_module("keda", "github.com/kedacore/keda/v2")["Dir"])
    return _kustomized(tools, module / "config/default")


def _kustomized(tools: Toolbox, folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a folder with a kustomization."""
    command = [tools["kubectl"], "kustomize", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise PlatformError(f"kubectl kustomize {folder}: {result.stderr.strip()}")
    return [document for document in yaml.safe_load_all(result.stdout) if document]


#: Of Knative's features those that a model's pods need (`deploymentMode: Knative`), which are off as shipped.
#: https://knative.dev/docs/serving/configuration/feature-flags/
KNATIVE_FEATURES = (
    "kubernetes.podspec-affinity",
    "kubernetes.podspec-init-containers",
    "kubernetes.podspec-nodeselector",
    "kubernetes.podspec-securitycontext",
    "kubernetes.podspec-tolerations",
    "kubernetes.podspec-volumes-image",  # of placement imageVolume
    "kubernetes.podspec-volumes-hostpath",  # of the local stack alone, whose server is this machine's
)
#: Who does what Knative's Ingresses say: local/standins/knative_ingress.py, where a test runs it.
INGRESS_CLASS = "modelcar.ingress.networking.knative.dev"


def _knative(_: Instance, __: Toolbox) -> list[dict[str, Any]]:
    """Knative Serving: definitions and programs of three modules, as its own release puts them together."""
    serving, networking, caching = (
        Path(download_module("knative", f"knative.dev/{name}")["Dir"]) / "config"
        for name in ("serving", "networking", "caching")
    )
    files = [*sorted((serving / "core").rglob("*.yaml")), *sorted(networking.glob("*.yaml"))]
    found = [
        document
        for path in [*files, caching / "image.yaml"]
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]
    settings = {
        "config-network": {"ingress-class": INGRESS_CLASS},
        "config-features": dict.fromkeys(KNATIVE_FEATURES, "enabled"),
    }
    for document in found:
        own = settings.get(document["metadata"]["name"])
        if document["kind"] == "ConfigMap" and own:
            document["data"] = {**document["data"], **own}
    return found


ADDONS = {
    "services": Addon({"built/kube-proxy": "kube-proxy"}, _services, "kube-system"),
    "dns": Addon({"built/coredns": "coredns"}, _dns, "kube-system", after=("services",)),
    "keda": Addon(
        {
            "ghcr.io/kedacore/keda": "keda",
            "ghcr.io/kedacore/keda-metrics-apiserver": "keda-adapter",
            "ghcr.io/kedacore/keda-admission-webhooks": "keda-admission-webhooks",
        },
        _keda,
        "keda",
        after=("dns",),
    ),
    "knative": Addon(
        {f"ko://knative.dev/serving/cmd/{name}": f"knative-{name}" for name in KNATIVE},
        _knative,
        "knative-serving",
        after=("dns",),
        restarts=("kserve",),
    ),
    **{
        version.addon: Addon(
            {},
            partial(addon_argocd.objects, version),
            "argocd",
            ("dns",),
            images=partial(addon_argocd.images, version),
        )
        for version in addon_argocd.VERSIONS
    },
}
