"""Deprecated settings: a user hears of them a release before, and they go in the release that was named."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pydantic import BaseModel

from components.config import deprecations
from components.config.deprecations import Deprecation, in_arguments, in_settings, page, removed, warning
from components.config.reference import MODULES
from components.engine import told_once
from components.kserve.server import ServerResources
from components.stack import configuration
from local import doctor
from modelcar.errors import InputError
from modelcar.version import semver, version
from tests import released_settings
from tests.unit.test_components_settings import MINIMAL

PROJECT = Path(__file__).parents[2]
CPU = Deprecation("modelcar:cpu", "0.3.0", "0.4.0", "set modelcar:memory alone")
NESTED = Deprecation("modelcar:vllm.loadFormat", "0.3.0", "0.5.0", "leave it out")
ARGUMENT = Deprecation("ServerResources.cpu_limit", "0.3.0", "0.4.0", "leave it out")


def release(text: str) -> tuple[int, ...]:
    """Return a version's numbers; a pre-release counts as the release that it becomes."""
    return tuple(int(part) for part in text.partition("-")[0].split("."))


def there(entry: Deprecation) -> bool:
    """Tell whether the program still takes what an entry names."""
    if entry.argument:
        owner, name = entry.argument
        classes = [made for made in argument_classes() if made.__name__ == owner]
        return any(name in names_of(made) for made in classes)
    return ".".join(entry.setting or ()) in released_settings.names()


def argument_classes() -> Iterator[type[Any]]:
    for module in map(importlib.import_module, (*MODULES, "components.kserve.server")):
        for _, made in inspect.getmembers(module, inspect.isclass):
            if dataclasses.is_dataclass(made) or issubclass(made, BaseModel):
                yield made


def names_of(made: type[Any]) -> set[str]:
    if issubclass(made, BaseModel):
        return set(made.model_fields)
    return {field.name for field in dataclasses.fields(made)}


def lost(released: Sequence[str], table: Sequence[Deprecation], now: str) -> list[str]:
    """Return the settings of a release that are gone, and were not to go by now."""
    gone = {entry.name for entry in table if release(now) >= release(entry.removed)}
    return [
        name for name in released if name not in released_settings.names() and f"modelcar:{name}" not in gone
    ]


def faults(table: Sequence[Deprecation], now: str) -> Iterator[str]:
    """Yield what breaks the rule: announced at least one release before, removed in the release it names."""
    for entry in table:
        since, gone = release(entry.since), release(entry.removed)
        if since[:2] >= gone[:2]:
            yield f"{entry.name}: {entry.removed} is no minor release after {entry.since}"
        if since > release(now):
            yield f"{entry.name}: announced in {entry.since}, which is after {now}"
        if release(now) < gone and not there(entry):
            yield f"{entry.name}: removed before {entry.removed}"
        if release(now) >= gone and there(entry):
            yield f"{entry.name}: still there in {now}, and was to go in {entry.removed}"


def test_what_is_deprecated_goes_in_the_release_that_it_names() -> None:
    assert list(faults(deprecations.DEPRECATIONS, semver(version()))) == []


@pytest.mark.parametrize(
    ("entry", "now", "fault"),
    [
        (CPU, "0.3.0-dev.0", None),
        (CPU, "0.3.7", None),
        (CPU, "0.4.0-rc.1", "still there in 0.4.0-rc.1"),
        (CPU, "0.2.0", "announced in 0.3.0, which is after 0.2.0"),
        (NESTED, "0.4.0", None),
        (NESTED, "0.5.0", "still there in 0.5.0"),
        (ARGUMENT, "0.3.0", None),
        (ARGUMENT, "0.4.0", "still there"),
        (dataclasses.replace(CPU, name="modelcar:processors"), "0.3.0", "removed before 0.4.0"),
        (dataclasses.replace(CPU, name="modelcar:processors"), "0.4.0", None),
        (dataclasses.replace(NESTED, name="modelcar:vllm.format"), "0.4.0", "removed before 0.5.0"),
        (dataclasses.replace(ARGUMENT, name="ServerResources.cpus"), "0.3.0", "removed before 0.4.0"),
        (dataclasses.replace(CPU, removed="0.3.1"), "0.3.0", "no minor release after 0.3.0"),
    ],
)
def test_an_entry_that_breaks_the_rule_is_found(entry: Deprecation, now: str, fault: str | None) -> None:
    found = list(faults([entry], now))
    assert not found if fault is None else any(fault in line for line in found)


def test_no_setting_of_a_release_is_lost_without_a_word() -> None:
    for state in (PROJECT / "tests/fixtures/states").glob("*.json"):
        if "-" in state.stem or release(state.stem) < (0, 3, 0):
            continue  # what was no release; before 0.3.0 settings went without a word
        recorded = json.loads((released_settings.RELEASED / state.name).read_text())
        assert lost(recorded, deprecations.DEPRECATIONS, semver(version())) == [], state.stem


def test_a_setting_that_is_lost_is_found() -> None:
    gone = dataclasses.replace(CPU, name="modelcar:processors")
    released = ["cpu", "processors", "google.nodes.diskGb", "vllm.format"]
    assert lost(released, [], "0.4.0") == ["processors", "vllm.format"]
    assert lost(released, [gone], "0.3.2") == ["processors", "vllm.format"]
    assert lost(released, [gone], "0.4.0") == ["vllm.format"]


def test_a_components_own_code_warns_of_its_argument() -> None:
    for entry in deprecations.DEPRECATIONS:
        if entry.argument:
            classes = [made for made in argument_classes() if made.__name__ == entry.argument[0]]
            sources = [Path(inspect.getfile(made)).read_text() for made in classes]
            assert any("in_arguments(" in text for text in sources), f"{entry.name} is not announced"


def config(**more: Any) -> dict[str, str]:
    texts = {**MINIMAL, **more}
    return {
        f"modelcar:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in texts.items()
    }


def test_settings_are_named_with_their_place() -> None:
    models = [{"name": "a"}, {"name": "b", "cpu": "2", "vllm": {"loadFormat": "auto"}}]
    found = in_settings(config(cpu="4", models=models), [CPU, NESTED])
    assert [place for place, _ in found] == [
        "modelcar:cpu",
        "modelcar:models[1].cpu",
        "modelcar:models[1].vllm.loadFormat",
    ]
    assert list(in_settings(config(vllm={"dtype": "auto"}), [NESTED])) == []


def test_an_argument_that_is_given_is_told() -> None:
    said = "ServerResources.cpu_limit is deprecated since 0.3.0 and goes in 0.4.0: leave it out"
    assert list(in_arguments(ServerResources(cpu_limit="8"), [ARGUMENT])) == [said]
    assert list(in_arguments(ServerResources(), [ARGUMENT])) == []

    @dataclasses.dataclass
    class MadeArgs:
        names: list[str] = dataclasses.field(default_factory=list)

    entry = dataclasses.replace(ARGUMENT, name="MadeArgs.names")
    assert list(in_arguments(MadeArgs(["a"]), [entry])) == [warning("MadeArgs.names", entry)]
    assert list(in_arguments(MadeArgs(), [entry])) == []


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the program warns of, with a table that has an entry."""
    lines: list[str] = []
    monkeypatch.setattr(deprecations, "DEPRECATIONS", (CPU,))
    monkeypatch.setattr(told_once, "_told", set())
    monkeypatch.setattr(pulumi.log, "warn", lines.append)
    return lines


def test_the_program_warns_once_and_goes_on(warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi.runtime, "get_config_env", lambda: config(cpu="4"))
    for _ in range(2):
        assert configuration.from_pulumi(Path()).shared.cpu == "4"
    assert warned == [warning("modelcar:cpu", CPU)]
    assert warned[0].endswith("goes in 0.4.0: set modelcar:memory alone")


def test_the_doctor_says_it_too(warned: list[str]) -> None:
    found = {line.part: line for line in doctor._settings("other", {**MINIMAL, "cpu": "4"}, frozenset())[1]}
    assert found["settings"].state == "ok"
    line = found["settings: modelcar:cpu"]
    assert (line.state, line.fix) == ("note", CPU.instead)
    assert "0.4.0" in line.found


def test_a_key_that_is_gone_is_refused_with_what_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(CPU, name="modelcar:processors", instead="set modelcar:cpu")
    monkeypatch.setattr(deprecations, "DEPRECATIONS", (gone,))
    assert removed("processors") == gone
    monkeypatch.setattr(pulumi.runtime, "get_config_env", lambda: config(processors="4"))
    with pytest.raises(InputError) as refused:
        configuration.from_pulumi(Path())
    [problem] = refused.value.problems
    assert problem.value == "removed in 0.4.0"
    assert problem.fix == "set modelcar:cpu; then: pulumi config rm modelcar:processors"


def test_the_page_lists_them() -> None:
    assert page([CPU]).splitlines()[-1] == "| `modelcar:cpu` | 0.3.0 | 0.4.0 | set modelcar:memory alone |"
    assert "Nothing is deprecated" in page([])
