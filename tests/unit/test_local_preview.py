"""Which backend a stack of the user's is kept in: the one that he has chosen, by whatever means."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.config.loading import PLATFORM_FILE_VARIABLE
from local import __main__ as command
from local import preview, stack
from local.backend import PASSPHRASE, TOKEN, URL, chosen_backend
from local.instance import Instance
from local.tools import Toolbox
from modelcar.errors import InputError

LOGIN = "pulumi login"
#: Tells which backend and which passphrase Pulumi would use.
PULUMI = f"""#!{sys.executable}
import json, os, sys
names = ("{URL}", "{TOKEN}", "{PASSPHRASE}", "{PLATFORM_FILE_VARIABLE}", "BUILDX_CONFIG", "PWD")
print(json.dumps({{"arguments": sys.argv[1:], **{{name: os.environ.get(name) for name in names}}}}))
if "--show-name" in sys.argv and not os.environ.get("HAS_STACK"):
    sys.exit("error: no stack named 'dev' found")
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nobody has chosen a backend."""
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    for name in (URL, TOKEN, PASSPHRASE, "PULUMI_CREDENTIALS_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def tools(machine: Path) -> Toolbox:
    (machine / "pulumi").write_text(PULUMI)
    (machine / "pulumi").chmod(0o755)
    return Toolbox({"pulumi": machine / "pulumi"}, str(machine), Path(), embedded=False)


def own(machine: Path) -> str:
    return (machine / "state/pulumi").as_uri()


def log_in(machine: Path, url: str) -> None:
    (machine / "home").mkdir(exist_ok=True)
    (machine / "home/credentials.json").write_text(json.dumps({"current": url, "accounts": {url: {}}}))


@pytest.mark.parametrize(
    ("variables", "login", "chosen"),
    [
        ({}, "", []),
        # What `eval "$(python -m local env)"` puts into a shell: nobody's choice for other stacks.
        ({URL: "OWN"}, "", []),
        # What a workflow sets where the repository has no such variable.
        ({URL: "", TOKEN: ""}, "", []),
        ({URL: "gs://bucket"}, "", [URL]),
        ({TOKEN: "token"}, "", [TOKEN]),
        ({URL: "OWN", TOKEN: "token"}, "", [TOKEN]),
        ({}, "https://api.pulumi.com", [LOGIN]),
        ({URL: "OWN"}, "s3://bucket", [LOGIN]),
        ({}, "OWN", []),
    ],
)
def test_the_local_stacks_backend_is_no_choice(
    monkeypatch: pytest.MonkeyPatch, machine: Path, variables: dict[str, str], login: str, chosen: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, own(machine) if value == "OWN" else value)
    if login:
        log_in(machine, own(machine) if login == "OWN" else login)
    assert chosen_backend() == chosen


def test_a_damaged_file_of_logins_is_no_choice(machine: Path) -> None:
    (machine / "home").mkdir()
    for content in ("", "[]", "null", '{"current": null}', "\x00"):
        (machine / "home/credentials.json").write_text(content)
        assert chosen_backend() == []


def told(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize("by", [TOKEN, LOGIN])
@pytest.mark.parametrize("evaluated", [False, True], ids=["plain shell", "shell of the local stack"])
def test_a_stack_of_the_users_goes_to_his_backend(
    by: str,
    evaluated: bool,
    machine: Path,
    tools: Toolbox,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    instance = Instance("local", 0, machine / "state/local")
    if by == TOKEN:
        monkeypatch.setenv(TOKEN, "token")
    else:
        log_in(machine, "https://api.pulumi.com")
        monkeypatch.setenv("HAS_STACK", "1")
    if evaluated:
        monkeypatch.setenv(URL, own(machine))
        monkeypatch.setenv(PASSPHRASE, "")
    else:
        monkeypatch.setenv(PASSPHRASE, "mine")
    calls: dict[str, Callable[[], int]] = {
        "deploy": lambda: preview.on_backend(instance, tools, "dev", preview.DEPLOY),
        "preview": lambda: preview.preview(instance, tools, "dev", [], print),
        "pulumi": lambda: command._pulumi(instance, SimpleNamespace(arguments=["up", "--stack", "dev"])),  # type: ignore[arg-type]
    }
    monkeypatch.setattr(command, "collect", lambda *_, **__: tools)
    for name, call in calls.items():
        assert call() == 0
        found = told(capfd)
        assert found[URL] is None, name
        assert found[PASSPHRASE] == (None if evaluated else "mine"), name
    # The local stack stays where it is.
    found = stack.process_environment(instance, tools)
    assert (found[URL], found[PASSPHRASE]) == (own(machine), "")


@pytest.mark.parametrize("again", [False, True], ids=["first", "in that shell"])
def test_a_shell_of_the_local_stack_is_no_place_for_plain_pulumi_on_others(
    again: bool,
    machine: Path,
    tools: Toolbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if again:
        monkeypatch.setenv(URL, own(machine))
    monkeypatch.setattr(command, "collect", lambda *_, **__: tools)
    assert command._env(Instance("local", 0, machine / "state/local"), argparse.Namespace()) == 0
    said = capsys.readouterr()
    assert all(line.startswith("export ") for line in said.out.splitlines())
    assert str(machine / "state/pulumi") in said.err
    assert "`make clean` deletes" in said.err


def test_a_shell_with_a_backend_of_the_users_hears_nothing(
    machine: Path, tools: Toolbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL, "gs://bucket")
    monkeypatch.setattr(command, "collect", lambda *_, **__: tools)
    assert command._env(Instance("local", 0, machine / "state/local"), argparse.Namespace()) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["preview"], "local"),
        (["preview", "--stack", "dev"], "dev"),
        (["preview", "--stack=acme/modelcar/dev"], "dev"),
        (["-s", "dev", "preview"], "dev"),
        (["stack", "init", "dev"], "dev"),
        (["stack", "select", "--create", "dev"], "dev"),
        (["stack", "output", "storageUri"], "local"),
        (["preview", "--stack"], "local"),
    ],
)
def test_the_stack_that_pulumis_arguments_name(arguments: list[str], name: str) -> None:
    assert command._named(arguments) == name


def test_who_has_logged_in_for_something_else_sees_the_preview(
    machine: Path, tools: Toolbox, capfd: pytest.CaptureFixture[str]
) -> None:
    log_in(machine, "https://api.pulumi.com")
    said: list[str] = []
    instance = Instance("local", 0, machine / "state/local")
    assert preview.preview(instance, tools, "dev", [], said.append) == 0
    assert said == [
        "the backend of `pulumi login` has no stack dev: dev is previewed as a stack that has nothing yet"
    ]
    assert told(capfd)[URL] == (machine / "state/preview-dev/.state").as_uri()


@pytest.mark.parametrize("deployed", [True, False], ids=["deployed", "new"])
def test_the_local_stack_is_compared_with_its_own_state(
    deployed: bool,
    machine: Path,
    tools: Toolbox,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if deployed:
        state = machine / "state/pulumi/.pulumi/stacks/modelcar/local.json"
        state.parent.mkdir(parents=True)
        state.write_text("{}")
    monkeypatch.setattr(command, "collect", lambda *_, **__: tools)
    asked = SimpleNamespace(stack="local", arguments=[])
    assert command._preview(Instance("local", 0, machine / "state/local"), asked) == 0  # type: ignore[arg-type]
    found = told(capfd)
    scratch = (machine / "state/preview-local/.state").as_uri()
    assert found[URL] == (own(machine) if deployed else scratch)
    # In either folder the program finds the platform's file, and its builder.
    assert found[PLATFORM_FILE_VARIABLE] == str(machine / "state/local/platform.json")
    assert found["BUILDX_CONFIG"] == str(machine / "state/local/buildx")


@pytest.mark.parametrize("own_url", ["", "gs://bucket"])
def test_the_local_stacks_passphrase_is_the_one_of_its_salt(
    own_url: str, machine: Path, tools: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, own_url)
    monkeypatch.setenv(PASSPHRASE, "of other stacks")
    instance = Instance("local", 0, machine / "state/local")
    found = stack.process_environment(instance, tools)
    assert (found[URL], found[PASSPHRASE]) == (own_url or own(machine), "")
    if own_url:
        assert stack.process_environment(instance, tools, "dev")[PASSPHRASE] == "of other stacks"


HALF = {"kubeContext": "mine"}


@pytest.fixture
def half_set(machine: Path, tools: Toolbox, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """An ordinary user's stack that names a cluster and no registry; which tools are asked for."""
    asked: list[dict[str, Any]] = []

    def collected(*_: Any, **options: Any) -> Toolbox:
        asked.append(options)
        return tools

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("local.up.stack_settings", lambda *_: HALF)
    monkeypatch.setattr(command, "collect", collected)
    return asked


def test_settings_can_be_put_right_by_any_user(
    machine: Path, half_set: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    instance = Instance("local", 0, machine / "state/local")
    setting = ["config", "set", "--stack", "local", "modelcar:registry", "localhost:5001/models"]
    assert command._env(instance, argparse.Namespace()) == 0
    assert command._pulumi(instance, SimpleNamespace(arguments=setting)) == 0  # type: ignore[arg-type]
    assert told(capfd)["arguments"] == setting
    assert [options["embedded"] for options in half_set] == [False, False], "which takes no root"


@pytest.mark.parametrize("name", ["up", "preview", "destroy"])
def test_nothing_is_deployed_with_half_of_a_cluster(
    name: str, machine: Path, half_set: list[dict[str, Any]]
) -> None:
    asked = SimpleNamespace(arguments=[name, "--stack", "local"])
    with pytest.raises(InputError, match="modelcar:registry: not set"):
        command._pulumi(Instance("local", 0, machine / "state/local"), asked)  # type: ignore[arg-type]
    assert half_set == []
