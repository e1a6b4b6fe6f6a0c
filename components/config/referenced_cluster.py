"""The cluster of `google.cluster.stackReference`: another stack's outputs name it.

Until they are read nobody knows which cluster that is. It is never the one that kubectl was used with last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from components.config.google import ClusterSettings, GoogleSettings
from components.config.problems import NAMESPACE, problem
from modelcar.errors import InputError

#: The other stack's outputs, and the settings that they stand for.
OUTPUTS = {"clusterName": "name", "clusterLocation": "location"}


def at_referenced(google: GoogleSettings, outputs: Mapping[str, Any]) -> GoogleSettings:
    """Return the same settings, with name and location of the cluster.

    Args:
        google: settings with a stack reference.
        outputs: of the stack that it names.

    Raises:
        InputError: they name no cluster.
    """
    told = {setting: outputs.get(output) for output, setting in OUTPUTS.items()}
    missing = [output for output, setting in OUTPUTS.items() if told[setting] is None]
    if missing:
        raise unknown(google, f"it has no output {' and no output '.join(missing)}")
    try:
        found = ClusterSettings.model_validate(told, by_name=False)
    except ValidationError as error:
        wrong = next(output for output, name in OUTPUTS.items() if name == error.errors()[0]["loc"][0])
        raise unknown(google, f"its output {wrong} names none: {outputs[wrong]!r}") from None
    cluster = google.cluster.model_copy(update={"name": found.name, "location": found.location})
    return google.model_copy(update={"cluster": cluster})


def unknown(google: GoogleSettings, why: str) -> InputError:
    """Return the refusal of a stack reference that does not tell which cluster is meant."""
    reference = google.cluster.stack_reference
    return InputError(
        [
            problem(
                "google.cluster.stackReference",
                f"{reference}: {why}, so it is not known which cluster to ask",
                f"a deployed stack whose outputs {' and '.join(OUTPUTS)} you may read",
                f"see `pulumi stack output --stack {reference}`; or name the cluster yourself: pulumi config "
                f"set {NAMESPACE}:kubeContext gke_{google.project}_LOCATION_NAME (or {NAMESPACE}:kubeconfig)",
            )
        ]
    )
