"""A stack's file with mistakes: told with file, line and fix; what needs none of it works all the same."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from local import __main__ as command
from local import own_cluster, serving, setting, stack_file, up
from local.instance import load
from modelcar.errors import InputError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local stack's file, and nothing of a platform's."""
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    found = tmp_path / "Pulumi.local.yaml"
    monkeypatch.setattr("local.stack.config_file", lambda *_: found)
    return found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("config:\n  modelcar:model: [a\n", "Pulumi.local.yaml:3: "),
        ("config:\n\tmodelcar:model: a\n", "Pulumi.local.yaml:2: "),
        ("config:\n  modelcar:model: a: b\n", "Pulumi.local.yaml:2: "),
        ("config:\n  modelcar:model: !!python/name:os.system\n", "Pulumi.local.yaml:2: "),
        ("config:\n  modelcar:model: 2026-99-99\n", "Pulumi.local.yaml: month must be"),
        ("- a\n", "Pulumi.local.yaml: a list"),
        ("text", "Pulumi.local.yaml: 'text', which is no mapping"),
        ("config: [a]\n", "Pulumi.local.yaml: config: a list"),
        ("config: {modelcar:model: \x00}\n", "Pulumi.local.yaml"),
    ],
)
@pytest.mark.parametrize("name", ["up", "doctor local", "env"])
def test_a_mistake_is_told_by_file_and_line(
    name: str,
    text: str,
    told: str,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file.write_text(text)
    monkeypatch.setattr("sys.argv", ["local", *name.split()])
    assert command.main() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert f"of it: {file}" in said or f"correct it: {file}" in said


@pytest.mark.parametrize("text", ["", "encryptionsalt: v1:x\n", "config:\n", "config:\n  modelcar:models:\n"])
def test_a_file_that_says_nothing_is_no_mistake(text: str, file: Path) -> None:
    file.write_text(text)
    assert up.file_settings() == {}


@pytest.mark.parametrize(
    "models", ["a", 5, ["a", {"name": "b"}], {"secure": "v1:x"}, [None], [["a"]], "[1", {"name": "a"}]
)
def test_models_of_a_wrong_shape_are_left_to_the_programs_checks(models: Any) -> None:
    settings = {"models": models}
    assert up.models_of(settings) == (["b"] if models == ["a", {"name": "b"}] else [])
    assert serving.wanted_gpus(settings).counts == (1,)
    assert up._setting(settings, "a", "idle") is None
    with pytest.raises(InputError, match="modelcar:models: a secret, or of another shape"):
        setting.place(settings, "idle", "a")


def test_models_can_be_json() -> None:
    assert up.models_of({"models": json.dumps([{"name": "a"}, {"name": "b", "image": "x"}])}) == ["a"]


@pytest.mark.parametrize("value", [5, {"secure": "v1:x"}, ["a"]])
@pytest.mark.parametrize("key", ["kubeContext", "kubeconfig", "registry"])
def test_a_cluster_of_the_users_is_named_in_plain_text(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"(?s)modelcar:{key}: .*fix: set it in Pulumi.local.yaml as plain"):
        own_cluster.is_chosen({"kubeContext": "a", "registry": "b", key: value})


@pytest.mark.parametrize("own", [False, True], ids=["embedded", "the user's cluster"])
def test_clean_works_beside_a_mistake(
    own: bool, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("config: [\n")
    for name in ("platform.down", "stack.stop_orphans"):
        monkeypatch.setattr(f"local.{name}", lambda *_: [])
    instance = load("local")
    instance.state.mkdir(parents=True)
    instance.settings_file.write_text(json.dumps({} if own else {"registry": instance.registry}))
    state = instance.state.parent / "pulumi/.pulumi/stacks/modelcar/local.json"
    state.parent.mkdir(parents=True)
    resource = {"type": "kubernetes:core/v1:Namespace"}
    state.write_text(json.dumps({"checkpoint": {"latest": {"resources": [resource]}}}))
    if own:  # the state alone knows what is there
        with pytest.raises(InputError, match="has 1 resources"):
            command._clean(instance, argparse.Namespace())
    else:
        assert command._clean(instance, argparse.Namespace()) == 0
        assert "NOTE: Pulumi.local.yaml:2: " in capsys.readouterr().out
    assert state.exists() is own
    assert stack_file.models_of({}) == []
