"""What no setting can know alone: settings that do not go together."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from components import image_place, oci
from components.fields import quantity
from components.ingress import KNATIVE
from modelcar.errors import Problem

if TYPE_CHECKING:
    from components.settings import Settings

NAMESPACE = "modelcar"

#: Set by the program on the server; a stack that could unset them could reach a model hub at run time.
#: The last two are how a pod knows which compiled kernels fit it (`components/kernels.py`).
RESERVED_ENV = frozenset(
    {
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HOME",
        "STORAGE_URI",
        "MODELCAR_KERNELS",
        "MODELCAR_SERVER_ID",
    }
)

#: Name the server's user, which its image does not. A stack may name another one, as stacks did before the
#: program named any; without a name torch cannot be imported.
USER_VARIABLES = frozenset({"LOGNAME", "USER"})

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def problem(key: str, value: object, allowed: str, fix: str) -> Problem:
    """Return a problem with one of the stack's own keys."""
    return Problem(f"{NAMESPACE}:{key}", str(value), allowed, fix)


def _repository(settings: Settings) -> Problem | None:
    # A registry counts everything below its host.
    path = f"{settings.registry.partition('/')[2]}/{settings.repository}"
    if len(path) <= oci.LONGEST_NAME or settings.image:
        return None
    value = f"{settings.repository[:40]}… gives a repository name of {len(path)} characters"
    return problem(
        "imageName", value, f"{oci.LONGEST_NAME} characters with the registry's path", "shorten it"
    )


def _hostname(settings: Settings) -> Problem | None:
    # KServe names hosts `<name>-predictor-<namespace>`, each a DNS label (RFC 1123).
    label = f"{settings.service_name}-predictor-{settings.namespace}"
    if len(label) <= 63:
        return None
    value = f"{settings.service_name} gives the host label {label} ({len(label)} characters)"
    return problem("serviceName", value, "63 characters at most", "shorten serviceName or namespace")


def _replicas(settings: Settings) -> Problem | None:
    if settings.max_replicas < max(settings.min_replicas, 1):
        value = f"{settings.max_replicas}, below minReplicas {settings.min_replicas}"
        return problem("maxReplicas", value, "at least minReplicas", "raise maxReplicas or lower minReplicas")
    return None


def _cpu(settings: Settings) -> Problem | None:
    if settings.cpu_limit and quantity(settings.cpu_limit) < quantity(settings.cpu):
        value = f"{settings.cpu_limit}, below the request modelcar:cpu {settings.cpu}"
        return problem("cpuLimit", value, "at least modelcar:cpu", "raise cpuLimit or lower cpu")
    return None


def _rollout(settings: Settings) -> Problem | None:
    if settings.rollout != "auto" and settings.deployment_mode != "Standard":
        value = (
            f"{settings.rollout} in deployment mode {settings.deployment_mode}, which has its own revisions"
        )
        return problem("rollout", value, "auto there", "remove modelcar:rollout")
    return None


def _canary(settings: Settings) -> Problem | None:
    if settings.canary_traffic_percent is not None and settings.deployment_mode == "Standard":
        value = f"{settings.canary_traffic_percent} in deployment mode Standard, which splits no traffic"
        fix = "remove it; or set deploymentMode Knative on a new service; or split traffic between two stacks"
        return problem("canaryTrafficPercent", value, "0 to 100, in deploymentMode Knative", fix)
    return None


def _scale_to_zero(settings: Settings) -> Problem | None:
    if settings.min_replicas == 0 and settings.deployment_mode == "Standard" and not settings.autoscaling:
        value = "0 in deployment mode Standard, where the HorizontalPodAutoscaler makes it 1"
        allowed = "1 or more, or deploymentMode Knative, or modelcar:autoscaling (KEDA)"
        return problem("minReplicas", value, allowed, "set minReplicas to 1, or say what asks for a pod")
    return None


def _storage_uris(settings: Settings) -> Problem | None:
    if settings.placement == "storageUris" and settings.deployment_mode != "Standard":
        value = f"storageUris in deployment mode {settings.deployment_mode}"
        fix = "use servingRuntime, which works in every mode"
        return problem("placement", value, "servingRuntime or storageUriEnv there", fix)
    return None


def _environment(settings: Settings) -> Problem | None:
    for number, entry in enumerate(settings.server_env, start=1):
        name, separator, text = entry.partition("=")
        if not separator or not _VARIABLE.fullmatch(name):
            # What stands there may be a token: it is never shown.
            value = f"entry {number} is not NAME=VALUE (not shown: it may be a secret)"
            return problem("serverEnv", value, "NAME=VALUE entries", "write NAME=VALUE")
        if name in RESERVED_ENV:
            fix = "remove the entry: the program sets it"
            allowed = f"any name but {', '.join(sorted(RESERVED_ENV))}"
            return problem("serverEnv", f"{name} is set", allowed, fix)
        if name in USER_VARIABLES and not text:
            fix = "remove the entry: the program sets it"
            return problem("serverEnv", f"{name} is empty", "a name: the server fails without one", fix)
    return None


def _host_paths(settings: Settings) -> Problem | None:
    for path in settings.server_host_paths:
        below_root = path.startswith("/") and posixpath.normpath(path).strip("/")
        if not below_root or ".." in PurePosixPath(path).parts:
            return problem("serverHostPaths", path, "absolute paths below /", "give the folder's full path")
    # The embedded platform's registry speaks plain HTTP; its node is the machine with those folders.
    if settings.server_host_paths and settings.gpu_count and not settings.registry_insecure:
        value = f"{len(settings.server_host_paths)} folders on a stack with GPUs"
        fix = "put the server into serverImage instead"
        return problem("serverHostPaths", value, "[] but on the local stack", fix)
    return None


#: What the pod has of its own, and KServe puts into it: no folder can be put over or around these.
_OWN_FOLDERS = ("/dev", "/mnt", "/proc", "/sys", "/tmp")  # noqa: S108


def _writable_paths(settings: Settings) -> Problem | None:
    taken = [*_OWN_FOLDERS, *settings.server_host_paths]
    for path in settings.server_writable_paths:
        folder = PurePosixPath(path)
        # Kubernetes takes no colon in a mount path.
        if not path.startswith("/") or len(folder.parts) < 2 or ".." in folder.parts or ":" in path:
            allowed, fix = "absolute paths below /", "give the folder's full path in the server's image"
            return problem("serverWritablePaths", path, allowed, fix)
        for other in taken:
            if folder.is_relative_to(other) or PurePosixPath(other).is_relative_to(folder):
                value = path if path == other else f"{path}, beside {other}"
                allowed = f"folders apart from each other, from serverHostPaths, {', '.join(_OWN_FOLDERS)}"
                return problem("serverWritablePaths", value, allowed, "take one of the two out")
        taken.append(path)
    return None


def _templates(settings: Settings) -> Problem | None:
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


def _fetch_on(settings: Settings) -> Problem | None:
    if settings.fetch_on == "builder" and not settings.builder:
        value = "builder, and modelcar:builder is not set: the default builder is on this machine"
        fix = f"pulumi config set {NAMESPACE}:builder NAME (docker buildx ls)"
        return problem("fetchOn", value, "builder together with modelcar:builder, or machine", fix)
    return None


def mirrors_beside_builder(settings: Settings, key: str = "mirrors") -> Problem | None:
    """Return the problem of a mirror whose layers would pass this machine, where the builder fetches.

    Args:
        settings: of a model.
        key: that names the mirrors.
    """
    host = settings.registry.partition("/")[0]
    others = [name for name in settings.mirrors if name.partition("/")[0] != host]
    if settings.fetch_on != "builder" or not others:
        return None
    value = f"{others[0]}, beside fetchOn builder: a copy from another registry passes this machine"
    allowed = f"repositories of {host}, which it mounts without a copy; or fetchOn machine"
    fix = f"pulumi config rm {NAMESPACE}:fetchOn, or take the mirror out: the builder fetches from the hub"
    return problem(key, value, allowed, fix)


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
    of_google = [kind for kind in wanted if kind != "Namespace"]
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
    return None


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


CHECKS: tuple[Callable[[Settings], Problem | None], ...] = (
    image_place.check,
    _repository,
    _hostname,
    _replicas,
    _cpu,
    _rollout,
    _canary,
    _scale_to_zero,
    _storage_uris,
    _environment,
    _host_paths,
    _writable_paths,
    _templates,
    _pull_access,
    _fetch_on,
    mirrors_beside_builder,
    _delivery,
    _import_existing,
    _import_objects,
    _ingress,
)
