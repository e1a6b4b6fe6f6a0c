"""The provider's own settings: project, region and zone, from its arguments or the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from local.standins.gcp_provider import sdk_types
from local.standins.gcp_provider.findings import Finding, did_you_mean, text_at
from local.standins.gcp_provider.names import PROJECT, REGION, ZONE

# In the order in which the official provider looks (https://www.pulumi.com/registry/packages/gcp/
# installation-configuration/).
ENVIRONMENT: Final = {
    "project": ("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"),
    "region": ("GOOGLE_REGION", "GCLOUD_REGION", "CLOUDSDK_COMPUTE_REGION"),
    "zone": ("GOOGLE_ZONE", "GCLOUD_ZONE", "CLOUDSDK_COMPUTE_ZONE"),
}
_OF_THE_ENGINE = frozenset({"version", "pluginDownloadURL", "__internal"})


@dataclass(frozen=True)
class Settings:
    """What resources fall back to; "" where nothing is set."""

    project: str = ""
    region: str = ""
    zone: str = ""
    attribution: bool = True
    default_labels: tuple[tuple[str, str], ...] = ()


def settings_from(arguments: Mapping[str, Any]) -> Settings:
    """Read the settings from the provider's arguments (decoded, plain), then from the environment."""

    def find(name: str) -> str:
        candidates = [text_at(arguments, name), *(os.environ.get(key) for key in ENVIRONMENT[name])]
        return next((found for found in candidates if found), "")

    labels = arguments.get("defaultLabels")
    return Settings(
        project=find("project"),
        region=find("region"),
        zone=find("zone"),
        attribution=arguments.get("addPulumiAttributionLabel") not in (False, "false"),
        default_labels=tuple(sorted(labels.items())) if isinstance(labels, dict) else (),
    )


def check_settings(arguments: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with provider arguments: unknown ones, and names that Google cannot have."""
    known = sdk_types.fields("provider", "ProviderArgs")
    for name in arguments:
        if name not in known and name not in _OF_THE_ENGINE:
            hint = did_you_mean(name, known)
            yield Finding((name,), "the settings of the gcp provider", f"{hint}Rename or remove it")
    for name, rule in (("project", PROJECT), ("region", REGION), ("zone", ZONE)):
        value = text_at(arguments, name)
        if value is not None and rule.pattern.fullmatch(value) is None:
            yield Finding((name,), rule.allowed, f"pulumi config set gcp:{name} {rule.example}")
