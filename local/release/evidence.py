"""What a release says of itself: what its package needs (CycloneDX), what it was built of (SLSA)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from local.release.repository import PYPROJECT, Release
from local.release.versions import Version
from modelcar.version import DISTRIBUTION

LOCK = "requirements.lock"
#: Says how the parameters of a provenance are meant: `make release`, in its first form.
BUILD_TYPE = f"pkg:pypi/{DISTRIBUTION}#local/release/1"
#: Who built a release that no workflow did.
BY_HAND = f"pkg:pypi/{DISTRIBUTION}#local/release/by-hand"


@dataclass(frozen=True)
class Locked:
    """A package of the lock. needed_by: names of what asks for it; marker: where it is installed."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    needed_by: frozenset[str]


def locked(text: str) -> Iterator[Locked]:
    """Yield the packages of a requirements.lock, as uv writes it."""
    for entry in re.split(r"(?m)^(?=[a-z0-9])", text):
        head = re.match(r"([a-z0-9][\w.-]*)==([^\s;\\]+)(?:\s*;\s*([^\\\n]+?))?\s*\\?\n", entry)
        if head:
            hashes = re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry)
            comments = re.findall(r"(?m)^\s+#\s+(?:via\s*)?(.*)$", entry)
            users = {comment.split(" ")[0] for comment in comments if comment}
            yield Locked(head[1], head[2], (head[3] or "").strip(), tuple(hashes), frozenset(users))


def closure(packages: Iterable[Locked], roots: Iterable[str]) -> frozenset[str]:
    """Return the names that requirements bring, theirs included; roots: of pyproject.toml."""
    listed = list(packages)
    found = {re.split(r"[^\w.-]", root)[0].lower().replace("_", "-") for root in roots}
    while more := {one.name for one in listed if one.needed_by & found} - found:
        found |= more
    return frozenset(found)


def sbom(source: Path, version: Version, epoch: str) -> bytes:
    """Return the bill of materials of the package, as CycloneDX 1.6: each locked package with its scope.

    Scope `required`: the package needs it; `optional`: an extra does; `excluded`: only the checkout's own
    program, tests and tools do. The versions are those that the release was tested with.

    Args:
        source: the release's files.
        version: of the release.
        epoch: when its commit was made.
    """
    project = tomllib.loads((source / PYPROJECT).read_text())["project"]
    packages = list(locked((source / LOCK).read_text()))
    needed = closure(packages, project["dependencies"])
    extras = [root for roots in project.get("optional-dependencies", {}).values() for root in roots]
    optional = closure(packages, extras)
    root = Component(
        type=ComponentType.LIBRARY,
        name=DISTRIBUTION,
        bom_ref=DISTRIBUTION,
        version=version.python,
        purl=PackageURL("pypi", None, DISTRIBUTION, version.python),
        licenses=[LicenseFactory().make_from_string(project["license"])],
        description=project["description"],
    )
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{DISTRIBUTION}=={version.python}"),
        metadata=BomMetaData(component=root, timestamp=datetime.fromtimestamp(int(epoch), UTC)),
    )
    made = {}
    for one in packages:
        scope = ComponentScope.EXCLUDED
        if one.name in needed or one.name in optional:
            scope = ComponentScope.REQUIRED if one.name in needed else ComponentScope.OPTIONAL
        # The lock has a hash for each file that an index offers: they are not hashes of one component.
        properties = [Property(name="modelcar:lockedFile", value=text) for text in one.hashes]
        if one.marker:
            properties.append(Property(name="modelcar:marker", value=one.marker))
        made[one.name] = Component(
            type=ComponentType.LIBRARY,
            name=one.name,
            bom_ref=f"{one.name}=={one.version}",
            version=one.version,
            purl=PackageURL("pypi", None, one.name, one.version),
            scope=scope,
            properties=properties,
        )
        bom.components.add(made[one.name])
    direct = closure((), project["dependencies"])
    bom.register_dependency(root, [made[name] for name in sorted(direct) if name in made])
    for name, component in made.items():
        bom.register_dependency(component, [made[one.name] for one in packages if name in one.needed_by])
    return JsonV1Dot6(bom).output_as_string(indent=1).encode()


def materials(source: Path) -> dict[str, str]:
    """Return the lock files of a release, with their SHA-256: what it is built, tested and run with.

    Args:
        source: the release's files, and no others.
    """
    found = sorted(path for pattern in ("*.lock", "go.sum") for path in source.rglob(pattern))
    return {path.relative_to(source).as_posix(): sha256(path) for path in found}


def provenance(release: Release, source: Path, subjects: Mapping[str, str], epoch: str) -> bytes:
    """Return what a release was built of and by whom: an in-toto statement with SLSA provenance 1.

    Args:
        release: what is released.
        source: its files.
        subjects: names of what was built, with their SHA-256.
        epoch: when the commit was made, which is the only time in it.
    """
    address = release.repository.source()
    commit: dict[str, Any] = {"digest": {"gitCommit": release.commit}}
    commit |= {"uri": f"git+{address}@refs/tags/{release.version.tag}"} if address else {"name": "commit"}
    project = tomllib.loads((source / PYPROJECT).read_text())
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": str(release.version), "tag": release.version.tag},
                "internalParameters": {"SOURCE_DATE_EPOCH": epoch},
                "resolvedDependencies": [
                    commit,
                    *({"name": name, "digest": {"sha256": d}} for name, d in materials(source).items()),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": _builder(os.environ),
                    "version": {
                        "python": platform.python_version(),
                        "backend": " ".join(project["build-system"]["requires"]),
                    },
                },
                "metadata": _invocation(os.environ),
            },
        },
    }
    return (json.dumps(statement, indent=1) + "\n").encode()


def _builder(variables: Mapping[str, str]) -> str:
    """Return the workflow that builds, by its address; or that a person did."""
    workflow = variables.get("GITHUB_WORKFLOW_REF")
    return f"{variables['GITHUB_SERVER_URL']}/{workflow}" if workflow else BY_HAND


def _invocation(variables: Mapping[str, str]) -> dict[str, str]:
    if "GITHUB_WORKFLOW_REF" not in variables:
        return {}
    run = f"{variables['GITHUB_REPOSITORY']}/actions/runs/{variables['GITHUB_RUN_ID']}"
    return {"invocationId": f"{variables['GITHUB_SERVER_URL']}/{run}"}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
