"""YAML whose texts are texts for every reader: Kubernetes' and Argo CD's read some others than Python's.

PyYAML quotes what it reads as something else itself. go-yaml 2, which kubectl, kustomize and Argo CD use,
takes YAML 1.1 and much of 1.2: `1e5`, `0o14` and `1_0e2` are numbers, `y` is true.
"""

from __future__ import annotations

import re

import yaml

#: Without `_`, which YAML 1.1 allows between digits. The others that there are PyYAML knows.
_NUMBER = re.compile(
    r"[-+]?(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)"
)
_BOOLEAN = re.compile(r"[yYnN]")
#: PyYAML wants two digits of month and day.
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}")


def reads_otherwise(text: str) -> bool:
    """Tell whether some reader takes an unquoted text for something else, and PyYAML does not know it."""
    if _BOOLEAN.fullmatch(text) or _DATE.fullmatch(text):
        return True
    return text[:1] != "_" and _NUMBER.fullmatch(text.replace("_", "")) is not None


class TextDumper(yaml.SafeDumper):
    """Quotes these too, and writes everything else as PyYAML does."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if reads_otherwise(text) else None
    )


TextDumper.add_representer(str, _text)
