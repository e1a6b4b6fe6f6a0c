"""What Pulumi's kubernetes provider embeds: two files of its Go module, with the version that it is of.

The module's own main package embeds them from its folder, where its Makefile puts them. Go does not let
anyone add a file to a module in its cache, so ours (local/tools/kubernetes-provider/main.go) finds them
beside itself, during the build only.
"""

from __future__ import annotations

import json
from pathlib import Path

from modelcar.errors import refuse

MODULE = "github.com/pulumi/pulumi-kubernetes/provider/v4"
VERSION = "4.25.0"

#: Where the module has them.
_FOLDER = Path("cmd") / "pulumi-resource-kubernetes"


def embedded_files(module: Path, version: str) -> dict[str, bytes]:
    """Return the files as the provider embeds them: compact, and the schema with the provider's version.

    Args:
        module: folder of the provider's Go module.
        version: of the provider, which its schema names.

    Raises:
        InputError: the module has no such files.
    """
    files = {}
    for name in ("schema.json", "terraform-mapping.json"):
        try:
            content = json.loads((module / _FOLDER / name).read_bytes())
        except (OSError, ValueError) as error:
            raise refuse(
                f"{MODULE}: {_FOLDER / name}",
                str(error),
                allowed="the file that the provider embeds",
                fix="empty the module cache (`go clean -modcache`), then run the command again",
            ) from error
        if name == "schema.json":
            content["version"] = version
        files[name] = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return files


def overlay(pins: Path, files: dict[str, bytes], folder: Path) -> Path:
    """Write what `go build -overlay` takes, so that the files seem to lie beside main.go.

    Args:
        pins: folder of main.go.
        files: their contents, by name.
        folder: which they are written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder / "overlay.json"
    path.write_text(json.dumps({"Replace": {str(pins / name): str(folder / name) for name in files}}))
    return path
