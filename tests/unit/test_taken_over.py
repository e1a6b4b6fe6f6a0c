"""What is told of an object that was imported without its spec, or that kubectl edited."""

from __future__ import annotations

from typing import Any

from components.engine.taken_over import changes, dropped

IMPORTED = {"kind": "InferenceService", "metadata": {"name": "tiny"}}
LIVE: dict[str, Any] = {
    "metadata": {
        "name": "tiny",
        "uid": "1",
        "labels": {"team": "search"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
    "spec": {
        "predictor": {
            "maxReplicas": 3,
            "minReplicas": 1,
            "timeout": 60,
            "containers": [{"name": "server", "image": "a", "env": [{"name": "A", "value": "1"}]}],
        }
    },
    "status": {"url": "http://tiny"},
}
DECLARED: dict[str, Any] = {
    "metadata": {"name": "tiny", "labels": {"team": "search", "managed-by": "pulumi"}},
    "spec": {
        "predictor": {
            "maxReplicas": 1,
            "minReplicas": 1,
            "containers": [
                {
                    "name": "server",
                    "image": "a",
                    "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "A", "value": "1"}],
                }
            ],
        }
    },
}


def test_the_fields_that_differ_from_the_live_object_are_told_and_no_others() -> None:
    assert changes(IMPORTED, LIVE, DECLARED) == [
        "  ~ spec.predictor.maxReplicas: 3 => 1",
        '  + spec.predictor.containers[server].env[HF_HUB_OFFLINE]: {"name": "HF_HUB_OFFLINE", "value": "1"}',
        '  + metadata.labels.managed-by: "pulumi"',
    ]


def test_nothing_is_told_where_pulumi_shows_the_difference_itself() -> None:
    assert changes({**IMPORTED, "spec": LIVE["spec"]}, LIVE, DECLARED) == []


def test_a_list_without_names_is_shown_whole() -> None:
    live, declared = {"spec": {"args": ["a"]}}, {"spec": {"args": ["a", "b"]}}
    assert changes({}, live, declared) == ['  ~ spec.args: ["a"] => ["a", "b"]']


def by(manager: str, fields: dict[str, Any]) -> dict[str, Any]:
    entry = {"manager": manager, "operation": "Update", "fieldsV1": fields}
    return {**LIVE, "metadata": {**LIVE["metadata"], "managedFields": [entry]}}


SET: dict[str, Any] = {
    "f:metadata": {
        "f:labels": {".": {}, "f:team": {}},
        "f:annotations": {"f:kubectl.kubernetes.io/last-applied-configuration": {}},
    },
    "f:spec": {
        "f:predictor": {
            "f:maxReplicas": {},
            "f:timeout": {},
            "f:containers": {'k:{"name":"server"}': {".": {}, "f:env": {'k:{"name":"B"}': {}}}},
        }
    },
    "f:status": {"f:url": {}},
}


def test_what_kubectl_set_and_the_program_does_not_declare_is_told() -> None:
    live = by("kubectl-patch", SET)
    live["spec"] = {
        "predictor": {
            "maxReplicas": 3,
            "timeout": 60,
            "containers": [{"name": "server", "env": [{"name": "B", "value": "1"}]}],
        }
    }
    assert list(dropped(live, DECLARED)) == [
        "  - spec.predictor.timeout: 60",
        '  - spec.predictor.containers[server].env[B]: {"name": "B", "value": "1"}',
    ]
    without = {**DECLARED, "metadata": {"name": "tiny"}}
    assert '  - metadata.labels.team: "search"' in list(dropped(live, without))


def test_what_others_set_is_left_to_them() -> None:
    assert list(dropped(by("kserve-manager", SET), DECLARED)) == []
    assert list(dropped(by("team", SET), DECLARED)) == []
