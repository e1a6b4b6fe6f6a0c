"""NVIDIA's driver as one folder (`bin`, `lib64`), as GKE's nodes have it.

Distributions put the driver's libraries among the system's own. That folder cannot be mounted into a
container: the C library would come along.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from local.gpu import Gpus
from modelcar.errors import InputError, refuse

#: What CUDA needs of a driver: `utility_libs` and `compute_libs` of libnvidia-container (src/nvc_info.c).
LIBRARIES = (
    *("libcuda", "libcudadebugger", "libnvidia-ml", "libnvidia-cfg", "libnvidia-opencl", "libnvidia-gpucomp"),
    *("libnvidia-ptxjitcompiler", "libnvidia-allocator", "libnvidia-nvvm", "libnvidia-nvvm70"),
    *("libnvidia-pkcs11", "libnvidia-pkcs11-openssl3"),
)
#: Words of `ldconfig -p` for libraries of 64 bits.
WIDTHS = ("x86-64", "AArch64")


def driver_folder(gpus: Gpus, target: Path) -> Path:
    """Return the folder that a container gets at /usr/local/nvidia: the machine's own, or one made here.

    Args:
        gpus: what was found on this machine.
        target: the folder to be made where the machine has none; 300 MB, unless it can be linked to.

    Raises:
        InputError: the driver's libraries are not found.
    """
    if gpus.libraries is not None:
        return gpus.libraries
    stamp = target / "version"
    if stamp.exists() and stamp.read_text() == gpus.driver:
        return target
    source = _library_folder(gpus.driver)
    shutil.rmtree(target, ignore_errors=True)
    (target / "bin").mkdir(parents=True)
    (target / "lib64").mkdir()
    for library in (source / f"{name}.so.{gpus.driver}" for name in LIBRARIES):
        if library.exists():
            _link_or_copy(library, target / "lib64" / library.name)
    for link in source.glob("lib*.so*"):  # libcuda.so.1 and its like
        real = target / "lib64" / link.resolve().name
        if link.is_symlink() and real.exists():
            (target / "lib64" / link.name).symlink_to(real.name)
    program = shutil.which("nvidia-smi")
    if program:
        _link_or_copy(Path(program).resolve(), target / "bin" / "nvidia-smi")
    stamp.write_text(gpus.driver)  # last: what was interrupted is made again
    return target


def _library_folder(version: str) -> Path:
    """Return the folder of the driver's libraries, as the dynamic loader knows it."""
    ldconfig = shutil.which(
        "ldconfig", path=os.pathsep.join([os.environ.get("PATH", ""), "/sbin", "/usr/sbin"])
    )
    if ldconfig is None:
        raise _not_found("this machine has no ldconfig", version)
    listed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        name, _, path = line.strip().partition(" => ")
        if name.startswith("libcuda.so.1 ") and any(width in name for width in WIDTHS):
            folder = Path(path).resolve().parent
            if (folder / f"libcuda.so.{version}").exists():
                return folder
    raise _not_found("ldconfig -p does not name it", version)


def _not_found(reason: str, version: str) -> InputError:
    return refuse(
        f"NVIDIA's driver library libcuda.so.{version}",
        f"not found ({reason})",
        allowed="the driver's libraries, of the version that nvidia-smi shows",
        fix=f"install them (Debian: libcuda1; Ubuntu: libnvidia-compute-{version.split('.')[0]}), then run "
        "ldconfig",
    )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
