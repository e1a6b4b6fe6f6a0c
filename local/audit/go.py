"""govulncheck on the programs that are built here, with the Go vulnerability database.

The database is a copy that is pinned in local/tools/govulncheck/go.mod (its own source, a Go module as any
other), so that the same tree has the same findings; or the one of today, at vuln.go.dev.

What is accepted is of programs as their pins build them. A maker's release of the same version, or an older
build, may hold other versions of modules: that is said, and not a finding.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.audit import accepted_go
from local.audit.accepted_go import Reach
from local.audit.findings import Finding
from local.instance import PROJECT, cache_root
from local.tool_build import build_with_symbols, download_module, fingerprint, provide, read_stamp
from local.tool_list import (
    CERT_MANAGER,
    CONTAINERD_PROGRAMS,
    KUBERNETES_PROGRAMS,
    NEWER_KSERVE,
    OLDER_ARGOCD,
    OLDER_KSERVE,
    OLDER_KUBERNETES,
    OTHER_CONTAINERDS,
    TOOLS,
    Progress,
    Tool,
)
from local.tools import find_tool
from modelcar.errors import refuse
from modelcar.progress import working

DATABASE = "https://vuln.go.dev"
SOURCE = "golang.org/x/vulndb"
NAME = "govulncheck"
#: Programs that tests alone run, or that draw and check what is committed: no stack relies on them.
TEST_ONLY = frozenset(
    {
        "actionlint",
        "buildctl",
        "d2",
        "kaniko",
        "kube-rbac-proxy",
        "kyverno",
        "pulumi-language-yaml",
        "pulumi-sdks",
        OLDER_ARGOCD,
        OLDER_KSERVE,
        NEWER_KSERVE,
        CERT_MANAGER,
        *(f"{name}-{short}" for name in CONTAINERD_PROGRAMS for short in OTHER_CONTAINERDS),
        *(f"{name}-{OLDER_KUBERNETES[0]}" for name in KUBERNETES_PROGRAMS),
    }
)
#: What govulncheck calls Go's own library.
LIBRARY = "stdlib"
NOT_MENDED = "no version"


def pinned_database() -> Path:
    """Return the pinned copy in the form that govulncheck reads: https://go.dev/doc/security/vuln/database.

    Raises:
        InputError: it cannot be downloaded.
    """
    found = download_module(NAME, SOURCE)
    target = cache_root() / "vulndb" / str(found["Version"])
    if not (target / "index" / "db.json").exists():
        _write(Path(found["Dir"]) / "data" / "osv", target)
    return target


def _write(source: Path, target: Path) -> None:
    (target / "ID").mkdir(parents=True, exist_ok=True)
    (target / "index").mkdir(exist_ok=True)
    modules: dict[str, list[dict[str, str]]] = {}
    entries = []
    for path in sorted(source.glob("GO-*.json")):
        content = path.read_bytes()
        entry: dict[str, Any] = json.loads(content)
        if entry.get("withdrawn"):
            continue
        (target / "ID" / path.name).write_bytes(content)
        entries.append(
            {"id": entry["id"], "modified": entry["modified"], "aliases": entry.get("aliases", [])}
        )
        for affected in entry["affected"]:
            row = {"id": entry["id"], "modified": entry["modified"]}
            modules.setdefault(affected["package"]["name"], []).append(row)
    listed = [{"path": name, "vulns": vulns} for name, vulns in sorted(modules.items())]
    for name, document in (("vulns", entries), ("modules", listed)):
        (target / "index" / f"{name}.json").write_text(json.dumps(document))
    (target / "index" / "db.json").write_text(json.dumps({"modified": "0001-01-01T00:00:00Z"}))


@dataclass(frozen=True)
class Found:
    """A vulnerability of a module that a program is built with, and whether its code is reached."""

    id: str
    module: str
    version: str
    fixed: str
    summary: str
    reach: Reach

    @property
    def text(self) -> str:
        """What it is, in the database's words."""
        return f"{self.summary} ({self.module}@{self.version}, mended in {self.fixed})"

    @property
    def about(self) -> str:
        """What it is, whichever version a program has."""
        before = f" before {self.fixed}" if self.fixed != NOT_MENDED else ", all versions"
        return f"{self.module}{before}: {self.summary.removesuffix(f' in {self.module}')}"


def scanned_tools() -> list[Tool]:
    """Return the programs that stacks and the platform rely on."""
    return [tool for tool in TOOLS if tool.name not in TEST_ONLY]


def build(progress: Progress) -> None:
    """Build or download, as MODELCAR_TOOLS says, the programs that are looked at and not in the cache.

    Raises:
        InputError: as `tool_build.provide`.
    """
    for tool in scanned_tools():
        provide(tool, progress)  # whatever is on PATH, which is not what is looked at


def scan(progress: Progress, *, fresh: bool = False) -> Iterator[Finding]:
    """Yield what is known of the programs in the cache, and what is accepted of them but no longer found.

    Programs that are not built are not looked at, and named; with `fresh` each is a finding. Faults of Go's
    own library are those of the Go that is installed: said, and not a finding.

    Raises:
        InputError: govulncheck or the database cannot be had, a scan fails, or accepted_go.yaml is wrong.
    """
    # By module: programs are built without symbols, and a closer look then finds no less and takes minutes.
    program = find_tool(NAME, progress)
    address = DATABASE if fresh else pinned_database().as_uri()
    known = accepted_go.read()
    library: set[str] = set()
    missing = []
    for tool in scanned_tools():
        built = tool.target
        if not built.exists():
            missing.append(tool.name)
            continue
        with working(f"   govulncheck {built.name}"):
            everything = list(_scan_one(program, address, built, "module"))
        library |= {one.id for one in everything if one.module == LIBRARY}
        found = [one for one in everything if one.module != LIBRARY]
        if read_stamp(tool) == fingerprint(tool):
            if gone := sorted(known.of(tool.name) - {one.id for one in found}):
                yield from _no_longer_found(tool, gone, progress, counts=not fresh)
        else:
            pinned = _pinned_versions(tool)
            other = [one for one in found if pinned.get(one.module, one.version) != one.version]
            found = [one for one in found if one not in other]
            if other:
                listed = ", ".join(sorted({one.id for one in other}))
                progress(f"NOTE: {tool.name} is not built from today's pins; its own versions hold {listed}")
        for one in found:
            yield Finding(NAME, one.id, tool.name, one.text)
    if missing and not fresh:
        progress(f"NOTE: not built here, and not looked at: {', '.join(missing)}")
    elif missing:
        text = "not built here, and not looked at. Build all of them: make audit ARGS='--fresh --build'"
        yield from (Finding(NAME, "not built", name, text) for name in missing)
    if library:
        listed = ", ".join(sorted(library))
        progress(f"NOTE: {len(library)} faults are known of the Go that is installed: {listed}")


def _no_longer_found(
    tool: Tool, ids: Collection[str], progress: Progress, *, counts: bool
) -> Iterator[Finding]:
    text = f"accepted, but no longer found: {', '.join(ids)}. Run: make audit ARGS='--write-go {tool.name}'"
    if counts:
        yield Finding(NAME, "no longer found", tool.name, text)
    else:  # the database of today may have withdrawn them
        progress(f"NOTE: {tool.name}: {text}")


def _pinned_versions(tool: Tool) -> dict[str, str]:
    """Return the versions of modules that a program's go.mod asks for; its replacements count."""
    text = (PROJECT / "local" / "tools" / tool.module / "go.mod").read_text()
    required = re.findall(
        r"^\s*(?:require )?([^\s/]+\.[^\s]+) (v[^\s]+)(?: // indirect)?$", text, re.MULTILINE
    )
    replaced = re.findall(r"^\s*(?:replace )?([^\s]+)(?: v[^\s]+)? => [^\s]+ (v[^\s]+)$", text, re.MULTILINE)
    return {**dict(required), **dict(replaced)}


def write_accepted(names: Collection[str], progress: Progress) -> None:
    """Scan programs closely, and write what is found to what is accepted.

    Each is built with its symbols, from its pins, in a folder that is removed again: the cache keeps its own.

    Args:
        names: the programs; those that are in the cache where there are none.
        progress: takes a line for each program.

    Raises:
        InputError: a build or a scan fails.
    """
    tools = [tool for tool in scanned_tools() if tool.name in names or (not names and tool.target.exists())]
    if unknown := set(names) - {tool.name for tool in tools}:
        raise refuse(
            "--write-go",
            ", ".join(sorted(unknown)),
            allowed="programs that the audit looks at: " + ", ".join(tool.name for tool in scanned_tools()),
            fix="correct the name",
        )
    program, address = find_tool(NAME, progress), pinned_database().as_uri()
    for tool in tools:
        with tempfile.TemporaryDirectory(prefix="modelcar-audit-") as scratch:
            built = build_with_symbols(tool, Path(scratch))
            with working(f"   govulncheck {tool.name}"):
                found = [one for one in _scan_one(program, address, built, "symbol") if one.module != LIBRARY]
        # One after the other: what is written stays where a later build fails.
        record(tool.name, found)
        reached = sum(one.reach is Reach.YES for one in found)
        progress(f"{tool.name}: {len(found)} known, {reached} reached")


def record(program: str, found: Collection[Found], path: Path = accepted_go.ACCEPTED) -> None:
    """Write what was found in a program to what is accepted."""
    # One vulnerability may be of two modules: what is reached counts.
    rows = {one.id: (one.about, one.reach) for one in sorted(found, key=lambda one: one.reach is Reach.YES)}
    accepted_go.write(accepted_go.renewed(accepted_go.read(path).vulnerabilities, {program: rows}), path)


def _scan_one(program: Path, address: str, built: Path, level: str) -> Iterator[Found]:
    command = [str(program), "-db", address, "-mode", "binary", "-scan", level]
    command += ["-format", "json", str(built)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise refuse(
            f"govulncheck {built.name}",
            result.stderr.strip()[-500:],
            allowed="a scan",
            fix=f"run it by hand: {' '.join(command)}",
        )
    yield from parse(result.stdout, closely=level == "symbol")


def parse(output: str, *, closely: bool) -> Iterator[Found]:
    """Yield what govulncheck says in its JSON, each vulnerability once for each module that has it.

    Args:
        output: its messages.
        closely: whether it looked at symbols; only then is it known what is reached.
    """
    summaries: dict[str, str] = {}
    found: dict[tuple[str, str], Found] = {}
    for message in _messages(output):
        if "osv" in message:
            summaries[message["osv"]["id"]] = message["osv"].get("summary", "")
        elif "finding" in message:
            finding = message["finding"]
            id, place = finding["osv"], finding["trace"][0]
            reach = Reach.YES if place.get("function") else Reach.NO if closely else Reach.NOT_KNOWN
            key = (id, place["module"])
            if key not in found or reach is Reach.YES:
                found[key] = Found(
                    id,
                    place["module"],
                    place.get("version", "?"),
                    finding.get("fixed_version") or NOT_MENDED,
                    summaries.get(id, ""),
                    reach,
                )
    yield from found.values()


def _messages(text: str) -> Iterator[dict[str, Any]]:
    """Yield govulncheck's messages: JSON objects, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        message, at = decoder.raw_decode(text, at)
        yield message
        while at < len(text) and text[at].isspace():
            at += 1
