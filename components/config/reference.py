"""`python -m components.config.reference`: the reference of settings and components, out of the code."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Awaitable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pulumi
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from components.config import deprecations
from components.config.loading import KEYS, OF_ENTRIES
from components.config.models import SHARED

PROJECT = Path(__file__).resolve().parents[2]
SETTINGS = PROJECT / "docs/reference/settings.md"
COMPONENTS = PROJECT / "docs/reference/components.md"
UPGRADING = PROJECT / "docs/upgrading.md"

#: What keys without a default are for; those with one say it in Pulumi.yaml.
WITHOUT_DEFAULT = {
    "model": "A locked model (a folder of modelcar/models), or the path of a model.lock; with image, nothing",
    "namespace": "Namespace of the InferenceService",
    "serviceName": "Name of the InferenceService",
    "registry": "Where modelcars are pushed to; follows from google where that is set",
    "importExisting": "What of the stack is there already, made by hand (docs/migrate.md)",
    "importObjects": "The same of a model's objects",
    "registryInsecure": "Push over plain HTTP, for a registry on this machine",
    "image": "An image that is there already, HOST/PATH@sha256:…, served as it is (docs/existing-images.md)",
    "entrypointRunsArguments": "That image's ENTRYPOINT runs the arguments that it gets",
    "mirrors": "Repositories that layers come from before the hub (docs/operations/promotion.md)",
    "mirrorsInsecure": "Read mirrors over plain HTTP; on the registry's own host, registryInsecure counts",
    "promoteFrom": "ORG/PROJECT/STACK whose models' repositories are the first mirrors",
    "imageName": "Repository below the registry; the lock's folder where not set and a registry takes it",
    "architecture": "Processor of the nodes, for the programs beside the weights; amd64 with google",
    "hubEndpoint": "Address of a mirror of the model hub",
    "builder": "buildx builder; the default one where not set",
    "kubeconfig": "Path or text of a kubeconfig; kubectl's own files where not set",
    "kubeContext": "Context in it; the current one where not set",
    "cpu": "Processors that one pod asks for, 1m to 1000 (4, 500m)",
    "cpuLimit": "Processors that it may use; as many as it asks for where not set",
    "memory": "Memory of one pod, asked for and limit; 1Mi or more, with its unit (16Gi)",
    "rollbackTo": "Digest of a former image to serve; `make rollback` sets it (docs/operations/rollout.md)",
    "canaryTrafficPercent": "Share of requests for the newest revision, in Knative mode",
    "serverImage": "Model server, by digest",
    "serverCommand": "Its command",
    "serverArgs": "More of its arguments",
    "serverEnv": "More of its variables, NAME=VALUE, each name once",
    "gpuCount": "GPUs of one pod; on the embedded platform 1 where its machine has one that serves, else 0",
    "serverHostPaths": "Folders of the node that it reads, each once; for the embedded platform only",
    "serverWritablePaths": "More folders, empty at first, that it can write to (docs/runtimes.md)",
    "google": "Registry, cluster and GPU nodes of Google Cloud",
    "kserve": "KServe: install it, or verify the one that is there",
    "egress": "What pods may connect to",
    "ingress": "Who may connect to them; everybody in the cluster where not set",
    "gitops": "Where objects are written to, with delivery gitops",
    "signature": "Who signs images, and whose signature counts",
    "pullSecret": "Secret of type dockerconfigjson that is there, to pull with",
    "registryUsername": "Credentials to make such a Secret from",
    "registryPassword": "Their password; a Pulumi secret",
    "vllm": "Arguments of vLLM",
    "scheduling": "Which nodes take the pods, and labels and annotations of theirs",
    "probes": "How patiently Kubernetes asks the server for its health",
    "termination": "How a pod that goes finishes what it has begun",
    "autoscaling": "How many pods there are, by KEDA; by KServe's HorizontalPodAutoscaler where not set",
    "knative": "How long Knative waits for a pod and with one, in deploymentMode Knative",
    "sharedRuntime": "Name of a ServingRuntime that models share",
    "kernels": (
        "Compiled kernels in the model's image: use them where they fit, require that they do, or off "
        "(docs/operations/cold-start.md)"
    ),
    "gpu": "GPU that the model needs, to choose a pool by; no pool can have `nvidia-gb200`",
    "nodePool": "Pool of GPU nodes; chosen by need where not set",
    "name": "Name of the model in the stack; an entry of models has to have it",
    "formerNames": "Names that the model had before, the oldest first",
}

#: What follows from other settings, and so has a default all the same.
FOLLOWS = {
    "serviceName": "the model's name, with `-` for what KServe does not take",
    "kernels": "`use`; `off` with `image`",
}

#: Modules with components, in the order of the story.
MODULES = (
    "components.google.cloud",
    "components.google.registry",
    "components.google.node_account",
    "components.google.cluster",
    "components.google.node_pool",
    "components.kserve.kserve_platform",
    "components.stack.model",
    "components.image.modelcar_image",
    "components.image.existing_image",
    "components.kserve.pull_access",
    "components.kserve.egress",
    "components.kserve.ingress",
    "components.kserve.pre_pull",
    "components.kserve.model_service",
    "components.kserve.shared_runtime",
    "components.kserve.autoscaler",
    "components.kserve.smoke_test",
)

HEAD = "<!-- Written by `make reference`; change the code that it is taken from instead. -->\n\n"


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    told = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
    texts = {key.removeprefix("modelcar:"): str(row["description"]) for key, row in told.items()}
    texts |= WITHOUT_DEFAULT
    lines = ["# Settings\n"]
    lines.append(
        "Every key of `Pulumi.STACK.yaml`, below `modelcar:`. All are checked before anything is declared; a "
        "wrong one is told with its key, its value, what is allowed and the fix. Settings of a model may "
        "stand in its entry of [`models`](../models.md), and say there what differs from the stack.\n"
    )
    own = frozenset(KEYS) - SHARED
    for title, keys in (
        ("Of the stack", [key for key in KEYS if key in SHARED]),
        ("Of a model", [key for key in KEYS if key in own - OF_ENTRIES]),
        ("Of an entry of `models` only", sorted(OF_ENTRIES)),
    ):
        lines.append(f"## {title}\n")
        if title == "Of the stack":
            extra = {
                "models": (
                    "list",
                    "",
                    "The stack's models ([many models](../models.md)); one, of the settings, without it",
                ),
                "parallelBuilds": ("integer", "`2`", texts["parallelBuilds"]),
                "keepRemovedDays": ("integer", "`30`", texts["keepRemovedDays"]),
                "platformFile": ("text", "", texts["platformFile"]),
            }
        else:
            extra = {}
        rows = [(key, *_row(KEYS[key], FOLLOWS.get(key)), texts[key]) for key in keys]
        rows += [(key, *row) for key, row in extra.items()]
        lines += _table(rows)
    for key, field in KEYS.items():
        for model in models_of(field.annotation):
            lines += _section(key, model)
    return HEAD + "\n".join(lines) + "\n"


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of a section of settings, and of those in it."""
    yield f"## `{path}`\n"
    described = descriptions(model.__doc__ or "")
    summary = (model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    yield f"{summary}\n"
    rows = [
        (str(field.alias), *_row(field), described.get(name, ""))
        for name, field in model.model_fields.items()
    ]
    yield from _table(rows)
    for field in model.model_fields.values():
        for inner in models_of(field.annotation):
            many = "[]" if get_origin(_bare(field.annotation)) is tuple else ""
            if not (path == "google" and field.alias == "pools"):  # as google.nodes
                yield from _section(f"{path}.{field.alias}{many}", inner)


def _table(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    yield "| key | type | default | what |"
    yield "|---|---|---|---|"
    for key, kind, default, text in rows:
        # A page that a description names is one to follow.
        linked = re.sub(r"\bdocs/((?:[\w-]+/)*[\w-]+)\.md\b", r"[\1](../\1.md)", text.rstrip("."))
        cells = [f"`{key}`", kind, default, linked]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def descriptions(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each name: lines `name: text`, which may go on, indented."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        start = re.match(r"((?:[a-z_]+)(?:, [a-z_]+)*): (.+)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.startswith("    ") and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


def _bare(annotation: Any) -> Any:
    """Return a type without None and without what checks it."""
    while True:
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            annotation = get_args(annotation)[0]
        elif origin in {typing.Union, types.UnionType}:
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the section that a field's type is, or is a list of; nothing where it is none."""
    bare = _bare(annotation)
    if get_origin(bare) is tuple:
        bare = _bare(get_args(bare)[0])
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        yield bare


def _row(field: FieldInfo, follows: str | None = None) -> tuple[str, str]:
    """Return a field's type and default, in words; follows: the default that other settings make."""
    default = field.default
    if follows:
        shown = follows
    elif field.is_required():
        shown = "**required**"
    elif field.default_factory is not None or default in {None, PydanticUndefined, "", ()}:
        shown = ""
    else:
        shown = f"`{_plain(default)}`"
    limits = []
    for part in field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (value := getattr(part, name, None)) is not None:
                limits.append(f"{sign} {value}")
    return _kind(field.annotation) + (f", {', '.join(limits)}" if limits else ""), shown


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _kind(annotation: Any) -> str:
    if several := _alternatives(annotation):
        return " or ".join(map(_kind, several))
    bare = _bare(annotation)
    origin = get_origin(bare)
    if origin is tuple:
        return f"list of {_kind(get_args(bare)[0])}"
    if origin is dict:
        return f"map of {_kind(get_args(bare)[1])}"
    if origin is typing.Literal:
        choices = get_args(bare)
        return ", ".join(f"`{choice}`" for choice in choices)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return "section"
    named = {bool: "true or false", int: "integer", float: "number", str: "text"}
    return named.get(bare, "secret text" if "Secret" in str(bare) else "text")


def _alternatives(annotation: Any) -> list[Any]:
    """Return what a value of several types can be, where there are several beside None."""
    if get_origin(annotation) is typing.Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) not in {typing.Union, types.UnionType}:
        return []
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return parts if len(parts) > 1 else _alternatives(parts[0])


def components_page() -> str:
    """Return docs/reference/components.md."""
    lines = ["# Components\n"]
    lines.append(
        "Each is a Pulumi ComponentResource with typed arguments. Those that the package `modelcar_kserve` "
        "exports can be used in [programs of your own](../package.md). Outputs are those of the class; what "
        "it raises, inside of its outputs, fails `up`. Where an argument may be an output, another resource "
        "can produce it.\n"
    )
    exported, sections = exports(), dict[str, type]()
    for name in MODULES:
        module = importlib.import_module(name)
        for item in vars(module).values():
            own = isinstance(item, type) and issubclass(item, pulumi.ComponentResource)
            if own and item.__module__ == name:
                lines += _component(item, module, exported.get(item.__name__), sections)
    lines.append("## Sections\n")
    lines.append("The classes that arguments consist of. The package exports them beside the components.\n")
    told: set[str] = set()
    while left := sorted(sections.keys() - told):
        told |= set(left)
        for name in left:
            _collect(sections[name], sections)
    for name in sorted(sections):
        lines += [f"### {name}\n", f"{_summary(sections[name])}\n", *_arguments(sections[name])]
    return HEAD + "\n".join(lines) + "\n"


def exports() -> dict[str, str]:
    """Return the names that the package for other programs exports, and the module of each."""
    found: dict[str, str] = {}
    for name, module in (("__init__", "modelcar_kserve"), ("google", "modelcar_kserve.google")):
        source = (PROJECT / f"packaging/modelcar_kserve/{name}.py").read_text()
        found |= dict.fromkeys(re.findall(r'^    "(\w+)",$', source, re.MULTILINE), module)
    return found


def _component(
    item: type, module: types.ModuleType, package: str | None, sections: dict[str, type]
) -> Iterator[str]:
    """Yield the lines of a component.

    Args:
        item: its class. module: that it is in.
        package: module that exports it; None where none does.
        sections: gets the classes that are in its arguments.
    """
    source = inspect.getsource(item)
    token = re.search(r'"(modelcar:[a-z]+:\w+)"', source)
    yield f"## {item.__name__}\n"
    place = f"`from {package} import {item.__name__}`" if package else "of this program alone, not exported"
    yield f"`{token[1] if token else ''}`, in `{module.__name__}`; {place}\n"
    yield from _prose(inspect.getdoc(item) or "")
    arguments = getattr(module, f"{item.__name__}Args", None)
    if arguments is not None:
        yield f"### {arguments.__name__}\n"
        if package is None:
            yield from _prose(inspect.getdoc(arguments) or "")
            return
        yield f"{_summary(arguments)}\n"
        yield from _arguments(arguments)
        _collect(arguments, sections)


def _summary(owner: type) -> str:
    """Return what a class is for, without the key that a stack has it by."""
    first = " ".join((owner.__doc__ or "").split("\n\n")[0].split())
    return re.sub(r"^`modelcar:\w+`: (.)", lambda found: found[1].upper(), first)


def texts_of(owner: type) -> dict[str, str]:
    """Return what a class and those that it inherits from say of each field; its own words win."""
    found: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        if one.__module__.startswith("components.") and one.__doc__:
            found |= descriptions(one.__doc__)
    return found


def _hints(owner: type) -> dict[str, Any]:
    # Pulumi's own Input names two types that its users' modules need not have.
    return typing.get_type_hints(owner, None, {"Output": pulumi.Output, "T": Any})


def _arguments(owner: type) -> Iterator[str]:
    """Yield the table of a class of arguments, by the names that Python programs use."""
    texts, hints = texts_of(owner), _hints(owner)
    rows = []
    if issubclass(owner, BaseModel):
        for name, field in owner.model_fields.items():
            limits = _row(field)[0].removeprefix(_kind(field.annotation))
            rows.append((name, _python_kind(hints[name]) + limits, _row(field)[1], texts.get(name, "")))
    elif dataclasses.is_dataclass(owner):
        for one in dataclasses.fields(owner):
            required = one.default is one.default_factory  # both are missing
            plain = one.default not in {dataclasses.MISSING, None, "", ()}
            default = "**required**" if required else f"`{_plain(one.default)}`" if plain else ""
            rows.append((one.name, _python_kind(hints[one.name]), default, texts.get(one.name, "")))
    yield from _table(rows)


def _collect(owner: type, sections: dict[str, type]) -> None:
    """Add the classes that are in a class of arguments."""
    for hint in _hints(owner).values():
        for one in _classes(hint):
            if _is_section(one):
                sections.setdefault(one.__name__, one)


def _classes(hint: Any) -> Iterator[type]:
    if get_origin(hint) is not typing.Literal:
        for part in get_args(hint):
            yield from _classes(part)
        if isinstance(hint, type):
            yield hint


def _is_section(kind: type) -> bool:
    own = kind.__module__.startswith("components.") and kind.__name__ in exports()
    return own and (dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel))


def _python_kind(hint: Any) -> str:
    """Return a type in words, for a program in Python."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        later = {Awaitable, pulumi.Output}
        plain = [part for part in parts if (get_origin(part) or part) not in {*later, type(None)}]
        told = " or ".join(dict.fromkeys(map(_python_kind, plain)))
        return f"{told}, or an output" if any(get_origin(part) in later for part in parts) else told
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"{_python_kind(parts[1])}, by name"
    if isinstance(origin, type) and issubclass(origin, Collection):
        return f"list of {_python_kind(parts[0])}"
    named = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    if hint in named:
        return named[hint]
    name = getattr(hint, "__name__", str(hint))
    return f"[`{name}`](#{name.lower()})" if isinstance(hint, type) and _is_section(hint) else f"`{name}`"


def _prose(text: str) -> Iterator[str]:
    """Yield a docstring as Markdown: `Outputs:` and the like become lists."""
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][A-Za-z ()]*:", line):
            yield f"**{line}**\n"
        elif found := re.match(r"(?:    )?([a-z_]+(?:\.[A-Za-z]+)?(?:, [a-z_]+)*|ValueError): (.+)", line):
            yield f"- `{found[1]}`: {found[2]}"
        elif line.startswith("        "):
            yield f"  {line.strip()}"
        else:
            yield line.strip()
    yield ""


def pages() -> dict[Path, str]:
    """Return the reference's pages as they have to be."""
    return {SETTINGS: settings_page(), COMPONENTS: components_page(), UPGRADING: _with_deprecations()}


def _with_deprecations() -> str:
    """Return docs/upgrading.md with the table of what is deprecated."""
    begin, end = "<!-- deprecations, written by `make reference` -->\n\n", "\n<!-- end -->\n"
    before, _, rest = UPGRADING.read_text().partition(begin)
    return before + begin + deprecations.page() + end + rest.partition(end)[2]


def main() -> int:
    """Write the pages that differ, and name them."""
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(path.relative_to(PROJECT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
