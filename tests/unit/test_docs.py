"""What the pages say exists: links lead somewhere, commands and settings are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from components.cluster import existing
from components.config.checks.fit import BESIDE_WEIGHTS
from components.config.google import GoogleSettings
from components.config.kserve import KServeSettings
from components.config.loading import OF_STACK, TOP_LEVEL
from components.config.reference import models_of
from local.servers.environment import describe
from local.tool_build import OLDEST_GO
from modelcar.base import read_base
from modelcar.command_help import commands_of
from modelcar.demo_model import TEXT, pieces
from modelcar.image import modelcar_image
from modelcar.lock_reader import read_lock
from operations.__main__ import main
from tests.unit.test_command_help import PARSERS
from tests.unit.test_google_settings import dev, load, problems

PROJECT = Path(__file__).parents[2]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=PROJECT, capture_output=True, text=True, check=True)
PAGES = [PROJECT / name for name in LISTED.stdout.splitlines()]
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
#: Keys of former versions, told as such.
FORMER = {"weights", "modelSize", "baseImage"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings by GitHub's rule, which drops dots and other signs."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w -]", "", shown).replace(" ", "-")
        times = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", one) is not None for one in found)
        found.append(f"{anchor}-{times}" if times else anchor)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", text)
    pages = [(page.parent / link if link else page, anchor) for link, anchor in links if "://" not in link]
    assert [anchor for other, anchor in pages if other.suffix == ".md" and anchor not in anchors(other)] == []


def test_dots_are_no_part_of_an_anchor(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# `a.b.c`, [D e](x.md)\n\n```\n# no heading\n```\n\n## Same\n\n## Same\n")
    assert anchors(page) == {"abc-d-e", "same", "same-1"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_make_targets_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```.*?```", text, flags=re.DOTALL))
    targets = set(re.findall(r"`make ([a-z-]+)", text)) | set(
        re.findall(r"^make ([a-z-]+)", blocks, re.MULTILINE)
    )
    assert targets <= TARGETS
    keys = set(re.findall(r"\bmodelcar:([a-z][A-Za-z]+)", text)) - {"google", "kserve"}
    assert keys <= TOP_LEVEL | OF_STACK | FORMER, "a setting that there is not"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_tests_that_show_a_claim_exist(page: Path) -> None:
    for name, function in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text()):
        assert (PROJECT / name).exists(), name
        assert f"def {function}" in (PROJECT / name).read_text(), f"{name} has no {function}"


def table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table with a head, as cells."""
    text = (PROJECT / page).read_text()
    assert text.count(f"\n{head}\n") == 1, head
    rows = text.partition(f"\n{head}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_workflows_are_told_with_the_variables_that_they_take() -> None:
    workflows = {path.name: path.read_text() for path in (PROJECT / ".github/workflows").glob("*.yml")}
    page = "docs/google-cloud.md"
    shown = {row[0] for row in table(page, "| workflow | when | does |")}
    assert shown == {f"`{name}`" for name in workflows}
    taken = set(re.findall(r"\$\{\{ (?:vars|secrets)\.(\w+)", "\n".join(workflows.values())))
    told = " ".join(row[0] for row in table(page, "| variable | what |"))
    assert taken == set(re.findall(r"`([A-Z_]+)`", told))


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield file, environment and definition of each job; one of each stack where a matrix has them."""
    for path in sorted((PROJECT / ".github/workflows").glob("*.yml")):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            environment = str(job.get("environment", ""))
            stacks = job.get("strategy", {}).get("matrix", {}).get("stack", [""])
            for stack in stacks:
                yield path.name, environment.replace("${{ matrix.stack }}", stack), job


def test_what_a_pull_request_runs_shares_no_environment() -> None:
    """Its secrets and its account would be those of code that nobody has reviewed."""
    by_file = {name: {one for file, one, _ in jobs() if file == name and one} for name, _, _ in jobs()}
    of_requests = by_file.pop("pull-request.yml")
    assert of_requests == {"preview"}
    assert not of_requests & set[str]().union(*by_file.values())
    assert by_file["drift.yml"] == {"drift-dev", "drift-prod"}, "what opens one state opens no other"


def test_each_environment_is_told_with_its_rule_and_its_account() -> None:
    page = (PROJECT / "docs/google-cloud.md").read_text()
    rows = table("docs/google-cloud.md", "| environment | workflow | GitHub lets in | its account |")
    assert {(f"`{one}`", f"`{file}`") for file, one, _ in jobs() if one} == {(row[0], row[1]) for row in rows}
    [made] = re.findall(r"^for environment in (.*); do$", page, re.MULTILINE)
    with_account = {one for _, one, job in jobs() if "google-github-actions/auth" in str(job)}
    assert set(made.split()) == with_account
    assert "/attribute.environment/$environment" in page
    assert "assertion.repository_id ==" in page


def test_the_preview_is_shown_in_a_comment_of_the_workflows_own() -> None:
    """Anybody may write one that begins so, and edit it after the run."""
    [comment] = [step for _, _, job in jobs() for step in job["steps"] if "issues.updateComment" in str(step)]
    script = comment["with"]["script"]
    assert "comment.user?.login === 'github-actions[bot]' && comment.body.startsWith(mark)" in script
    assert script.index("core.summary") < script.index("issues.updateComment"), "where nobody else edits"
    assert "pull_request.head.sha" in script
    assert comment["env"]["OUTCOME"] == "${{ steps.preview.outcome }}"


def test_whatever_asks_google_asks_its_cluster_too() -> None:
    """Pulumi says nothing of a cluster that it gets no token for, and previews what is declared as it is."""
    asking = [(name, str(job)) for name, _, job in jobs() if "google-github-actions/auth" in str(job)]
    assert asking
    assert [name for name, job in asking if "'install_components': 'gke-gcloud-auth-plugin'" not in job] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_identities_of_signatures_name_the_repository(page: Path) -> None:
    """cosign looks for a pattern anywhere: a workflow of that name in anybody's repository would count."""
    found = re.findall(r"--certificate-identity(-regexp)?[ =]'?(\S+?)'?[\s`]", page.read_text())
    start = {"": "https://github.com/OWNER/", "-regexp": r"^https://github\.com/OWNER/"}
    assert [said for kind, said in found if not said.startswith(start[kind])] == []


def test_a_pre_release_is_not_deployed_to_prod() -> None:
    workflow = yaml.safe_load((PROJECT / ".github/workflows/release.yml").read_text())
    assert workflow[True] == {"release": {"types": ["published"]}}, "which a pre-release is too"
    newest, deploys = workflow["jobs"]["newest"], workflow["jobs"]["up"]
    assert newest["if"] == "${{ !github.event.release.prerelease }}"
    assert "environment" not in newest, "nobody is asked to approve what is not deployed"
    assert (deploys["environment"], deploys["needs"]) == ("prod", ["newest"])


@pytest.mark.parametrize(
    ("tags", "published", "deployed"),
    [
        (["v0.4.0", "v0.3.0"], "v0.4.0", True),
        (["v0.3.1", "v0.4.0", "v0.3.0"], "v0.3.1", False),
        (["v0.10.0", "v0.9.0"], "v0.10.0", True),
    ],
)
def test_a_fix_of_a_former_version_is_not_deployed_to_prod(
    tags: list[str], published: str, deployed: bool, tmp_path: Path
) -> None:
    """It would put prod back."""
    workflow = yaml.safe_load((PROJECT / ".github/workflows/release.yml").read_text())
    [look] = workflow["jobs"]["newest"]["steps"]
    assert workflow["jobs"]["up"]["if"] == "${{ needs.newest.outputs.tag == github.event.release.tag_name }}"
    (tmp_path / "gh").write_text(f"#!/bin/sh\nprintf '%s\\n' {' '.join(tags)}\n")
    (tmp_path / "gh").chmod(0o755)
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TAG": published, "GITHUB_REPOSITORY": "o/r"}
    command = ["bash", "-e", "-o", "pipefail", "-c", look["run"]]
    done = subprocess.run(command, env={**variables, **files}, capture_output=True, text=True, check=True)
    [output] = (tmp_path / "GITHUB_OUTPUT").read_text().splitlines()
    assert (output == f"tag={published}") == deployed
    assert ("is not deployed to prod" in done.stdout) == (not deployed)


def test_the_page_on_google_has_each_key_of_its_settings() -> None:
    def keys(section: type[BaseModel]) -> Iterator[str]:
        for field in section.model_fields.values():
            inner = [f"{field.alias}.{key}" for one in models_of(field.annotation) for key in keys(one)]
            yield from inner or [str(field.alias)]

    page = (PROJECT / "docs/google-cloud.md").read_text()
    wanted = [*keys(KServeSettings), *(key for key in keys(GoogleSettings) if not key.startswith("pools."))]
    assert [key for key in [*wanted, "pools"] if f"`{key}`" not in page] == []


def test_samples_are_of_the_demo_model_that_is_locked() -> None:
    digest = modelcar_image(
        read_lock(PROJECT / "modelcar/models/tiny-qwen2/model.lock"), read_base("amd64")
    ).digest
    for page in ("README.md", "docs/operations/validation.md"):
        said = (PROJECT / page).read_text()
        shown = re.findall(r"(?:tiny-qwen2@|digest  )(sha256:[0-9a-f]+)", said)
        assert shown, page
        assert [one for one in shown if not digest.startswith(one)] == [], page
    # `said` is the page of `make validate`, whose answers have eight tokens.
    assert f"→ {''.join(pieces()[:8])!r}" in said
    assert f"answer  {TEXT!r}" in (PROJECT / "README.md").read_text()


def test_readme_says_what_a_machine_needs() -> None:
    page = (PROJECT / "README.md").read_text()
    needs = page.partition("## Two commands")[2].partition("```")[0]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (PROJECT / "pyproject.toml").read_text())
    assert oldest
    for part in (
        "Debian",  # local/debian.py: apt-get and dpkg-deb
        f"Python {oldest[1]} or newer",
        "python3-venv",  # Makefile: uv where it is not on PATH
        f"Go {'.'.join(map(str, OLDEST_GO))} or newer",
    ):
        assert part in needs


def test_memory_of_pods_on_the_cpu_is_told_with_a_model_of_ones_own(tmp_path: Path) -> None:
    large, small = (
        describe(kind, tmp_path).memory.replace("Gi", " GiB") for kind in ("vllm", "transformers")
    )
    for name in ("README.md", "docs/local-stack.md"):
        page = (PROJECT / name).read_text()
        assert f"a pod has {large}" in page, name
        assert re.search(rf"{small}\b.{{0,40}}small server|small server {small}", page), name
    assert f"parameter and {BESIDE_WEIGHTS} GiB more" in (PROJECT / "README.md").read_text().replace(
        "\n", " "
    )


def test_the_sample_of_autoscaling_fits_dev_with_the_command_below_it() -> None:
    page = (PROJECT / "docs/operations/autoscaling.md").read_text()
    [sample] = re.findall(r"```yaml\n(modelcar:minReplicas.*?)```", page, re.DOTALL)
    [nodes] = re.findall(r"^pulumi config set --stack dev --path modelcar:(\S+ \d+)$", page, re.MULTILINE)
    key, number = nodes.split()
    values = {name.removeprefix("modelcar:"): value for name, value in yaml.safe_load(sample).items()}
    [refused] = problems(**values)
    assert refused.key == "modelcar:maxReplicas"
    assert load(dev(**values, **{key: int(number)})).max_replicas == values["maxReplicas"]


def test_a_project_of_a_template_uses_its_own_environment() -> None:
    page = (PROJECT / "docs/package.md").read_text()
    [block] = re.findall(r"```\n([^`]*pulumi new [^`]*)```", page)
    [template] = re.findall(r"pulumi new \S+/(templates/\S+)", block)
    made = yaml.safe_load((PROJECT / template / "Pulumi.yaml").read_text())
    bin_folder = f"{made['runtime']['options']['virtualenv']}/bin/"
    assert [line for line in block.splitlines() if "modelcar-kserve lock" in line] == [
        f"{bin_folder}modelcar-kserve lock my-model --hub OWNER/NAME"
    ]


def test_each_run_on_a_gpu_is_named_with_the_tested_versions() -> None:
    page = (PROJECT / "docs/support.md").read_text()
    assert [one.name for one in PROJECT.glob("docs/gpu-*.md") if f"({one.name})" not in page] == []


def test_what_an_operation_is_for_is_told_with_the_operations() -> None:
    page = (PROJECT / "docs/operations/README.md").read_text()
    operations = commands_of(PARSERS["python -m operations"])
    assert (
        set(re.findall(r"`python -m operations ([a-z|]+) --stack", page)[-1].split("|")) == operations.keys()
    )
    whole = {name for name, parser in operations.items() if "--model" not in parser.format_help()}
    [told] = re.findall(r"((?:`[a-z]+`,? (?:and )?)+)are for the whole stack", page)
    assert set(re.findall(r"`([a-z]+)`", told)) == whole


def test_objects_that_are_not_taken_over_unasked_are_told() -> None:
    section = (
        (PROJECT / "docs/troubleshooting.md")
        .read_text()
        .partition("## `is there already")[2]
        .partition("\n## ")[0]
    )
    first = section.partition("right before it makes one")[0]
    assert [kind for kind in existing.KINDS if kind not in first.replace("Policies", "Policy")] == []


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """Yield program and line of each command in a page's blocks, and of those in its text that sign."""
    text = page.read_text()
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines += [one.replace("\n", " ") for one in inline if " sign " in one]
    for line in lines:
        command = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
        for program in PARSERS:
            if command.startswith(f"{program} "):
                yield program, re.split(r" (?:\||&&|>)", command)[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_commands_can_be_typed(page: Path) -> None:
    for program, command in commands(page):
        words = shlex.split(command.removeprefix(program), comments=True)
        options = PARSERS[program].parse_args(words)
        if options.command == "sign":
            assert options.public_key or options.identity or "://" in (options.key or ""), command


def test_every_target_is_explained_by_make_help() -> None:
    text = (PROJECT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE)) - {"env", "static"}
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony == explained


@pytest.mark.parametrize(
    "command", ["smoke", "validate", "nodes", "coldstart", "revisions", "former", "prune"]
)
def test_operations_that_the_pages_name_are_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--stack" in capsys.readouterr().out


def test_the_commands_of_the_local_stack_are_there() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "local", "--help"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("doctor", "rollback", "runbook", "coldstart"):
        assert target in said
