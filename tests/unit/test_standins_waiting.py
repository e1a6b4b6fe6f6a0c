"""What the waitFor annotation means, and when an InferenceService counts as ready."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from standins.kubernetes_provider import conditions, readiness
from standins.kubernetes_provider.cluster import Cluster, ResourceType, UnknownKindError
from standins.kubernetes_provider.stopping import Stop
from standins.kubernetes_provider.watching import Followed, Verdict, Watcher

URI = "oci://registry/qwen@sha256:aa"


def annotated(**annotations: str) -> dict[str, Any]:
    named = {f"pulumi.com/{key}": value for key, value in annotations.items()}
    return {"metadata": {"annotations": named}}


def ready(status: str = "True", **more: Any) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Ready", "status": status}], **more}}


def only(text: str) -> conditions.Requirement:
    (requirement,) = conditions.requirements(annotated(waitFor=text))
    return requirement


@pytest.mark.parametrize(
    ("text", "live", "met"),
    [
        ("condition=Ready", ready(), True),
        ("condition=ready", ready(), True),
        ("condition=Ready", ready("False"), False),
        ("condition=Ready=False", ready("False"), True),
        ("condition=Other", ready(), False),
        ("condition=Ready", {}, False),
        ("jsonpath={.status.phase}", {"status": {"phase": "x"}}, True),
        ("jsonpath={.status.phase}", {"status": {}}, False),
        ("jsonpath={.status.phase}=Running", {"status": {"phase": "Running"}}, True),
        ("jsonpath={ $.status.phase }=Running", {"status": {"phase": "Pending"}}, False),
        ("jsonpath={.status.on}=true", {"status": {"on": True}}, True),
        ("jsonpath={.status.count}=3", {"status": {"count": 3}}, True),
        ("jsonpath={.items[1].a}=2", {"items": [{"a": 1}, {"a": 2}]}, True),
        ("jsonpath={.items[*].a}=1", {"items": [{"a": 1}]}, True),
        ("jsonpath={.m['a.b/c']}=1", {"m": {"a.b/c": "1"}}, True),
        ('jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', ready(), True),
        ('jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', ready("False"), False),
    ],
)
def test_the_documented_forms(text: str, live: dict[str, Any], met: bool) -> None:
    assert only(text).check({"metadata": {}, **live}).done is met


def test_an_array_means_all_of_them() -> None:
    text = json.dumps(["condition=A", "jsonpath={.b}=c"])
    assert [entry.text for entry in conditions.requirements(annotated(waitFor=text))] == [
        "condition=A",
        "jsonpath={.b}=c",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Ready",
        "condition=",
        "condition=Ready=",
        "jsonpath=.a",
        "jsonpath={.a}=",
        "jsonpath={..a}",
        "jsonpath={.a[?(@.b>1)]}",
        "[]",
        "[1]",
        "delete",
    ],
)
def test_other_forms_are_refused_with_the_allowed_ones(text: str) -> None:
    with pytest.raises(conditions.WaitForError, match=r"pulumi.com/waitFor: .* allowed: condition=TYPE"):
        conditions.requirements(annotated(waitFor=text))


def test_a_status_of_an_older_generation_does_not_count() -> None:
    stale = {"metadata": {"generation": 2}, **ready(observedGeneration=1)}
    assert not only("condition=Ready").check(stale).done
    assert not only("jsonpath={.status.conditions}").check(stale).done
    assert only("condition=Ready").check({"metadata": {"generation": 1}, **ready(observedGeneration=1)}).done


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "long"])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(text: str) -> None:
    with pytest.raises(conditions.WaitForError, match=f"timeoutSeconds: {text}"):
        conditions.timeout_seconds(annotated(timeoutSeconds=text), 0)


def test_the_timeout_comes_from_the_option_then_the_annotation_then_the_default() -> None:
    assert conditions.timeout_seconds(annotated(timeoutSeconds="30"), 5) == 5
    assert conditions.timeout_seconds(annotated(timeoutSeconds="30"), 0) == 30
    assert conditions.timeout_seconds({}, 0) == 600


# --- readiness of an InferenceService, against collections as a watch would have filled them


class Collections:
    """Stands in for the cluster (knows three kinds) and the watcher (hands out the collections)."""

    def __init__(self) -> None:
        self.followed: dict[str, Followed] = {}

    def resource_type(self, api_version: str, kind: str) -> ResourceType:
        if kind not in ("InferenceService", "Deployment"):
            raise UnknownKindError(kind)
        return ResourceType(f"/apis/{api_version}", f"{kind.lower()}s", True)

    def follow(self, path: str, **query: str) -> Followed:
        followed = Followed(path, query, synced=True)
        self.followed[path.rsplit("/", 1)[-1]] = followed
        return followed

    def put(self, plural: str, thing: dict[str, Any]) -> None:
        self.followed[plural].take("MODIFIED", [thing])


def service(uri: str = URI, generation: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen", "namespace": "demo", "uid": "s", "generation": generation},
        "spec": {"predictor": {"model": {"storageUri": uri}}},
        **ready(**status),
    }


def workload(uri: str = URI, generation: int = 1, owner: str = "s", **status: int) -> dict[str, Any]:
    out = {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    return {
        "metadata": {
            "name": "qwen-predictor",
            "uid": f"d-{owner}",
            "generation": generation,
            "ownerReferences": [{"uid": owner}],
        },
        "spec": {
            "replicas": 1,
            "template": {"metadata": {"annotations": {"sourceuri": uri}}},
        },
        "status": {**out, **status},
    }


def judge(
    live: dict[str, Any],
    workloads: list[dict[str, Any]],
    *,
    before: dict[str, int] | None = None,
    changed: bool = True,
) -> Verdict:
    world = Collections()
    check = readiness.readiness(
        cast(Cluster, world),
        cast(Watcher, world),
        live,
        conditions.requirements(annotated(waitFor="condition=Ready")),
        readiness.Baseline(before or {}),
        changed=changed,
    )
    assert check is not None
    world.put("inferenceservices", live)
    for item in workloads:
        world.put("deployments", item)
    return check()


def test_ready_with_a_complete_rollout_is_ready() -> None:
    assert judge(service(), [workload()]).done


def test_the_generation_of_the_deployment_is_not_taken_for_the_services_own() -> None:
    # Measured: generation 5 of the InferenceService beside observedGeneration 2, which is the Deployment's.
    assert judge(service(generation=5, observedGeneration=2), [workload(generation=2)]).done


def test_ready_true_of_the_old_revision_does_not_count() -> None:
    verdict = judge(service(uri="oci://registry/qwen@sha256:bb", generation=2), [workload()])
    assert not verdict.done
    assert "sha256:bb" in verdict.message


@pytest.mark.parametrize(
    "status",
    [{"updatedReplicas": 0}, {"replicas": 2}, {"availableReplicas": 0}, {"observedGeneration": 0}],
)
def test_ready_does_not_count_while_the_rollout_is_on(status: dict[str, Any]) -> None:
    assert not judge(service(), [workload(**status)]).done


def test_ready_does_not_count_when_the_new_spec_is_invalid() -> None:
    failure = {"reason": "RuntimeNotRecognized", "message": "no such runtime"}
    model = {"transitionStatus": "InvalidSpec", "lastFailureInfo": failure}
    verdict = judge(service(modelStatus=model), [workload()])
    assert not verdict.done
    assert "no such runtime" in verdict.message


def test_a_workload_of_a_deleted_service_of_the_same_name_does_not_count() -> None:
    assert not judge(service(), [workload(owner="an older one")]).done


def test_a_change_is_waited_for_until_the_workload_shows_it_or_has_settled() -> None:
    verdict = judge(service(generation=2), [workload()], before={"d-s": 1})
    assert not verdict.done
    assert verdict.again_in is not None
    assert 0 < verdict.again_in <= readiness.SETTLE_SECONDS
    assert judge(service(generation=2), [workload(generation=2)], before={"d-s": 1}).done
    assert judge(service(generation=2), [workload()], before={"d-s": 1}, changed=False).done


@pytest.mark.parametrize(
    "predictor",
    [
        {"model": {"storageUri": URI}},
        {"storageUris": [{"uri": URI, "mountPath": "/mnt/models"}]},
        {"containers": [{"name": "c", "env": [{"name": "OTHER"}, {"name": "STORAGE_URI", "value": URI}]}]},
    ],
)
def test_the_storage_uri_is_found_in_every_placement(predictor: dict[str, Any]) -> None:
    assert readiness.storage_uris({"spec": {"predictor": predictor}}) == [URI]


def test_nothing_is_waited_for_without_annotation_or_built_in_rule() -> None:
    live = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}}
    world = Collections()
    check = readiness.readiness(cast(Cluster, world), cast(Watcher, world), live, (), None, changed=True)
    assert check is None


# --- stopping


def test_stop_runs_callbacks_once_and_at_once_when_already_set() -> None:
    stop, called = Stop(), []
    with stop.calling(lambda: called.append(1)):
        stop.set()
        stop.set()
    with stop.calling(lambda: called.append(2)):
        pass
    assert called == [1, 2]


def test_stop_forgets_a_callback_whose_block_has_ended() -> None:
    stop, called = Stop(), []
    with stop.calling(lambda: called.append(1)):
        pass
    stop.set()
    assert called == []
