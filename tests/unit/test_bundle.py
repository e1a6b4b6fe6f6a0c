"""A bundle: packed the same each time, checked before anything is unpacked, unpacked once."""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from local import made_from, netfilter, tool_build, tool_list, tools
from local import platform as local_platform
from local.alone import alone
from local.bundle import archives, contents, libraries, manifest, pack, parts, target, unpack
from local.bundle.__main__ import main
from local.bundle.archives import Entry
from local.bundle.manifest import PYTHON, SERVER, TOOLS, Component, Manifest
from local.bundle.packages import read_freeze, read_lock, runtime, same_version, split_present
from local.downloads import obtain
from local.downloads.catalogue import architecture, release_of
from local.instance import KSERVE_VERSION, PROJECT, Instance, cache_root
from local.servers import environment as servers
from local.servers.choice import environment_folder
from modelcar.errors import InputError

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"lib/python{HERE}/site-packages"
KSERVE = f"kserve-{KSERVE_VERSION}"
#: It does not pack, so that the bundle has several parts.
PROGRAM = b"\x7fELF" + random.Random(1).randbytes(10_000)
FREEZE = "torch==2.11.0+cu130\nNumPy==2.5.2\n-e git+https://example.com/x#egg=x\nown @ file:///tmp/own\n"


@dataclass
class Bundle:
    """A small one, and the machine that it is unpacked on: a project folder and a cache of the test's own."""

    folder: Path
    project: Path
    cache: Path
    made: Manifest

    def unpack(self) -> list[str]:
        lines: list[str] = []
        unpack.unpack(self.folder, lines.append)
        return lines

    def change(self, **values: object) -> None:
        self.made = replace(self.made, **values)  # type: ignore[arg-type]
        manifest.write(self.made, self.folder)

    def refusal(self) -> str:
        """Return the error's words; nothing may have been unpacked before it."""
        with pytest.raises(InputError) as caught:
            self.unpack()
        assert not (self.project / ".venv").exists()
        assert not (self.cache / "tools").exists()
        assert not (self.cache / "servers").exists()
        return str(caught.value)


def written(path: Path, content: str | bytes, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def entries(folder: Path) -> dict[str, list[Entry]]:
    """Made-up files of each component: a package, tools, a server's package."""
    written(folder / "tools/bin/kubelet", PROGRAM, 0o755)
    for name in ("netfilter/debian/usr/sbin/ipset", *(f"{KSERVE}/{part}/a" for part in ("config", "charts"))):
        written(folder / "tools" / name, name)
    written(folder / "tools/debian/usr/bin/ip", "#!/bin/sh\necho ip\n", 0o755)
    written(folder / "tools/debian/usr/lib/libx.so.1.2", "library")
    link = folder / "tools/debian/usr/lib/libx.so.1"
    link.unlink(missing_ok=True)
    link.symlink_to("libx.so.1.2")
    written(folder / f"python/{SITE}/hello.py", "WORDS = 'out of a bundle'\n")
    written(folder / f"python/{SITE}/__pycache__/hello.pyc", "never packed")
    written(folder / f"server/{SITE}/engine.py", "READY = True\n")
    return {name: list(archives.entries(folder / name)) for name in (PYTHON, TOOLS, SERVER)}


def order(out: Path, **values: object) -> pack.Order:
    asked = pack.Order(out, HERE, f"{platform.machine()}-manylinux_2_28", "transformers", 4000)
    return replace(asked, **values)  # type: ignore[arg-type]


def made(out: Path, files: dict[str, list[Entry]], cache: Path, present: tuple[str, ...] = ()) -> Manifest:
    components = [
        Component(PYTHON, target.fingerprint(PYTHON), ()),
        Component(TOOLS, {**target.fingerprint(TOOLS)}, ()),
        Component(SERVER, target.fingerprint(SERVER, "transformers"), (), present),
    ]
    filled, cut = pack.write(order(out), components, files, cache, lambda _line: None)
    folder = environment_folder("transformers", cache).name
    told = ("1", "abcdef", platform.machine(), "2.17", HERE, "transformers", folder)
    found = Manifest(*told, cut, tuple(filled))
    manifest.write(found, out)
    return found


def run_finish(kind: str, variables: Mapping[str, str]) -> None:
    """As the project's own environment does it, in this process, without loading what the server loads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "_try", lambda *_: None)
        patch.setenv(target.PRESENT, variables.get(target.PRESENT, ""))
        servers.finish(kind, cache_root(), lambda _line: None)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    project, cache = tmp_path / "project", tmp_path / "cache"
    project.mkdir()
    monkeypatch.setattr(unpack, "PROJECT", project)
    monkeypatch.setenv("MODELCAR_CACHE", str(cache))
    monkeypatch.delenv(target.PRESENT, raising=False)
    monkeypatch.setattr(unpack, "_run_finish", run_finish)
    monkeypatch.setattr(unpack, "_built", lambda _component: ["kubelet"])
    folder = tmp_path / "bundle"
    return Bundle(folder, project, cache, made(folder, entries(tmp_path / "files"), tmp_path / "archives"))


def test_what_was_packed_is_unpacked_and_works(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(bundle.made.parts) > 1, "the test is about several parts"
    assert [part.size for part in bundle.made.parts[:-1]] == [4000] * (len(bundle.made.parts) - 1)
    bundle.unpack()
    python = bundle.project / ".venv/bin/python"
    said = subprocess.run([python, "-c", "import hello; print(hello.WORDS)"], capture_output=True, text=True)
    assert said.stdout == "out of a bundle\n"
    kubelet = bundle.cache / "tools/bin/kubelet"
    assert kubelet.read_bytes() == PROGRAM
    assert os.access(kubelet, os.X_OK)
    assert (bundle.cache / "tools/debian/usr/lib/libx.so.1").read_text() == "library"
    assert (bundle.cache / "tools/debian/usr/lib/libx.so.1").is_symlink()

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert tools.find_tool("kubelet", pytest.fail) == kubelet, "it counts as built: no Go is looked for"
    server = servers.ensure("transformers", bundle.cache, Path("/no/uv"), pytest.fail)
    assert subprocess.run([server.python, "-c", "import engine"]).returncode == 0
    assert (server.python.parent.parent / SITE / "__pycache__").is_dir(), "the pod cannot write bytecode"


def test_it_is_unpacked_once(bundle: Bundle) -> None:
    bundle.unpack()
    marker = bundle.project / ".venv/bundle.mk"
    before = marker.stat().st_mtime_ns
    for part in bundle.made.parts:
        (bundle.folder / part.name).unlink()
    assert bundle.unpack() == []
    assert marker.stat().st_mtime_ns == before, "make would start again"


def test_what_was_interrupted_is_unpacked_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(unpack, "_finish", killed)
    with pytest.raises(KeyboardInterrupt):
        bundle.unpack()
    assert not (bundle.project / ".venv/.locked").exists(), "make would take it for whole"
    monkeypatch.undo()
    monkeypatch.setattr(unpack, "PROJECT", bundle.project)
    monkeypatch.setenv("MODELCAR_CACHE", str(bundle.cache))
    monkeypatch.setattr(unpack, "_run_finish", run_finish)
    written(bundle.project / f".venv/{SITE}/half.py", "a former version's")
    bundle.unpack()
    assert (bundle.project / ".venv/.locked").exists()
    assert not (bundle.project / f".venv/{SITE}/half.py").exists()


@pytest.mark.parametrize(
    "name", ["bin/kubelet", "debian", "netfilter/debian", f"{KSERVE}/config", f"{KSERVE}/charts"]
)
def test_what_was_removed_of_the_tools_is_unpacked_again(bundle: Bundle, name: str) -> None:
    bundle.unpack()
    removed = bundle.cache / "tools" / name
    if removed.is_dir():
        shutil.rmtree(removed)
    else:
        removed.unlink()
    assert any("files unpacked" in line for line in bundle.unpack())
    assert removed.exists()


def test_a_tool_that_another_checkout_replaced_is_unpacked_again(bundle: Bundle) -> None:
    bundle.unpack()
    [kubelet] = [tool for tool in tool_list.TOOLS if tool.name == "kubelet"]
    kubelet.target.write_text("another version")
    tool_build.stamp_of(kubelet).write_text("of other pins")
    assert any("files unpacked" in line for line in bundle.unpack())
    assert kubelet.target.read_bytes() == PROGRAM
    assert tool_build.is_ready(kubelet)
    assert bundle.unpack() == []


def test_a_tool_that_was_downloaded_as_today_is_left_as_it_is(bundle: Bundle) -> None:
    bundle.unpack()
    [kubelet] = [tool for tool in tool_list.TOOLS if tool.name == "kubelet"]
    release = release_of("kubelet")
    assert release
    origin = obtain.Origin(release.address(kubelet.version, architecture()), "0", "maker's file", "0")
    tool_build.stamp_of(kubelet).write_text(origin.stamp())
    assert bundle.unpack() == []


def ready(bundle: Bundle) -> servers.ServerEnvironment:
    """Return the server as later commands of make take it, where a bundle is all that can be had."""
    return servers.ensure("transformers", bundle.cache, PROJECT / "local/bundle/no-uv", pytest.fail)


def without_parts(bundle: Bundle) -> None:
    for part in bundle.made.parts:
        (bundle.folder / part.name).unlink()


def test_after_an_update_of_python_the_server_is_made_ready_again_and_never_removed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.unpack()
    before = ready(bundle)
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.1")
    with pytest.raises(InputError, match=r"Python is .* 3\.99\.1") as caught:
        ready(bundle)
    assert caught.value.problems[0].fix.startswith("make up BUNDLE=FOLDER; ")
    assert (before.python.parent.parent / SITE / "engine.py").exists()
    without_parts(bundle)
    assert [line for line in bundle.unpack() if "made ready" in line], "nothing has to be unpacked for it"
    assert ready(bundle) == before
    assert bundle.unpack() == []


@pytest.mark.parametrize("place", [".venv", "cache/servers/transformers-5.23.0"])
def test_what_was_unpacked_for_a_python_elsewhere_is_unpacked_again(bundle: Bundle, place: str) -> None:
    bundle.unpack()
    folder = (bundle.project if place == ".venv" else bundle.cache.parent) / place
    (folder / "bin/python3").unlink()
    (folder / "bin/python3").symlink_to("/bin/sh")
    assert any("files unpacked" in line for line in bundle.unpack())
    assert (folder / "bin/python3").resolve() == made_from.base_python()
    ready(bundle)


def test_a_server_that_the_bundle_lacks_is_refused_with_how_to_bring_it(bundle: Bundle) -> None:
    bundle.unpack()
    with pytest.raises(InputError, match="not there") as caught:
        servers.ensure("vllm", bundle.cache, PROJECT / "local/bundle/no-uv", pytest.fail)
    assert "make bundle ARGS='--server vllm'" in caught.value.problems[0].fix


def test_later_commands_of_make_know_what_came_out_of_it(bundle: Bundle) -> None:
    bundle.unpack()
    shutil.copy(PROJECT / "Makefile", bundle.project)
    shown = f"$(UV) $$MODELCAR_SERVER $$MODELCAR_CACHE $${target.PRESENT}"
    written(bundle.project / "probe.mk", f"include Makefile\nshow:\n\t@echo {shown}\n")
    variables = {"PATH": os.environ["PATH"], target.PRESENT: "/the environment does not rest on it"}
    command = ["make", "-s", "-f", "probe.mk", "show"]
    said = subprocess.run(command, cwd=bundle.project, env=variables, capture_output=True, text=True)
    assert said.stdout.split() == ["local/bundle/no-uv", "transformers", str(bundle.cache)], said.stderr


def test_make_tells_what_is_wrong_with_a_bundle(tmp_path: Path) -> None:
    command = ["make", "-s", "env", f"BUNDLE={tmp_path / 'none'}"]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert said.returncode
    assert "there is no such folder" in said.stderr
    assert "Traceback" not in said.stderr


# --- the same bytes, and only once ------------------------------------------------------------------


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = entries(tmp_path / "one"), entries(tmp_path / "two")
    for entry in two[TOOLS]:
        if not entry.link:
            os.utime(entry.path, (1, 1))
    two[TOOLS].reverse()
    first = made(tmp_path / "a", one, tmp_path / "cache-a")
    second = made(tmp_path / "b", two, tmp_path / "cache-b")
    assert first == second
    names = [part.name for part in first.parts]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_what_has_not_changed_is_not_compressed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = entries(tmp_path / "files")
    made(tmp_path / "a", files, tmp_path / "archives")
    compressed: list[str] = []
    real = archives.pack

    def counted(group: list[Entry], *more: object) -> None:
        compressed.extend(entry.name for entry in group)
        real(group, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(archives, "pack", counted)
    made(tmp_path / "b", files, tmp_path / "archives")
    assert compressed == []
    written(tmp_path / f"files/server/{SITE}/engine.py", "READY = False\n")
    made(tmp_path / "b", files, tmp_path / "archives")
    assert compressed == [f"{SITE}/engine.py"]


def test_a_bundle_replaces_a_former_one_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("bundle.000", "bundle.777", "notes.txt"):
        written(out / name, "former")
    found = made(out, entries(tmp_path / "files"), tmp_path / "archives")
    names = {part.name for part in found.parts}
    assert {path.name for path in out.iterdir()} == {*names, manifest.FILE, "notes.txt"}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a bundle hold one package and one tool, which no network is needed for; return its folder."""
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    files = entries(tmp_path / "files")
    monkeypatch.setattr(contents, "programs", lambda *_: (files[TOOLS], "2.17"))
    monkeypatch.setattr(contents, "packages", lambda *_: tmp_path / "files/server")
    return tmp_path / "out"


def test_bundles_are_made_one_at_a_time(small: Path) -> None:
    waits, said = threading.Event(), []

    def progress(line: str) -> None:
        said.append(line)
        waits.set()

    cache_root().mkdir()
    run = threading.Thread(target=pack.pack, args=(order(small), Path("/no/uv"), progress))
    with alone(cache_root() / "bundle.lock", pytest.fail):
        run.start()
        assert waits.wait(60), "the second has begun"
        assert "waiting for another process" in said[0]
        assert not (small / manifest.FILE).exists()
    run.join(60)
    assert (small / manifest.FILE).exists()


def bundle_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setenv("UV", "/no/uv")
    monkeypatch.setattr(sys, "argv", ["bundle", *map(str, arguments)])
    return main()


def out_is_a_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(out, "in the way")
    monkeypatch.setattr(contents, "programs", lambda *_: pytest.fail("nothing is built before it"))


def full_disk_of_the_cache(_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)


def full_disk_of_the_bundle(_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts.Cutter, "copy", full)


def unreachable_cache(_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_CACHE", "/proc/no/cache")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (out_is_a_file, ["--out ", "File exists", "name another one"]),
        (full_disk_of_the_cache, ["packing into ", "No space left on device", "by MODELCAR_CACHE"]),
        (full_disk_of_the_bundle, ["writing ", "No space left on device", "by --out"]),
        (unreachable_cache, ["/proc/no"]),
    ],
)
def test_what_stops_packing_is_told_in_words(
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path, pytest.MonkeyPatch], None],
    words: list[str],
) -> None:
    harm(small, monkeypatch)
    assert bundle_command(monkeypatch, "pack", "--out", small, "--server", "none") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert all(word in told for word in words), told
    assert not list(small.parent.rglob("*.part")), "it would take room on a full disk"


def ended_at_once(_job: object) -> int:
    os._exit(1)  # as by the kernel, where memory runs out


def cut_off(_job: object) -> int:
    raise EOFError("Compressed file ended before the end-of-stream marker was reached")


@pytest.mark.parametrize(("happens", "words"), [(ended_at_once, "BrokenProcessPool"), (cut_off, "EOFError")])
def test_what_stops_unpacking_is_told_in_words(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    happens: Callable[[object], int],
    words: str,
) -> None:
    monkeypatch.setattr(unpack, "_unpack_archive", happens)
    assert bundle_command(monkeypatch, "unpack", bundle.folder) == 1
    told = capsys.readouterr().err
    assert f"error: BUNDLE={bundle.folder}: cannot be unpacked ({words}" in told
    assert "look at disk and memory" in told


@pytest.mark.parametrize("size", [1000, 4000, 10**9])
def test_an_archive_is_read_across_parts_of_any_size(tmp_path: Path, size: int) -> None:
    content = os.urandom(10_500)
    cutter = parts.Cutter(tmp_path, size)
    cutter.copy(written(tmp_path / "one", b"before"))
    cutter.copy(written(tmp_path / "two", content))
    cut = cutter.close()
    assert max(part.size for part in cut) <= size
    with io.BufferedReader(parts.Stream(tmp_path, cut, 6, len(content))) as stream:
        assert stream.read() == content


# --- bad input --------------------------------------------------------------------------------------


def missing_part(bundle: Bundle) -> None:
    (bundle.folder / "bundle.001").unlink()


def half_copied_part(bundle: Bundle) -> None:
    os.truncate(bundle.folder / "bundle.000", 1234)


def changed_byte(bundle: Bundle) -> None:
    path = bundle.folder / "bundle.000"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)


def no_manifest(bundle: Bundle) -> None:
    (bundle.folder / manifest.FILE).unlink()


def half_a_manifest(bundle: Bundle) -> None:
    path = bundle.folder / manifest.FILE
    path.write_text(path.read_text()[:200])


def another_format(bundle: Bundle) -> None:
    document = json.loads((bundle.folder / manifest.FILE).read_text())
    (bundle.folder / manifest.FILE).write_text(json.dumps({**document, "format": 2}))


def another_machine(bundle: Bundle) -> None:
    bundle.change(machine="s390x")


def another_python(bundle: Bundle) -> None:
    bundle.change(python="3.99")


def newer_glibc(bundle: Bundle) -> None:
    bundle.change(glibc="9.1")


def another_lock(bundle: Bundle) -> None:
    python, *others = bundle.made.components
    changed = replace(python, fingerprint={"requirements.lock": "0"})
    bundle.change(components=(changed, *others))


def another_tool(bundle: Bundle) -> None:
    python, built, server = bundle.made.components
    changed = replace(built, fingerprint={**built.fingerprint, "kubelet": "0"})
    bundle.change(components=(python, changed, server))


def path_as_name(bundle: Bundle) -> None:
    document = json.loads((bundle.folder / manifest.FILE).read_text())
    document["parts"][0]["name"] = "../bundle.000"
    (bundle.folder / manifest.FILE).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("harm", "words", "fix"),
    [
        (missing_part, ["bundle.001: missing"], "copy this part"),
        (half_copied_part, ["bundle.000: 1234 bytes, copied in part", "4000 bytes"], "copy this part again"),
        (changed_byte, ["bundle.000: changed"], "copy this part again"),
        (no_manifest, ["no manifest.json"], "copy the whole folder"),
        (half_a_manifest, ["manifest.json: cannot be read"], "copy it again"),
        (another_format, ["format 2"], "make the bundle with this version"),
        (another_machine, ["linux s390x"], "make a bundle on a machine of this kind"),
        (another_python, ["CPython 3.99"], f'--python {HERE}"'),
        (newer_glibc, ["linked to 9.1"], "newer distribution"),
        (another_lock, ["requirements.lock differ", "commit abcdef"], "git checkout abcdef"),
        (another_tool, ["kubelet differ"], "make a bundle of this checkout"),
        (path_as_name, ["no file name"], "copy it again"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_refused_with_the_fix(
    bundle: Bundle, harm: Callable[[Bundle], None], words: list[str], fix: str
) -> None:
    harm(bundle)
    told = bundle.refusal()
    assert all(word in told for word in words), told
    assert fix in told.partition("fix:")[2], told


def test_every_wrong_part_is_named_at_once(bundle: Bundle) -> None:
    missing_part(bundle)
    half_copied_part(bundle)
    told = bundle.refusal()
    assert "bundle.000" in told
    assert "bundle.001" in told


def test_too_little_disk_is_told_before(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(bundle.folder)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert "free disk" in bundle.refusal()


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_an_archive_writes_nothing_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    packed = tmp_path / "bad.tar.xz"
    with tarfile.open(packed, "w:xz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match="leads out"), packed.open("rb", buffering=0) as file:
        archives.unpack(file, tmp_path / "inside")
    assert not (tmp_path / "out").exists()


def test_links_of_an_archive_lead_nowhere_else_together(tmp_path: Path) -> None:
    packed = tmp_path / "bad.tar.xz"
    with tarfile.open(packed, "w:xz") as tar:
        for name, link in (("top/a", ""), ("d/e/f", "../../top"), ("w", "d/e/f/../.."), ("w/escaped", "")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = (tarfile.SYMTYPE if link else tarfile.REGTYPE), link
            tar.addfile(entry, io.BytesIO())
    with pytest.raises(ValueError, match="'w' leads out"), packed.open("rb", buffering=0) as file:
        archives.unpack(file, tmp_path / "deep/inside")
    assert not list(tmp_path.rglob("escaped"))


def test_a_link_that_leads_out_already_is_not_followed(tmp_path: Path) -> None:
    packed, inside, outside = tmp_path / "bad.tar.xz", tmp_path / "inside", tmp_path / "outside"
    with tarfile.open(packed, "w:xz") as tar:
        tar.addfile(tarfile.TarInfo("w/sub/escaped"), io.BytesIO())
    inside.mkdir()
    outside.mkdir()
    (inside / "w").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out"), packed.open("rb", buffering=0) as file:
        archives.unpack(file, inside)
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"platform": "s390x-manylinux_2_28"}, "--platform s390x"),
        ({"platform": f"{platform.machine()}-musllinux_1_2"}, "--platform"),
        ({"python": "3.9"}, "--python 3.9"),
        ({"python": "3"}, "--python 3"),
        ({"server": "ollama"}, "transformers, none"),
        ({"extra": ("kubelet2",)}, "--tool kubelet2"),
    ],
)
def test_an_order_that_cannot_be_packed_is_refused(
    tmp_path: Path, values: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        pack.check(order(tmp_path, **values))


# --- packages ---------------------------------------------------------------------------------------

LOCK = """\
torch==2.11.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via -r x.in
numpy==2.4.6 \\
    --hash=sha256:cc
    # via
    #   own (pyproject.toml)
    #   torch
psutil==7.2.2 \\
    --hash=sha256:c2
    # via own (pyproject.toml:program)
pytest==9.2.0 \\
    --hash=sha256:dd
    # via own (pyproject.toml:dev)
pluggy==1.7.0 \\
    --hash=sha256:ee
    # via pytest
six==1.17.0 \\
    --hash=sha256:ff
    # via numpy
"""


def test_a_local_suffix_of_a_version_does_not_count(tmp_path: Path) -> None:
    have = read_freeze(written(tmp_path / "freeze.txt", FREEZE))
    assert have == {"torch": "2.11.0+cu130", "numpy": "2.5.2"}
    packed, present = split_present(read_lock(LOCK), have)
    assert [pin.specifier for pin in present] == ["torch==2.11.0"]
    assert "numpy" in [pin.name for pin in packed], "another version is no replacement"
    assert not same_version("2.11.0", "2.11.0.post1")


@pytest.mark.parametrize("content", [None, "", "Package Version\n------- -------\n"])
def test_a_list_of_packages_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "freeze.txt"
    if content is not None:
        written(path, content)
    with pytest.raises(InputError, match="pip freeze"):
        read_freeze(path)


def test_only_what_the_program_needs_of_a_lock_is_packed() -> None:
    needed = runtime(read_lock(LOCK), "own")
    assert [pin.name for pin in needed] == ["numpy", "psutil", "six"]
    assert needed[0].text == "numpy==2.4.6 \\\n    --hash=sha256:cc", "it installs by itself"


def test_the_projects_own_lock_holds_its_program_without_its_tools() -> None:
    lock = read_lock((PROJECT / "requirements.lock").read_text())
    needed = {pin.name for pin in runtime(lock, "modelcar-kserve", pack.ALSO)}
    assert "pulumi-policy" in needed, "make deploy checks by it"
    assert {"pulumi", "pulumi-kubernetes", "grpcio", "pydantic-core", "kubernetes", "psutil"} <= needed
    assert not {"mypy", "ruff", "pytest", "sphinx", "hypothesis", "pre-commit"} & needed


def with_torch_left_out(bundle: Bundle) -> None:
    *others, server = bundle.made.components
    bundle.change(components=(*others, replace(server, present=("torch==2.11.0",))))


def torch_in(folder: Path, version: str = "2.11.0") -> Path:
    """Return a folder of packages that has torch."""
    told = f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
    written(folder / f"torch-{version}.dist-info/METADATA", told)
    return folder


def test_packages_that_the_target_has_are_looked_for_there(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_torch_left_out(bundle)
    monkeypatch.setenv(target.PRESENT, str(tmp_path / "site-packages"))
    assert "torch==2.11.0 (not there)" in bundle.refusal()
    torch_in(tmp_path / "site-packages", "2.12")
    assert "torch==2.11.0 (2.12 is there)" in bundle.refusal()
    shutil.rmtree(tmp_path / "site-packages")
    torch_in(tmp_path / "site-packages", "2.11.0+cu130")
    bundle.unpack()
    assert str(tmp_path / "site-packages") in (bundle.project / ".venv/bundle.mk").read_text()


@pytest.mark.parametrize(
    ("name", "version"), [("lib/python3.8/site-packages", "2.11.0"), ("site-packages", "2.12")]
)
def test_a_former_bundles_folder_does_not_stand_in_the_way_of_the_one_that_fits(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    with_torch_left_out(bundle)
    monkeypatch.setenv(target.PRESENT, str(torch_in(tmp_path / "former" / name, version)))
    refused = bundle.refusal()
    assert str(tmp_path / "former" / name) in refused
    fitting = torch_in(tmp_path / "new/site-packages")
    monkeypatch.setattr(sys, "path", [*sys.path, str(fitting)])
    bundle.unpack()
    made_of = (bundle.project / ".venv/bundle.mk").read_text()
    assert f"{target.PRESENT} := {fitting}\n" in made_of


@pytest.mark.parametrize("users", ["", "/users"])
def test_make_tells_the_folder_that_the_user_names_before_a_former_bundles(
    tmp_path: Path, users: str
) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    written(tmp_path / ".venv/bundle.mk", f"override export {target.PRESENT} := /former\n")
    script = f'#!/bin/sh\n[ "$1" != -m ] || echo "$MODELCAR_PRESENT_PACKAGES $*" > {tmp_path}/told\n'
    python = written(tmp_path / "python", script, 0o755)
    variables = {"PATH": os.environ["PATH"], **({target.PRESENT: users} if users else {})}
    command = ["make", "-s", "help", "BUNDLE=new", f"PYTHON3={python}"]
    said = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "told").read_text() == f"{users or '/former'} -m local.bundle unpack new\n"


def test_a_whole_bundle_after_one_that_left_packages_out_rests_on_nothing_of_the_machine(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(target.PRESENT, str(torch_in(tmp_path / "site-packages")))
    bundle.unpack()
    monkeypatch.delenv(target.PRESENT)  # as .venv/bundle.mk says now
    server = ready(bundle)
    assert not list(server.python.parent.parent.rglob("*.pth"))
    assert str(tmp_path / "site-packages") not in server.host_paths


def test_packages_that_moved_make_the_server_ready_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_torch_left_out(bundle)
    for name in ("one", "two"):
        monkeypatch.setenv(target.PRESENT, str(torch_in(tmp_path / name / "site-packages")))
        assert any("made ready" in line for line in bundle.unpack())
        assert str(tmp_path / name / "site-packages") in ready(bundle).host_paths
    assert bundle.unpack() == []


def test_what_only_its_maker_could_use_is_left_out(tmp_path: Path) -> None:
    written(tmp_path / "bin/vllm", "#!/home/me/bin/python\n", 0o755)
    written(tmp_path / "bin/ninja", b"\x7fELF", 0o755)
    written(tmp_path / "vllm/__init__.py", "")
    written(tmp_path / "vllm/libvllm.a", "for a linker")
    written(tmp_path / ".lock", "")
    names = [entry.name for entry in contents.site_packages(tmp_path, "3.12")]
    assert names == ["bin/ninja", "lib/python3.12/site-packages/vllm/__init__.py"]


# --- the bare machine -------------------------------------------------------------------------------


def test_unpacking_needs_the_standard_library_only() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import local.bundle.__main__, local.bundle.unpack"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


def test_libraries_that_a_program_needs_are_named_but_glibc() -> None:
    found = libraries.needed(Path(shutil.which("xz") or sys.executable))
    assert not any(name.startswith(("libc.so", "ld-linux")) for name in found)
    assert all(path.exists() for path in found.values())
    version = libraries.oldest_glibc([Path("/bin/sh")])
    assert version >= (2, 2)


def test_the_platform_is_stopped_where_no_ip_is_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "called"
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/nowhere")
    written(tmp_path / "cache/tools/debian/usr/bin/ip", f'#!/bin/sh\necho "$@" > {called}\n', 0o755)
    instance = Instance("local", 63, tmp_path / "state")
    instance.pids.mkdir(parents=True)
    monkeypatch.setattr(local_platform, "link_owner", lambda _link: str(instance.state))
    monkeypatch.setattr(local_platform, "slot_is_free", lambda _slot: False)
    local_platform.clean_leftovers(instance, None)
    assert called.read_text() == "link delete modelcar63\n"


def test_iptables_that_was_brought_is_used_without_debian(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netfilter, "unpack_debian", lambda *_: pytest.fail("apt is not there"))
    monkeypatch.setenv("PATH", "/nowhere")
    for program in netfilter.PROGRAMS.values():
        written(tmp_path / "debian/usr/sbin" / program, f"#!/bin/sh\necho {program}\n", 0o755)
    netfilter._write(tmp_path, print)
    said = subprocess.run(
        ["/bin/sh", tmp_path / "iptables"], env={"PATH": "/usr/bin:/bin"}, capture_output=True
    )
    assert said.stdout == b"iptables-nft\n"


def test_what_is_on_path_is_built_for_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare machine may lack it, or have another version."""
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    for name in ("kubectl", "pulumi"):
        written(tmp_path / "bin" / name, "#!/bin/sh\n", 0o755)
    for name in ("schema.json", "terraform-mapping.json"):
        written(tmp_path / "module/cmd/pulumi-resource-kubernetes" / name, "{}")
    script = f"""if [ "$1" = mod ]; then echo '{{"Dir": "{tmp_path}/module"}}'; exit; fi"""
    script += '\nwhile [ "$1" != -o ]; do shift; done; echo built > "$2"'
    written(tmp_path / "bin/go", f"#!/bin/sh\n{script}\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    built = tools.build_all(lambda _line: None)
    assert {built["kubectl"].read_text(), built["pulumi"].read_text()} == {"built\n"}
    assert set(built) == set(tools.fingerprints())
