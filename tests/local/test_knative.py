"""A model in Knative mode: real Knative Serving; its ingress is a stand-in of this project."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import yaml

from local.addon_kinds import INGRESS_CLASS
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.local.conftest import until

pytestmark = pytest.mark.extended

#: Small, and another one in each version of the model.
FILE = "/models/chat_template.jinja"
#: Knative's shortest, in seconds, so that the test is short: a window of requests, and the time after it.
WINDOW, GRACE = 6, 5
QUICK = {"stableWindowSeconds": WINDOW}


@pytest.fixture(scope="module")
def knative(platform: Platform) -> Iterator[Platform]:
    platform.checkout.make("platform", ARGS="--with knative")
    short = {"data": {"scale-to-zero-grace-period": f"{GRACE}s"}}
    patch = ("patch", "configmap", "config-autoscaler", "--type=merge", "-p", json.dumps(short))
    platform.kubectl("-n", "knative-serving", *patch)
    with default_mode(platform, "Knative"):
        yield platform
    platform.checkout.make("platform", ARGS="--without knative")


@contextmanager
def default_mode(platform: Platform, mode: str) -> Iterator[None]:
    """Let KServe have another default, as one that is installed for Knative has."""
    name = ("-n", "kserve", "configmap", "inferenceservice-config")

    def change(value: str) -> str:
        data = json.loads(platform.kubectl("get", *name, "-o", "json"))["data"]
        deploy = json.loads(data["deploy"])
        former = str(deploy["defaultDeploymentMode"])
        changed = {"data": {"deploy": json.dumps({**deploy, "defaultDeploymentMode": value})}}
        platform.kubectl("patch", *name, "--type=merge", "-p", json.dumps(changed))
        return former

    former = change(mode)
    try:
        yield
    finally:
        change(former)


@pytest.fixture(scope="module")
def ingress(knative: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the stand-in beside the platform; yields its address."""
    host = knative.host
    program = PROJECT / "local/standins/knative_ingress.py"
    command = [sys.executable, str(program), knative.kubeconfig, f"{host}:80", INGRESS_CLASS]
    with (tmp_path_factory.mktemp("ingress") / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield host
    finally:
        running.terminate()
        running.wait(20)


def pods(project: Project) -> list[str]:
    said = project.platform.kubectl("-n", project.namespace, "get", "pods", "-o", "name")
    return said.split()


def asker(ingress: str, outputs: dict[str, Any]) -> Callable[[str], tuple[float, bytes]]:
    """Return what asks a stack's model for a file, by the name that others know it by."""
    host = next(iter(outputs["models"].values()))["endpoint"].partition("://")[2]

    def ask(path: str) -> tuple[float, bytes]:
        began = time.monotonic()
        asked = urllib.request.Request(f"http://{ingress}{path}", headers={"Host": host})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            return time.monotonic() - began, answer.read()

    return ask


def test_a_model_goes_to_zero_and_its_first_request_is_held_and_answered(
    knative: Platform, project: Project, ingress: str
) -> None:
    def told() -> str:
        return knative.kubectl(
            "-n", project.namespace, "get", "pods,ksvc,revisions,ingresses.networking.internal.knative.dev"
        )

    # Knative's own parts alone may connect to the pods.
    let_in = {"namespaces": ["knative-serving"]}
    project.configure(deploymentMode="Knative", minReplicas=0, maxReplicas=2, knative=QUICK, ingress=let_in)
    ask = asker(ingress, project.up())
    to_zero = until(lambda: not pods(project), 120, told)
    assert project.preview() == []
    assert waits(project) == (600, f"{project.config['startTimeoutSeconds']}s", f"{WINDOW}s")
    with ThreadPoolExecutor(20) as pool:
        found = sorted(pool.map(lambda _: ask("/models/config.json"), range(20)))
    assert {json.loads(text)["model_type"] for _, text in found} == {"qwen2"}
    print(
        f"to zero {to_zero:.1f} s (window {WINDOW} s, grace {GRACE} s), first of 20 requests answered after "
        f"{found[0][0]:.1f} s, last after {found[-1][0]:.1f} s, none failed"
    )


def waits(project: Project) -> tuple[int, str, str]:
    """Return for how long the newest revision lets requests and starts take, and over what it counts."""
    text = project.platform.kubectl("-n", project.namespace, "get", "revisions", "-o", "json")
    newest = max(json.loads(text)["items"], key=lambda one: one["metadata"]["creationTimestamp"])
    said = newest["metadata"]["annotations"]
    deadline = said["serving.knative.dev/progress-deadline"]
    return newest["spec"]["timeoutSeconds"], deadline, said["autoscaling.knative.dev/window"]


def test_a_request_that_may_not_take_as_long_as_a_start_is_ended(
    knative: Platform, project: Project, ingress: str
) -> None:
    project.configure(deploymentMode="Knative", minReplicas=0, knative={**QUICK, "timeoutSeconds": 1})
    ask = asker(ingress, project.up())
    until(lambda: not pods(project), 120, lambda: str(pods(project)))
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask("/models/config.json")
    assert caught.value.code == 504
    until(lambda: bool(pods(project)), 60, lambda: "no pod came")


def test_a_knative_that_does_not_take_a_model_is_told_in_the_preview(
    knative: Platform, project: Project
) -> None:
    said = {"nodeSelector": {"disk": "fast"}}
    project.configure(deploymentMode="Knative", scheduling=said, knative={"timeoutSeconds": 601})
    name = ("-n", "knative-serving", "patch", "configmap", "config-features", "--type=merge", "-p")
    feature = "kubernetes.podspec-nodeselector"
    knative.kubectl(*name, json.dumps({"data": {feature: "disabled"}}))
    try:
        shown = project.pulumi("preview", "--color=never", check=False).stdout
    finally:
        knative.kubectl(*name, json.dumps({"data": {feature: "enabled"}}))
    assert f"config-features, {feature}: disabled" in shown
    assert "modelcar:knative.timeoutSeconds: 601" in shown
    assert "at most 600" in shown


def test_vllm_itself_is_validated_idles_and_wakes(knative: Platform, ingress: str) -> None:
    """The commands that anyone runs on the local stack, in this mode."""
    checkout = knative.checkout
    own = checkout.folder / "Pulumi.local.yaml"
    before = own.read_text()
    told = yaml.safe_load(before)
    del told["config"]["modelcar:rollout"]
    told["config"] |= {"modelcar:deploymentMode": "Knative", "modelcar:serviceName": "in-knative"}
    told["config"]["modelcar:knative"] = QUICK
    own.write_text(yaml.safe_dump(told))
    try:
        checkout.make("up")
        validated = checkout.make("validate", STACK="local").stdout
        assert "FAIL" not in validated
        assert validated.count("PASS") >= 6
        checkout.make("idle", STACK="local")
        pods_of = partial(knative.kubectl, "-n", "kserve-demo", "get", "pods", "-o", "name")
        until(lambda: not pods_of(), 300, pods_of)  # the new revision's pod comes once, and goes
        checkout.make("wake", STACK="local")
        assert "FAIL" not in checkout.make("validate", STACK="local").stdout
    finally:
        try:
            checkout.make("pulumi", ARGS="destroy --yes --skip-preview --stack local")
        finally:
            own.write_text(before)


def test_a_canary_gets_its_share_and_no_request_fails(
    knative: Platform, project: Project, ingress: str
) -> None:
    def lock(text: str) -> None:
        (project.weights / "chat_template.jinja").write_text(text)
        project.lock()

    def said(share: int | None, requests: int) -> Counter[bytes]:
        project.configure(canaryTrafficPercent=share)
        ask = asker(ingress, project.up())
        with ThreadPoolExecutor(10) as pool:
            return Counter(text for _, text in pool.map(lambda _: ask(FILE), range(requests)))

    project.configure(deploymentMode="Knative")
    lock("first")
    assert set(said(None, 20)) == {b"first"}
    lock("second")
    found = said(20, 1000)
    print(f"of 1,000 requests the canary of 20 % got {found[b'second']}, the former {found[b'first']}")
    assert found[b"first"] + found[b"second"] == 1000
    assert 150 < found[b"second"] < 250
    assert set(said(None, 100)) == {b"second"}


def test_a_rollback_serves_the_former_image_and_an_image_volume_serves_too(
    knative: Platform, project: Project, ingress: str
) -> None:
    def serve(text: str | None = None, **changes: Any) -> dict[str, Any]:
        if text is not None:
            (project.weights / "chat_template.jinja").write_text(text)
            project.lock()
        project.configure(**changes)
        return project.up()

    first = serve("first", deploymentMode="Knative")
    second = serve("second")
    assert asker(ingress, second)(FILE)[1] == b"second"
    former = first["storageUri"].partition("@")[2]
    back = serve(rollbackTo=former)
    assert back["storageUri"] == first["storageUri"]
    assert asker(ingress, back)(FILE)[1] == b"first"
    ahead = serve(rollbackTo=None, placement="imageVolume")
    assert ahead["storageUri"] == second["storageUri"]
    assert asker(ingress, ahead)(FILE)[1] == b"second"
    text = knative.kubectl("-n", project.namespace, "get", "pods", "-o", "json")
    newest = max(json.loads(text)["items"], key=lambda pod: pod["metadata"]["creationTimestamp"])
    assert {box["name"] for box in newest["spec"]["containers"]} == {"kserve-container", "queue-proxy"}
