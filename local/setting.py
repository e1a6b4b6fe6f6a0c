"""Change settings in a stack's file: small edits of its text, which keeps comments, quotes and types.

`pulumi config set` and `rm` write the whole file anew: comments move or go, and `gpuCount: 0` becomes `"0"`.
What one of the two edits here adds, the other removes again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.config.settings import service_name_of
from modelcar.errors import refuse

#: Keys and indices from the top of the file to a setting.
Place = tuple[str | int, ...]
#: What a setting becomes; it is removed where that is None.
Change = tuple[Place, str | bool | None]

#: The setting that `make idle` and `make wake` change.
IDLE = "idle"


def place(settings: Mapping[str, Any], key: str, model: str | None, *, of_one: bool = False) -> Place:
    """Return where a setting of a stack, or of one of its models, is in the stack's file.

    Args:
        settings: as the stack's file has them.
        key: of the setting.
        model: whose; of all models where None.
        of_one: a model has to be named where the stack has a list.

    Raises:
        InputError: there is no such model, or none is named where one has to be.
    """
    listed = settings.get("models")
    if not listed:
        own = service_name_of(settings)
        if model is not None and own is not None and model != own:
            allowed = f"{own}, or nothing: the stack has one model"
            raise refuse("--model", model, allowed=allowed, fix="leave it out")
        return ("config", f"modelcar:{key}")
    names = [str(entry.get("name")) for entry in _entries(settings)]
    if model is None and not of_one:
        return ("config", f"modelcar:{key}")
    if model not in names:
        found = (
            f"{model}: the stack has no such model" if model else "not said, and the stack has several models"
        )
        raise refuse("--model", found, allowed=", ".join(names), fix=f'ARGS="--model {names[0]}"')
    return ("config", "modelcar:models", names.index(model), key)


def _entries(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the entries of `models`, which are all there and in the file's order."""
    listed = settings.get("models") or []
    if isinstance(listed, list) and all(isinstance(entry, Mapping) for entry in listed):
        return listed
    raise refuse(
        "modelcar:models",
        "a secret, or of another shape",
        allowed="a list of models with keys, whose settings can be changed in the stack's file",
        fix="set it as a list of plain text, or change the setting by hand",
    )


def idle_changes(settings: Mapping[str, Any], model: str | None, *, idle: bool) -> list[Change]:
    """Return the changes after which models keep no pod, or serve again.

    What an entry of `models` says itself counts before what the stack says.

    Args:
        settings: as the stack's file has them.
        model: which one; all where None.
        idle: what is wanted.

    Raises:
        InputError: there is no such model.
    """
    where = place(settings, IDLE, model)
    of_all = ("config", f"modelcar:{IDLE}")
    if where == of_all:
        entries = enumerate(_entries(settings))
        own = [("config", "modelcar:models", number, IDLE) for number, entry in entries if IDLE in entry]
        return [(where, idle or None), *((entry, None) for entry in own)]
    said = str(settings.get(IDLE, False)).lower() == "true"
    return [(where, None if idle == said else idle)]


def write(file: Path, changes: Sequence[Change]) -> None:
    """Change settings in a stack's file: all of them, or none.

    Raises:
        InputError: the file's text is too unusual for such an edit.
    """
    text = file.read_bytes().decode() if file.exists() else ""
    changed = text
    for where, value in changes:
        changed = edited(changed, where, value, file.name)
    if changed != text:
        file.write_bytes(changed.encode())


def edited(text: str, where: Place, value: str | bool | None, name: str = "Pulumi.STACK.yaml") -> str:
    """Return the text of a stack's file with a setting set, or removed where the value is None.

    Raises:
        InputError: the text is too unusual for such an edit, as with aliases; `name` is the file's.
    """
    changed = _remove(text, where) if value is None else _set(text, where, value)
    try:
        found = _settings(changed)
    except yaml.YAMLError:
        found = {}
    if found != _changed(_settings(text), where, value):
        key = str(where[-1])
        raise refuse(
            name,
            f"{key} cannot be {'removed from' if value is None else 'set in'} its text without other changes",
            allowed="YAML with each setting on lines of its own",
            fix=f"edit it by hand ({key}: {'remove it' if value is None else _yaml(value)}), then deploy",
        )
    return changed


def _settings(text: str) -> dict[str, Any]:
    """Return a file's document, with a `config` in any case, and no part of it in two places by an alias."""

    def own(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: own(entry) for key, entry in value.items()}
        return [own(entry) for entry in value] if isinstance(value, list) else value

    document: dict[str, Any] = own(yaml.safe_load(text) or {})
    return {**document, "config": document.get("config") or {}}


def _changed(document: dict[str, Any], where: Place, value: str | bool | None) -> dict[str, Any]:
    """Return the document as it should be afterwards."""
    holder: Any = document
    for part in where[:-1]:
        holder = holder[part]
    if value is None:
        holder.pop(where[-1], None)
    else:
        holder[where[-1]] = value
    return document


def _set(text: str, where: Place, value: str | bool) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    holder = _find(text, where[:-1])
    key, shown = str(where[-1]), _yaml(value)
    if not isinstance(holder, yaml.MappingNode):  # no `config:`, or nothing below it
        if holder is None:
            gap = end if text and not text.endswith("\n") else ""
            return f"{text}{gap}config:{end}  {key}: {shown}{end}"
        at = _line_end(text, holder.start_mark.index)
        return _insert_line(text, at, f"  {key}: {shown}", end)
    for known, node in holder.value:
        if known.value == key:
            start, stop = node.start_mark.index, _end(node)
            return text[:start] + (" " if text[start - 1] == ":" else "") + shown + text[stop:]
    if holder.flow_style:
        at = _end(holder.value[-1][1]) if holder.value else holder.start_mark.index + 1
        return f"{text[:at]}{', ' if holder.value else ''}{key}: {shown}{text[at:]}"
    at = _end(holder.value[-1][1])
    indent = " " * holder.value[0][0].start_mark.column
    return _insert_line(text, _line_end(text, at), f"{indent}{key}: {shown}", end)


def _remove(text: str, where: Place) -> str:
    holder = _find(text, where[:-1])
    entries = holder.value if isinstance(holder, yaml.MappingNode) else []
    index = next((n for n, (known, _) in enumerate(entries) if known.value == where[-1]), None)
    if index is None:
        return text
    known, node = entries[index]
    if holder.flow_style:
        if index:
            return text[: _end(entries[index - 1][1])] + text[_end(node) :]
        stop = entries[1][0].start_mark.index if len(entries) > 1 else _end(node)
        return text[: known.start_mark.index] + text[stop:]
    if len(entries) == 1 and where[:-1] == ("config",):  # its head goes too
        start = text.rindex("config", 0, known.start_mark.index)
    else:
        start = known.start_mark.index
    if text[_line_start(text, start) : start].strip():  # the first key of a list's entry
        return text
    stop = _line_end(text, _end(node))
    start = _line_start(text, start)
    if stop == len(text) and not text.endswith("\n"):
        start = len(text[:start].removesuffix("\n").removesuffix("\r"))
    return text[:start] + text[stop:]


def _find(text: str, where: Place) -> Any:
    """Return the `yaml.Node` at a place; None where there is none."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for part in where:
        if isinstance(node, yaml.MappingNode):
            node = next((value for known, value in node.value if known.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
        else:
            return None
    return node


def _end(node: yaml.Node) -> int:
    """Return the index after a node's last character; a block's own mark is after the comments below it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    """Return where the next line begins; a block scalar ends there already."""
    if index and text[index - 1] == "\n":
        return index
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _insert_line(text: str, at: int, line: str, end: str) -> str:
    """Put a line there; a last line without an end stays one."""
    if at == len(text) and not text.endswith("\n"):
        return f"{text}{end}{line}"
    return f"{text[:at]}{line}{end}{text[at:]}"


def _yaml(value: str | bool) -> str:
    """Return a value as YAML writes it."""
    return yaml.safe_dump(value, width=10_000).removesuffix("\n").removesuffix("\n...")
