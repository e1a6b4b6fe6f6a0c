"""Whether the builder that will build can take a model's layers: asked before anything is downloaded.

The weights enter a build as an OCI layout in a named context. BuildKit inside of the Docker daemon (buildx's
`docker` driver) has no part that reads one; `docker-container`, `kubernetes` and `remote` have
(https://docs.docker.com/build/builders/drivers/).
"""

from __future__ import annotations

import re
import shutil
import subprocess

from modelcar.errors import InputError, Problem, refuse

KEY = "modelcar:builder"
#: Drivers whose BuildKit reads OCI layouts.
DRIVERS = ("docker-container", "kubernetes", "remote", "cloud")
CREATE = "docker buildx create --name modelcar --driver docker-container"
#: Seconds. buildx itself waits up to 20 for a builder that does not answer.
PATIENCE = 30.0


def buildx() -> list[str]:
    """Return the command that buildx is called by.

    Raises:
        InputError: there is none.
    """
    if shutil.which("buildx"):
        return ["buildx"]
    if shutil.which("docker"):
        return ["docker", "buildx"]
    raise refuse(
        "buildx",
        "neither buildx nor docker is on PATH",
        allowed="buildx, which speaks to the builder",
        fix="install it: https://github.com/docker/buildx",
    )


def require_builder(name: str | None) -> None:
    """Check the builder, before a download that it could do nothing with.

    Args:
        name: of the builder; None for the one that the docker-build provider chooses.

    Raises:
        InputError: it cannot take an OCI layout, is not there, or no builder can be had.
    """
    if problem := builder_problem(name):
        raise InputError([problem])


def builder_problem(name: str | None) -> Problem | None:
    """Return what is wrong with the builder; None where nothing is, or where nobody can tell."""
    try:
        command = buildx()
    except InputError:
        return None  # the provider has buildx in it, and says so itself where there is no builder
    shown = _said([*command, "inspect", *([name] if name else [])])
    if shown is None:
        return None
    status, text = shown
    driver = _field("Driver", text)
    fault = _field("Error", text) or _field("ERROR", text)
    if driver in DRIVERS:
        return None
    if name is None:
        return _default_problem(command, fault)
    if driver == "docker":
        found = f"{name} has the driver docker, whose BuildKit takes no OCI layout"
    elif status or fault:
        found = f"{name}: {fault or 'buildx does not know it'}"
    else:
        return None  # a driver of somebody else's
    return _problem(found, f"{CREATE}, and pulumi config set {KEY} modelcar")


def _default_problem(command: list[str], fault: str) -> Problem | None:
    """Judge a builder that nobody named.

    The provider (0.0.22, internal/host.go) does not take the daemon's own BuildKit then: it takes any other
    builder that answers, and makes one with the driver docker-container where there is none.
    """
    if not fault:
        return None
    listed = _said([*command, "ls"])
    drivers = {line.split()[1] for line in listed[1].splitlines() if _is_builder(line)} if listed else set()
    if drivers & set(DRIVERS):
        return None
    found = f"not set, there is no builder, and none can be made: {fault}"
    return _problem(found, f"start Docker, then {CREATE}; or name a builder elsewhere (docs/builders.md)")


def _is_builder(line: str) -> bool:
    return not line.startswith((" ", "NAME")) and len(line.split()) > 1


def _problem(found: str, fix: str) -> Problem:
    allowed = f"a buildx builder with one of the drivers {', '.join(DRIVERS[:3])}"
    return Problem(KEY, found, allowed, fix)


def _field(name: str, text: str) -> str:
    found = re.search(rf"^{name}:[ \t]*(\S.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _said(command: list[str]) -> tuple[int, str] | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.returncode, result.stdout + result.stderr
