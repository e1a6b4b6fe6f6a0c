"""What the last run told of each model; versions before 0.3.0 told of a stack's only one at the top alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.stack.output_schema import OF_ONLY_MODEL


def models(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return it by the model's key then; outputs: of the last run."""
    alone = at_top(outputs)
    return dict(outputs.get("models") or {}) | ({str(alone["serviceName"]): alone} if alone else {})


def at_top(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands at the top alone; empty where `models` has it too, or nothing stands there."""
    name, told = outputs.get("serviceName"), (outputs.get("models") or {}).values()
    if not name or any((model or {}).get("serviceName") == name for model in told):
        return {}
    return {key: outputs[key] for key in OF_ONLY_MODEL if key in outputs}


def was_listed(outputs: Mapping[str, Any]) -> bool:
    """Tell whether the stack had a list of models; that of an only one stands at the top too."""
    return "models" in outputs and "serviceName" not in outputs
