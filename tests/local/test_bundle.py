"""`make up BUNDLE=…` on a bare machine: a minimal Debian without any network serves the model."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.bundle.packages import installed
from local.debian import debian_script
from local.instance import cache_root
from tests.conftest import PROJECT

#: The bare machine: what Debian calls minimal, and what docs/air-gapped.md asks for.
SUITE, PYTHON = "bookworm", "3.11"
WANTED = "python3,make,git"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCE = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {SUITE} main\n"

#: Makes a folder the root of this process, in namespaces of its own that no network is in.
ENTER = """
set -eu
root=$1 checkout=$2 bundle=$3 packages=$4 command=$5
ip link set lo up
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mkdir -p old checkout bundle packages
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
mount --bind "$checkout" checkout
mount --bind "$bundle" bundle
mount --bind "$packages" packages
pivot_root . old
cd /checkout
umount -l /old
exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin MODELCAR_STATE=/checkout/.local sh -c "$command"
"""


@dataclass(frozen=True)
class BareMachine:
    """A root file system, a checkout, a bundle, and packages that the machine has already."""

    root: Path
    checkout: Path
    bundle: Path
    packages: Path

    def run(self, command: str) -> str:
        """Run a command there; what it starts ends with it."""
        namespaces = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child")
        places = (self.root, self.checkout, self.bundle, self.packages)
        done = subprocess.run(
            [*namespaces, "sh", "-c", ENTER, "enter", *map(str, places), command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareMachine]:
    """A bundle with the small server, without torch, which the bare machine has as GPU machines have it."""
    packages = next(cache_root().glob(f"servers/*/lib/python{PYTHON}/site-packages"), None)
    if packages is None:
        pytest.skip(f"needs a model server of Python {PYTHON} in the cache: `make up` makes one")
    folder = tmp_path_factory.mktemp("bare")
    freeze = folder / "freeze.txt"
    freeze.write_text("".join(f"{name}=={version}\n" for name, version in installed(packages).items()))
    bundle = folder / "bundle"
    arguments = f"--python {PYTHON} --server transformers --part-size 60M --present {freeze} --out {bundle}"
    subprocess.run(["make", "bundle", f"ARGS={arguments}"], cwd=PROJECT, check=True)
    checkout = folder / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(checkout)], check=True)
    mmdebstrap = debian_script("mmdebstrap", ["mmdebstrap"], cache_root() / "builders" / "mmdebstrap")
    sources, root = folder / "sources.list", folder / "root"
    sources.write_text(SOURCE)
    command = [str(mmdebstrap), "--mode=root", "--variant=minbase", f"--include={WANTED}", "--quiet"]
    subprocess.run([*command, "--format=directory", SUITE, str(root), str(sources)], check=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")  # an installed machine has one, a new root not
    yield BareMachine(root, checkout, bundle, packages)
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


@pytest.mark.extended
@pytest.mark.timeout(2400)  # packing the tools for the first time takes eight minutes or more
def test_a_bare_machine_serves_the_model_out_of_a_bundle(bare: BareMachine) -> None:
    """No Go, no uv, no pip, no iproute2, no iptables, no network."""
    said = bare.run(
        "for name in go uv pip3 ip iptables runc; do command -v $name && exit 1; done; set -ex; "
        "MODELCAR_PRESENT_PACKAGES=/packages make up BUNDLE=/bundle; "
        "make validate STACK=local; make up BUNDLE=/bundle; make down"
    )
    assert len(re.findall(r"^ +answer +'.+'$", said, re.M)) == 2, said
    assert re.search(r"^PASS +answers a prompt", said, re.M), said
    assert said.count("files unpacked") == 1, "the second `make up` unpacks nothing"
    assert "platform stopped" in said
