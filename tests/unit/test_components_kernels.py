"""Compiled kernels in a pod: what the start script copies in every shell, and what a preview knows before."""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from components.config.gpus import CARDS
from components.config.model_path import MODEL_PATH
from components.config.models import OF_ONE
from components.config.settings import Settings
from components.manifests import kernels
from components.manifests.service import container, environment, start_script
from components.stack import kernel_fit
from components.stack.preflight import kernel_doubts
from local.instance import cache_root
from modelcar.kernels import Target, pack, unpacked
from modelcar.lock import FolderSource, Lock, LockedFile, LockedLayer
from tests.unit.kernel_entries import CACHES, H100, SERVER, entry
from tests.unit.test_components_models import load as load_listed
from tests.unit.test_components_settings import as_pulumi_runs_it, declared, load, problems
from tests.unit.test_google_settings import dev
from tests.unit.test_google_settings import load as load_google

#: BusyBox is what the local stack's pods have; `make` brings it.
BUSYBOX = shutil.which("busybox") or str(cache_root() / "tools/debian/bin/busybox")
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": [BUSYBOX, "sh"]}
CARD = "9.0, NVIDIA H100 80GB HBM3"


class Pod:
    """A pod's start script in a folder of its own: model, caches, and a made-up nvidia-smi."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.folder, self.model = folder, folder / "models"
        self.shell = SHELLS[shell]
        self.model.mkdir()
        self.variables = {
            "HOME": str(folder / "home"),
            "VLLM_CACHE_ROOT": str(folder / "cache/vllm"),
            "TRITON_CACHE_DIR": str(folder / "cache/triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache/torchinductor"),
            kernels.SERVER: SERVER,
        }

    def put(self, target: Target = H100) -> str:
        """Put an entry into the model's folder, read-only as in the image."""
        for path, content in {"fits": target.fits, **CACHES}.items():
            file = self.model / ".kernels" / target.name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o444)
        return target.name

    def cards(self, *lines: str) -> None:
        program = self.folder / "bin/nvidia-smi"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        program.chmod(0o755)

    def start(self, **more: str) -> tuple[int, list[str]]:
        """Run the script; return its status and lines."""
        script = kernels.script(str(self.model)) + "echo served"
        path = f"{self.folder}/bin:/usr/bin:/bin"
        ran = subprocess.run(
            [*self.shell, "-c", script],
            env={**self.variables, "PATH": path, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not ran.stderr
        return ran.returncode, ran.stdout.splitlines()

    def copied(self) -> dict[str, bytes]:
        root = self.folder / "cache"
        return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.fixture(params=SHELLS)
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Pod:
    if not shutil.which(SHELLS[request.param][0]):
        pytest.skip(f"no {request.param} here")
    return Pod(tmp_path, request.param)


def test_what_fits_is_copied_and_can_be_written_to(pod: Pod) -> None:
    name = pod.put()
    pod.cards(CARD)
    assert pod.start() == (0, [f"kernels: used {name}", "served"])
    assert pod.copied() == CACHES
    assert all(file.stat().st_mode & 0o200 for file in (pod.folder / "cache").rglob("*"))
    # A container that is started again has them already.
    assert pod.start() == (0, [f"kernels: used {name}", "served"])


def test_an_image_without_kernels_says_so_and_serves(pod: Pod) -> None:
    assert pod.start() == (0, ["kernels: the image has none", "served"])
    assert pod.start(MODELCAR_KERNELS="off") == (0, ["kernels: off", "served"])


@pytest.mark.parametrize(
    ("cards", "told"),
    [
        (("9.0, NVIDIA H200",), "this is gpu 9.0 x1 NVIDIA H200"),
        ((CARD, CARD), "this is gpu 9.0 x2 NVIDIA H100 80GB HBM3"),
        ((CARD, "9.0, NVIDIA H200"), "this is gpu 0.0 x2 of several kinds"),
        ((), "this is cpu "),
    ],
    ids=["another card", "two cards", "two kinds", "none"],
)
def test_another_device_uses_nothing_and_says_why(pod: Pod, cards: tuple[str, ...], told: str) -> None:
    name = pod.put()
    if cards:
        pod.cards(*cards)
    status, [line, served] = pod.start()
    assert (status, served) == (0, "served")
    assert line.startswith(f"kernels: not used: {name} is for gpu 9.0 x1 NVIDIA H100 80GB HBM3, and {told}")
    assert not (pod.folder / "cache").exists()


def test_another_server_image_uses_nothing(pod: Pod) -> None:
    name = pod.put(dataclasses.replace(H100, server="sha256:" + "6" * 64))
    pod.cards(CARD)
    assert pod.start() == (0, [f"kernels: not used: {name} is for another server image", "served"])


def test_of_several_each_that_fits_is_used(pod: Pod) -> None:
    other = dataclasses.replace(H100, arguments=("--max-model-len=8192",))
    names = sorted([pod.put(), pod.put(other)])
    pod.put(dataclasses.replace(H100, device="NVIDIA H200"))
    pod.cards(CARD)
    assert pod.start()[1][0] == f"kernels: used {' '.join(names)}"


@pytest.mark.skipif(not shutil.which("gcc"), reason="takes a compiler")
def test_what_ninja_built_is_not_built_again(pod: Pod, tmp_path: Path) -> None:
    """FlashInfer runs ninja at each start, which builds anew what has other times than it remembers."""
    ninja = shutil.which("ninja") or next((str(p) for p in cache_root().glob("servers/*/bin/ninja")), None)
    if ninja is None:
        pytest.skip("no ninja here")
    built = tmp_path / "home/.cache/flashinfer/0.6/90a/op"
    built.mkdir(parents=True)
    (built / "op.c").write_text('#include <stdio.h>\nint op(void) { return puts(""); }\n')
    (built / "build.ninja").write_text(
        "rule cc\n  command = gcc -fPIC -MD -MF $out.d -c $in -o $out\n  depfile = $out.d\n  deps = gcc\n"
        "rule ld\n  command = gcc -shared $in -o $out\nbuild op.o: cc op.c\nbuild op.so: ld op.o\n"
    )
    subprocess.run([ninja, "-C", str(built)], check=True, capture_output=True)
    root = tmp_path / "home/.cache/flashinfer"
    files = {f"flashinfer/{f.relative_to(root)}": f for f in root.rglob("*") if f.is_file()}
    times = {path: int(file.stat().st_mtime) for path, file in files.items()}
    content, _ = pack(H100, {path: file.read_bytes() for path, file in files.items()}, times)
    shutil.rmtree(root)
    layer = unpacked(content)
    assert layer is not None
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        archive.extractall(tmp_path, filter="data")
    pod.cards(CARD)
    assert pod.start()[1][0] == f"kernels: used {H100.name}"
    again = subprocess.run([ninja, "-C", str(built)], check=True, capture_output=True, text=True)
    assert "no work to do" in again.stdout


def test_a_processor_is_told_by_its_instructions(pod: Pod) -> None:
    """What the script prints in the pod is what an entry is saved with: it is the same script."""
    ran = subprocess.run(
        [*pod.shell, "-c", f"{kernels.PLACE}modelcar_place"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    kind, capability, count, device = ran.stdout.strip().split(" ", 3)
    assert (kind, count) == ("cpu", "x1")
    name = pod.put(Target(SERVER, kind, device, capability, 1, ()))
    assert pod.start()[1][0] == f"kernels: used {name}"


def test_a_folder_that_cannot_be_written_stops_no_start(pod: Pod) -> None:
    name = pod.put()
    pod.cards(CARD)
    (pod.folder / "file").write_text("")
    status, [line, served] = pod.start(VLLM_CACHE_ROOT=str(pod.folder / "file/below"))
    assert (status, served) == (0, "served")
    assert line.startswith(f"kernels: not used: {name} cannot be copied: ")


def test_where_they_are_required_nothing_starts_without(pod: Pod) -> None:
    status, lines = pod.start(MODELCAR_KERNELS="require")
    assert (status, lines) == (1, ["kernels: the image has none", kernels.NEEDED])
    name = pod.put()
    pod.cards(CARD)
    assert pod.start(MODELCAR_KERNELS="require") == (0, [f"kernels: used {name}", "served"])


def test_neither_kubernetes_nor_kserve_expands_anything_of_it() -> None:
    """Kubernetes expands $(NAME) of a variable that is set, and $$; KServe expands Go templates."""
    script = start_script(load(readAhead=True))
    assert "{{" not in script
    assert "$$" not in script
    names = {entry["name"] for entry in environment(load())}
    assert not [name for name in names if f"$({name})" in script]


# --- what a pod is told


def variables(settings: Settings, **more: bool) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in environment(settings, **more)}


def test_a_pod_is_told_which_server_it_runs_and_a_custom_one_is_as_ever() -> None:
    settings = load()
    assert variables(settings)[kernels.SERVER] == settings.server_image.rpartition("@")[2]
    assert kernels.MODE not in variables(settings)
    assert f"modelcar_kernels {MODEL_PATH}/.kernels" in start_script(settings)
    custom = load(runtime="custom", serverCommand=["serve"], serverArgs=[])
    assert "kernels" not in container(custom)["command"][2]
    assert not {kernels.SERVER, kernels.MODE} & variables(custom).keys()


def test_models_that_share_a_runtime_say_their_own_mode_and_the_runtime_its_server() -> None:
    settings = load(sharedRuntime="shared", kernels="require")
    own, runtime = variables(settings, own=False), variables(settings, extra=False)
    assert own == {kernels.MODE: "require", kernels.FORCE: "1"}
    assert kernels.SERVER in runtime
    assert kernels.MODE not in runtime


def test_kernels_in_an_image_that_somebody_else_built_are_used_only_where_the_stack_says_so() -> None:
    image = f"ghcr.io/o/modelcar@sha256:{'1' * 64}"
    for loaded in (load, as_pulumi_runs_it):
        assert variables(loaded(image=image))[kernels.MODE] == "off"
        assert kernels.MODE not in variables(loaded(image=image, kernels="use"))
        assert variables(loaded(image=image, kernels="require"))[kernels.MODE] == "require"
        assert kernels.MODE not in variables(loaded())


def test_kernels_of_an_image_in_a_list_of_models_are_off_beside_those_of_the_others() -> None:
    image = f"ghcr.io/o/modelcar@sha256:{'1' * 64}"
    defaults = {key: row["default"] for key, row in declared().items() if key not in OF_ONE}
    chat, other = load_listed({"name": "chat"}, {"name": "other", "image": image}, **defaults).models
    assert kernels.MODE not in variables(chat)
    assert variables(other)[kernels.MODE] == "off"


def test_a_server_from_the_machine_is_named_by_its_command_and_folders() -> None:
    first = kernels.server_of(load(serverHostPaths=["/opt/a"], gpuCount=0))
    assert first.startswith("local:")
    assert kernels.server_of(load(serverHostPaths=["/opt/b"], gpuCount=0)) != first


def test_arguments_that_are_in_none_of_vllms_keys_and_secrets_are_left_out() -> None:
    settings = load(
        serverArgs=["--api-key", "s3cret", "--gpu-memory-utilization=0.9", "--max-num-seqs", "8"],
        serverEnv=[
            "VLLM_API_KEY=s3cret",
            "VLLM_USE_FLASHINFER_SAMPLER=0",
            "VLLM_WORKER_MULTIPROC_METHOD=fork",
            "OTHER=1",
        ],
        vllm={"maxModelLen": 4096},
    )
    told = kernels.arguments_of(settings)
    assert told == ("--max-model-len=4096", "--max-num-seqs", "8", "VLLM_USE_FLASHINFER_SAMPLER=0")


# --- the setting, and what a preview knows


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kernels": "always"}, "use"),
        ({"kernels": "require", "runtime": "custom"}, "runtime is custom"),
        ({"kernels": "require", "vllm": {"enforceEager": True}}, "--enforce-eager"),
        ({"kernels": "require", "serverArgs": ["--enforce-eager"]}, "--enforce-eager"),
        ({"serverEnv": ["MODELCAR_SERVER_ID=sha256:1"]}, "MODELCAR_SERVER_ID is set"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    assert any(told in str(problem) for problem in problems(**changes))


def lock_for(settings: Settings, **changes: Any) -> Lock:
    """Return a lock with kernels that fit a model's pods, but for what is changed."""
    target = Target(
        kernels.server_of(settings), "gpu", "NVIDIA H100 80GB HBM3", "9.0", 1, kernels.arguments_of(settings)
    )
    made = entry(dataclasses.replace(target, **changes))[0]
    files = (LockedFile("config.json", 1, "a" * 64),)
    layers = (LockedLayer("sha256:" + "b" * 64, 1, "sha256:" + "b" * 64, ("config.json",)),)
    return Lock("m", FolderSource("x"), None, "none", files, layers, kernels=(made,))


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "server": ({"server": "sha256:" + "7" * 64}, "for another server image (vLLM 0.23.0)"),
    "arguments": ({"arguments": ("--max-model-len=8",)}, "other arguments of the server (---max-model-len=8"),
    "count": ({"count": 2}, "for 2 x NVIDIA H100 80GB HBM3, and its pods have 1 x GPU"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_preview_tells_kernels_that_no_pod_will_use_and_the_command(case: str) -> None:
    settings = load(vllm={"maxModelLen": 4096})
    changes, told = MISFITS[case]
    lock = lock_for(settings, **changes)
    doubt = str(kernel_fit.doubt(settings, lock, "dev"))
    assert told in doubt
    assert "make kernels STACK=dev" in doubt
    required = settings.model_copy(update={"kernels": "require"})
    assert told in str(kernel_fit.unfit(required, lock, "dev"))
    assert kernel_fit.unfit(settings, lock, "dev") is None


def test_kernels_that_fit_raise_no_doubt() -> None:
    settings = load(kernels="require")
    assert kernel_fit.doubt(settings, lock_for(settings), "dev") is None
    assert kernel_fit.unfit(settings, lock_for(settings), "dev") is None
    off = settings.model_copy(update={"kernels": "off"})
    assert kernel_fit.doubt(off, lock_for(settings, count=2), "dev") is None


def test_a_lock_without_kernels_is_no_doubt_unless_they_are_required() -> None:
    settings = load()
    lock = dataclasses.replace(lock_for(settings), kernels=())
    assert kernel_fit.doubt(settings, lock, "dev") is None
    required = settings.model_copy(update={"kernels": "require"})
    assert "its lock has none" in str(kernel_fit.unfit(required, lock, "dev"))


def test_the_pools_card_is_known_before_a_pod_is() -> None:
    settings = load_google(dev(kernels="require"))
    assert settings.google is not None
    lock = lock_for(settings)
    assert f"its pods have 1 x {CARDS[settings.google.nodes.gpu]}" in str(
        kernel_fit.unfit(settings, lock, "dev")
    )


def test_a_stacks_preview_warns_of_each_model_whose_pods_compile_anew() -> None:
    stack = load_listed({"name": "chat"}, {"name": "code"})
    chat, code = stack.models
    locks = {"chat": lock_for(chat, server="sha256:" + "7" * 64), "code": lock_for(code)}
    [doubt] = kernel_doubts(stack, locks, "prod")
    assert doubt.startswith("chat: its kernels are for another server image (vLLM 0.23.0): its pods compile")
    assert doubt.endswith("make kernels STACK=prod ARGS='--model chat'")
