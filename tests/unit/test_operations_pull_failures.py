"""Pods whose image or container does not come: the kubelet's and containerd's words, and what `up` says."""

from __future__ import annotations

import pytest

from components.cluster import rollout
from components.cluster.pull_failures import KNOWN, pull_cause
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_operations_rollout import PODS, SETTINGS, cluster, pod

__all__ = ["cluster"]  # the fixture

IMAGE = "registry.example/models/m@sha256:0"
PULL = f'modelcar-init: ErrImagePull failed to pull and unpack image "{IMAGE}": '
LAYER = (
    'failed to extract layer (application/vnd.oci.image.layer.v1.tar sha256:1) to overlayfs as "extract-1"'
)

#: (what a pod says, part of the reason, part of the fix)
WORDS = [
    (
        PULL
        + f"{LAYER}: write /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/9/fs/models/"
        "model.safetensors: no space left on device",
        "the node's disk for images is full",
        "leave modelcar:google.nodes.diskGb out",
    ),
    (
        PULL
        + "failed to copy: failed to send write: write /var/lib/containerd/ingest/1/data: no space left on "
        "device: unknown",
        "the node's disk for images is full",
        "crictl rmi --prune",
    ),
    (
        PULL + "context canceled",
        "no byte of the image came for the time that its image_pull_progress_timeout says",
        'image_pull_progress_timeout = "30m"',
    ),
    (
        f"modelcar-init: ErrImagePull rpc error: code = Canceled desc = failed to pull and unpack image "
        f'"{IMAGE}": context canceled',
        "5m0s where nobody set it",
        "layers that are there whole are not pulled again",
    ),
    (
        f'Failed: Failed to pull image "{IMAGE}": {LAYER}: context canceled',
        "some versions count the time in which they unpack",
        "nodes.localSsds",
    ),
    (
        f'level=error msg="cancel pulling image {IMAGE} because of no progress in 5m0s"',
        "containerd gave the pull up",
        "wait: the kubelet tries again",
    ),
    (
        'modelcar: CreateContainerError failed to reserve container name "modelcar_m_models_0"; check if '
        'another CreateContainer request is in progress: name "modelcar_m_models_0" is reserved for "abc"',
        "the node still makes this container for an earlier try",
        "needs containerd started again",
    ),
    (
        "kserve-container: CreateContainerError context deadline exceeded",
        "took longer than the kubelet waits (two minutes)",
        "nodes.parallelPulls",
    ),
    (
        PULL + 'failed commit on ref "layer-sha256:1": unexpected commit digest sha256:2, expected sha256:1',
        "did not come as the registry has it",
        "past the proxy or mirror",
    ),
    (
        PULL + "failed to copy: httpReadSeeker: failed open: unexpected EOF",
        "did not come as the registry has it",
        "the kubelet tries again",
    ),
    (
        PULL + "no match for platform in manifest: not found",
        "for another processor than the node's",
        "set modelcar:architecture",
    ),
    (
        PULL + "failed to unpack image on snapshotter overlayfs: mount callback failed on /tmp/c: no right",
        "the node cannot unpack the image: mount callback failed",
        "journalctl -u containerd",
    ),
    (
        PULL + f"{LAYER}: failed to convert whiteout file: operation not permitted",
        "the node cannot unpack the image: failed to convert whiteout file",
        "another node tells",
    ),
    (
        "NOK ... Prefetched but modelcar is invalid (/models does not exist or is empty)",
        "the image has no folder /models",
        "python -m modelcar inspect",
    ),
]


@pytest.mark.parametrize(("text", "reason", "fix"), WORDS, ids=lambda text: text[-40:])
def test_what_a_pod_says_is_told_in_plain_words(text: str, reason: str, fix: str) -> None:
    found = pull_cause(text)
    assert found
    assert reason in found.reason
    assert fix in found.fix


def test_every_row_is_tried() -> None:
    found = {next(row for row in KNOWN if row.pattern.search(text)).reason for text, _, _ in WORDS}
    assert found == {row.reason for row in KNOWN}


@pytest.mark.parametrize(
    "text",
    [
        "modelcar-init: ErrImagePull 403 Forbidden",
        "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        "kserve-container: CrashLoopBackOff back-off 10s; kserve-container: Error, exit code 3",
        "Unhealthy: Readiness probe failed: context deadline exceeded (Client.Timeout exceeded)",
    ],
)
def test_what_tells_itself_is_left_alone(text: str) -> None:
    assert pull_cause(text) is None


def test_up_says_it_below_the_pods_own_words(cluster: FakeCluster) -> None:
    message = f'failed to pull and unpack image "{IMAGE}": context canceled'
    waiting = {"waiting": {"reason": "ErrImagePull", "message": message}}
    status = {"initContainerStatuses": [{"name": "modelcar-init", "state": waiting}]}
    cluster.lists[PODS] = [pod("new", "2026-01-02T00:00:00Z", **status)]
    said, reason = rollout.reasons(SETTINGS)
    assert said == f"new: modelcar-init: ErrImagePull {message}"
    assert reason.startswith("reason: containerd gave the pull up")
    assert "\n  fix: wait" in reason
