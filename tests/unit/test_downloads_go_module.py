"""KServe's manifests on a machine without Go, from a proxy of the same layout on this machine."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import tool_build, tool_list, tools
from local.downloads import go_module, web
from local.instance import KSERVE_VERSION
from modelcar.errors import InputError
from tests import makers_server
from tests.makers_server import Makers

ROOT = f"github.com/kserve/kserve@v{KSERVE_VERSION}/"
ADDRESS = f"https://proxy.golang.org/github.com/kserve/kserve/@v/v{KSERVE_VERSION}.zip"
FILES = {f"{ROOT}config/crd/a.yaml": "a", f"{ROOT}charts/b/Chart.yaml": "b", f"{ROOT}main.go": "package main"}


@pytest.fixture
def makers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Makers]:
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELCAR_TOOLS", "auto")
    monkeypatch.setenv("PATH", str(tmp_path))
    pins = tmp_path / "pins"
    pins.mkdir()
    with zipfile.ZipFile(io.BytesIO(zipped(FILES))) as archive:
        wanted = go_module._hash(archive)
    (pins / "go.sum").write_text(f"github.com/kserve/kserve v{KSERVE_VERSION} {wanted}\n")
    monkeypatch.setattr(tool_build, "_module_folder", lambda _module: pins)
    with makers_server.serve() as running:
        monkeypatch.setattr(web, "WEB", web.Web(running.base, stall=0.5))
        yield running


def zipped(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_the_hash_is_gos() -> None:
    """The value is that of Go's own dirhash.HashZip (golang.org/x/mod 0.41.0) for a zip of these files."""
    root = "github.com/kserve/kserve@v0.19.0/"
    files = {
        f"{root}config/crd/a.yaml": "a",
        f"{root}charts/b/Chart.yaml": "b",
        f"{root}main.go": "package main",
    }
    with zipfile.ZipFile(io.BytesIO(zipped(files))) as archive:
        assert go_module._hash(archive) == "h1:/Gh+CiuSJHsdZ1fUopBW0VoMCzyrIoEwYeK08VvbrqI="


def test_without_go_the_manifests_come_from_the_proxy(makers: Makers) -> None:
    makers.publish(ADDRESS, zipped(FILES))
    lines: list[str] = []
    folder = tools.kserve_manifests(lines.append)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"config/crd/a.yaml", "charts/b/Chart.yaml"}
    assert lines == [f"KServe {KSERVE_VERSION} config and charts ready"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing else is left"
    asked = len(makers.asked)
    assert tools.kserve_manifests(pytest.fail) == folder
    assert len(makers.asked) == asked


@pytest.mark.parametrize("change", ["another file", "another name", "one more", "one less"])
def test_another_module_is_refused(makers: Makers, change: str) -> None:
    files = dict(FILES)
    if change == "another file":
        files[f"{ROOT}main.go"] = "package other"
    elif change == "another name":
        files[f"{ROOT}main2.go"] = files.pop(f"{ROOT}main.go")
    elif change == "one more":
        files[f"{ROOT}../../escape"] = "x"
    else:
        del files[f"{ROOT}main.go"]
    makers.publish(ADDRESS, zipped(files))
    with pytest.raises(InputError, match=r"(?s)kserve/@v/.*h1:.*allowed: h1:.*go\.sum"):
        tools.kserve_manifests(print)
    kept = tool_list.tools_folder()
    assert [path for path in kept.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("content", [None, b"<html>log in</html>"])
def test_where_it_cannot_be_had_go_is_asked_for_with_the_reason(
    makers: Makers, content: bytes | None
) -> None:
    if content:
        makers.publish(ADDRESS, content)
    lines: list[str] = []
    with pytest.raises(InputError, match=r"(?s)go: not on PATH.*install Go"):
        tools.kserve_manifests(lines.append)
    assert len(lines) == 1
    assert "answers 404" in lines[0] or "is damaged" in lines[0]


def test_source_asks_no_proxy(makers: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "source")
    makers.publish(ADDRESS, zipped(FILES))
    with pytest.raises(InputError, match="go: not on PATH"):
        tools.kserve_manifests(print)
    assert makers.asked == []
