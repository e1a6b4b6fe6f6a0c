"""The model server's container: resources, variables, folders, and texts that KServe expands."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from pathlib import PurePosixPath

from components.config.model_path import ADAPTERS_PATH, IMAGE_PATH, MODEL_PATH
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.quantities import quantity
from components.config.server import RESERVED_ENV, USER_VARIABLES, ServerSettings
from modelcar.errors import Problem

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Kubernetes takes no colon in a mount path.
_UNMOUNTABLE = re.compile(r"[:\x00-\x1f\x7f]")


def _cpu(settings: ModelSpec) -> Problem | None:
    if settings.cpu_limit and quantity(settings.cpu_limit) < quantity(settings.cpu):
        value = f"{settings.cpu_limit}, below the request modelcar:cpu {settings.cpu}"
        return problem("cpuLimit", value, "at least modelcar:cpu", "raise cpuLimit or lower cpu")
    return None


def _shared_memory(settings: ModelSpec) -> Problem | None:
    # The default is what a stack has that says nothing; Kubernetes makes /dev/shm no larger than the memory.
    said = settings.shared_memory != ServerSettings.model_fields["shared_memory"].default
    if said and quantity(settings.shared_memory) > quantity(settings.memory):
        value = (
            f"{settings.shared_memory}, more than modelcar:memory {settings.memory}, which it is a part of: "
            "no pod could use so much"
        )
        return problem(
            "sharedMemory", value, "at most modelcar:memory", "raise memory, or lower sharedMemory"
        )
    return None


def _environment(settings: ModelSpec) -> Problem | None:
    names: dict[str, int] = {}
    for number, entry in enumerate(settings.server_env, start=1):
        name, separator, text = entry.partition("=")
        if not separator or not _VARIABLE.fullmatch(name):
            # What stands there may be a token: it is never shown.
            value = f"entry {number} is not NAME=VALUE (not shown: it may be a secret)"
            return problem("serverEnv", value, "NAME=VALUE entries", "write NAME=VALUE")
        if name in names:
            value = f"{name} is set twice, and only entry {number} would reach the server"
            return problem("serverEnv", value, "each name once", f"remove entry {names[name]} or {number}")
        names[name] = number
        if name in RESERVED_ENV:
            fix = "remove the entry: the program sets it"
            allowed = f"any name but {', '.join(sorted(RESERVED_ENV))}"
            return problem("serverEnv", f"{name} is set", allowed, fix)
        if name in USER_VARIABLES and not text:
            fix = "remove the entry: the program sets it"
            return problem("serverEnv", f"{name} is empty", "a name: the server fails without one", fix)
    return None


def _command(settings: ModelSpec) -> Problem | None:
    """A container's program is its command's first element, whole: no shell takes it apart."""
    program, *others = settings.server_command
    words = program.split()
    if not words:
        fix = "write the program's name first, or remove serverCommand"
        return problem("serverCommand", repr(program), "a program, and its arguments", fix)
    if len(words) < 2 or ("/" in words[0] and not any(word.startswith("-") for word in words)):
        return None  # a path may have spaces
    value = f"{program!r}, of which no shell makes several words: there is no such program"
    fix = f"write {json.dumps([*words, *others])}"
    return problem("serverCommand", value, "each word an element of its own", fix)


def _folder(path: str) -> PurePosixPath | None:
    """Return the folder that a pod can have something mounted at; None where a path names none."""
    if not path.startswith("/") or _UNMOUNTABLE.search(path) or ".." in PurePosixPath(path).parts:
        return None
    folder = PurePosixPath("/" + posixpath.normpath(path).lstrip("/"))  # POSIX keeps two leading slashes
    return folder if len(folder.parts) > 1 else None


def _no_folder(key: str, path: str, fix: str) -> Problem:
    shown = repr(path) if _UNMOUNTABLE.search(path) else path
    return problem(key, shown, "absolute paths below /, without ':' and control characters", fix)


def _of_adapters(key: str, path: str) -> Problem:
    value = f"{path}, with adapters that are images of their own"
    allowed = f"folders outside of {ADAPTERS_PATH}, where these are mounted"
    return problem(key, value, allowed, "choose another folder, or put the adapters into the model's image")


#: Where the program and KServe mount folders of their own in each pod.
_MOUNTED = ("/dev/shm", "/mnt", MODEL_PATH, "/tmp")  # noqa: S108


def _host_paths(settings: ModelSpec) -> Problem | None:
    taken = dict.fromkeys(map(PurePosixPath, _MOUNTED), "which each pod has already")
    for path in settings.server_host_paths:
        folder = _folder(path)
        if folder is None:
            return _no_folder("serverHostPaths", path, "give the folder's full path")
        if settings.placement == "imageVolume" and folder.is_relative_to(IMAGE_PATH):
            value = f"{path}, with placement imageVolume"
            allowed = f"folders outside of {IMAGE_PATH}, where the model's image is mounted"
            return problem("serverHostPaths", value, allowed, "use placement servingRuntime")
        if settings.adapter_images and folder.is_relative_to(ADAPTERS_PATH):
            return _of_adapters("serverHostPaths", path)
        if folder in taken:
            allowed = f"each folder once, and none of {', '.join(_MOUNTED)}"
            return problem("serverHostPaths", f"{path}, {taken[folder]}", allowed, "take it out")
        taken[folder] = "twice"
    return None


#: What the pod has of its own, and KServe puts into it: no empty folder can be put over or around these.
_OWN_FOLDERS = ("/dev", "/mnt", "/proc", "/sys", "/tmp")  # noqa: S108


def _writable_paths(settings: ModelSpec) -> Problem | None:
    paths = (*_OWN_FOLDERS, *settings.server_host_paths)
    taken = [(other, found) for other in paths if (found := _folder(other))]
    for path in settings.server_writable_paths:
        folder = _folder(path)
        if folder is None:
            return _no_folder(
                "serverWritablePaths", path, "give the folder's full path in the server's image"
            )
        if settings.adapter_images and folder.is_relative_to(ADAPTERS_PATH):
            return _of_adapters("serverWritablePaths", path)
        for other, own in taken:
            if folder.is_relative_to(own) or own.is_relative_to(folder):
                value = path if path == other else f"{path}, beside {other}"
                allowed = f"folders apart from each other, from serverHostPaths, {', '.join(_OWN_FOLDERS)}"
                return problem("serverWritablePaths", value, allowed, "take one of the two out")
        taken.append((path, folder))
    return None


def _nul(settings: ModelSpec) -> Problem | None:
    """No program can be started with a NUL character in what it is given."""
    said = {
        "serverCommand": settings.server_command,
        "serverArgs": settings.server_args,
        "serverEnv": settings.server_env,
    }
    for key, texts in said.items():
        for number, text in enumerate(texts):
            if "\0" in text:
                found = "holds a NUL character (not shown: it may be a secret)"
                return problem(f"{key}[{number}]", found, "a text without NUL characters", "take it out")
    return None


def _templates(settings: ModelSpec) -> Problem | None:
    # KServe runs a ServingRuntime's whole container through Go templates ({{.Name}}).
    expanded = {
        "serverCommand": settings.server_command,
        "serverArgs": settings.server_args,
        "servedModelName": (settings.served_model_name,),
        "serverWritablePaths": settings.server_writable_paths,
    }
    allowed, fix = "no '{{', which KServe expands", "write the value itself"
    for key, texts in expanded.items():
        for text in texts:
            if "{{" in text:
                return problem(key, text, allowed, fix)
    for entry in settings.server_env:
        if "{{" in entry:
            return problem("serverEnv", f"the value of {entry.partition('=')[0]} has '{{{{'", allowed, fix)
    return None


#: All of them.
CHECKS: tuple[Callable[[ModelSpec], Problem | None], ...] = (
    _cpu,
    _shared_memory,
    _environment,
    _command,
    _host_paths,
    _writable_paths,
    _nul,
    _templates,
)
