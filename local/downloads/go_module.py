"""Files of a Go module without Go: KServe's manifests, held to the hash that go.sum has of them.

The module proxy's addresses and zip files: go.dev/ref/mod, "GOPROXY protocol" and "Module zip files". The
hash: golang.org/x/mod/sumdb/dirhash, `Hash1`.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from local.downloads.web import DownloadError, Web
from modelcar.errors import refuse

PROXY = "https://proxy.golang.org"
#: Bytes of a module's files at most, as Go has it (go.dev/ref/mod, "Module zip files").
MOST = 500 * 2**20


def fetch(module: str, version: str, go_sum: Path, parts: Sequence[str], folder: Path, web: Web) -> Path:
    """Download a module and unpack parts of it; return the folder that they are in.

    Args:
        module: its path, without upper-case letters, which the proxy has in another way.
        version: of it, with its `v`.
        go_sum: the file that has its hash.
        parts: folders at its top.
        folder: an empty one, to work in.
        web: the way to the proxy.

    Raises:
        DownloadError: it cannot be had.
        InputError: it is not the module that go.sum names.
        OSError: it cannot be written.
    """
    expected = _expected(module, version, go_sum)
    address = f"{PROXY}/{module}/@v/{version}.zip"
    packed = folder / "module.zip"
    web.download(address, packed)
    root = f"{module}@{version}/"
    try:
        with zipfile.ZipFile(packed) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST:
                raise DownloadError(f"{address} has more than {MOST // 2**20} MiB of files")
            found = _hash(archive)
            if found != expected:
                raise refuse(
                    address,
                    found,
                    allowed=f"{expected} ({go_sum.parent.name}/{go_sum.name})",
                    fix="run the command again; where it stays so, do not trust what is between this machine "
                    "and the proxy: install Go, which asks the proxy that `go env GOPROXY` names",
                )
            for info in archive.infolist():
                name = info.filename.removeprefix(root)
                if name.partition("/")[0] in parts:
                    target = folder / "module" / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(info) as content, target.open("wb") as file:
                        shutil.copyfileobj(content, file)
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{address} is damaged ({error})") from None
    return folder / "module"


def _expected(module: str, version: str, go_sum: Path) -> str:
    for line in go_sum.read_text().splitlines():
        if line.startswith(f"{module} {version} h1:"):
            return line.split()[2]
    raise DownloadError(f"{go_sum.parent.name}/{go_sum.name} has no hash of {module} {version}")


def _hash(archive: zipfile.ZipFile) -> str:
    whole = hashlib.sha256()
    for name in sorted(archive.namelist()):
        content = hashlib.sha256()
        with archive.open(name) as file:
            while piece := file.read(2**20):
                content.update(piece)
        whole.update(f"{content.hexdigest()}  {name}\n".encode())
    return "h1:" + base64.b64encode(whole.digest()).decode()
