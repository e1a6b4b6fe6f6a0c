"""A policy for Kyverno: no pod starts with a modelcar that nobody signed, whoever deploys it.

`up` refuses an unsigned image before anything refers to it; this refuses it at the API server as well, where
others may write InferenceServices or pods past this program. It looks at pods, as whatever makes pods has to
ask the API server for each. A modelcar is in a container that KServe adds, or in a volume (`volumes[].image`;
`oci+native://` of KServe 0.20 becomes one).

Kinds and fields: ImageValidatingPolicy, policies.kyverno.io/v1 (Kyverno 1.17 and later), which reads Sigstore
bundles as cosign 3 attaches them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.cluster.probe_image import probe_image
from components.config.fitted import fitted
from components.config.image_place import ImagePlace
from components.config.problems import problem
from components.config.settings import Settings
from components.config.signature import SignatureSettings
from components.config.stack import Stack
from modelcar.base import LOCKED_ARCHITECTURES, read_base
from modelcar.errors import InputError, refuse
from modelcar.signing import SCHEME
from operations.image_names import IDENTIFIER, below, within

#: Verifies each of a pod's images that the policy is for; Kyverno passes over the others.
SIGNED = ".map(image, verifyImageSignatures(image, [attestors.modelcar])).all(count, count > 0)"
UNSIGNED = "a modelcar without a signature that counts"
#: Containers that KServe puts modelcars into, and those that somebody might add to a pod: known to Kyverno.
CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
#: Kyverno 1.19 does not look for images in volumes by itself (pkg/cel/compiler/images.go).
VOLUMES = {
    "name": "volumes",
    "expression": "(object != null ? object : oldObject).spec.?volumes.orValue([])"
    ".filter(v, has(v.image)).map(v, has(v.image.reference) ? v.image.reference : '')",
}
#: Who can give Kyverno credentials, by the ends of registries' hosts. It asks nobody unless the policy says
#: so: its own --registryCredentialHelpers is empty by default.
PROVIDERS = {
    "google": ("pkg.dev", "gcr.io"),
    "amazon": ("amazonaws.com", "amazonaws.com.cn"),
    "azure": ("azurecr.io",),
    "github": ("ghcr.io",),
}
#: What a policy is asked of: each pod, and each ephemeral container that comes to one.
PODS = {
    "resourceRules": [
        {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["pods", "pods/ephemeralcontainers"],
        }
    ]
}
#: For the registry's answers, in seconds; of Kubernetes' 30 at most for a webhook.
TIMEOUT = 20
#: Characters of an object's name, as of what Kyverno makes of it.
LONGEST = 63


def policy(
    settings: Settings,
    project: Path,
    stack: str,
    *,
    name: str,
    others: Sequence[str] = (),
    secrets: Sequence[str] = (),
    providers: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the policy for the images below a stack's registry.

    Args:
        settings: any model's of the stack.
        project: the folder that files of keys are relative to.
        stack: its name.
        name: what the policy is called.
        others: repositories elsewhere that models and adapters are served from (`mounted`), as HOST/PATH.
        secrets: pull secrets in Kyverno's namespace that it reads the registry with.
        providers: what else gives it credentials (PROVIDERS); by default what the registry's host says.

    Raises:
        InputError: the stack does not say whose signature counts (`modelcar:signature`).
    """
    signature = settings.signature
    if signature is None:
        found = f"not set for stack {stack}, so nobody's signature counts"
        allowed = "signature.publicKey, or signature.identity with signature.issuer"
        fix = "docs/supply-chain.md: sign the images first, then ask for it at admission"
        raise InputError([problem("signature", found, allowed, fix)])
    checks = [
        {"expression": f"images.{kind}{SIGNED}", "message": f"{UNSIGNED} ({kind})"}
        for kind in (*CONTAINERS, VOLUMES["name"])
    ]
    probe = _probe()
    return {
        "apiVersion": "policies.kyverno.io/v1",
        "kind": "ImageValidatingPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "validationActions": ["Deny"],
            "webhookConfiguration": {"timeoutSeconds": TIMEOUT},
            "evaluation": {"background": {"enabled": False}},
            "autogen": {"podControllers": {"controllers": []}},
            "matchConstraints": PODS,
            "matchImageReferences": [
                {"expression": f"ref.matches(r'{pattern}') && !{probe}"}
                for pattern in (*_patterns(settings.registry, others), IDENTIFIER)
            ],
            "images": [VOLUMES],
            "validationConfigurations": {"mutateDigest": False, "verifyDigest": True, "required": True},
            **credentials([settings.registry, *others], secrets, providers),
            "attestors": [{"name": "modelcar", "cosign": _attestor(signature, project)}],
            "validations": checks,
        },
    }


def _probe() -> str:
    """Return an expression for the image of `make smoke`, which no key signs.

    Its digests are known, and there is no model in it.
    """
    digests = [probe_image(read_base(architecture)).digest for architecture in LOCKED_ARCHITECTURES]
    return f"ref.matches(r'@(?:{'|'.join(digests)})$')"


def _patterns(registry: str, others: Sequence[str]) -> list[str]:
    elsewhere = sorted({one for one in others if not one.startswith(f"{registry}/")})
    return [below(registry), *map(within, elsewhere)]


def credentials(
    registries: Sequence[str], secrets: Sequence[str], providers: Sequence[str]
) -> dict[str, Any]:
    """Return the policy's field by which Kyverno reads registries that want credentials.

    Google's are those of Kyverno's ServiceAccount by Workload Identity Federation. Empty where nothing is
    known: Kyverno's own flags hold then.
    """
    hosts = [registry.partition("/")[0].partition(":")[0].lower() for registry in registries]
    own = [
        name
        for name, ends in PROVIDERS.items()
        if any(f".{host}".endswith(f".{end}") for host in hosts for end in ends)
    ]
    # A secret that somebody names is what Kyverno is to use.
    asked = list(providers) or ([] if secrets else own)
    found = {"secrets": list(secrets), "providers": asked}
    named = {key: value for key, value in found.items() if value}
    return {"credentials": named} if named else {}


def notes(found: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    """Yield what a person has to do beside applying the policy, so that Kyverno can read the registry."""
    asked = found["spec"].get("credentials", {})
    if "google" in asked.get("providers", []):
        yield (
            "note: Kyverno's ServiceAccount has to read the repository (roles/artifactregistry.reader): "
            "docs/security.md, Admission by signature"
        )
    if not asked and settings.needs_pull_access:
        yield (
            f"note: {settings.registry} wants credentials, and the policy names none: put a pull secret into "
            "Kyverno's namespace and name it by --secret, or no pod with these images starts"
        )


def check_options(builtin: bool, allow: Sequence[str], kyverno: Sequence[str]) -> None:
    """Check which options go with which policy.

    Raises:
        InputError: one is of the other policy.
    """
    if builtin and kyverno:
        found, fix = (
            "--secret or --provider, with --builtin",
            "leave it out: the API server reads no registry",
        )
        raise refuse("admission", found, allowed="--builtin with --allow or --allow-volume", fix=fix)
    if allow and not builtin:
        found, fix = (
            "--allow or --allow-volume, without --builtin",
            "add --builtin; Kyverno's passes over others",
        )
        raise refuse("admission", found, allowed="--allow or --allow-volume with --builtin", fix=fix)


def mounted(stack: Stack) -> list[str]:
    """Return the repositories of images that others built and a stack's pods mount, as HOST/PATH.

    A model's own (`modelcar:image`), and those of adapters (`vllm.loraModules[].image`).
    """
    models = [model.place.repository for model in stack.models if model.image]
    adapters = [
        ImagePlace.of(image).repository for model in stack.models for _, image in model.adapter_images
    ]
    return [*models, *adapters]


def object_name(kind: str, program: str, namespace: str, stack: str) -> str:
    """Return a name that Kubernetes takes, and that no other stack's object of this kind has.

    These objects are the whole cluster's, so stacks of other programs and namespaces have theirs beside it.
    The hash is always there: namespace `a-b` with stack `c` looks like `a` with `b-c`.

    Args:
        kind: what the name begins with.
        program: the name of the stack's Pulumi project.
        namespace: where the stack's models are served.
        stack: its name, with or without ORGANIZATION/PROJECT/ in front.
    """
    own = stack.rpartition("/")[2]
    made = re.sub(r"[^a-z0-9]+", "-", f"{kind}-{namespace}-{own}".lower()).strip("-")
    return fitted(made, LONGEST, f"{program}/{namespace}/{own}", exact=False)


def _attestor(signature: SignatureSettings, project: Path) -> dict[str, Any]:
    if signature.public_key is None:
        return {"keyless": {"identities": [{"issuer": signature.issuer, "subject": signature.identity}]}}
    remote = SCHEME in signature.public_key
    key = {"kms": signature.public_key} if remote else {"data": (project / signature.public_key).read_text()}
    logged = signature.transparency_log
    return {"key": key, "ctlog": {"insecureIgnoreTlog": not logged, "insecureIgnoreSCT": not logged}}
