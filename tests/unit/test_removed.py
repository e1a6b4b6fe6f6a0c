"""Models that are gone: their images are kept count of, kept for a while, and deleted when told to."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from components.config.stack import Stack
from components.stack.removed import removed
from modelcar.errors import InputError
from modelcar.manifest import sha256_digest
from modelcar.registry import Target
from operations.prune import prune, table
from tests import made_images as made
from tests.registry_server import Registry, serve
from tests.unit.test_components_models import CHAT, load

#: What every image of this program says.
OURS = b'{"annotations": {"io.modelcar.lock.digest": "sha256:1"}}'
TODAY = datetime.date(2030, 5, 20)
REGISTRY = "localhost:5000/models"


def told(name: str, digest: str = "sha256:" + "a" * 64, registry: str = REGISTRY) -> dict[str, str]:
    return {"storageUri": f"oci://{registry}/{name}@{digest}"}


def test_a_model_that_is_gone_is_kept_count_of() -> None:
    former = {"models": {"chat": told("chat"), "old": told("old")}}
    assert removed(load(CHAT), former, TODAY) == {
        f"{REGISTRY}/old": {"model": "old", "since": "2030-05-20", "modelDigest": "sha256:" + "a" * 64}
    }


def test_the_day_stays_and_who_comes_back_is_gone_from_the_list() -> None:
    row = {"model": "old", "since": "2030-01-01", "modelDigest": "sha256:" + "a" * 64}
    former = {"models": {"chat": told("chat")}, "removedModels": {f"{REGISTRY}/old": row}}
    assert removed(load(CHAT), former, TODAY) == {f"{REGISTRY}/old": row}
    assert removed(load(CHAT, {"name": "old"}), former, TODAY) == {}


def test_a_renamed_model_is_not_gone() -> None:
    stack = load({"name": "assistant", "formerNames": ["chat"]})
    assert removed(stack, {"models": {"chat": told("chat")}}, TODAY) == {}
    # Under another name, with the image of before.
    stack = load({"name": "assistant", "imageName": "chat"})
    assert removed(stack, {"models": {"chat": told("chat")}}, TODAY) == {}


class Cluster:
    """One that serves what a test says."""

    def __init__(self, *digests: str) -> None:
        self.digests = digests

    def get(self, path: str) -> dict[str, Any]:
        return {"items": [{"spec": f"oci://x/old@{digest}"} for digest in self.digests]}


def pushed(registry: Registry, *contents: bytes) -> list[str]:
    for number, content in enumerate(contents):
        digest = sha256_digest(content)
        registry.manifests[digest] = registry.manifests[f"v{number}"] = (content, "application/json")
    return [sha256_digest(content) for content in contents]


def stack_of(registry: Registry, **more: Any) -> Stack:
    return load(CHAT, registry=f"{registry.host}/models", registryInsecure=True, **more)


def gone(registry: Registry, since: str) -> dict[str, Any]:
    row = {"model": "old", "since": since, "modelDigest": "sha256:" + "a" * 64}
    return {"removedModels": {f"{registry.host}/models/old": row}}


def test_images_are_kept_for_the_time_that_the_stack_says() -> None:
    with serve() as registry:
        pushed(registry, OURS)
        stack, outputs = stack_of(registry, keepRemovedDays=30), gone(registry, "2030-05-01")
        [found] = prune(Cluster(), stack, outputs, TODAY, delete=True)  # type: ignore[arg-type]
        assert found.what == "kept"
        assert "kept for 11 more days" in found.why
        assert registry.manifests


def test_what_is_old_enough_goes_when_told_to_and_what_is_served_stays() -> None:
    with serve() as registry:
        old, served = pushed(registry, OURS, OURS.replace(b"1", b"2"))
        stack, outputs = stack_of(registry), gone(registry, "2030-01-01")
        cluster: Any = Cluster(served)
        first = prune(cluster, stack, outputs, TODAY, delete=False)
        assert [(one.digest, one.what) for one in first] == [(old, "to delete"), (served, "served")]
        assert old in registry.manifests, "looking deletes nothing"
        done = prune(cluster, stack, outputs, TODAY, delete=True)
        assert [(one.digest, one.what) for one in done] == [(old, "deleted"), (served, "served")]
        assert set(registry.manifests) == {served, "v1"}
        assert f"deleted  {registry.host}/models/old@{old}" in "\n".join(table(done))


def test_what_this_program_did_not_build_is_never_deleted() -> None:
    with serve() as registry:
        # Cloud Build's image beside ours, in one repository; the SBOM and the signature of ours by its tags.
        attached = f"sha256-{sha256_digest(OURS).partition(':')[2]}"
        theirs, ours = pushed(registry, b'{"layers": []}', OURS)
        for tag, content in ((attached, b'{"manifests": []}'), (f"{attached}.sig", b'{"manifests": [1]}')):
            registry.manifests[tag] = registry.manifests[sha256_digest(content)] = (
                content,
                "application/json",
            )
        cluster: Any = Cluster()
        done = prune(cluster, stack_of(registry), gone(registry, "2030-01-01"), TODAY, delete=True)
        assert {one.digest: one.what for one in done} == {
            ours: "deleted",
            theirs: "kept",
            sha256_digest(b'{"manifests": []}'): "deleted",
            sha256_digest(b'{"manifests": [1]}'): "deleted",
        }
        assert set(registry.manifests) == {theirs, "v0"}


def test_labels_tell_ours_where_a_builder_writes_no_annotations() -> None:
    with serve() as registry:
        made.image([], {"Labels": {"io.modelcar.lock.digest": "sha256:1"}}).push(
            Target(f"{registry.host}/models", "old", insecure=True), "v1"
        )
        cluster: Any = Cluster()
        [done] = prune(cluster, stack_of(registry), gone(registry, "2030-01-01"), TODAY, delete=True)
        assert done.what == "deleted"


def test_an_image_that_was_there_is_not_kept_count_of_and_its_repository_is_left_alone() -> None:
    former = {"models": {"chat": told("chat"), "old": {**told("old"), "built": False}}}
    assert removed(load(CHAT), former, TODAY) == {}
    with serve() as registry:
        [digest] = pushed(registry, OURS)
        reference = f"{registry.host}/models/old@{digest}"
        stack = load({**CHAT, "image": reference}, registry=f"{registry.host}/models", registryInsecure=True)
        cluster: Any = Cluster()
        [found] = prune(cluster, stack, gone(registry, "2030-01-01"), TODAY, delete=True)
        assert (found.what, found.why) == ("kept", "chat is served from it")
        assert digest in registry.manifests


def test_a_repository_that_is_gone_already_is_no_error() -> None:
    with serve() as registry:
        cluster: Any = Cluster()
        [found] = prune(cluster, stack_of(registry), gone(registry, "2030-01-01"), TODAY, delete=True)
        assert found.what == "gone"


def test_nothing_of_another_registry_is_touched() -> None:
    with serve() as registry:
        row = {"model": "old", "since": "2030-01-01", "modelDigest": "sha256:" + "a" * 64}
        outputs = {"removedModels": {"elsewhere.example/models/old": row}}
        with pytest.raises(InputError, match="in another registry than the stack's"):
            prune(Cluster(), stack_of(registry), outputs, TODAY, delete=True)  # type: ignore[arg-type]


def test_a_cluster_that_serves_nothing_of_the_stack_is_another_one() -> None:
    """Asked who serves an image, it would say nobody, and all would be deleted."""

    class Other(Cluster):
        name = "https://192.0.2.1"

        def get(self, path: str) -> Any:
            return None if path.endswith("/inferenceservices/chat") else super().get(path)

    with serve() as registry:
        pushed(registry, OURS)
        service = {"namespace": "models", "serviceName": "chat"}
        outputs = gone(registry, "2030-01-01") | {"models": {"chat": service}}
        cluster: Any = Other()
        with pytest.raises(InputError) as caught:
            prune(cluster, stack_of(registry), outputs, TODAY, delete=True)
        assert registry.manifests, "nothing is deleted"
        [problem] = caught.value.problems
        assert problem.value.startswith(
            "https://192.0.2.1 has none of the stack's InferenceServices (models/chat)"
        )
        assert "modelcar:kubeContext" in problem.fix
        cluster = Cluster()
        [done] = prune(cluster, stack_of(registry), outputs, TODAY, delete=True)
        assert done.what == "deleted"


def test_a_stack_that_lost_no_model_asks_nobody() -> None:
    cluster: Any = None
    assert table(prune(cluster, load(CHAT), {}, TODAY, delete=True)) == [
        "no model was removed from this stack"
    ]
