"""Read a YAML file that is data and nothing else: no anchors, no aliases, no key twice, no other types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from modelcar.errors import refuse
from modelcar.paths import printable

#: Bytes. A lock of 10,000 files has 2 MB.
MAX_FILE = 16 * 2**20
#: Levels. A lock has four; the parser in C ends the whole process where there are very many.
MAX_DEPTH = 32

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML's safe loader without what a small file can grow with, or hide things by."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key in (self.construct_object(key, deep=True) for key, _ in node.value):
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a key that is not text")
            if key in seen:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {key} twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read(path: Path, allowed: str, fix: str) -> Any:
    """Return what a YAML file holds.

    Args:
        path: the file.
        allowed: what it should be, for messages.
        fix: what to do when it is not.

    Raises:
        InputError: it is missing, cannot be read, or is not YAML of this kind.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise refuse(str(path), f"more than {MAX_FILE} bytes", allowed=allowed, fix=fix)
        depth = 0
        for event in yaml.parse(content, _Base):
            if getattr(event, "anchor", None):  # of aliases too
                raise yaml.YAMLError(f"an anchor or an alias: {event.start_mark}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise yaml.YAMLError(f"more than {MAX_DEPTH} levels: {event.start_mark}")
        return yaml.load(content, _Loader)  # noqa: S506 (the safe loader, restricted further)
    except FileNotFoundError:
        found = "there is no such file"
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
    except (LookupError, AttributeError, TypeError):  # of PyYAML, as for `!!bool x`
        found = "a value that is not what its tag says"
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        found = f"not YAML that is taken here: {printable(' '.join(str(error).split()))[:300]}"
    raise refuse(str(path), found, allowed=allowed, fix=fix)
