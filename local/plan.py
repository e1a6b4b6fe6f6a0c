"""What runs on the platform: each process with its flags, and the files that they read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from local import containerd
from local.driver import driver_folder
from local.gpu import CONTROL_NODES, Gpus
from local.instance import KUBERNETES_VERSION, Instance
from local.pki import CLIENTS, NODE
from local.processor import architecture
from local.tool_list import CONTAINERD_VERSION, DEVICE_PLUGIN
from local.tools import Toolbox
from modelcar.oci_layout import replace_file

SERVICE_CIDR = "10.96.0.0/16"

#: Where kube-router says whether it is well.
POLICIES_PORT = 20244

#: The pause image of the node and the image of every local container without one of its own.
TOOL_IMAGE = "modelcar/busybox"
#: Kind of an object that makes kinds known to the API server.
DEFINITION = "CustomResourceDefinition"

#: The registry's own name and address where something stands before it.
REGISTRY_STORE = "registry-store"
STORE = "127.0.0.1:5001"

#: Changes that etcd keeps in memory on top of 5,000 before it takes a snapshot. By default these are 100,000
#: before etcd 3.6 and 10,000 since, at 8 kB a change: a platform that is used all day only ever grows.
ETCD_ENTRIES = 1_000

#: How long BuildKit keeps what a build leaves. A modelcar's layers pass through it as they are, so nothing is
#: won by keeping them; by default its records are kept for two days, its cache as long as the disk has room.
BUILD_KEPT = "10m"

#: Where device plugins and the kubelet meet. The kubelet's path does not follow its --root-dir
#: (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1, DevicePluginPath), and a DaemonSet with a plugin mounts it.
KUBELET_FOLDER = Path("/var/lib/kubelet")
DEVICE_PLUGINS = KUBELET_FOLDER / "device-plugins"
#: `ownSocket` of local/tools/kubernetes/device-plugin.
PLUGIN_SOCKET = "modelcar-gpu.sock"

#: What a pod asks for; the same on GKE.
GPU_RESOURCE = "nvidia.com/gpu"
#: Where a container finds the driver, as on GKE.
DRIVER_MOUNT = "/usr/local/nvidia"
#: Nodes that every container with a card gets beside `CONTROL_NODES`, as far as they are there
#: (GoogleCloudPlatform/container-engine-accelerators, pkg/gpu/nvidia/manager.go, Start).
OPTIONAL_NODES = ("/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")

#: Folders that are written to by fixed paths, below the platform's state.
COVERED = {"/var/log": "var-log", "/var/lib/cni": "var-lib-cni", str(KUBELET_FOLDER): "kubelet"}

#: What the kubelet wants of the kernel, by path below /proc/sys (pkg/kubelet/cm, setupKernelTunables). It
#: would set them for the whole machine, which reboots 10 s after an oops then (`panic`, `panic_on_oops`).
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

#: Steps done from the host, which processes on the platform wait for.
CRDS_READY = "crds-established"
TOOL_IMAGE_READY = "tool-image-pushed"


def write_plan(instance: Instance, tools: Toolbox, sandbox_image: str, gpus: Gpus | None = None) -> Path:
    """Write every configuration file and `plan.json`, which the supervisor runs; return its path.

    Args:
        instance: the platform.
        tools: its programs; with `gpus`, DEVICE_PLUGIN among them.
        sandbox_image: the pause image.
        gpus: cards that the node advertises.

    Raises:
        InputError: the driver's libraries are not found.
    """
    covered = {hidden: instance.state / name for hidden, name in COVERED.items()}
    for folder in (instance.logs, instance.pids, *covered.values()):
        folder.mkdir(parents=True, exist_ok=True)
    for step in (CRDS_READY, TOOL_IMAGE_READY):
        (instance.state / step).unlink(missing_ok=True)
    device_plugin_file(instance).unlink(missing_ok=True)
    plan = {
        "versions": versions(tools),
        "state": str(instance.state),
        "logs": str(instance.logs),
        "pids": str(instance.pids),
        "covered": {hidden: str(folder) for hidden, folder in covered.items()},
        "kernel": KERNEL_SETTINGS,
        "network": platform_network(instance, tools["ip"]),
        "services": [
            *_registry(instance, tools),
            _buildkit(instance, tools),
            _etcd(instance, tools),
            _api_server(instance, tools),
            _controller_manager(instance, tools),
            _scheduler(instance, tools),
            *([_kserve(instance, tools)] if tools.runs_kserve else []),
            containerd.service(instance, tools, sandbox_image),
            _kubelet(instance, tools),
            *([_device_plugin(instance, tools, gpus)] if gpus else []),
            *([_network_policies(instance, tools, tools.netfilter)] if tools.netfilter else []),
        ],
    }
    target = instance.state / "plan.json"
    replace_file(target, json.dumps(plan, indent=1).encode())
    return target


def versions(tools: Toolbox) -> dict[str, str]:
    """Return what a platform is started with and another command may have another version of.

    Raises:
        InputError: MODELCAR_SNAPSHOTTER says what cannot be had.
    """
    api_server, runtime = (tools.programs.get(name, Path(name)) for name in ("kube-apiserver", "containerd"))
    other_kubernetes = api_server.name.removeprefix("kube-apiserver").removeprefix("-")
    _, other, containerd_version = runtime.parent.name.partition("containerd-")
    return {
        "KServe": tools.kserve.name.removeprefix("kserve-") if tools.runs_kserve else "off",
        "Kubernetes": other_kubernetes or KUBERNETES_VERSION,
        "containerd": containerd_version if other else CONTAINERD_VERSION,
        "snapshotter": containerd.snapshotter() if tools.containerd_config >= 3 else containerd.OVERLAYFS,
    }


def platform_network(instance: Instance, ip: str) -> list[list[str]]:
    """Return what gives the platform's end of the link its address, inside of its namespace."""
    return [
        [ip, "link", "set", "lo", "up"],
        [ip, "address", "replace", f"{instance.address}/30", "dev", "eth0"],
        [ip, "link", "set", "eth0", "up"],
    ]


def _service(
    name: str, argv: list[str], ready: dict[str, Any], after: list[str] | None = None, **env: str
) -> dict[str, Any]:
    return {"name": name, "argv": argv, "ready": ready, "after": after or [], "env": env}


def _registry(instance: Instance, tools: Toolbox) -> list[dict[str, Any]]:
    """The registry; behind a front, where there is one, which has its name and address then."""
    config = instance.state / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(instance.state / "registry")}, "delete": {"enabled": True}}
    address = STORE if tools.registry_front else instance.registry
    document = {"version": 0.1, "log": {"level": "info"}, "storage": storage, "http": {"addr": address}}
    config.write_text(yaml.safe_dump(document))
    argv, ready = [tools["docker-registry"], "serve", str(config)], {"url": f"http://{address}/v2/"}
    if not tools.registry_front:
        return [_service("registry", argv, ready)]
    front = [*tools.registry_front, instance.registry, STORE]
    return [
        _service(REGISTRY_STORE, argv, ready),
        _service("registry", front, {"tcp": instance.registry.split(":")}, [REGISTRY_STORE]),
    ]


def _buildkit(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    config = instance.state / "buildkitd.toml"
    config.write_text(
        f'''[registry."{instance.registry}"]
  http = true
[history]
  maxAge = "{BUILD_KEPT}"
  maxEntries = 10
[[worker.oci.gcpolicy]]
  all = true
  keepDuration = "{BUILD_KEPT}"
'''
    )
    argv = [tools["buildkitd"], "--config", str(config), "--root", str(instance.state / "buildkit")]
    argv += ["--addr", f"unix://{instance.buildkit_socket}"]
    argv += ["--oci-worker=true", f"--oci-worker-binary={tools['runc']}", "--containerd-worker=false"]
    return _service("buildkitd", argv, {"unix": str(instance.buildkit_socket)}, ["registry"])


def _etcd(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    argv = [tools["etcd"], "--data-dir", str(instance.state / "etcd"), "--name", NODE]
    argv += ["--listen-client-urls", client, "--advertise-client-urls", client]
    argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    argv += ["--initial-cluster", f"{NODE}={peer}", "--logger=zap", "--log-level=warn"]
    argv += [f"--snapshot-count={ETCD_ENTRIES}"]
    # etcd before 3.5, as Debian 12 and Ubuntu 24.04 have it, ends at once on arm64 without being told so.
    service = _service("etcd", argv, {"url": f"{client}/health"})
    if architecture() != "amd64":
        service["env"]["ETCD_UNSUPPORTED_ARCH"] = architecture()
    return service


def _api_server(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    pki = instance.pki
    argv = [
        tools["kube-apiserver"],
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={instance.address}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",  # as kubeadm and GKE have it: a builder in the cluster needs it
        "--kubelet-preferred-address-types=InternalIP",  # there is no DNS for the node's name
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        # APIs that others serve, such as KEDA's external metrics, get requests in the caller's name.
        f"--requestheader-client-ca-file={pki}/ca.crt",
        f"--requestheader-allowed-names={CLIENTS['front-proxy'][0]}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        *([f"--feature-gates={tools.feature_gates}"] if tools.feature_gates else []),
    ]
    ready = {"url": "https://127.0.0.1:6443/readyz", "ca": f"{pki}/ca.crt"}
    return _service("kube-apiserver", argv, ready, ["etcd"])


def _controller_manager(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    argv = [
        tools["kube-controller-manager"],
        f"--kubeconfig={instance.pki}/controller-manager.kubeconfig",
        f"--root-ca-file={instance.pki}/ca.crt",
        f"--service-account-private-key-file={instance.pki}/service-account.key",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--controllers=*,-nodeipam,-cloud-node-lifecycle",
    ]
    return _service("kube-controller-manager", argv, {"tcp": ["127.0.0.1", 10257]}, ["kube-apiserver"])


def _scheduler(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    argv = [tools["kube-scheduler"], f"--kubeconfig={instance.pki}/scheduler.kubeconfig"]
    argv += ["--leader-elect=false"]
    return _service("kube-scheduler", argv, {"tcp": ["127.0.0.1", 10259]}, ["kube-apiserver"])


def _kserve(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    certificates = instance.state / "tmp" / "k8s-webhook-server" / "serving-certs"
    certificates.mkdir(parents=True, exist_ok=True)
    for source, target in (("webhook.crt", "tls.crt"), ("webhook.key", "tls.key")):
        (certificates / target).write_bytes((instance.pki / source).read_bytes())
    argv = [tools["kserve-manager"], "--webhook-port", "9443", "--metrics-addr", "127.0.0.1:18080"]
    # The controller exits when it starts before its CRDs are established.
    after = ["kube-apiserver", f"file:{instance.state / CRDS_READY}"]
    env = {
        "TMPDIR": str(instance.state / "tmp"),
        "POD_NAMESPACE": "kserve",
        "KUBECONFIG": f"{instance.pki}/kserve.kubeconfig",
    }
    return _service("kserve", argv, {"tcp": ["127.0.0.1", 9443]}, after, **env)


def _kubelet(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    config = instance.state / "kubelet.yaml"
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "address": instance.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{instance.pki}/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},  # of those with a certificate of our CA
        "tlsCertFile": f"{instance.pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{instance.pki}/kubelet-server.key",
        "clusterDNS": [instance.address],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "failCgroupV1": False,  # kubelets from 1.35 on refuse the first version, which some machines have
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "podLogsDir": str(instance.state / "var-log" / "pods"),
        "volumePluginDir": str(instance.state / "volume-plugins"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "featureGates": _gates(tools),
        "imageGCHighThresholdPercent": 100,  # the disk is the laptop's: its fill level is not ours to manage
        "imageMaximumGCAge": "24h0m0s",  # but former versions that nothing runs any more do not pile up
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "4s",
    }
    config.write_text(yaml.safe_dump(document))
    argv = [
        tools["kubelet"],
        f"--config={config}",
        f"--kubeconfig={instance.pki}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--node-ip={instance.address}",
        f"--root-dir={instance.state / COVERED[str(KUBELET_FOLDER)]}",
    ]
    after = ["containerd", "kube-apiserver", f"file:{instance.state / TOOL_IMAGE_READY}"]
    return _service("kubelet", argv, {"url": "http://127.0.0.1:10248/healthz"}, after)


def _gates(tools: Toolbox) -> dict[str, bool]:
    """Return Kubernetes' feature gates that differ from its own choice."""
    pairs = (gate.split("=") for gate in tools.feature_gates.split(",") if gate)
    return {name: value == "true" for name, value in pairs}


def device_plugin_file(instance: Instance) -> Path:
    """Return the path of what the device plugin is told."""
    return instance.state / "device-plugin.json"


def device_plugin_config(gpus: Gpus, driver: Path) -> dict[str, Any]:
    """Return what `local/tools/kubernetes/device-plugin` hands out: each card by its UUID."""
    return {
        "resource": GPU_RESOURCE,
        "devices": [{"id": card.uuid, "paths": [str(card.node)]} for card in gpus.cards],
        "shared": [*map(str, CONTROL_NODES), *(node for node in OPTIONAL_NODES if Path(node).exists())],
        "mounts": [{"host": str(driver), "container": DRIVER_MOUNT}],
    }


def _device_plugin(instance: Instance, tools: Toolbox, gpus: Gpus) -> dict[str, Any]:
    driver = driver_folder(gpus, instance.state / "driver")
    config = device_plugin_file(instance)
    replace_file(config, (json.dumps(device_plugin_config(gpus, driver), indent=1) + "\n").encode())
    argv = [tools[DEVICE_PLUGIN], f"--config={config}", f"--folder={DEVICE_PLUGINS}"]
    # Beside the kubelet, not after it: that refuses pods with GPUs which it finds on its node until a plugin
    # has registered. The folder is there already when the plugin starts.
    (instance.state / COVERED[str(KUBELET_FOLDER)] / DEVICE_PLUGINS.name).mkdir(exist_ok=True)
    return _service("device-plugin", argv, {"unix": str(DEVICE_PLUGINS / PLUGIN_SOCKET)}, ["containerd"])


def _network_policies(instance: Instance, tools: Toolbox, netfilter: Path) -> dict[str, Any]:
    """kube-router, for NetworkPolicies alone: pods are on one bridge, and there are no Services to proxy."""
    argv = [
        tools["kube-router"],
        f"--kubeconfig={instance.pki}/kube-router.kubeconfig",
        f"--hostname-override={NODE}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--health-port={POLICIES_PORT}",
    ]
    path = os.pathsep.join([str(netfilter), str(Path(tools["ip"]).parent), os.environ.get("PATH", "")])
    ready = {"url": f"http://127.0.0.1:{POLICIES_PORT}/healthz"}
    return _service("kube-router", argv, ready, ["kubelet"], PATH=path)
