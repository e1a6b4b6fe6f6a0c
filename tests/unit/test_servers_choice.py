"""Which model server `make up` runs, and what it says about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import servers
from local.servers import choice
from modelcar.errors import InputError

GIB = 2**30
MUCH = 100 * GIB


def test_auto_takes_vllm_where_the_machine_has_room() -> None:
    kind, reason = servers.choose("auto", MUCH, MUCH, obstacles=())
    assert kind == "vllm"
    assert "vLLM 0.23.0" in reason


@pytest.mark.parametrize(
    ("memory", "disk", "said"),
    [
        (2 * GIB, MUCH, "4.0 GiB of free memory and 2.0 GiB is free"),
        (MUCH, 1 * GIB, "5.5 GiB of free disk and 1.0 GiB is free"),
    ],
)
def test_auto_falls_back_and_says_what_is_short(memory: int, disk: int, said: str) -> None:
    kind, reason = servers.choose("auto", memory, disk, obstacles=())
    assert kind == "transformers"
    assert said in reason


def test_auto_names_every_reason() -> None:
    _, reason = servers.choose("auto", 0, 0, obstacles=("no libnuma",))
    assert all(part in reason for part in ("no libnuma", "memory", "disk"))


def test_an_installed_vllm_stays_chosen_while_it_runs(tmp_path: Path) -> None:
    """Else the second `make up` would change the service, because the first one's pod holds memory."""
    folder = choice.environment_folder("vllm", tmp_path)
    folder.mkdir(parents=True)
    (folder / choice.MARKER).touch()
    assert servers.choose("auto", 3 * GIB, 0, cache=tmp_path, obstacles=())[0] == "vllm"
    assert servers.choose("auto", 1 * GIB, 0, cache=tmp_path, obstacles=())[0] == "transformers"


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_named_server_is_taken_even_where_auto_would_not(kind: str) -> None:
    assert servers.choose(kind, 0, 0, obstacles=()) == (kind, "MODELCAR_SERVER asks for it")


def test_vllm_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(InputError, match="libnuma") as caught:
        servers.choose("vllm", MUCH, MUCH, obstacles=("libnuma.so.1 is missing",))
    assert "MODELCAR_SERVER=transformers" in caught.value.problems[0].fix


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="MODELCAR_SERVER: 'vlm'") as caught:
        servers.choose("vlm", MUCH, MUCH)
    assert caught.value.problems[0].allowed == "one of vllm-cuda, vllm, transformers, auto"


def test_obstacles_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    monkeypatch.setattr("shutil.which", lambda name: None)
    kind, reason = servers.choose("auto", MUCH, MUCH)
    assert kind == "transformers"
    assert "riscv64" in reason
    assert "lscpu" in reason
