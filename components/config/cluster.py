"""The part of the settings that says which cluster serves, and what holds for all pods in it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr

from components.config.fields import MAY_HOLD_SECRETS, Label, SecretName, matches
from components.config.gitops import GitOpsSettings
from components.config.knative import KnativeSettings
from components.config.kserve import KServeSettings
from components.config.network import EgressSettings, IngressSettings
from components.config.section import Section

#: Stands for the namespace where a component's is another resource's output, or none is needed; a stack
#: always says its own. What is checked with the namespace is checked when that is there.
NOT_KNOWN = "not-known"

#: Empty: as if it were not set.
KubeconfigText = Annotated[
    str,
    matches(
        re.compile(r"(?s)|.*\S.*"),
        "blank",
        "the path of a kubeconfig, or its text",
        "set it, or remove it: kubectl's own is taken then",
    ),
]


class DestinationSettings(Section):
    """Keys of a stack that say where in which cluster a model is, and in which of KServe's modes."""

    kubeconfig: Annotated[KubeconfigText | None, MAY_HOLD_SECRETS] = None
    kube_context: str | None = None
    namespace: Label = NOT_KNOWN
    deployment_mode: Literal["Standard", "Knative"] = "Standard"
    knative: KnativeSettings | None = None

    def reached_by(self, kubeconfig: str | None) -> Self:
        """Return the same settings for a cluster of this kubeconfig; None: the settings' own."""
        return self.model_copy(update={"kubeconfig": kubeconfig}) if kubeconfig else self

    @property
    def own_context(self) -> str | None:
        """The context of kubectl that is meant where none is named; None: the current one.

        Raises:
            InputError: a certain cluster is meant, and which one is not known.
        """
        return None


class TargetSettings(Section):
    """Keys of a stack that are about the cluster itself: KServe, the namespace, rights, who applies."""

    create_namespace: bool = True
    kserve: KServeSettings = Field(default_factory=KServeSettings)

    # how nodes pull from a registry that does not know them by themselves
    pull_secret: SecretName | None = None
    registry_username: str | None = None
    registry_password: Annotated[SecretStr | None, MAY_HOLD_SECRETS] = None

    # what the pods may connect to, and who to them
    egress: EgressSettings = Field(default_factory=EgressSettings)
    ingress: IngressSettings | None = None

    # who applies the objects to the cluster
    delivery: Literal["cluster", "gitops"] = "cluster"
    gitops: GitOpsSettings | None = None

    @property
    def uses_cluster(self) -> bool:
        """Whether the program itself declares anything in the cluster."""
        return self.delivery == "cluster" or self.kserve.install

    @property
    def needs_pull_access(self) -> bool:
        """Whether the pods' ServiceAccount has to carry a pull secret."""
        return bool(self.pull_secret or self.registry_username)
