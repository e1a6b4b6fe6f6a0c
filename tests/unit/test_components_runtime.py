"""The server's arguments: typed ones become vLLM's, and what it would refuse at its start is refused."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from components.config.checks.vllm import unfit
from components.config.known_model import KnownModel
from components.config.settings import Settings
from components.manifests.server_arguments import server_arguments
from components.manifests.service import container
from modelcar import locking
from modelcar.errors import InputError
from modelcar.model_config import read_config
from modelcar.tiny_model import make_tiny_model
from tests.unit.test_components_settings import load, problems

QWEN = {"max_position_embeddings": 32768, "num_attention_heads": 14}


def arguments(**changes: Any) -> list[str]:
    return server_arguments(load(imageName="m", **changes))[7:]  # after what every server is told


def misfit(config: dict[str, Any], files: tuple[str, ...] = (), **changes: Any) -> list[str]:
    model = KnownModel(dict.fromkeys(("config.json", *files), ""), {"config.json": config})
    return [str(problem) for problem in unfit(load(**changes), model)]


def test_typed_arguments_become_vllms() -> None:
    typed = {"maxModelLen": 4096, "dtype": "half", "gpuMemoryUtilization": 0.9, "enforceEager": True}
    assert arguments(vllm=typed, serverArgs=["--seed=1"]) == [
        "--max-model-len=4096",
        "--dtype=half",
        "--gpu-memory-utilization=0.9",
        "--enforce-eager",
        "--seed=1",
    ]
    assert arguments(vllm={"enablePrefixCaching": False}) == ["--no-enable-prefix-caching"]
    assert arguments(vllm={"kvCacheDtype": "fp8_ds_mla"}) == ["--kv-cache-dtype=fp8_ds_mla"]
    assert arguments() == []


def test_all_gpus_of_a_pod_are_used() -> None:
    assert arguments(gpuCount=4) == ["--tensor-parallel-size=4"]
    assert arguments(gpuCount=4, vllm={"tensorParallelSize": 2, "pipelineParallelSize": 2}) == [
        "--tensor-parallel-size=2",
        "--pipeline-parallel-size=2",
    ]
    assert arguments(gpuCount=4, serverArgs=["-tp", "4"]) == ["-tp", "4"]
    assert arguments(gpuCount=4, serverArgs=["--data-parallel-size=4"]) == ["--data-parallel-size=4"]


def test_adapters_are_served_by_their_own_names() -> None:
    modules = [{"name": "french", "path": "adapters/fr"}, {"name": "legal", "path": "adapters/legal"}]
    assert arguments(vllm={"loraModules": modules, "maxLoraRank": 32}) == [
        "--max-lora-rank=32",
        "--enable-lora",
        "--max-loras=2",
        "--lora-modules",
        "french=/mnt/models/adapters/fr",
        "legal=/mnt/models/adapters/legal",
    ]


def test_another_server_gets_its_own_arguments_and_the_facts_as_variables() -> None:
    settings = load(
        runtime="custom", serverCommand=["tgi"], serverArgs=["--model-id=$(MODEL_PATH)"], healthPath="/ready"
    )
    box = container(settings)
    assert box["args"] == ["--model-id=$(MODEL_PATH)"]
    env = {entry["name"]: entry["value"] for entry in box["env"]}
    assert env["MODEL_PATH"] == "/mnt/models"
    assert (env["SERVED_MODEL_NAME"], env["SERVER_PORT"]) == (settings.model_name, "8080")
    assert env["HF_HUB_OFFLINE"] == "1"
    assert box["readinessProbe"]["httpGet"]["path"] == "/ready"


#: One element with an argument and its value, and what stands in its place.
JOINED = [
    (["--max-model-len 4096"], 0, "write --max-model-len=4096, or two elements: "),
    (["--seed=1", "-tp 2"], 1, 'write -tp=2, or two elements: ["-tp", "2"]'),
    (["--enable-prefix-caching", "--max_model_len  16k"], 1, "write --max_model_len=16k"),
    (["--dtype = bfloat16"], 0, "write --dtype=bfloat16"),
    (['--hf-overrides {"a": 1}'], 0, "write --hf-overrides=VALUE"),
    (["--hf-overrides.rope_parameters.factor 4.0"], 0, "write --hf-overrides.rope_parameters.factor=4.0"),
    (["--enforce-eager "], 0, "write --enforce-eager"),
    (["--api-key s3cret"], 0, "write --api-key=VALUE"),
]
#: Values with spaces that vLLM takes.
SPACED = [
    ["--hf-overrides", '{"rope_parameters": {"factor": 4.0}}'],
    ['--hf-overrides={"a": 1, "b": 2}'],
    ["--chat-template", "{% for m in messages %} x {% endfor %}"],
    ["--chat-template", "--system you are a helper"],
    ["--chat-template=- a list"],
    ["--chat-template", "- a list"],
    ["--stop", "a b", "-1 2"],
]


def as_argparse_has_it(arguments: list[str]) -> list[str]:
    """Return what vLLM's parser, which is argparse's, takes for no argument."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--max-model-len", "--max_model_len", "-tp", "--dtype", "--seed", "--api-key"):
        parser.add_argument(name)
    for name in ("--hf-overrides", "--hf-overrides.rope_parameters.factor", "--chat-template"):
        parser.add_argument(name)
    parser.add_argument("--stop", nargs="+")
    for name in ("--enforce-eager", "--enable-prefix-caching"):
        parser.add_argument(name, action="store_true")
    return parser.parse_known_args(arguments)[1]


@pytest.mark.parametrize(("said", "place", "fix"), JOINED)
def test_an_argument_and_its_value_in_one_element_are_refused(said: list[str], place: int, fix: str) -> None:
    assert as_argparse_has_it(said) == [said[place]], "vLLM: unrecognized arguments"
    [found] = problems(serverArgs=said)
    assert found.key == f"modelcar:serverArgs[{place}]"
    assert found.fix.startswith(fix)
    assert "s3cret" not in str(found)
    assert load(runtime="custom", serverCommand=["serve"], serverArgs=said), "another server may take it"
    assert load(serverCommand=["sh", "-c", "exec vllm serve $*"], serverArgs=said), "and so may a script"


@pytest.mark.parametrize("said", SPACED)
def test_values_with_spaces_are_taken(said: list[str]) -> None:
    assert as_argparse_has_it(said) == []
    assert load(serverArgs=said).server_args == tuple(said)


def test_a_program_of_several_words_is_refused_and_a_path_with_spaces_is_not() -> None:
    [found] = problems(serverCommand=["python3 -m vllm.entrypoints.openai.api_server"])
    assert found.key == "modelcar:serverCommand"
    assert found.fix == 'write ["python3", "-m", "vllm.entrypoints.openai.api_server"]'
    [found] = problems(serverCommand=["/usr/bin/python3 -m server"])
    assert found.fix.startswith('write ["/usr/bin/python3", "-m"')
    for command in (["/opt/my server/run"], ["sh", "-c", "sleep 1; exec vllm serve"], ["vllm", "serve"]):
        assert load(serverCommand=command).server_command == tuple(command)


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        ({"serverArgs": ["--port=1"]}, "serverArgs", "set modelcar:serverPort"),
        ({"serverArgs": ["--served_model_name", "x"]}, "serverArgs", "set modelcar:servedModelName"),
        ({"serverArgs": ["--dtype=half"], "vllm": {"dtype": "half"}}, "serverArgs", "remove one of the two"),
        ({"gpuCount": 2, "vllm": {"tensorParallelSize": 4}}, "vllm.tensorParallelSize", "would not start"),
        ({"gpuCount": 4, "serverArgs": ["-tp=2"]}, "vllm.tensorParallelSize", "leave GPUs idle"),
        (
            {"gpuCount": 1, "vllm": {"pipelineParallelSize": 2}},
            "vllm.tensorParallelSize",
            "set gpuCount to 2",
        ),
        ({"runtime": "custom", "vllm": {}}, "vllm", "leave modelcar:runtime out"),
        ({"vllm": {"dtype": "int4"}}, "vllm.dtype", "bfloat16"),
        ({"vllm": {"maxModelLength": 1}}, "vllm.maxModelLength", "did you mean maxModelLen?"),
        (
            {"vllm": {"loraModules": [{"name": "a", "path": "../x"}]}},
            "vllm.loraModules[0].path",
            "without . and",
        ),
        ({"vllm": {"loraModules": [{"name": "a"}]}}, "vllm.loraModules[0].path", "not set"),
        (
            {"vllm": {"loraModules": [{"name": "a", "image": f"r.example/a@sha256:{'0' * 64}"}]}},
            "vllm.loraModules[0].image",
            "placement servingRuntime: KServe 0.19 mounts one OCI image in a pod",
        ),
        (
            {"vllm": {"loraModules": [{"name": "a", "image": "r.example/a:latest"}]}},
            "vllm.loraModules[0].image",
            "names an image by tag",
        ),
        (
            {
                "placement": "imageVolume",
                "vllm": {
                    "loraModules": [{"name": "a", "path": "x", "image": f"r.example/a@sha256:{'0' * 64}"}]
                },
            },
            "vllm.loraModules[0].path",
            "x, beside image",
        ),
        (
            {"vllm": {"loraModules": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}},
            "vllm.loraModules[1].name",
            "twice",
        ),
        ({"vllm": {"maxLoraRank": 8}}, "vllm.maxLoraRank", "without loraModules"),
        ({"healthPath": "health"}, "healthPath", "such as /health"),
    ],
)
def test_what_vllm_would_refuse_is_refused(changes: dict[str, Any], key: str, text: str) -> None:
    found = {problem.key: str(problem) for problem in problems(**changes)}
    assert text in found[f"modelcar:{key}"]


def test_the_context_is_held_to_the_models_own() -> None:
    assert misfit(QWEN, vllm={"maxModelLen": 32768}) == []
    [found] = misfit(QWEN, vllm={"maxModelLen": 40000})
    assert "40000, more than the model was made for" in found
    assert "set it to 32768" in found
    yarn = {
        **QWEN,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    }
    assert misfit(yarn, vllm={"maxModelLen": 131072}) == []
    assert misfit({}, vllm={"maxModelLen": 1_000_000}) == [], "a lock of before has no config.json beside it"
    assert misfit({"text_config": QWEN}, vllm={"maxModelLen": 40000})


def test_a_model_that_vllm_cannot_read_is_refused() -> None:
    gguf = KnownModel({"model.gguf": "", "original/config.json": ""})
    [found] = [str(problem) for problem in unfit(load(), gguf)]
    assert "the model's lock has no config.json: vLLM would not start" in found
    assert not list(unfit(load(runtime="custom"), gguf))
    assert not list(unfit(load(serverArgs=["--hf-config-path", "/mnt/models/original"]), gguf))
    mistral = KnownModel(dict.fromkeys(("params.json", "consolidated.safetensors", "tekken.json"), ""))
    assert not list(unfit(load(), mistral))


def test_gpus_divide_the_attention_heads() -> None:
    assert misfit(QWEN, gpuCount=2) == []
    [found] = misfit(QWEN, gpuCount=4)
    assert "4, which does not divide the model's 14 attention heads" in found
    assert "1 or 2 of 4 GPUs" in found


def test_an_adapter_has_to_be_in_the_lock() -> None:
    modules = {"loraModules": [{"name": "a", "path": "adapters/fr"}]}
    there = ("adapters/fr/adapter_config.json", "adapters/fr/adapter_model.safetensors")
    assert misfit({}, there, vllm=modules) == []
    [found] = misfit({}, ("adapters/de/adapter_config.json",), vllm=modules)
    assert "the model's lock has no adapters/fr/adapter_config.json" in found
    assert "allowed: adapters/de" in found


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_the_configuration_is_kept_beside_the_lock_and_held_to_it(tmp_path: Path, compression: str) -> None:
    folder = make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights", compression=compression)
    lock, _ = locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    kept = tmp_path / "modelcar/models/tiny"
    assert (kept / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert read_config(lock, kept)["num_attention_heads"]
    (kept / "config.json").write_text(json.dumps(QWEN))
    with pytest.raises(InputError, match=r"not the config\.json that tiny's lock names"):
        read_config(lock, kept)
    (kept / "config.json").unlink()
    assert read_config(lock, kept) == {}


def test_the_committed_model_has_its_configuration() -> None:
    from modelcar.lock_reader import read_lock

    folder = Path(__file__).parents[2] / "modelcar/models/tiny-qwen2"
    lock = read_lock(folder / "model.lock")
    content = (folder / "config.json").read_bytes()
    assert {file.path: file.sha256 for file in lock.files}["config.json"] == hashlib.sha256(
        content
    ).hexdigest()


def test_settings_of_a_t4_cannot_ask_for_bfloat16() -> None:
    from tests.unit.test_google_settings import NODES, dev
    from tests.unit.test_google_settings import load as on_google

    t4 = {NODES + "gpu": "nvidia-tesla-t4", NODES + "machineType": "n1-standard-8"}
    with pytest.raises(InputError, match=r"vllm\.dtype: bfloat16 on nvidia-tesla-t4"):
        on_google(dev(vllm={"dtype": "bfloat16"}, **t4))
    assert isinstance(on_google(dev(vllm={"dtype": "half"}, **t4)), Settings)


@pytest.mark.parametrize(
    ("loader", "files", "told"),
    [
        ("runai_streamer", ("model.safetensors",), None),
        ("fastsafetensors", ("model.bin",), "which reads *.safetensors"),
        ("safetensors", ("adapters/model.safetensors",), "which reads *.safetensors"),
        ("mistral", ("model.safetensors",), "which reads consolidated*.safetensors"),
        ("mistral", ("consolidated.safetensors",), None),
        ("sharded_state", ("model.safetensors",), "model-rank-*-part-*.safetensors"),
        ("sharded_state", ("model-rank-0-part-0.safetensors",), None),
        ("auto", ("model.bin",), None),
    ],
)
def test_a_loader_that_would_find_nothing_is_refused(
    loader: str, files: tuple[str, ...], told: str | None
) -> None:
    settings = load(vllm={"loadFormat": loader})
    assert f"--load-format={loader}" in server_arguments(settings)
    found = [
        str(problem)
        for problem in unfit(settings, KnownModel({"config.json": "", **dict.fromkeys(files, "")}))
    ]
    assert [problem for problem in found if told and told in problem] == found
    assert bool(found) is bool(told)


@pytest.mark.parametrize("loader", ["dummy", "gguf", "modelexpress", "tensorizer", "fast"])
def test_a_loader_that_reads_no_modelcar_is_refused(loader: str) -> None:
    with pytest.raises(InputError, match="loadFormat") as raised:
        load(vllm={"loadFormat": loader})
    assert "runai_streamer" in str(raised.value)
