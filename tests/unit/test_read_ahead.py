"""`modelcar:readAhead`: what a pod's start script does, and which models are too large for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.config.checks.fit import unfit
from components.config.known_model import KnownModel
from components.config.model_path import MODEL_PATH
from components.kserve.server import CustomServer
from components.kserve.shared_runtime import SharedRuntimeArgs
from components.manifests import kernels
from components.manifests.read_ahead import LANES, SAID
from components.manifests.service import revision, serving_runtime, start_script
from tests.unit.test_components_kernels import SHELLS
from tests.unit.test_components_models import load as load_listed
from tests.unit.test_components_settings import as_pulumi_runs_it, load

GIB = 1024**3
FILES = ("config.json", "model-1.safetensors", "model-2.safetensors", "tokenizer.json", "tokenizer/x.model")
CUSTOM: dict[str, Any] = {"runtime": "custom", "serverCommand": ["serve"]}
#: Stands for the server: tells its children, and lets the reading go on.
SERVER = """
import pathlib, psutil, sys, time
folder, ends = pathlib.Path(sys.argv[1]), time.monotonic() + 60
def wait(pattern, count):
    while len(list(folder.glob(pattern))) < count:
        if time.monotonic() > ends:
            sys.exit(f"no {pattern}")
        time.sleep(0.02)
wait("began-*", 1)
print("children:", len(psutil.Process().children()))
(folder / "serves").touch()
wait("read-*", int(sys.argv[2]))
"""


def until(condition: str) -> str:
    """Return a shell's wait for something, which ends with the test where it never comes."""
    return f"n=0; until {condition}; do if [ $n = 1200 ]; then exit 1; fi; n=$((n + 1)); sleep 0.05; done"


# BusyBox takes a `cat` of its own, whatever PATH says: the local tier runs it, in pods.
@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("placement", ["servingRuntime", "imageVolume"])
def test_each_file_is_read_once_while_the_server_starts(tmp_path: Path, shell: str, placement: str) -> None:
    model, tools = tmp_path / "models", tmp_path / "tools"
    for name in (*FILES, ".kernels/a/big"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    tools.mkdir()
    # Reading takes until the server has begun: a script that waited for it would never end.
    (tools / "cat").write_text(
        f"#!/bin/sh\ntouch {tmp_path}/began-$$\n{until(f'[ -e {tmp_path}/serves ]')}\n"
        f'/bin/cat "$1"\necho "$1" >> {tmp_path}/said\ntouch {tmp_path}/read-$$\n'
    )
    (tools / "cat").chmod(0o755)
    script = start_script(load(placement=placement, readAhead=True, **CUSTOM))
    ran = subprocess.run(
        [
            *SHELLS[shell],
            "-c",
            script.replace(MODEL_PATH, str(model)),
            "server",
            *(sys.executable, "-c", SERVER, str(tmp_path), str(len(FILES))),
        ],
        env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert SAID.format(folder=model) in ran.stdout.splitlines()
    assert "children: 0" in ran.stdout, "a server waits for its own children only: they would stay as zombies"
    assert sorted((tmp_path / "said").read_text().split()) == sorted(f"{model}/{name}" for name in FILES)
    assert not ran.stderr
    # A reader ends right after its last file, of which the server above is told before.
    left = [one for one in psutil.process_iter(["cmdline"]) if str(model) in str(one.info["cmdline"])]
    assert not psutil.wait_procs(left, timeout=30)[1]


def test_several_files_are_read_at_a_time(tmp_path: Path) -> None:
    model, tools = tmp_path / "models", tmp_path / "tools"
    model.mkdir()
    tools.mkdir()
    for number in range(2 * LANES):
        (model / str(number)).touch()
    # Each reader ends once all lanes read.
    (tools / "cat").write_text(
        f"#!/bin/sh\nmkdir -p {tmp_path}/readers\ntouch {tmp_path}/readers/$$\n"
        f"{until(f'[ $(ls {tmp_path}/readers | wc -l) -ge {LANES} ]')}\n"
        f'touch {tmp_path}/read-"$(basename "$1")"\n'
    )
    (tools / "cat").chmod(0o755)
    wait = until(f"[ $(ls {tmp_path} | grep -c read-) = {2 * LANES} ]")
    script = start_script(load(readAhead=True, **CUSTOM)).replace(MODEL_PATH, str(model))
    variables = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", script, "server", "sh", "-c", wait], env=variables, timeout=90, check=True)


@pytest.mark.parametrize("placement", ["servingRuntime", "imageVolume"])
def test_kernels_are_copied_before_the_disk_is_busy(tmp_path: Path, placement: str) -> None:
    (tmp_path / "config.json").touch()
    script = start_script(load(readAhead=True, placement=placement)).replace(MODEL_PATH, str(tmp_path))
    command = ["sh", "-c", script, "server", "echo", "serves"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    order = [f"{kernels.SAID}{kernels.NONE}", SAID.format(folder=tmp_path), "serves"]
    assert [line for line in said if line in order] == order


def test_without_it_pods_are_declared_as_before() -> None:
    said, unsaid = load(readAhead=False), load()
    assert start_script(said) == start_script(unsaid) == start_script(as_pulumi_runs_it())
    assert "ahead" not in start_script(unsaid)
    uri = "oci://r/m@sha256:" + "0" * 64
    assert revision(said, uri) == revision(unsaid, uri) != revision(load(readAhead=True), uri)


@pytest.mark.parametrize(
    ("size", "memory", "least"),
    [
        (0.9, "3Gi", None),  # a small server: half of its memory
        (1.6, "3Gi", "4Gi"),
        (14.2, "24Gi", None),  # 7B
        (14.2, "22Gi", "23Gi"),
        (132.0, "140Gi", None),
        (140.0, "140Gi", "148Gi"),
    ],
)
def test_a_model_that_is_too_large_for_the_pods_memory_is_told(
    size: float, memory: str, least: str | None
) -> None:
    settings = load(readAhead=True, memory=memory, sharedMemory="1Gi")
    model = KnownModel(size=int(size * GIB))
    found = list(unfit(settings, model))
    if least is None:
        assert found == []
    else:
        [one] = found
        assert one.key == "modelcar:readAhead"
        assert f"{size:.1f} GiB" in one.value
        assert memory in one.value
        assert f"modelcar:memory to {least}" in one.fix
        fixed = settings.model_copy(update={"memory": least})
        assert list(unfit(fixed, model)) == [], "the fix is one"
    assert list(unfit(settings.model_copy(update={"read_ahead": False}), model)) == []
    assert list(unfit(settings, KnownModel())) == [], "of an image that somebody else built"


def test_models_that_share_a_runtime_say_the_same() -> None:
    shared = {"sharedRuntime": "vllm", "placement": "servingRuntime"}
    models: list[dict[str, Any]] = [{"name": "a", **shared, "readAhead": True}, {"name": "b", **shared}]
    with pytest.raises(Exception, match="readAhead differ"):
        load_listed(*models)
    models[1]["readAhead"] = True
    first, _ = load_listed(*models).models
    [box] = serving_runtime(first)["containers"]
    assert "modelcar_read_ahead" in box["command"][2]


def test_a_program_of_its_own_shares_a_runtime_that_reads_ahead() -> None:
    server = CustomServer(image="r/i@sha256:" + "0" * 64, command=("serve",), read_ahead=True)
    assert SharedRuntimeArgs(namespace="n", server=server).spec("shared").read_ahead
