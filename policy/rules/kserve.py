"""KServe is installed with modelcars switched on, and so that they can be served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from components.cluster.kserve_config import CONFIG_MAP, user_faults
from components.config.quantities import number_text
from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN, at, is_true, whole_number

#: Charts of KServe that write its ConfigMap; those with `crd` or `runtime` in their names do not.
_CHART = re.compile(r"kserve(-llmisvc)?(-resources)?(-v?\d[^/]*)?(\.tgz)?")
_STORAGE = ("kserve", "storage")
_SIZES = ("cpuModelcar", "memoryModelcar")
#: The chart has a user by default, as Standard mode has; only what is said can be wrong then.
_STANDARD = "Standard"


def _find(resource: Resource, _config: Config) -> Iterator[Finding]:
    if resource.group == "helm.sh":
        yield from _in_chart(resource)
    elif (resource.group, resource.kind) == ("core", "ConfigMap"):
        yield from _in_config_map(resource)


def _in_chart(resource: Resource) -> Iterator[Finding]:
    chart = resource.at("chart")
    if not isinstance(chart, str) or not _CHART.fullmatch(chart.rstrip("/").rpartition("/")[2]):
        return
    path = ".".join(("values", *_STORAGE))
    value = resource.at("values", *_STORAGE, "enableModelcar")
    if value is not UNKNOWN and not is_true(value):
        place = f"{path}.enableModelcar"
        yield Finding(place, _shown(value), f"set {place} to true (in `values`: files are not read here)")
    section = resource.at("values", *_STORAGE)
    for fault in user_faults(_plain(section), _STANDARD) if isinstance(section, dict) else ():
        fix = f"set {path}.{fault.field} to {fault.wanted}"
        yield Finding(f"{path}.{fault.field}", fault.value, fix, f"it has to be {fault.allowed}")


def _plain(section: dict[str, Any]) -> dict[str, Any]:
    """Return a chart's values as its template writes them, without those that are not known yet.

    Numbers come as floats; the user is written without quotes, the sizes in them (configmap-patch.yaml).
    """
    known = {key: value for key, value in section.items() if value is not UNKNOWN and value is not None}
    sizes = {key: number_text(known[key]) for key in _SIZES if isinstance(known.get(key), (int, float))}
    user = known.get("uidModelcar")
    number = whole_number(user)
    written = {"uidModelcar": number} if number is not None and float(str(user)) == number else {}
    return {**known, **sizes, **written}


def _in_config_map(resource: Resource) -> Iterator[Finding]:
    if resource.at("metadata", "name") != CONFIG_MAP:
        return
    text = resource.at("data", "storageInitializer")
    if text is UNKNOWN or (text is None and resource.is_patch):
        return
    path = "data.storageInitializer"
    fix = f'set "enableModelcar": true in {path}, which is JSON'
    try:
        section = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        yield Finding(path, "is no JSON", fix)
        return
    value = at(section, "enableModelcar")
    if not is_true(value):
        yield Finding(path, f"enableModelcar: {_shown(value)}", fix)
        return
    said = section if isinstance(section, dict) else {}
    for fault in user_faults(said, _mode(resource)):
        found, reason = f"{fault.field}: {fault.value}", f"it has to be {fault.allowed}"
        yield Finding(path, found, f'set "{fault.field}" to {fault.wanted} in {path}, which is JSON', reason)


def _mode(resource: Resource) -> str:
    """Return the deployment mode that holds for whatever does not say another one."""
    try:
        mode = at(json.loads(str(resource.at("data", "deploy"))), "defaultDeploymentMode")
    except ValueError:
        return _STANDARD
    return "Knative" if mode in ("Knative", "Serverless") else _STANDARD


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


MODELCAR_ENABLED = Rule(
    name="kserve-modelcar-enabled",
    statement="KServe is installed with modelcars enabled, and with a user and sizes that its pods can have",
    reason="without it KServe's storage initializer gets the oci:// URI and fails; the default was false up "
    "to KServe 0.15 and is true in 0.19, so it is written down",
    find=_find,
)
