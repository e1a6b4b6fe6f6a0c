"""A server on a GPU finds in its pod what it compiles with, though the image holds a busybox only."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from components.manifests.service import own_environment
from local.servers import environment
from local.servers.choice import c_compiler, compiler_obstacles

#: Mounts what the pod mounts, and runs a command as the pod's user, who has no other right.
POD = """
root=$1; shift
mount -t tmpfs pod "$root"
mkdir -p -m 1777 "$root/tmp"
mkdir -p "$root/dev" "$root/usr/local/nvidia"
mount --bind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$(readlink -f "$1")" "$root$1"
    shift
done
shift
mount --bind "$1" "$root/usr/local/nvidia"
shift
exec chroot --userspec=1010:1010 --groups= "$root" /usr/bin/env -i "$@"
"""

#: What Triton compiles at a server's start, in short (triton/backends/nvidia/driver.c).
MODULE = """
#include <Python.h>
extern int cuInit(unsigned int flags);
PyMODINIT_FUNC PyInit_launcher(void) { return PyLong_FromLong(cuInit(0)); }
"""


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """Return a driver's folder with a library in place of NVIDIA's. CI has to have a compiler for it."""
    if lacks := compiler_obstacles():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("; ".join(lacks))
    library = tmp_path / "driver/lib64/libcuda.so.1"
    library.parent.mkdir(parents=True)
    options = ("-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library))
    command = [str(c_compiler()), "-x", "c", "-", *options]
    subprocess.run(command, input="int cuInit(unsigned int flags) { return 0; }", text=True, check=True)
    (tmp_path / "driver").chmod(0o755)
    return tmp_path / "driver"


def test_triton_can_compile_its_launcher_as_the_pods_user(tmp_path: Path, driver: Path) -> None:
    folder, root = tmp_path / "environment", tmp_path / "root"
    for path in (folder, root):
        path.mkdir()
    server = environment.describe("vllm-cuda", folder)
    variables = [f"{name}={value}" for name, value in {**own_environment(), **server.env}.items()]
    include = sysconfig.get_paths(scheme="posix_prefix")["include"]
    compiles = [
        *(server.env["CC"], "-x", "c", "-", "-O3", "-shared", "-fPIC", "-o", "/tmp/launcher.so"),
        *(f"-I{include}", f"-L{server.env['TRITON_LIBCUDA_PATH']}", "-l:libcuda.so.1"),
    ]
    command = [str(root), *server.host_paths, "--", str(driver), *variables, *compiles]
    result = subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-ec", POD, "pod", *command],
        input=MODULE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
