"""Tools: found, built once, and refused with the reason and the fix."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from local import debian, plugins, tools
from local.instance import KSERVE_VERSION
from modelcar.errors import InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    return tmp_path / "cache"


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


PULUMI = next(tool for tool in tools.TOOLS if tool.name == "pulumi")
KUBELET = next(tool for tool in tools.TOOLS if tool.name == "kubelet")


def test_a_program_on_path_is_used(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(tmp_path / "bin", "pulumi", "exit 0")
    monkeypatch.setenv("PATH", str(own.parent))
    lines: list[str] = []
    assert tools._find_or_build(PULUMI, lines.append) == own
    assert lines == [], "nothing was built"


def test_a_tool_is_built_once_and_again_when_its_pins_change(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    script = f'echo x >> {count}; while [ "$1" != -o ]; do shift; done; echo built > "$2"'
    program(tmp_path / "bin", "go", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(tools, "BUILD_DISK_BYTES", 0)
    lines: list[str] = []
    first = tools._find_or_build(KUBELET, lines.append)
    assert tools._find_or_build(KUBELET, lines.append) == first
    assert count.read_text().count("x") == 1
    assert [line.split()[0] for line in lines] == ["building", "built"]
    stamp = cache / "tools" / "stamps" / "kubelet"
    stamp.write_text("other pins")
    tools._find_or_build(KUBELET, lines.append)
    assert count.read_text().count("x") == 2


def test_without_go_the_error_names_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"(?s)go: not on PATH.*Go 1\.26 or newer.*install Go"):
        tools._find_or_build(KUBELET, print)


def test_a_full_disk_is_refused_with_both_figures(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "go", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(tools, "BUILD_DISK_BYTES", 2**60)
    with pytest.raises(InputError, match=r"(?s)free disk at .*GiB.*allowed: 1073741824 GiB.*MODELCAR_CACHE"):
        tools._find_or_build(KUBELET, print)


def test_a_failed_build_shows_what_go_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "go", "echo 'proxy: no such module' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(tools, "BUILD_DISK_BYTES", 0)
    with pytest.raises(InputError, match="no such module"):
        tools._find_or_build(KUBELET, print)


def test_missing_debian_parts_are_named_with_the_command(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCAR_NO_INSTALL", "1")
    monkeypatch.setattr(debian, "find_debian", lambda program, root: None)
    expected = (
        r"(?s)etcd-server.*MODELCAR_NO_INSTALL.*apt-get install -y --no-install-recommends .*etcd-server"
    )
    with pytest.raises(InputError, match=expected):
        debian.debian_parts(tmp_path, print)


def test_only_missing_stand_ins_are_on_the_path(cache: Path) -> None:
    folder = plugins.standin_folder(["pulumi-language-python", "pulumi-resource-kubernetes"])
    assert {link.name for link in folder.iterdir()} == {
        "pulumi-language-python",
        "pulumi-resource-kubernetes",
    }
    assert all(os.access(link, os.X_OK) for link in folder.iterdir())
    plugins.standin_folder(["pulumi-language-python"])
    assert {link.name for link in folder.iterdir()} == {"pulumi-language-python"}


def test_an_official_plugin_keeps_its_stand_in_away(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulumi = program(tmp_path / "bin", "pulumi", "exit 1")
    program(tmp_path / "bin", "pulumi-language-python", "exit 0")
    home = tmp_path / "home"
    (home / "plugins" / f"resource-kubernetes-v{plugins.KUBERNETES_PLUGIN_VERSION}").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PULUMI_HOME", str(home))
    assert plugins.missing_plugins(pulumi, tools._which) == ()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", _unreachable)
    lone = program(tmp_path / "lone", "pulumi", "exit 1")
    assert plugins.missing_plugins(lone, tools._which, ("kubernetes", "gcp")) == (
        "pulumi-language-python",
        "pulumi-resource-kubernetes",
        "pulumi-resource-gcp",
    )


def test_a_stand_in_on_the_path_is_not_taken_for_the_official_program(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plugins.standin_folder(["pulumi-language-python"])
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("socket.getaddrinfo", _unreachable)
    lone = program(tmp_path / "lone", "pulumi", "exit 1")
    assert "pulumi-language-python" in plugins.missing_plugins(lone, tools._which)


def _unreachable(*_: object) -> None:
    raise OSError("no such host")


def test_an_ordinary_user_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InputError, match=r"(?s)uid 1000.*root on Linux.*sudo make up.*modelcar:kubeContext"):
        tools._require_linux_root()


def test_helm_and_actionlint_are_no_part_of_the_local_stack() -> None:
    def wanted(*, embedded: bool, extra: tuple[str, ...] = ()) -> set[str]:
        return {
            tool.name for tool in tools.TOOLS if tools._is_wanted(tool.name, embedded=embedded, extra=extra)
        }

    assert not wanted(embedded=True) & set(tools.ON_REQUEST)
    assert wanted(embedded=False) == set(tools.CLIENT_TOOLS)
    assert wanted(embedded=False, extra=("helm",)) == {*tools.CLIENT_TOOLS, "helm"}


def test_one_tool_is_found_by_name_and_its_path_printed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = program(tmp_path / "bin", "helm", "exit 0")
    monkeypatch.setenv("PATH", str(own.parent))
    assert tools.main(["helm"]) == 0
    assert capsys.readouterr().out == f"{own}\n"
    assert tools.main(["heml"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "tool: heml" in said.err
    assert "actionlint" in said.err


def test_a_cache_without_kserves_charts_is_completed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "module"
    for part in ("config", "charts"):
        (module / part).mkdir(parents=True)
        (module / part / "file").write_text("new")
    answer = f'echo \'{{"Dir": "{module}"}}\''
    program(tmp_path / "bin", "go", answer)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    kept = cache / "tools" / f"kserve-{KSERVE_VERSION}" / "config"
    kept.mkdir(parents=True)
    (kept / "file").write_text("old")
    lines: list[str] = []
    charts = tools.kserve_charts(lines.append)
    assert (charts / "file").read_text() == "new"
    assert (kept / "file").read_text() == "old"
    assert sorted(path.name for path in charts.parent.iterdir()) == ["charts", "config"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.kserve_charts(lines.append) == charts, "nothing is asked of Go any more"
    assert len(lines) == 1
