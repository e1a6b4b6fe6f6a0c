"""Objects that this stack does not own: not taken over, and refusals are explained."""

from __future__ import annotations

import asyncio
from typing import Any

import pulumi
import pytest

from components.cluster import existing
from components.cluster.access import ClusterError
from components.cluster.guard import ClusterAccess, explanation, guarded
from components.engine.this_stack import MARK
from components.kserve.model_service import ModelService
from components.stack import translate
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import DIGEST, Engine
from tests.unit.test_components_settings import load

SETTINGS = load(namespace="models", serviceName="m")
SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/m"
WANTED = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "m", "namespace": "models"},
}
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models"}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: made)
    return made


def made_by(*managers: str, **metadata: Any) -> dict[str, Any]:
    fields = [{"manager": name} for name in managers]
    return {
        "metadata": {"managedFields": [*fields, {"manager": "kserve", "subresource": "status"}], **metadata}
    }


def test_what_somebody_else_made_is_refused_with_the_setting_that_takes_it_over(cluster: FakeCluster) -> None:
    cluster.found[SERVICE] = made_by("kubectl-client-side-apply")
    with pytest.raises(pulumi.RunError) as refused:
        existing.refuse_existing(SETTINGS, WANTED)
    said = str(refused.value)
    assert said.startswith("InferenceService models/m is there already, made by kubectl-client-side-apply:")
    assert "modelcar:importObjects: [InferenceService]" in said

    cluster.found["/api/v1/namespaces/models"] = made_by("kubectl-create")
    with pytest.raises(
        pulumi.RunError, match=r"(?s)Namespace models .*importExisting.*createNamespace false"
    ):
        existing.refuse_existing(SETTINGS, NAMESPACE)


MINE, OTHER = "acme/modelcar/dev", "acme/modelcar/prod"


def marked(document: dict[str, Any], stack: str) -> dict[str, Any]:
    return {**document, "metadata": {**document["metadata"], "annotations": {MARK: stack}}}


def test_the_namespace_of_another_stack_is_not_shared(cluster: FakeCluster) -> None:
    """`destroy` of either would delete the models of both."""
    path = "/api/v1/namespaces/models"
    cluster.found[path] = marked(made_by("pulumi-kubernetes"), OTHER)
    with pytest.raises(pulumi.RunError) as refused:
        existing.refuse_existing(SETTINGS, marked(NAMESPACE, MINE))
    told, fix = str(refused.value).split("\n")
    assert told == f"Namespace models is there already, made by the stack {OTHER}: not changed"
    assert fix.startswith(
        "  fix: choose modelcar:createNamespace false; where that stack is gone, take it over"
    )

    cluster.found[path] = marked(made_by("pulumi-kubernetes"), MINE)
    existing.refuse_existing(SETTINGS, marked(NAMESPACE, MINE))  # of an `up` that broke off

    # As a version before 0.4.0 made it, or another program.
    cluster.found[path] = made_by("pulumi-kubernetes-1a2b3c4d")
    with pytest.raises(pulumi.RunError, match=r"(?s)another stack or program.*fix: choose .*createNamespace"):
        existing.refuse_existing(SETTINGS, marked(NAMESPACE, MINE))


def test_nobody_is_told_to_delete_a_namespace(cluster: FakeCluster) -> None:
    for manager in ("kubectl-create", "pulumi-kubernetes"):
        cluster.found["/api/v1/namespaces/models"] = made_by(manager)
        with pytest.raises(pulumi.RunError) as refused:
            existing.refuse_existing(SETTINGS, marked(NAMESPACE, MINE))
        assert "delete" not in str(refused.value)
    assert "delete" not in str(explanation("Namespace", "create", ['namespaces "models" already exists']))


def test_an_object_of_another_stacks_model_is_refused(cluster: FakeCluster) -> None:
    wanted = {"kind": "NetworkPolicy", "metadata": {"name": "m-egress", "namespace": "models"}}
    path = "/apis/networking.k8s.io/v1/namespaces/models/networkpolicies/m-egress"
    cluster.found[path] = marked(made_by("pulumi-kubernetes"), OTHER)
    with pytest.raises(pulumi.RunError, match=f"(?s)the stack {OTHER}.*choose another name "):
        existing.refuse_existing(SETTINGS, marked(wanted, MINE), "EgressPolicy")
    cluster.found[path] = made_by("pulumi-kubernetes")
    existing.refuse_existing(SETTINGS, marked(wanted, MINE), "EgressPolicy")


CERTIFICATES = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/certificates.cert-manager.io"
SPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cert-manager"}}


def of_helm(namespace: str, name: str) -> dict[str, Any]:
    notes = {"meta.helm.sh/release-namespace": namespace, "meta.helm.sh/release-name": name}
    return made_by("helm", annotations=notes)


def test_a_cluster_with_a_cert_manager_gets_no_second_one(cluster: FakeCluster) -> None:
    cluster.found[CERTIFICATES] = of_helm("certs", "cm")
    with pytest.raises(pulumi.RunError) as refused:
        existing.refuse_existing(SETTINGS, SPACE, existing.CERT_MANAGER)
    assert str(refused.value).startswith(
        "cert-manager is there already, made by Helm's release certs/cm: not"
    )
    assert "fix: pulumi config set --path modelcar:kserve.installCertManager false" in str(refused.value)

    cluster.found[CERTIFICATES] = of_helm("cert-manager", "cert-manager")
    existing.refuse_existing(SETTINGS, SPACE, existing.CERT_MANAGER)
    cluster.found["/api/v1/namespaces/cert-manager"] = made_by("helm")
    with pytest.raises(pulumi.RunError) as refused:
        existing.refuse_existing(SETTINGS, SPACE, existing.CERT_MANAGER)
    assert "modelcar:importExisting: [KServeNamespaces]" in str(refused.value)
    assert "choose modelcar:kserve.installCertManager false" in str(refused.value)


@pytest.mark.parametrize(
    "found",
    [
        None,
        made_by("pulumi-kubernetes-1a2b3c4d"),
        made_by("kubectl", deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
    ids=["nothing", "an up that broke off", "it is on its way out"],
)
def test_what_may_be_made_is_made(cluster: FakeCluster, found: dict[str, Any] | None) -> None:
    if found:
        cluster.found[SERVICE] = found
    existing.refuse_existing(SETTINGS, WANTED)


def test_a_cluster_that_cannot_be_asked_is_the_providers_to_tell_of(cluster: FakeCluster) -> None:
    cluster.refusals[SERVICE] = ClusterError(403, "forbidden")
    existing.refuse_existing(SETTINGS, WANTED)


def test_the_cluster_is_asked_before_the_service_is_made(cluster: FakeCluster) -> None:
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        asked = translate.access(SETTINGS, None)
        args = translate.service(SETTINGS, f"oci://r.example/m@{DIGEST}", None, None, asked)
        return {"name": ModelService("svc", args).name}

    engine.run(program)
    assert engine.the("InferenceService").before_create == ("absent-InferenceService-svc",)
    assert engine.the("ServingRuntime").before_create == ("absent-ServingRuntime-svc-runtime",)
    cluster.found[SERVICE] = made_by("argocd-controller")
    absent: Any = engine.hooks["absent-InferenceService-svc"]
    args = pulumi.ResourceHookArgs("urn", "", "svc", "kind", new_inputs=WANTED)
    with pytest.raises(pulumi.RunError, match="made by argocd-controller"):
        asyncio.run(absent.callback(args))


def test_a_cluster_that_is_not_known_is_not_the_current_one(cluster: FakeCluster) -> None:
    """A kubeconfig that another resource failed to make leaves nothing to ask."""
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        unknown: Any = pulumi.Output.from_input(pulumi.UNKNOWN)
        guarded("InferenceService", "m", ClusterAccess(unknown))
        return {}

    engine.run(program)
    cluster.found[SERVICE] = made_by("argocd-controller")
    absent: Any = engine.hooks["absent-InferenceService-m"]
    asyncio.run(absent.callback(pulumi.ResourceHookArgs("urn", "", "m", "kind", new_inputs=WANTED)))


def test_a_namespace_may_be_called_as_its_model() -> None:
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        for kind in ("Namespace", "NetworkPolicy", "ServingRuntime", "SharedRuntime", "InferenceService"):
            guarded(kind, "assistant", ClusterAccess())
        return {}

    engine.run(program)
    assert len(engine.hooks) == 10


THERE = "admission: already exists"


@pytest.mark.parametrize(
    ("kind", "operation", "error", "told"),
    [
        ("InferenceService", "update", '"m" not found', "`pulumi up --refresh` makes it anew"),
        ("Namespace", "create", THERE, "(modelcar:importExisting: [Namespace]; docs/migrate.md); if another"),
        ("Namespace", "create", THERE, "choose modelcar:createNamespace false"),
        ("EgressPolicy", "create", THERE, "modelcar:importObjects: [NetworkPolicy]"),
        ("IngressPolicy", "create", THERE, "`pulumi import` it, or delete it; if another stack"),
        ("ConfigMap", "create", THERE, "choose a modelcar:placement other than auto"),
        ("Namespace", "create", 'namespaces "models" not found', None),
        ("Namespace", "update", "admission webhook denied the request", None),
    ],
)
def test_a_refusal_that_does_not_say_what_to_do_is_explained(
    kind: str, operation: str, error: str, told: str | None
) -> None:
    found = explanation(kind, operation, [error])
    if told is None:
        assert found is None
    else:
        assert found
        assert told in found
