"""The inputs of a Helm release: which properties there are, which are refused, and the command they make.

Names and defaults are those of `kubernetes:helm.sh/v3:Release` of pulumi-kubernetes 4.34.2.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from standins.kubernetes_provider.helm import Home
from standins.kubernetes_provider.properties import UNKNOWN, plain
from standins.kubernetes_provider.refusals import RefusedError

# Seconds that Helm waits, unless the release says otherwise (the official provider's default).
DEFAULT_TIMEOUT = 300

# Properties that are a flag of `helm upgrade --install` where they are true.
_FLAGS = {
    "atomic": "--atomic",
    "cleanupOnFail": "--cleanup-on-fail",
    "createNamespace": "--create-namespace",
    "dependencyUpdate": "--dependency-update",
    "disableOpenapiValidation": "--disable-openapi-validation",
    "disableWebhooks": "--no-hooks",
    "forceUpdate": "--force",
    "renderSubchartNotes": "--render-subchart-notes",
    "resetValues": "--reset-values",
    "reuseValues": "--reuse-values",
    "skipCrds": "--skip-crds",
    "takeOwnership": "--take-ownership",
    "verify": "--verify",
}
_VALUED = {"description": "--description", "keyring": "--keyring", "maxHistory": "--history-max"}
_FILES = {"caFile": "--ca-file", "certFile": "--cert-file", "keyFile": "--key-file"}
_REPOSITORY_OPTS = {*_FILES, "repo", "username", "password"}
_OTHERS = {
    *("chart", "version", "name", "namespace", "repositoryOpts", "values", "allowNullValues"),
    *("skipAwait", "waitForJobs", "timeout"),
    # What the SDK or the official provider adds by itself.
    *("compat", "checksum", "resourceNames"),
}
PROPERTIES = frozenset({*_FLAGS, *_VALUED, *_OTHERS})
# Properties of the official provider that are refused where they are set, with what to do instead.
_REFUSED = {
    "devel": "give the exact version",
    "disableCRDHooks": "set disableWebhooks, which leaves every hook out",
    "lint": "run `helm lint` before `pulumi up`",
    "manifest": "take it out; it is an output",
    "postrender": "say it in the chart's values, or package the changed chart",
    "recreatePods": "take it out; a changed pod template restarts the pods by itself",
    "replace": "choose another name, or uninstall the old release first",
    "valueYamlFiles": "read the file in the program: values=yaml.safe_load(...)",
}
_OFFICIAL = "or install the official plugin"
_EXACT_VERSION = re.compile(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def require_known(names: Mapping[str, Any]) -> None:
    """Refuse properties that a release does not have, or not here; all of them at once.

    Raises:
        RefusedError: with one line for each.
    """
    problems = []
    for name, value in names.items():
        if name in PROPERTIES or (name in _REFUSED and value in (None, False, [], {}, "")):
            continue
        if name in _REFUSED:
            problems.append(
                f"{name}: the stand-in for pulumi-resource-kubernetes does not support it. "
                f"fix: {_REFUSED[name]}; {_OFFICIAL}"
            )
            continue
        close = difflib.get_close_matches(name, PROPERTIES, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        problems.append(
            f"{name}: no property of a Helm release. allowed: {', '.join(sorted(PROPERTIES))}. "
            f"fix: {meant}correct or remove it; {_OFFICIAL} if it is newer than this"
        )
    if problems:
        raise RefusedError("\n".join(problems))


@dataclass(frozen=True)
class Chart:
    """A chart as Helm is to find it. local: its folder or archive, None where it has to be fetched."""

    reference: str
    home: Home
    local: Path | None

    @property
    def origin(self) -> str:
        """Where it is fetched from, for messages."""
        return self.home.address or self.reference


def locate(inputs: Mapping[str, Any]) -> Chart:
    """Return the chart that plain inputs name; whether that can work, `problems` says."""
    chart = str(inputs.get("chart") or "").strip()
    options = inputs.get("repositoryOpts") or {}
    repository = str(options.get("repo") or "").strip().rstrip("/")
    if repository.startswith("oci://") and not chart.startswith("oci://"):
        chart, repository = f"{repository}/{chart}", ""
    address = chart if chart.startswith("oci://") else repository
    home = Home(address, str(options.get("username") or ""), str(options.get("password") or ""))
    path = Path(chart)
    is_local = not address and ((path / "Chart.yaml").is_file() or (path.suffix == ".tgz" and path.is_file()))
    return Chart(chart, home, path if is_local else None)


def problems(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with plain inputs, by property. Unknown values are taken to be right."""
    found: dict[str, str] = {}
    options = inputs.get("repositoryOpts")
    if isinstance(options, dict):
        unknown = sorted(set(options) - _REPOSITORY_OPTS)
        if unknown:
            found["repositoryOpts"] = (
                f"repositoryOpts: has {', '.join(unknown)}. allowed: {', '.join(sorted(_REPOSITORY_OPTS))}. "
                "fix: correct or remove it"
            )
    if "values" in inputs and not isinstance(inputs["values"], dict) and inputs["values"] is not UNKNOWN:
        found["values"] = (
            "values: not a map. allowed: the chart's values, as in its values.yaml. fix: give a map"
        )
    timeout = inputs.get("timeout", 1)
    if timeout is not UNKNOWN and (not isinstance(timeout, (int, float)) or timeout <= 0):
        found["timeout"] = f"timeout: {timeout}. allowed: seconds, more than 0. fix: correct it"
    chart = inputs.get("chart")
    if not chart:
        found["chart"] = (
            "chart: required. allowed: oci://HOST/PATH, a chart's folder or .tgz, or a chart's name with "
            "repositoryOpts.repo. fix: give it"
        )
    elif chart is not UNKNOWN and options is not UNKNOWN:
        found |= _chart_problems(inputs, str(chart))
    return found


def _chart_problems(inputs: Mapping[str, Any], chart: str) -> dict[str, str]:
    located, version = locate(inputs), inputs.get("version")
    if located.local is not None:
        own = _own_version(located.local)
        if version not in (None, "", UNKNOWN) and own and version != own:
            return {
                "version": f"version: {version}, but {chart} is {own}. allowed: the local chart's own. "
                f"fix: set version to {own}, or take it out"
            }
        return {}
    if chart.startswith((".", "/")) or chart.endswith(".tgz"):
        if not chart.startswith(("http://", "https://", "oci://")):
            return {
                "chart": f"chart: {chart} is no chart. allowed: a folder with a Chart.yaml in it, or a .tgz "
                "archive. fix: correct the path, or build the chart first"
            }
    elif not located.home.address and not chart.startswith(("http://", "https://")):
        return {
            "chart": f"chart: {chart} is no folder with a Chart.yaml, and no repository is given. allowed: "
            "oci://HOST/PATH, a folder, or a name with repositoryOpts.repo; names out of this machine's "
            "`helm repo list` mean something else on another machine. fix: give repositoryOpts.repo"
        }
    if version is UNKNOWN or (_DIGEST.search(located.reference) and not version):
        return {}
    if not version:
        return {
            "version": f"version: required for a chart from {located.origin}: without it any run may install "
            "another one. allowed: an exact version such as 1.2.3. fix: give it"
        }
    if not _EXACT_VERSION.fullmatch(str(version)):
        return {
            "version": f"version: {version} may become another chart at any time. allowed: an exact version "
            "such as 1.2.3 or v0.19.0. fix: give the version that is meant now "
            f"(`helm show chart {located.reference}` prints it)"
        }
    return {}


def _own_version(local: Path) -> str:
    """Return the version of a chart's folder; "" for an archive, which Helm checks itself."""
    if not local.is_dir():
        return ""
    try:
        document = yaml.safe_load((local / "Chart.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return ""
    return str(document.get("version") or "") if isinstance(document, dict) else ""


def checksum(local: Path) -> str:
    """Return a digest of a local chart's files, so that a changed chart of the same version is seen."""
    digest = hashlib.sha256()
    files = sorted(path for path in local.rglob("*") if path.is_file()) if local.is_dir() else [local]
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(local.parent)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def chart_arguments(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return where the chart comes from, as arguments of `helm template` and `helm upgrade`."""
    chart = locate(inputs)
    options = inputs.get("repositoryOpts") or {}
    arguments: list[str] = []
    if inputs.get("version") and chart.local is None:
        arguments += ["--version", str(inputs["version"])]
    if chart.home.address and not chart.home.is_oci and not chart.home.username:
        arguments += ["--repo", chart.home.address]
    for name, flag in _FILES.items():
        if options.get(name):
            arguments += [flag, str(options[name])]
    return tuple(arguments)


def upgrade_arguments(inputs: Mapping[str, Any], seconds: float) -> tuple[str, ...]:
    """Return the other arguments of `helm upgrade --install`."""
    arguments = [flag for name, flag in _FLAGS.items() if inputs.get(name)]
    for name, flag in _VALUED.items():
        if inputs.get(name) not in (None, ""):
            arguments += [flag, str(inputs[name])]
    if waits(inputs):
        arguments.append("--wait")
        if inputs.get("waitForJobs"):
            arguments.append("--wait-for-jobs")
    return (*arguments, "--timeout", f"{max(1, round(seconds))}s")


def waits(inputs: Mapping[str, Any]) -> bool:
    """Say whether Helm waits until everything is ready; with `atomic` it always does."""
    return bool(inputs.get("atomic")) or not inputs.get("skipAwait")


def timeout_seconds(inputs: Mapping[str, Any], requested: float) -> float:
    """Return how long Helm may take: the resource option customTimeouts, else the release's timeout."""
    return requested if requested > 0 else float(inputs.get("timeout") or DEFAULT_TIMEOUT)


def values_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for Helm, without nulls unless the release allows them (there they unset)."""
    values = plain(inputs.get("values")) or {}
    if inputs.get("allowNullValues"):
        return dict(values)
    result: dict[str, Any] = _without_nulls(values)
    return result


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value
