"""Why a node does not get an image or make a container of it: known words of a pod's states and events.

The words are those of containerd 2.2 (internal/cri/server, core/unpack, core/content) and 1.6, which the
kubelet hands on. What containerd writes into the node's own log only ("no progress in 5m0s") is known here by
what the pod says of it. docs/troubleshooting.md has the same, by the text.
"""

from __future__ import annotations

from components.cluster.failures import Cause, Known, cause, known

_FASTER = (
    "give the nodes a faster disk for images (on Google modelcar:google.nodes.localSsds, or a larger or "
    "faster boot disk: diskGb, diskType)"
)


def pull_cause(text: str) -> Cause | None:
    """Return why a pod has no container yet, by what it says itself; None where no words are known."""
    return cause(text, KNOWN)


KNOWN: tuple[Known, ...] = (
    # ENOSPC, whatever was written: a layer as it came (core/content), or as it is unpacked (core/unpack)
    known(
        r"no space left on device",
        "the node's disk for images is full: a modelcar lies on it twice, as it came and unpacked, and a new "
        "version beside the former one",
        "take a larger disk: on Google leave modelcar:google.nodes.diskGb out, and it is computed; elsewhere "
        "remove images that nobody uses (crictl rmi --prune on the node)",
    ),
    # internal/cri/server/images/image_pull.go: the pull's context is cancelled by its progress reporter
    known(
        r"(?:failed to pull and unpack image|failed to extract layer|failed to copy)[^;]*?"
        r"(?:context canceled|code = Canceled)|no progress in (?P<time>\w+)",
        "containerd gave the pull up, as no byte of the image came for the time that its "
        "image_pull_progress_timeout says (5m0s where nobody set it); some versions count the time in which "
        "they unpack",
        "wait: the kubelet tries again, and layers that are there whole are not pulled again. If it does not "
        "end, see the node's log (journalctl -u containerd) for `no progress in`, and "
        f'{_FASTER}; or set image_pull_progress_timeout = "30m" in containerd\'s configuration of the nodes',
    ),
    # internal/cri/server/container_create.go; the kubelet's --runtime-request-timeout is 2 minutes
    known(
        r"failed to reserve container name|CreateContainerError:? context deadline exceeded",
        "the node still makes this container for an earlier try, which took longer than the kubelet waits "
        "(two minutes): its disk is too slow for what it has to do at the same time",
        f"wait: mostly it comes by itself. Else {_FASTER}, or let it pull fewer images at the same time "
        "(nodes.parallelPulls); a node that says so for more than ten minutes needs containerd started again",
    ),
    # core/content/helpers.go, core/remotes/docker
    known(
        r"unexpected commit (?:size|digest)|failed size validation|short read: expected|unexpected EOF",
        "the image did not come as the registry has it: the connection was cut, or something between changed "
        "it",
        "wait: the kubelet tries again; if it goes on, pull past the proxy or mirror that stands between",
    ),
    # core/images, errors of platforms
    known(
        r"no match for platform in manifest|exec format error",
        "the image is for another processor than the node's",
        "set modelcar:architecture to the nodes' own, or take nodes of the image's (kubectl get nodes -L "
        "kubernetes.io/arch)",
        final=True,
    ),
    # KServe's init container (0.19, pkg/utils/storage.go)
    known(
        r"modelcar is invalid \(/models does not exist or is empty\)",
        "the image has no folder /models, or nothing in it",
        "name an image of a modelcar: its files are below /models; `python -m modelcar inspect` shows them",
        final=True,
    ),
    # core/unpack/unpacker.go, client/pull.go; what is not one of those above
    known(
        r"failed to (?:extract layer [^;]{0,200}?|unpack image on snapshotter \w+): (?P<error>[^;\n]{1,120})",
        "the node cannot unpack the image: {error}",
        "see the node's log (journalctl -u containerd) and its disk; another node tells whether it is this "
        "one",
    ),
)
