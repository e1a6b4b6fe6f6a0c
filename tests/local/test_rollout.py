"""A new version on the real cluster: no gap where there is room, and its reason where it fails."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pulumi
import pytest

from components.cluster.access import Cluster, ClusterError
from components.cluster.rollout import await_rolled_out
from components.config import loading as stack
from components.config.settings import Settings
from components.manifests.service import REVISION, predictor, revision, service_annotations, serving_runtime
from tests import gpus_in_name
from tests.conftest import Platform
from tests.engine.conftest import STUB_SERVER
from tests.local.client import Client
from tests.local.conftest import SECONDS, push_tiny, until


@pytest.fixture(scope="module")
def versions(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Storage URIs of two modelcars."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    return push_tiny(platform, first, seed=1), push_tiny(platform, second, seed=2)


@pytest.fixture
def served(platform: Platform, tmp_path: Path, versions: tuple[str, str]) -> Iterator[Served]:
    namespace = f"rollout-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", namespace)
    yield Served(platform, namespace, tmp_path)
    platform.kubectl("delete", "namespace", namespace, "--wait=false")


class Served:
    """A model in a namespace of the test's own, declared as the program does."""

    def __init__(self, platform: Platform, namespace: str, project: Path) -> None:
        self.platform, self.namespace, self.project = platform, namespace, project

    def settings(self, **changes: str) -> Settings:
        values = {
            "platformFile": str(self.platform.checkout.folder / ".local/local/platform.json"),
            "namespace": self.namespace,
            "model": "m",
            "gpuCount": "0",
            "cpu": "50m",
            "memory": "64Mi",
            "sharedMemory": "16Mi",
            "serverArgs": "[]",
            "serverEnv": "[]",
            "serverHostPaths": "[]",
            "serverCommand": json.dumps(STUB_SERVER),
            **changes,
        }
        return stack.load({f"modelcar:{key}": value for key, value in values.items()}, self.project)

    def apply(self, uri: str, **changes: str) -> tuple[Settings, str]:
        """Apply the objects; return the settings and the revision that they declare."""
        settings = self.settings(**changes)
        declared = revision(settings, uri)
        metadata = {"name": "m", "namespace": self.namespace}
        annotations = {**service_annotations(settings), REVISION: declared}
        for version, kind, more, spec in (
            ("v1alpha1", "ServingRuntime", {}, serving_runtime(settings)),
            (
                "v1beta1",
                "InferenceService",
                {"annotations": annotations},
                {"predictor": predictor(settings, uri, None)},
            ),
        ):
            document = {
                "apiVersion": f"serving.kserve.io/{version}",
                "kind": kind,
                "metadata": {**metadata, **more},
                "spec": spec,
            }
            said = self.platform.kubectl("apply", "-f", "-", text=json.dumps(document), check=False)
            assert "rror" not in said, said
        return settings, declared

    def serve(self, uri: str, **changes: str) -> Settings:
        """Apply, and wait until it is served."""
        settings, declared = self.apply(uri, **changes)
        await_rolled_out(settings, declared, print, patience=SECONDS)
        return settings

    def refused(self, uri: str, **changes: str) -> str:
        """Apply what cannot be served; return the error."""
        settings, declared = self.apply(uri, **changes)
        with pytest.raises(pulumi.RunError) as raised:
            await_rolled_out(settings, declared, print, patience=20)
        return str(raised.value)

    def pods(self) -> list[dict[str, Any]]:
        found = self.platform.kubectl("-n", self.namespace, "get", "pods", "-o", "json")
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items

    def ask(self, cluster: Cluster) -> str:
        """Ask through the Service's ready endpoints, as a proxy does; return why there is no answer."""
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        try:
            found = cluster.get(slices, labelSelector="kubernetes.io/service-name=m-predictor") or {}
            ends = [end for part in found.get("items") or [] for end in part.get("endpoints") or []]
            for end in ends:
                if end["conditions"].get("ready"):
                    url = f"http://{end['addresses'][0]}:8080/config.json"
                    httpx.get(url, timeout=5, trust_env=False).raise_for_status()
                    return ""
        except (ClusterError, httpx.HTTPError) as error:
            return repr(error)
        return "no endpoint is ready"


@pytest.fixture
def gpus(platform: Platform) -> Iterator[Callable[[int], None]]:
    """Give the node GPUs in name, and take them away again."""
    yield partial(gpus_in_name.give, platform)
    gpus_in_name.take(platform)


def test_with_two_gpus_a_new_version_leaves_no_gap(
    served: Served, versions: tuple[str, str], gpus: Callable[[int], None]
) -> None:
    gpus(2)
    settings = served.serve(versions[0], gpuCount="1", rollout="RollingUpdate")
    cluster = Cluster.of(settings)
    # Each request may be tried twice, as clients do.
    with Client(lambda: served.ask(cluster) and served.ask(cluster)) as client:
        until(lambda: client.answered > 5, SECONDS, lambda: str(client.failed))
        served.serve(versions[1], gpuCount="1", rollout="RollingUpdate")
        asked = client.answered
        until(lambda: client.answered > asked + 5, SECONDS, lambda: str(client.failed))
    assert client.failed == []
    images = [box["image"] for pod in served.pods() for box in pod["spec"]["initContainers"]]
    assert versions[1].removeprefix("oci://") in images


@pytest.mark.extended
def test_with_one_gpu_the_former_pod_makes_room(
    served: Served, versions: tuple[str, str], gpus: Callable[[int], None]
) -> None:
    gpus(1)
    served.serve(versions[0], gpuCount="1")
    served.serve(versions[1], gpuCount="1")

    said = served.refused(versions[0], gpuCount="1", rollout="RollingUpdate")
    assert "Insufficient nvidia.com/gpu" in said
    assert "reason: the pod asks for 1 GPU (nvidia.com/gpu), and no node has so many free" in said
    assert "a former pod of this model holds them" in said
    assert "is still served by" in said


@pytest.mark.extended
def test_an_image_without_models_is_told(
    served: Served, versions: tuple[str, str], platform: Platform
) -> None:
    served.serve(versions[0])
    [former] = [pod["metadata"]["name"] for pod in served.pods()]
    said = served.refused(f"oci://{platform.server_image}")
    assert "/models does not exist or is empty" in said
    assert f"is still served by {former}, as before" in said


@pytest.mark.parametrize(
    ("placement", "box"), [("servingRuntime", "modelcar-init"), ("imageVolume", "kserve-container")]
)
def test_a_digest_that_is_not_in_the_registry_is_told(
    served: Served, versions: tuple[str, str], placement: str, box: str
) -> None:
    served.serve(versions[0], placement=placement)
    said = served.refused(versions[0].rpartition(":")[0] + ":" + "0" * 64, placement=placement)
    assert f"{box}: " in said
    assert "ImagePull" in said
    assert "not found" in said
    assert "is still served by" in said
