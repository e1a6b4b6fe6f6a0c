"""Names of resources that the program did not name: its own name for it and seven random characters."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from pulumi.runtime.proto import provider_pb2

from local.standins.gcp_provider.findings import Finding
from local.standins.gcp_provider.resources import Kind

# Where the bridge that the official provider is built on keeps which inputs it made up.
DEFAULTS: Final = "__defaults"
_SUFFIX: Final = 7

Options = provider_pb2.CheckRequest.AutonamingOptions


def is_autonamed(kind: Kind, inputs: dict[str, Any]) -> bool:
    """Say whether the name among checked inputs was made up."""
    made = inputs.get(DEFAULTS)
    return isinstance(made, list) and kind.name_property in made


def assign_name(
    kind: Kind, inputs: dict[str, Any], old: dict[str, Any], urn: str, seed: bytes, options: Options | None
) -> Finding | None:
    """Name the resource if the program did not: as before, or anew; returns what hinders that.

    Where a name is made up, DEFAULTS says so.
    """
    name = kind.name_property
    inputs.pop(DEFAULTS, None)
    if not kind.autoname or inputs.get(name) is not None:
        return None
    suffix = hashlib.sha256(seed + urn.encode()).hexdigest()[:_SUFFIX]
    if is_autonamed(kind, old):
        made = str(old[name])
    elif options is not None and options.mode == Options.DISABLE:
        return Finding(
            (name,), "a name; automatic naming is switched off (pulumi:autonaming)", f"give {name}"
        )
    elif options is not None and options.proposed_name:
        made = options.proposed_name
    else:
        prefix = inputs.get("namePrefix")
        made = f"{prefix}{suffix}" if isinstance(prefix, str) else f"{urn.rsplit('::', 1)[-1]}-{suffix}"
        if len(made) > kind.autoname:
            allowed = f"a name; the one made up, {made}, is longer than {kind.autoname} characters"
            return Finding((name,), allowed, f"give {name}, or call the resource something shorter")
    inputs[name] = made
    inputs[DEFAULTS] = [name]
    return None
