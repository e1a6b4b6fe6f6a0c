"""`make clean` removes what a platform wrote, and nothing else that lies where MODELCAR_STATE points."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from local import __main__ as command
from local import kind, platform, preview, slots, stack, state_folder
from local.instance import PROJECT, Instance, cache_root, load, state_root
from modelcar.errors import InputError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "s"))
    monkeypatch.setattr(slots, "CLAIMS", tmp_path / "claims")
    monkeypatch.setattr(platform, "clean_leftovers", lambda *_: None)
    monkeypatch.setattr(stack, "stop_orphans", lambda _: [])
    return tmp_path / "s"


def clean(root: Path) -> int:
    return command._clean(Instance("local", 0, root / "local"), argparse.Namespace())


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MODELCAR_STATE", "MODELCAR_CACHE"):
        monkeypatch.setenv(variable, "")
    assert (state_root(), cache_root()) == (PROJECT / ".local", PROJECT / ".cache")


@pytest.mark.parametrize("folder", [PROJECT, PROJECT.parent, Path("/")])
def test_the_project_and_what_holds_it_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_STATE", str(folder))
    with pytest.raises(InputError, match=r"(?s)MODELCAR_STATE: .* this project\n.*own.*fix: unset"):
        load("local")


def test_folders_of_other_people_stay(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("local/letter.txt", "pulumi/program.py", "coldstart/notes.txt"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("mine")
    assert clean(root) == 0
    assert len([path for path in root.rglob("*") if path.suffix in {".txt", ".py"}]) == 3
    said = capsys.readouterr().out
    assert f"left {root / 'local'} alone" in said
    assert f"removed {root / 'local'}" not in said


@pytest.mark.parametrize("mark", [state_folder.MARK, *state_folder.FORMER_MARKS])
def test_what_a_platform_wrote_goes(mark: str, root: Path) -> None:
    (root / "local" / "etcd").mkdir(parents=True)
    (root / "pulumi" / ".pulumi").mkdir(parents=True)
    (root / "local" / mark).write_text("0" if mark == "slot" else "")
    if mark == "kind.json":  # its containers are looked for
        (root / "local" / mark).rename(root / "local" / "slot")
    assert clean(root) == 0
    assert not (root / "local").exists()
    assert not (root / "pulumi").exists()


def test_a_folder_of_other_people_is_not_filled(root: Path) -> None:
    (root / "local").mkdir(parents=True)
    (root / "local" / "letter.txt").touch()
    with pytest.raises(InputError, match=r"(?s)MODELCAR_STATE: .*local holds files.*fix: set MODELCAR_STATE"):
        state_folder.make(root / "local")
    made = kind.Kind(str(root / "local"), "n", "1", "k", "r", "b")
    with pytest.raises(InputError, match="holds files"):
        made.write()
    assert [path.name for path in (root / "local").iterdir()] == ["letter.txt"]


def test_a_scratch_project_replaces_only_its_like(root: Path) -> None:
    folder = preview.scratch_project("rehearsal")
    (folder / "old").touch()
    assert not (preview.scratch_project("rehearsal") / "old").exists()
    (root / "preview-dev").mkdir()
    (root / "preview-dev" / "letter.txt").touch()
    with pytest.raises(InputError, match="holds files of somebody else's"):
        preview.scratch_project("preview-dev")
    assert (root / "preview-dev" / "letter.txt").exists()


def test_what_clients_wrote_before_there_was_a_platform_is_no_hindrance(root: Path) -> None:
    (root / "local" / "buildx").mkdir(parents=True)
    state_folder.make(root / "local")
    assert state_folder.remove(root / "local")
    assert not (root / "local").exists()


def test_a_platform_that_was_started_meanwhile_keeps_its_data(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state_folder.make(root / "local")
    monkeypatch.setattr(platform, "down", lambda *_: None)
    monkeypatch.setattr(command, "_runs", lambda _: True)
    assert clean(root) == 1
    assert (root / "local").exists()
    assert "has started the platform meanwhile" in capsys.readouterr().out
