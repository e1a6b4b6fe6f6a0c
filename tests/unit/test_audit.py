"""Findings of scanners: each accepted with a reason, or the audit fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local.audit import findings, go, manifests, python
from local.audit.__main__ import main
from local.audit.findings import Accepted, Finding
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
    assert kinds == ["Deployment", "NetworkPolicy", "DaemonSet"]
    pod = next(iter(manifests.rendered(manifests.example())))["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 1010
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["name"] == "kserve-container"
