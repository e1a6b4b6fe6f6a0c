"""Make a server's Python environment, once, and say how a pod runs it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from components.manifests.service import own_environment
from local import expected, made_from
from local.alone import alone
from local.gpu import Gpus
from local.made_from import MARKER, base_python
from local.servers import present
from local.servers.choice import RELEASES, c_compiler, choose, environment_folder
from local.uv import NO_UV
from modelcar.errors import InputError, refuse
from modelcar.progress import working

HERE = Path(__file__).resolve().parent
GIB = 2**30

#: Where a pod finds the driver: GKE's device plugin mounts it there, and so does the local stack's.
DRIVER = "/usr/local/nvidia"
DRIVER_LIBRARIES = f"{DRIVER}/lib64"
#: Cards (major compute capability) on which vLLM takes FlashAttention 2 or 3, which its wheel holds, by
#: itself (vllm/platforms/cuda.py). On the others it would take FlashInfer, which compiles with nvcc, or
#: FlashAttention 4, whose CuTe DSL is left out here.
FLASH_ATTENTION = (8, 9, 12)
#: GiB of memory that a pod with a GPU gets, at most and at least; between them, half of the machine's, shared
#: by its cards.
MOST_MEMORY, LEAST_MEMORY = 32, 6

Progress = Callable[[str], None]


@dataclass
class ServerEnvironment:
    """How a pod runs a model server that lives on the host.

    kind: `vllm-cuda`, `vllm` or `transformers`.
    python: the environment's interpreter, the same path on the host and in the pod.
    command: the command; `--model DIR --served-model-name NAME --port N` and `args` follow it.
    args: flags that fit a small model on a CPU, or the machine's GPU.
    env: environment of the container, on top of what the program tells every server
        (`components.manifests.service.own_environment`).
    host_paths: folders of the host to mount read-only at the same path: the environment, the Python that
        it was made with, and the C libraries; for a GPU the C compiler too.
    memory: Kubernetes quantity that the tiny model runs in, used as request and limit.
    """

    kind: str
    python: Path
    command: list[str]
    args: list[str]
    env: dict[str, str]
    host_paths: list[str]
    memory: str


def ensure(
    kind: str, cache: Path, uv: Path, progress: Progress, gpus: Gpus | None = None
) -> ServerEnvironment:
    """Install the environment of a server where it is not installed yet, and describe it.

    The packages and their hashes come from the lock beside this file. An installation that was
    interrupted, or that was made from another lock or with another Python, is made again. One that came out
    of a bundle stays: only `make up BUNDLE=…` can make it again.

    Args:
        kind: `vllm-cuda`, `vllm` or `transformers` (see `choose` for `auto`).
        cache: folder for what is built once; the environment goes to `servers/KIND-VERSION` in it.
        uv: the uv program.
        progress: gets one line before and one after whatever takes long.
        gpus: the cards that `vllm-cuda` serves on.

    Raises:
        InputError: the kind is unknown, MODELCAR_PRESENT_PACKAGES is wrong, the disk is too full, packages
            cannot be had, or the environment does not work on this machine.
    """
    if kind not in RELEASES:
        choose(kind, 0, 0, obstacles=())  # an unknown name is refused there
        raise ValueError("auto has to be resolved by choose() first")
    folder = environment_folder(kind, cache.absolute())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(folder.parent / f"{folder.name}.lock", progress) as lock:
        wanted = _fingerprint(kind)
        found = made_from.marked(folder)
        if found != wanted:
            if uv.name == NO_UV:
                raise _only_in_a_bundle(kind, folder, found, wanted)
            _install(kind, folder, uv, progress, lock)
            made_from.mark(folder, wanted)
        _refresh_small_files(kind, folder)
        return describe(kind, folder, gpus)


# --- installing ------------------------------------------------------------------------------------


def _fingerprint(kind: str) -> dict[str, str]:
    return made_from.fingerprint(HERE / f"{kind}.lock", present.present_folder())


def _only_in_a_bundle(
    kind: str, folder: Path, found: Mapping[str, str], wanted: Mapping[str, str]
) -> InputError:
    """Refuse to install where only a bundle can do it, before anything is removed."""
    words = {
        "lock": "its lock has changed",
        "python": f"it was made with {found.get('python')}, and Python is {wanted['python']}",
        "machine": "it is of another processor",
        "present": f"it rests on other packages of this machine ({present.VARIABLE})",
    }
    differing = [text for key, text in words.items() if found.get(key) != wanted.get(key)]
    renewed = found and found.get("lock") == wanted["lock"]
    again = "" if renewed else f"make a bundle of this checkout (make bundle ARGS='--server {kind}'), then: "
    return refuse(
        f"{RELEASES[kind].title} {RELEASES[kind].version} in {folder}",
        "; ".join(differing) if found else "not there, or not whole",
        allowed="an environment out of a bundle, as this checkout came out of one: nothing else is installed",
        fix=f"{again}make up BUNDLE=FOLDER; or, where registries can be reached, rm -r .venv, and run the "
        "command again",
    )


def _install(kind: str, folder: Path, uv: Path, progress: Progress, lock: int) -> None:
    release = RELEASES[kind]
    title = f"{release.title} {release.version}"
    if folder.exists():
        progress(f"{title}: removing an installation that was interrupted or is out of date")
        _remove(folder)
    _require_disk(kind, folder.parent, uv)
    progress(f"{title}: installing (once, {release.disk / GIB:.1f} GiB of disk) …")
    started = time.monotonic()
    python = folder / "bin" / "python3"
    _run_uv(uv, ["venv", "--no-python-downloads", "--python", str(base_python()), str(folder)], lock)
    # Bytecode is compiled here because the pod cannot write it: every start would compile every module
    # again, in each of vLLM's three processes (measured: 56 s of processor time instead of 25 s).
    sync = ["pip", "sync", "--python", str(python), "--require-hashes", "--only-binary", ":all:"]
    _run_uv(uv, [*sync, "--compile-bytecode", str(_missing_packages(kind, folder, progress))], lock)
    _make_readable(folder)
    progress(f"{title}: installed in {time.monotonic() - started:.0f} s; trying it …")
    started = time.monotonic()
    _try(kind, folder, python)
    _make_readable(folder)
    progress(f"{title}: works ({time.monotonic() - started:.0f} s)")


def _missing_packages(kind: str, folder: Path, progress: Progress) -> Path:
    """Return the lock, or what of it this machine does not have already, written beside the environment."""
    lock, there = HERE / f"{kind}.lock", present.present_folder()
    if there is None:
        return lock
    text, found = present.split(lock.read_text(), there)
    progress(f"{len(found)} of its packages are those of this machine, in {there}")
    (folder / lock.name).write_text(text)
    return folder / lock.name


def _run_uv(uv: Path, arguments: list[str], lock: int) -> None:
    """Run uv from the root folder, where it finds no project whose settings would change the outcome.

    It inherits the lock: should this process be killed, the next one waits for uv to end as well.
    """
    with working("   installing packages", expected.SERVER):
        result = subprocess.run(
            [str(uv), *arguments],
            cwd="/",
            env={**os.environ, "UV_COMPILE_BYTECODE_TIMEOUT": "600"},
            umask=0o022,
            pass_fds=[lock],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise refuse(
            "uv " + " ".join(arguments[:2] if arguments[0] == "pip" else arguments[:1]),
            f"exit status {result.returncode}\n{_tail(result.stderr or result.stdout)}",
            allowed="an installation of the packages in the lock, with matching hashes",
            fix="check that a Python package index is reachable and run the command again "
            "(what was downloaded is kept)",
        )


#: Loads what a start loads. For vLLM it also keeps what the registry of models finds out about the
#: default architecture: a start would find it out again in a process of its own (measured: 9 s).
_TRIALS = {
    # Its own libraries need the driver's, which a machine that only makes a bundle for another one lacks.
    "vllm-cuda": "import ctypes\n"
    "import flashinfer, triton, xgrammar\n"
    "import vllm.entrypoints.openai.api_server\n"
    "try:\n    ctypes.CDLL('libcuda.so.1')\n"
    "except OSError:\n    pass\n"
    "else:\n    import vllm._C, vllm._C_stable_libtorch, vllm._moe_C\n",
    "vllm": "import vllm.entrypoints.openai.api_server\n"
    "from vllm.model_executor.models.registry import ModelRegistry\n"
    "ModelRegistry.models['Qwen2ForCausalLM'].inspect_model_cls()\n",
    "transformers": "import torch, transformers\ntransformers.Qwen2ForCausalLM, transformers.AutoTokenizer\n",
}


def _try(kind: str, folder: Path, python: Path) -> None:
    """Load what a start loads, as the pod will.

    Raises:
        InputError: it does not load here.
    """
    present.put_behind(folder, present.present_folder())
    with tempfile.TemporaryDirectory() as scratch, working("   trying the model server"):
        result = subprocess.run(
            [str(python), "-c", _TRIALS[kind]],
            cwd="/",
            # As in the pod, but for the folder that can be written to.
            env={**own_environment(scratch), **_server_env(kind, folder), "TMPDIR": scratch},
            umask=0o022,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        release = RELEASES[kind]
        other = {"vllm-cuda": "vllm (on the CPU)", "vllm": "transformers"}.get(kind, "vllm")
        raise refuse(
            f"{release.title} {release.version} in {folder}",
            f"does not load on this machine\n{_tail(result.stderr)}",
            allowed="a Linux machine with glibc on x86_64 or aarch64",
            fix=f"supply what the message names, or set MODELCAR_SERVER={other}",
        )


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:]) or "(no message)"


def _require_disk(kind: str, folder: Path, uv: Path) -> None:
    """Refuse where the installation would fill a disk: the environment's, or that of uv's cache."""
    places = [folder]
    cache = subprocess.run([str(uv), "cache", "dir"], cwd="/", capture_output=True, text=True, check=False)
    where = Path(cache.stdout.strip() or "/nonexistent")
    existing = next((path for path in (where, *where.parents) if path.exists()), folder)
    if existing.stat().st_dev != folder.stat().st_dev:  # else files are linked, and take their room once
        places.append(existing)
    short = [(place, shutil.disk_usage(place).free) for place in places]
    short = [(place, free) for place, free in short if free < RELEASES[kind].disk]
    if not short:
        return
    place, free = short[0]
    release, variable = RELEASES[kind], "MODELCAR_CACHE" if place == folder else "UV_CACHE_DIR"
    raise refuse(
        f"free disk at {place}",
        f"{free / GIB:.1f} GiB",
        allowed=f"{release.disk / GIB:.1f} GiB to install {release.title} {release.version}",
        fix=f"free some disk, or set {variable} to a folder on a larger one"
        + ("" if kind == "transformers" else "; MODELCAR_SERVER=transformers takes less"),
    )


def _make_readable(folder: Path) -> None:
    """Let every user read the files: KServe runs the server as uid 1010.

    Hard links from uv's cache have the modes of the cache, which may be from a stricter umask.
    """
    for parent, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = os.path.normpath(os.path.join(parent, name))  # noqa: PTH118 (60 000 files: speed matters)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                continue
            wanted = stat.S_IMODE(status.st_mode) | 0o444
            if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100:
                wanted |= 0o111
            if wanted != stat.S_IMODE(status.st_mode):
                os.chmod(path, wanted)  # noqa: PTH101


def _refresh_small_files(kind: str, folder: Path) -> None:
    """Put beside the environment what the server needs and no package holds, as it is now."""
    if kind == "transformers":
        _copy(HERE / "transformers_server.py", folder / "server" / "transformers_server.py")
    elif kind == "vllm":
        lscpu = shutil.which("lscpu")  # vLLM runs it, and the pod's image has no such program
        if lscpu:
            _copy(Path(lscpu), folder / "bin" / "lscpu")


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that everybody can read it; leave an equal one alone (a pod may be using it)."""
    content = source.read_bytes()
    if target.exists() and target.read_bytes() == content:
        return
    target.parent.mkdir(exist_ok=True)
    target.parent.chmod(0o755)
    part = target.with_name(target.name + ".part")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(target)


def _remove(folder: Path) -> None:
    """Remove an environment, its marker first: what an interruption leaves must not look complete."""
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder)


def finish(kind: str, cache: Path, progress: Progress) -> None:
    """Make ready an environment whose packages came out of a bundle: bytecode, a trial, the marker.

    Args:
        kind: of the server.
        cache: folder that holds `servers/KIND-VERSION`, a virtual environment with the packages in it.
        progress: gets a line before what takes long.

    Raises:
        InputError: it does not work on this machine.
    """
    folder = environment_folder(kind, cache.absolute())
    python, title = folder / "bin" / "python3", f"{RELEASES[kind].title} {RELEASES[kind].version}"
    progress(f"{title}: compiling its bytecode and trying it …")
    # In some packages a file is no valid Python, on purpose: what matters is whether the trial goes well.
    compileall = [str(python), "-m", "compileall", "-q", "-j", "0", str(folder / "lib")]
    quiet = subprocess.DEVNULL
    with working("   compiling its bytecode"):
        subprocess.run(compileall, stdout=quiet, stderr=quiet, umask=0o022, check=False)
    _try(kind, folder, python)
    _make_readable(folder)
    made_from.mark(folder, _fingerprint(kind))


# --- describing ------------------------------------------------------------------------------------


def _server_env(kind: str, folder: Path) -> dict[str, str]:
    """Return what this machine and its processor need, on top of what the program tells every server."""
    libraries = [DRIVER_LIBRARIES] if kind == "vllm-cuda" else []
    own = sysconfig.get_config_var("LIBDIR")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and own and not own.startswith("/usr/lib"):
        libraries.append(own)  # the pod has no ld.so.cache that would name it
    env = {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}
    if kind == "vllm-cuda":
        return env | {
            "PATH": f"{folder}/bin:{DRIVER}/bin:/usr/bin:/bin",
            "CC": c_compiler() or "gcc",  # Triton compiles its launchers with it
            "TRITON_LIBCUDA_PATH": DRIVER_LIBRARIES,  # else it asks /sbin/ldconfig, which the pod has not
            # FlashInfer's sampler compiles itself with nvcc at the start: its ready-made kernels
            # (flashinfer-jit-cache), which vLLM's own image has, are not on PyPI.
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
        }
    env |= {"PATH": f"{folder}/bin:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    if kind == "vllm":
        env |= {
            "VLLM_CACHE_ROOT": f"{folder}/cache",  # holds what _try found out; read-only in the pod
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the pod's limit counts processor time, not cores
            # Compiling needs a C++ compiler in the pod, and takes longer than a small model ever gains.
            "TORCH_COMPILE_DISABLE": "1",
        }
    return env


def host_paths(folder: Path, *, compiler: str | None = None) -> list[str]:
    """Return the folders that a pod has to see for the environment to run, in a fixed order.

    The dynamic loader is found at its path in /lib or /lib64 (symbolic links into /usr on most systems;
    the kernel follows them when it mounts), and its default search is in these and in /usr/lib*.

    Args:
        folder: of the environment.
        compiler: a C compiler that the server runs.
    """
    there = present.present_folder()
    wanted = [folder, *([there] if there else []), base_python().parent.parent, Path(sys.base_prefix)]
    wanted += [Path(path) for path in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if Path(path).is_dir()]
    if compiler:
        wanted += [Path("/usr"), *_prefixes(Path(compiler))]
        wanted = [part for path in wanted for part in _around_the_driver(path)]
    unique = list(dict.fromkeys(wanted))
    inside = [path for path in unique if any(parent in unique for parent in path.parents)]
    return [str(path) for path in unique if path not in inside]


def _prefixes(compiler: Path) -> list[Path]:
    """Return where a compiler has its parts, where that is not /usr (/opt/gcc for /opt/gcc/bin/gcc)."""
    prefixes = (path.parent.parent for path in (compiler, compiler.resolve()))
    return [path for path in prefixes if path != Path("/usr") and path != Path("/")]


def _around_the_driver(path: Path) -> list[Path]:
    """Return a folder, or what programs are made of in it where the driver's mount point is below.

    A mounted /usr is read-only: where this machine has no /usr/local/nvidia, none could be made in it.
    """
    if path not in Path(DRIVER).parents:
        return [path]
    parts = (path / name for name in ("bin", "include", "lib", "lib64", "libexec"))
    return [part for part in parts if part.is_dir()]


def describe(kind: str, folder: Path, gpus: Gpus | None = None) -> ServerEnvironment:
    """Say how a pod runs the environment in a folder, installed or not; `vllm-cuda` on these cards."""
    python = folder / "bin" / "python3"
    if kind == "vllm-cuda":
        others = gpus and any(card.capability[0] not in FLASH_ATTENTION for card in gpus.cards)
        return ServerEnvironment(
            kind=kind,
            python=python,
            command=[str(python), "-m", "vllm.entrypoints.openai.api_server"],
            args=[
                "--max-model-len=auto",  # as long as the model allows and the card's memory holds
                *(["--attention-backend=TRITON_ATTN"] if others else []),
            ],
            env=_server_env(kind, folder),
            host_paths=host_paths(folder, compiler=c_compiler()),
            memory=f"{_gpu_memory(len(gpus.cards) if gpus else 1)}Gi",
        )
    if kind == "vllm":
        return ServerEnvironment(
            kind=kind,
            python=python,
            command=[str(python), "-m", "vllm.entrypoints.openai.api_server"],
            args=[
                "--dtype=float32",
                "--max-model-len=auto",  # as long as the model allows and the cache below holds
                "--kv-cache-memory-bytes=268435456",
                "--enforce-eager",
            ],
            env=_server_env(kind, folder),
            host_paths=host_paths(folder),
            memory="3Gi",
        )
    return ServerEnvironment(
        kind=kind,
        python=python,
        command=[str(python), str(folder / "server" / "transformers_server.py")],
        args=["--dtype=float32"],
        env=_server_env(kind, folder),
        host_paths=host_paths(folder),
        memory="1Gi",
    )


def _gpu_memory(cards: int) -> int:
    """Return the GiB of memory that a pod gets where each card may have one; weights only pass through it."""
    share = psutil.virtual_memory().total // GIB // 2 // cards
    return max(LEAST_MEMORY, min(MOST_MEMORY, share))
