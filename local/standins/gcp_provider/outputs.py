"""What a resource has, put together: what was given, defaults of the provider, what Google makes up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from local.standins.differences import prune
from local.standins.gcp_provider.made_up import State, computed
from local.standins.gcp_provider.resources import Kind
from local.standins.gcp_provider.settings import Settings
from local.standins.properties import UNKNOWN, Secret, plain

_LABELS: Final = {"Repository": "labels", "Cluster": "resourceLabels"}
_SECRET: Final = ("pulumiLabels", "effectiveLabels")
# Blocks of which a program gives a part and Google fills in the rest.
_COMPLETED: Final = ("nodeConfig", "management", "controlPlaneEndpointsConfig", "privateClusterConfig")
# Of those, where what Google fills in is waited for: a preview does not know it.
_WAITED_FOR: Final = ("controlPlaneEndpointsConfig",)
_DEFAULTS: Final[dict[str, State]] = {
    "Repository": {"mode": "STANDARD_REPOSITORY"},
    "Network": {
        "autoCreateSubnetworks": True,
        "deleteDefaultRoutesOnCreate": False,
        "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
    },
    "Cluster": {
        "network": "default",
        "networkingMode": "VPC_NATIVE",
        "deletionProtection": True,
        "enableShieldedNodes": True,
        "enableKubernetesAlpha": False,
        "enableLegacyAbac": False,
    },
}


def defaults(kind: Kind) -> State:
    """Return what the provider itself fills in; a preview knows it."""
    found: State = {"deletionPolicy": "DELETE"} if "deletionPolicy" in kind.outputs() else {}
    return {**found, **_DEFAULTS.get(kind.class_name, {})}


def planned(kind: Kind, resolved: Mapping[str, Any], settings: Settings) -> State:
    """Return what the provider works out before anything exists (its plan-time functions)."""
    found: State = {}
    labels = _LABELS.get(kind.class_name)
    if labels:
        own = resolved.get(labels)
        if own is UNKNOWN:
            found |= {"pulumiLabels": UNKNOWN, "effectiveLabels": UNKNOWN}
        else:
            every = {**dict(settings.default_labels), **(own or {})}
            if settings.attribution:
                every["goog-pulumi-provisioned"] = "true"
            found |= {"pulumiLabels": every, "effectiveLabels": dict(every)}
    account, project = resolved.get("accountId"), resolved.get("project")
    if kind.class_name == "Account" and isinstance(account, str) and isinstance(project, str):
        email = f"{account}@{project}.iam.gserviceaccount.com"
        found |= {"email": email, "member": f"serviceAccount:{email}"}
    return found


def created(kind: Kind, name: str, resolved: Mapping[str, Any], settings: Settings) -> State:
    """Return the state of a new resource; name: its Google resource name, resolved: plain inputs."""
    inputs = {**defaults(kind), **resolved}
    state = {**computed(kind, name, inputs), **planned(kind, inputs, settings), **inputs}
    return _filled(state, kind, name, inputs)


def previewed(kind: Kind, resolved: Mapping[str, Any], settings: Settings) -> State:
    """Return what is known of a resource before it is created; unknown is what only Google can say."""
    name = kind.resource_name(resolved) or "projects/p/locations/l/unknown/unknown"
    known = {key: value for key, value in resolved.items() if value is not UNKNOWN}
    made = computed(kind, name, known)
    unknown = dict.fromkeys(made, UNKNOWN)
    state = {**unknown, **defaults(kind), **planned(kind, resolved, settings), **resolved}
    for key in _WAITED_FOR:
        if key in made and key in known:
            state[key] = _merged(_unknown(made[key]), known[key])
    return state


def _unknown(made: Any) -> Any:
    return {key: _unknown(item) for key, item in made.items()} if isinstance(made, dict) else UNKNOWN


def updated(
    kind: Kind,
    name: str | None,
    old_state: Mapping[str, Any],
    old_inputs: Mapping[str, Any],
    resolved: Mapping[str, Any],
    settings: Settings,
) -> State:
    """Return the state after a change: what Google made up stays, what is no longer given falls back.

    name: the Google resource name, None in a preview, where what falls back is left out.
    """
    inputs = {**defaults(kind), **resolved}
    kept = {key: value for key, value in old_state.items() if key not in old_inputs or key in resolved}
    fresh = computed(kind, name, inputs) if name else {}
    state = {**fresh, **kept, **planned(kind, inputs, settings), **inputs}
    return _filled(state, kind, name, inputs) if name else state


def _filled(state: State, kind: Kind, name: str, inputs: Mapping[str, Any]) -> State:
    """Fill in what Google adds inside of blocks that were given in part."""
    made = computed(kind, name, inputs)
    for key in _COMPLETED:
        if key in made and key in inputs:
            state[key] = _merged(made[key], inputs[key])
    return state


def _merged(made: Any, given: Any) -> Any:
    if isinstance(made, dict) and isinstance(given, dict):
        return {**made, **{key: _merged(made.get(key), item) for key, item in given.items()}}
    return made if given is None else given


def with_secrets(state: State) -> State:
    """Return state in which what the official provider keeps secret is secret."""
    found = {key: Secret(value) if key in _SECRET else value for key, value in state.items()}
    if isinstance(auth := state.get("masterAuth"), dict):
        found["masterAuth"] = {**auth, "clientKey": Secret(auth.get("clientKey"))}
    return found


def inputs_of(kind: Kind, name: str, state: State, given: Mapping[str, Any]) -> State:
    """Return the inputs that a live state stands for.

    Those that there were (given, decoded) with the values of now; for an import, where there were none,
    everything that neither Google nor the provider fills in by itself.
    """
    if given:
        inputs: State = prune(state, plain(dict(given)))
        inputs |= {key: value for key, value in given.items() if key.startswith("__")}
        return inputs
    filled = {**computed(kind, name, state), **defaults(kind)}
    return {
        key: value
        for key, value in state.items()
        if key in kind.inputs() and value not in (None, "", [], {}) and filled.get(key) != value
    }
