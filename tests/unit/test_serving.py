"""What a stack is served on: found, chosen and said before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import loading as stack_settings
from components.config import settings as settings_settings
from local import doctor, platform, serving, up
from local.gpu import Card, Gpus
from local.instance import PROJECT, Instance
from local.servers import ServerEnvironment, choice
from local.tools import Toolbox
from modelcar.errors import InputError
from tests.unit.nvidia_machine import H100, Machine, machine

__all__ = ["machine"]

WHOLE = f"{H100}, 81559, 81079, 9.0, Disabled"


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """A machine with room for every server, whose only open question is its cards."""
    monkeypatch.setattr(choice, "_short", lambda *_: [])
    monkeypatch.setattr(choice, "vllm_obstacles", lambda: [])
    monkeypatch.setattr(choice, "cuda_obstacles", lambda gpus: [] if gpus.driver > "580" else ["old driver"])
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("MODELCAR_SERVER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def refused(settings: dict[str, Any]) -> Any:
    with pytest.raises(InputError) as caught:
        serving.decide(settings)
    [problem] = caught.value.problems
    return problem


def test_a_card_serves(machine: Machine) -> None:
    machine.cards(WHOLE)
    chosen = serving.decide({})
    assert chosen.kind == "vllm-cuda"
    assert chosen.gpus
    assert H100 in chosen.reason
    assert "driver 580.159.04, CUDA 13.0" in chosen.reason


def test_without_a_card_the_cpu_serves(machine: Machine) -> None:
    chosen = serving.decide({})
    assert (chosen.kind, chosen.gpus) == ("vllm", None)


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_the_cpu_may_be_asked_for(machine: Machine, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    machine.cards(WHOLE)
    monkeypatch.setenv("MODELCAR_SERVER", kind)
    chosen = serving.decide({})
    assert (chosen.kind, chosen.gpus) == (kind, None)


@pytest.mark.parametrize("count", [0, "0"])
def test_a_stack_that_wants_no_gpu_gets_none(machine: Machine, count: Any) -> None:
    machine.cards(WHOLE)
    chosen = serving.decide({"gpuCount": count})
    assert (chosen.kind, chosen.gpus) == ("vllm", None)
    assert "modelcar:gpuCount is 0" in chosen.reason


def test_a_driver_that_is_too_old_is_told_and_the_cpu_serves(machine: Machine) -> None:
    machine.cards(WHOLE, driver="535.183.01")
    chosen = serving.decide({})
    assert chosen.kind == "vllm"
    assert chosen.reason.startswith("on the CPU, not on the GPU: old driver")


def test_two_gpus_asked_of_one_are_refused(machine: Machine) -> None:
    machine.cards(WHOLE)
    problem = refused({"gpuCount": 2})
    assert problem.key == "modelcar:gpuCount"
    assert problem.value.startswith("2, and this machine has 1 GPU (NVIDIA H100")
    assert problem.allowed.startswith("at most 1")
    assert problem.fix == "set it to 1 in Pulumi.local.yaml"


def test_two_gpus_of_two_serve_one_model(machine: Machine) -> None:
    machine.cards(WHOLE, WHOLE)
    assert serving.decide({"gpuCount": 2}).gpus


def test_two_gpus_of_which_one_is_hidden_are_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.cards(WHOLE, WHOLE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "this machine has 1 GPU" in refused({"gpuCount": 2}).value


def test_a_gpu_asked_of_a_machine_without_one_is_refused(machine: Machine) -> None:
    assert refused({"gpuCount": 1}).value.endswith("no NVIDIA card")
    machine.plug()
    problem = refused({"gpuCount": 1})
    assert "has no driver" in problem.value
    assert "install NVIDIA's driver 580" in problem.fix


def test_hidden_cards_are_told_where_one_is_asked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.cards(WHOLE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert serving.decide({}).gpus is None
    assert "CUDA_VISIBLE_DEVICES='-1' hides it" in refused({"gpuCount": 1}).value
    monkeypatch.setenv("MODELCAR_SERVER", "vllm-cuda")
    assert "CUDA_VISIBLE_DEVICES='-1' hides it" in refused({}).value


def test_a_gpu_beside_a_server_on_the_cpu_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.cards(WHOLE)
    monkeypatch.setenv("MODELCAR_SERVER", "transformers")
    assert refused({"gpuCount": 1}).key == "modelcar:gpuCount"


TWO = [{"name": "chat"}, {"name": "code"}]


def test_more_models_than_cards_are_served_on_the_cpu_with_the_reason(machine: Machine) -> None:
    machine.cards(WHOLE)
    chosen = serving.decide({"models": TWO})
    assert (chosen.kind, chosen.gpus) == ("vllm", None)
    assert chosen.reason.startswith("2 models take a GPU each, and this machine has 1 GPU; ")


def test_more_models_than_cards_are_refused_where_gpus_are_asked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.cards(WHOLE)
    assert refused({"models": TWO, "gpuCount": 1}).value.startswith("2 of 2 models, and this machine has 1")
    monkeypatch.setenv("MODELCAR_SERVER", "vllm-cuda")
    assert "modelcar:idle" in refused({"models": TWO}).fix


def test_an_idle_model_takes_no_card(machine: Machine) -> None:
    machine.cards(WHOLE)
    assert serving.decide({"models": [TWO[0], {**TWO[1], "idle": True}]}).gpus
    assert serving.decide({"models": TWO, "idle": "true"}).gpus


@pytest.mark.parametrize("wrong", ["many", None, [1]])
def test_a_wrong_count_is_left_to_the_programs_checks(machine: Machine, wrong: Any) -> None:
    machine.cards(WHOLE)
    assert serving.decide({"gpuCount": wrong}).gpus


# --- a card that another process fills --------------------------------------------------------------


def warnings(machine: Machine, free: int, **settings: Any) -> list[tuple[str, str]]:
    machine.cards(f"{H100}, 81559, {free}, 9.0, Disabled")
    gpus = serving.decide(settings).gpus
    assert gpus
    return list(serving.full_cards(gpus, settings))


def test_a_full_card_is_told_with_figures_and_a_share_that_fits(machine: Machine) -> None:
    [(said, fix)] = warnings(machine, 40960)
    assert "40.0 of 79.6 GiB are free, and vLLM takes 73.3 GiB at its start (92%)" in said
    assert fix.endswith("set modelcar:vllm.gpuMemoryUtilization to 0.48 in the stack's file")


def test_a_share_that_fits_is_no_warning(machine: Machine) -> None:
    assert not warnings(machine, 81079)
    assert not warnings(machine, 40960, vllm={"gpuMemoryUtilization": "0.48"})
    assert not warnings(machine, 40960, serverArgs=["--gpu-memory-utilization=0.4"])
    assert warnings(machine, 40960, vllm={"maxModelLen": 8})


def test_no_share_of_nothing_is_proposed(machine: Machine) -> None:
    [(_, fix)] = warnings(machine, 100)
    assert fix == "end what holds the memory (nvidia-smi lists it)"


# --- what `make up` does with it --------------------------------------------------------------------


def test_make_up_says_card_driver_cuda_and_choice(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.cards(f"{H100}, 81559, 40960, 9.0, Disabled")
    assert up.choose_gpus(Instance("x", 63, tmp_path), {})
    said = capsys.readouterr().out
    assert f"GPU: {H100} (80 GiB), driver 580.159.04, CUDA 13.0" in said
    assert "model server: vllm-cuda (vLLM 0.23.0 on" in said
    assert "WARNING: card 0" in said


def test_make_up_says_why_a_card_does_not_serve(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.plug()
    assert up.choose_gpus(Instance("x", 63, tmp_path), {}) is None
    assert "NOTE: GPU: the card 10de:2330 at 0000:00:06.0 has no driver" in capsys.readouterr().out
    machine.cards(WHOLE, driver="535.183.01")
    assert up.choose_gpus(Instance("x", 63, tmp_path), {}) is None
    assert "NOTE: served without the GPU: on the CPU, not on the GPU: old driver" in capsys.readouterr().out


def test_make_up_says_nothing_new_on_a_machine_without_a_card(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up.choose_gpus(Instance("x", 63, tmp_path), {}) is None
    assert capsys.readouterr().out == ""


def offered(kind: str) -> dict[str, Any]:
    server = ServerEnvironment(
        kind, Path("/e/bin/python3"), ["/e/bin/python3"], [], {"A": "b"}, ["/e"], "16Gi"
    )
    return up.platform_settings(Instance("x", 63, Path("/s")), server, f"sha256:{'0' * 64}", 8)


def local_stack(platform_file: Path) -> settings_settings.Settings:
    """Load the local stack as it is committed, with a platform's file."""
    config = yaml.safe_load((PROJECT / "Pulumi.local.yaml").read_text())["config"]
    declared = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
    texts = {key: str(row["default"]) for key, row in declared.items() if row["default"] != ""}
    texts |= {key: str(value) for key, value in config.items()}
    texts["modelcar:platformFile"] = str(platform_file)
    return stack_settings.load(texts, PROJECT)


@pytest.mark.parametrize(
    ("kind", "gpus", "cpu"), [("vllm-cuda", 1, "1"), ("vllm", 0, "100m"), ("transformers", 0, "100m")]
)
def test_the_committed_local_stack_takes_its_gpus_from_the_platform(
    tmp_path: Path, kind: str, gpus: int, cpu: str
) -> None:
    (tmp_path / "platform.json").write_text(json.dumps(offered(kind)))
    settings = local_stack(tmp_path / "platform.json")
    assert (settings.gpu_count, settings.cpu, settings.memory) == (gpus, cpu, "16Gi")
    assert settings.server_host_paths == ("/e",)


def gpus(*names: str) -> Gpus:
    cards = (
        Card(n, "Card", f"GPU-{name}", 1, 1, (9, 0), Path(f"/dev/nvidia{n}")) for n, name in enumerate(names)
    )
    return Gpus(tuple(cards), "580.65.06", "13.0", None)


@pytest.mark.parametrize(
    ("before", "after", "starts_again"),
    [
        (None, gpus("a"), True),
        (gpus("a"), None, True),
        (gpus("a"), gpus("a", "b"), True),
        (gpus("a"), gpus("a"), False),
        (None, None, False),
    ],
)
def test_a_platform_that_runs_with_other_cards_is_started_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: Gpus | None,
    after: Gpus | None,
    starts_again: bool,
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(platform, "supervisor", lambda _: object())
    monkeypatch.setattr(
        platform, "hands_out", lambda _: {card.uuid for card in before.cards} if before else set()
    )
    monkeypatch.setattr(platform, "down", lambda *_: done.append("down"))
    monkeypatch.setattr(platform, "up", lambda instance, tools, progress, gpus: done.append(gpus))
    up.start_platform(Instance("x", 63, tmp_path), Toolbox({}, "", tmp_path, None, (), True), after)
    assert done == (["down", after] if starts_again else [after])


# --- make doctor ------------------------------------------------------------------------------------


def doctor_lines(tmp_path: Path, **config: Any) -> dict[str, doctor.Line]:
    found = doctor.doctor(Instance("x", 63, tmp_path), "local", {"platformFile": "none.json", **config})
    return {line.part: line for line in found}


def test_doctor_shows_the_card_and_the_chosen_server(machine: Machine, tmp_path: Path) -> None:
    machine.cards(WHOLE)
    lines = doctor_lines(tmp_path)
    assert lines["GPU"] == doctor.Line("GPU", "ok", f"{H100} (80 GiB), driver 580.159.04, CUDA 13.0")
    assert lines["model server"].state == "ok"
    assert lines["model server"].found.startswith("vllm-cuda: vLLM 0.23.0 on NVIDIA H100")
    shown = doctor.document(list(lines.values()))
    assert {"part": "GPU", "state": "ok", "found": lines["GPU"].found, "fix": ""} in shown


def test_doctor_tells_what_keeps_a_card_from_serving(machine: Machine, tmp_path: Path) -> None:
    machine.plug()
    line = doctor_lines(tmp_path)["GPU"]
    assert (line.state, bool(line.fix)) == ("note", True)
    machine.cards(f"{H100}, 81559, 100, 9.0, Disabled", driver="535.183.01")
    assert doctor_lines(tmp_path)["model server"].state == "note"
    assert "old driver" in doctor_lines(tmp_path)["model server"].found
    machine.cards(f"{H100}, 81559, 100, 9.0, Disabled")
    assert "0.1 of 79.6 GiB are free" in doctor_lines(tmp_path)["GPU memory"].found


def test_doctor_tells_what_up_would_refuse(machine: Machine, tmp_path: Path) -> None:
    machine.cards(WHOLE)
    line = doctor_lines(tmp_path, gpuCount=2)["model server"]
    assert line.state == "missing"
    assert "2, and this machine has 1 GPU" in line.found
    assert line.fix


def test_doctor_looks_for_no_card_where_another_cluster_serves(machine: Machine, tmp_path: Path) -> None:
    machine.cards(WHOLE)
    assert "GPU" not in doctor_lines(tmp_path, registry="localhost:5001/models", kubeContext="kind")
