"""The policy by which a cluster's verifier lets nothing start that nobody signed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.probe_image import NAME, probe_image
from components.config import loading as stack
from components.config.models import load_stack
from modelcar.base import LOCKED_ARCHITECTURES, read_base
from modelcar.errors import InputError
from operations import __main__ as commands
from operations import admission_builtin
from operations.admission import check_options, mounted, notes, object_name, policy
from operations.stack import program_of

KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
REGISTRY = "europe-west4-docker.pkg.dev/my-project/modelcars"


DIGEST = "@sha256:" + "0" * 64
SIGNED = '{"publicKey": "cosign.pub"}'


def made(
    folder: Path, signature: str | None, registry: str = REGISTRY, stack_name: str = "prod", **more: Any
) -> dict[str, Any]:
    (folder / "cosign.pub").write_text(KEY)
    config = {
        "modelcar:model": "qwen",
        "modelcar:namespace": "models",
        "modelcar:registry": registry,
        "modelcar:serverImage": f"docker.io/vllm/vllm-openai{DIGEST}",
    }
    if signature:
        config["modelcar:signature"] = signature
    return policy(stack.load(config, folder), folder, stack_name, name="signed-modelcars", **more)


def judged(found: dict[str, Any]) -> list[re.Pattern[str]]:
    """Return the patterns of images that the policy is for; what it leaves out of them stands apart."""
    return [re.compile(wanted) for wanted, _ in _expressions(found)]


def is_judged(found: dict[str, Any], image: str) -> list[bool]:
    """Return for each pattern whether the policy is for an image."""
    return [
        bool(re.search(wanted, image) and not re.search(but, image)) for wanted, but in _expressions(found)
    ]


def _expressions(found: dict[str, Any]) -> list[tuple[str, str]]:
    shape = re.compile(r"ref\.matches\(r'(.*)'\) && !ref\.matches\(r'(.*)'\)")
    texts = [entry["expression"] for entry in found["spec"]["matchImageReferences"]]
    matches = [shape.fullmatch(text) for text in texts]
    assert all(matches), texts
    return [(match[1], match[2]) for match in matches if match]


def attestor(found: dict[str, Any]) -> dict[str, Any]:
    [only] = found["spec"]["attestors"]
    return dict(only["cosign"])


def test_every_image_of_the_stacks_registry_needs_a_signature_by_its_key(tmp_path: Path) -> None:
    found = made(tmp_path, '{"publicKey": "cosign.pub"}')
    spec = found["spec"]
    assert any(pattern.search(f"{REGISTRY}/tiny{DIGEST}") for pattern in judged(found))
    assert (spec["failurePolicy"], spec["validationActions"]) == ("Fail", ["Deny"])
    ignored = {"insecureIgnoreTlog": True, "insecureIgnoreSCT": True}
    assert attestor(found) == {"key": {"data": KEY}, "ctlog": ignored}


def test_the_log_is_asked_where_signatures_are_written_to_it(tmp_path: Path) -> None:
    found = made(tmp_path, '{"publicKey": "cosign.pub", "transparencyLog": true}')
    assert not any(attestor(found)["ctlog"].values())


def test_a_key_of_a_key_management_service_stays_there(tmp_path: Path) -> None:
    key = "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/versions/1"
    assert attestor(made(tmp_path, f'{{"publicKey": "{key}"}}'))["key"] == {"kms": key}


def test_an_identity_and_who_vouches_for_it(tmp_path: Path) -> None:
    issuer, subject = "https://accounts.google.com", "release@my-project.iam.gserviceaccount.com"
    found = attestor(made(tmp_path, f'{{"identity": "{subject}", "issuer": "{issuer}"}}'))
    assert found == {"keyless": {"identities": [{"issuer": issuer, "subject": subject}]}}


def test_a_stack_that_asks_for_no_signature_is_told_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)modelcar:signature: not set.*signature\.publicKey"):
        made(tmp_path, None)


def test_images_in_volumes_are_looked_at_beside_those_of_all_containers(tmp_path: Path) -> None:
    spec = made(tmp_path, SIGNED)["spec"]
    [volumes] = spec["images"]
    assert "spec.?volumes" in volumes["expression"]
    kinds = [check["expression"].split(".")[1] for check in spec["validations"]]
    assert kinds == ["containers", "initContainers", "ephemeralContainers", volumes["name"]]
    [rule] = spec["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["pods", "pods/ephemeralcontainers"]


@pytest.mark.parametrize(
    ("registry", "image", "ours"),
    [
        (REGISTRY, f"{REGISTRY}/a/b:v1{DIGEST}", True),
        (REGISTRY, f"EUROPE-west4-docker.PKG.dev/my-project/modelcars/tiny{DIGEST}", True),
        (REGISTRY, f"europe-west4-docker.pkg.dev:443/my-project/modelcars/tiny{DIGEST}", True),
        (REGISTRY, f"europe-west4-docker.pkg.dev.evil.example/my-project/modelcars/tiny{DIGEST}", False),
        (REGISTRY, f"europe-west4-dockerxpkg.dev/my-project/modelcars/tiny{DIGEST}", False),
        (REGISTRY, f"evil.example/{REGISTRY}/tiny{DIGEST}", False),
        (REGISTRY, f"{REGISTRY}-other/tiny{DIGEST}", False),
        (REGISTRY, "sha256:" + "0" * 64, True),
        ("registry.example:5000/models", f"registry.example:5000/models/tiny{DIGEST}", True),
        ("registry.example:5000/models", f"registry.example/models/tiny{DIGEST}", False),
        ("registry.example:443/models", f"registry.example/models/tiny{DIGEST}", True),
        ("docker.io/me", f"me/tiny{DIGEST}", True),
        ("docker.io/me", f"index.docker.io/me/tiny{DIGEST}", True),
        ("docker.io/me", f"Docker.io/me/tiny{DIGEST}", True),
        ("docker.io/me", f"registry-1.docker.io/me/tiny{DIGEST}", True),
        ("index.docker.io/me", f"docker.io/me/tiny{DIGEST}", True),
        ("docker.io/me", f"evil.example/me/tiny{DIGEST}", False),
        ("docker.io/me", f"someone/tiny{DIGEST}", False),
    ],
)
def test_a_registry_is_known_by_all_of_its_names(
    tmp_path: Path, registry: str, image: str, ours: bool
) -> None:
    assert any(pattern.search(image) for pattern in judged(made(tmp_path, SIGNED, registry))) == ours


@pytest.mark.parametrize(
    ("registry", "options", "credentials"),
    [
        (REGISTRY, {}, {"providers": ["google"]}),
        ("gcr.io/my-project", {}, {"providers": ["google"]}),
        ("eu.gcr.io/my-project", {}, {"providers": ["google"]}),
        ("1.dkr.ecr.eu-west-1.amazonaws.com/models", {}, {"providers": ["amazon"]}),
        ("mine.azurecr.io/models", {}, {"providers": ["azure"]}),
        ("ghcr.io/me", {}, {"providers": ["github"]}),
        ("registry.example/models", {}, None),
        ("pkg.dev.evil.example/models", {}, None),
        ("registry.example/models", {"secrets": ["pull"]}, {"secrets": ["pull"]}),
        (REGISTRY, {"secrets": ["pull"]}, {"secrets": ["pull"]}),
        (REGISTRY, {"providers": ["default"]}, {"providers": ["default"]}),
        (REGISTRY, {"secrets": ["a"], "providers": ["google"]}, {"secrets": ["a"], "providers": ["google"]}),
    ],
)
def test_kyverno_reads_the_registry_as_its_host_or_an_option_says(
    tmp_path: Path, registry: str, options: dict[str, Any], credentials: dict[str, Any] | None
) -> None:
    assert made(tmp_path, SIGNED, registry, **options)["spec"].get("credentials") == credentials


def test_what_a_person_has_to_do_for_that_is_told(tmp_path: Path) -> None:
    config = {
        "modelcar:model": "qwen",
        "modelcar:namespace": "models",
        "modelcar:registry": "registry.example/models",
        "modelcar:pullSecret": "pull",
        "modelcar:serverImage": f"docker.io/vllm/vllm-openai{DIGEST}",
    }
    private = stack.load(config, tmp_path)
    assert "roles/artifactregistry.reader" in "".join(notes(made(tmp_path, SIGNED), private))
    other = made(tmp_path, SIGNED, "registry.example/models")
    assert "--secret" in "".join(notes(other, private))
    assert list(notes(made(tmp_path, SIGNED, "registry.example/models", secrets=["x"]), private)) == []


@pytest.mark.parametrize("name", ["prod", "acme/Team_A/prod-1", "a.b", "p" * 100])
def test_any_stacks_name_gives_a_name_that_kubernetes_takes(name: str) -> None:
    found = object_name("signed-modelcars", "chat", "models", name)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", found)


def test_no_two_stacks_of_a_cluster_have_objects_of_one_name() -> None:
    """One would overwrite the other's policy, and leave its namespace unguarded."""
    stacks = [
        ("chat", "models", "prod"),
        ("chat", "other", "prod"),
        ("search", "models", "prod"),
        ("chat", "models", "team.dev"),
        ("chat", "models", "team-dev"),
        ("chat", "models-team", "dev"),
        ("chat", "models", "p" * 100),
        ("chat", "models", "p" * 101),
    ]
    names = {object_name("modelcars", *one) for one in stacks}
    assert len(names) == len(stacks)
    assert object_name("modelcars", *stacks[0]).startswith("modelcars-models-prod-")


def test_one_stack_has_one_name_however_it_is_named(tmp_path: Path) -> None:
    """An operator says `prod`, and CI `acme/chat/prod`: the second would guard beside the first."""
    (tmp_path / "Pulumi.yaml").write_text("name: chat\nruntime: python\n")
    names = {
        object_name("modelcars", program_of(said, tmp_path), "models", said)
        for said in ("prod", "acme/prod", "acme/chat/prod")
    }
    assert len(names) == 1


@pytest.mark.parametrize("options", [[], ["--builtin"]])
def test_what_is_printed_is_named_by_project_namespace_and_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    (tmp_path / "cosign.pub").write_text(KEY)

    def named(project: str, namespace: str) -> str:
        (tmp_path / "Pulumi.yaml").write_text(f"name: {project}\nruntime: python\n")
        config = {
            "modelcar:model": "qwen",
            "modelcar:namespace": namespace,
            "modelcar:registry": REGISTRY,
            "modelcar:serverImage": f"docker.io/vllm/vllm-openai{DIGEST}",
            "modelcar:signature": SIGNED,
        }
        monkeypatch.setattr(commands, "stack_of", lambda *_: load_stack(config, tmp_path))
        assert commands.main(["--project", str(tmp_path), "admission", "--stack", "prod", *options]) == 0
        printed = [one for one in yaml.safe_load_all(capsys.readouterr().out) if one]
        [name] = {one["metadata"]["name"] for one in printed}
        for one in printed:
            assert one["spec"].get("policyName", name) == name
        return str(name)

    assert len({named("chat", "a"), named("chat", "b"), named("search", "a")}) == 3


# --- the policy without an add-on (tests/engine/test_admission_builtin.py has the real API server)


def builtin(folder: Path, *others: str, **config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given = {
        "registry": REGISTRY,
        "namespace": "models",
        "models": json.dumps(
            [
                {"name": "a", "model": "a", "serverImage": f"docker.io/vllm/vllm-openai:v1{DIGEST}"},
                {"name": "b", "model": "b", "serverImage": f"localhost:5000/mine/server{DIGEST}"},
            ]
        ),
        **config,
    }
    loaded = load_stack({f"modelcar:{key}": value for key, value in given.items()}, folder)
    found, binding = admission_builtin.policies(loaded, "modelcars-prod", others)
    return found, binding


def places(found: dict[str, Any], of: str = "images") -> re.Pattern[str]:
    """Return which images are let in: `images` that containers run, or those that are `mounted`."""
    text = found["spec"]["validations"][1]["expression"]
    return re.compile(text.partition(f"variables.{of}.filter(i, !i.matches(r'")[2].partition("')")[0])


def test_it_is_bound_to_the_stacks_namespace_and_denies(tmp_path: Path) -> None:
    found, binding = builtin(tmp_path)
    assert binding["spec"]["policyName"] == found["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    labels = binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
    assert labels == {"kubernetes.io/metadata.name": "models"}
    assert found["spec"]["failurePolicy"] == "Fail"


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        (f"{REGISTRY}/qwen{DIGEST}", True),
        (f"{REGISTRY}/team/qwen:v1{DIGEST}", True),
        (f"docker.io/vllm/vllm-openai{DIGEST}", True),
        (f"docker.io/vllm/vllm-openai:v2{DIGEST}", True),
        (f"localhost:5000/mine/server{DIGEST}", True),
        (f"docker.io/istio/proxyv2{DIGEST}", True),
        (f"docker.io/istio/proxyv22{DIGEST}", False),
        (f"docker.io/vllm/other{DIGEST}", False),
        (f"vllm/vllm-openai{DIGEST}", False),
        (f"{REGISTRY}{DIGEST}", False),
        (f"{REGISTRY}.evil/qwen{DIGEST}", False),
        (f"{REGISTRY}/../evil/qwen{DIGEST}", False),
        (f"{REGISTRY}/qwen:v1", False),
        (f"{REGISTRY}/qwen{DIGEST}@evil.example/x{DIGEST}", False),
        (f"evil.example/{REGISTRY}/qwen{DIGEST}", False),
        (f"{REGISTRY}/qwen{DIGEST}\n", False),
    ],
)
def test_places_are_taken_as_they_are_spelt_and_whole(tmp_path: Path, image: str, taken: bool) -> None:
    found, _ = builtin(tmp_path, "docker.io/istio/proxyv2")
    # `$` is the end of the text in RE2, and may stand before a last line's end in Python.
    assert bool(re.search(places(found).pattern.replace("$", r"\Z"), image)) == taken


def test_adapters_from_elsewhere_are_let_in_and_judged(tmp_path: Path) -> None:
    """The images of a model's adapters are its pods' too."""
    image = f"ghcr.io/adapters/french{DIGEST}"
    mounting = {"name": "a", "model": "a", "vllm": {"loraModules": [{"name": "french", "image": image}]}}
    (tmp_path / "cosign.pub").write_text(KEY)
    given = {
        "registry": REGISTRY,
        "namespace": "models",
        "placement": "imageVolume",
        "serverImage": f"docker.io/vllm/vllm-openai{DIGEST}",
        "signature": SIGNED,
        "models": json.dumps([mounting]),
    }
    loaded = load_stack({f"modelcar:{key}": value for key, value in given.items()}, tmp_path)
    assert mounted(loaded) == ["ghcr.io/adapters/french"]
    signed = policy(loaded.shared, tmp_path, "prod", name="signed", others=mounted(loaded))
    assert any(pattern.search(image) for pattern in judged(signed))
    found = admission_builtin.policies(loaded, "prod", ["docker.io/istio/proxyv2"])[0]
    for let_in in (image, f"{REGISTRY}/a{DIGEST}"):
        assert places(found, "mounted").search(let_in)
    for run in (f"docker.io/vllm/vllm-openai{DIGEST}", f"docker.io/istio/proxyv2{DIGEST}"):
        assert places(found).search(run)
        assert not places(found, "mounted").search(run), "no model is in it"


def test_the_smoke_tests_own_image_needs_no_signature(tmp_path: Path) -> None:
    """`make smoke` and placement auto run under the policy too; by digest, so that no other passes for it."""
    found = made(tmp_path, SIGNED)
    for architecture in LOCKED_ARCHITECTURES:
        probe = f"{REGISTRY}/{NAME}@{probe_image(read_base(architecture)).digest}"
        assert not any(is_judged(found, probe))
        assert any(is_judged(found, f"{REGISTRY}/{NAME}{DIGEST}"))


def test_what_is_no_repository_is_told_each(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        builtin(tmp_path, "istio/proxyv2", f"docker.io/istio/proxyv2{DIGEST}", "gcr.io/fine/x", "https://x/y")
    assert [problem.key for problem in caught.value.problems] == ["--allow"] * 3


def test_the_nodes_own_folders_are_let_in_where_the_stack_mounts_them(tmp_path: Path) -> None:
    mounting = {
        "name": "a",
        "model": "a",
        "serverImage": f"docker.io/x/y{DIGEST}",
        "serverHostPaths": ["/opt/s"],
    }
    texts = [
        builtin(tmp_path, models=json.dumps([mounting]), registryInsecure="true")[0],
        builtin(tmp_path)[0],
    ]
    own, other = ["".join(json.dumps(found["spec"]["validations"][2]).split()) for found in texts]
    assert "v.hostPath.pathin" in own
    assert "/opt/s" in own
    assert "hostPath" not in other


def test_knatives_own_container_is_told(tmp_path: Path) -> None:
    config = {
        "modelcar:registry": REGISTRY,
        "modelcar:model": "qwen",
        "modelcar:namespace": "models",
        "modelcar:serverImage": f"docker.io/vllm/vllm-openai{DIGEST}",
        "modelcar:deploymentMode": "Knative",
    }
    knative = load_stack(config, tmp_path)
    assert "queue-proxy" in "".join(admission_builtin.notes(knative))
    assert "queue-proxy" in "".join(admission_builtin.notes(knative, ["docker.io/istio/proxyv2"]))
    assert list(admission_builtin.notes(knative, ["gcr.io/knative-releases/queue"])) == []


def test_an_option_of_the_other_policy_is_refused() -> None:
    check_options(True, ["x.y/z"], [])
    check_options(False, [], ["google"])
    with pytest.raises(InputError, match="with --builtin"):
        check_options(True, [], ["pull"])
    with pytest.raises(InputError, match="without --builtin"):
        check_options(False, ["x.y/z"], [])
