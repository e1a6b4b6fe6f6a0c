"""`modelcar:gitops`: where the objects are written to, and what Argo CD is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.config.fields import ApplicationName, Label, without_credentials
from components.config.section import Section

#: What is written into the Application, which is committed.
_Address = Annotated[
    str, Field(min_length=1), without_credentials("remove them: Argo CD has its own (`argocd repo add`)")
]


class GitOpsSettings(Section):
    """All of `modelcar:gitops`.

    folder: of a Git checkout, relative to the project or absolute; the objects are written there.
    repository: address of the Git repository; with it an Argo CD Application is written too, to
        `argocd/APPLICATION.yaml` beside the folder.
    application: name of the Application in Argo CD. By default NAMESPACE-STACK, or the name that the
        Application of this folder and server has already.
    path: of the folder in the repository; found out from the checkout where it is not set.
    revision: branch or tag that Argo CD follows.
    project: Argo CD's project that the Application belongs to.
    namespace: that the Application lies in, which is Argo CD's own.
    server: API server that Argo CD deploys to, as Argo CD reaches it.
    """

    folder: Annotated[str, Field(min_length=1)]
    repository: _Address | None = None
    application: ApplicationName | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    revision: Annotated[str, Field(min_length=1)] = "main"
    project: Annotated[str, Field(min_length=1)] = "default"
    namespace: Label = "argocd"
    server: _Address = "https://kubernetes.default.svc"
