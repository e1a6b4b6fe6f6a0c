"""The stack's objects in the cluster as YAML for a Git repository, from which Argo CD applies them.

Everything follows from settings and lock: neither the cluster nor the registry is asked, no field that a
cluster fills in is written, and a run that changes nothing writes nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.config.checks import secrets
from components.config.gitops import GitOpsSettings
from components.config.settings import Settings
from components.config.stack import Stack
from components.manifests import argo_application, argo_health, autoscaling
from components.manifests.argo_application import Application, parsed, read
from components.manifests.network import egress_policy, ingress_policy, ingress_policy_name
from components.manifests.pre_pull import daemon_set_name, daemon_set_spec, network_policy
from components.manifests.service import labels, predictor, service_annotations, serving_runtime
from components.manifests.yaml_texts import TextDumper
from modelcar.base import read_base
from modelcar.errors import InputError, refuse
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.lock_reader import read_lock

#: Of the file that says which ones were written, so that a file that is no longer wanted can go.
HEADER = (
    "# Written by `python -m operations render`; change the stack's settings or the model's lock instead.\n"
)


@dataclass(frozen=True)
class Change:
    """A file that is to be written, or removed. diff: unified, line by line."""

    path: Path
    what: str
    diff: tuple[str, ...]


def manifests(settings: Settings, project: Path) -> dict[str, dict[str, Any]]:
    """Return the objects by file name, in the order in which they are needed.

    Raises:
        InputError: the model has no lock, or a password would have to be written.
    """
    if settings.registry_username:
        raise refuse(
            "modelcar:registryPassword",
            "set, and Git is no place for it (not shown)",
            allowed="a Secret that is there: modelcar:pullSecret",
            fix="make the Secret in the cluster, and name it",
        )
    uri = f"oci://{settings.place.repository}@{settings.rollback_to or _digest(settings, project)}"
    name, found = settings.service_name, {}
    account = name if settings.pull_secret else None
    if settings.pull_secret:
        body = {
            "imagePullSecrets": [{"name": settings.pull_secret}],
            "automountServiceAccountToken": False,
        }
        found["serviceaccount.yaml"] = {**_object("v1", "ServiceAccount", settings), **body}
    if settings.egress.restrict:
        policy = _object("networking.k8s.io/v1", "NetworkPolicy", settings, f"{name}-egress")
        found["networkpolicy.yaml"] = {**policy, "spec": egress_policy(name, settings.egress)}
    if settings.ingress:
        policy = _object("networking.k8s.io/v1", "NetworkPolicy", settings, ingress_policy_name(name))
        found["networkpolicy-ingress.yaml"] = {**policy, "spec": ingress_policy(name, settings.ingress)}
    if settings.placement in {"servingRuntime", "auto"} and not settings.shared_runtime:
        runtime = _object("serving.kserve.io/v1alpha1", "ServingRuntime", settings)
        found["servingruntime.yaml"] = {**runtime, "spec": serving_runtime(settings)}
    if settings.pre_pull and not settings.idle:
        if settings.egress.restrict:
            policy = _object("networking.k8s.io/v1", "NetworkPolicy", settings, daemon_set_name(settings))
            found["networkpolicy-pre-pull.yaml"] = {**policy, "spec": network_policy(settings)}
        daemon_set = _object("apps/v1", "DaemonSet", settings, daemon_set_name(settings))
        found["daemonset.yaml"] = {**daemon_set, "spec": daemon_set_spec(settings, uri, account)}
    service = _object("serving.kserve.io/v1beta1", "InferenceService", settings)
    service["metadata"]["annotations"] = service_annotations(settings)
    placed = (
        settings.model_copy(update={"placement": "servingRuntime"})
        if settings.placement == "auto"
        else settings
    )
    found["inferenceservice.yaml"] = {**service, "spec": {"predictor": predictor(placed, uri, account)}}
    if scaling := settings.autoscaling:
        scaled = _object(autoscaling.API_VERSION, autoscaling.KIND, settings)
        # Of an idle model too: a sync by hand leaves an object whose file is gone, and KEDA would start pods.
        if annotations := autoscaling.paused(settings):
            scaled["metadata"]["annotations"] = annotations
        found["scaledobject.yaml"] = {**scaled, "spec": autoscaling.scaled_object(settings, scaling)}
    return found


def _digest(settings: Settings, project: Path) -> str:
    if settings.image:
        return str(settings.place.digest)
    return modelcar_image(read_lock(project / settings.lock_path), read_base(settings.architecture)).digest


@dataclass(frozen=True)
class Folder:
    """What one folder is to hold.

    documents: objects by file name.
    texts: what else, by file name, as it is written.
    kept: names of files that are left as they are.
    removes: tells by its text whether a file of this program goes that is not among them.
    """

    path: Path
    documents: Mapping[str, Mapping[str, Any]]
    texts: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    removes: Callable[[str], bool] = lambda _: True

    @property
    def files(self) -> dict[str, str]:
        """What the files hold, by their names."""
        return {**{name: to_yaml(document) for name, document in self.documents.items()}, **self.texts}


def folders(
    stack: Stack,
    project: Path,
    told: GitOpsSettings | None = None,
    *,
    name: str = "",
    failed: Collection[str] = (),
) -> list[Folder]:
    """Return which objects are written to which folder.

    Args:
        stack: its settings.
        project: the program's folder.
        told: where to, and what Argo CD is told; the stack's own where None.
        name: of the stack, which a new Application is called by.
        failed: models whose files stay as they are. While there are any, no object leaves the folder: it may
            be what serves such a model, by a name or in a file that it had before.

    Raises:
        InputError: as `manifests`, or it is not said where to, or a secret would have to be written.
    """
    shared = stack.shared
    if problems := list(secrets.in_git(stack.secrets)):
        raise InputError(problems)
    told = told or shared.gitops
    if told is None:
        raise refuse(
            "modelcar:gitops",
            "not set",
            allowed="a folder of a Git checkout",
            fix=f"name it (--out), or: pulumi config set --path modelcar:gitops.folder "
            f"../deploy/apps/{shared.namespace}",
        )
    path = project / told.folder
    documents: dict[str, Mapping[str, Any]] = {}
    kept: set[str] = set()
    for settings in stack.models:
        found = manifests(settings, project)
        named = {f"{settings.service_name}-{file}": found[file] for file in found} if stack.listed else found
        if settings.key in failed:
            kept |= named.keys()
        documents |= named
    # One that models share is written once, by its own name; as it was, where none of their images is there.
    for settings in stack.models:
        if settings.shared_runtime:
            users = {one.key for one in stack.models if one.shared_runtime == settings.shared_runtime}
            if users <= set(failed):
                kept.add(f"{settings.shared_runtime}-servingruntime.yaml")
            runtime = _object(
                "serving.kserve.io/v1alpha1", "ServingRuntime", settings, settings.shared_runtime
            )
            file = f"{settings.shared_runtime}-servingruntime.yaml"
            documents[file] = {**runtime, "spec": serving_runtime(settings)}
    written = [_identity(found) for name, found in documents.items() if name not in kept]
    result = [
        Folder(
            path,
            documents,
            kept=frozenset(kept),
            removes=(lambda text: _identity(parsed(text)) in written) if failed else (lambda _: True),
        )
    ]
    if told_argo := Application.of(told, path):
        # Beside the folder: an Application that lies in what it applies would apply itself.
        argo = path.parent / "argocd"
        file, own = argo_application.chosen(argo, HEADER, told_argo, shared.namespace, name)
        beside = {file: argo_application.document(own, told_argo, shared.namespace)}
        health = {argo_health.FILE: HEADER + argo_health.patch(told_argo.namespace)}
        standard = shared.deployment_mode == "Standard"
        result.append(
            Folder(
                argo,
                beside,
                health if standard else {},
                # Other stacks write to the folder too.
                removes=told_argo.applies,
            )
        )
    return result


def _identity(document: Any) -> tuple[str, ...] | None:
    """Return what a cluster knows an object by; None for what is none."""
    try:
        metadata = document["metadata"]
        return document["apiVersion"], document["kind"], metadata["namespace"], metadata["name"]
    except (KeyError, TypeError):
        return None


def check(stack: Stack, project: Path, locks: Mapping[str, Lock | None], name: str = "") -> None:
    """Find out what would keep the objects from being written, before anything is declared.

    Args:
        stack, project, name: as of `folders`.
        locks: of its models, by key.

    Raises:
        InputError: as `folders` and `changes`.
    """
    known = all(settings.image or locks[settings.key] for settings in stack.models)
    if stack.shared.delivery == "gitops" and known:
        for folder in folders(stack, project, name=name):
            list(changes(folder))


def _object(version: str, kind: str, settings: Settings, name: str | None = None) -> dict[str, Any]:
    metadata = {
        "name": name or settings.service_name,
        "namespace": settings.namespace,
        "labels": {**labels(settings), "app.kubernetes.io/managed-by": "argocd"},
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def to_yaml(document: Mapping[str, Any]) -> str:
    """Return an object as YAML, with a stable order of keys and no aliases."""
    return HEADER + yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


class _Dumper(TextDumper):
    """Tuples are lists, and what occurs twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- as the library calls it
        """Write no anchors."""
        return True


_Dumper.add_representer(tuple, lambda dumper, data: dumper.represent_list(list(data)))


def changes(folder: Folder) -> Iterator[Change]:
    """Yield what has to be written, or removed, for a folder to hold these objects and no others of ours.

    Raises:
        InputError: a file of one of these names was not written by this program, or one cannot be read.
    """
    for name, wanted in folder.files.items():
        if name in folder.kept:
            continue
        path = folder.path / name
        there = read(path)
        if there is None or (there and not there.startswith(HEADER)):
            raise refuse(
                str(path),
                "was not written by this program",
                allowed="a folder of this program's own, or an empty one",
                fix="name another folder, or remove the file",
            )
        if there != wanted:
            yield Change(path, "changed" if there else "new", tuple(_diff(name, there, wanted)))
    for path in sorted(folder.path.glob("*.yaml")):
        there = read(path) or ""
        if path.name not in folder.documents and there.startswith(HEADER) and folder.removes(there):
            yield Change(path, "removed", tuple(_diff(path.name, there, "")))


def write(folder: Folder) -> list[Change]:
    """Write what has changed, and return it; nothing is touched where nothing has."""
    found = list(changes(folder))
    for change in found:
        if change.what == "removed":
            change.path.unlink()
        else:
            folder.path.mkdir(parents=True, exist_ok=True)
            change.path.write_text(folder.files[change.path.name], "utf-8")
    return found


def _diff(name: str, before: str, after: str) -> Iterator[str]:
    yield from difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", lineterm="", n=2
    )
