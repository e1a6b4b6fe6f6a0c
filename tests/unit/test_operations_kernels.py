"""Kernels are saved out of a stack's own pods: which pods, which caches, and what of them gets into the lock.

The programs that run in a pod run here, on made-up caches.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.cluster.access import ClusterError
from components.config.secrets import Secrets
from components.config.settings import Settings
from components.config.stack import Stack
from components.manifests.kernels import arguments_of
from components.manifests.server_arguments import server_arguments
from components.stack.kernel_fit import misfit
from modelcar import kernel_store, locking
from modelcar.errors import InputError
from modelcar.kernels import fault_of_layer
from modelcar.lock import Lock, lock_path, write_lock
from modelcar.lock_reader import read_lock
from modelcar.tiny_model import make_tiny_model
from operations import kernel_entries, kernels
from operations.__main__ import main
from operations.kernel_reading import ask
from tests.registry_server import Registry as Server
from tests.registry_server import serve
from tests.unit.fake_cluster import FakeCluster
from tests.unit.kernel_entries import AOT, CACHES, entry
from tests.unit.test_components_settings import load

IMAGE = "registry.example/models/tiny@sha256:" + "d" * 64
URI = f"oci://{IMAGE}"
PODS = "/api/v1/namespaces/kserve-demo/pods"
ROOTS = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
}
CARD = "9.0, NVIDIA H100 80GB HBM3"


class PodsHere(FakeCluster):
    """Pods whose containers are folders here: commands run on this machine, with their variables."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.lists[PODS] = folder, []
        self.variables: dict[str, str] = {}

    def add(self, settings: Settings, name: str = "m-1", card: str = CARD, **box: Any) -> Path:
        """Add a ready pod; return the folder of its caches."""
        home = self.folder / name
        smi = home / "bin/nvidia-smi"
        smi.parent.mkdir(parents=True)
        smi.write_text(f"#!/bin/sh\necho '{card}'\n")
        smi.chmod(0o755)
        server = {
            "name": "kserve-container",
            "image": settings.server_image,
            "args": server_arguments(settings),
            "env": [],
            **box,
        }
        self.lists[PODS].append(
            {
                "metadata": {
                    "name": name,
                    "namespace": "kserve-demo",
                    "creationTimestamp": f"2026-01-01T00:00:0{len(self.lists[PODS])}Z",
                },
                "spec": {"containers": [server, {"name": "modelcar", "image": IMAGE}]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
        )
        return home / "cache"

    def execute(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        timeout: float = 0,
        text: str = "",
    ) -> str:
        home = self.folder / pod
        roots = {
            "VLLM_CACHE_ROOT": "vllm",
            "TRITON_CACHE_DIR": "triton",
            "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
        }
        variables = {name: str(home / "cache" / part) for name, part in roots.items()}
        variables |= {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", **self.variables}
        program = [sys.executable, *command[1:]] if command[0] == "python3" else command
        return subprocess.run(program, env=variables, capture_output=True, text=True, check=False).stdout


def fill(cache: Path, files: dict[str, bytes], age: float = 3600) -> None:
    """Write a pod's caches, some time ago."""
    for path, content in files.items():
        file = cache / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (time.time() - age,) * 2)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(kernels, "PAUSE", 0.01)
    with serve() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights")
    locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    return tmp_path


@pytest.fixture
def settings(registry: Server) -> Settings:
    return load(
        registry=f"{registry.host}/models",
        registryInsecure=True,
        model="tiny",
        namespace="kserve-demo",
        serviceName="m",
        vllm={"maxModelLen": 4096},
    )


@pytest.fixture
def cluster(tmp_path: Path) -> PodsHere:
    return PodsHere(tmp_path / "pods")


def save(cluster: PodsHere, settings: Settings, project: Path, **more: Any) -> tuple[kernels.Saved, ...]:
    return kernels.save(cluster, settings, project, URI, **more)


def lock(project: Path) -> Lock:
    return read_lock(lock_path(project, "tiny"))


def test_what_a_pod_compiled_gets_into_lock_registry_and_store(
    cluster: PodsHere, settings: Settings, project: Path, registry: Server
) -> None:
    fill(cluster.add(settings), {**CACHES, f"{AOT}/inductor_cache/locks/c3.lock": b""})
    said: list[str] = []
    [saved] = save(cluster, settings, project, say=said.append)
    [made] = lock(project).kernels
    assert made == saved.entry
    assert (made.target.device, made.target.capability, made.target.count) == (
        "NVIDIA H100 80GB HBM3",
        "9.0",
        1,
    )
    assert made.target.server == settings.server_image.rpartition("@")[2]
    assert made.target.arguments == arguments_of(settings)
    assert registry.blobs[made.digest] == saved.content == kernel_store.kept(project, made)
    assert f"kernels-{made.digest[7:23]}" in registry.manifests
    assert any("4 of 5 files" in line for line in said)
    # Again: the same caches are the same layer, and nothing changes.
    before = lock_path(project, "tiny").read_bytes()
    [again] = save(cluster, settings, project)
    assert (again.changed, lock_path(project, "tiny").read_bytes()) == (False, before)


def test_each_kind_of_card_has_its_own_and_the_newest_pod_of_it_is_taken(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    fill(cluster.add(settings, "m-1"), {**CACHES, "triton/OLD/x": b"1"})
    fill(cluster.add(settings, "m-2"), CACHES)
    fill(cluster.add(settings, "m-3", card="9.0, NVIDIA H200"), CACHES)
    saved = save(cluster, settings, project)
    assert sorted(one.pod for one in saved) == ["m-2", "m-3"]
    assert [one.target.device for one in lock(project).kernels] == ["NVIDIA H100 80GB HBM3", "NVIDIA H200"]
    [named] = save(cluster, settings, project, pod="m-1")
    assert named.pod == "m-1"


def test_entries_for_other_arguments_stay_and_are_told_of(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    fill(cluster.add(settings), CACHES)
    [first] = save(cluster, settings, project)
    longer = load(
        registry=settings.registry,
        model="tiny",
        registryInsecure=True,
        namespace="kserve-demo",
        serviceName="m",
        vllm={"maxModelLen": 8192},
    )
    cluster.lists[PODS].clear()
    fill(cluster.add(longer, "m-2"), CACHES)
    said: list[str] = []
    [second] = save(cluster, longer, project, say=said.append)
    assert {one.name for one in lock(project).kernels} == {first.entry.name, second.entry.name}
    assert any(f"what {first.entry.name} brought" in line for line in said)


def test_pods_of_one_kind_with_other_keys_are_told(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    fill(cluster.add(settings, "m-1"), CACHES)
    fill(cluster.add(settings, "m-2"), {AOT.replace("a1", "c3") + "/rank_0_0/model": b"x"})
    with pytest.raises(InputError, match=r"different keys: m-2 c3c3.*; m-1 a1a1.*") as raised:
        save(cluster, settings, project)
    assert "--pod NAME" in str(raised.value)
    assert [one.pod for one in save(cluster, settings, project, pod="m-1")] == ["m-1"]


@pytest.mark.parametrize(
    ("files", "told", "fix"),
    [
        ({}, "compiled nothing (0 files", "enforceEager"),
        ({"vllm/modelinfos/q.json": b"{}"}, "compiled nothing (1 files", "enforceEager"),
        ({f"{AOT}/inductor_cache/x.py": b"1"}, "is not finished", "delete the pod"),
        ({f"{AOT}/rank_0_0/model.12.tmp": b"1"}, "is not finished", "delete the pod"),
    ],
    ids=["empty", "eager", "broke off", "a temporary file"],
)
def test_a_pod_that_compiled_nothing_whole_is_refused(
    cluster: PodsHere, settings: Settings, project: Path, files: dict[str, bytes], told: str, fix: str
) -> None:
    fill(cluster.add(settings), files)
    with pytest.raises(InputError) as raised:
        save(cluster, settings, project)
    assert told in str(raised.value)
    assert fix in str(raised.value)
    assert lock(project).kernels == ()


def test_caches_that_are_being_written_are_waited_for_and_then_refused(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    cache = cluster.add(settings)
    fill(cache, CACHES)
    fill(cache, {f"{AOT}/rank_0_0/model.12.tmp": b"half"}, age=0)
    said: list[str] = []
    with pytest.raises(InputError, match="still compiles"):
        save(cluster, settings, project, say=said.append)
    assert sum("being written" in line for line in said) == kernels.TRIES - 1


def test_a_secret_of_the_server_never_leaves_the_pod(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    cluster.variables["VLLM_API_KEY"] = "s3cret-of-the-server"
    cache = cluster.add(settings)
    dump = "vllm/torch_compile_cache/0c/rank_0_0/backbone/cache_key_factors.json"
    fill(cache, {**CACHES, dump: b'{"VLLM_API_KEY": "s3cret-of-the-server"}'})
    [saved] = save(cluster, settings, project)  # vLLM's own dump is left out
    assert b"s3cret" not in saved.content
    fill(cache, {"triton/ABCD/options.json": b"s3cret-of-the-server"})
    with pytest.raises(InputError, match="holds a secret") as raised:
        save(cluster, settings, project)
    assert "s3cret" not in str(raised.value)


def test_a_secret_of_the_stack_is_in_neither_lock_nor_layer(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    """Its variable is not named like one, as the server's own are free to be."""
    told = {
        "serverEnv": ["VLLM_PLUGIN=https://robot:hunter2hunter@host", "VLLM_ATTENTION_BACKEND=FLASHINFER"]
    }
    own = settings.model_copy(update={"server_env": tuple(told["serverEnv"])})
    secrets = Secrets.of({"serverEnv": json.dumps(told["serverEnv"])}, {"serverEnv"})
    cluster.variables |= dict(entry.split("=", 1) for entry in told["serverEnv"])
    env = [dict(zip(("name", "value"), entry.split("=", 1), strict=True)) for entry in told["serverEnv"]]
    cache = cluster.add(own, env=env)
    fill(cache, {**CACHES, "triton/ABCD/backend": b"FLASHINFER"})
    save(cluster, own, project, secrets=secrets)
    written = (project / own.lock_path).read_text()
    assert "hunter2" not in written
    assert "VLLM_PLUGIN=pbkdf2:" in written
    assert "other arguments" not in str(misfit(own, lock(project)))
    changed = (f"{told['serverEnv'][0]}er", told["serverEnv"][1])
    other = own.model_copy(update={"server_env": changed})
    assert "other arguments of the server (-VLLM_PLUGIN=pbkdf2:" in str(misfit(other, lock(project)))
    fill(cache, {"triton/ABCD/options.json": b"https://robot:hunter2hunter@host"})
    with pytest.raises(InputError, match=r"options\.json holds a secret") as raised:
        save(cluster, own, project, secrets=secrets)
    assert "hunter2" not in str(raised.value)


OTHERWISE: dict[str, tuple[dict[str, Any], str]] = {
    "image": ({"image": "vllm@sha256:" + "9" * 64}, "runs vllm@sha256:9"),
    "arguments": (
        {"args": ["--enforce-eager"]},
        "other arguments than the stack says: --enforce-eager, ",
    ),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_a_pod_of_another_declaration_is_not_read(
    cluster: PodsHere, settings: Settings, project: Path, case: str
) -> None:
    box, told = OTHERWISE[case]
    fill(cluster.add(settings, **box), CACHES)
    with pytest.raises(InputError, match=told) as raised:
        save(cluster, settings, project)
    assert "pulumi up first" in str(raised.value)


@pytest.mark.parametrize("spelt", [["--api-key", "s3cret"], ["--api-key=s3cret"], ["--api-key", "-s3cret"]])
def test_of_arguments_that_differ_the_names_are_told_and_no_value(
    cluster: PodsHere, settings: Settings, project: Path, spelt: list[str]
) -> None:
    own = server_arguments(settings)
    fill(cluster.add(settings, args=[*own, *spelt, "--max-num-seqs", "4"]), CACHES)
    stack = settings.model_copy(update={"server_args": ("--api-key", "another", "--max-num-seqs", "4")})
    with pytest.raises(InputError, match="than the stack says: --api-key\n") as raised:
        save(cluster, stack, project)
    assert "s3cret" not in str(raised.value)
    assert "another" not in str(raised.value).replace("another declaration", "")


def test_arguments_in_another_order_are_told(cluster: PodsHere, settings: Settings, project: Path) -> None:
    own = server_arguments(settings)
    fill(cluster.add(settings, args=[*own[2:], *own[:2]]), CACHES)
    with pytest.raises(InputError, match="their order"):
        save(cluster, settings, project)


def test_a_pod_of_another_digest_or_none_at_all_is_told(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    with pytest.raises(InputError, match="no pod of it is ready"):
        save(cluster, settings, project)
    fill(cluster.add(settings), CACHES)
    with pytest.raises(InputError, match="and the stack oci://other"):
        kernels.save(cluster, settings, project, "oci://other@sha256:" + "1" * 64)
    with pytest.raises(InputError, match="no pod m-9 of it"):
        save(cluster, settings, project, pod="m-9")


def test_a_pod_whose_cards_cannot_be_told_is_refused(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    fill(cluster.add(settings, card="9.0, A\n9.0, B"), CACHES)
    with pytest.raises(InputError, match="cards of one kind"):
        save(cluster, settings, project)


# --- to another machine


def test_an_archive_brings_them_to_a_machine_without_the_registry(
    cluster: PodsHere, settings: Settings, project: Path, registry: Server
) -> None:
    fill(cluster.add(settings), CACHES)
    out = project / "kernels.tar"
    [saved] = save(cluster, settings, project, out=out, push=False)
    assert not registry.blobs
    with_them = lock_path(project, "tiny").read_bytes()
    kernel_store.kept_path(project, saved.entry.digest).unlink()
    assert kernel_entries.remove(settings, project, [saved.entry.name]) == (saved.entry.name,)
    assert kernel_entries.add(settings, project, str(out)) == (saved.entry,)
    assert lock_path(project, "tiny").read_bytes() == with_them
    assert kernel_store.kept(project, saved.entry) == saved.content == registry.blobs[saved.entry.digest]


def test_an_archive_of_another_model_is_refused(settings: Settings, project: Path) -> None:
    kernel_store.write_archive(project / "other.tar", [entry()], "another")
    with pytest.raises(InputError, match="kernels of another model"):
        kernel_entries.add(settings, project, str(project / "other.tar"))


def test_another_repository_gives_what_the_lock_names(
    settings: Settings, project: Path, registry: Server
) -> None:
    made, content = entry()
    path = lock_path(project, "tiny")
    path.write_bytes(write_lock(dataclasses.replace(lock(project), kernels=(made,))))
    with pytest.raises(InputError, match="neither on this machine nor"):
        kernel_entries.add(settings, project, f"{registry.host}/elsewhere/tiny", insecure=True)
    kernels.push_all(settings, [(made, content)])
    assert kernel_entries.add(settings, project, f"{registry.host}/models/tiny", insecure=True) == (made,)
    assert kernel_store.kept(project, made) == content
    with pytest.raises(InputError, match="there is no such file"):
        kernel_entries.add(settings, project, "./kernels.tar")


def test_the_list_tells_what_fits_and_where_layers_are(settings: Settings, project: Path) -> None:
    made, content = entry()
    path = lock_path(project, "tiny")
    assert "names no kernels" in "".join(kernel_entries.table(kernel_entries.listed(settings, project)))
    path.write_bytes(write_lock(dataclasses.replace(lock(project), kernels=(made,))))
    [row] = kernel_entries.listed(settings, project)
    assert (row["here"], row["registry"], row["fits"]) == (False, False, False)
    assert "layer: nowhere" in "\n".join(kernel_entries.table([row]))
    kernel_store.keep(project, content)
    kernels.push_all(settings, [(made, content)])
    [row] = kernel_entries.listed(settings, project)
    assert (row["here"], row["registry"]) == (True, True)


def test_what_is_not_there_cannot_be_removed(settings: Settings, project: Path) -> None:
    for names in (["mine"], []):
        with pytest.raises(InputError, match="the lock has no kernels"):
            kernel_entries.remove(settings, project, names)
    assert kernel_entries.remove(settings, project, [], every=True) == ()


# --- prompts


def test_prompts_are_answered_alone_and_together_short_and_long(
    cluster: PodsHere, settings: Settings
) -> None:
    bodies: list[dict[str, Any]] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": [{"max_model_len": 128}]})

        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._send({"choices": []})

        def _send(self, document: dict[str, Any]) -> None:
            content = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # they come at the same time; what finds the queue full is reset

    cluster.add(settings)
    [pod] = cluster.lists[PODS]
    with Server(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = settings.model_copy(update={"server_port": server.server_port})
        assert ask(cluster, there, pod) is None
        server.shutdown()
    assert len(bodies) == 50
    assert {body["model"] for body in bodies} == {"tiny"}
    assert max(len(body["prompt"].split()) + body["max_tokens"] for body in bodies) <= 128
    assert "refused" in str(ask(cluster, there, pod)).lower()


def test_what_is_saved_is_the_layer_that_the_lock_names(
    cluster: PodsHere, settings: Settings, project: Path
) -> None:
    fill(cluster.add(settings), CACHES)
    [saved] = save(cluster, settings, project)
    assert fault_of_layer(lock(project).kernels[0], saved.content) is None


@pytest.mark.parametrize("action", ["save", "list", "add", "remove"])
def test_an_image_that_was_built_elsewhere_has_no_lock_to_name_them(
    action: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = settings.model_copy(update={"image": f"ghcr.io/o/m@sha256:{'1' * 64}"})
    monkeypatch.setattr("operations.__main__.stack_of", lambda *_: Stack((image,), listed=False))
    assert main(["kernels", action, "--stack", "dev"]) == 2
    told = capsys.readouterr().err
    assert "modelcar:image: ghcr.io/o/m@sha256" in told
    assert "lock the model" in told


def test_kernels_are_saved_of_a_server_that_is_too_slow_to_answer_prompts(
    cluster: PodsHere, settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cluster.add(settings), CACHES)
    execute = cluster.execute

    def slow(namespace: str, pod: str, container: str, command: Sequence[str], **more: Any) -> str:
        if '"asked"' in " ".join(command):
            raise ClusterError(0, "exec in m-1: it did not end within 300 s")
        return execute(namespace, pod, container, command, **more)

    monkeypatch.setattr(cluster, "execute", slow)
    said: list[str] = []
    [saved] = save(cluster, settings, project, say=said.append)
    assert saved.changed
    assert any("not answered (exec in m-1: it did not end within 300 s)" in line for line in said)
