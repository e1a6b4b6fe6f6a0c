"""A setting of a stack, or of one of its models, is changed in the stack's file, and nothing else is."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from local import __main__ as local_commands
from local import preview, stack
from local.__main__ import _deploy_settings
from local.setting import edited, idle_changes, place, write
from modelcar.errors import InputError
from tests.conftest import PROJECT

LISTED = {"models": [{"name": "chat"}, {"name": "code"}]}
IDLE = ("config", "modelcar:idle")
OF_CODE = ("config", "modelcar:models", 1, "rollbackTo")
DIGEST = "sha256:" + "1" * 64


def test_a_stack_with_one_model_has_its_settings_at_the_top() -> None:
    assert place({}, "idle", None) == IDLE
    assert place({"serviceName": "chat"}, "idle", "chat") == IDLE
    for settings in ({"serviceName": "chat"}, {"model": "chat"}, {"model": "models/chat/model.lock"}):
        with pytest.raises(InputError, match="chat, or nothing: the stack has one model"):
            place(settings, "idle", "code")


def test_a_model_of_several_has_its_own() -> None:
    assert place(LISTED, "rollbackTo", "code", of_one=True) == OF_CODE
    assert place(LISTED, "idle", None) == IDLE, "all of them"


def test_which_model_has_to_be_said_where_it_is_of_one() -> None:
    with pytest.raises(InputError, match=r"several models(?s:.*)chat, code(?s:.*)--model chat"):
        place(LISTED, "rollbackTo", None, of_one=True)
    with pytest.raises(InputError, match="poetry: the stack has no such model"):
        place(LISTED, "idle", "poetry")


def models(*idle: str) -> str:
    """Return a stack's file with a model each; idle: what its entry says of that."""
    lines = ["config:", "  modelcar:models:"]
    for number, said in enumerate(idle):
        lines += [f"  - name: m{number}", *([f"    idle: {said}"] if said else [])]
    return "\n".join([*lines, ""])


def set_idle(file: Path, model: str | None, *, idle: bool) -> list[bool]:
    """Change a stack's file as `make idle` and `make wake` do, and return which models are idle then."""

    def settings() -> dict[str, Any]:
        config = yaml.safe_load(file.read_text())["config"]
        return {key.removeprefix("modelcar:"): value for key, value in config.items()}

    write(file, idle_changes(settings(), model, idle=idle))
    found = settings()
    return [entry.get("idle", found.get("idle", False)) for entry in found["models"]]


@pytest.mark.parametrize("entries", [("", ""), ("true", ""), ("false", ""), ("true", "false")])
@pytest.mark.parametrize("stack_says", ["", "true", "false"])
def test_all_models_are_idle_or_serve_whatever_was_said_of_one(
    tmp_path: Path, entries: tuple[str, ...], stack_says: str
) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(models(*entries) + (stack_says and f"  modelcar:idle: {stack_says}\n"))
    before = file.read_text()
    assert set_idle(file, None, idle=True) == [True, True]
    assert set_idle(file, None, idle=False) == [False, False]
    assert file.read_text() == models("", ""), "nothing is left of it"
    for model, other in ((0, 1), (1, 0)):
        for idle in (True, False):
            file.write_text(before)
            found = set_idle(file, f"m{model}", idle=idle)
            assert found[model] is idle
            assert found[other] is ((entries[other] or stack_says) == "true"), "the other one stays"


def test_one_of_several_wakes_alone_and_goes_back_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(models("", "") + "  modelcar:idle: true\n")
    before = file.read_text()
    assert set_idle(file, "m1", idle=False) == [True, False]
    assert set_idle(file, "m1", idle=True) == [True, True]
    assert file.read_text() == before


#: What a stack's file may look like.
TEXTS = {
    "comments": "# head\nconfig:\n  modelcar:gpuCount: 0  # none\n  modelcar:memory: '1Gi'\n  # foot\n",
    "salt below": 'config:\n  modelcar:quantity: "0"\n\nencryptionsalt: v1:x=:v1:y:z==\n',
    "no end of line": "config:\n  modelcar:gpuCount: 0",
    "windows": "config:\r\n  modelcar:gpuCount: 0\r\n  # foot\r\n",
    "deeper": "config:\n      modelcar:google:\n          project: x   # mine\n\n# foot\n",
    "list last": "config:\n  modelcar:serverArguments:\n  - --a\n  - --b\n",
    "block last": "config:\n  modelcar:text: |+\n    one\n\nencryptionsalt: x\n",
    "flow": "config: {modelcar:gpuCount: 0, modelcar:memory: '1Gi'}  # all of it\n",
    "empty flow": "config: {}\n",
    "no settings": "encryptionsalt: x\n",
    "nothing": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_is_set_goes_again_byte_for_byte(text: str) -> None:
    idle = edited(text, IDLE, True)
    before, after = yaml.safe_load(text) or {}, yaml.safe_load(idle)
    assert after["config"] == {**before.get("config", {}), "modelcar:idle": True}
    same = next((n for n, (a, b) in enumerate(zip(text, idle, strict=False)) if a != b), len(text))
    assert idle.endswith(text[same:]), "something was put in, and nothing else is changed"
    assert edited(idle, IDLE, None) == text
    assert edited(edited(idle, IDLE, False), IDLE, None) == text, "nor does a second change leave anything"


@pytest.mark.parametrize("name", ["local", "dev", "prod"])
def test_the_committed_files_stay_as_they_are(name: str) -> None:
    text = (PROJECT / f"Pulumi.{name}.yaml").read_text()
    idle = edited(text, IDLE, True)
    assert [line for line in idle.splitlines() if line not in text.splitlines()] == ["  modelcar:idle: true"]
    assert edited(idle, IDLE, None) == text


@pytest.mark.parametrize(
    "text",
    [
        "config:\n  modelcar:models:\n    - name: chat\n    - name: code  # mine\n      cpu: 0\n  x:y: 1\n",
        "config:\n  modelcar:models:\n  - name: chat\n  - name: code\n",
        "config:\n  modelcar:models: [{name: chat}, {name: code, gpuCount: 0}]\n",
    ],
)
def test_one_model_of_several_is_changed(text: str) -> None:
    back = edited(text, OF_CODE, DIGEST)
    models = yaml.safe_load(back)["config"]["modelcar:models"]
    assert [model.get("rollbackTo") for model in models] == [None, DIGEST]
    assert edited(back, OF_CODE, None) == text


def test_a_value_that_is_there_is_replaced_where_it_stands() -> None:
    text = "config:\n  modelcar:idle: false  # for now\n  modelcar:gpuCount: 0\n"
    assert edited(text, IDLE, True) == text.replace("false", "true")
    assert edited("config:\n  modelcar:idle:\n", IDLE, True) == "config:\n  modelcar:idle: true\n"


def test_what_cannot_be_changed_alone_is_told_and_left(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    text = "config:\n  modelcar:models: [&one {name: chat}, *one]\n"
    file.write_text(text)
    with pytest.raises(InputError, match=r"Pulumi\.dev\.yaml(?s:.*)edit it by hand \(rollbackTo: sha256:1"):
        write(file, [(OF_CODE, DIGEST)])
    assert file.read_text() == text


def test_nothing_is_written_where_nothing_can_be_deployed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text("config:\n  modelcar:gpuCount: 0\n")
    commands: list[str] = []

    def no_such_stack(*arguments: Any, **_: Any) -> int:
        commands.append(arguments[3][0])
        return 255

    monkeypatch.setattr(preview, "on_backend", no_such_stack)
    monkeypatch.setattr(stack, "config_file", lambda _: file)
    machine: Any = None  # the backend is asked by what takes its place here
    assert _deploy_settings(machine, machine, "dev", [(IDLE, True)]) == 255
    assert commands == ["stack"]
    assert file.read_text() == "config:\n  modelcar:gpuCount: 0\n"


@pytest.mark.parametrize(("delivery", "asked"), [("cluster", True), ("gitops", False)])
def test_what_is_not_seen_at_the_end_does_not_fail_what_was_deployed(
    delivery: str, asked: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[Any] = []

    def forbidden(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(local_commands, "_stack_tools", lambda _: None)
    monkeypatch.setattr(local_commands, "_deploy_settings", lambda *_: 0)
    monkeypatch.setattr(local_commands, "run_to_end", forbidden)
    monkeypatch.setattr(stack, "process_environment", lambda *_: {})
    monkeypatch.setattr("local.up.stack_settings", lambda _: {**LISTED, "delivery": delivery})
    machine: Any = None  # nothing is deployed here
    arguments = argparse.Namespace(stack="dev", arguments=[])
    assert local_commands._wake(machine, arguments) == 0
    assert [command[1:] for command in commands] == (
        [["-m", "operations", "nodes", "--stack", "dev"]] if asked else []
    )
    said = capsys.readouterr()
    assert ("were not seen" if asked else "synchronise in Argo CD") in said.out + said.err
