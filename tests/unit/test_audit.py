"""Findings of scanners: each accepted with a reason, or the audit fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.audit import accepted_go, findings, go, manifests, python
from local.audit.__main__ import main
from local.audit.accepted_go import Reach
from local.audit.findings import Accepted, Finding
from local.instance import PROJECT
from local.tool_build import fingerprint
from local.tool_list import TOOLS, Tool
from modelcar.errors import InputError

ONE = Finding("checkov", "CKV_1", "Deployment.web", "no root")


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_every_accepted_finding_has_a_reason() -> None:
    known = findings.accepted()
    assert known
    assert all(len(entry.reason) > 40 for entry in known), "a reason is a sentence"
    assert len({(entry.ids, entry.where) for entry in known}) == len(known)


@pytest.mark.parametrize(
    "content", ["- {id: X, where: '*'}", "- {id: X, where: '*', reason: ''}", "- X", "a: b", "- {}"]
)
def test_an_entry_without_a_reason_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="a list of entries with id, where and reason"):
        findings.accepted(write(tmp_path / "accepted.yaml", content))


@pytest.mark.parametrize(
    ("where", "id", "stands"),
    [
        ("*", "CKV_1", True),
        ("Deployment.web", "CKV_1", True),
        ("Pod.web", "CKV_1", False),
        ("*", "CKV_2", False),
    ],
)
def test_what_is_accepted_is_accepted_there_only(where: str, id: str, stands: bool) -> None:
    [(finding, entry)] = findings.judge([ONE, ONE], [Accepted((id,), (where,), "because")])
    assert finding == ONE
    assert (entry is not None) is stands


@pytest.mark.parametrize(("known", "status"), [([], 1), ([Accepted(("CKV_1",), ("*",), "because")], 0)])
def test_the_audit_fails_on_what_is_not_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: list[Accepted], status: int
) -> None:
    monkeypatch.setattr("local.audit.__main__.SCANNERS", {"checkov": lambda say, fresh: iter([ONE])})
    monkeypatch.setattr("sys.argv", ["audit"])
    monkeypatch.setattr(findings, "accepted", lambda: known)
    assert main() == status
    assert ("no root" in capsys.readouterr().out) is bool(status)


def test_the_pinned_database_is_written_as_govulncheck_reads_it(tmp_path: Path) -> None:
    source = tmp_path / "osv"
    source.mkdir()
    affected = [{"package": {"name": "example.com/a"}}, {"package": {"name": "example.com/b"}}]
    entry = {"id": "GO-1", "modified": "2026-01-01T00:00:00Z", "affected": affected}
    write(source / "GO-1.json", json.dumps(entry))
    write(source / "GO-2.json", json.dumps({**entry, "id": "GO-2", "withdrawn": "2026-02-01T00:00:00Z"}))
    go._write(source, tmp_path / "db")
    modules = json.loads((tmp_path / "db/index/modules.json").read_text())
    assert [(row["path"], [v["id"] for v in row["vulns"]]) for row in modules] == [
        ("example.com/a", ["GO-1"]),
        ("example.com/b", ["GO-1"]),
    ]
    assert [path.name for path in (tmp_path / "db/ID").iterdir()] == ["GO-1.json"]


def test_every_lock_of_python_packages_is_looked_at() -> None:
    listed = subprocess.run(["git", "ls-files", "*.lock"], cwd=PROJECT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    of_images = {"model.lock", "base.lock"}
    locks = {name for name in listed.stdout.splitlines() if Path(name).name not in of_images}
    assert set(python.LOCKS) == locks


def test_an_index_without_advisories_is_said_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": []}]

    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, json.dumps({"dependencies": rows}), "")

    monkeypatch.setattr(subprocess, "run", run)
    said: list[str] = []
    assert list(python.scan(said.append)) == []
    assert said[0].startswith("NOT AUDITED: 1 of 2 packages of requirements.lock")


def test_an_index_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **given: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired("pip-audit", given["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    said: list[str] = []
    assert list(python.scan(said.append)) == []
    assert said[0] == "NOT AUDITED: requirements.lock: the index did not answer in 120 s"


def unreachable(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 1, "", "ERROR:pip_audit._cli: could not reach pypi.org")


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--fresh"], 1)])
def test_what_cannot_be_asked_of_the_index_counts_where_the_advisories_of_today_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    monkeypatch.setattr(subprocess, "run", unreachable)
    monkeypatch.setattr("sys.argv", ["audit", "pip-audit", *arguments])
    assert main() == status
    said = capsys.readouterr().out
    for lock in python.LOCKS:
        assert f"{lock}: ERROR:pip_audit._cli: could not reach pypi.org" in said
    assert f"{len(python.LOCKS) * status} found" in said


def test_a_known_fault_of_a_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    vulnerable = {"id": "PYSEC-1", "fix_versions": ["2"], "description": "executes\n anything"}
    rows = [{"name": "a", "version": "1", "vulns": [vulnerable]}]

    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, json.dumps({"dependencies": rows}), "")

    monkeypatch.setattr(subprocess, "run", run)
    found = set(python.scan(lambda _: None))
    assert found == {Finding("pip-audit", "PYSEC-1", "a", "a 1, mended in 2: executes anything")}


def test_what_is_scanned_is_what_is_deployed() -> None:
    kinds = [document["kind"] for document in manifests.rendered(manifests.example())]
    assert kinds == ["Deployment", "NetworkPolicy", "NetworkPolicy", "DaemonSet"]
    pod = next(iter(manifests.rendered(manifests.example())))["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 1010
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["name"] == "kserve-container"


REASONS = """reasons:
  - reason: 'runs here alone'  # by hand
    programs: [kubelet, containerd]
  - reason: no pods of that kind
    ids: [GO-2]
    programs: [kubelet]
"""


def test_accepted_vulnerabilities_are_of_programs_that_the_audit_looks_at_each_once() -> None:
    known = accepted_go.read()  # refuses what is there twice, programs of no tool, and what has no reason
    looked_at = {tool.name for tool in go.scanned_tools()}
    assert {program for one in known.vulnerabilities for program in one.programs} <= looked_at
    ids = [one.id for one in known.vulnerabilities]
    assert ids == sorted(set(ids))
    assert all(len(reason.text) > 40 for reason in known.reasons), "a reason is a sentence"


def test_the_committed_entries_are_as_the_command_writes_them(tmp_path: Path) -> None:
    copy = write(tmp_path / "accepted_go.yaml", accepted_go.ACCEPTED.read_text())
    accepted_go.write(accepted_go.read(copy).vulnerabilities, copy)
    assert copy.read_text() == accepted_go.ACCEPTED.read_text()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("  - {id: GO-1, about: a, reached: [kubelet]}\n" * 2, "GO-1 twice"),
        ("  - {id: GO-1, about: a, reached: [kubelet], not_reached: [kubelet]}\n", "GO-1: a program twice"),
        ("  - {id: GO-1, about: a, reached: [nothing]}\n", "local/tool_list.py"),
        ("  - {id: GO-1, about: a, reached: [kube-proxy]}\n", "GO-1: no reason for kube-proxy"),
        ("  - {id: GO-1, about: a}\n", "GO-1"),
        ("  - {id: GO-1, about: a, called: [kubelet]}\n", "called"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, entries: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        accepted_go.read(write(tmp_path / "a.yaml", f"{REASONS}vulnerabilities:\n{entries}"))


def said_by_govulncheck(*findings: tuple[str, str, str]) -> str:
    """Return its messages; findings: id, module, and the function that is there."""
    messages: list[dict[str, Any]] = [{"osv": {"id": id, "summary": f"of {id}"}} for id, _, _ in findings]
    for id, module, function in findings:
        trace = {"module": module, "version": "v1.0.0", **({"function": function} if function else {})}
        messages.append({"finding": {"osv": id, "fixed_version": "v2.0.0", "trace": [trace]}})
    return "\n".join(map(json.dumps, messages))


def test_what_a_scan_finds_is_written_and_the_reasons_stay(tmp_path: Path) -> None:
    entries = (
        "  - {id: GO-1, about: old, reached: [containerd, kubelet]}\n"
        "  - {id: GO-3, about: gone, not_known: [kubelet]}\n"
    )
    path = write(tmp_path / "a.yaml", f"{REASONS}vulnerabilities:\n{entries}")
    output = said_by_govulncheck(
        ("GO-2", "example.com/b", ""), ("GO-1", "example.com/a", "Run"), ("GO-1", "example.com/a", "")
    )
    go.record("kubelet", list(go.parse(output, closely=True)), path)
    assert path.read_text().startswith(REASONS)
    known = accepted_go.read(path)
    assert {one.id: dict(one.programs) for one in known.vulnerabilities} == {
        "GO-1": {"containerd": Reach.YES, "kubelet": Reach.YES},
        "GO-2": {"kubelet": Reach.NO},
    }
    assert known.vulnerabilities[1].about == "example.com/b before v2.0.0: of GO-2"
    reasons = {(entry.ids, entry.where): entry.reason for entry in known.accepted()}
    assert reasons[("GO-2",), ("kubelet",)] == "no pods of that kind"
    assert reasons[("GO-1",), ("kubelet",)] == "runs here alone"


def test_without_symbols_it_is_not_known_what_is_reached() -> None:
    [found] = go.parse(said_by_govulncheck(("GO-1", "example.com/a", "")), closely=False)
    assert found.reach is Reach.NOT_KNOWN


@pytest.fixture
def containerd_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tool:
    """Let containerd be the only program, with what is accepted and found of it."""
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path))
    tool = next(tool for tool in TOOLS if tool.name == "containerd")
    tool.target.parent.mkdir(parents=True)
    tool.target.touch()
    monkeypatch.setattr(go, "find_tool", lambda *_: Path("govulncheck"))
    monkeypatch.setattr(go, "pinned_database", lambda: tmp_path)
    accepted = accepted_go.Vulnerability("GO-1", "a", {"containerd": Reach.YES, "kubelet": Reach.YES})
    reason = accepted_go.Reason("because", ("containerd", "kubelet"))
    monkeypatch.setattr(accepted_go, "read", lambda: accepted_go.File([reason], [accepted]))
    return tool


def test_what_is_accepted_but_no_longer_found_is_reported(
    containerd_here: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(go, "_scan_one", lambda *_: iter(()))
    monkeypatch.setattr(go, "read_stamp", fingerprint)
    said: list[str] = []
    [finding] = go.scan(said.append)
    assert (finding.where, finding.id) == ("containerd", "no longer found")
    assert "GO-1" in finding.text
    assert "--write-go containerd" in finding.text
    [note] = said  # the kubelet is not here
    assert note.startswith("NOTE: not built here, and not looked at: ")
    assert "kubelet" in note
    found = go.scan(said.append, fresh=True)
    assert {one.id for one in found} == {"not built"}, "with the database of today it is a note"
    assert any("GO-1" in line for line in said)


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--fresh"], 1)])
def test_programs_that_are_not_built_count_where_the_advisories_of_today_do(
    containerd_here: Tool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
) -> None:
    monkeypatch.setattr(go, "_scan_one", lambda *_: iter(()))
    monkeypatch.setattr("sys.argv", ["audit", "govulncheck", *arguments])
    assert main() == status
    said = capsys.readouterr().out
    assert ("govulncheck not built, kubelet: not built here" in said) is bool(status)
    assert "not built, containerd:" not in said


def test_all_that_the_audit_looks_at_is_built_where_it_is_asked_for(
    containerd_here: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def provide(tool: Tool, _progress: object) -> Path:
        tool.target.parent.mkdir(exist_ok=True)
        tool.target.touch()
        return tool.target

    monkeypatch.setattr(go, "provide", provide)
    monkeypatch.setattr(go, "_scan_one", lambda *_: iter(()))
    monkeypatch.setattr("sys.argv", ["audit", "govulncheck", "--fresh", "--build"])
    assert main() == 0


def test_the_weekly_audit_builds_what_it_looks_at() -> None:
    workflow = yaml.safe_load((PROJECT / ".github/workflows/audit.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["audit"]["steps"] if "run" in step]
    assert commands == ['make audit ARGS="--fresh --build"']
    assert workflow["jobs"]["audit"]["env"]["MODELCAR_TOOLS"] == "source", "not what makers released"


@pytest.mark.parametrize("target", ["check", "test"])
def test_the_audit_runs_once_and_in_the_tests_once_the_tools_are_there(tmp_path: Path, target: str) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    away = ("ARGS", "BUNDLE", "CACHE", "MAKEFLAGS", "MAKELEVEL", "PYTHON3")
    variables = {key: value for key, value in os.environ.items() if key not in away}
    (tmp_path / "requirements.lock").touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.locked").touch()
    command = ["make", "--dry-run", target]
    said = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    order = re.findall(r"-m (mypy|sphinx|local tools|local\.audit|pytest)\b", said.stdout)
    tests = ["local tools", "local.audit", "pytest", "pytest", "pytest"]
    assert order == ["mypy", "sphinx", *(tests if target == "test" else ["local.audit"])]


def test_modules_of_a_makers_release_are_not_those_of_the_pins(
    containerd_here: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = go._pinned_versions(containerd_here)["golang.org/x/net"]
    rows = [
        go.Found("GO-2", "golang.org/x/net", "v0.1.0", "v0.2.0", "old", Reach.NOT_KNOWN),
        go.Found("GO-3", "golang.org/x/net", pinned, "v9.0.0", "new", Reach.NOT_KNOWN),
    ]
    monkeypatch.setattr(go, "_scan_one", lambda *_: iter(rows))
    said: list[str] = []
    assert [finding.id for finding in go.scan(said.append)] == ["GO-3"]
    assert any("not built from today's pins" in line and "GO-2" in line for line in said)


def test_versions_of_pins_are_those_that_replacements_leave() -> None:
    [kubelet] = [tool for tool in TOOLS if tool.name == "kubelet"]
    versions = go._pinned_versions(kubelet)
    assert versions["k8s.io/kubernetes"] == f"v{kubelet.version}"
    assert versions["k8s.io/api"] == f"v0{kubelet.version[1:]}"


def test_only_programs_that_the_audit_looks_at_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="kaniko"):
        go.write_accepted(["kaniko"], lambda _: None)
