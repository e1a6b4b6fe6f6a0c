"""Many models in one stack: what each says, what all share, and every mistake told with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.config import disk
from components.config.loading import KEYS, OF_ENTRIES, TOP_LEVEL
from components.config.models import OF_MODEL, OF_ONE, SHARED, load_stack
from components.config.stack import Stack
from components.stack.preflight import node_disks
from modelcar.errors import InputError, Problem
from tests.unit.test_components_settings import MINIMAL, as_text
from tests.unit.test_google_settings import as_texts, dev

NOWHERE = Path("/nowhere")
#: What a stack with a list says of all of its models.
STACK = {key: value for key, value in MINIMAL.items() if key not in OF_ONE}
CHAT, CODE = {"name": "chat"}, {"name": "code"}
A100 = {"name": "large", "gpu": "nvidia-a100-80gb", "gpusPerNode": 2, "machineType": "a2-ultragpu-2g"}


def load(*models: dict[str, Any], **shared: Any) -> Stack:
    values = {**STACK, **shared, "models": list(models)}
    config = {f"modelcar:{key}": as_text(value) for key, value in values.items() if value is not None}
    return load_stack(config, NOWHERE)


def problems(*models: dict[str, Any], **shared: Any) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        load(*models, **shared)
    return list(caught.value.problems)


def on_google(*models: dict[str, Any], **changes: Any) -> Stack:
    changes = {"google.cluster.location": "europe-west4", **changes}
    config = dev(model=None, serviceName=None, models=list(models), **changes)
    return load_stack(as_texts(config), NOWHERE)


def pool_of(settings: Any) -> str:
    return str(settings.google.nodes.name)


# --- what is right


def test_an_entry_needs_a_name_and_nothing_else() -> None:
    stack = load(CHAT, CODE)
    assert [model.key for model in stack.models] == ["chat", "code"]
    for model in stack.models:
        assert (model.service_name, model.repository, model.model_name) == (model.key,) * 3
        assert model.model == model.key


def test_what_an_entry_leaves_out_is_the_stacks_own() -> None:
    chat, code = load(CHAT, {**CODE, "cpu": "8", "serverArgs": ["--x"]}, cpu="2", serverArgs=["--y"]).models
    assert (chat.cpu, chat.server_args) == ("2", ("--y",))
    assert (code.cpu, code.server_args) == ("8", ("--x",))


def test_a_stack_without_a_list_has_one_model() -> None:
    stack = load_stack({f"modelcar:{key}": value for key, value in MINIMAL.items()}, NOWHERE)
    assert not stack.listed
    assert [model.key for model in stack.models] == ["qwen-oci"]
    assert stack.model(None) is stack.models[0]


def test_a_renamed_model_keeps_what_it_is_called_in_the_cluster() -> None:
    [model] = load({"name": "assistant", "formerNames": ["chat"]}).models
    assert model.key == "assistant"
    assert (model.service_name, model.model, model.repository) == ("chat", "chat", "chat")


def test_defaults_of_the_project_file_are_no_settings_of_a_stack_with_a_list() -> None:
    stack = load(CHAT, CODE, servedModelName="")
    assert [model.service_name for model in stack.models] == ["chat", "code"]


def test_every_setting_is_of_a_model_or_of_the_stack() -> None:
    assert set() == OF_MODEL & SHARED
    assert set(KEYS) == OF_MODEL | SHARED
    assert OF_ENTRIES < OF_MODEL
    assert SHARED < TOP_LEVEL


def test_a_model_is_found_by_its_name() -> None:
    stack = load(CHAT, CODE)
    assert stack.model("code").key == "code"
    with pytest.raises(InputError, match=r"several(?s:.*)chat, code(?s:.*)--model chat"):
        stack.model(None)
    with pytest.raises(InputError, match="poetry: the stack has no such model"):
        stack.model("poetry")


# --- pools


def test_each_model_lands_on_the_smallest_pool_that_can_take_it() -> None:
    stack = on_google(CHAT, {**CODE, "gpuCount": 2, "memory": "100Gi"}, **{"google.pools": [A100]})
    assert [pool_of(model) for model in stack.models] == ["gpu", "large"]
    assert stack.google
    assert [pool.name for pool in stack.google.all_pools] == ["gpu", "large"]
    assert [model.key for model in stack.on_pool("large")] == ["code"]


def test_a_model_may_choose_its_gpu_or_its_pool() -> None:
    models = ({**CHAT, "gpu": "nvidia-a100-80gb"}, {**CODE, "nodePool": "large"})
    stack = on_google(*models, **{"google.pools": [A100]})
    assert [pool_of(model) for model in stack.models] == ["large", "large"]


def test_what_a_gpu_cannot_do_is_held_against_the_pool_that_the_model_lands_on() -> None:
    t4 = {"name": "old", "gpu": "nvidia-tesla-t4", "machineType": "n1-standard-8"}
    chat = {**CHAT, "vllm": {"dtype": "bfloat16"}, "cpu": "2", "memory": "8Gi"}
    first = {"google.nodes": {**t4, "name": "gpu"}, "google.pools": [{**A100, "name": "large"}]}
    [model] = on_google({**chat, "nodePool": "large"}, **first).models
    assert pool_of(model) == "large"
    with pytest.raises(InputError, match=r"vllm\.dtype: bfloat16 on nvidia-tesla-t4"):
        on_google({**chat, "nodePool": "gpu"}, **first)


def test_pods_go_to_their_own_pool_whose_disk_was_computed_for_them() -> None:
    from components.manifests.service import predictor

    chat, code = on_google(CHAT, {**CODE, "gpuCount": 2}, **{"google.pools": [A100]}).models
    for model, pool in ((chat, "gpu"), (code, "large")):
        assert predictor(model, "oci://x")["nodeSelector"] == {"cloud.google.com/gke-nodepool": pool}


def test_a_disk_holds_the_models_that_one_node_can_have_together() -> None:
    sizes = {"chat": 100e9, "code": 60e9, "math": 40e9}
    models = [{"name": name, "nodePool": "large"} for name in sizes]
    stack = on_google(*models, **{"google.pools": [{**A100, "maxNodes": 2}]})
    found = node_disks(stack, sizes)
    assert found["large"].model == 160, "two GPUs, so two of the three at most"
    assert found["gpu"].disk == disk.SMALLEST_DISK
    small = {**A100, "maxNodes": 2, "diskGb": 700}
    with pytest.raises(InputError, match=r"google\.pools\[0\]\.diskGb: 700(?s:.*)of 2 models that one node"):
        node_disks(on_google(*models, **{"google.pools": [small]}), sizes)


# --- what is wrong


@pytest.mark.parametrize(
    ("models", "shared", "key", "value", "fix"),
    [
        ([], {}, "models", "[]", "pulumi destroy"),
        ([{"model": "x"}], {}, "models[0]", "has no name", "docs/models.md"),
        ([{"name": "Chat"}], {}, "models[0].name", "refuses this name", "lower-case"),
        ([CHAT, CHAT], {}, "models[1].name", "chat, which models[0] (chat) has already", "rename"),
        (
            [CHAT, {**CODE, "serviceName": "chat"}],
            {},
            "models[1].serviceName",
            "chat, which models[0]",
            "rename",
        ),
        ([CHAT, {**CODE, "model": "chat"}], {}, "models[1].imageName", "chat, which models[0]", "imageName"),
        (
            [{"name": "chat", "modle": "x"}],
            {},
            "models[0].modle",
            "unknown key (model chat)",
            "did you mean model?",
        ),
        (
            [{"name": "chat", "namespaces": "x"}],
            {},
            "models[0].namespaces",
            "unknown key (model chat)",
            "did you mean modelcar:namespace, which belongs to the whole stack?",
        ),
        ([CHAT, {**CODE, "cpu": "much"}], {}, "models[1].cpu", "'much': not a", "thousandths with m"),
        ([CHAT, {**CODE, "cpus": 1}], {}, "models[1].cpus", "unknown key", "did you mean cpu"),
        (
            [{**CHAT, "registry": "r.example/x"}],
            {},
            "models[0].registry",
            "belongs to the whole stack",
            "there",
        ),
        ([{**CHAT, "models": []}], {}, "models[0].models", "in a model", "move it"),
        ([CHAT], {"serviceName": "own"}, "serviceName", "own, beside modelcar:models", "models's entry"),
        ([CHAT], {"parallelBuilds": 0}, "parallelBuilds", "'0'", "correct it"),
        (
            [{**CHAT, "formerNames": ["code"]}, CODE],
            {},
            "models[0].formerNames",
            "code, which another",
            "one",
        ),
        ([{**CHAT, "nodePool": "x"}], {}, "models[0].nodePool", "x (model chat)", "remove it"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    models: list[dict[str, Any]], shared: dict[str, Any], key: str, value: str, fix: str
) -> None:
    found = {problem.key: problem for problem in problems(*models, **shared)}
    assert f"modelcar:{key}" in found
    told = found[f"modelcar:{key}"]
    assert value in told.value
    assert fix.replace("models's", "model's") in told.fix


def test_a_namespace_that_nobody_says_is_told_once() -> None:
    [found] = problems(CHAT, CODE, namespace=None)
    assert (found.key, found.value) == ("modelcar:namespace", "not set")


def test_mistakes_of_all_models_are_told_at_once_and_shared_ones_once() -> None:
    found = [
        problem.key
        for problem in problems(
            {**CHAT, "cpu": "x"}, {**CODE, "memory": "y"}, registry="https://x", serverPort="80"
        )
    ]
    assert sorted(found) == [
        "modelcar:models[0].cpu",
        "modelcar:models[1].memory",
        "modelcar:registry",
        "modelcar:serverPort",
    ]


def test_places_are_those_of_the_list() -> None:
    found = [problem.key for problem in problems({"model": "x"}, {**CODE, "cpu": "x"})]
    assert found == ["modelcar:models[0]", "modelcar:models[1].cpu"]
    found = [problem.key for problem in problems(5, {"name": 7}, {"name": ["x"]})]  # type: ignore[arg-type]
    assert found[0] == "modelcar:models[0]"
    assert all(key.startswith(("modelcar:models[1].", "modelcar:models[2].")) for key in found[1:])


def test_a_secret_in_an_entry_is_not_shown() -> None:
    for entry in (["TOKEN=hf_s3cret", 7], "hf_s3cret", ["hf_s3cret"]):
        found = problems({**CHAT, "serverEnv": entry})
        assert found
        assert not any("s3cret" in str(problem) for problem in found)


def test_a_model_that_no_pool_can_take_is_told_what_each_lacks() -> None:
    with pytest.raises(InputError) as caught:
        on_google({**CHAT, "gpuCount": 4}, **{"google.pools": [A100]})
    [problem] = caught.value.problems
    assert "gpu: 1 GPUs a node, and it needs 4; large: 2 GPUs a node, and it needs 4" in problem.value


def test_models_that_keep_more_gpus_than_their_pool_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"google\.nodes\.maxNodes: 1, which is 1 GPUs(?s:.*)chat 1, code 1"):
        on_google(CHAT, CODE)
    assert on_google(CHAT, {**CODE, "idle": True})
    assert on_google(CHAT, CODE, **{"google.nodes.maxNodes": 2})


NEXT = {"name": "next", "gpu": "nvidia-l4", "machineType": "g2-standard-12", "maxNodes": 4}


def test_a_model_that_the_smallest_pool_would_be_refused_on_lands_on_the_next() -> None:
    t4 = {"name": "old", "gpu": "nvidia-tesla-t4", "machineType": "n1-standard-8"}
    small = {"cpu": "2", "memory": "8Gi"}
    pools = {"google.nodes": t4, "google.pools": [NEXT]}
    assert [pool_of(one) for one in on_google({**CHAT, **small}, **pools).models] == ["old"]
    for more in ({"vllm": {"dtype": "bfloat16"}}, {"maxReplicas": 4}):
        assert [pool_of(one) for one in on_google({**CHAT, **small, **more}, **pools).models] == ["next"]
    with pytest.raises(InputError) as caught:
        on_google({**CHAT, **small, "maxReplicas": 4, "nodePool": "old"}, **pools)
    [found] = caught.value.problems
    assert found.fix == "raise google.nodes.maxNodes, or lower it, or name another pool in nodePool"
    with pytest.raises(InputError, match=r"raise google\.pools\[0\]\.maxNodes"):
        on_google({**CHAT, **small, "maxReplicas": 5, "nodePool": "next"}, **pools)
    pools["google.pools"] = [{**NEXT, "machineType": "g2-standard-4"}]
    with pytest.raises(
        InputError, match=r"old: vllm.dtype bfloat16 on nvidia-tesla-t4(?s:.*); next: .*processors"
    ):
        on_google({**CHAT, "cpu": "6", "memory": "8Gi", "vllm": {"dtype": "bfloat16"}}, **pools)


def test_models_that_one_pool_has_too_few_gpus_for_land_on_two() -> None:
    pools = {"google.pools": [NEXT]}

    def landed(*models: dict[str, Any], **changes: Any) -> list[str]:
        return [pool_of(model) for model in on_google(*models, **pools, **changes).models]

    assert landed(CHAT, CODE) == ["gpu", "next"]
    assert landed(CHAT, {**CODE, "nodePool": "gpu"}) == ["next", "gpu"]
    assert landed(CHAT, {**CODE, "idle": True}) == ["gpu", "gpu"], "as where there is room for both"
    assert landed(CHAT, CODE, **{"google.nodes.maxNodes": 2}) == ["gpu", "gpu"]
    with pytest.raises(
        InputError, match=r"google\.nodes\.maxNodes: 1, (?s:.*)chat 1, code 1(?s:.*)in nodePool"
    ):
        landed({**CHAT, "nodePool": "gpu"}, {**CODE, "nodePool": "gpu"})
    with pytest.raises(InputError, match=r"google\.pools\[0\]\.maxNodes: 4, (?s:.*)chat 4, code 1"):
        landed({**CHAT, "nodePool": "next", "minReplicas": 4, "maxReplicas": 4}, {**CODE, "nodePool": "next"})


# --- runtimes that models share


def test_models_share_a_runtime_and_keep_their_own_arguments() -> None:
    from components.manifests.service import predictor, serving_runtime

    shared = {"sharedRuntime": "vllm"}
    chat, code = load({**CHAT, **shared}, {**CODE, **shared, "serverArgs": ["--x"], "cpu": "9"}).models
    assert serving_runtime(chat) == serving_runtime(code)
    server = serving_runtime(chat)["containers"][0]
    assert not {"args", "resources"} & server.keys()
    model = predictor(code, "oci://x")["model"]
    assert model["runtime"] == "vllm"
    assert model["args"][-1] == "--x"
    assert "code" in model["args"]
    assert model["resources"]["requests"]["cpu"] == "9"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"serverPort": 9000}, "vllm, and serverPort differ from model chat's"),
        ({"runtime": "custom"}, "vllm, and runtime differ from model chat's"),
        ({"termination": {"preStopSeconds": 1}}, "vllm, and termination differ from model chat's"),
        ({"probes": {"liveness": {"enabled": False}}}, "vllm, and probes differ from model chat's"),
        ({"placement": "storageUris"}, "placement storageUris has no ServingRuntime"),
    ],
)
def test_a_shared_runtime_is_equal_for_all(change: dict[str, Any], text: str) -> None:
    shared = {"sharedRuntime": "vllm"}
    found = problems({**CHAT, **shared}, {**CODE, **shared, **change})
    assert any(text in problem.value for problem in found)


def test_a_shared_runtime_has_a_name_of_its_own() -> None:
    [found] = problems({**CHAT, "sharedRuntime": "code"}, CODE)
    assert found.key == "modelcar:models[0].sharedRuntime"
