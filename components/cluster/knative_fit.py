"""Whether a cluster's Knative takes what models need (deploymentMode Knative), asked beforehand.

A field that Knative does not take is refused by its webhook, and KServe tells of it in its log alone: the
InferenceService stays as it is, without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from components.cluster import config_maps
from components.cluster.access import JSON
from components.config.knative import LONGEST
from components.config.model_spec import ModelSpec
from components.config.problems import NAMESPACE
from components.manifests.knative import features_needed, features_off
from components.manifests.knative import timeout as longest_request
from components.manifests.service import predictor, volumes
from modelcar.errors import InputError, Problem, refuse

#: Where Knative Serving is, by its own manifests.
SERVING = "knative-serving"
MAX_TIMEOUT = "max-revision-timeout-seconds"


def require(reached: ModelSpec, models: Iterable[ModelSpec]) -> None:
    """Refuse a cluster whose Knative does not take the models.

    Args:
        reached: how the cluster is reached.
        models: of the stack.

    Raises:
        InputError: there is no Knative, a feature is off, a request may not take so long, or the cluster
            cannot be asked.
    """
    features, defaults = (_config(reached, name) for name in ("config-features", "config-defaults"))
    found = [
        problem
        for model in models
        if model.deployment_mode == "Knative"
        for problem in (*_features(model, features), *_timeout(model, defaults))
    ]
    if found:
        raise InputError(list(dict.fromkeys(found)))


def _config(reached: ModelSpec, name: str) -> JSON:
    found = config_maps.read(reached, SERVING, name, "Knative")
    if found is None:
        fix = f"install Knative Serving, or set {NAMESPACE}:deploymentMode to Standard"
        raise refuse(
            f"ConfigMap {SERVING}/{name}",
            "is not there",
            allowed="a cluster with Knative Serving",
            fix=f"{fix}; or {config_maps.UNASKED}",
        )
    return found.get("data") or {}


def _features(settings: ModelSpec, data: JSON) -> Iterator[Problem]:
    pods = predictor(settings, "oci://")
    for name in features_off(features_needed(pods, pods.get("volumes", volumes(settings))), data):
        yield Problem(
            f"ConfigMap {SERVING}/config-features, {name}",
            str(data.get(name, "not set, which is disabled")),
            f"enabled: model {settings.service_name} needs it, and Knative refuses its pods without",
            f"kubectl -n {SERVING} patch configmap config-features --type=merge "
            f'-p \'{{"data":{{"{name}":"enabled"}}}}\'',
        )


def _timeout(settings: ModelSpec, data: JSON) -> Iterator[Problem]:
    asked = int(longest_request(settings)["timeout"])
    text = str(data.get(MAX_TIMEOUT, LONGEST))
    if text.isdigit() and asked > int(text):
        yield Problem(
            f"{NAMESPACE}:knative.timeoutSeconds",
            str(asked),
            f"at most {text}: {MAX_TIMEOUT} of ConfigMap {SERVING}/config-defaults",
            f"a smaller one; or kubectl -n {SERVING} patch configmap config-defaults --type=merge "
            f'-p \'{{"data":{{"{MAX_TIMEOUT}":"{asked}"}}}}\'',
        )
