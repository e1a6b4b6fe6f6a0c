"""The policy pack under the real CLI: `pulumi preview --policy-pack`, scratch projects, no cluster.

Resources go through the providers of Kubernetes, whose previews work without a cluster, and of Google Cloud.
Types that the stand-in for the latter does not have are declared as components of the same type, for which
the engine needs no provider and asks policy packs as well.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.stack import plugin_variables
from local.tools import collect, kserve_charts
from policy.pack import policies
from policy.rules import RULES
from tests.conftest import PROJECT
from tests.unit.test_policy_cases import (
    CASES,
    IDS,
    KUBERNETES_CASES,
    ONLY_LIVE,
    URI,
    Case,
    Res,
    container,
    model,
    node_pool,
    runtime,
    workload,
)

PROGRAM = """
import json
from pathlib import Path

import pulumi


def made(value):
    if isinstance(value, dict):
        return {key: made(below) for key, below in value.items()}
    if isinstance(value, list):
        return [made(below) for below in value]
    if value == "UNKNOWN":  # in a preview
        return pulumi.Output.from_input(
            pulumi.runtime.rpc.UNKNOWN if pulumi.runtime.is_dry_run() else "nginx:1.27"
        ).apply(str)
    return value


for entry in json.loads(Path("resources.json").read_text()):
    make = pulumi.CustomResource if entry["custom"] else pulumi.ComponentResource
    make(entry["type"], entry["name"], made(entry["properties"]))
"""
#: What the stand-in for the gcp provider has of the types in the cases.
GOOGLE_TYPES = (
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
    "gcp:container/nodePool:NodePool",
    "gcp:projects/iAMMember:IAMMember",
    "gcp:serviceaccount/account:Account",
)
PROJECT_FILE = {
    "name": "scratch",
    "runtime": {"name": "python", "options": {"toolchain": "uv", "virtualenv": str(PROJECT / ".venv")}},
}
STACK_FILE = {"config": {"gcp:project": "my-project-1", "gcp:region": "europe-west4"}}
#: A violation in the CLI's output: policy, resource's name, then the message's four lines.
VIOLATION = re.compile(
    r"- \[mandatory\] \[severity: \w+\]  (?P<policy>\S+)  \(\S+: (?P<name>\S+)\)\n"
    r"(?P<message>(?:\s+(?:rule|resource|reason|fix): .*\n){4})"
)


@dataclass(frozen=True)
class Violation:
    policy: str
    name: str
    message: str


@dataclass(frozen=True)
class Run:
    code: int
    output: str

    @property
    def violations(self) -> list[Violation]:
        found = [
            Violation(m["policy"], m["name"], "\n".join(line.strip() for line in m["message"].splitlines()))
            for m in VIOLATION.finditer(self.output)
        ]
        assert len(found) == self.output.count("[mandatory]"), self.output
        return found


class Cli:
    """A project with one stack, and its previews."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.charts = kserve_charts(print)
        backend = folder / "state"
        backend.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MODELCAR_STATE", str(folder / "local"))  # links to the stand-ins go there
            tools = collect(print, embedded=False, plugins=("kubernetes", "gcp"))
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
        self.environment = {
            **kept,
            "PATH": tools.path,  # the stand-ins that are needed stand at its end
            "PULUMI_BACKEND_URL": backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            **plugin_variables(tools),
            "KUBECONFIG": str(folder / "no-cluster"),
            "MODELCAR_GCP_STANDIN": str(folder / "google.json"),
        }
        (folder / "Pulumi.yaml").write_text(json.dumps(PROJECT_FILE))
        (folder / "Pulumi.test.yaml").write_text(json.dumps(STACK_FILE))
        (folder / "__main__.py").write_text(PROGRAM)
        self.pulumi("stack", "init", "test")

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def declare(self, resources: Sequence[Res], *, components: bool = False) -> None:
        """Make these the program's resources; as components, they need no provider."""
        described = [
            {
                "type": r.type,
                "name": r.name,
                "properties": self._here(r.properties),
                "custom": not components and (r.type.startswith("kubernetes:") or r.type in GOOGLE_TYPES),
            }
            for r in resources
        ]
        (self.folder / "resources.json").write_text(json.dumps(described))

    def _here(self, properties: dict[str, Any]) -> dict[str, Any]:
        """Return properties in which KServe's charts are those of its Go module: the provider reads them."""
        chart = str(properties.get("chart", ""))
        if not chart.startswith("oci://"):
            return properties
        return {**properties, "chart": str(self.charts / chart.rpartition("/")[2])}

    def run(self, command: str, *arguments: str, pack: bool = True) -> Run:
        packs = ("--policy-pack", str(PROJECT / "policy")) if pack else ()
        result = self.pulumi(command, "--stack", "test", *packs, *arguments)
        return Run(result.returncode, result.stdout + result.stderr)

    def preview(self, resources: Sequence[Res], *arguments: str, pack: bool = True) -> Run:
        self.declare(resources)
        return self.run("preview", *arguments, pack=pack)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("policy") / "project")


def apart(number: int, resources: Sequence[Res]) -> list[Res]:
    """Give the resources of a case names and a namespace of their own, to put all cases into one stack."""
    made = []
    for resource in resources:
        properties = copy.deepcopy(resource.properties)
        if "metadata" in properties:
            properties["metadata"]["namespace"] = f"case-{number}"
        made.append(Res(resource.type, f"{resource.name}-{number}", properties))
    return made


@pytest.fixture(scope="module")
def refused(cli: Cli) -> Run:
    return cli.preview([r for number, case in enumerate(CASES) for r in apart(number, case.bad)])


@pytest.fixture(scope="module")
def passed(cli: Cli) -> Run:
    return cli.preview([r for number, case in enumerate(CASES) for r in apart(number, case.good)])


@pytest.mark.parametrize(("number", "case"), [*enumerate(CASES)], ids=IDS)
def test_the_preview_fails_with_rule_resource_reason_and_fix(refused: Run, number: int, case: Case) -> None:
    assert refused.code != 0
    names = {resource.name for resource in apart(number, case.bad)}
    ((policy, message),) = [(v.policy, v.message) for v in refused.violations if v.name in names]
    assert policy == case.policy
    rule, resource, reason, fix = message.splitlines()
    assert rule.startswith("rule: ")
    assert case.found.rpartition("' ")[2] in resource  # without the name, which has the number here
    assert reason.startswith("reason: ")
    assert fix.startswith("fix: ")


def test_every_policy_refuses_something(refused: Run) -> None:
    assert {v.policy for v in refused.violations} == {policy.name for policy in policies(RULES)} - ONLY_LIVE


def test_the_fixed_resources_pass(passed: Run) -> None:
    assert passed.violations == []
    assert passed.code == 0, passed.output
    assert "✅ modelcar@v0.1.0" in passed.output


def test_without_the_pack_the_same_resources_are_previewed(cli: Cli) -> None:
    bad = [r for number, case in enumerate(KUBERNETES_CASES) for r in apart(number, case.bad)]
    assert cli.preview(bad, pack=False).code == 0


def test_unknown_values_pass_and_an_empty_digest_does_not(cli: Cli) -> None:
    unknown: Any = "UNKNOWN"
    pod = {"containers": [container(image=unknown)]}
    resources = [runtime(), model(storageUri=unknown), workload("Deployment", pod)]
    preview = cli.preview(resources)
    assert preview.code == 0, preview.output
    assert "can't be known during preview" not in preview.output

    preview = cli.preview([runtime(), model(storageUri=f"{URI}@")])
    assert preview.code != 0
    (violation,) = preview.violations
    assert "its digest is" in violation.message


def test_an_update_judges_what_the_preview_did_not_know_and_creates_nothing(cli: Cli) -> None:
    cli.declare([workload("Pod", {"containers": [container(image="UNKNOWN")]})], components=True)
    assert cli.run("preview").code == 0
    update = cli.run("up", "--yes", "--skip-preview")
    assert update.code != 0
    assert "image: nginx:1.27" in update.violations[0].message
    state = json.loads(cli.pulumi("stack", "export", "--stack", "test").stdout)
    types = [resource["type"] for resource in state["deployment"].get("resources", [])]
    assert "kubernetes:core/v1:Pod" not in types


def test_the_smallest_disk_is_a_setting(cli: Cli, tmp_path: Path) -> None:
    settings = tmp_path / "policy-config.json"
    settings.write_text(json.dumps({"gpu-node-disk": {"minimumGb": 500}}))
    preview = cli.preview([node_pool(diskSizeGb=400)], "--policy-pack-config", str(settings))
    assert preview.code != 0
    assert "set diskSizeGb to 500 or more" in preview.violations[0].message
    assert cli.preview([node_pool(diskSizeGb=400)]).code == 0
