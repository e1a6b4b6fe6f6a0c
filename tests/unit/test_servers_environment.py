"""Installing a model server's environment: once, whole, and readable by the pod's user."""

from __future__ import annotations

import re
import shutil
import stat
import sys
import sysconfig
from collections import namedtuple
from pathlib import Path

import pytest

from components.manifests.service import own_environment
from local import made_from, servers
from local.gpu import Card, Gpus
from local.servers import environment, present
from modelcar.errors import InputError

LOCKS = Path(environment.__file__).parent
KINDS = ["vllm", "transformers", "vllm-cuda"]

FAKE_UV = """#!/bin/sh
echo "$PWD $*" >> "{log}"
case "$1" in
  cache) echo "{folder}" ;;
  venv)
    for dir; do :; done  # the last argument
    mkdir -p "$dir/bin" "$dir/lib"
    printf '#!/bin/sh\\nexit 0\\n' > "$dir/bin/python3"; chmod 700 "$dir/bin/python3" ;;
  pip)
    if [ -e "{folder}/broken" ]; then echo 'error: connection reset' >&2; exit 2; fi
    venv=$(dirname "$(dirname "$4")")
    echo secret > "$venv/lib/module.py"; chmod 600 "$venv/lib/module.py"; chmod 700 "$venv/lib" ;;
esac
"""


class FakeUv:
    """A uv that records its calls, and fails to install while `broken` exists."""

    def __init__(self, folder: Path) -> None:
        self.program, self.log, self.broken = folder / "uv", folder / "log", folder / "broken"
        self.program.write_text(FAKE_UV.format(log=self.log, folder=folder))
        self.program.chmod(0o755)

    def calls(self, verb: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.split()[1] == verb]


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 100 * 2**30))
    return FakeUv(tmp_path)


Usage = namedtuple("Usage", "total used free")


def install(
    uv: FakeUv, cache: Path, kind: str = "transformers"
) -> tuple[servers.ServerEnvironment, list[str]]:
    lines: list[str] = []
    return servers.ensure(kind, cache, uv.program, lines.append), lines


def test_installs_once_and_says_so(uv: FakeUv, tmp_path: Path) -> None:
    first, said = install(uv, tmp_path / "cache")
    assert [line.split(":")[0] for line in said] == ["transformers 5.23.0"] * 3
    second, said = install(uv, tmp_path / "cache")
    assert said == []
    assert first == second
    assert len(uv.calls("pip")) == 1


def test_packages_are_checked_by_hash_and_no_project_takes_part(uv: FakeUv, tmp_path: Path) -> None:
    install(uv, tmp_path / "cache")
    (call,) = uv.calls("pip")
    assert call.startswith("/ pip sync ")  # run from / : uv reads the settings of a project it is run in
    assert "--require-hashes" in call
    assert str(LOCKS / "transformers.lock") in call


def test_an_installation_that_failed_is_made_again(uv: FakeUv, tmp_path: Path) -> None:
    uv.broken.touch()
    with pytest.raises(InputError, match="connection reset") as caught:
        install(uv, tmp_path / "cache")
    assert "run the command again" in caught.value.problems[0].fix
    uv.broken.unlink()
    server, said = install(uv, tmp_path / "cache")
    assert any("interrupted" in line for line in said)
    assert server.python.exists()


def test_a_changed_lock_installs_again(uv: FakeUv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(uv, tmp_path / "cache")
    elsewhere = tmp_path / "locks"
    shutil.copytree(LOCKS, elsewhere)
    (elsewhere / "transformers.lock").write_text("other==1\n")
    monkeypatch.setattr(environment, "HERE", elsewhere)
    install(uv, tmp_path / "cache")
    assert len(uv.calls("pip")) == 2


def test_an_environment_that_does_not_load_is_not_taken_for_installed(uv: FakeUv, tmp_path: Path) -> None:
    good = uv.program.read_text()
    uv.program.write_text(good.replace("exit 0", "echo libgomp.so.1 is missing >\\&2; exit 1"))
    with pytest.raises(InputError, match="does not load on this machine"):
        install(uv, tmp_path / "cache")
    uv.program.write_text(good)
    install(uv, tmp_path / "cache")
    assert len(uv.calls("pip")) == 2


def test_an_environment_is_tried_with_what_the_program_tells_every_server(uv: FakeUv, tmp_path: Path) -> None:
    """Where nobody has a passwd file, too; and nothing is left in a folder that a pod would share."""
    dump = uv.program.read_text().replace("exit 0", f"env > {tmp_path}/told; exit 0")
    uv.program.write_text(dump)
    install(uv, tmp_path / "cache", "vllm")
    told = dict(line.split("=", 1) for line in (tmp_path / "told").read_text().splitlines())
    assert told["USER"] == told["LOGNAME"] == "model"
    assert told["HF_HUB_OFFLINE"] == told["TRANSFORMERS_OFFLINE"] == "1"
    for name in ("XDG_CACHE_HOME", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert told[name].startswith(f"{told['HOME']}/"), name
    assert told["HOME"] == told["TMPDIR"]
    assert not Path(told["HOME"]).exists()
    assert (
        told["VLLM_CACHE_ROOT"] == f"{tmp_path}/cache/servers/vllm-0.23.0/cache"
    )  # what it finds out is kept


def test_every_user_can_read_the_files_also_from_a_strict_cache(uv: FakeUv, tmp_path: Path) -> None:
    server, _ = install(uv, tmp_path / "cache")
    folder = server.python.parent.parent
    for path in [folder, *folder.rglob("*")]:
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH, path
        assert mode & stat.S_IXOTH or not path.is_dir(), path
    assert server.python.stat().st_mode & stat.S_IXOTH


def test_a_full_disk_is_refused_before_anything_is_installed(
    uv: FakeUv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 2 * 2**30))
    with pytest.raises(InputError, match=r"free disk at .*: 2\.0 GiB") as caught:
        install(uv, tmp_path / "cache", "vllm")
    assert caught.value.problems[0].allowed == "5.5 GiB to install vLLM 0.23.0"
    assert not uv.calls("venv")


@pytest.mark.parametrize("kind", KINDS)
def test_the_pod_is_told_everything(uv: FakeUv, tmp_path: Path, kind: str) -> None:
    server, _ = install(uv, tmp_path / "cache", kind)
    folder = tmp_path / "cache" / "servers"
    assert server.command[0] == str(server.python)
    assert str(server.python).startswith(str(folder))
    assert server.env["PATH"].startswith(f"{server.python.parent}:")
    assert any(str(server.python).startswith(f"{path}/") for path in server.host_paths)
    assert any(f"{made_from.base_python()}".startswith(f"{path}/") for path in server.host_paths)
    for path in server.host_paths:
        assert Path(path).is_dir()
        assert not any(path.startswith(f"{other}/") for other in server.host_paths)
    if kind != "transformers":
        assert server.command[1:] == ["-m", "vllm.entrypoints.openai.api_server"]
        assert (server.python.parent / "lscpu").exists() == (kind == "vllm")
    else:
        assert Path(server.command[1]).read_bytes() == (LOCKS / "transformers_server.py").read_bytes()


def test_our_server_is_refreshed_without_a_new_installation(uv: FakeUv, tmp_path: Path) -> None:
    server, _ = install(uv, tmp_path / "cache")
    script = Path(server.command[1])
    script.write_text("old")
    install(uv, tmp_path / "cache")
    assert script.read_text() != "old"
    assert len(uv.calls("pip")) == 1


def test_auto_has_to_be_resolved_first(uv: FakeUv, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MODELCAR_SERVER"):
        install(uv, tmp_path, "llama")
    with pytest.raises(ValueError, match="choose"):
        install(uv, tmp_path, "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_pins_everything_by_hash_and_names_no_host(kind: str) -> None:
    text = (LOCKS / f"{kind}.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 40
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "index" not in text


@pytest.mark.parametrize(
    ("kind", "list_of_names"),
    [("vllm", "excludes.txt"), ("transformers", "excludes.txt"), ("vllm-cuda", "vllm-cuda-excludes.txt")],
)
def test_a_lock_leaves_out_what_its_server_does_not_load(kind: str, list_of_names: str) -> None:
    text = (LOCKS / f"{kind}.lock").read_text()
    excluded = [line for line in (LOCKS / list_of_names).read_text().splitlines() if line[0] != "#"]
    assert excluded
    assert not [name for name in excluded if re.search(rf"^{re.escape(name)}==", text, re.MULTILINE)]


def test_the_cuda_lock_has_what_was_measured_to_be_needed() -> None:
    text = (LOCKS / "vllm-cuda.lock").read_text()
    for pin in (
        *(
            "vllm==0.23.0",
            "torch==2.11.0",
            "triton==3.6.0",
            "flashinfer-python==0.6.12",
            "transformers==4.57.6",
        ),
        *("huggingface-hub==0.36.2", "tokenizers==0.22.2", "xgrammar==", "nvidia-cuda-nvrtc=="),
    ):
        assert re.search(rf"^{re.escape(pin)}", text, re.MULTILINE), pin


def test_both_locks_agree_so_that_the_second_one_takes_no_more_disk() -> None:
    torch, found = [], re.compile(r"^(?:torch|transformers|nvidia-[a-z0-9-]+)==\S+", re.MULTILINE)
    for kind in ("vllm", "transformers"):
        torch.append(set(found.findall((LOCKS / f"{kind}.lock").read_text())))
    assert torch[1] <= torch[0]


# --- on a GPU ---------------------------------------------------------------------------------------


def on_cards(uv: FakeUv, cache: Path, *capabilities: tuple[int, int]) -> servers.ServerEnvironment:
    cards = [Card(n, "Card", f"GPU-{n}", 1, 1, it, Path("/dev/null")) for n, it in enumerate(capabilities)]
    gpus = Gpus(tuple(cards), "580.65.06", "13.0", None)
    return servers.ensure("vllm-cuda", cache, uv.program, lambda _: None, gpus)


def test_a_gpu_server_compiles_and_captures_graphs_and_has_no_variable_of_the_cpu(
    uv: FakeUv, tmp_path: Path
) -> None:
    server = on_cards(uv, tmp_path / "cache", (9, 0))
    assert server.args == ["--max-model-len=auto"]
    assert not {"TORCH_COMPILE_DISABLE", "OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"} & set(server.env)
    assert not own_environment().keys() & server.env.keys(), "the program's own: caches that can be written"


def test_a_gpu_server_finds_driver_and_compiler_in_the_pod(uv: FakeUv, tmp_path: Path) -> None:
    server = on_cards(uv, tmp_path / "cache", (9, 0))
    assert server.env["LD_LIBRARY_PATH"].split(":")[0] == "/usr/local/nvidia/lib64"
    assert server.env["TRITON_LIBCUDA_PATH"] == "/usr/local/nvidia/lib64"  # there is no /sbin/ldconfig
    assert "/usr/local/nvidia/bin" in server.env["PATH"].split(":")
    mounted = [Path(path) for path in server.host_paths]
    for file in (server.env["CC"], sysconfig.get_paths(scheme="posix_prefix")["include"], "/usr/include"):
        assert any(path in Path(file).parents or path == Path(file) for path in mounted), file


def test_the_drivers_mount_point_lies_in_no_mounted_folder(uv: FakeUv, tmp_path: Path) -> None:
    """Such a folder is read-only: where the machine lacks the mount point, no pod could start."""
    server = on_cards(uv, tmp_path / "cache", (9, 0))
    assert not {"/", "/usr", "/usr/local", "/usr/local/nvidia"} & set(server.host_paths)


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local"])
def test_nor_where_python_is_the_systems_own(
    uv: FakeUv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setattr(environment, "base_python", lambda: Path(prefix) / "bin/python3")
    monkeypatch.setattr("sys.base_prefix", prefix)
    server = on_cards(uv, tmp_path / "cache", (9, 0))
    assert not {"/", "/usr", "/usr/local", "/usr/local/nvidia"} & set(server.host_paths)
    assert f"{prefix}/bin" in server.host_paths
    assert f"{prefix}/lib" in server.host_paths


@pytest.mark.parametrize(
    ("capabilities", "triton"),
    [
        ([(8, 0)], False),
        ([(9, 0), (12, 0)], False),
        ([(7, 5)], True),  # vLLM would take FlashInfer, which needs nvcc
        ([(10, 0)], True),  # or FlashAttention 4, whose language the lock leaves out
        ([(9, 0), (10, 0)], True),
    ],
)
def test_cards_without_ready_made_attention_get_tritons(
    uv: FakeUv, tmp_path: Path, capabilities: list[tuple[int, int]], triton: bool
) -> None:
    args = on_cards(uv, tmp_path / "cache", *capabilities).args
    assert ("--attention-backend=TRITON_ATTN" in args) == triton


@pytest.mark.parametrize(
    ("total", "cards", "memory"), [(8, 1, "6Gi"), (32, 1, "16Gi"), (128, 1, "32Gi"), (64, 2, "16Gi")]
)
def test_a_pod_for_each_card_fits_in_half_of_the_memory(
    uv: FakeUv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, cards: int, memory: str
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(total * 2**30))
    assert on_cards(uv, tmp_path / "cache", *[(9, 0)] * cards).memory == memory


Memory = namedtuple("Memory", "total")


# --- packages that the machine has ------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of packages with torch as the lock has it, and numpy as it has not."""
    folder = tmp_path / f"own/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for name, version in (("torch", "2.11.0+cu130"), ("nvidia_cublas", "13.1.0.3"), ("numpy", "1.0")):
        information = folder / f"{name}-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setenv(present.VARIABLE, str(folder))
    return folder


def test_packages_that_are_there_in_the_locked_version_are_not_installed(
    uv: FakeUv, tmp_path: Path, there: Path
) -> None:
    server, said = install(uv, tmp_path / "cache", "vllm-cuda")
    assert any(f"2 of its packages are those of this machine, in {there}" in line for line in said)
    (call,) = uv.calls("pip")
    installed = Path(call.split()[-1]).read_text()
    assert not re.search(r"^(torch|nvidia-cublas)==", installed, re.MULTILINE)
    assert re.search(r"^numpy==.*\n +--hash", installed, re.MULTILINE)
    assert re.search(r"^torchvision==", installed, re.MULTILINE)
    assert str(there) in server.host_paths


def test_they_come_after_the_environments_own(uv: FakeUv, tmp_path: Path, there: Path) -> None:
    server, _ = install(uv, tmp_path / "cache", "vllm-cuda")
    [pth] = server.python.parent.parent.glob(f"lib/python3*/site-packages/{present.PTH}")
    assert pth.read_text() == f"{there}\n"


def test_another_folder_or_none_installs_again(
    uv: FakeUv, tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(uv, tmp_path / "cache", "vllm-cuda")
    install(uv, tmp_path / "cache", "vllm-cuda")
    assert len(uv.calls("pip")) == 1
    (there / "torch-2.11.0+cu130.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.12.0\n")
    install(uv, tmp_path / "cache", "vllm-cuda")
    assert len(uv.calls("pip")) == 2
    monkeypatch.delenv(present.VARIABLE)
    server, _ = install(uv, tmp_path / "cache", "vllm-cuda")
    assert len(uv.calls("pip")) == 3
    assert uv.calls("pip")[-1].endswith("/vllm-cuda.lock")
    assert not list(server.python.parent.parent.glob(f"lib/python3*/site-packages/{present.PTH}"))
    assert str(there) not in server.host_paths


@pytest.mark.parametrize(
    ("value", "why"),
    [("packages", "not absolute"), ("/no/such/folder", "no folder"), ("python3.8", "packages of python3.8")],
)
def test_a_folder_that_cannot_serve_is_refused(
    uv: FakeUv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    (tmp_path / "python3.8").mkdir()
    monkeypatch.setenv(present.VARIABLE, str(tmp_path / value) if value == "python3.8" else value)
    with pytest.raises(InputError, match="MODELCAR_PRESENT_PACKAGES") as caught:
        install(uv, tmp_path / "cache", "vllm-cuda")
    assert why in caught.value.problems[0].value
    assert not uv.calls("venv")
