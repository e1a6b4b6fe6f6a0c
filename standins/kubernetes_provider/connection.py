"""The provider's configuration: which cluster, as which user, and how strict.

Each setting comes from the provider resource or from `kubernetes:KEY` in the stack's configuration. What
the stand-in cannot do is refused by name, never ignored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import (
    ConfigException,
    load_incluster_config,
    load_kube_config,
    load_kube_config_from_dict,
)

from standins.kubernetes_provider.cluster import Cluster

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# Connections kept open: a watch holds one for as long as it lasts.
CONNECTIONS = 64

# Settings that only say what the stand-in does anyway; any other value of them is refused.
_FIXED = {"enableServerSideApply": "true"}
_USED = {
    "kubeconfig",
    "context",
    "namespace",
    "enablePatchForce",
    "enableConfigMapMutable",
    "enableSecretMutable",
    "upsertExistingObjects",
    "deleteUnreachable",
}
# They concern what the stand-in has none of: deprecation tables, hooks of charts, a cluster's identity.
_WITHOUT_EFFECT = {"suppressDeprecationWarnings", "suppressHelmHookWarnings", "clusterIdentifier", "version"}
_FLAGS = {
    "enablePatchForce": "PULUMI_K8S_ENABLE_PATCH_FORCE",
    "enableConfigMapMutable": "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE",
    "enableSecretMutable": "PULUMI_K8S_ENABLE_SECRET_MUTABLE",
    "upsertExistingObjects": "PULUMI_K8S_UPSERT_EXISTING_OBJECTS",
    "deleteUnreachable": "PULUMI_K8S_DELETE_UNREACHABLE",
}


class KubeconfigError(Exception):
    """The kubeconfig cannot be used. key is the setting at fault."""

    def __init__(self, key: str, message: str) -> None:
        """Key: the provider's setting; message: what is wrong, what is allowed and the fix."""
        self.key = key
        super().__init__(message)


@dataclass(frozen=True)
class Settings:
    """The provider's settings, with the flags' environment variables applied."""

    kubeconfig: str
    context: str
    namespace: str
    flags: frozenset[str]

    def flag(self, name: str) -> bool:
        """Say whether a flag such as `enablePatchForce` is on."""
        return name in self.flags


def unsupported(given: Mapping[str, Any]) -> dict[str, str]:
    """Return what the stand-in refuses among the settings, with the reason."""
    problems = {}
    for key, value in given.items():
        if key in _USED or key in _WITHOUT_EFFECT or value in ("", None):
            continue
        if key in _FIXED and str(value).lower() == _FIXED[key]:
            continue
        if str(value).lower() == "false" and key not in _FIXED:
            continue
        problems[key] = (
            f"{key}: {value}: the stand-in for pulumi-resource-kubernetes does not support this setting. "
            "fix: remove it, or install the official plugin"
        )
    return problems


def settings_from(given: Mapping[str, Any]) -> Settings:
    """Read the settings out of provider properties (booleans arrive as text)."""
    flags = set()
    for name, variable in _FLAGS.items():
        value = given.get(name)
        if value is None or value == "":
            value = os.environ.get(variable, "")
        if str(value).lower() == "true":
            flags.add(name)
    return Settings(
        kubeconfig=str(given.get("kubeconfig") or ""),
        context=str(given.get("context") or ""),
        namespace=str(given.get("namespace") or ""),
        flags=frozenset(flags),
    )


@dataclass(frozen=True)
class Kubeconfig:
    """A kubeconfig that was found: the content, and the file (or files, as in KUBECONFIG) it is from."""

    content: dict[str, Any]
    file: str
    origin: str

    def context(self, name: str) -> dict[str, Any]:
        """Return one context, the current one for "".

        Raises:
            KubeconfigError: there is no such context.
        """
        contexts = {entry["name"]: entry.get("context") or {} for entry in self.content.get("contexts") or []}
        wanted = name or str(self.content.get("current-context") or "")
        if wanted not in contexts:
            raise KubeconfigError(
                "context",
                f"context: {wanted or '(no current-context)'} is not in {self.origin}. "
                f"allowed: {', '.join(sorted(contexts)) or '(it has none)'}. "
                "fix: name one of these, or take the setting out to use the current one",
            )
        return contexts[wanted]

    def server(self, context: str) -> str:
        """Return the address of a context's API server."""
        wanted = self.context(context).get("cluster")
        for entry in self.content.get("clusters") or []:
            if entry["name"] == wanted:
                return str((entry.get("cluster") or {}).get("server") or "")
        raise KubeconfigError(
            "kubeconfig", f"kubeconfig: {self.origin} has no cluster {wanted}. fix: correct the file"
        )


def find_kubeconfig(kubeconfig: str) -> Kubeconfig | None:
    """Return the kubeconfig to use; None means this process runs in a pod and uses its service account.

    kubeconfig: a path, the content itself, or "" for KUBECONFIG and then ~/.kube/config.

    Raises:
        KubeconfigError: there is none, or it is no kubeconfig.
    """
    if "\n" in kubeconfig or kubeconfig.lstrip().startswith("{"):
        return Kubeconfig(_parse(kubeconfig, "the given content"), "", "the given content")
    paths = kubeconfig or os.environ.get("KUBECONFIG", "")
    if not paths:
        default = Path.home() / ".kube" / "config"
        if not default.exists() and SERVICE_ACCOUNT_TOKEN.exists():
            return None
        paths = str(default)
    files = [str(Path(part).expanduser()) for part in paths.split(os.pathsep) if part]
    present = [file for file in files if Path(file).is_file()]
    if not present:
        source = (
            "kubeconfig" if kubeconfig else "KUBECONFIG" if os.environ.get("KUBECONFIG") else "kubeconfig"
        )
        raise KubeconfigError(
            "kubeconfig",
            f"{source}: {paths} does not exist. allowed: the path of a kubeconfig file, or its content. "
            "fix: start the cluster that writes it, or name another file",
        )
    merged: dict[str, Any] = {"current-context": "", "contexts": [], "clusters": []}
    for file in present:
        try:
            content = _parse(Path(file).read_text(), file, partial=len(present) > 1)
        except OSError as error:
            raise KubeconfigError("kubeconfig", f"kubeconfig: {file} cannot be read: {error}") from error
        merged["current-context"] = merged["current-context"] or content.get("current-context")
        for part in ("contexts", "clusters"):
            merged[part] += content.get(part) or []
    return Kubeconfig(merged, os.pathsep.join(present), os.pathsep.join(present))


def _parse(text: str, origin: str, *, partial: bool = False) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise KubeconfigError(
            "kubeconfig", f"kubeconfig: {origin} is not YAML: {detail}. fix: correct or replace it"
        ) from error
    if not isinstance(content, dict) or not (partial or content.get("clusters")):
        raise KubeconfigError(
            "kubeconfig",
            f"kubeconfig: {origin} names no cluster. allowed: a kubeconfig with clusters, users and "
            "contexts. fix: correct or replace it",
        )
    return content


def connect(settings: Settings) -> tuple[Cluster, str]:
    """Return the cluster that the settings name, and the namespace for objects that have none.

    Nothing is sent yet.

    Raises:
        KubeconfigError: the kubeconfig or the context cannot be used.
    """
    configuration = Configuration()
    found = find_kubeconfig(settings.kubeconfig)
    namespace = settings.namespace
    try:
        if found is None:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            namespace = namespace or str(found.context(settings.context).get("namespace") or "")
            found.server(settings.context)
            name = settings.context or None
            if found.file:  # by path, so that relative paths inside it hold
                load_kube_config(  # type: ignore[no-untyped-call]
                    found.file, context=name, client_configuration=configuration, persist_config=False
                )
            else:
                load_kube_config_from_dict(  # type: ignore[no-untyped-call]
                    found.content, context=name, client_configuration=configuration, persist_config=False
                )
    except ConfigException as error:
        raise KubeconfigError("kubeconfig", f"kubeconfig: {error}") from error
    configuration.connection_pool_maxsize = CONNECTIONS
    configuration.retries = 1
    return Cluster(ApiClient(configuration)), namespace or "default"
