"""What others in the cluster need too is not deleted by a setting: KServe, and the Namespace of models.

Pulumi deletes what a program declares no longer, and with a Namespace all that is in it, with KServe's
definitions every InferenceService of the cluster. Outputs do not tell what a stack made, so its state is
asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pulumi

from components.config.kserve import CERT_MANAGER
from components.config.problems import NAMESPACE, problem
from components.config.stack import Stack
from modelcar.errors import Problem

_WHERE = "docs/troubleshooting.md, 'was made by this stack, and would be deleted'"
_PLATFORM = "modelcar:kserve:KServePlatform"
#: Names of KServePlatform's resources (components/kserve/kserve_platform.py).
_SPACE = "kserve-namespace-"
_OF_CERT_MANAGER = "kserve-cert-manager"
_RELEASE = "kubernetes:helm.sh/v3:Release"
_NAMESPACE = "kubernetes:core/v1:Namespace"
#: A ConfigMap that versions before 0.2.0 looked at; nothing happens to it as it leaves the state.
_ONLY_READ = "kserve-config"


@dataclass(frozen=True)
class _Owned:
    """A resource in the stack's state. kinds: its type behind those of its parents."""

    urn: str
    kinds: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, urn: str) -> _Owned:
        _, _, kinds, name = urn.split("::", 3)
        return cls(urn, tuple(kinds.split("$")), name)

    @property
    def in_cluster(self) -> bool:
        return self.kinds[-1].startswith("kubernetes:")


def problems(stack: Stack, urns: Collection[str]) -> Iterator[Problem]:
    """Yield each setting whose change would delete what others in the cluster need.

    Args:
        stack: its settings.
        urns: of what the stack's state has.
    """
    owned = [_Owned.of(urn) for urn in sorted(urns)]
    platform = [one for one in owned if _PLATFORM in one.kinds and one.in_cluster]
    if any(one.kinds[-1] == _RELEASE for one in platform):  # else a first run broke off, and nothing runs
        yield from _of_kserve(stack, platform)
    models = [
        one for one in owned if _PLATFORM not in one.kinds and one.in_cluster and one.name != _ONLY_READ
    ]
    spaces = [one for one in models if one.kinds == (_NAMESPACE,)]
    shared = stack.shared
    if shared.delivery != "cluster":
        if models:
            yield _handed_to_git(spaces or models)
        return
    for space in spaces:
        if space.name == shared.namespace and not shared.create_namespace:
            yield problem(
                "createNamespace",
                f"false, and Namespace {space.name} was made by this stack, and would be deleted with all "
                "that is in it",
                "true, as long as the Namespace is this stack's",
                f"pulumi config rm {NAMESPACE}:createNamespace; or first hand it over: {_move(space.urn)}",
            )


def _of_kserve(stack: Stack, platform: list[_Owned]) -> Iterator[Problem]:
    shared = stack.shared
    component = platform[0].urn.split("::")
    whole = "::".join([*component[:2], _PLATFORM, "kserve"])
    certificates = [one for one in platform if one.name in (_OF_CERT_MANAGER, _SPACE + CERT_MANAGER)]
    installs = shared.kserve.install and shared.uses_cluster
    if not installs and any(one.kinds[-1] == _RELEASE and one not in certificates for one in platform):
        yield problem(
            "kserve.install",
            "false, and KServe was made by this stack, and would be deleted with its definitions: every "
            "InferenceService of the cluster goes with them, those of other stacks too",
            "true, as long as KServe is this stack's",
            f"pulumi config set --path {NAMESPACE}:kserve.install true; or first hand it over: "
            f"{_move(whole)}",
        )
        return
    if certificates and not (installs and shared.kserve.install_cert_manager):
        yield problem(
            "kserve.installCertManager" if installs else "kserve.install",
            "false, and cert-manager was made by this stack, and would be deleted with its definitions: "
            "every Certificate of the cluster goes with them, and KServe's webhooks have one",
            "true, as long as cert-manager is this stack's",
            f"set it again; or first hand it over: {_move(*(one.urn for one in certificates))}",
        )
    for one in platform if installs else ():
        former = one.name.removeprefix(_SPACE)
        if former in (one.name, CERT_MANAGER, shared.kserve.namespace):
            continue
        yield problem(
            "kserve.namespace",
            f"{shared.kserve.namespace}, and this stack made KServe in {former}: KServe and its definitions "
            "would be deleted and made anew, and every InferenceService of the cluster goes with them",
            former,
            f"pulumi config set --path {NAMESPACE}:kserve.namespace {former}",
        )


def _handed_to_git(left: list[_Owned]) -> Problem:
    urns = " ".join(f"'{one.urn}'" for one in left)
    return problem(
        "delivery",
        "gitops, and what serves was made by this stack, and would be deleted",
        "gitops once the state has none of it",
        f"pulumi state delete --stack {pulumi.get_stack()} --target-dependents {urns} "
        "(docs/operations/gitops.md, 'A stack that serves already')",
    )


def _move(*urns: str) -> str:
    named = " ".join(f"'{urn}'" for urn in urns)
    return (
        f"pulumi stack init handover --no-select, then pulumi state move --source {pulumi.get_stack()} "
        f"--dest handover {named} ({_WHERE})"
    )


def told(stack: Stack, urns: Collection[str]) -> Iterator[str]:
    """Yield, for the head of a preview, the Namespace that goes as the stack has another one now."""
    shared = stack.shared
    if shared.delivery != "cluster":
        return
    for one in map(_Owned.of, sorted(urns)):
        if one.kinds == (_NAMESPACE,) and one.name != shared.namespace:
            yield (
                f"DELETED: Namespace {one.name} (namespace {one.name} → {shared.namespace}) with all that is "
                "in it, what others have there too, once the models serve in the new one"
            )
