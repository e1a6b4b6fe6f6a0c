"""What a release consists of: wheel, sdist, bill of materials, checksums, provenance, signatures.

All of it follows from the commit, so anybody can make it again and compare: times are the commit's, and only
files that are committed go in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from local import uv
from local.release import evidence
from local.release.evidence import sha256
from local.release.repository import Release
from modelcar import signing
from modelcar.errors import refuse

CHECKSUMS = "SHA256SUMS"
SBOM = "sbom.cdx.json"
PROVENANCE = "provenance.json"
#: Ends the name of a signature's file.
BUNDLE = ".sigstore.json"


def require_empty(folder: Path) -> None:
    """Refuse a folder that somebody keeps something in: a release's folder holds the release alone.

    Raises:
        InputError: it has files, or is one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise refuse(
            "--out",
            f"{folder} is not empty" if folder.is_dir() else f"{folder} is no folder",
            allowed="an empty or new folder",
            fix=f"rm -r {folder}, or choose another",
        )


def put(built: Path, folder: Path) -> None:
    """Let a folder hold what was built, and nothing else; the checksums, which tell what is whole, last."""
    folder.mkdir(parents=True, exist_ok=True)
    for former in folder.iterdir():
        if former.is_dir() and not former.is_symlink():
            shutil.rmtree(former)
        else:
            former.unlink()
    for path in sorted(built.iterdir(), key=lambda path: path.name.startswith(CHECKSUMS)):
        shutil.move(path, folder / path.name)


def build(release: Release, folder: Path) -> list[Path]:
    """Build all but the signatures into an empty folder; return the files.

    Raises:
        InputError: uv is missing, the build fails, or what it made has another version.
    """
    epoch = release.repository.time(release.commit)
    with tempfile.TemporaryDirectory(prefix="modelcar-release-") as temporary:
        source = Path(temporary, "source")
        source.mkdir()
        release.repository.export(release.commit, source)
        packages = _packages(release, source, folder, epoch)
        (folder / SBOM).write_bytes(evidence.sbom(source, release.version, epoch))
        listed = [*packages, folder / SBOM]
        (folder / CHECKSUMS).write_text("".join(f"{sha256(path)}  {path.name}\n" for path in sorted(listed)))
        subjects = {path.name: sha256(path) for path in sorted(listed)}
        statement = evidence.provenance(release, source, subjects, epoch)
        (folder / PROVENANCE).write_bytes(statement)
    return [*sorted(listed), folder / CHECKSUMS, folder / PROVENANCE]


def _packages(release: Release, source: Path, folder: Path, epoch: str) -> list[Path]:
    """Build sdist and wheel: the wheel out of the sdist, which so is known to be complete."""
    command = [release.uv, "build", "--out-dir", str(folder), str(source)]
    variables = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    try:
        result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise refuse(
            "uv", f"{release.uv} is not there", allowed="uv", fix="run it by `make release`"
        ) from None
    if result.returncode:
        raise refuse(
            "uv build",
            result.stderr.strip() or f"exit status {result.returncode}",
            allowed="a project that builds, and an index that has its build backend",
            fix="run `uv build`, and mend what it shows",
        )
    (folder / ".gitignore").unlink(missing_ok=True)  # uv's own
    names = sorted(path.name for path in folder.iterdir())
    python = release.version.python
    wanted = [f"modelcar_kserve-{python}-py3-none-any.whl", f"modelcar_kserve-{python}.tar.gz"]
    if names != wanted:
        raise refuse(
            "uv build",
            f"made {', '.join(names)}",
            allowed=", ".join(wanted),
            fix="check `version` and `name` in pyproject.toml",
        )
    return [folder / name for name in wanted]


def sign(files: Sequence[Path], key: str | None) -> list[Path]:
    """Sign files by cosign, and return the signatures, each beside its file.

    Args:
        files: that are signed.
        key: path of a private key, or its URI; None for this machine's identity, as a workflow has one.

    Raises:
        InputError: cosign is missing, or cannot use the key.
    """
    made = []
    for path in files:
        bundle = path.with_name(f"{path.name}{BUNDLE}")
        bundle.write_bytes(signing.sign_file(path, key))
        made.append(bundle)
    return made


def find_uv() -> str:
    """Return the path of uv.

    Raises:
        InputError: there is none.
    """
    found = uv.find()
    if not found:
        raise refuse(
            "uv", "not on PATH", allowed="uv, which builds the package", fix="run it by `make release`"
        )
    return str(found)
