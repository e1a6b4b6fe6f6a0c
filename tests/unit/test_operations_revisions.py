"""What was served before, as Kubernetes remembers it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.config.stack import Stack
from modelcar.errors import InputError
from operations.__main__ import main
from operations.revisions import before, document, former, revisions, table
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

SETTINGS = load(model="tiny", namespace="models", serviceName="m")
PATH = "/apis/apps/v1/namespaces/models/replicasets"


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def replica_set(number: int, uri: str, pods: int = 0, ready: int = 0) -> dict[str, Any]:
    annotations = {"internal.serving.kserve.io/storage-initializer-sourceuri": uri}
    return {
        "metadata": {
            "creationTimestamp": f"2026-01-0{number}T00:00:00Z",
            "annotations": {"deployment.kubernetes.io/revision": str(number)},
        },
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {}}},
        "status": {"replicas": pods, **({"readyReplicas": ready} if ready else {})},
    }


def uri(letter: str, repository: str = "tiny") -> str:
    return f"oci://{SETTINGS.registry}/{repository}@{digest(letter)}"


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_the_one_before_is_the_newest_other_image(cluster: FakeCluster) -> None:
    cluster.lists[PATH] = [
        replica_set(1, uri("a")),
        replica_set(4, uri("c"), pods=1, ready=1),
        replica_set(3, uri("c")),  # the same image with other arguments
        replica_set(2, uri("b")),
        replica_set(5, uri("d", "another-tiny")),
    ]
    found = revisions(cluster, SETTINGS)
    assert [one.number for one in found] == [4, 3, 2, 1]
    assert before(found, SETTINGS).digest == digest("b")
    assert table(found)[1] == f"       4  2026-01-04T00:00:00Z     1      1  {digest('c')}"


def test_after_two_bad_releases_it_is_the_one_that_serves(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.image.former_image.find", lambda *_, **__: None)
    said: list[str] = []
    cluster.lists[PATH] = [
        replica_set(1, uri("a"), pods=1, ready=1),
        replica_set(2, uri("b")),  # crashed
        replica_set(3, uri("c"), pods=1),  # crashes
    ]
    assert former(cluster, SETTINGS, say=said.append) == digest("a")
    assert not said
    assert document(revisions(cluster, SETTINGS))["revisions"][2]["ready"] == 1
    # Nothing serves: with Recreate the bad ones took its pod.
    cluster.lists[PATH][0] = replica_set(1, uri("a"))
    assert former(cluster, SETTINGS, say=said.append) == digest("b")
    [line] = said
    assert line.startswith(f"{digest('b')} has no ready pod now; whether it ever served is not known")


def test_the_command_prints_a_digest_for_people_and_a_document_for_programs(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("components.image.former_image.find", lambda *_, **__: None)
    monkeypatch.setattr("operations.__main__.stack_of", lambda *_: Stack((SETTINGS,)))
    monkeypatch.setattr("operations.__main__.cluster_of", lambda *_: cluster)
    cluster.lists[PATH] = [replica_set(2, uri("a")), replica_set(1, uri("b"))]
    assert main(["former", "--stack", "dev"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{digest('b')}\n", "make rollback reads it"
    assert "not known" in told.err
    assert main(["former", "--stack", "dev", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"digest": digest("b")}


@pytest.mark.parametrize("items", [[], [replica_set(1, uri("a"))]])
def test_where_none_is_known_the_fix_is_told(cluster: FakeCluster, items: list[dict[str, Any]]) -> None:
    cluster.lists[PATH] = items
    with pytest.raises(InputError, match="only, as far as is known") as raised:
        before(revisions(cluster, SETTINGS), SETTINGS)
    assert "--to sha256:" in str(raised.value)


def test_one_step_is_not_repeated(cluster: FakeCluster) -> None:
    cluster.lists[PATH] = [replica_set(2, uri("a")), replica_set(1, uri("b"))]
    back = load(model="tiny", namespace="models", serviceName="m", rollbackTo=digest("a"))
    with pytest.raises(InputError, match="rolled back already") as raised:
        before(revisions(cluster, back), back)
    assert "where that `up` failed, run it again (make deploy" in str(raised.value)


def test_knative_is_told_its_own_way(cluster: FakeCluster) -> None:
    with pytest.raises(InputError, match="canaryTrafficPercent 0"):
        revisions(cluster, load(deploymentMode="Knative"))


def test_what_is_rolled_back_to_is_in_the_registry(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[str | None] = []
    monkeypatch.setattr(
        "components.image.former_image.find", lambda settings, **_: looked_for.append(settings.rollback_to)
    )
    cluster.lists[PATH] = [replica_set(2, uri("a")), replica_set(1, uri("b"))]
    assert former(cluster, SETTINGS) == digest("b")
    assert former(None, SETTINGS, digest("e")) == digest("e")
    assert looked_for == [digest("b"), digest("e")]
    with pytest.raises(InputError, match="by its digest"):
        former(None, SETTINGS, "latest")
