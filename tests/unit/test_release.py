"""`make release`: what stops it, and that nothing changes before all of it has worked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from local.release import checks, evidence
from local.release.__main__ import main
from local.release.repository import Repository
from local.release.versions import of_tags, parse
from modelcar.errors import InputError
from tests.conftest import PROJECT

PYPROJECT = """[build-system]
requires = ["hatchling==1.33.0"]
build-backend = "hatchling.build"

[project]
name = "modelcar-kserve"
version = "0.3.0.dev0"
description = "Made up"
license = "Apache-2.0"
dependencies = ["alpha>=1"]

[project.optional-dependencies]
google = ["gamma"]
"""
HASH = "sha256:" + "0" * 64
LOCK = "".join(
    f"{name} \\\n    --hash={HASH}\n    # via{via}\n"
    for name, via in (
        ("alpha==1.0", "\n    #   modelcar-kserve (pyproject.toml)\n    #   delta"),
        ("beta==2.0 ; sys_platform == 'win32'", " alpha"),
        ("delta==4.0", " modelcar-kserve (pyproject.toml:dev)"),
        ("gamma==3.0", " modelcar-kserve (pyproject.toml)"),
    )
)
NOTES = "### What you must do\n\n- Nothing."
#: Builds what uv does, by names alone; says the time that it was told.
UV = """#!/bin/sh
while [ "$1" != --out-dir ]; do shift; done
version=$(sed -n 's/^version = "\\(.*\\)"$/\\1/p' "$3/pyproject.toml")
for end in -py3-none-any.whl .tar.gz; do
  echo "$SOURCE_DATE_EPOCH $(ls "$3")" > "$2/modelcar_kserve-$version$end"
done
"""
COSIGN = """#!/bin/sh
for word; do case "$word" in --bundle=*) echo "signed $*" > "${word#--bundle=}";; esac; done
"""


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A scratch one that is ready for 0.3.0."""
    for name in ("GITHUB_WORKFLOW_REF", "COSIGN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "somebody@example.com")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("UV", str(program(programs, "uv", UV)))
    program(programs, "cosign", COSIGN)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    made = Repository(tmp_path / "checkout")
    (made.folder / checks.STATES).mkdir(parents=True)
    files = {
        "pyproject.toml": PYPROJECT,
        "requirements.lock": LOCK,
        "CHANGELOG.md": f"# Changelog\n\n## 0.3.0 (2026-12-01)\n\n{NOTES}\n\n## 0.2.0 (2026-01-01)\n- Old.\n",
        "Makefile": "check:\n\t@echo checked\n",
        ".gitignore": "/.local/\n",
        f"{checks.STATES}/0.3.0.json": "{}",
    }
    for name, text in files.items():
        (made.folder / name).write_text(text)
    made.git("init", "--quiet", "--initial-branch=main")
    commit(made)
    return made


def commit(repository: Repository) -> None:
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "Made up")


def run(repository: Repository, *arguments: str) -> int:
    return main(["--project", str(repository.folder), *arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_release_writes_the_version_and_makes_a_tag_of_it(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    before = repository.head
    assert run(repository, "0.3.0") == 0
    said = capsys.readouterr().out
    assert "not signed: no --key" in said
    assert 'version = "0.3.0"\n' in (repository.folder / "pyproject.toml").read_text()
    assert repository.git("rev-parse", "HEAD^") == before
    assert repository.git("cat-file", "-t", "v0.3.0") == "tag", "annotated"
    assert repository.git("rev-list", "-1", "v0.3.0") == repository.head
    assert repository.changes() == []
    folder = repository.folder / ".local/release/0.3.0"
    names = {"modelcar_kserve-0.3.0-py3-none-any.whl", "modelcar_kserve-0.3.0.tar.gz", "sbom.cdx.json"}
    assert set(contents(folder)) == names | {"SHA256SUMS", "provenance.json"}
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == names
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for digest, name in lines)


def test_a_dry_run_makes_the_same_files_and_changes_nothing(repository: Repository, tmp_path: Path) -> None:
    before = repository.git("show-ref", "--head")
    assert run(repository, "0.3.0", "--dry-run", "--out", str(tmp_path / "dry")) == 0
    assert repository.git("show-ref", "--head") == before
    assert repository.changes() == []
    assert run(repository, "0.3.0", "--out", str(tmp_path / "real")) == 0
    assert contents(tmp_path / "dry") == contents(tmp_path / "real")
    assert run(repository, "0.3.0", "--artefacts", "--out", str(tmp_path / "again")) == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "real"), "as the workflow makes them"


def test_nothing_that_is_in_no_commit_is_built(repository: Repository, tmp_path: Path) -> None:
    (repository.folder / ".local").mkdir()
    (repository.folder / "ignored").write_text("of this machine")
    repository.git("update-index", "--refresh")
    (repository.folder / ".git/info/exclude").write_text("ignored\n")
    assert run(repository, "0.3.0", "--dry-run", "--out", str(tmp_path / "out")) == 0
    [wheel] = (tmp_path / "out").glob("*.whl")
    assert wheel.read_text().startswith(repository.time("HEAD")), "the time is the commit's"
    assert "ignored" not in wheel.read_text()


def test_checksums_and_provenance_are_signed_where_a_key_is_given(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("0.3.0", "--dry-run", "--key", "cosign.key", "--out")
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    assert run(repository, *arguments, str(tmp_path / "out")) == 0
    assert "not signed" not in capsys.readouterr().out
    for name in ("SHA256SUMS", "provenance.json"):
        said = (tmp_path / "out" / f"{name}.sigstore.json").read_text()
        assert said.startswith("signed sign-blob --yes --key=cosign.key")
        assert said.strip().endswith(name)


def test_the_real_run_after_the_dry_one_is_as_the_page_says(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "0.3.0", "--dry-run") == 0
    folder = repository.folder / ".local/release/0.3.0"
    dry = contents(folder)
    (folder / "former.sigstore.json").write_text("of another run")
    assert run(repository, "0.3.0", "--key", "gcpkms://key") == 0, capsys.readouterr().err
    signatures = {f"{name}.sigstore.json" for name in ("SHA256SUMS", "provenance.json")}
    assert set(contents(folder)) == set(dry) | signatures
    assert [path.name for path in folder.parent.iterdir()] == ["0.3.0"], "nothing is left beside it"


def not_empty(repository: Repository, _patch: pytest.MonkeyPatch) -> list[str]:
    (repository.folder / ".local/out").mkdir(parents=True)
    (repository.folder / ".local/out/mine").touch()
    return ["--out", str(repository.folder / ".local/out")]


def a_file(repository: Repository, _patch: pytest.MonkeyPatch) -> list[str]:
    (repository.folder / ".local").mkdir()
    (repository.folder / ".local/out").touch()
    return ["--out", str(repository.folder / ".local/out")]


def no_cosign(_repository: Repository, patch: pytest.MonkeyPatch) -> list[str]:
    (Path(os.environ["PATH"].split(os.pathsep)[0]) / "cosign").unlink()
    real = shutil.which
    patch.setattr("shutil.which", lambda name, **more: None if name == "cosign" else real(name, **more))
    return ["--identity"]


def no_password(_repository: Repository, _patch: pytest.MonkeyPatch) -> list[str]:
    return ["--key", "cosign.key"]


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (not_empty, "is not empty"),
        (a_file, "is no folder"),
        (no_cosign, "cosign: not on PATH"),
        (no_password, "COSIGN_PASSWORD: not set"),
    ],
)
def test_what_is_needed_at_the_end_is_looked_at_before_the_checks(
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lacking: Callable[[Repository, pytest.MonkeyPatch], list[str]],
    said: str,
) -> None:
    (repository.folder / "Makefile").write_text("check:\n\t@touch .local/checked\n")
    commit(repository)
    assert run(repository, "0.3.0", *lacking(repository, monkeypatch)) == 1
    assert said in capsys.readouterr().err
    assert not (repository.folder / ".local/checked").exists()
    assert not (repository.folder / ".local/release").exists()


def test_a_build_that_fails_leaves_what_a_former_one_made(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(repository, "0.3.0", "--dry-run") == 0
    folder = repository.folder / ".local/release/0.3.0"
    former = contents(folder)
    monkeypatch.setenv("UV", str(program(tmp_path, "no-uv", "#!/bin/sh\nexit 2\n")))
    assert run(repository, "0.3.0", "--dry-run") == 1
    assert contents(folder) == former
    assert [path.name for path in folder.parent.iterdir()] == ["0.3.0"]


def test_all_that_is_wrong_is_told_at_once_with_the_fix(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.git("tag", "v0.4.0")
    (repository.folder / "CHANGELOG.md").write_text("# Changelog\n\n## 0.3.0 (unreleased)\n\n")
    (repository.folder / f"{checks.STATES}/0.3.0.json").unlink()
    assert run(repository, "0.3.0") == 1
    said = capsys.readouterr().err
    assert "working tree: 2 changes: CHANGELOG.md, tests/fixtures/states/0.3.0.json" in said
    assert "VERSION: 0.3.0, and the last tag is v0.4.0" in said
    assert "CHANGELOG.md: 0.3.0: dated 'unreleased'" in said
    assert "CHANGELOG.md: 0.3.0: an empty section" in said
    assert "MODELCAR_RECORD_STATE=0.3.0 .venv/bin/pytest tests/engine/test_upgrades.py -k record" in said
    assert said.count("allowed: ") == said.count("fix: ") == 5
    assert not (repository.folder / ".local").exists()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("", "VERSION: not set"),
        ("v0.3.0", "VERSION: v0.3.0"),
        ("0.3", "VERSION: 0.3"),
        ("0.3.0.dev0", "VERSION: 0.3.0.dev0"),
        ("0.03.0", "VERSION: 0.03.0"),
        ("0.2.9", "VERSION: 0.2.9, and pyproject.toml is at 0.3.0.dev0"),
        ("0.5.0", "CHANGELOG.md: no section for 0.5.0"),
    ],
)
def test_a_version_that_cannot_be_is_refused(
    repository: Repository, capsys: pytest.CaptureFixture[str], version: str, said: str
) -> None:
    assert run(repository, version) == 1
    found = capsys.readouterr().err
    assert said in found
    assert "allowed: " in found
    assert "fix: " in found


def ready(repository: Repository, version: str) -> None:
    """Commit what a version's release takes."""
    changelog = repository.folder / "CHANGELOG.md"
    changelog.write_text(
        changelog.read_text().replace("\n## ", f"\n## {version} (2026-12-01)\n\n- One.\n\n## ", 1)
    )
    (repository.folder / f"{checks.STATES}/{version}.json").write_text("{}")
    commit(repository)


def write_next(repository: Repository, said: str) -> None:
    """Do what the command said at its end of the version in pyproject.toml."""
    told = re.findall(r"write the next version into pyproject\.toml \((.*)\)", said)
    assert told or "pyproject.toml keeps its version" in said
    for version in told:
        path = repository.folder / "pyproject.toml"
        path.write_text(re.sub(r'version = ".*"', f'version = "{version}"', path.read_text(), count=1))
        commit(repository)


def test_a_former_minor_version_gets_fixes_after_a_newer_one(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "0.3.0") == 0
    repository.git("branch", "stable-0.3")
    write_next(repository, capsys.readouterr().out)
    ready(repository, "0.4.0")
    assert run(repository, "0.4.0") == 0
    repository.git("checkout", "--quiet", "stable-0.3")
    for version in ("0.3.1", "0.3.2"):
        ready(repository, version)
        assert run(repository, version) == 0, capsys.readouterr().err
        write_next(repository, capsys.readouterr().out)
    assert repository.written("HEAD") == "0.3.3.dev0"
    ready(repository, "0.5.0")
    assert run(repository, "0.5.0") == 1
    assert "HEAD: this branch has no release of 0.4, and there is v0.4.0" in capsys.readouterr().err
    repository.git("checkout", "--quiet", "main")
    ready(repository, "0.5.0")
    assert run(repository, "0.5.0") == 0, "with a fix of 0.3 that main does not have"


def test_the_release_comes_after_its_pre_releases(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("0.3.0-rc.1", "0.3.0-rc.2"):
        ready(repository, version)
        assert run(repository, version) == 0, capsys.readouterr().err
        write_next(repository, capsys.readouterr().out)
    assert run(repository, "0.3.0") == 0, capsys.readouterr().err
    write_next(repository, capsys.readouterr().out)
    assert repository.written("HEAD") == "0.4.0.dev0"


@pytest.mark.parametrize(
    ("meanwhile", "said"),
    [
        ("touch new; git add new; git commit --quiet --message Meanwhile", "HEAD: "),
        ("echo '# uncommitted' >> pyproject.toml", "working tree: 1 changes: pyproject.toml"),
        ("touch new", "working tree: 1 changes: new"),
    ],
)
def test_what_changes_while_the_checks_run_is_not_released_unchecked(
    repository: Repository, capsys: pytest.CaptureFixture[str], meanwhile: str, said: str
) -> None:
    (repository.folder / "Makefile").write_text(f"check:\n\t@{meanwhile}\n")
    commit(repository)
    assert run(repository, "0.3.0") == 1
    assert said in capsys.readouterr().err
    assert repository.tags() == []
    assert not (repository.folder / ".local/release").exists()


def test_the_version_is_read_from_the_commit(repository: Repository) -> None:
    text = (repository.folder / "pyproject.toml").read_text()
    (repository.folder / "pyproject.toml").write_text(
        text.replace("0.3.0.dev0", "0.9.0") + "# not committed\n"
    )
    assert repository.written(repository.head) == "0.3.0.dev0"
    made = repository.commit(parse("0.3.0"), repository.head)
    wanted = text.replace("0.3.0.dev0", "0.3.0")
    assert repository.git("show", f"{made}:pyproject.toml") == wanted.strip()
    assert repository.git("diff", "--stat", f"{made}^", made).endswith(
        "1 file changed, 1 insertion(+), 1 deletion(-)"
    )


def test_failed_checks_stop_it_with_their_last_lines(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository.folder / "Makefile").write_text("check:\n\t@echo a finding\n\t@exit 3\n")
    commit(repository)
    before = repository.git("show-ref", "--head")
    assert run(repository, "0.3.0") == 1
    said = capsys.readouterr().err
    assert "make check: exit status 2" in said
    assert "a finding" in said
    assert repository.git("show-ref", "--head") == before


def test_the_arguments_of_make_release_are_not_those_of_its_checks(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository.folder / "Makefile").write_text("check:\n\t@test -z '$(ARGS)$(VERSION)'\n")
    commit(repository)
    monkeypatch.setenv("MAKEFLAGS", " -- ARGS=--dry-run VERSION=0.3.0")
    monkeypatch.setenv("ARGS", "--dry-run")
    assert run(repository, "0.3.0", "--dry-run", "--out", str(tmp_path / "out")) == 0


def test_a_build_that_fails_leaves_no_tag(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UV", str(program(tmp_path, "no-uv", "#!/bin/sh\necho no index >&2\nexit 2\n")))
    before = repository.git("show-ref", "--head")
    assert run(repository, "0.3.0") == 1
    assert "uv build: no index" in capsys.readouterr().err
    assert repository.git("show-ref", "--head") == before


def no_tag(repository: Repository) -> None:
    repository.git("config", "tag.gpgSign", "true")
    repository.git("config", "gpg.program", "false")


def no_merge(repository: Repository) -> None:
    """The branch goes on while the release is built."""
    script = Path(os.environ["UV"])
    ahead = f"git -C {repository.folder} commit --quiet --allow-empty --message Meanwhile"
    script.write_text(script.read_text() + ahead + "\n")


@pytest.mark.parametrize("fails", [no_tag, no_merge])
def test_branch_and_tag_move_together_or_not_at_all(
    repository: Repository, fails: Callable[[Repository], None]
) -> None:
    fails(repository)
    assert run(repository, "0.3.0") == 1
    assert repository.tags() == []
    assert "Release" not in repository.git("log", "--format=%s")
    assert repository.written("HEAD") == "0.3.0.dev0"
    assert repository.changes() == []


def test_a_former_build_is_not_mixed_with_a_new_one(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "0.3.0", "--dry-run", "--out", str(tmp_path / "out")) == 0
    assert run(repository, "0.3.0", "--dry-run", "--out", str(tmp_path / "out")) == 1
    assert "is not empty" in capsys.readouterr().err


def test_the_workflow_builds_the_tags_own_commit_only(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "0.3.0", "--artefacts") == 1
    assert "v0.3.0: there is no such tag" in capsys.readouterr().err
    repository.git("tag", "v0.3.0")
    assert run(repository, "0.3.0", "--artefacts") == 1
    assert "pyproject.toml: version: 0.3.0.dev0" in capsys.readouterr().err
    repository.git("commit", "--quiet", "--allow-empty", "--message", "Later")
    assert run(repository, "0.3.0", "--artefacts") == 1
    assert "git checkout v0.3.0" in capsys.readouterr().err


def test_the_notes_are_the_versions_own_section(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "0.3.0", "--notes") == 0
    assert capsys.readouterr().out == f"{NOTES}\n"
    assert run(repository, "0.3.1", "--notes") == 1


def test_the_bill_of_materials_says_what_the_package_needs(repository: Repository) -> None:
    text = evidence.sbom(repository.folder, parse("0.3.0-rc.1"), "1700000000")
    assert text == evidence.sbom(repository.folder, parse("0.3.0-rc.1"), "1700000000")
    bom = json.loads(text)
    assert bom["metadata"]["component"]["purl"] == "pkg:pypi/modelcar-kserve@0.3.0rc1"
    scopes = {row["name"]: row["scope"] for row in bom["components"]}
    wanted = {"alpha": "required", "beta": "required", "gamma": "optional", "delta": "excluded"}
    assert scopes == wanted
    [beta] = [row for row in bom["components"] if row["name"] == "beta"]
    told = {row["name"]: row["value"] for row in beta["properties"]}
    assert told == {"modelcar:lockedFile": HASH, "modelcar:marker": "sys_platform == 'win32'"}
    needs = {row["ref"]: row.get("dependsOn") for row in bom["dependencies"]}
    assert needs["modelcar-kserve"] == ["alpha==1.0"]
    assert needs["alpha==1.0"] == ["beta==2.0"]


def test_every_locked_package_of_this_project_is_told() -> None:
    packages = {one.name: one for one in evidence.locked((PROJECT / "requirements.lock").read_text())}
    assert {"pulumi", "pydantic", "ruff"} <= set(packages)
    assert all(one.hashes and one.needed_by for one in packages.values())
    text = evidence.sbom(PROJECT, parse("0.3.0"), "0").decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    scopes = {row["name"]: row["scope"] for row in bom["components"]}
    assert set(scopes) == set(packages)
    assert (scopes["pulumi"], scopes["grpcio"], scopes["pulumi-gcp"]) == ("required", "required", "optional")
    assert scopes["ruff"] == "excluded"


def test_the_provenance_names_commit_builder_and_locks(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.git("remote", "add", "origin", "https://user:secret@example.com/team/models.git")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://example.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/models")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    monkeypatch.setenv("GITHUB_WORKFLOW_REF", "team/models/.github/workflows/publish.yml@refs/tags/v0.3.0")
    assert run(repository, "0.3.0", "--out", str(tmp_path / "out")) == 0
    text = (tmp_path / "out/provenance.json").read_text()
    assert "secret" not in text
    assert str(tmp_path) not in text
    statement = json.loads(text)
    lines = [line.split("  ") for line in (tmp_path / "out/SHA256SUMS").read_text().splitlines()]
    assert {row["name"]: row["digest"]["sha256"] for row in statement["subject"]} == {n: d for d, n in lines}
    definition = statement["predicate"]["buildDefinition"]
    commit, *locks = definition["resolvedDependencies"]
    assert commit["uri"] == "git+https://example.com/team/models@refs/tags/v0.3.0"
    assert commit["digest"] == {"gitCommit": repository.head}
    assert {row["name"]: row["digest"]["sha256"] for row in locks} == {
        "requirements.lock": hashlib.sha256(LOCK.encode()).hexdigest()
    }
    details = statement["predicate"]["runDetails"]
    assert details["builder"]["id"].startswith(
        "https://example.com/team/models/.github/workflows/publish.yml"
    )
    assert details["metadata"]["invocationId"] == "https://example.com/team/models/actions/runs/7"


def test_the_provenance_names_every_lock_that_is_committed(tmp_path: Path) -> None:
    project = Repository(PROJECT)
    project.export(project.head, tmp_path)
    named = evidence.materials(tmp_path)
    committed = project.git("ls-tree", "-r", "--name-only", project.head).splitlines()
    assert set(named) == {name for name in committed if name.endswith((".lock", "/go.sum"))}
    assert {"requirements.lock", "local/servers/vllm-cuda.lock", "local/tools/pulumi/go.sum"} <= set(named)


def test_a_source_that_nobody_else_can_reach_is_not_named(repository: Repository) -> None:
    assert repository.source() == ""
    repository.git("remote", "add", "origin", "/home/somebody/models")
    assert repository.source() == ""
    repository.git("remote", "set-url", "origin", "git@example.com:team/models.git")
    assert repository.source() == "https://example.com/team/models"


def test_versions_are_in_the_order_of_semver() -> None:
    names = ["1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-beta.1", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.10.0"]
    tags = [f"v{name}" for name in reversed(names)]
    assert [str(found) for found in of_tags([*tags, "nightly", "v1"])] == names
    assert [parse(name).python for name in ("1.0.0-alpha.2", "1.0.0-rc.1", "1.0.0")] == [
        "1.0.0a2",
        "1.0.0rc1",
        "1.0.0",
    ]
    with pytest.raises(InputError):
        parse("1.0.0-nightly.1")
