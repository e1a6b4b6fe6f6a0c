"""A model as a cluster has it: what manifests are made of, and what a cluster is asked about."""

from __future__ import annotations

from typing import Self

from components.config.cluster import DestinationSettings
from components.config.server import PodSettings, ServerSettings
from components.config.service import ServiceSettings


class ModelSpec(PodSettings, ServerSettings, ServiceSettings, DestinationSettings):
    """Everything about one served model but its image; a stack's settings are one, and more."""

    def on_pool(self, pool: str | None) -> Self:
        """Return the same model on a pool of GPU nodes; None: the one that it has."""
        return self.model_copy(update={"node_pool": pool}) if pool else self

    def reached_at(self, place: DestinationSettings, namespace: str) -> Self:
        """Return the same model in a namespace of a cluster."""
        found = {"kubeconfig": place.kubeconfig, "kube_context": place.kube_context, "namespace": namespace}
        return self.model_copy(update=found)

    @property
    def key(self) -> str:
        """What its resources are named by."""
        return self.service_name

    @property
    def model_name(self) -> str:
        """The name that clients ask the server for."""
        return self.served_model_name or self.service_name

    @property
    def pool_name(self) -> str | None:
        """Pool of GPU nodes that its pods run on; None where nothing says so."""
        return self.node_pool

    @property
    def adapter_images(self) -> list[tuple[int, str]]:
        """Adapters that are images of their own: place among all adapters, and image."""
        return self.vllm.adapter_images if self.vllm else []

    @property
    def kernel_mode(self) -> str:
        """What its pods do with compiled kernels in the image."""
        return self.kernels
