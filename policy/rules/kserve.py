"""KServe is installed with modelcars switched on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN, at, is_true

#: Charts of KServe that write its ConfigMap; those with `crd` or `runtime` in their names do not.
_CHART = re.compile(r"kserve(-llmisvc)?(-resources)?(-v?\d[^/]*)?(\.tgz)?")
_VALUE = ("kserve", "storage", "enableModelcar")
_CONFIG_MAP = "inferenceservice-config"


def _find(resource: Resource, _config: Config) -> Iterator[Finding]:
    if resource.group == "helm.sh":
        yield from _in_chart(resource)
    elif (resource.group, resource.kind) == ("core", "ConfigMap"):
        yield from _in_config_map(resource)


def _in_chart(resource: Resource) -> Iterator[Finding]:
    chart = resource.at("chart")
    if not isinstance(chart, str) or not _CHART.fullmatch(chart.rstrip("/").rpartition("/")[2]):
        return
    value = resource.at("values", *_VALUE)
    if value is not UNKNOWN and not is_true(value):
        path = "values." + ".".join(_VALUE)
        yield Finding(path, _shown(value), f"set {path} to true (in `values`: files are not read here)")


def _in_config_map(resource: Resource) -> Iterator[Finding]:
    if resource.at("metadata", "name") != _CONFIG_MAP:
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


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


MODELCAR_ENABLED = Rule(
    name="kserve-modelcar-enabled",
    statement="KServe is installed with modelcars enabled, and says so",
    reason="without it KServe's storage initializer gets the oci:// URI and fails; the default was false up "
    "to KServe 0.15 and is true in 0.19, so it is written down",
    find=_find,
)
