"""The program through its life, by the real CLI: preview, up, no-op, changed weights, refresh, destroy."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from local.preview import DRIFT
from tests.engine.conftest import STUB_SERVER, Project

URI = re.compile(r"^oci://[^@\s]+@sha256:[0-9a-f]{64}$")


def ops(steps: list[dict[str, object]]) -> dict[str, str]:
    """Map the last part of each changed resource's type to what happens to it."""
    return {str(step["urn"]).split("::")[2].split("$")[-1].split(":")[-1]: str(step["op"]) for step in steps}


def previewed(project: Project, output: str) -> str:
    """Return a stack output's value as a preview shows it to a reviewer."""
    shown = project.pulumi("preview", "--color=never").stdout
    lines = re.findall(rf"^ *[+~]? {output} *: .*$", shown, re.MULTILINE)
    values = {re.findall(r'"([^"]*)"', line)[-1] for line in lines}
    [value] = values  # once among its model's, and once at the top
    return str(value)


def test_life_of_a_stack(project: Project) -> None:
    first = project.preview()
    assert ops(first)["Image"] == "create"
    assert ops(first)["InferenceService"] == "create"
    shown = previewed(project, "storageUri")
    assert URI.match(shown), "a reviewer sees what will be served"

    outputs = project.up()
    assert outputs["storageUri"] == shown
    assert URI.match(outputs["storageUri"])
    assert outputs["storageUri"].endswith(outputs["modelDigest"])
    registry, name = outputs["storageUri"].removeprefix("oci://").split("@")[0].split("/", 1)
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = httpx.get(f"http://{registry}/v2/{name}/manifests/{outputs['modelDigest']}", headers=accept)
    assert manifest.status_code == 200
    assert {layer["mediaType"] for layer in manifest.json()["layers"]} == {
        "application/vnd.oci.image.layer.v1.tar"
    }, "weights do not compress: no layer is gzipped"

    assert project.preview() == []
    assert "unchanged" in project.pulumi("up", "--yes", "--expect-no-changes").stdout

    project.change_weights(seed=7)
    changed = project.preview()
    assert ops(changed)["Image"] == "update"
    assert ops(changed)["InferenceService"] == "update"
    shown = previewed(project, "storageUri")
    again = project.up()
    assert again["storageUri"] == shown, "for an update too, whose digest the provider does not know"
    assert again["modelDigest"] != outputs["modelDigest"]
    live = project.platform.kubectl(
        "-n",
        project.namespace,
        "get",
        "inferenceservice",
        "tiny",
        "-o",
        "jsonpath={.spec.predictor.model.storageUri}",
    )
    assert live == again["storageUri"]

    project.pulumi("refresh", "--yes", "--expect-no-changes")
    project.pulumi("destroy", "--yes")
    gone = project.platform.kubectl("get", "namespace", project.namespace, check=False)
    assert "NotFound" in gone


@pytest.mark.extended
def test_a_failed_up_is_followed_by_one_that_succeeds(project: Project) -> None:
    project.configure(serverCommand=["sh", "-c", "echo no such server >&2; exit 3"], startTimeoutSeconds=15)
    failed = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert failed.returncode
    said = failed.stdout + failed.stderr
    assert "tiny-predictor-" in said, "which pod"
    assert "exit code 3" in said
    project.configure(serverCommand=STUB_SERVER, startTimeoutSeconds=120)
    assert URI.match(project.up()["storageUri"])


def test_drift_is_shown_by_refresh(project: Project) -> None:
    project.up()
    patch = json.dumps({"spec": {"predictor": {"maxReplicas": 3}}})
    project.platform.kubectl(
        "-n", project.namespace, "patch", "inferenceservice", "tiny", "--type=merge", "-p", patch
    )
    shown = project.pulumi(*DRIFT, check=False)
    assert shown.returncode, "someone else's change must not go unseen"
    assert re.search(r"serving.kserve.io/v1beta1:InferenceService: \(update\)", shown.stdout)
    assert "maxReplicas: 3 => 1" in shown.stdout, "which field, and what it is"
    assert "conflict" not in shown.stdout + shown.stderr

    project.pulumi("up", "--yes", "--refresh")  # with its preview, as the workflows run it
    field = ("get", "isvc", "tiny", "-o", "jsonpath={.spec.predictor.maxReplicas}")
    assert project.platform.kubectl("-n", project.namespace, *field) == "1"
    project.pulumi(*DRIFT)


@pytest.mark.extended
def test_what_this_program_does_not_declare_is_no_drift_and_its_loss_is_told(project: Project) -> None:
    """The provider takes kubectl's fields over with the next update of the object, and drops them."""
    project.up()
    project.platform.kubectl("-n", project.namespace, "label", "isvc", "tiny", "team=search")
    project.pulumi(*DRIFT)
    label = ("get", "isvc", "tiny", "-o", "jsonpath={.metadata.labels.team}")
    assert project.platform.kubectl("-n", project.namespace, *label) == "search"

    project.configure(cpu="150m")
    told = project.pulumi("preview", "--refresh")
    assert "kubectl set what this program does not declare; the update drops it" in told.stdout
    assert '- metadata.labels.team: "search"' in told.stdout
