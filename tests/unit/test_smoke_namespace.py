"""Two smoke tests of one namespace: the second waits, and neither removes what the other one made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.cluster import access, smoke_namespace
from components.cluster import smoke as smoke_test
from components.cluster.access import ClusterError
from components.cluster.smoke_namespace import LABEL, LASTS, REMOVAL, scratch_namespace
from modelcar.errors import InputError
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

NAME = "modelcar-smoke"
PATH = f"/api/v1/namespaces/{NAME}"
SETTINGS = load(namespace="models", serviceName="m")


class Namespaces(FakeCluster):
    """One namespace by that name. looks: what happens in the cluster before each look at it, in order.

    stays: one that is deleted does not go, as where an API of the cluster does not answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[Callable[[], object]] = []
        self.removed: list[str] = []
        self.stays = False
        self.found["/apis/serving.kserve.io/v1beta1"] = {}

    def there(self, uid: str, age: float = 0, lasts: float | None = 300) -> None:
        """Let there be a test's namespace; age: in seconds, lasts: as it says, None of an older version."""
        made = (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        notes = {} if lasts is None else {LASTS: str(lasts)}
        labels = {LABEL: "true"}
        self.found[PATH] = {
            "metadata": {"uid": uid, "creationTimestamp": made, "labels": labels, "annotations": notes}
        }

    def gone(self) -> None:
        self.found.pop(PATH, None)

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        if path == PATH and self.looks:
            self.looks.pop(0)()
        return super().get(path, **query)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        if method == "POST" and path == "/api/v1/namespaces":
            if PATH in self.found:
                raise ClusterError(409, "already exists")
            self.there("own", lasts=float((body or {})["metadata"]["annotations"][LASTS]))
            return self.found[PATH]
        if method == "DELETE" and path == PATH:
            uid = self.found.get(PATH, {"metadata": {"uid": None}})["metadata"]["uid"]
            if uid != (body or {}).get("preconditions", {"uid": uid})["uid"]:
                raise ClusterError(409, "Precondition failed: UID")
            self.removed.append(str(uid))
            if self.stays:
                self.found[PATH]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            else:
                self.gone()
            return {}
        return super().request(method, path, body, query)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Namespaces:
    for module in (access, smoke_namespace, smoke_test):
        monkeypatch.setattr(module, "POLL", 0)
    return Namespaces()


def nothing() -> None:
    """Nothing happens."""


def test_another_test_that_runs_is_waited_for(cluster: Namespaces) -> None:
    cluster.there("other", age=20)
    cluster.looks = [nothing, nothing, nothing, cluster.gone]
    said: list[str] = []
    with scratch_namespace(cluster, NAME, 180, said.append) as uid:
        assert uid == "own"
        assert cluster.removed == [], "the other one's probes are still in it"
    assert cluster.removed == ["own"]
    [line] = said
    # Kubernetes notes whole seconds.
    left = re.match(rf"another smoke test runs in {NAME}: waiting until it ends, (\d+) s at most", line)
    assert left
    assert 200 < int(left[1]) <= 280
    assert f"kubectl delete namespace {NAME}" in line


def test_one_whose_time_is_over_was_killed_and_is_removed(cluster: Namespaces) -> None:
    cluster.there("other", age=301)
    said: list[str] = []
    with scratch_namespace(cluster, NAME, 180, said.append) as uid:
        assert (uid, cluster.removed) == ("own", ["other"])
    assert said == [f"{NAME} is left of a test that was killed: removing it first"]


@pytest.mark.parametrize(("ahead", "removed"), [(-900, []), (0, []), (900, ["other"])])
def test_the_age_of_a_test_is_told_by_the_api_servers_clock(
    cluster: Namespaces, ahead: float, removed: list[str]
) -> None:
    cluster.there("other", age=20)
    moment = datetime.now(UTC) + timedelta(seconds=ahead)
    cluster._note_time(moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    cluster.looks = [nothing, nothing, cluster.gone]
    with scratch_namespace(cluster, NAME, 180, lambda _: None):
        assert cluster.removed == removed


@pytest.mark.parametrize(("age", "removed"), [(200, False), (400, True)])
def test_one_of_a_version_that_did_not_say_how_long_it_lasts(
    cluster: Namespaces, age: float, removed: bool
) -> None:
    cluster.there("other", age=age, lasts=None)
    cluster.looks = [nothing, nothing] if removed else [nothing, nothing, cluster.gone]
    with scratch_namespace(cluster, NAME, 180, lambda _: None):
        assert cluster.removed == (["other"] if removed else [])


def test_one_that_another_patience_made_is_given_its_time(cluster: Namespaces) -> None:
    """`--patience 1200`, for a pool that starts at zero, and somebody else's `up` beside it."""
    cluster.there("other", age=1000, lasts=1320)
    cluster.looks = [nothing, nothing, cluster.gone]
    with scratch_namespace(cluster, NAME, 180, lambda _: None):
        assert cluster.removed == []


def test_one_that_does_not_end_is_told_with_what_to_do(
    cluster: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoke_namespace, "REMOVAL", 0.0)
    cluster.there("other", lasts=900)
    with pytest.raises(InputError) as caught, scratch_namespace(cluster, NAME, 0, lambda _: None):
        pass
    assert f"another smoke test still runs in {NAME}" in str(caught.value)
    assert "pulumi config set modelcar:smokeNamespace" in str(caught.value)
    assert cluster.removed == []


def test_one_that_was_quicker_is_waited_for_too(cluster: Namespaces) -> None:
    """Both saw that the name was free; the API server takes one of them."""
    create = cluster.create

    def beaten(path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if not cluster.looks:
            cluster.there("other")
            cluster.looks = [nothing, nothing, cluster.gone]
            cluster.create = create  # type: ignore[method-assign]
        return create(path, body, dry_run=dry_run)

    cluster.create = beaten  # type: ignore[method-assign]
    said: list[str] = []
    with scratch_namespace(cluster, NAME, 180, said.append) as uid:
        assert uid == "own"
    assert "another smoke test runs" in said[0]
    assert cluster.removed == ["own"]


def test_one_that_is_being_removed_is_waited_for(cluster: Namespaces) -> None:
    cluster.there("other")
    cluster.found[PATH]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    said: list[str] = []
    with scratch_namespace(cluster, NAME, 180, said.append) as uid:
        assert uid == "own"
    assert said == [f"{NAME} is being removed: waiting until it is gone"]


def test_only_what_it_made_itself_is_removed(cluster: Namespaces) -> None:
    with scratch_namespace(cluster, NAME, 180, lambda _: None):
        cluster.there("other")
    assert cluster.removed == []
    assert cluster.found[PATH]["metadata"]["uid"] == "other"


@pytest.mark.parametrize("by", ["gone", "replaced", "terminating"])
def test_what_it_sees_in_anothers_namespace_decides_nothing(cluster: Namespaces, by: str) -> None:
    """A version before 0.4.0 removes it: probes without a pod would choose another placement, and keep it."""

    def removed() -> None:
        if by == "terminating":
            cluster.found[PATH]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            cluster.gone()
        if by == "replaced":
            cluster.there("other")

    cluster.looks = [nothing, removed]
    with pytest.raises(InputError, match=f"{NAME} was removed while the test ran in it"):
        smoke_test.smoke(cluster, SETTINGS, "registry.example/x@sha256:1", namespace=NAME, patience=60)


def test_its_namespace_says_how_long_it_lasts(cluster: Namespaces) -> None:
    with scratch_namespace(cluster, NAME, 600, lambda _: None):
        assert float(cluster.found[PATH]["metadata"]["annotations"][LASTS]) == 600 + REMOVAL


def test_a_namespace_that_does_not_go_costs_neither_the_result_nor_the_error(
    cluster: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoke_namespace, "REMOVAL", 0.0)
    cluster.stays = True
    said: list[str] = []
    with scratch_namespace(cluster, NAME, 180, said.append) as uid:
        assert uid == "own"
    [line] = said
    assert f"{NAME} of the test is not gone: {NAME} is still being removed" in line
    assert "kubectl get apiservice" in line
    cluster.gone()
    with (
        pytest.raises(ClusterError, match="no more quota"),
        scratch_namespace(cluster, NAME, 180, said.append),
    ):
        raise ClusterError(403, "no more quota")


def test_one_of_a_former_test_that_does_not_go_is_told_with_the_way_round_it(
    cluster: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wrong input: the cluster can be asked, and the placement can be found out in another namespace."""
    monkeypatch.setattr(smoke_namespace, "REMOVAL", 0.0)
    cluster.stays = True
    cluster.there("other", age=1000)
    with pytest.raises(InputError) as caught, scratch_namespace(cluster, NAME, 180, lambda _: None):
        pass
    [problem] = caught.value.problems
    assert problem.value == f"{NAME} of a former test is still being removed"
    assert "kubectl get apiservice" in problem.fix
    assert "modelcar:smokeNamespace" in problem.fix
