"""The embedded node with two cards that are none: a real kubelet, the real plugin, nodes of /dev/null's kind.

What the plugin hands out is what counts here, so the cards need not compute. A platform of the test's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local import plan, platform
from local.gpu import Card, Gpus
from local.instance import Instance, load
from local.pki import NODE
from local.plan import GPU_RESOURCE, TOOL_IMAGE
from local.tool_list import DEVICE_PLUGIN
from local.tools import Toolbox, collect

SECONDS = 90
NAMESPACE = "gpus"
SHARED = ("nvidiactl", "nvidia-uvm")

#: What a pod of the product's would look at.
SCRIPT = """
id -u
ls /dev | grep nvidia
echo something > /dev/nvidia0 && echo written
/usr/local/nvidia/bin/nvidia-smi
touch /usr/local/nvidia/bin/mine || echo read-only
env | grep -i -e nvidia -e cuda || echo no environment
sleep 600
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.5)


def make_node(path: Path) -> None:
    """Make a device node that reads and writes like /dev/null, and that anybody may open."""
    os.mknod(path, stat.S_IFCHR | 0o666, Path("/dev/null").stat().st_rdev)
    path.chmod(0o666)


@dataclass
class Node:
    """The running platform with two cards."""

    instance: Instance
    tools: Toolbox
    gpus: Gpus

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return platform.kubectl(self.instance, self.tools, *arguments, **more)

    def allocatable(self) -> int:
        node = json.loads(self.kubectl("get", "node", NODE, "-o", "json"))
        return int(node["status"]["allocatable"].get(GPU_RESOURCE, 0))

    def log(self) -> str:
        return (self.instance.logs / "device-plugin.log").read_text()

    def template(self, gpus: int) -> dict[str, Any]:
        """Return the spec of a pod that asks for GPUs and keeps to the `restricted` profile."""
        digest = json.loads((self.instance.state / "base/index.json").read_text())["manifests"][0]["digest"]
        container = {
            "name": "server",
            "image": f"{self.instance.registry}/{TOOL_IMAGE}@{digest}",
            "command": ["sh", "-c", SCRIPT],
            "resources": {"limits": {GPU_RESOURCE: gpus}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        return {
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1010,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "tolerations": [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
            "terminationGracePeriodSeconds": 0,
        }

    def run(self, name: str, gpus: int) -> None:
        """Make a pod that nothing replaces."""
        metadata = {"name": name, "namespace": NAMESPACE}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.template(gpus)}
        self.kubectl("apply", "-f", "-", documents=[pod])

    def deploy(self, name: str, gpus: int) -> None:
        """Make a Deployment of one pod, as a model has."""
        labels = {"app": name}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": self.template(gpus)},
            },
        }
        self.kubectl("apply", "-f", "-", documents=[deployment])

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Return the pods of a Deployment."""
        said = self.kubectl(
            "-n", NAMESPACE, "get", "pods", "-l", f"app={name}", "-o", "json", patience=SECONDS
        )
        found: list[dict[str, Any]] = json.loads(said)["items"]
        return found

    def pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.kubectl("-n", NAMESPACE, "get", "pod", name, "-o", "json", patience=SECONDS)
        )
        return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("gpus")
    driver = folder / "driver"
    (driver / "bin").mkdir(parents=True)
    program = driver / "bin" / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA-SMI of nobody\n")
    program.chmod(0o755)
    for name in ("nvidia0", "nvidia1", *SHARED):
        make_node(folder / name)
    cards = tuple(
        Card(index, "H100 of nobody", f"GPU-{index}{index}", 2**36, 2**36, (9, 0), folder / f"nvidia{index}")
        for index in range(2)
    )
    gpus = Gpus(cards, "580.0", "13.0", driver)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELCAR_STATE", str(folder))
        patch.setattr(plan, "CONTROL_NODES", tuple(folder / name for name in SHARED))
        tools = collect(print, extra=(DEVICE_PLUGIN,))
        instance = load("gpus")
        try:
            platform.up(instance, tools, print, gpus)
            made = Node(instance, tools, gpus)
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            metadata = {"name": NAMESPACE, "labels": labels}
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            made.kubectl("apply", "-f", "-", documents=[namespace])
            account = ("--for=create", "serviceaccount/default", f"--timeout={SECONDS}s")
            made.kubectl("-n", NAMESPACE, "wait", *account)
            yield made
        finally:
            platform.down(instance, print)
            shutil.rmtree(instance.state)


def test_the_node_advertises_its_cards_and_the_plugin_says_what_it_is(node: Node) -> None:
    assert node.allocatable() == 2, "up waits until the node has them"
    service = platform.status(node.instance)["device-plugin"]
    assert (service["state"], service["restarts"]) == ("ready", 0)
    log = node.log()
    assert "a stand-in of this project for NVIDIA's device plugin" in log
    assert f"GPU-11 ({node.gpus.cards[1].node})" in log
    assert f"{node.gpus.libraries}, read-only at /usr/local/nvidia" in log


def test_a_restricted_pod_sees_one_card_and_the_driver(node: Node) -> None:
    node.run("one", 1)
    ready = ("--for=condition=Ready", f"--timeout={SECONDS}s", "pod/one")
    node.kubectl("-n", NAMESPACE, "wait", *ready)
    wait_for(lambda: "environment" in node.kubectl("-n", NAMESPACE, "logs", "one"), "the pod's words")
    lines = node.kubectl("-n", NAMESPACE, "logs", "one").splitlines()
    seen = [line for line in lines if not line.startswith("touch:")]
    assert seen == [
        *("1010", "nvidia-uvm", "nvidia0", "nvidiactl", "written"),
        *("NVIDIA-SMI of nobody", "read-only", "no environment"),
    ]


def test_a_pod_that_asks_for_more_than_is_free_stays_pending(node: Node) -> None:
    node.run("two", 2)

    def told() -> bool:
        conditions = node.pod("two")["status"].get("conditions", [])
        return any(f"Insufficient {GPU_RESOURCE}" in entry.get("message", "") for entry in conditions)

    wait_for(told, "the scheduler's reason")
    assert node.pod("two")["status"]["phase"] == "Pending"
    node.kubectl("-n", NAMESPACE, "delete", "pod", "two")


def test_a_card_that_goes_is_no_longer_advertised(node: Node) -> None:
    card = node.gpus.cards[1]
    card.node.unlink()
    wait_for(lambda: node.allocatable() == 1, "one card left")
    assert f"{card.uuid} is unhealthy: no device node {card.node}" in node.log()
    make_node(card.node)
    wait_for(lambda: node.allocatable() == 2, "both cards again")


def test_a_kubelet_that_restarts_has_the_cards_again(node: Node) -> None:
    before = node.log().count("registered")
    os.kill(platform.status(node.instance)["kubelet"]["pid"], 9)
    wait_for(lambda: node.log().count("registered") > before, "another registration")
    wait_for(lambda: node.allocatable() == 2, "both cards again")
    assert platform.status(node.instance)["device-plugin"]["restarts"] == 0
    assert node.pod("one")["status"]["containerStatuses"][0]["restartCount"] == 0, "a pod keeps its card"


def test_what_the_platform_hands_out_is_known(node: Node) -> None:
    """`make up` starts a platform again that hands out other cards than it finds."""
    assert platform.hands_out(node.instance) == {"GPU-00", "GPU-11"}


def test_a_platform_that_starts_again_runs_its_pods_with_their_cards(node: Node) -> None:
    """As on any node: a pod that the kubelet finds before the plugin has registered is refused for good.

    The plugin makes haste, and mostly wins. Where it does not, a controller has to replace the pod, as a
    model's Deployment does.
    """
    node.kubectl("-n", NAMESPACE, "delete", "pod", "one")
    node.deploy("model", 1)

    def started(since: str = "") -> list[str]:
        """Return the pods that have started, or started again, after the platform of this pod was stopped."""
        return [
            pod["metadata"]["name"]
            for pod in node.pods("model")
            for container in pod["status"].get("containerStatuses", [])
            if container["ready"] and (container["restartCount"] or pod["metadata"]["name"] != since)
        ]

    wait_for(lambda: len(started()) == 1, "the pod of a Deployment")
    [before] = started()
    platform.down(node.instance, print)
    platform.up(node.instance, node.tools, print, node.gpus)
    wait_for(lambda: len(started(before)) == 1, "a pod with a card that has started since")
    [now] = started(before)
    wait_for(lambda: "environment" in node.kubectl("-n", NAMESPACE, "logs", now), "the pod's words")
    assert re.search(r"\nnvidia[01]\nnvidiactl\n", node.kubectl("-n", NAMESPACE, "logs", now))
    others = [pod["status"].get("reason") for pod in node.pods("model") if pod["metadata"]["name"] != now]
    assert set(others) <= {"UnexpectedAdmissionError"}


def test_it_steps_aside_for_nvidias_own_plugin(node: Node) -> None:
    """… whose DaemonSet makes a socket of this name in the folder, which it knows as /var/lib/kubelet."""
    other = node.instance.state / "kubelet/device-plugins/nvidia-gpu.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(other))
        listener.listen()
        wait_for(lambda: "steps aside: nvidia-gpu.sock serves" in node.log(), "the other one is seen")
        assert node.allocatable() == 2, "what the kubelet knows stays until the other one has registered"


def test_the_machines_own_folder_for_device_plugins_is_left_alone(node: Node) -> None:
    """The kubelet's path for them is a fixed one; a kubelet of the machine's own would lose its plugins."""
    assert (node.instance.state / "kubelet/device-plugins/kubelet.sock").is_socket()
