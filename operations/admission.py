"""A policy for Kyverno: no pod starts with a modelcar that nobody signed, whoever deploys it.

`up` refuses an unsigned image before anything refers to it; this refuses it at the API server as well, where
others may write InferenceServices or pods past this program. It looks at pods, as KServe adds the modelcar to
them and to nothing else.

Kinds and fields: ImageValidatingPolicy, policies.kyverno.io/v1 (Kyverno 1.17 and later), which reads Sigstore
bundles as cosign 3 attaches them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.checks import problem
from components.settings import Settings
from components.signature import SignatureSettings
from modelcar.errors import InputError
from modelcar.signing import SCHEME

#: Verifies each of a pod's images that the policy is for; Kyverno passes over the others.
SIGNED = ".map(image, verifyImageSignatures(image, [attestors.modelcar])).all(count, count > 0)"
UNSIGNED = "a modelcar without a signature that counts"
#: Containers that KServe puts modelcars into; and those that somebody might add to a pod.
CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
#: For the registry's answers, in seconds; of Kubernetes' 30 at most for a webhook.
TIMEOUT = 20


def policy(settings: Settings, project: Path, stack: str) -> dict[str, Any]:
    """Return the policy for the images below a stack's registry.

    Args:
        settings: any model's of the stack.
        project: the folder that files of keys are relative to.
        stack: its name.

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
        {"expression": f"images.{kind}{SIGNED}", "message": f"{UNSIGNED} ({kind})"} for kind in CONTAINERS
    ]
    return {
        "apiVersion": "policies.kyverno.io/v1",
        "kind": "ImageValidatingPolicy",
        "metadata": {"name": f"signed-modelcars-{stack}"},
        "spec": {
            "failurePolicy": "Fail",
            "validationActions": ["Deny"],
            "webhookConfiguration": {"timeoutSeconds": TIMEOUT},
            "evaluation": {"background": {"enabled": False}},
            "autogen": {"podControllers": {"controllers": []}},
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["pods", "pods/ephemeralcontainers"],
                    }
                ]
            },
            "matchImageReferences": [{"glob": f"{settings.registry}/*"}],
            "validationConfigurations": {"mutateDigest": False, "verifyDigest": True, "required": True},
            "attestors": [{"name": "modelcar", "cosign": _attestor(signature, project)}],
            "validations": checks,
        },
    }


def _attestor(signature: SignatureSettings, project: Path) -> dict[str, Any]:
    if signature.public_key is None:
        return {"keyless": {"identities": [{"issuer": signature.issuer, "subject": signature.identity}]}}
    remote = SCHEME in signature.public_key
    key = {"kms": signature.public_key} if remote else {"data": (project / signature.public_key).read_text()}
    logged = signature.transparency_log
    return {"key": key, "ctlog": {"insecureIgnoreTlog": not logged, "insecureIgnoreSCT": not logged}}
