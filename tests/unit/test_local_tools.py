"""Tools: found, built once, and refused with the reason and the fix."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local import debian, kubernetes_provider, namespaces, plugins, room, tool_build, tool_list, tools, up
from local.downloads import catalogue
from local.instance import KSERVE_VERSION, PROJECT, Instance
from local.stack import environment
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


#: A `go` that tells nothing of itself.
NO_ANSWER = '[ "$1" != env ] || exit 1'
PULUMI = next(tool for tool in tool_list.TOOLS if tool.name == "pulumi")
KUBELET = next(tool for tool in tool_list.TOOLS if tool.name == "kubelet")


def test_a_program_on_path_is_used(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(tmp_path / "bin", "pulumi", "exit 0")
    monkeypatch.setenv("PATH", str(own.parent))
    lines: list[str] = []
    assert tool_build.find_or_build(PULUMI, lines.append) == own
    assert lines == [], "nothing was built"


def test_a_tool_is_built_once_and_again_when_its_pins_change(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    script = f'{NO_ANSWER}; echo x >> {count}; while [ "$1" != -o ]; do shift; done; echo built > "$2"'
    program(tmp_path / "bin", "go", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    lines: list[str] = []
    first = tool_build.find_or_build(KUBELET, lines.append)
    assert tool_build.find_or_build(KUBELET, lines.append) == first
    assert count.read_text().count("x") == 1
    assert [line.split()[0] for line in lines] == ["building", "built"]
    stamp = cache / "tools" / "stamps" / "kubelet"
    stamp.write_text("other pins")
    tool_build.find_or_build(KUBELET, lines.append)
    assert count.read_text().count("x") == 2


class Reader(io.StringIO):
    """Standard error, read by somebody who lets the build end when it has told how long it takes."""

    def __init__(self, told: Path) -> None:
        super().__init__()
        self._told = told

    def write(self, text: str) -> int:
        if "s of about" in text:
            self._told.touch()
        return super().write(text)


def test_a_build_tells_how_long_it_has_taken_and_may_take(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    wait = (
        f"{NO_ANSWER}; n=0; until [ -e {told} ]; do sleep 0.01; n=$((n+1)); [ $n -lt 3000 ] || exit 1; done"
    )
    program(
        tmp_path / "bin",
        "go",
        f'{wait}; while [ "$1" != -o ]; do shift; done; echo built > "$2"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr("modelcar.progress.EVERY", 0.01)
    monkeypatch.setattr("modelcar.progress.TICK", 0.01)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    errors = Reader(told)
    monkeypatch.setattr("sys.stderr", errors)
    tool_build.provide(KUBELET, lambda _: None)
    assert errors.getvalue().startswith(f"   building kubelet {KUBELET.version}: 0 s of about 24 s\n")


def test_without_go_the_error_names_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"(?s)go: not on PATH.*Go 1\.26\.6 or newer.*install Go"):
        tool_build.find_or_build(KUBELET, print)


def go_that_says(folder: Path, monkeypatch: pytest.MonkeyPatch, **said: str) -> None:
    """Put a `go` alone on PATH that says this of itself, and fails as an old one does."""
    env = json.dumps({"GOVERSION": "go1.26.6", "GOTOOLCHAIN": "auto", **said})
    build = "echo \"invalid go version '1.26.6': must match format 1.23\"; exit 1"
    program(folder / "bin", "go", f"if [ \"$1\" = env ]; then echo '{env}'; else {build}; fi")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}")


@pytest.mark.parametrize(
    ("version", "toolchain", "told"),
    [
        ("", "", "of a version before 1.16, too old.*fix: install Go 1.26.6"),
        ("go1.19.8", "", "go: go1.19.8, too old.*allowed: Go 1.26.6 or newer.*fix: install Go 1.26.6"),
        ("go1.24.4", "local", "GOTOOLCHAIN=local.*fix: export GOTOOLCHAIN=auto"),
        ("go1.26.5", "go1.26.5", "GOTOOLCHAIN=go1.26.5 .*fix: export GOTOOLCHAIN=auto"),
        ("go1.21.0", "auto", "exit status 1"),
        ("go1.26.6", "local", "exit status 1"),
    ],
)
def test_a_go_that_is_too_old_is_told_before_a_build(
    version: str, toolchain: str, told: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_that_says(tmp_path, monkeypatch, GOVERSION=version, GOTOOLCHAIN=toolchain)
    with pytest.raises(InputError, match=f"(?s){told}") as refused:
        tool_build.find_or_build(KUBELET, print)
    assert ("proxy" in str(refused.value)) == (told == "exit status 1")


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes that are free on the disk of each folder, by its name."""
    free: dict[str, int] = {}
    monkeypatch.setattr(room, "existing", lambda folder: Disk(folder, free))
    monkeypatch.setattr("local.room.shutil.disk_usage", lambda disk: disk)
    return free


class Disk:
    """A folder on a disk of its own."""

    def __init__(self, folder: Path, free: dict[str, int]) -> None:
        self.st_dev, self.free = folder.name, free[folder.name]

    def stat(self) -> Disk:
        return self


def test_a_full_disk_of_gos_caches_is_refused_with_both_figures(
    cache: Path, tmp_path: Path, disks: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_that_says(tmp_path, monkeypatch, GOCACHE=f"{tmp_path}/build", GOMODCACHE=f"{tmp_path}/mod")
    disks |= {"build": 100 * 2**30, "mod": 5 * 2**30, "tools": 100 * 2**30}
    told = r"(?s)free disk at \S*/mod: 5\.0 GiB.*allowed: 5\.5 GiB.*export GOMODCACHE=FOLDER$"
    with pytest.raises(InputError, match=told):
        tool_build.find_or_build(KUBELET, print)
    disks |= {"mod": 6 * 2**30, "tools": 2**30}
    with pytest.raises(InputError, match=r"(?s)free disk at \S*/tools.*export MODELCAR_CACHE=FOLDER"):
        tool_build.find_or_build(KUBELET, print)


def test_what_gos_caches_hold_already_is_not_asked_for_again(
    cache: Path, tmp_path: Path, disks: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_that_says(tmp_path, monkeypatch, GOCACHE=f"{tmp_path}/build", GOMODCACHE=f"{tmp_path}/mod")
    disks |= {"build": 100 * 2**30, "mod": 2 * 2**30, "tools": 100 * 2**30}
    monkeypatch.setattr(room, "size_of", lambda folder: 4 * 2**30)
    with pytest.raises(InputError, match="exit status 1"):
        tool_build.find_or_build(KUBELET, print)
    disks["mod"] = 2**29
    with pytest.raises(InputError, match=r"free disk at \S*/mod: 0\.5 GiB"):
        tool_build.find_or_build(KUBELET, print)


def test_a_build_that_fills_the_disk_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "go", "echo 'write /tmp/x: no space left on device'; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InputError, match="fix: free some disk"):
        tool_build.find_or_build(KUBELET, print)


def test_a_failed_build_shows_what_go_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "go", "echo 'proxy: no such module' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(InputError, match="no such module"):
        tool_build.find_or_build(KUBELET, print)


def test_two_checkouts_that_share_the_cache_build_a_tool_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(tool: tool_list.Tool, _: object) -> Path:
        time.sleep(0.2)  # the other one looks meanwhile
        built.append(tool.name)
        for path, text in ((tool.target, ""), (tool_build.stamp_of(tool), tool_build.fingerprint(tool))):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tool.target

    monkeypatch.setattr(tool_build, "_build", build)
    with ThreadPoolExecutor(2) as both:
        found = [both.submit(tool_build.provide, KUBELET, lambda _: None) for _ in range(2)]
        assert {each.result() for each in found} == {KUBELET.target}
    assert built == ["kubelet"]


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


def test_only_what_is_needed_of_ours_is_on_the_path(cache: Path, tmp_path: Path) -> None:
    provider = program(tmp_path / "built", plugins.KUBERNETES_PLUGIN, "exit 0")
    folder = plugins.plugin_folder(["pulumi-language-python"], {provider.name: provider})
    assert {link.name for link in folder.iterdir()} == {"pulumi-language-python", provider.name}
    assert all(os.access(link, os.X_OK) for link in folder.iterdir())
    assert (folder / provider.name).resolve() == provider
    other = plugins.plugin_folder(["pulumi-language-python"])
    assert {link.name for link in other.iterdir()} == {"pulumi-language-python"}
    assert (folder / provider.name).exists(), "a command that runs may have yet to start it"
    newer = program(tmp_path / "newer", provider.name, "exit 0")
    plugins.plugin_folder(["pulumi-language-python"], {provider.name: newer})
    assert (folder / provider.name).resolve() == newer
    assert list(plugins.plugin_folder([]).iterdir()) == []


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", _unreachable)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])


def installed(home: Path, *names: str) -> Path:
    for name in names:
        (home / "plugins" / f"resource-{name}-v{plugins.PLUGINS[name]}").mkdir(parents=True)
    return home


@pytest.mark.usefixtures("offline")
def test_an_official_plugin_keeps_ours_away(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulumi = program(tmp_path / "bin", "pulumi", "exit 1")
    program(tmp_path / "bin", "pulumi-language-python", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PULUMI_HOME", str(installed(tmp_path / "home", "kubernetes")))
    assert plugins.find_plugins(pulumi, tool_build.which).missing == ()
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    program(tmp_path / "bin", plugins.KUBERNETES_PLUGIN, "exit 0")
    assert plugins.find_plugins(pulumi, tool_build.which).missing == ()
    monkeypatch.setenv("PATH", str(tmp_path))
    lone = program(tmp_path / "lone", "pulumi", "exit 1")
    assert plugins.find_plugins(lone, tool_build.which, ("kubernetes", "gcp")).missing == (
        "pulumi-language-python",
        "pulumi-resource-kubernetes",
        "pulumi-resource-gcp",
    )


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(("status", "missing"), [(0, ()), (1, (plugins.KUBERNETES_PLUGIN,))])
def test_an_official_plugin_that_can_be_installed_is(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, missing: tuple[str, ...]
) -> None:
    asked = tmp_path / "asked"
    pulumi = program(tmp_path / "bin", "pulumi", f'echo "$@" > {asked}; exit {status}')
    program(tmp_path / "bin", "pulumi-language-python", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    found = plugins.find_plugins(pulumi, tool_build.which)
    assert found.missing == missing
    assert found.downloads == (not missing)
    assert asked.read_text() == f"plugin install resource kubernetes {plugins.KUBERNETES_PLUGIN_VERSION}\n"


@pytest.mark.usefixtures("offline")
def test_pulumi_does_not_try_to_download_what_it_cannot(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no stand-in serves: the kubernetes plugin is here, and the SDK of gcp is installed."""
    pulumi = program(tmp_path / "bin", "pulumi", "exit 1")
    program(tmp_path / "bin", "pulumi-language-python", "exit 0")
    program(tmp_path / "bin", plugins.KUBERNETES_PLUGIN, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "none"))
    found = plugins.find_plugins(pulumi, tool_build.which)
    assert (found.missing, found.downloads) == ((), False)
    tried = environment(Instance("local", 63, tmp_path), toolbox(downloads_plugins=found.downloads))
    assert tried["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    # Where everything is here, Pulumi tries nothing, and downloads what else a program of the user's needs.
    monkeypatch.setenv("PULUMI_HOME", str(installed(tmp_path / "home", "gcp")))
    found = plugins.find_plugins(pulumi, tool_build.which)
    assert (found.missing, found.downloads) == ((), True)
    left = environment(Instance("local", 63, tmp_path), toolbox(downloads_plugins=found.downloads))
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in left


def toolbox(**values: Any) -> tools.Toolbox:
    return tools.Toolbox({}, "", Path("/kserve"), **values)


def test_the_version_of_the_built_provider_is_said_once_and_not_by_each_command(tmp_path: Path) -> None:
    built = toolbox(built_plugins=(plugins.KUBERNETES_PLUGIN,))
    lines: list[str] = []
    up.tell_what_serves(built, lines.append)
    assert len(lines) == 1
    assert kubernetes_provider.VERSION in lines[0]
    assert plugins.KUBERNETES_PLUGIN_VERSION in lines[0]
    instance = Instance("local", 63, tmp_path)
    assert environment(instance, built)["PULUMI_DEV"] == "true"
    assert "PULUMI_DEV" not in environment(instance, toolbox()), "the official plugin's warnings are Pulumi's"


@pytest.fixture
def official(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Pulumi as its makers install it, on a PATH without uv."""
    for name in (*tool_list.CLIENT_TOOLS, "pulumi-language-python", plugins.KUBERNETES_PLUGIN):
        program(tmp_path / "bin", name, "exit 0")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{go(tmp_path)}:{tmp_path / 'bin'}")
    monkeypatch.delenv("UV", raising=False)
    return tmp_path / "bin"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("named", [True, False], ids=["by make", "by python -m local env"])
def test_pulumis_own_language_host_finds_the_uv_of_make(
    official: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    ours = program(cache / "uv/bin", "uv", "exit 0")
    if named:
        monkeypatch.setenv("UV", str(ours))
    found = tools.collect(print, embedded=False)
    assert found.standins == ()
    assert Path(shutil.which("uv", path=found.path) or "").resolve() == ours
    own = program(official, "uv", "exit 0")
    assert shutil.which("uv", path=tools.collect(print, embedded=False).path) == str(own)


@pytest.mark.usefixtures("offline", "official")
def test_out_of_a_bundle_pulumis_own_language_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", str(PROJECT / "local/bundle/no-uv"))
    with pytest.raises(InputError, match=r"(?s)uv: not on PATH.*out of a bundle take .* off PATH"):
        tools.collect(print, embedded=False)


@pytest.mark.usefixtures("offline")
def test_our_language_host_needs_no_uv(official: Path, cache: Path) -> None:
    program(cache / "uv/bin", "uv", "exit 0")
    (official / "pulumi-language-python").unlink()
    found = tools.collect(print, embedded=False)
    assert found.standins == ("pulumi-language-python",)
    assert not (Path(found.path.split(os.pathsep)[-1]) / "uv").exists()


PROVIDER = next(tool for tool in tool_list.TOOLS if tool.name == plugins.KUBERNETES_PLUGIN)


@pytest.mark.usefixtures("offline")
def test_the_real_kubernetes_provider_serves_where_the_official_plugin_cannot_be_had(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collected for a cluster of the user's own, with everything else on PATH."""
    for name in (*tool_list.CLIENT_TOOLS, "pulumi-language-python", "uv"):
        program(tmp_path / "bin", name, "exit 0")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{go(tmp_path)}:{tmp_path / 'bin'}:/usr/bin:/bin")
    found = tools.collect(print, embedded=False)
    assert (found.built_plugins, found.standins) == ((PROVIDER.name,), ())
    assert shutil.which(PROVIDER.name, path=found.path)
    # With the official one on PATH ours is not even found there any more.
    official = program(tmp_path / "bin", PROVIDER.name, "exit 0")
    found = tools.collect(print, embedded=False)
    assert (found.built_plugins, found.standins) == ((), ())
    assert shutil.which(PROVIDER.name, path=found.path) == str(official)


def test_the_provider_embeds_its_modules_files_with_its_version(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{go(tmp_path)}:/usr/bin:/bin")
    built = tool_build.find_or_build(PROVIDER, print)
    assert json.loads(built.read_text()) == {
        "main.go": True,
        "schema.json": {"name": "kubernetes", "version": kubernetes_provider.VERSION},
        "terraform-mapping.json": {"ä": 1},
    }


def go(folder: Path) -> Path:
    """Make a `go` that downloads a module, and builds what it would embed; return its folder."""
    module = folder / "module" / "cmd" / "pulumi-resource-kubernetes"
    module.mkdir(parents=True)
    (module / "schema.json").write_text('{\n  "name": "kubernetes"\n}')
    (module / "terraform-mapping.json").write_text('{"ä": 1}', encoding="utf-8")
    script = f"""#!{sys.executable}
import json, pathlib, sys
arguments = sys.argv[1:]
if arguments[:2] == ["mod", "download"]:
    print(json.dumps({{"Dir": "{folder / "module"}"}}))
    sys.exit()
def after(name):
    return pathlib.Path(arguments[arguments.index(name) + 1])
replaced = json.loads(after("-overlay").read_text())["Replace"] if "-overlay" in arguments else {{}}
read = lambda path: json.loads(pathlib.Path(path).read_text())
seen = {{pathlib.Path(name).name: read(path) for name, path in replaced.items()}}
seen["main.go"] = all((pathlib.Path(name).parent / "main.go").exists() for name in replaced)
after("-o").write_text(json.dumps(seen))
after("-o").chmod(0o755)
"""
    path = program(folder / "go", "go", "")
    path.write_text(script)
    return path.parent


def test_a_changed_source_of_the_provider_rebuilds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = tmp_path / "local" / "tools"
    shutil.copytree(tool_build._module_folder(PROVIDER.module), pins / PROVIDER.module)
    monkeypatch.setattr(tool_build, "PROJECT", tmp_path)
    seen = {tool_build.fingerprint(PROVIDER)}
    sources = sorted((pins / PROVIDER.module).rglob("*.*"))
    sources = [path for path in sources if path.is_file()]
    assert {"main.go", "go.mod", "go.sum", "types.go"} <= {path.name for path in sources}
    for source in sources:
        source.write_text(source.read_text() + "\n")
        seen.add(tool_build.fingerprint(PROVIDER))
    assert len(seen) == len(sources) + 1


@pytest.mark.usefixtures("offline")
def test_ours_on_the_path_is_not_taken_for_the_official_program(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell may have another checkout's environment."""
    other = program(tmp_path / "other" / "tools" / "plugins", plugins.KUBERNETES_PLUGIN, "exit 0")
    folder = plugins.plugin_folder(["pulumi-language-python"], {other.name: other})
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    lone = program(tmp_path / "lone", "pulumi", "exit 1")
    assert set(plugins.find_plugins(lone, tool_build.which).missing) == {
        "pulumi-language-python",
        other.name,
    }


def _unreachable(*_: object) -> None:
    raise OSError("no such host")


def test_an_ordinary_user_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InputError, match=r"(?s)uid 1000.*root.*sudo make up.*modelcar:kubeContext"):
        namespaces.require()


def test_another_system_is_sent_to_linux_and_gets_no_program_of_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(InputError, match=r"(?s)system: darwin.*allowed: Linux.*dev container") as caught:
        namespaces.require()
    assert "KIND" not in str(caught.value)
    assert catalogue.release_of("pulumi") is None


@pytest.mark.parametrize("status", [0, 1])
def test_a_container_without_privileges_is_told_before_anything_is_built(
    status: int, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "unshare", f"echo 'unshare failed: Operation not permitted' >&2; exit {status}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(tools, "debian_parts", lambda *_: pytest.fail("something is unpacked"))
    if status == 0:
        namespaces.require()
        return
    with pytest.raises(InputError, match=r"(?s)namespaces: .*not permitted.*fix: .*`--privileged`"):
        tools.collect(lambda _: None)


def test_helm_and_actionlint_are_no_part_of_the_local_stack() -> None:
    def wanted(*, embedded: bool, extra: tuple[str, ...] = ()) -> set[str]:
        return {
            tool.name
            for tool in tool_list.TOOLS
            if tools._is_wanted(tool.name, embedded=embedded, extra=extra)
        }

    assert not wanted(embedded=True) & set(tool_list.ON_REQUEST)
    assert wanted(embedded=False) == set(tool_list.CLIENT_TOOLS)
    assert wanted(embedded=False, extra=("helm",)) == {*tool_list.CLIENT_TOOLS, "helm"}


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


def test_the_oldest_go_is_what_the_pins_ask_for() -> None:
    """An older one would have to download a newer Go, or fail."""
    asked = [
        line.removeprefix("go ")
        for path in (PROJECT / "local" / "tools").glob("*/go.mod")
        for line in path.read_text().splitlines()
        if line.startswith("go ")
    ]
    assert max(tuple(map(int, version.split("."))) for version in asked) == tool_build.OLDEST_GO
