"""KServe's own configuration, as far as it decides whether a modelcar is served.

Nothing of Pulumi's is needed to read it: the policy pack and `make doctor` do, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.config.quantities import quantity
from modelcar.errors import Problem

#: KServe's own configuration: https://kserve.github.io/website/docs/admin-guide/configurations
CONFIG_MAP = "inferenceservice-config"

#: Of the mode; the second one until KServe 0.15, and still taken.
KNATIVE_NAMES = frozenset({"Knative", "Serverless"})
#: Kubernetes takes no user above it (runAsUser).
LAST_UID = 2**31 - 1
#: Bytes; less is a number without its unit, and no container starts in it.
LEAST_MEMORY = 4.0 * 1024**2
_EXPONENT = re.compile(r"\+?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+|[nu])")


def modelcar_enabled(data: Mapping[str, str] | None) -> Any:
    """Return what KServe's configuration says of it: True where it is on, None where it says nothing."""
    return _section(data, "storageInitializer").get("enableModelcar")


def configuration_problems(
    data: Mapping[str, str] | None, mode: str, *, modelcars: bool = True
) -> list[Problem]:
    """Return what keeps this program's pods from being served by a KServe with this configuration.

    Args:
        data: of the ConfigMap. mode: Standard or Knative.
        modelcars: whether KServe is to put any image into a pod; False where all are image volumes.
    """
    section = _section(data, "storageInitializer")
    found = [_problem(fault) for fault in faults(section, mode)] if modelcars else []
    default = _section(data, "deploy").get("defaultDeploymentMode")
    if mode == "Knative" and default not in KNATIVE_NAMES:
        allowed = (
            "Knative: KServe 0.19 refuses an InferenceService that asks for another mode than its default"
        )
        fix = "helm upgrade … --set kserve.controller.deploymentMode=Knative; or deploymentMode Standard"
        found.append(
            Problem(f"ConfigMap {CONFIG_MAP}, deploy.defaultDeploymentMode", str(default), allowed, fix)
        )
    return found


@dataclass(frozen=True)
class Fault:
    """field: of `storageInitializer`; value: as it is shown; allowed; wanted: a value that is right."""

    field: str
    value: str
    allowed: str
    wanted: str


def faults(section: Mapping[str, Any], mode: str) -> list[Fault]:
    """Return what is wrong with `storageInitializer`, which is JSON.

    As KServe 0.19 reads it (GetStorageInitializerConfigs, ConfigureModelcarToContainer).

    Args:
        section: its values. mode: Standard or Knative.
    """
    enabled = section.get("enableModelcar")
    if enabled is not True:
        allowed = "true; otherwise oci:// URIs pass admission and fail in the pod"
        return [Fault("enableModelcar", str(enabled), allowed, "true")]
    return user_faults(section, mode)


def user_faults(section: Mapping[str, Any], mode: str) -> list[Fault]:
    """Return what is wrong with the user and the size of the modelcar's containers."""
    checks = (
        _uid_fault(section.get("uidModelcar"), mode),
        _size_fault("cpuModelcar", section.get("cpuModelcar"), "100m", 0.0),
        _size_fault("memoryModelcar", section.get("memoryModelcar"), "15Mi", LEAST_MEMORY),
    )
    return [fault for fault in checks if fault]


def _section(data: Mapping[str, str] | None, key: str) -> dict[str, Any]:
    try:
        section = json.loads((data or {})[key])
    except (KeyError, ValueError):
        return {}
    return section if isinstance(section, dict) else {}


def _uid_fault(uid: Any, mode: str) -> Fault | None:
    """KServe makes server and sidecar this user, whatever their own manifests say.

    Where it says none, the pods' own holds, 1010; but in Knative mode a pod has none, and the sidecar is the
    image's user, root, whose files the server may not see through /proc.
    """
    if uid is None:
        if mode == "Standard":
            return None
        allowed = "a user above 0 in Knative mode; otherwise the sidecar is root, and the server cannot read"
        return Fault("uidModelcar", "not set", allowed, "1010")
    if type(uid) is int and 0 < uid <= LAST_UID:
        return None
    allowed = f"a whole number from 1 to {LAST_UID}, without quotes: pods are refused as root (runAsNonRoot)"
    return Fault("uidModelcar", json.dumps(uid), allowed, "1010")


def _size_fault(name: str, value: Any, example: str, least: float) -> Fault | None:
    """KServe takes its own default where nothing is said, and stops at what is no quantity."""
    if value is None or value == "":
        return None
    try:
        fits = quantity(value) >= least
    except (TypeError, ValueError):
        # With an exponent (`15e6`) it is one too, and nobody's mistake.
        fits = isinstance(value, str) and bool(_EXPONENT.fullmatch(value))
    if fits:
        return None
    more = f", at least {least / 1024**2:.0f}Mi" if least else ""
    allowed = f'a Kubernetes quantity in quotes{more}, for example "{example}"'
    return Fault(name, json.dumps(value), allowed, example)


def _problem(fault: Fault) -> Problem:
    fix = (
        f"helm upgrade … --set kserve.storage.{fault.field}={fault.wanted}, or install it with this stack "
        "(modelcar:kserve.install)"
    )
    return Problem(
        f"ConfigMap {CONFIG_MAP}, storageInitializer.{fault.field}", fault.value, fault.allowed, fix
    )
