"""govulncheck on the programs that are built here, with the Go vulnerability database.

The database is a copy that is pinned in local/tools/govulncheck/go.mod (its own source, a Go module as any
other), so that the same tree has the same findings; or the one of today, at vuln.go.dev.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local.audit.findings import Finding
from local.instance import cache_root
from local.tool_build import download_module
from local.tool_list import (
    CERT_MANAGER,
    CONTAINERD_PROGRAMS,
    KUBERNETES_PROGRAMS,
    NEWER_KSERVE,
    OLDER_KSERVE,
    OLDER_KUBERNETES,
    OTHER_CONTAINERDS,
    TOOLS,
    Progress,
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
        OLDER_KSERVE,
        NEWER_KSERVE,
        CERT_MANAGER,
        *(f"{name}-{short}" for name in CONTAINERD_PROGRAMS for short in OTHER_CONTAINERDS),
        *(f"{name}-{OLDER_KUBERNETES[0]}" for name in KUBERNETES_PROGRAMS),
    }
)
#: What govulncheck calls Go's own library.
LIBRARY = "stdlib"


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


def scan(progress: Progress, *, fresh: bool = False) -> Iterator[Finding]:
    """Yield what is known of the programs in the cache; those that are not built are not looked at.

    Faults of Go's own library are those of the Go that is installed: said, and not a finding.

    Raises:
        InputError: govulncheck or the database cannot be had, or a scan fails.
    """
    # By module: programs are built without symbols, and a closer look then finds no less and takes minutes.
    program = find_tool(NAME, progress)
    address = DATABASE if fresh else pinned_database().as_uri()
    outdated: set[str] = set()
    for tool in TOOLS:
        if tool.name in TEST_ONLY:
            continue
        built = tool.target
        if not built.exists():
            continue
        with working(f"   govulncheck {built.name}"):
            found = list(_scan_one(program, address, built))
        for module, finding in found:
            if module == LIBRARY:
                outdated.add(finding.id)
            else:
                yield finding
    if outdated:
        listed = ", ".join(sorted(outdated))
        progress(f"NOTE: {len(outdated)} faults are known of the Go that is installed: {listed}")


def _scan_one(program: Path, address: str, built: Path) -> Iterator[tuple[str, Finding]]:
    """Yield each finding with the module that it is in."""
    command = [str(program), "-db", address, "-mode", "binary", "-scan", "module"]
    command += ["-format", "json", str(built)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise refuse(
            f"govulncheck {built.name}",
            result.stderr.strip()[-500:],
            allowed="a scan",
            fix=f"run it by hand: {' '.join(command)}",
        )
    known: dict[str, str] = {}
    for message in _messages(result.stdout):
        if "osv" in message:
            known[message["osv"]["id"]] = message["osv"].get("summary", "")
        elif "finding" in message:
            finding = message["finding"]
            module = finding["trace"][0]
            fixed = finding.get("fixed_version") or "no version"
            at = f"{module['module']}@{module.get('version', '?')}, mended in {fixed}"
            text = f"{known.get(finding['osv'], '')} ({at})"
            yield module["module"], Finding(NAME, finding["osv"], built.name, text)


def _messages(text: str) -> Iterator[dict[str, Any]]:
    """Yield govulncheck's messages: JSON objects, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        message, at = decoder.raw_decode(text, at)
        yield message
        while at < len(text) and text[at].isspace():
            at += 1
