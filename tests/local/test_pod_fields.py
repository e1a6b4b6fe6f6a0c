"""What the stack says of its pods reaches them through the real KServe, in every placement."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Platform
from tests.local.conftest import SECONDS
from tests.local.test_rollout import Served
from tests.unit.test_scheduling import NODES, SCHEDULING

URI = "oci://registry.example/models/m@sha256:" + "0" * 64
TERMINATION = {"gracePeriodSeconds": 100, "preStopSeconds": 7}
PROBES = {
    "readiness": {"path": "/ready", "timeoutSeconds": 8, "failureThreshold": 9},
    "liveness": {"periodSeconds": 11, "timeoutSeconds": 12, "failureThreshold": 13},
}


@pytest.fixture
def served(platform: Platform, tmp_path: Path) -> Iterator[Served]:
    namespace = f"fields-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", namespace)
    yield Served(platform, namespace, tmp_path)
    platform.kubectl("delete", "namespace", namespace, "--wait=false")


def template(served: Served) -> dict[str, Any]:
    """Wait for KServe's Deployment; return its pods' template. No pod has to run for that."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = served.platform.kubectl(
            *("-n", served.namespace, "get", "deployments", "-o", "json"), check=False
        )
        if items := json.loads(found)["items"]:
            made: dict[str, Any] = items[0]["spec"]["template"]
            return made
        time.sleep(0.5)
    pytest.fail("KServe made no Deployment")


@pytest.mark.parametrize("placement", ["servingRuntime", "storageUriEnv", "storageUris"])
def test_kserve_hands_all_of_it_on(served: Served, placement: str) -> None:
    changes = {"scheduling": SCHEDULING, "termination": TERMINATION, "probes": PROBES}
    served.apply(URI, placement=placement, **{key: json.dumps(value) for key, value in changes.items()})
    made = template(served)
    spec = made["spec"]
    assert {key: spec[key] for key in NODES} == NODES
    assert (spec["priorityClassName"], spec["schedulerName"]) == ("serving", "volcano")
    [spread] = spec["topologySpreadConstraints"]
    selector = spread["labelSelector"]["matchLabels"]
    assert selector.items() <= made["metadata"]["labels"].items(), "a spread counts the model's own pods"
    assert SCHEDULING["podLabels"].items() <= made["metadata"]["labels"].items()
    assert SCHEDULING["podAnnotations"].items() <= made["metadata"]["annotations"].items()
    assert spec["terminationGracePeriodSeconds"] == 100
    [server] = [box for box in spec["containers"] if box["name"] == "kserve-container"]
    assert server["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert "--shutdown-timeout=73" in server["args"]
    ready, live = server["readinessProbe"], server["livenessProbe"]
    assert ready["httpGet"]["path"] == "/ready"
    assert (ready["timeoutSeconds"], ready["failureThreshold"]) == (8, 9)
    assert (live["periodSeconds"], live["timeoutSeconds"], live["failureThreshold"]) == (11, 12, 13)
