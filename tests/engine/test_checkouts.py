"""An image that one checkout pushed is unchanged for every other one. Needs no cluster."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.debian import debian_parts
from local.tool_list import tools_folder
from tests.conftest import PROJECT, Checkout, Platform
from tests.engine.test_digest import clean_builder, lock, write_model

PROGRAM = """
from pathlib import Path
from components.kserve.cluster_provider import cluster_provider
from components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from modelcar.base import read_base
from modelcar.lock import lock_path
from modelcar.lock_reader import read_lock
here = Path(__file__).absolute().parent
lock = read_lock(lock_path(here, "tiny"))
ModelcarImage("m", ModelcarImageArgs(lock=lock, base=read_base("amd64"), registry="{registry}", name="tiny",
                                     builder="clean", insecure=True, project=here))
cluster_provider("cluster", None)
"""


@contextmanager
def running_registry(folder: Path) -> Iterator[str]:
    """Run a registry until the block ends; yield its host."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir()
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "registry.yml").write_text(json.dumps(settings))
    program = debian_parts(tools_folder() / "debian", print)["docker-registry"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([program, "serve", folder / "registry.yml"], stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def test_another_checkout_previews_no_difference(checkout: Checkout, tmp_path: Path) -> None:
    """One state, two clones: other path, modes (umask 002), times, line endings and environment."""
    first, clone = tmp_path / "first", tmp_path / "elsewhere" / "clone"
    left_out = shutil.ignore_patterns("data", "models", "__pycache__")
    for part in ("components", "modelcar", "operations"):
        shutil.copytree(checkout.folder / part, first / part, ignore=left_out)
    write_model(first / "tiny-files", seed=1, shards=1)
    lock(first, "tiny")
    runtime = {"name": "python", "options": {"virtualenv": str(PROJECT / ".venv")}}
    (first / "Pulumi.yaml").write_text(json.dumps({"name": "checkouts", "runtime": runtime}))
    shell = checkout.shell()
    shell["PATH"] += f":{PROJECT / 'local/standins/bin'}"  # used where the official plugins are missing
    (tmp_path / "state").mkdir()
    shell["PULUMI_BACKEND_URL"] = (tmp_path / "state").as_uri()
    platform = Platform(checkout, {}, shell)

    with (
        running_registry(tmp_path / "registry") as registry,
        clean_builder(platform, tmp_path / "builder") as (_, builder),
    ):

        def pulumi(folder: Path, *arguments: str, **variables: str) -> str:
            result = subprocess.run(
                ["pulumi", *arguments, "--stack", "test", "--non-interactive"],
                cwd=folder,
                env={**checkout.environment, **shell, **builder, **variables},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stdout + result.stderr
            return result.stdout

        (first / "__main__.py").write_text(PROGRAM.format(registry=f"{registry}/models"))
        pulumi(first, "stack", "init")
        pulumi(first, "up", "--yes", "--skip-preview", KUBECONFIG="")
        shutil.copytree(first, clone, ignore=shutil.ignore_patterns("data"), copy_function=shutil.copyfile)
        for path in clone.rglob("*"):
            path.chmod(0o775 if path.is_dir() else 0o664)
            os.utime(path, (10**9, 10**9))
        dockerfile = clone / "modelcar/Dockerfile"
        dockerfile.write_bytes(dockerfile.read_bytes().replace(b"\n", b"\r\n"))
        home = tmp_path / "home"
        home.mkdir()
        (home / "config.json").write_text('{"auths": {}}')
        own = {
            **{"LC_ALL": "C", "TZ": "Asia/Tokyo", "DOCKER_CONFIG": str(home), "HOME": str(home)},
            **{"PULUMI_HOME": os.environ.get("PULUMI_HOME") or str(Path("~/.pulumi").expanduser())},
            **{"KUBECONFIG": str(tmp_path / "kubeconfig"), "PULUMI_K8S_SUPPRESS_HELM_HOOK_WARNINGS": "true"},
            **{"GOOGLE_PROJECT": "another", "GOOGLE_REGION": "us-east1"},
        }
        shown = json.loads(pulumi(clone, "preview", "--json", **own))
        assert {step["op"] for step in shown["steps"]} == {"same"}
        pulumi(clone, "up", "--yes", "--skip-preview", "--expect-no-changes", **own)


#: Reads what the cluster is like from the environment, as a run gets it from Google.
CLUSTER = """
import os
from components.kserve.cluster_provider import cluster_provider
cluster_provider("cluster", os.environ["REACHED_BY"], identifier=os.environ.get("KNOWN_AS"))
"""


def reached_by(address: str) -> str:
    """Return a kubeconfig as this program makes them; nothing listens there."""
    cluster = {"server": f"https://{address}:9"}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "models", "cluster": cluster}],
            "users": [{"name": "models", "user": {}}],
            "contexts": [{"name": "models", "context": {"cluster": "models", "user": "models"}}],
            "current-context": "models",
        }
    )


def test_a_cluster_is_known_by_its_identifier_and_adding_one_replaces_nothing(
    checkout: Checkout, tmp_path: Path
) -> None:
    """The real provider's own comparison: one that is replaced takes all with it that is in the cluster."""
    project, state = tmp_path / "project", tmp_path / "state"
    left_out = shutil.ignore_patterns("data", "models", "__pycache__")
    for part in ("components", "modelcar"):
        shutil.copytree(checkout.folder / part, project / part, ignore=left_out)
    state.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": str(PROJECT / ".venv")}}
    (project / "Pulumi.yaml").write_text(json.dumps({"name": "identity", "runtime": runtime}))
    (project / "__main__.py").write_text(CLUSTER)
    shell = {**checkout.environment, **checkout.shell(), "PULUMI_BACKEND_URL": state.as_uri()}

    def pulumi(*arguments: str, **cluster: str) -> str:
        result = subprocess.run(
            ["pulumi", *arguments, "--stack", "test", "--non-interactive"],
            cwd=project,
            env={**shell, **cluster},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def steps(**cluster: str) -> set[str]:
        """Return what a preview does with the provider."""
        shown = json.loads(pulumi("preview", "--json", **cluster))
        return {step["op"] for step in shown["steps"] if step["urn"].endswith("::cluster")}

    before, rotated = reached_by("127.0.0.1"), reached_by("127.0.0.2")
    pulumi("stack", "init")
    pulumi("up", "--yes", "--skip-preview", REACHED_BY=before)
    assert "replace" in steps(REACHED_BY=rotated), "as versions before 0.4.0 had it"
    assert steps(REACHED_BY=before, KNOWN_AS="gke-1") == {"update"}
    pulumi("up", "--yes", "--skip-preview", REACHED_BY=before, KNOWN_AS="gke-1")
    assert steps(REACHED_BY=before, KNOWN_AS="gke-1") <= {"same"}
    assert steps(REACHED_BY=rotated, KNOWN_AS="gke-1") == {"update"}
    assert steps(REACHED_BY=before) == {"update"}, "it can be taken away, too"
    assert "replace" in steps(REACHED_BY=rotated, KNOWN_AS="gke-2"), "a new cluster counts as one"
