"""Models that are gone: their images are kept count of, kept for a while, and deleted when told to."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from components.cluster.access import ClusterError
from components.config.models import load_stack
from components.config.stack import Stack
from components.stack.removed import removed
from modelcar import deletion
from modelcar import registry as client_of_registries
from modelcar.errors import InputError, Problem
from modelcar.evidence import Artifact, attach
from modelcar.manifest import MANIFEST_TYPE, sha256_digest
from modelcar.registry import INDEX_TYPE, Refusal, Target, fallback_tag
from modelcar.registry import Registry as Client
from operations.__main__ import main
from operations.prune import NONE, Pruned, line, prune, status
from tests import made_images as made
from tests.registry_server import Registry, serve
from tests.unit.test_components_models import CHAT, load
from tests.unit.test_components_settings import MINIMAL

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


@pytest.mark.parametrize(
    ("entry", "shared"),
    [
        (CHAT, {"registry": "new.example/models"}),
        ({**CHAT, "model": "llama", "imageName": "llama"}, {}),
        ({**CHAT, "imageName": "chat-v2"}, {}),
        ({"name": "b", "formerNames": ["chat"], "imageName": "b"}, {}),
        ({**CHAT, "image": "ghcr.io/others/m@sha256:" + "c" * 64}, {}),
    ],
    ids=["registry", "model", "imageName", "renamed", "image of others"],
)
def test_images_that_a_model_leaves_behind_are_kept_count_of(
    entry: dict[str, Any], shared: dict[str, Any]
) -> None:
    former, stack = {"models": {"chat": told("chat")}}, load(entry, **shared)
    row = {"model": "chat", "since": "2030-05-20", "modelDigest": "sha256:" + "a" * 64}
    assert removed(stack, former, TODAY) == {f"{REGISTRY}/chat": row}
    failed = [model.key for model in stack.models]
    assert removed(stack, former, TODAY, failed) == {}, "it is still served from there"


def test_the_only_model_of_a_stack_that_becomes_another_leaves_its_images_behind() -> None:
    config = {f"modelcar:{key}": value for key, value in {**MINIMAL, "model": "llama-8b"}.items()}
    stack = load_stack(config, Path("/nowhere"))
    former = {"models": {stack.shared.key: told("qwen2.5-0.5b")}}
    assert list(removed(stack, former, TODAY)) == [f"{REGISTRY}/qwen2.5-0.5b"]


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
        assert f"deleted  {registry.host}/models/old@{old}" in lines(done)


def test_what_this_program_did_not_build_is_never_deleted() -> None:
    with serve() as registry:
        # Cloud Build's image beside ours, in one repository; the SBOM and the signature of ours by its tags.
        attached = f"sha256-{sha256_digest(OURS).partition(':')[2]}"
        theirs, ours = pushed(registry, b'{"layers": []}', OURS)
        for tag, content in (
            (attached, b'{"manifests": []}'),
            (f"{attached}.sig", b'{"manifests": [], "annotations": {}}'),
        ):
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
            sha256_digest(b'{"manifests": [], "annotations": {}}'): "deleted",
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
        [ours] = pushed(registry, OURS)
        both = {"elsewhere.example/models/old": row, **gone(registry, "2030-01-01")["removedModels"]}
        cluster: Any = Cluster()
        found = prune(cluster, stack_of(registry), {"removedModels": both}, TODAY, delete=True)
        assert {(one.digest, one.what) for one in found} == {("", "kept"), (ours, "deleted")}
        assert "in another registry than the stack's" in lines(found)
        assert status(found) == 0, "it is told for ever"


class Serving(Cluster):
    """One with InferenceServices. served: spec by NAMESPACE/NAME."""

    name = "https://192.0.2.1"

    def __init__(self, served: dict[str, Any]) -> None:
        super().__init__()
        self.served = served

    def get(self, path: str) -> Any:
        found = re.fullmatch(r".*/namespaces/(.+)/inferenceservices/(.+)", path)
        if not found:
            return {"items": [{"spec": spec} for spec in self.served.values()]}
        spec = self.served.get(f"{found[1]}/{found[2]}")
        return spec and {"spec": spec}


def with_models(registry: Registry, *names: str) -> dict[str, Any]:
    """Return outputs of a stack that serves these, and has lost one."""
    models = {
        name: {"namespace": "models", "serviceName": name, **told(name, registry=f"{registry.host}/models")}
        for name in names
    }
    return gone(registry, "2030-01-01") | {"models": models}


def refused(registry: Registry, served: dict[str, Any], *names: str, **settings: Any) -> Problem:
    pushed(registry, OURS)
    cluster: Any = Serving(served)
    stack, outputs = stack_of(registry, **settings), with_models(registry, *names)
    with pytest.raises(InputError) as caught:
        prune(cluster, stack, outputs, TODAY, delete=True)
    assert registry.manifests, "nothing is deleted"
    [problem] = caught.value.problems
    return problem


def test_a_cluster_that_serves_nothing_of_the_stack_is_another_one() -> None:
    """Asked who serves an image, it would say nobody, and all would be deleted."""
    with serve() as registry:
        problem = refused(registry, {}, "chat")
        assert problem.value.startswith(
            "https://192.0.2.1: it has none of the stack's InferenceServices (models/chat)"
        )
        assert "modelcar:kubeContext" in problem.fix
        assert "pulumi up --refresh" in problem.fix


@pytest.mark.parametrize("placement", ["storageUri", "image"])
def test_a_cluster_whose_services_have_the_same_names_may_be_another_one(placement: str) -> None:
    """As dev's, where prod was meant: both name the same model."""
    with serve() as registry:

        def spec(repository: str) -> dict[str, Any]:
            image = f"{repository}@sha256:{'d' * 64}"
            if placement == "storageUri":
                return {"predictor": {"model": {"storageUri": f"oci://{image}"}}}
            return {"predictor": {"volumes": [{"image": {"reference": image}}]}}

        own, others = f"{registry.host}/models/chat", "dev.example/models/chat"
        problem = refused(registry, {"models/chat": spec(others)}, "chat")
        assert f"models/chat names {others} there, and the stack says {own}" in problem.value
        # One of two that is right does not make it so.
        both = {"models/chat": spec(own), "models/code": spec(others.replace("chat", "code"))}
        assert "models/code names dev.example" in refused(registry, both, "chat", "code").value
        # With another digest it is the same model, before or after a run; one may not be there yet.
        cluster: Any = Serving({"models/chat": spec(own)})
        outputs = with_models(registry, "chat", "code")
        [done] = prune(cluster, stack_of(registry), outputs, TODAY, delete=True)
        assert done.what == "deleted"


def test_what_argo_cd_brings_is_not_brought_by_pulumi(tmp_path: Path) -> None:
    with serve() as registry:
        more = {"delivery": "gitops", "gitops": {"folder": str(tmp_path)}}
        problem = refused(registry, {}, "chat", **more)
        assert "Argo CD" in problem.fix
        assert "pulumi up" not in problem.fix


def test_a_stack_that_lost_no_model_asks_nobody() -> None:
    cluster: Any = None
    assert prune(cluster, load(CHAT), {}, TODAY, delete=True) == []


# --- what is attached, listed, or kept for others ---------------------------------------------------

SIGNATURE = Artifact("application/vnd.dev.sigstore.bundle.v0.3+json", b"signature")
SBOM = Artifact("application/vnd.cyclonedx+json", b"{}")


def target(registry: Registry) -> Target:
    return Target(f"{registry.host}/models", "old", insecure=True)


def attached(registry: Registry, digest: str) -> list[str]:
    """Attach a signature and a bill of materials to an image, as `up` does; return all that was written."""
    before = set(registry.manifests)
    with Client(target(registry), write=True) as client:
        image = client.manifest(digest)
        assert image
        attach(client, image, [SIGNATURE, SBOM])
    return [name for name in registry.manifests if name not in before]


def added(registry: Registry, tag: str, document: dict[str, Any], media_type: str = MANIFEST_TYPE) -> str:
    content = json.dumps(document).encode()
    registry.manifests[sha256_digest(content)] = registry.manifests[tag] = (content, media_type)
    return sha256_digest(content)


def pruned(registry: Registry, *served: str, delete: bool = True) -> list[Pruned]:
    cluster: Any = Cluster(*served)
    return prune(cluster, stack_of(registry), gone(registry, "2030-01-01"), TODAY, delete=delete)


def lines(found: list[Pruned]) -> str:
    return "\n".join(line(one) for one in found)


def becomes(found: list[Pruned]) -> dict[str, str]:
    return {one.digest: one.what for one in found}


@pytest.mark.parametrize("has_referrers", [True, False])
def test_what_is_attached_to_a_served_image_stays_with_it(has_referrers: bool) -> None:
    with serve() as registry:
        registry.has_referrers = has_referrers
        old, served = pushed(registry, OURS, OURS.replace(b"1", b"2"))
        gone_too, kept = attached(registry, old), attached(registry, served)
        signature = fallback_tag(served) + ".sig"  # cosign 2's
        kept += [signature, added(registry, signature, {"layers": []})]
        first = becomes(pruned(registry, served, delete=False))
        done = pruned(registry, served)
        assert becomes(done)[served] == "served"
        assert {first[digest] for digest in (old, *gone_too) if ":" in digest} == {"to delete"}
        assert set(registry.manifests) == {served, "v1", *kept}, "the signature above all"
        assert status(done) == 0


def test_an_image_goes_first_then_its_list_then_what_that_names() -> None:
    """Artifact Registry wants it so: a tag before its manifest, and a list before its entries."""
    with serve() as registry:
        registry.has_referrers, registry.tags_first = False, True
        [old] = pushed(registry, OURS)
        names = attached(registry, old)
        assert status(pruned(registry)) == 0
        assert registry.manifests == {}
        image, listing, entries = registry.deleted[:2], registry.deleted[2:4], registry.deleted[4:]
        assert image == ["v0", old]
        assert listing[0] == fallback_tag(old)
        assert {*listing, *entries} == set(names)
        assert len(entries) == 2, "signature and bill of materials"


def test_a_signature_of_a_bill_of_materials_goes_after_that() -> None:
    with serve() as registry:
        registry.has_referrers = False
        [old] = pushed(registry, OURS)
        [bill] = [name for name in attached(registry, old) if b"cyclonedx" in registry.manifests[name][0]][:1]
        attached(registry, bill)
        its_list = sha256_digest(registry.manifests[fallback_tag(bill)][0])
        assert status(pruned(registry)) == 0
        assert registry.manifests == {}
        assert registry.deleted.index(bill) < registry.deleted.index(its_list)


def test_artifact_registry_s_immutable_tags_are_told() -> None:
    with serve() as registry:
        registry.has_referrers = False
        registry.tags_first = registry.immutable_tags = True
        [old] = pushed(registry, OURS)
        names = attached(registry, old)
        before = dict(registry.manifests)
        done = pruned(registry)
        assert registry.manifests == before
        found = becomes(done)
        assert (found[old], status(done)) == ("refused", 1)
        assert {found[name] for name in names if name in found} == {"kept"}, "its signature stays with it"
        [line] = [one.why for one in done if one.digest == old]
        assert "tag v0: the registry answers 400 (FAILED_PRECONDITION: about v0); let" in line


@pytest.mark.parametrize(
    ("refusal", "tag", "part"),
    [
        (
            Refusal(400, "FAILED_PRECONDITION"),
            True,
            "gcloud artifacts repositories update modelcars --project=my-project --location=europe-west4 "
            "--no-immutable-tags, run this again, and set it back",
        ),
        (Refusal(403, "DENIED"), False, "roles/artifactregistry.repoAdmin"),
        (Refusal(403, "DENIED"), True, "--no-immutable-tags"),
        (
            Refusal(400, "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE"),
            False,
            "delete the index that names it",
        ),
        (Refusal(405, "UNSUPPORTED"), False, "REGISTRY_STORAGE_DELETE_ENABLED=true"),
        (Refusal(412), False, "a rule of the registry keeps it"),
        (Refusal(500), False, "try again later"),
    ],
)
def test_each_refusal_is_told_with_what_helps(refusal: Refusal, tag: bool, part: str) -> None:
    google = Target("europe-west4-docker.pkg.dev/my-project/modelcars", "old")
    assert part in deletion._fix(google, refusal, tag=tag)


def test_one_refusal_keeps_no_other_image_from_going() -> None:
    with serve() as registry:
        first, second = pushed(registry, OURS, OURS.replace(b"1", b"2"))
        registry.undeletable[first] = (405, "UNSUPPORTED")
        done = pruned(registry)
        assert (becomes(done), status(done)) == ({first: "refused", second: "deleted"}, 1)
        assert "the registry answers 405 (UNSUPPORTED: about" in lines(done)


def test_a_registry_that_goes_away_is_told_with_what_was_deleted() -> None:
    with serve() as registry:
        digests = pushed(registry, *(OURS.replace(b"1", str(number).encode()) for number in range(3)))

        def break_off(method: str, path: str) -> None:
            if method == "DELETE" and registry.deleted:
                raise ConnectionError

        registry.instead = break_off
        done = pruned(registry)
        assert [becomes(done)[digest] for digest in digests] == ["deleted", "refused", "refused"]
        assert [one.why for one in done][2].startswith("not tried: cannot be reached")


def test_a_repository_that_cannot_be_read_is_told_and_the_others_go_on() -> None:
    with serve() as registry:
        [old] = pushed(registry, OURS)
        page = (200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
        registry.instead = lambda method, path: page if "/models/bad/tags" in path else None
        outputs = gone(registry, "2030-01-01")
        [row] = outputs["removedModels"].values()
        outputs["removedModels"][f"{registry.host}/models/bad"] = row
        cluster: Any = Cluster()
        done = prune(cluster, stack_of(registry), outputs, TODAY, delete=True)
        assert [(one.digest, one.what) for one in done] == [("", "refused"), (old, "deleted")]
        assert "this is not a registry" in done[0].why


def command(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, cluster: Any, outputs: dict[str, Any], *more: str
) -> int:
    """Run `prune --delete` as it is typed."""
    stack = stack_of(registry)
    monkeypatch.setattr("operations.__main__.stack_of", lambda *_: stack)
    monkeypatch.setattr("operations.__main__.outputs_of", lambda *_: outputs)
    monkeypatch.setattr("operations.__main__.cluster_of", lambda *_: cluster)
    return main(["prune", "--stack", "dev", "--delete", *more])


def test_a_stack_that_lost_no_model_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as registry:
        assert command(monkeypatch, registry, None, {}) == 0
        assert capsys.readouterr().out == f"{NONE}\n"
        assert command(monkeypatch, registry, None, {}, "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"images": []}


def test_a_cluster_that_goes_away_is_told_with_what_was_deleted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Away(Cluster):
        asked = 0

        def get(self, path: str) -> dict[str, Any]:
            self.asked += 1
            if self.asked > 2:  # the second repository's
                raise ClusterError(0, "https://c does not answer: timed out")
            return super().get(path)

    with serve() as registry:
        old, _ = pushed(registry, OURS, b'{"layers": []}')
        outputs = gone(registry, "2020-01-01")
        [row] = outputs["removedModels"].values()
        outputs["removedModels"][f"{registry.host}/models/older"] = row
        assert command(monkeypatch, registry, Away(), outputs) == 1
        first, _, second = capsys.readouterr().out.splitlines()
        assert first.strip().startswith(f"deleted  {registry.host}/models/old@{old}")
        assert second.strip().startswith(f"refused  {registry.host}/models/older: not known who uses it")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_deleted_is_told_when_it_is_stopped(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delete = deletion.delete
    asked: list[str] = []

    def once(registry: Client, digest: str, tags: Sequence[str]) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(digest)
        delete(registry, digest, tags)

    monkeypatch.setattr(deletion, "delete", once)
    with serve() as registry:
        digests = pushed(registry, *(OURS.replace(b"1", str(number).encode()) for number in range(3)))
        outputs = gone(registry, "2020-01-01")
        more = ["--json"] if as_json else []
        assert command(monkeypatch, registry, Cluster(), outputs, *more) == 130
        told = capsys.readouterr()
        assert "what is told as deleted is gone, and the rest is still there" in told.err
        if as_json:
            found = {one["digest"]: one["what"] for one in json.loads(told.out)["images"]}
        else:
            words = (line.split() for line in told.out.splitlines())
            found = {name.partition("@")[2].rstrip(":"): what for what, name, *_ in words}
        [deleted] = asked
        assert found[deleted] == "deleted"
        assert sorted(found.values()) == ["deleted", "refused"], "it is not known of the second"
        assert {digest for digest in digests if digest in registry.manifests} == {*digests} - {deleted}


def test_a_pod_may_name_an_image_by_its_tag() -> None:
    with serve() as registry:
        old, served = pushed(registry, OURS, OURS.replace(b"1", b"2"))
        cluster: Any = Cluster()
        cluster.get = lambda path: {"items": [{"image": f"{registry.host}/models/old:v1"}]}
        done = prune(cluster, stack_of(registry), gone(registry, "2030-01-01"), TODAY, delete=True)
        assert becomes(done) == {old: "deleted", served: "served"}


@pytest.mark.parametrize("served", [True, False])
def test_what_an_index_lists_stays_with_it(served: bool) -> None:
    """Somebody made one of our images for two processors: pods name that alone."""
    with serve() as registry:
        amd64, arm64, old = pushed(registry, *(OURS.replace(b"1", str(n).encode()) for n in range(3)))
        listed = {"manifests": [{"digest": amd64}, {"digest": arm64}]}
        index = added(registry, "all", listed, INDEX_TYPE)
        found = becomes(pruned(registry, *([index] if served else [])))
        assert found == {
            amd64: "kept",
            arm64: "kept",
            old: "deleted",
            index: "served" if served else "kept",
        }


def test_an_index_of_ours_goes_before_what_it_lists() -> None:
    with serve() as registry:
        registry.tags_first = True
        [old] = pushed(registry, OURS)
        listed = {"manifests": [{"digest": old}], "annotations": {"io.modelcar.lock.digest": "sha256:1"}}
        index = added(registry, "z-all", listed, INDEX_TYPE)
        assert status(pruned(registry)) == 0
        assert registry.deleted == ["z-all", index, "v0", old]


def kernels_of(registry: Registry, layer: str) -> str:
    document = {"artifactType": "application/vnd.modelcar.kernels.v1", "layers": [{"digest": layer}]}
    return added(registry, f"kernels-{layer[7:23]}", document)


def test_kernels_are_this_program_s_and_go_with_its_images() -> None:
    with serve() as registry:
        ours = {"annotations": {"io.modelcar.lock.digest": "sha256:1"}}
        compiled, others = ("sha256:" + "c" * 64, "sha256:" + "d" * 64)
        image = added(registry, "v0", {**ours, "layers": [{"digest": compiled}]})
        used, unused = kernels_of(registry, compiled), kernels_of(registry, others)
        assert becomes(pruned(registry, image)) == {image: "served", used: "kept", unused: "deleted"}
        assert becomes(pruned(registry)) == {image: "deleted", used: "deleted"}


def test_what_is_attached_to_an_image_without_a_tag_stays() -> None:
    with serve() as registry:
        registry.has_referrers = False
        [old] = pushed(registry, OURS)
        attached(registry, old)
        del registry.manifests["v0"]
        done = pruned(registry)
        assert {one.what for one in done} == {"kept"}
        assert done[0].why == f"attached to {old}, which stays"
        # Once that is gone, whatever was left of a run that was refused goes too.
        del registry.manifests[old]
        assert {one.what for one in pruned(registry)} == {"deleted"}
        assert registry.manifests == {}


def test_a_tag_that_moves_meanwhile_is_left_alone() -> None:
    with serve() as registry:
        registry.tags_first = True
        [old, other] = pushed(registry, OURS, OURS.replace(b"1", b"2"))

        def move(method: str, path: str) -> None:
            if method == "DELETE" and path.endswith(old):
                registry.manifests["v0"] = registry.manifests[other]

        registry.instead = move
        done = becomes(pruned(registry, other))
        assert done == {old: "deleted", other: "served"}
        assert registry.deleted == [old]
        assert {other, "v0", "v1"} == set(registry.manifests)


# --- long lists -------------------------------------------------------------------------------------


def test_lists_of_several_pages_are_read_to_their_end() -> None:
    with serve() as registry:
        registry.page_size = 2
        digests = pushed(registry, *(OURS.replace(b"1", str(number).encode()) for number in range(5)))
        with Client(target(registry)) as client:
            assert set(client.tagged()) == set(digests)
        attached(registry, digests[0])
        registry.page_size = 1
        with Client(target(registry)) as client:
            assert len(client.referrers(digests[0])) == 2
        assert status(pruned(registry)) == 0
        assert registry.manifests == {}


def test_no_page_of_another_host_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as registry, serve() as other:
        registry.page_size, registry.next_at = 1, f"http://{other.host}"
        pushed(registry, OURS, OURS.replace(b"1", b"2"))
        [done] = pruned(registry)
        assert (done.what, len(registry.manifests)) == ("refused", 4)
        assert "the registry's list goes on at 127.0.0.1" in done.why
        assert other.requests == []
        registry.next_at = ""
        monkeypatch.setattr(client_of_registries, "MOST_PAGES", 1)
        [done] = pruned(registry)
        assert "has more than 1 pages" in done.why
        assert len(registry.manifests) == 4
