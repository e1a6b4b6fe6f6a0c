"""Compiled kernels on the real cluster: saved out of a pod, locked, in the image, and used by the next pod.

vLLM's CPU build compiles with this machine's C++ compiler. Its graphs are found in Inductor's cache; the
whole compiled model is not loaded on a CPU (vLLM 0.23: `'function' object has no attribute
'finalize_loading'`), which it says itself.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml

from components.manifests.kernels import SAID, SERVER
from local.instance import cache_root
from local.servers.choice import c_compiler, vllm_obstacles
from local.servers.environment import host_paths
from modelcar import kernel_store
from modelcar.lock_reader import read_lock
from tests.conftest import Platform

pytestmark = pytest.mark.extended

HERE = ("-n", "kserve-demo")
SELECTED = ("-l", "serving.kserve.io/inferenceservice=qwen-oci")
LISTED = "cd /tmp/.cache/vllm/torch_compile_cache && find . -type f ! -name '*.lock' | sort"


def configure(platform: Platform, **more: Any) -> None:
    """Let the local stack's server compile."""
    settings = platform.settings
    path = platform.checkout.folder / "Pulumi.local.yaml"
    document = yaml.safe_load(path.read_text())
    folder = cache_root() / "servers" / "vllm-0.23.0"
    dropped = ("VLLM_CACHE_ROOT=", "TORCH_COMPILE_DISABLE=")
    compiling = {
        "serverArgs": [entry for entry in settings["serverArgs"] if entry != "--enforce-eager"],
        "serverEnv": [entry for entry in settings["serverEnv"] if not entry.startswith(dropped)],
        "serverHostPaths": host_paths(folder, compiler=c_compiler()),
        "memory": "5Gi",
        **more,
    }
    document["config"] |= {f"modelcar:{key}": value for key, value in compiling.items()}
    path.write_text(yaml.safe_dump(document))


def pod(platform: Platform) -> dict[str, Any]:
    pods = json.loads(platform.kubectl(*HERE, "get", "pods", *SELECTED, "-o", "json"))["items"]
    [found] = [one for one in pods if "deletionTimestamp" not in one["metadata"]]
    return dict(found)


def said(platform: Platform) -> str:
    return platform.kubectl(*HERE, "logs", pod(platform)["metadata"]["name"], "-c", "kserve-container")


def in_pod(platform: Platform, script: str) -> str:
    name = pod(platform)["metadata"]["name"]
    return platform.kubectl(*HERE, "exec", name, "-c", "kserve-container", "--", "sh", "-c", script)


def test_the_next_pod_uses_what_a_former_one_compiled(platform: Platform) -> None:
    if lacks := vllm_obstacles():
        pytest.skip("vLLM's CPU build does not run here: " + "; ".join(lacks))
    if c_compiler() is None:
        pytest.skip("no C compiler on this machine")
    configure(platform)
    folder = platform.checkout.folder
    path = folder / "modelcar/models/tiny-qwen2/model.lock"
    committed = path.read_bytes()

    started = time.monotonic()
    platform.checkout.make("up")
    cold = time.monotonic() - started
    assert f"{SAID}the image has none" in said(platform)

    saved = platform.checkout.make("kernels", STACK="local")
    [entry] = read_lock(path).kernels
    assert f"+ kernels {entry.name}" in saved.stdout
    server = {one["name"]: one.get("value") for one in pod(platform)["spec"]["containers"][0]["env"]}[SERVER]
    assert (entry.target.kind, entry.target.server, entry.vllm) == ("cpu", server, "0.23.0")

    # Again, out of the same pod: the same caches are the same layer, and nothing changes.
    before = path.read_bytes()
    again = platform.checkout.make("kernels", STACK="local")
    assert "no difference" in again.stdout
    assert path.read_bytes() == before

    # The registry has it under a tag of its own, and `up` takes it from there.
    kernel_store.kept_path(folder, entry.digest).unlink()
    started = time.monotonic()
    platform.checkout.make("up")
    warm = time.monotonic() - started
    assert f"{SAID}used {entry.name}" in said(platform)
    layer = f"/mnt/models/.kernels/{entry.name}/vllm/torch_compile_cache"
    compiled = in_pod(platform, f"cd {layer} && find . -type f | sort")
    assert compiled.split()
    # Its graphs were found: a compilation would have left others, under names of their own.
    assert set(compiled.split()) == {
        line for line in in_pod(platform, LISTED).split() if "precompiled_headers" not in line
    }
    report = platform.checkout.make("validate", STACK="local", ARGS="--json", check=False).stdout
    [line] = [one for one in json.loads(report)["lines"] if one["name"] == "kernels of the image"]
    assert line["passed"], line
    assert line["evidence"].startswith(f"used {entry.name}; ")
    print(line["evidence"])
    print(f"up, cold {cold:.1f} s, with kernels {warm:.1f} s")
    path.write_bytes(committed)
