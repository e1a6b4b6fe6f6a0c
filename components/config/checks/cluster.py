"""The cluster: credentials, who applies objects, what is taken over, and who gets in."""

from __future__ import annotations

from collections.abc import Callable

from components.config.fields import LONGEST_LABEL
from components.config.network import KNATIVE
from components.config.problems import NAMESPACE, problem
from components.config.settings import Settings
from modelcar.errors import Problem


def _pull_access(settings: Settings) -> Problem | None:
    name, password = settings.registry_username, settings.registry_password
    if bool(name) != bool(password):
        missing = "registryPassword" if name else "registryUsername"
        secret = " --secret" if name else ""
        fix = f"pulumi config set{secret} {NAMESPACE}:{missing} …"
        return problem(missing, "not set, while the other half is", "both, or neither", fix)
    if settings.pull_secret and name:
        value = f"{settings.pull_secret}, beside registryUsername"
        return problem("pullSecret", value, "an existing secret, or credentials", "remove one of the two")
    return None


def _delivery(settings: Settings) -> Problem | None:
    if settings.delivery != "gitops":
        return None
    if settings.gitops is None:
        value = "gitops, and modelcar:gitops does not say where to"
        fix = f"pulumi config set --path {NAMESPACE}:gitops.folder ../deploy/apps/{settings.namespace}"
        return problem("delivery", value, "gitops together with a folder of a Git checkout, or cluster", fix)
    if settings.registry_username:
        return problem(
            "registryPassword",
            "set, and Git is no place for it (not shown)",
            "a Secret that is there: modelcar:pullSecret",
            "make the Secret in the cluster, and name it",
        )
    return None


def _import_existing(settings: Settings) -> Problem | None:
    wanted = settings.import_existing
    google = settings.google
    of_google = [kind for kind in wanted if kind.startswith("Repository")]
    if of_google and not google:
        value = f"{of_google[0]}, in a stack without modelcar:google"
        return problem("importExisting", value, "Namespace there", "remove it, or say modelcar:google")
    if "Repository" in wanted and google and google.repository.existing:
        value = "Repository, and google.repository.existing says that somebody else manages it"
        fix = "keep one: existing only refers to it, importExisting makes it this stack's own"
        return problem("importExisting", value, "one of the two", fix)
    if "RepositoryIamMember" in wanted and google and not google.nodes.service_account:
        value = "RepositoryIamMember, and the nodes' account is one that this stack makes"
        fix = f"pulumi config set --path {NAMESPACE}:google.nodes.serviceAccount ACCOUNT, or take it out"
        return problem("importExisting", value, "a grant to an account that is there", fix)
    if "Namespace" in wanted and not settings.create_namespace:
        value = "Namespace, and createNamespace is false"
        fix = f"pulumi config rm {NAMESPACE}:createNamespace, or take Namespace out"
        return problem("importExisting", value, "one of the two", fix)
    if "KServeNamespaces" in wanted and not settings.kserve.install:
        value = "KServeNamespaces, and this stack does not install KServe"
        return problem("importExisting", value, f"{NAMESPACE}:kserve.install true beside it", "take it out")
    return None


def _namespace(settings: Settings) -> Problem | None:
    """One object that is declared twice is deleted with either."""
    twice = settings.create_namespace and settings.delivery == "cluster"
    if not twice or settings.namespace not in settings.kserve.namespaces:
        return None
    value = f"{settings.namespace}, which {NAMESPACE}:kserve.install makes too, for KServe or cert-manager"
    fix = (
        "choose another one, or set createNamespace to false; on a stack that is deployed so, either would "
        "delete the namespace: see docs/upgrading.md first"
    )
    return problem("namespace", value, "a namespace of the models' own", fix)


def _smoke_namespace(settings: Settings) -> Problem | None:
    # Other placements are tested by hand only, and that test says itself that the namespace is taken.
    if settings.placement != "auto" or settings.smoke_namespace != settings.namespace:
        return None
    value = f"{settings.smoke_namespace}, where the models are served"
    fix = f"pulumi config set {NAMESPACE}:smokeNamespace {settings.namespace[:57].rstrip('-')}-smoke"
    return problem("smokeNamespace", value, "another one than namespace: the test makes and removes it", fix)


def _shared_runtime(settings: Settings) -> Problem | None:
    name = settings.shared_runtime or ""
    # In Git it has its model's label.
    if len(name) <= LONGEST_LABEL or settings.delivery != "cluster":
        return None
    value = f"{name} ({len(name)} characters), which is a label of the ServingRuntime too"
    return problem("sharedRuntime", value, f"at most {LONGEST_LABEL} characters", "shorten it")


def _import_objects(settings: Settings) -> Problem | None:
    wanted = settings.import_objects
    if wanted and settings.delivery != "cluster":
        value = f"{wanted[0]}, and Git delivers this stack's objects"
        fix = f"pulumi config rm {NAMESPACE}:importObjects: Argo CD takes over what is there by itself"
        return problem("importObjects", value, "nothing with delivery gitops", fix)
    own_runtime = settings.placement == "servingRuntime" and not settings.shared_runtime
    if "ServingRuntime" in wanted and not own_runtime:
        value = f"ServingRuntime, which a model of placement {settings.placement} has none of its own of"
        return problem("importObjects", value, "InferenceService, NetworkPolicy", "take it out")
    if "NetworkPolicy" in wanted and not settings.egress.restrict:
        value = "NetworkPolicy, and egress.restrict is false"
        return problem("importObjects", value, "InferenceService, ServingRuntime", "take it out")
    return None


def _ingress(settings: Settings) -> Problem | None:
    if settings.ingress is None or settings.deployment_mode != "Knative":
        return None
    if KNATIVE in settings.ingress.namespaces:
        return None
    value = f"{list(settings.ingress.namespaces)}, which keeps Knative's own activator out"
    return problem(
        "ingress.namespaces", value, f"{KNATIVE} among them", "add it, and the gateway's namespace"
    )


def _host_paths(settings: Settings) -> Problem | None:
    # The embedded platform's registry speaks plain HTTP; its node is the machine with those folders.
    if settings.server_host_paths and settings.gpu_count and not settings.registry_insecure:
        value = f"{len(settings.server_host_paths)} folders on a stack with GPUs"
        fix = "put the server into serverImage instead"
        return problem("serverHostPaths", value, "[] but on the local stack", fix)
    return None


#: All of them.
CHECKS: tuple[Callable[[Settings], Problem | None], ...] = (
    _pull_access,
    _delivery,
    _namespace,
    _smoke_namespace,
    _import_existing,
    _shared_runtime,
    _import_objects,
    _ingress,
    _host_paths,
)
