"""The Argo CD Application of a stack: one for each, also where two serve in namespaces of the same name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.config.fitted import fitted
from components.config.gitops import GitOpsSettings
from components.config.problems import NAMESPACE
from modelcar.errors import InputError, refuse

#: Argo CD puts the name into a label of all objects, unless it is told otherwise.
LONGEST = 63
#: Of PyYAML, for `!!bool x` or too many brackets.
_ODD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Application:
    """What Argo CD is told. repository: address of the Git repository. path: of the folder in it.

    name: of the Application, where the stack says it.
    """

    repository: str
    path: str
    revision: str = "main"
    project: str = "default"
    namespace: str = "argocd"
    server: str = "https://kubernetes.default.svc"
    name: str | None = None

    @classmethod
    def of(cls, settings: GitOpsSettings, folder: Path) -> Application | None:
        """Take it from the settings; None where they name no repository.

        Raises:
            InputError: the folder's path in the repository is neither said nor to be found out.
        """
        if settings.repository is None:
            return None
        path = settings.path or _path_in_checkout(folder)
        return cls(
            settings.repository,
            path,
            settings.revision,
            settings.project,
            settings.namespace,
            settings.server,
            settings.application,
        )

    def applies(self, text: str) -> bool:
        """Tell whether a file holds the Application of this folder and server, by whatever name."""
        return _place_of(text) == (self.path, self.server)


def document(name: str, told: Application, namespace: str) -> dict[str, Any]:
    """Return the object: synchronised by hand, as GPUs cost (no `automated` policy)."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": told.namespace},
        "spec": {
            "project": told.project,
            "source": {"repoURL": told.repository, "targetRevision": told.revision, "path": told.path},
            "destination": {"server": told.server, "namespace": namespace},
            "syncPolicy": {"syncOptions": ["CreateNamespace=true", "ServerSideApply=true"]},
        },
    }


def chosen(folder: Path, header: str, told: Application, namespace: str, stack: str) -> tuple[str, str]:
    """Return the file and the name of a stack's Application; one that is there keeps both.

    Args:
        folder: where Applications are written.
        header: of files of this program.
        told: what Argo CD is told.
        namespace: where the models are served.
        stack: the stack's name.

    Raises:
        InputError: the file is another stack's.
    """
    if told.name is None:
        for file, name in _of_this_stack(folder, header, told, namespace):
            return file, name
    name = told.name or name_of(namespace, stack)
    path = folder / f"{name}.yaml"
    there = read(path) or ""  # what is no text is refused with all other files
    if there.startswith(header) and not told.applies(there):
        raise _others(path, there, told, name)
    return path.name, name


def name_of(namespace: str, stack: str) -> str:
    """Return the name of a new Application; stack: its name, empty where nothing has one."""
    whole = f"{namespace}-{stack}" if stack else namespace
    made = re.sub(r"[^-a-z0-9]", "-", whole.lower()).strip("-")
    return fitted(made, LONGEST, whole, exact=made == whole)


def _of_this_stack(folder: Path, header: str, told: Application, namespace: str) -> Iterator[tuple[str, str]]:
    """Yield the files and names of what is there; first the name that versions before 0.4.0 gave."""
    paths = sorted(folder.glob("*.yaml"), key=lambda path: (path.stem != namespace, path.name))
    for path in paths:
        text = read(path) or ""
        if text.startswith(header) and told.applies(text) and (name := _name_of(text)):
            yield path.name, name


def read(path: Path) -> str | None:
    """Return what a file holds, empty where there is none; None where it is no text, and so somebody else's.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (IsADirectoryError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise refuse(
            str(path),
            f"cannot be read: {error.strerror}",
            allowed="a folder and files that this program can read",
            fix=f"name another folder ({NAMESPACE}:gitops.folder), or make them readable",
        ) from None


def parsed(text: str) -> Any:
    """Return the document that a text holds; None where it was edited by hand, and holds none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, *_ODD):
        return None


def _others(path: Path, there: str, told: Application, name: str) -> InputError:
    place = _place_of(there)
    found = f"of {place[0]} on {place[1]}" if place else "which cannot be read"
    return refuse(
        f"{NAMESPACE}:gitops.application",
        f"{name}, and {path} is an Application {found}; this stack's is of {told.path} on {told.server}",
        allowed="a name that no other stack's Application has",
        fix=f"another stack's: pulumi config set --path {NAMESPACE}:gitops.application NAME; "
        "this stack's own, of a former folder or server: remove the file",
    )


def _place_of(text: str) -> tuple[str, str] | None:
    try:
        spec = parsed(text)["spec"]
        return str(spec["source"]["path"]), str(spec["destination"]["server"])
    except (LookupError, TypeError):
        return None


def _name_of(text: str) -> str | None:
    try:
        name = parsed(text)["metadata"]["name"]
    except (LookupError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _path_in_checkout(folder: Path) -> str:
    folder = Path(os.path.normpath(folder.absolute()))
    for parent in folder.parents:
        if (parent / ".git").exists():
            return folder.relative_to(parent).as_posix()
    raise refuse(
        f"{NAMESPACE}:gitops.path",
        f"not set, and {folder} is in no Git checkout",
        allowed="the folder's path in the repository, for Argo CD",
        fix="check the repository out and name a folder in it, or set gitops.path",
    )
