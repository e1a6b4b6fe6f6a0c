"""Policies of Kubernetes itself: which images run in the stack's namespace. No add-on is needed.

`admission.py` asks for signatures, and needs Kyverno. This is what the API server can judge alone: every
image of a pod, image volumes included, is named by digest and comes from a place that the stack uses.
Models come as images only. What KServe downloads with (`s3://`, `hf://`, …) is an image from another place,
and a volume that may hold files already (`pvc://`, LocalModelCache) is refused.

Kinds and fields: ValidatingAdmissionPolicy, admissionregistration.k8s.io/v1 (Kubernetes 1.30 and later);
volumes: https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.config.stack import Stack
from modelcar.errors import InputError, Problem
from operations.admission import CONTAINERS, PODS, mounted
from operations.image_names import PINNED, allowed, is_repository, repository_of

GROUP = "admissionregistration.k8s.io/v1"
#: Messages, before the images that they are about.
UNPINNED = "images without a sha256 digest"
ELSEWHERE = "images from places that this stack does not use"
FILLED = "volumes that may hold a model already"
OPTION = "--allow"
VOLUME_OPTION = "--allow-volume"
#: Kinds of volumes that are empty at first, or hold what the API server has, or an image.
HARMLESS = ("configMap", "downwardAPI", "emptyDir", "image", "projected", "secret")
#: The others, with what makes them one that somebody may want beside a model.
OTHER_VOLUMES: Mapping[str, str] = {
    "csi": "certificates and secrets by a driver, or a bucket",
    "ephemeral": "a claim of the pod's own, which may be a copy of another",
    "hostPath": "the node's own files",
    "nfs": "a server's files",
    "persistentVolumeClaim": "a disk; KServe's `pvc://` and LocalModelCache",
}


def policies(
    stack: Stack, name: str, others: Sequence[str] = (), volumes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the policy and what binds it to the stack's namespace.

    Args:
        stack: its settings.
        name: what the objects are called.
        others: repositories whose images containers may run there too, HOST[:PORT]/PATH.
        volumes: kinds of volumes that pods may have there too (OTHER_VOLUMES).

    Raises:
        InputError: one of `others` is no repository; it has all of them.
    """
    _check(others)
    settings = stack.shared
    servers = sorted({repository_of(model.server_image) for model in stack.models})
    models = mounted(stack)
    # What is mounted is a model or an adapter; a server's image is neither, nor is a mesh's.
    containers = allowed(settings.registry, [*servers, *models, *others])
    volumes_of = allowed(settings.registry, models)
    unpinned = f"({_failing('images', PINNED)} + {_failing('mounted', PINNED)})"
    elsewhere = f"({_failing('images', containers)} + {_failing('mounted', volumes_of)})"
    paths = sorted({path for model in stack.models for path in model.server_host_paths})
    filled = f"variables.volumes.filter(v, !({_is_harmless([*HARMLESS, *volumes], paths)})).map(v, v.name)"
    return [
        {
            "apiVersion": GROUP,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": PODS,
                "variables": [
                    {"name": "former", "expression": f"oldObject == null ? [] : {_images('oldObject')}"},
                    {
                        # Pods that were there before the policy keep what they have, and can be let go.
                        "name": "images",
                        "expression": f"({_images('object')}).filter(i, !(i in variables.former))",
                    },
                    {"name": "mounted", "expression": f"oldObject == null ? {_mounted('object')} : []"},
                    {
                        # A pod's volumes are those that it came with.
                        "name": "volumes",
                        "expression": f"oldObject == null ? {_listed('object.spec.volumes')} : []",
                    },
                ],
                "validations": [
                    {
                        "expression": f"!{unpinned}.exists(i, true)",
                        "messageExpression": f"'{UNPINNED}: ' + {unpinned}.join(', ')",
                        "reason": "Forbidden",
                    },
                    {
                        "expression": f"!{elsewhere}.exists(i, true)",
                        "messageExpression": f"'{ELSEWHERE}: ' + {elsewhere}.join(', ')",
                        "reason": "Forbidden",
                    },
                    {
                        "expression": f"!{filled}.exists(i, true)",
                        "messageExpression": f"'{FILLED}: ' + {filled}.join(', ')",
                        "reason": "Forbidden",
                    },
                ],
            },
        },
        {
            "apiVersion": GROUP,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}}
                },
            },
        },
    ]


def notes(stack: Stack, others: Sequence[str] = ()) -> Iterator[str]:
    """Yield what else is known to run beside the models, and would be refused."""
    told = any(name.rpartition("/")[2].startswith("queue") for name in others)
    if any(model.deployment_mode == "Knative" for model in stack.models) and not told:
        yield (
            "note: Knative adds its queue-proxy to each pod: name its repository (queue-sidecar-image in "
            f"ConfigMap config-deployment of knative-serving) by {OPTION}, or no model starts"
        )


def _images(pod: str) -> str:
    """Return an expression of the names of all images that a pod's containers run."""
    parts = [f"{_listed(f'{pod}.spec.{field}')}.map(c, has(c.image) ? c.image : '')" for field in CONTAINERS]
    return " + ".join(parts)


def _mounted(pod: str) -> str:
    """Return an expression of the names of all images that a pod mounts."""
    volumes = f"{_listed(f'{pod}.spec.volumes')}.filter(v, has(v.image))"
    return f"{volumes}.map(v, has(v.image.reference) ? v.image.reference : '')"


def _is_harmless(kinds: Sequence[str], paths: Sequence[str]) -> str:
    """Return an expression for a volume `v`. paths: of the node, which the stack's own pods mount."""
    found = [f"has(v.{kind})" for kind in kinds]
    if paths and "hostPath" not in kinds:
        found.append(f"(has(v.hostPath) && v.hostPath.path in {json.dumps(paths)})")
    return " || ".join(found)


def _listed(field: str) -> str:
    return f"(has({field}) ? {field} : [])"


def _failing(images: str, pattern: str) -> str:
    return f"variables.{images}.filter(i, !i.matches(r'{pattern}'))"


def _check(others: Sequence[str]) -> None:
    wrong = [name for name in others if not is_repository(name)]
    if wrong:
        wanted = "HOST[:PORT]/PATH, without tag and digest"
        fix = "write the registry's host and the repository's path, for example docker.io/istio/proxyv2"
        raise InputError(Problem(OPTION, name, wanted, fix) for name in wrong)
