"""Argo CD itself delivers what `modelcar:delivery gitops` writes: by hand, wholly, and back again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.manifests.argo_health import CONFIG_MAP, FILE, KEY, patch
from local.argocd import NAMESPACE, SERVED, ArgoCD, Deployments, deployments
from local.tool_list import ARGOCD, OLDER_ARGOCD
from tests.conftest import Platform
from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.local.conftest import until

pytestmark = [pytest.mark.extended, pytest.mark.timeout(1800)]


@dataclass(frozen=True, kw_only=True)
class Argo(ArgoCD):
    """Argo CD's command line, on a platform."""

    platform: Platform

    @property
    def is_older(self) -> bool:
        """Tell whether its own health check takes KServe's `Stopped: False` for a fault."""
        return self.program == OLDER_ARGOCD

    def configure(self, *how: str) -> None:
        """Patch its ConfigMap."""
        self.platform.kubectl("-n", NAMESPACE, "patch", "configmap", CONFIG_MAP, *how)

    def until(self, name: str, *wanted: str, refresh: bool = False) -> None:
        """Wait until an Application has a status: of its sync, and of its health where that is said too."""
        until(
            lambda: self.status(name, refresh=refresh)[: len(wanted)] == wanted,
            60,
            lambda: json.dumps(self.application(name)),
        )


@pytest.fixture(scope="module", params=[ARGOCD, OLDER_ARGOCD])
def argo(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Argo]:
    platform.checkout.make("platform", ARGS=f"--with {request.param}")
    folder = tmp_path_factory.mktemp("argocd")
    made = ArgoCD.of(Path(platform.shell["KUBECONFIG"]), folder, request.param)
    argo = Argo(made.kubeconfig, made.program, platform=platform)
    if argo.is_older:
        check = folder / "check.patch"
        check.write_text(patch(NAMESPACE))
        argo.configure("--patch-file", str(check))
    yield argo
    platform.checkout.make("platform", ARGS=f"--without {request.param}")


@pytest.fixture
def git(argo: Argo, tmp_path: Path) -> Iterator[Deployments]:
    with deployments(tmp_path / "git", argo.platform.host) as made:
        yield made


@pytest.fixture
def delivered(argo: Argo, project: Project, git: Deployments) -> Iterator[Project]:
    """A stack whose first version is committed, with its Application, as the docs have it."""
    folder = git.checkout / "apps" / "tiny"
    gitops = {"folder": str(folder), "repository": git.address, "application": project.namespace}
    project.configure(delivery="gitops", gitops=gitops)
    project.up()
    git.commit("first version")
    told = folder.parent / "argocd"
    argo.platform.kubectl("apply", "-f", str(told / f"{project.namespace}.yaml"))
    yield project
    argo("app", "delete", project.namespace, "--cascade", "--yes", check=False)
    left = partial(argo.platform.kubectl, "-n", NAMESPACE, "get", "applications", "-o", "name")
    until(lambda: project.namespace not in left(), 120, left)
    argo.platform.kubectl("delete", "namespace", project.namespace, "--ignore-not-found", "--wait=false")


def service(project: Project) -> dict[str, Any]:
    """Return the InferenceService that is in the cluster."""
    text = project.platform.kubectl("-n", project.namespace, "get", "isvc", "tiny", "-o", "json")
    return dict(json.loads(text))


def uri(project: Project) -> str:
    """Return what the InferenceService in the cluster serves."""
    container = service(project)["spec"]["predictor"]
    text = json.dumps(container)
    start = text.index("oci://")
    return text[start : text.index('"', start)]


def test_a_commit_is_delivered_when_somebody_says_so(
    argo: Argo, delivered: Project, git: Deployments
) -> None:
    project, name = delivered, delivered.namespace
    first = json.loads(project.pulumi("stack", "output", "--json").stdout)["storageUri"]
    argo.until(name, "OutOfSync")
    assert not project.platform.kubectl("get", "namespace", name, "--ignore-not-found"), "nobody said so"

    began = time.monotonic()
    assert argo.sync(name) == ("Synced", "Healthy")
    print(f"sync to Synced and Healthy: {time.monotonic() - began:.1f} s")
    assert uri(project) == first

    # No difference comes back, and a second sync changes nothing.
    before = service(project)["metadata"]["generation"]
    assert argo.status(name, refresh=True) == ("Synced", "Healthy")
    assert argo("app", "diff", name, check=False).returncode == 0
    assert argo.sync(name) == ("Synced", "Healthy")
    assert service(project)["metadata"]["generation"] == before

    # What somebody changes by hand is told and stays, until somebody says so.
    patch = json.dumps({"spec": {"predictor": {"maxReplicas": 2}}})
    project.platform.kubectl("-n", name, "patch", "isvc", "tiny", "--type=merge", "-p", patch)
    assert argo.status(name, refresh=True)[0] == "OutOfSync"
    assert service(project)["spec"]["predictor"]["maxReplicas"] == 2, "self-heal is off"
    assert argo.sync(name) == ("Synced", "Healthy")
    assert service(project)["spec"]["predictor"]["maxReplicas"] == 1

    # A new version waits for its sync, and the former one serves meanwhile.
    project.change_weights(seed=3)
    second = project.up()["storageUri"]
    git.commit("second version")
    assert argo.status(name, refresh=True) == ("OutOfSync", "Healthy")
    assert uri(project) == first
    assert argo.sync(name) == ("Synced", "Healthy")
    assert uri(project) == second != first

    # Back, as anything goes back in Git.
    git.git("revert", "--no-edit", "HEAD")
    git.git("push", "--quiet", "origin", "main")
    assert argo.status(name, refresh=True) == ("OutOfSync", "Healthy")
    assert argo.sync(name) == ("Synced", "Healthy")
    assert uri(project) == first


def test_its_own_health_check_is_as_the_docs_say(argo: Argo, delivered: Project, git: Deployments) -> None:
    """2.14 calls a served model Progressing for ever, and Healthy with the check beside the Application."""
    project, name = delivered, delivered.namespace
    with_own = json.dumps({"data": {KEY: None}})
    argo.configure("--type=merge", "-p", with_own)
    argo("app", "sync", name, "--timeout", str(SERVED))
    ready = f"--timeout={SERVED}s"
    project.platform.kubectl("-n", name, "wait", "isvc/tiny", "--for=condition=Ready", ready)
    argo.until(name, "Synced", "Progressing" if argo.is_older else "Healthy", refresh=True)
    if argo.is_older:
        argo.configure("--patch-file", str(git.checkout / "apps/argocd" / FILE))
        argo.until(name, "Synced", "Healthy", refresh=True)


def test_health_is_what_the_model_does(argo: Argo, delivered: Project, git: Deployments) -> None:
    project, name = delivered, delivered.namespace
    assert argo.sync(name) == ("Synced", "Healthy")

    def health_of(why: str) -> str:
        project.up()
        git.commit(why)
        assert argo.status(name, refresh=True)[0] == "OutOfSync"
        argo("app", "sync", name, "--timeout", str(SERVED))
        return argo.status(name)[1]

    # The check that lies beside the Application calls an idle model healthy; Argo CD's own does not.
    check = git.checkout / "apps/argocd" / FILE
    argo.configure("--patch-file", str(check))
    project.configure(idle=True)
    health_of("idle")
    pods = ("-n", name, "get", "pods", "-o", "name")
    until(lambda: not project.platform.kubectl(*pods), 60, lambda: project.platform.kubectl(*pods))
    argo.until(name, "Synced", "Healthy", refresh=True)
    project.configure(idle=False)
    health_of("awake")
    argo("app", "wait", name, "--sync", "--health", "--timeout", str(SERVED))

    # An image that is not there is never served, and is no healthy model.
    path = git.checkout / "apps/tiny/inferenceservice.yaml"
    good = path.read_text()
    path.write_text(good.replace(uri(project), uri(project).partition("@")[0] + "@sha256:" + "0" * 64))
    git.commit("an image that is not there")
    argo("app", "sync", name, "--timeout", str(SERVED))
    seen = partial(project.platform.kubectl, "-n", name, "get", "pods")
    until(lambda: "ImagePull" in seen(), 60, seen)
    assert argo.status(name, refresh=True)[1] in {"Progressing", "Degraded"}
    path.write_text(good)
    git.commit("back")
    argo.status(name, refresh=True)
    assert argo.sync(name) == ("Synced", "Healthy")

    # What leaves the folder leaves the cluster when somebody says so, and prunes.
    (git.checkout / "apps/tiny/networkpolicy.yaml").unlink()
    git.commit("without the policy")
    assert argo.status(name, refresh=True)[0] == "OutOfSync"
    policies = ("-n", name, "get", "networkpolicy", "-o", "name")
    said = argo("app", "sync", name, "--timeout", str(SERVED), check=False)
    assert "1 resources require pruning" in said.stdout + said.stderr
    assert project.platform.kubectl(*policies), "a sync alone removes nothing"
    argo.sync(name, "--prune")
    assert not project.platform.kubectl(*policies)


def test_an_application_set_makes_one_application_for_each_folder(
    argo: Argo, project: Project, git: Deployments
) -> None:
    """As docs/operations/gitops.md has it, for many stacks in one repository."""
    page = (Path(__file__).parents[2] / "docs/operations/gitops.md").read_text()
    start = page.index("kind: ApplicationSet")
    text = page[page.rindex("```yaml\n", 0, start) + 8 : page.index("```", start)]
    document = yaml.safe_load(text.replace("https://git.example/deploy.git", git.address))
    folder = git.checkout / "apps" / project.namespace
    project.configure(delivery="gitops", gitops={"folder": str(folder)})
    project.up()
    git.commit("first version")
    argo.platform.kubectl("apply", "-f", "-", text=yaml.safe_dump(document))
    try:
        applications = ("-n", NAMESPACE, "get", "applications", "-o", "name")
        seen = partial(argo.platform.kubectl, *applications)
        until(lambda: project.namespace in seen(), 120, seen)
        argo.until(project.namespace, "OutOfSync")
        assert argo.sync(project.namespace) == ("Synced", "Healthy")
    finally:
        argo.platform.kubectl("-n", NAMESPACE, "delete", "applicationset", document["metadata"]["name"])
        argo.platform.kubectl("delete", "namespace", project.namespace, "--ignore-not-found", "--wait=false")
