"""What another tenant of the cluster can do to a served model, on a real API server and a real network."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Platform

OURS, TENANT, FRIEND = "kserve-demo", "tenant", "friend"
CONNECTS, DOES_NOT = "connects", "does not connect"


@pytest.fixture(scope="module")
def served(platform: Platform) -> Platform:
    platform.checkout.make("up")
    return platform


@pytest.fixture(scope="module")
def tenant(served: Platform) -> Iterator[Platform]:
    """Two namespaces of others; in one a tenant has all that `edit` gives there."""
    for namespace in (TENANT, FRIEND):
        served.kubectl("create", "namespace", namespace)
    served.kubectl("-n", TENANT, "create", "serviceaccount", "them")
    binding = ("create", "rolebinding", "them", "--clusterrole=edit", f"--serviceaccount={TENANT}:them")
    served.kubectl("-n", TENANT, *binding)
    yield served
    for namespace in (TENANT, FRIEND):
        served.kubectl("delete", "namespace", namespace, "--wait=false")


def may(platform: Platform, verb: str, kind: str, namespace: str) -> bool:
    who = f"--as=system:serviceaccount:{TENANT}:them"
    said = platform.kubectl("-n", namespace, "auth", "can-i", verb, kind, who, check=False).strip()
    assert said in {"yes", "no"}
    return said == "yes"


def connection(platform: Platform, namespace: str, address: str) -> str:
    """Try for ten seconds to connect to the model's server from a pod of another namespace.

    The network lets a pod that has just been made in only after it has seen its address.
    """
    once = f"nc -w 4 {address} 8080 -e true 2>/dev/null && echo {CONNECTS} && exit 0"
    script = f"for _ in $(seq 10); do {once}; sleep 1; done; echo {DOES_NOT}"
    pod = ("asker", "--image", platform.server_image, "--restart=Never")
    platform.kubectl("-n", namespace, "run", *pod, "--command", "--", "sh", "-c", script)
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    try:
        platform.kubectl("-n", namespace, "wait", "pod/asker", ended, "--timeout=120s")
        return platform.kubectl("-n", namespace, "logs", "asker").strip()
    finally:
        platform.kubectl("-n", namespace, "delete", "pod", "asker", "--force", "--grace-period=0")


def address(platform: Platform) -> str:
    pods = json.loads(platform.kubectl("-n", OURS, "get", "pods", "-o", "json"))["items"]
    [found] = {pod["status"]["podIP"] for pod in pods if not pod["metadata"].get("deletionTimestamp")}
    return str(found)


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("update", "inferenceservices.serving.kserve.io"),
        ("update", "servingruntimes.serving.kserve.io"),
        ("delete", "networkpolicies.networking.k8s.io"),
        ("get", "secrets"),
        ("create", "pods/exec"),
        ("create", "pods"),
    ],
)
def test_a_tenant_changes_nothing_of_ours(tenant: Platform, verb: str, kind: str) -> None:
    assert not may(tenant, verb, kind, OURS)
    assert may(tenant, "create", "pods", TENANT), "the tenant has rights, but elsewhere"


def test_who_is_not_let_in_does_not_connect(tenant: Platform) -> None:
    assert connection(tenant, TENANT, address(tenant)) == CONNECTS, "as ingress is not restricted"

    key = "modelcar:ingress.namespaces[0]"
    tenant.checkout.make("pulumi", ARGS=f"config set --stack local --path {key} {FRIEND}")
    try:
        said = tenant.checkout.make("up").stdout  # asks the model, through a forwarded port
        assert "port-forward" in said
        assert connection(tenant, TENANT, address(tenant)) == DOES_NOT
        assert connection(tenant, FRIEND, address(tenant)) == CONNECTS
        report = json.loads(tenant.checkout.make("validate", STACK="local", ARGS="--json").stdout)
        assert report["passed"], report
        assert [line["passed"] for line in report["lines"] if line["name"] == "ingress as it is set"]
    finally:
        tenant.checkout.make("pulumi", ARGS="config rm --stack local modelcar:ingress")
        tenant.checkout.make("up")
    assert connection(tenant, TENANT, address(tenant)) == CONNECTS
