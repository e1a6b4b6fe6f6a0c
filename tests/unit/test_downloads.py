"""Tools out of their makers' releases, against a server of the makers' layout on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local import tool_build, tools
from local.bundle import archives, contents
from local.downloads import catalogue, members, obtain, sums, web
from local.downloads.catalogue import RELEASES, SOURCE_ONLY, Release
from local.instance import PROJECT
from local.plugins import KUBERNETES_PLUGIN
from local.tool_list import TOOLS, Tool
from modelcar.errors import InputError
from tests.makers_server import Makers, elf, serve, tar_gz

KUBELET, HELM = (next(tool for tool in TOOLS if tool.name == name) for name in ("kubelet", "helm"))
FILES = [tool for tool in TOOLS if isinstance(RELEASES.get(tool.name), Release)]


@pytest.fixture
def makers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Makers]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serve() as running:
        monkeypatch.setattr(web, "WEB", web.Web(running.base, stall=0.5))
        monkeypatch.setenv("MODELCAR_TOOLS", "auto")
        yield running


@pytest.fixture
def tools_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of programs, on a machine with a `go` that builds anything in no time."""
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    go = tmp_path / "go" / "go"
    go.parent.mkdir()
    go.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; echo built > "$2"\n')
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")
    return tmp_path / "cache" / "tools" / "bin"


def address(tool: Tool) -> tuple[str, str]:
    """Where a tool's release and its checksum are."""
    release, arch = RELEASES[tool.name], catalogue.architecture()
    assert isinstance(release, Release)
    return release.address(tool.version, arch), release.sums_address(tool.version, arch)


def publish(makers: Makers, tool: Tool, program: bytes = elf()) -> bytes:
    """Publish a tool as its maker does; return the file that is downloaded."""
    release = RELEASES[tool.name]
    assert isinstance(release, Release)
    member = release.member_of(tool.version, catalogue.architecture())
    content = tar_gz({"README.md": b"read", member: program}) if member else program
    makers.publish(address(tool)[0], content, address(tool)[1])
    return content


def provide(tool: Tool) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return tool_build.provide(tool, lines.append), lines


# --- what is published -------------------------------------------------------------------------------


def test_every_tool_has_a_release_or_a_reason_why_not() -> None:
    names = {tool.name for tool in TOOLS}
    assert not RELEASES.keys() & SOURCE_ONLY.keys()
    assert names == RELEASES.keys() | SOURCE_ONLY.keys()


def test_the_page_of_the_local_stack_lists_what_is_downloaded() -> None:
    page = (PROJECT / "docs" / "local-stack.md").read_text()
    table = page.partition("| from a release |")[2].partition("\n\n")[0]
    named = {
        name for row in table.splitlines() for name in re.findall(r"`([a-z][\w-]+)`", row.partition(" | ")[0])
    }
    assert named == catalogue.NAMED


def test_the_page_of_the_local_stack_lists_what_is_built_always() -> None:
    page = (PROJECT / "docs" / "local-stack.md").read_text()
    said = page.partition("\nBuilt always: ")[2].partition(".")[0].casefold().replace(" ", "-")
    for name in SOURCE_ONLY.keys() - {KUBERNETES_PLUGIN}:  # told beside it
        family = re.match(r"keda|knative", name)
        assert (family[0] if family else name.removeprefix("modelcar-")) in said, name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("tool", FILES, ids=lambda tool: str(tool.name))
def test_addresses_are_whole_and_of_the_version_and_the_processor(
    tool: Tool, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    file, checksums = address(tool)
    for url in (file, checksums):
        assert url.startswith("https://")
        assert not set("{}") & set(url)
        assert tool.version in url
    processor = {"x86_64": ("amd64", "x64", "x86_64"), "aarch64": ("arm64",)}[machine]
    assert any(name in file for name in processor)


@pytest.mark.parametrize("tool", FILES, ids=lambda tool: str(tool.name))
def test_a_release_is_downloaded_checked_and_kept(makers: Makers, tools_bin: Path, tool: Tool) -> None:
    content = publish(makers, tool, elf(tool.name.encode()))
    path, lines = provide(tool)
    assert path.read_bytes() == elf(tool.name.encode())
    assert os.access(path, os.X_OK)
    host = address(tool)[0].split("/")[2]
    assert lines == [f"{tool.name} {tool.version} downloaded from {host}, checksum verified (maker's file)"]
    told = json.loads(tool_build.stamp_of(tool).read_text())["downloaded"]
    assert told["address"] == address(tool)[0]
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    asked = len(makers.asked)
    assert provide(tool) == (path, [])
    assert len(makers.asked) == asked, "what is there is not asked for again"


SUM, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{OTHER}  other\n{SUM}  tool.tar.gz\n", SUM),
        (f"{SUM} *tool.tar.gz\n", SUM),
        (f"{SUM}  ./tool.tar.gz\r\n", SUM),
        (f"{SUM.upper()}\n", SUM),
        (f"{OTHER}  other-tool.tar.gz\n", None),
        (f"{SUM}  tool.tar.gz\n{OTHER}  tool.tar.gz\n", None),
        (f"{SUM}{SUM}  tool.tar.gz\n", None),
        ("<html>log in</html>", None),
        ("", None),
        (json.dumps({"subject": [{"name": "tool.tar.gz", "digest": {"sha256": SUM}}]}), SUM),
        (json.dumps({"subject": [{"name": "other", "digest": {"sha256": SUM}}]}), None),
        (json.dumps({"payload": "…"}), None),
        ("{broken", None),
    ],
)
def test_a_checksum_is_found_in_each_makers_format(text: str, found: str | None) -> None:
    assert sums.sha256_in(text, "tool.tar.gz") == found


# --- what goes wrong ---------------------------------------------------------------------------------


def sends(status: int, body: bytes = b"", /, **headers: str) -> Callable[[Any, bytes], None]:
    def fault(handler: Any, _: bytes) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return fault


def cut(handler: Any, content: bytes) -> None:
    sends(200, content[: len(content) // 2], **{"Content-Length": str(len(content))})(handler, b"")
    handler.close_connection = True


def silent(handler: Any, content: bytes) -> None:
    sends(200, content[:10], **{"Content-Length": str(len(content))})(handler, b"")
    handler.wfile.flush()
    handler.server.makers_over.wait(30)


def trickle(handler: Any, _: bytes) -> None:
    sends(200, **{"Content-Length": "100000"})(handler, b"")
    while not handler.server.makers_over.wait(0.05):
        handler.wfile.write(b"x")
        handler.wfile.flush()


FAULTS: dict[str, tuple[Callable[[Any, bytes], None], str]] = {
    "forbidden": (sends(403), "answers 403"),
    "absent": (sends(404), "answers 404"),
    "broken": (sends(502), "answers 502"),
    "cut": (cut, "cut the connection after"),
    "silent": (silent, "sent nothing for 0.5 s"),
    "trickle": (trickle, "is slow"),
    "to plain http": (sends(302, Location="http://example.com/tool?key=1"), "which is not https"),
    "to a file": (sends(302, Location="file:///etc/passwd"), "answers 302"),
    "to ftp": (sends(302, Location="ftp://127.0.0.1/tool"), "which is not https"),
    "too large": (sends(200, **{"Content-Length": str(web.MOST + 1)}), "more than 1024 MiB"),
}


def left_over(tools_bin: Path) -> list[str]:
    return sorted(path.name for path in tools_bin.iterdir())


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_downloaded_is_built_and_the_reason_said(
    makers: Makers, tools_bin: Path, case: str
) -> None:
    publish(makers, HELM)
    fault, reason = FAULTS[case]
    makers.faults[address(HELM)[0].removeprefix("https://")] = fault
    path, lines = provide(HELM)
    assert path.read_text() == "built\n"
    assert lines[0].startswith(f"helm {HELM.version} is built from source: its release cannot be had (")
    assert reason in lines[0]
    assert left_over(tools_bin) == ["helm"]
    assert tool_build.read_stamp(HELM) == tool_build.fingerprint(HELM)


@pytest.mark.parametrize("case", FAULTS)
def test_where_only_releases_are_allowed_nothing_is_built(
    makers: Makers, tools_bin: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "release")
    publish(makers, HELM)
    fault, reason = FAULTS[case]
    makers.faults[address(HELM)[0].removeprefix("https://")] = fault
    with pytest.raises(InputError) as refused:
        provide(HELM)
    text = str(refused.value)
    assert text.startswith(f"MODELCAR_TOOLS=release: helm {HELM.version}")
    assert reason in text
    assert "MODELCAR_TOOLS=auto" in text
    assert left_over(tools_bin) == []


@pytest.mark.parametrize("mode", ["auto", "release"])
def test_a_wrong_checksum_is_refused_and_never_built_around(
    makers: Makers, tools_bin: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", mode)
    expected = hashlib.sha256(publish(makers, KUBELET)).hexdigest()
    other = elf(b"another program")
    makers.publish(address(KUBELET)[0], other)
    with pytest.raises(InputError) as refused:
        provide(KUBELET)
    text = str(refused.value)
    assert text.startswith(f"{address(KUBELET)[0]}: sha256:{hashlib.sha256(other).hexdigest()}")
    assert f"allowed: sha256:{expected} ({address(KUBELET)[1]})" in text
    assert "MODELCAR_TOOLS=source" in text
    assert left_over(tools_bin) == []
    assert not tool_build.stamp_of(KUBELET).exists()


def test_a_pinned_checksum_goes_before_the_makers(
    makers: Makers, tools_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(makers, KUBELET)
    pinned = Release(*address(KUBELET), pinned={catalogue.architecture(): SUM})
    monkeypatch.setattr(catalogue, "RELEASES", {"kubelet": pinned})
    with pytest.raises(InputError, match=rf"allowed: sha256:{SUM} \(pinned here\)"):
        provide(KUBELET)
    assert left_over(tools_bin) == []


OTHER_MACHINE = 183 if platform.machine() == "x86_64" else 62
HELM_MEMBER = f"linux-{catalogue.architecture()}/helm"
UNFIT: dict[str, tuple[bytes, str]] = {
    "not there": (tar_gz({"linux/other": elf()}), "has no file linux-"),
    "leads out": (tar_gz({"../helm": elf(), HELM_MEMBER: elf()}), "leads out of it"),
    "absolute": (tar_gz({HELM_MEMBER: elf(), "/etc/helm": elf()}), "leads out of it"),
    "a link": (tar_gz({}, {HELM_MEMBER: "/bin/sh"}), "no plain file"),
    "damaged": (tar_gz({HELM_MEMBER: elf(os.urandom(5000))})[:-2000], "is damaged"),
    "no archive": (b"<html>log in</html>", "is damaged"),
    "a script": (tar_gz({HELM_MEMBER: b"#!/bin/sh\n" * 9}), "no 64-bit Linux program"),
    "another processor": (tar_gz({HELM_MEMBER: elf(machine=OTHER_MACHINE)}), "not for"),
    "another C library": (tar_gz({HELM_MEMBER: elf(loader="/lib/ld-none.so")}), "needs /lib/ld-none.so"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_archive_is_not_used(makers: Makers, tools_bin: Path, case: str, tmp_path: Path) -> None:
    content, reason = UNFIT[case]
    makers.publish(address(HELM)[0], content, address(HELM)[1])
    path, lines = provide(HELM)
    assert path.read_text() == "built\n"
    assert reason in lines[0]
    assert left_over(tools_bin) == ["helm"]
    assert {path.name for path in tools_bin.parent.iterdir()} == {"bin", "locks", "stamps"}


def test_a_length_that_is_not_told_is_bounded_too(
    makers: Makers, tools_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(handler: Any, content: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True

    content = publish(makers, KUBELET, elf(bytes(5000)))
    makers.faults[address(KUBELET)[0].removeprefix("https://")] = endless
    monkeypatch.setattr(web, "MOST", len(content) - 1)
    assert "sends more than" in provide(KUBELET)[1][0]
    assert left_over(tools_bin) == ["kubelet"]
    monkeypatch.setattr(web, "MOST", len(content))
    monkeypatch.setenv("MODELCAR_TOOLS", "release")
    assert provide(KUBELET)[0].read_bytes() == content


def test_a_loader_that_is_here_is_taken(tmp_path: Path) -> None:
    (tmp_path / "ld.so").touch()
    (tmp_path / "program").write_bytes(elf(loader=str(tmp_path / "ld.so")))
    members.require_program(tmp_path / "program")


def test_a_checksum_file_without_the_file_is_no_checksum(makers: Makers, tools_bin: Path) -> None:
    publish(makers, HELM)
    makers.publish(address(HELM)[1], f"{SUM}  other.tar.gz\n".encode())
    path, lines = provide(HELM)
    assert path.read_text() == "built\n"
    assert "has no SHA-256 of helm-v" in lines[0]
    assert address(HELM)[0].removeprefix("https://") not in makers.asked


def test_a_redirect_to_the_same_kind_is_followed(makers: Makers, tools_bin: Path) -> None:
    content = publish(makers, KUBELET)
    makers.files["cdn.example/kubelet"] = content
    path = address(KUBELET)[0].removeprefix("https://")
    makers.faults[path] = sends(302, Location=f"{makers.base}/cdn.example/kubelet")
    assert provide(KUBELET)[0].read_bytes() == content


def test_https_is_never_left() -> None:
    """Only a server of this machine, which tests start, may be plain."""
    with pytest.raises(web.DownloadError, match=r"http://example\.com/x is not https"):
        web.Web("http://example.com").text("https://x")


def test_a_disk_that_cannot_be_written_is_said(makers: Makers, tools_bin: Path) -> None:
    publish(makers, HELM)
    tools_bin.parent.mkdir(parents=True)
    tools_bin.write_text("a file where the folder should be")
    with pytest.raises(web.DownloadError, match="File exists"):
        obtain._obtain(HELM, RELEASES["helm"], tool_build.stamp_of(HELM))


# --- what is chosen ----------------------------------------------------------------------------------


def test_source_asks_no_maker(makers: Makers, tools_bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "source")
    publish(makers, HELM)
    assert provide(HELM)[0].read_text() == "built\n"
    assert obtain.downloadable(["helm"]) == []
    assert makers.asked == []


def test_another_mode_brings_the_other_program(
    makers: Makers, tools_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(makers, HELM)
    found = []
    for mode in ("source", "auto", "release", "auto", "source", "release"):
        monkeypatch.setenv("MODELCAR_TOOLS", mode)
        found.append("built" if provide(HELM)[0].read_bytes() == b"built\n" else "downloaded")
        assert tools.find_tool("helm", pytest.fail) == HELM.target, "and it is there from then on"
    assert found == ["built", "built", "downloaded", "downloaded", "built", "downloaded"]


def test_another_version_is_downloaded_anew(
    makers: Makers, tools_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = Tool(HELM.name, "99.1.0", HELM.module, HELM.package)
    publish(makers, HELM, elf(b"today's"))
    publish(makers, newer, elf(b"tomorrow's"))
    assert provide(HELM)[0].read_bytes() == elf(b"today's")
    assert provide(newer)[0].read_bytes() == elf(b"tomorrow's")
    monkeypatch.setattr("platform.machine", lambda: "aarch64" if OTHER_MACHINE == 183 else "x86_64")
    assert not tool_build.is_ready(newer), "a cache that another kind of machine has filled"


def test_what_has_no_release_is_built_or_refused_with_the_reason(
    makers: Makers, tools_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    d2 = next(tool for tool in TOOLS if tool.name == "d2")
    monkeypatch.setenv("MODELCAR_TOOLS", "release")
    with pytest.raises(InputError, match=r"d2 .* has no release to take: its makers publish no checksums"):
        provide(d2)
    monkeypatch.setenv("MODELCAR_TOOLS", "auto")
    assert provide(d2)[0].read_text() == "built\n"
    assert makers.asked == []
    monkeypatch.setenv("MODELCAR_TOOLS", "release")
    assert provide(d2)[0].read_text() == "built\n", "what is there is used"


def test_a_processor_without_releases_builds(
    makers: Makers, tools_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert provide(HELM)[0].read_text() == "built\n"
    monkeypatch.setenv("MODELCAR_TOOLS", "release")
    with pytest.raises(InputError, match="there is none for riscv64"):
        provide(KUBELET)


def test_an_unknown_mode_is_refused(tools_bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "binary")
    with pytest.raises(InputError, match=r"MODELCAR_TOOLS: binary\n    allowed: auto .*release, source"):
        provide(HELM)


def test_where_each_came_from_is_told(makers: Makers, tools_bin: Path, tmp_path: Path) -> None:
    publish(makers, KUBELET)
    d2 = next(tool for tool in TOOLS if tool.name == "d2")
    programs = {"kubelet": provide(KUBELET)[0], "d2": provide(d2)[0], "pulumi": Path("/usr/bin/pulumi")}
    pulumi, kubelet, other = tools.sources(programs)
    assert pulumi.split() == ["pulumi", "-", "PATH:", "/usr/bin/pulumi"]
    assert kubelet.split()[:3] == ["kubelet", KUBELET.version, "dl.k8s.io,"]
    assert hashlib.sha256(elf()).hexdigest()[:12] in kubelet
    assert other.split()[2:] == ["its", "source", "(Go)"]


def test_a_bundle_carries_where_its_programs_came_from(
    makers: Makers, tools_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(makers, KUBELET)
    d2 = next(tool for tool in TOOLS if tool.name == "d2")
    programs = {tool.name: provide(tool)[0] for tool in (KUBELET, d2)}
    archives.pack(contents.tool_entries(programs), tmp_path / "tools.tar.xz", platform.machine())
    stamp, pins = (
        tool_build.read_stamp(KUBELET),
        {tool.name: tool_build.fingerprint(tool) for tool in (KUBELET, d2)},
    )
    # On the other machine, where nobody can be asked and nothing built.
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(web, "WEB", web.Web("http://127.0.0.1:9"))
    monkeypatch.setenv("PATH", "")
    with (tmp_path / "tools.tar.xz").open("rb", buffering=0) as packed:
        archives.unpack(packed, tmp_path / "other" / "tools")
    tools.mark_as_built(pins)
    for mode in ("auto", "release"):
        monkeypatch.setenv("MODELCAR_TOOLS", mode)
        assert provide(KUBELET) == (KUBELET.target, [])
        assert provide(d2) == (d2.target, [])
    assert os.access(KUBELET.target, os.X_OK)
    assert tool_build.read_stamp(KUBELET) == stamp
    assert tool_build.read_stamp(d2) == pins["d2"]
    KUBELET.target.write_bytes(elf(b"a build that a later bundle brings"))
    tools.mark_as_built(pins)
    assert tool_build.read_stamp(KUBELET) == pins["kubelet"], "the stamp is not that program's any more"


def test_time_is_not_spent_on_what_is_there(makers: Makers, tools_bin: Path) -> None:
    """`make up` of a machine that has all of it asks nobody."""
    assert obtain.downloadable([]) == []
    assert obtain.downloadable(["d2"]) == []
    assert makers.asked == []
    assert obtain.downloadable(["helm", "d2"]) == ["helm"]
    assert makers.asked == ["HEAD github.com/"]
