"""The stack as YAML in a Git checkout: pinned, in a stable order, and written only when it changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.config.gitops import GitOpsSettings
from components.config.settings import Settings
from components.config.stack import Stack
from components.manifests.argo_application import LONGEST, Application, name_of
from components.manifests.argo_application import document as document_of
from components.manifests.gitops import (
    HEADER,
    Change,
    Folder,
    changes,
    folders,
    manifests,
    to_yaml,
    write,
)
from components.stack.delivery import to_git
from modelcar import locking
from modelcar.errors import InputError
from modelcar.lock import Lock
from modelcar.tiny_model import make_tiny_model
from operations.__main__ import main
from tests.conftest import PROJECT
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_models import load as load_models
from tests.unit.test_components_settings import load


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_tiny_model(folder / "weights")
    lock(folder)
    return folder


def lock(folder: Path, license: str = "MIT") -> Lock:
    description = locking.Description(folder="weights", license=license)
    return locking.lock_model("tiny", description, locking.resolve(description, folder), folder)[0]


def stack(**changes: Any) -> Stack:
    return Stack((settings(**changes),))


def folder(path: Path, project: Path, **changes: Any) -> Folder:
    return Folder(path, manifests(settings(**changes), project))


def settings(**changes: Any) -> Settings:
    return load(**{"model": "tiny", "namespace": "kserve-demo", "serviceName": "qwen-oci", **changes})


def test_the_service_is_pinned_and_holds_nothing_of_pulumis(project: Path) -> None:
    found = manifests(settings(), project)
    assert list(found) == ["networkpolicy.yaml", "servingruntime.yaml", "inferenceservice.yaml"]
    service = found["inferenceservice.yaml"]
    assert service["spec"]["predictor"]["model"]["storageUri"].startswith(
        "oci://localhost:5000/models/tiny@sha256:"
    )
    assert "pulumi" not in to_yaml(service).removeprefix(HEADER)
    for document in found.values():
        assert document["metadata"]["namespace"] == "kserve-demo"
        assert not {"status", "uid", "resourceVersion"} & {*document, *document["metadata"]}
        assert yaml.safe_load(to_yaml(document)) == yaml.safe_load(to_yaml(yaml.safe_load(to_yaml(document))))


def test_what_the_stack_does_not_have_is_not_written(project: Path) -> None:
    found = manifests(settings(placement="storageUris", egress={"restrict": False}), project)
    assert list(found) == ["inferenceservice.yaml"]
    found = manifests(settings(placement="auto", pullSecret="regcred"), project)
    assert list(found)[:2] == ["serviceaccount.yaml", "networkpolicy.yaml"]
    assert found["inferenceservice.yaml"]["spec"]["predictor"]["serviceAccountName"] == "qwen-oci"
    assert "servingruntime.yaml" in found


def test_the_page_has_every_kind_that_can_be_written(project: Path) -> None:
    everything = {
        "pullSecret": "regcred",
        "ingress": {"namespaces": ["apps"]},
        "prePull": True,
        "maxReplicas": 2,
        "autoscaling": {"triggers": [{"type": "requests", "threshold": 8}], "serverAddress": "http://p:9090"},
    }
    found = manifests(settings(**everything), project)
    assert len(found) == 8
    page = (PROJECT / "docs/operations/gitops.md").read_text()
    told = page.partition("- One file an object: ")[2].partition(".")[0]
    assert [one["kind"] for one in found.values() if one["kind"] not in told] == []


def test_a_password_is_not_written_into_git(project: Path) -> None:
    with pytest.raises(InputError, match="Git is no place for it") as caught:
        manifests(settings(registryUsername="u", registryPassword="s3cret"), project)
    assert "s3cret" not in str(caught.value)


def test_a_second_run_touches_nothing(project: Path, tmp_path: Path) -> None:
    first = write(folder(tmp_path / "apps", project))
    assert {change.what for change in first} == {"new"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "apps").iterdir()}
    assert write(folder(tmp_path / "apps", project)) == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "apps").iterdir()} == before


def test_the_files_are_the_same_in_every_locale(tmp_path: Path) -> None:
    program = """if True:
        from pathlib import Path
        from components.manifests.gitops import Folder, changes, write
        folder = Folder(Path(r"%s"), {"a.yaml": {"prompt": "H\\u00f6flich, bitte: \\u4f60\\u597d"}})
        write(folder)
        assert not list(changes(folder))
        """
    written = []
    for name, locale in (("ascii", "C"), ("utf-8", "C.UTF-8")):
        own = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        command = [sys.executable, "-c", program % (tmp_path / name)]
        subprocess.run(command, cwd=PROJECT, env={**os.environ, **own}, check=True)
        written.append((tmp_path / name / "a.yaml").read_bytes())
    assert written[0] == written[1]
    assert "Höflich, bitte: 你好".encode() in written[0]


def test_a_change_is_shown_line_by_line_before_it_is_written(project: Path, tmp_path: Path) -> None:
    write(folder(tmp_path, project))
    [change] = changes(folder(tmp_path, project, minReplicas=2, maxReplicas=2))
    assert change.path.name == "inferenceservice.yaml"
    assert "-    minReplicas: 1" in change.diff
    assert "+    minReplicas: 2" in change.diff
    assert "minReplicas: 1" in change.path.read_text(), "looking writes nothing"


def test_what_is_no_longer_wanted_is_removed_and_other_files_stay(project: Path, tmp_path: Path) -> None:
    write(folder(tmp_path, project))
    (tmp_path / "kustomization.yaml").write_text("resources: []\n")
    found = write(folder(tmp_path, project, egress={"restrict": False}))
    assert [(change.what, change.path.name) for change in found] == [("removed", "networkpolicy.yaml")]
    assert (tmp_path / "kustomization.yaml").exists()


def test_somebody_elses_file_is_not_overwritten(project: Path, tmp_path: Path) -> None:
    (tmp_path / "inferenceservice.yaml").write_text("kind: InferenceService\n")
    with pytest.raises(InputError, match="was not written by this program"):
        write(folder(tmp_path, project))
    assert (tmp_path / "inferenceservice.yaml").read_text() == "kind: InferenceService\n"


def test_the_application_is_synchronised_by_hand() -> None:
    told = Application("https://git.example/models.git", "apps/qwen")
    found = document_of("kserve-demo-dev", told, "kserve-demo")
    assert found["metadata"] == {"name": "kserve-demo-dev", "namespace": "argocd"}
    assert found["spec"]["source"] == {
        "repoURL": "https://git.example/models.git",
        "targetRevision": "main",
        "path": "apps/qwen",
    }
    assert "automated" not in found["spec"]["syncPolicy"]
    assert found["spec"]["destination"]["namespace"] == "kserve-demo"


def test_a_model_without_a_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.lock"):
        manifests(settings(), tmp_path)


def test_the_command(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("operations.__main__.stack_of", lambda *_: stack())
    out = tmp_path / "apps" / "qwen"
    command = ["--project", str(project), "render", "--stack", "dev", "--out", str(out)]
    command += ["--repository", "https://git.example/models.git", "--path", "apps/qwen"]
    assert main([*command, "--check"]) == 1
    assert not out.exists()
    assert main(command) == 0
    assert "5 files changed" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "inferenceservice.yaml",
        "networkpolicy.yaml",
        "servingruntime.yaml",
    ]
    assert sorted(path.name for path in (tmp_path / "apps/argocd").iterdir()) == [
        "inferenceservice-health.patch",
        "kserve-demo-dev.yaml",
    ]
    assert main([*command, "--check"]) == 0
    assert "0 files would change" in capsys.readouterr().out


def told(**more: Any) -> GitOpsSettings:
    values = {"folder": "apps/qwen", "repository": "https://git.example/models.git"}
    return GitOpsSettings.model_validate({**values, **more})


def test_the_path_in_the_repository_is_found_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    found = Application.of(told(revision="prod"), tmp_path / "x" / ".." / "apps" / "qwen")
    assert found
    assert (found.path, found.revision, found.namespace) == ("apps/qwen", "prod", "argocd")
    said = Application.of(told(path="elsewhere"), Path("/nowhere"))
    assert said
    assert said.path == "elsewhere"
    assert Application.of(told(repository=None), Path("/nowhere")) is None


def test_a_folder_outside_of_git_needs_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gitops\.path"):
        Application.of(told(), tmp_path / "apps" / "qwen")


def test_a_rollback_is_written(project: Path) -> None:
    back = "sha256:" + "9" * 64
    service = manifests(settings(rollbackTo=back), project)["inferenceservice.yaml"]
    assert service["spec"]["predictor"]["model"]["storageUri"].endswith(f"/tiny@{back}")


def delivering(folder: Path, project: Path, **changes: Any) -> Callable[[], dict[str, pulumi.Output[Any]]]:
    found = stack(delivery="gitops", gitops={"folder": str(folder / "apps/qwen")}, **changes)

    def program() -> dict[str, pulumi.Output[Any]]:
        to_git(found, project)
        return {}

    return program


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
def test_up_writes_and_a_preview_only_shows(project: Path, tmp_path: Path, preview: bool) -> None:
    engine = Engine(preview)
    engine.run(delivering(tmp_path, project))
    assert engine.declared == []
    assert (tmp_path / "apps/qwen/inferenceservice.yaml").exists() is not preview


def test_up_says_that_a_sync_has_to_prune_where_files_go(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("components.stack.delivery.pulumi.log.info", lambda text, *_: said.append(text))
    engine = Engine(preview=False)
    engine.run(delivering(tmp_path, project, egress={"restrict": True}))
    engine.run(delivering(tmp_path, project, egress={"restrict": False}))
    first, second = (text.splitlines()[0] for text in said if "files change" in text)
    assert first.endswith("then synchronise in Argo CD")
    assert second.endswith("with prune (argocd app sync --prune), as files are removed")


def test_a_preview_without_a_lock_has_nothing_to_show(tmp_path: Path) -> None:
    engine = Engine(preview=True)
    engine.run(delivering(tmp_path, tmp_path))
    assert not (tmp_path / "apps").exists()


def test_a_folder_that_cannot_be_written_fails_up(project: Path, tmp_path: Path) -> None:
    (tmp_path / "apps").write_text("a file")
    with pytest.raises(pulumi.RunError, match="its objects are not written"):
        Engine(preview=False).run(delivering(tmp_path, project))


# --- a stack with several models


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    make_tiny_model(folder / "weights")
    for name in ("chat", "code"):
        description = locking.Description(folder="weights", license="MIT")
        locking.lock_model(name, description, locking.resolve(description, folder), folder)
    return folder


def both(folder: Path, **more: Any) -> Stack:
    where = {"delivery": "gitops", "gitops": {"folder": str(folder)}}
    return load_models({"name": "chat", **more}, {"name": "code", **more}, **where)


def test_each_model_has_its_files_in_one_folder(two: Path, tmp_path: Path) -> None:
    [folder] = folders(both(tmp_path / "apps"), two)
    names = {change.path.name for change in write(folder)}
    kinds = ("inferenceservice", "networkpolicy", "servingruntime")
    assert names == {f"{name}-{kind}.yaml" for name in ("chat", "code") for kind in kinds}
    assert list(changes(folder)) == []
    alone = load_models({"name": "code"}, delivery="gitops", gitops={"folder": str(tmp_path / "apps")})
    gone = {change.path.name for change in changes(folders(alone, two)[0]) if change.what == "removed"}
    assert gone == {f"chat-{kind}.yaml" for kind in kinds}


def test_a_runtime_that_models_share_is_written_once(two: Path, tmp_path: Path) -> None:
    [folder] = folders(both(tmp_path / "apps", sharedRuntime="vllm"), two)
    runtimes = [name for name in folder.documents if "servingruntime" in name]
    assert runtimes == ["vllm-servingruntime.yaml"]
    assert folder.documents["vllm-servingruntime.yaml"]["metadata"]["name"] == "vllm"
    # No label says it there, so that it may be longer than one.
    [folder] = folders(both(tmp_path / "apps", sharedRuntime="v" * 100), two)
    assert f"{'v' * 100}-servingruntime.yaml" in folder.documents


def test_a_shared_runtime_stays_as_it_is_where_all_its_models_failed(two: Path, tmp_path: Path) -> None:
    where = tmp_path / "apps"
    write(folders(both(where, sharedRuntime="vllm"), two)[0])
    changed = both(where, sharedRuntime="vllm", serverPort=9000)
    assert write(folders(changed, two, failed={"chat", "code"})[0]) == []
    written = {change.path.name for change in write(folders(changed, two, failed={"chat"})[0])}
    assert "vllm-servingruntime.yaml" in written, "the other model's pods need it"


def test_the_files_of_a_model_that_failed_stay_as_they_are(two: Path, tmp_path: Path) -> None:
    where = tmp_path / "apps"
    write(folders(both(where), two)[0])
    before = {path.name: path.read_text() for path in where.iterdir()}
    changed = both(where, cpu="9")
    written = {change.path.name for change in write(folders(changed, two, failed={"chat"})[0])}
    assert written == {"code-inferenceservice.yaml", "code-servingruntime.yaml"}
    assert all((where / name).read_text() == before[name] for name in before if name.startswith("chat-"))


def one(folder: Path, **more: Any) -> Stack:
    """A stack without a list, as many are before they get one."""
    own = {"model": "chat", "namespace": "kserve-demo", "serviceName": "chat", **more}
    return Stack((load(delivery="gitops", gitops={"folder": str(folder)}, **own),))


def names(found: list[Change], what: str) -> set[str]:
    return {change.path.name for change in found if change.what == what}


OBJECTS = {"inferenceservice.yaml", "networkpolicy.yaml", "servingruntime.yaml"}


def test_a_model_that_fails_while_the_stack_gets_a_list_is_not_removed(two: Path, tmp_path: Path) -> None:
    where = tmp_path / "apps"
    write(folders(one(where), two)[0])
    found = write(folders(both(where), two, failed={"chat", "code"})[0])
    assert found == []
    found = write(folders(both(where), two, failed={"chat"})[0])
    assert names(found, "new") == {f"code-{name}" for name in OBJECTS}
    assert names(found, "removed") == set()
    assert {path.name for path in where.iterdir()} >= OBJECTS, "Argo CD would delete what serves"
    # Once it is there too, its objects are in its new files, and once.
    found = write(folders(both(where), two)[0])
    assert names(found, "new") == {f"chat-{name}" for name in OBJECTS}
    assert names(found, "removed") == OBJECTS


def test_what_moved_with_a_model_that_is_there_is_not_in_the_folder_twice(two: Path, tmp_path: Path) -> None:
    where = tmp_path / "apps"
    write(folders(one(where), two)[0])
    found = write(folders(both(where), two, failed={"code"})[0])
    assert names(found, "new") == {f"chat-{name}" for name in OBJECTS}
    assert names(found, "removed") == OBJECTS


@pytest.mark.parametrize(
    "before", [{"serviceName": "assistant"}, {"sharedRuntime": "vllm"}], ids=["renamed", "another runtime"]
)
def test_while_a_model_fails_nothing_goes_that_serves_it(
    two: Path, tmp_path: Path, before: dict[str, Any]
) -> None:
    where = tmp_path / "apps"
    told = {"delivery": "gitops", "gitops": {"folder": str(where)}}
    write(folders(load_models({"name": "chat", **before}, {"name": "code"}, **told), two)[0])
    there = {path.name: path.read_text() for path in where.iterdir()}
    changed = load_models({"name": "chat"}, {"name": "code"}, **told)
    assert write(folders(changed, two, failed={"chat"})[0]) == []
    assert {path.name: path.read_text() for path in where.iterdir()} == there
    assert names(write(folders(changed, two)[0]), "removed")


# --- the Application in Argo CD

REPOSITORY = "https://git.example/deploy.git"
DEV, PROD = "https://dev.example", "https://prod.example"


def argo(where: Path, project: Path, name: str, server: str = DEV, **more: Any) -> list[Change]:
    """Write a stack's Application into WHERE/argocd, and nothing else."""
    folder = where / "apps" / name
    told = {"folder": str(folder), "repository": REPOSITORY, "path": f"apps/{name}", "server": server, **more}
    stack = Stack((settings(delivery="gitops", gitops=told),))
    [_, made] = folders(stack, project, name=name)
    return [change for change in write(made) if change.path.suffix == ".yaml"]


def applications(where: Path) -> dict[str, tuple[str, str, str]]:
    found = {}
    for path in sorted((where / "apps/argocd").glob("*.yaml")):
        written = yaml.safe_load(path.read_text())
        spec = written["spec"]
        place = spec["source"]["path"], spec["destination"]["server"]
        found[path.name] = (written["metadata"]["name"], *place)
    return found


def test_two_stacks_with_one_namespace_have_applications_of_their_own(project: Path, tmp_path: Path) -> None:
    argo(tmp_path, project, "dev", DEV)
    argo(tmp_path, project, "prod", PROD)
    assert applications(tmp_path) == {
        "kserve-demo-dev.yaml": ("kserve-demo-dev", "apps/dev", DEV),
        "kserve-demo-prod.yaml": ("kserve-demo-prod", "apps/prod", PROD),
    }
    assert argo(tmp_path, project, "dev", DEV) == []
    assert argo(tmp_path, project, "prod", PROD) == []


def of_before(where: Path, name: str = "dev", server: str = DEV) -> Path:
    """Write what a version before 0.4.0 did."""
    path = where / "apps/argocd/kserve-demo.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        to_yaml(
            document_of("kserve-demo", Application(REPOSITORY, f"apps/{name}", server=server), "kserve-demo")
        )
    )
    return path


def test_an_application_that_is_there_keeps_its_name(project: Path, tmp_path: Path) -> None:
    path = of_before(tmp_path)
    before = path.read_text()
    assert argo(tmp_path, project, "dev") == []
    assert path.read_text() == before
    # Something else of it changes: the same file.
    assert names(argo(tmp_path, project, "dev", revision="v2"), "changed") == {"kserve-demo.yaml"}
    # Another stack's stays as it is.
    argo(tmp_path, project, "prod", PROD)
    assert applications(tmp_path) == {
        "kserve-demo-prod.yaml": ("kserve-demo-prod", "apps/prod", PROD),
        "kserve-demo.yaml": ("kserve-demo", "apps/dev", DEV),
    }


@pytest.mark.parametrize(("name", "server"), [("prod", DEV), ("dev", PROD)], ids=["path", "server"])
def test_an_application_of_another_stack_is_not_overwritten(
    project: Path, tmp_path: Path, name: str, server: str
) -> None:
    before = of_before(tmp_path).read_text()
    with pytest.raises(
        InputError, match=r"gitops\.application: kserve-demo, and .*kserve-demo\.yaml"
    ) as caught:
        argo(tmp_path, project, name, server, application="kserve-demo")
    [problem] = caught.value.problems
    assert "apps/dev on https://dev.example" in problem.value
    assert "modelcar:gitops.application NAME" in problem.fix
    assert (tmp_path / "apps/argocd/kserve-demo.yaml").read_text() == before


def test_one_that_cannot_be_read_is_not_overwritten_either(project: Path, tmp_path: Path) -> None:
    path = of_before(tmp_path)
    path.write_text(path.read_text() + "<<<<<<< HEAD\n")
    with pytest.raises(InputError, match="which cannot be read"):
        argo(tmp_path, project, "dev", application="kserve-demo")


def foreign(path: Path, what: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"# gr\xfc\xdfe\n")


@pytest.mark.parametrize("what", ["a folder", "no text in UTF-8"])
def test_what_is_no_text_is_somebody_elses(project: Path, tmp_path: Path, what: str) -> None:
    foreign(tmp_path / "apps/argocd/own.yaml", what)
    foreign(tmp_path / "objects/own.yaml", what)
    argo(tmp_path, project, "dev")
    write(folder(tmp_path / "objects", project))
    assert (tmp_path / "apps/argocd/own.yaml").exists()
    assert (tmp_path / "objects/own.yaml").exists()
    foreign(tmp_path / "apps/argocd/kserve-demo-prod.yaml", what)
    with pytest.raises(InputError, match=r"kserve-demo-prod\.yaml: was not written by this program"):
        argo(tmp_path, project, "prod")
    foreign(tmp_path / "others/inferenceservice.yaml", what)
    with pytest.raises(InputError, match=r"inferenceservice\.yaml: was not written by this program"):
        write(folder(tmp_path / "others", project))


@pytest.mark.parametrize("lost", ["metadata", "spec"])
def test_an_application_that_lost_a_part_is_written_anew(project: Path, tmp_path: Path, lost: str) -> None:
    path = of_before(tmp_path)
    path.write_text(
        HEADER + yaml.dump({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != lost})
    )
    found = argo(tmp_path, project, "dev")
    assert names(found, "new") == {"kserve-demo-dev.yaml"}
    assert names(found, "removed") == ({"kserve-demo.yaml"} if lost == "metadata" else set())


def test_a_folder_that_is_a_file_is_told(project: Path, tmp_path: Path) -> None:
    (tmp_path / "app").write_text("")
    with pytest.raises(InputError, match=r"app/\S+: cannot be read: Not a directory"):
        write(folder(tmp_path / "app", project))


def test_a_stack_says_another_name_itself(project: Path, tmp_path: Path) -> None:
    of_before(tmp_path)
    found = argo(tmp_path, project, "dev", application="chat")
    assert (names(found, "new"), names(found, "removed")) == ({"chat.yaml"}, {"kserve-demo.yaml"})
    assert applications(tmp_path) == {"chat.yaml": ("chat", "apps/dev", DEV)}


@pytest.mark.parametrize("stack", ["Prod.EU", "x" * 100, "a_b", "a-b", "-"])
def test_an_applications_name_is_one_of_kubernetes_and_of_one_stack(stack: str) -> None:
    made = name_of("models", stack)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made)
    assert len(made) <= LONGEST
    assert made != name_of("models", f"{stack}.")
    assert name_of("models", "") == "models"
