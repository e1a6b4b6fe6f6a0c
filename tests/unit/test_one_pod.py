"""One pod for all stacks: what the local stack runs is what `dev` runs, but for what this table names.

What only the local stack sets hides a fault of the others: its server had a user name, theirs had none, and
no test saw it (docs/decisions/0004-one-pod-for-all-stacks.md). So every difference between the objects of the
two stacks is named here with its reason. Another one fails, and so does one that is named and gone.
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.smoke import objects
from components.config.models import load_stack
from components.config.settings import Settings
from components.manifests.gitops import manifests
from components.manifests.service import own_environment
from local import up
from local.instance import Instance
from local.servers import RELEASES, environment
from tests.conftest import PROJECT
from tests.unit.test_components_settings import as_text

PLACEMENTS = ("servingRuntime", "storageUriEnv", "storageUris")
KINDS = tuple(sorted(RELEASES))
CPU = ("transformers", "vllm")
VLLM = ("vllm",)
GPU = ("vllm-cuda",)


@dataclass(frozen=True)
class Allowed:
    """A difference that may be: its path (a regular expression), why, and the local servers that have it."""

    path: str
    reason: str
    kinds: tuple[str, ...] = KINDS


#: What belongs to the machine that the local stack runs on, and nothing else.
ALLOWED = (
    # the server: an environment of this machine's, in an image that holds no more than a shell
    Allowed(r"storageUri", "this machine's registry, and its processor's modelcar"),
    Allowed(r"server\.image", "the local server is no image: it is mounted from this machine"),
    Allowed(r"server\.command\[4:\]", "the Python of that environment, by its full path"),
    Allowed(r"server\.env\[PATH\]", "that environment's programs; vLLM's image sets its own PATH"),
    Allowed(
        r"server\.env\[LD_LIBRARY_PATH\]",
        "a Python with a shared library where no ld.so.cache names it; vLLM's image sets this too",
    ),
    Allowed(
        r"server\.env\[MODELCAR_SERVER_ID\]",
        "the image's digest says nothing of a server that is mounted: its command and folders do",
    ),
    Allowed(r"pod\.volumes\[host-\d+\]\..+", "the folders of this machine with the server in them"),
    Allowed(
        r"server\.volumeMounts\[/(?!tmp\]|dev/shm\]).+\]\..+", "… at the same paths in the pod, read-only"
    ),
    Allowed(
        r"server\.env\[VLLM_CACHE_ROOT\]",
        "of this machine: it holds what a trial found out of the tiny model's class, and is read-only",
        VLLM,
    ),
    # the processor in place of a GPU
    Allowed(r"server\.env\[OMP_NUM_THREADS\]", "the pod's processors are shared with the platform", CPU),
    Allowed(r"server\.env\[VLLM_CPU_OMP_THREADS_BIND\]", "of vLLM's CPU build only", VLLM),
    Allowed(r"server\.env\[TORCH_COMPILE_DISABLE\]", "compiling for a CPU takes a C++ compiler", VLLM),
    Allowed(r"server\.args\[--dtype\]", "CPUs have no fast 16-bit arithmetic", CPU),
    Allowed(r"server\.args\[--enforce-eager\]", "no CUDA graphs, and no compiler", VLLM),
    Allowed(r"server\.args\[--kv-cache-memory-bytes\]", "a small cache in this machine's memory", VLLM),
    Allowed(r"server\.args\[--max-model-len\]", "the tiny model's own length; dev's model has another"),
    Allowed(r"server\.args\[--gpu-memory-utilization\]", "no GPU, or the share that vLLM takes by itself"),
    Allowed(r"server\.resources\.(requests|limits)\.nvidia\.com/gpu", "no GPU", CPU),
    Allowed(r"pod\.tolerations\[0\]\..+", "GKE taints nodes with GPUs", CPU),
    # the machine's GPU, without vLLM's image
    Allowed(r"server\.env\[CC\]", "Triton's compiler is this machine's", GPU),
    Allowed(r"server\.env\[TRITON_LIBCUDA_PATH\]", "the pod has no /sbin/ldconfig, which the image has", GPU),
    Allowed(
        r"server\.env\[VLLM_USE_FLASHINFER_SAMPLER\]",
        "its ready-made kernels, which the image has, are not on PyPI",
        GPU,
    ),
    # the machine's size
    Allowed(r"pod\.nodeSelector\..+", "GKE's label of the model's own pool: here is one node"),
    Allowed(r"server\.resources\.requests\.cpu", "a laptop's processors, shared with the platform"),
    Allowed(r"server\.resources\.limits\.cpu", "all of the laptop's"),
    Allowed(r"server\.resources\.(requests|limits)\.memory", "what the tiny model takes"),
    Allowed(r"pod\.volumes\[shared-memory\]\.emptyDir\.sizeLimit", "counts in that memory"),
    Allowed(r"server\.startupProbe\.failureThreshold", "a tiny model that is there in ten minutes, or never"),
)


def committed(stack: str, platform: dict[str, Any] | None = None, **changes: Any) -> Settings:
    """Return the settings of a committed stack with one model.

    platform: what `make up` writes about the machine, which the stack's own settings win over.
    """
    config = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text())["config"]
    config.pop("modelcar:platformFile", None)
    machine = {f"modelcar:{key}": value for key, value in (platform or {}).items()}
    values = {**machine, **config, **{f"modelcar:{key}": value for key, value in changes.items()}}
    [model] = load_stack({key: as_text(value) for key, value in values.items()}, PROJECT).models
    return model


def local(tmp_path: Path, kind: str, placement: str) -> Settings:
    """Return the settings of the local stack, with the file of a platform that serves with this server."""
    instance = Instance("local", 0, tmp_path)
    server = environment.describe(kind, tmp_path / "servers" / kind)
    written = json.loads(json.dumps(up.platform_settings(instance, server, "sha256:" + "5" * 64, 8)))
    return committed("local", written, placement=placement)


def dev(placement: str) -> Settings:
    """Return the settings of the dev stack, with the local stack's model: models differ, and are no pod."""
    return committed("dev", model="tiny-qwen2", namespace="kserve-demo", placement=placement)


def fields(settings: Settings) -> dict[str, Any]:
    """Return all fields of the stack's objects by their path; the pod's alike for every placement."""
    found: dict[str, Any] = {}
    for file, document in manifests(settings, PROJECT).items():
        for path, value in flat(document, file.removesuffix(".yaml")):
            short = path
            for pattern, name in SHORT:
                short = re.sub(pattern, name, short)
            # A model of a ServingRuntime repeats resources; they may not differ.
            assert found.setdefault(short, value) == value, f"{path}: {value} and {found[short]}"
    return found


#: A placement's own places, and what they are in a pod.
SHORT = (
    (r"^(servingruntime\.spec|inferenceservice\.spec\.predictor)\.containers\[kserve-container\]", "server"),
    (r"^inferenceservice\.spec\.predictor\.model\.resources", "server.resources"),
    (r"^(inferenceservice\.spec\.predictor)\.model\.storageUri$", "storageUri"),
    (r"^(inferenceservice\.spec\.predictor)\.storageUris\[/mnt/models\]\.uri$", "storageUri"),
    (r"^server\.env\[STORAGE_URI\]$", "storageUri"),
    (r"^(servingruntime\.spec|inferenceservice\.spec\.predictor)\.(?=volumes|tolerations|nodeSel)", "pod."),
)


def flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every leaf; entries of lists by what tells them apart, so that order is none."""
    leaf = path.rpartition(".")[2]
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}")
    elif leaf == "env":
        yield from ((f"{path}[{entry['name']}]", entry["value"]) for entry in value)
    elif leaf == "args":
        yield from ((f"{path}[{name}]", text) for name, text in arguments(value))
    elif leaf == "command":
        yield from ((f"{path}[{number}]", text) for number, text in enumerate(value[:4]))
        yield f"{path}[4:]", value[4:]
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            known = inner if isinstance(inner, dict) else {}
            yield from flat(inner, f"{path}[{known.get('mountPath') or known.get('name') or number}]")
    else:
        yield path, value


def arguments(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (option, value) of a command line: `--a=b`, `--a b` and `--a`."""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word.startswith("--"):
            name, separator, value = word.partition("=")
            yield name, value if separator or after.startswith("--") else after


@pytest.fixture(autouse=True)
def a_python_with_a_shared_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pyenv and uv build it: not every machine's, and the table is one for all."""
    of_this = sysconfig.get_config_var
    other = {"Py_ENABLE_SHARED": 1, "LIBDIR": "/opt/python/lib"}
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: other.get(name, of_this(name)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_local_pod_is_devs_but_for_what_belongs_to_the_machine(
    tmp_path: Path, placement: str, kind: str
) -> None:
    here, there = fields(local(tmp_path, kind, placement)), fields(dev(placement))
    differ = sorted(
        path for path in here.keys() | there.keys() if here.get(path, ...) != there.get(path, ...)
    )
    rows = [row for row in ALLOWED if kind in row.kinds]
    unexplained = {
        path: {"local": here.get(path, "not there"), "dev": there.get(path, "not there")}
        for path in differ
        if not any(re.fullmatch(row.path, path) for row in rows)
    }
    assert unexplained == {}, "does dev need it too? Then the program has to say it, on every stack"
    gone = [row.path for row in rows if not any(re.fullmatch(row.path, path) for path in differ)]
    assert gone == [], "no longer a difference: take the row out"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_comparison_sees_the_pods_own_fields(tmp_path: Path, placement: str) -> None:
    """Else it would pass for two stacks that it cannot read."""
    for settings in (local(tmp_path, "vllm", placement), dev(placement)):
        found = fields(settings)
        assert found["server.env[USER]"] == found["server.env[LOGNAME]"] == "model"
        assert found["server.args[--model]"] == "/mnt/models"
        assert found["server.args[--port]"] == "8080"
        assert found["server.securityContext.readOnlyRootFilesystem"] is True
        assert found["server.volumeMounts[/tmp].name"] == "scratch"
        assert found["storageUri"].startswith("oci://")
        assert found["inferenceservice.spec.predictor.securityContext.runAsUser"] == 1010


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_smoke_tests_pods_are_told_what_every_server_is(placement: str) -> None:
    found = [
        body["spec"] for _, body in objects(dev(placement), "oci://r.example/p@sha256:0", "n", placement)
    ]
    told = dict(entry for spec in found for entry in flat(spec, ""))
    for name, value in own_environment().items():
        assert any(path.endswith(f"env[{name}]") and said == value for path, said in told.items()), name


def test_the_local_stack_sets_no_variable_that_the_program_sets(tmp_path: Path) -> None:
    """But the one folder that is this machine's: what two set, one of them can hide."""
    for kind in KINDS:
        own = environment.describe(kind, tmp_path).env.keys()
        assert own & own_environment().keys() <= {"VLLM_CACHE_ROOT"}
