"""`make release` with real programs: what it makes can be installed, and its signatures verified."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from local.release import checks, evidence
from local.release.artefacts import sign
from local.release.repository import Repository
from local.tools import find_tool
from modelcar.errors import InputError
from tests.conftest import PROJECT
from tests.engine.package import uv
from tests.key_pair import PASSWORD, make_key_pair
from tests.unit.test_release import commit, contents, run


@pytest.mark.extended
def test_the_artefacts_of_a_dry_run_install_into_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV", uv())
    clone = Repository(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone.folder)], check=True)
    for key, value in (("user.name", "Somebody"), ("user.email", "somebody@example.com")):
        clone.git("config", key, value)
    changelog = (clone.folder / "CHANGELOG.md").read_text()
    (clone.folder / "CHANGELOG.md").write_text(f"{changelog}\n## 9.9.9 (2026-12-01)\n\n- Made up.\n")
    (clone.folder / f"{checks.STATES}/9.9.9.json").write_text("{}")
    (clone.folder / "Makefile").write_text("check:\n\t@true\n")
    commit(clone)
    for name in ("one", "two"):
        assert run(clone, "9.9.9", "--dry-run", "--out", str(tmp_path / name)) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two"), "the same commit, the same files"

    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "one", check=True)
    wheel = tmp_path / "one/modelcar_kserve-9.9.9-py3-none-any.whl"
    assert zipfile.is_zipfile(wheel)
    environment, python = tmp_path / "environment", tmp_path / "environment/bin/python"
    lock = PROJECT / "requirements.lock"
    install = [uv(), "pip", "install", "--no-config", "--quiet", "--python", str(python)]
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        "".join(f"{one.name}=={one.version}\n" for one in evidence.locked(lock.read_text()))
    )
    subprocess.run([*install, "--constraints", str(constraints), str(wheel)], check=True)
    said = subprocess.run(
        [str(python), "-m", "modelcar_kserve", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "modelcar 9.9.9\n"
    subprocess.run(
        [*install, "--reinstall", "--no-deps", str(wheel.parent / "modelcar_kserve-9.9.9.tar.gz")], check=True
    )


@pytest.mark.extended
def test_signatures_are_those_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cosign = find_tool("cosign", print)
    make_key_pair(cosign, tmp_path, "release")
    monkeypatch.setenv("PATH", str(cosign.parent), prepend=":")
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("of a release\n")

    def verified() -> int:
        options = [
            "--key",
            "release.pub",
            "--bundle",
            f"{sums.name}.sigstore.json",
            "--insecure-ignore-tlog=true",
        ]
        command = [str(cosign), "verify-blob", *options, sums.name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    monkeypatch.setenv("COSIGN_PASSWORD", "another")
    with pytest.raises(InputError, match="cosign cannot sign it"):
        sign([sums], str(tmp_path / "release.key"))
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
    assert [path.name for path in sign([sums], str(tmp_path / "release.key"))] == ["SHA256SUMS.sigstore.json"]
    assert verified() == 0
    sums.write_text("of somebody else\n")
    assert verified() != 0
