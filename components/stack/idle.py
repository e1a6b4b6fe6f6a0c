"""What a stack costs while no model is served: an output, so that nobody has to find it out from a bill."""

from __future__ import annotations

from components.config.settings import Settings

GB = 1e9


def idle_cost(settings: Settings, model_bytes: int) -> list[str]:
    """Return what remains, and is billed, while the model has no pod; one line a resource.

    Args:
        settings: of the stack.
        model_bytes: of the model's files; 0 where there is no lock yet.
    """
    image = f"{settings.place.repository}: storage of about {model_bytes / GB:.1f} GB a version"
    google = settings.google
    if google is None:
        return [image, "the cluster: as it is, this stack makes none"]
    if google.cluster.create:
        cluster = f"cluster {google.cluster.name}: its fee, and one to three e2-standard-4 for the system"
    else:
        cluster = (
            f"cluster {google.cluster.stack_reference or google.cluster.name}: as it is, not this stack's"
        )
    nodes = google.nodes
    kind = f"{nodes.machine_type} with {nodes.gpus_per_node} {nodes.gpu}, {nodes.provisioning}"
    if nodes.min_nodes:
        gpus = f"GPU nodes: {nodes.min_nodes} ({kind}): nodes.minNodes keeps them once pods have made them"
    else:
        gpus = f"GPU nodes: none ({kind}); the last one goes about ten minutes after its last pod"
    found = [image, cluster, gpus]
    if nodes.reservation:
        found.append(f"reservation {nodes.reservation}: billed whether it is used or not")
    return found
