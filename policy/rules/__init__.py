"""The rules, a module for each thing that they look at; `RULES` is all of them in the README's order."""

from __future__ import annotations

from policy.rules import accounts, gpu, hub, images, kserve, registry, resources, services, unseen

RULES = (
    images.PINNED_IMAGES,
    registry.REGISTRY_ROLES,
    registry.PRIVATE_REPOSITORY,
    gpu.NODE_DISK,
    gpu.NODE_TAINT,
    gpu.POD_TOLERATION,
    hub.NO_HUB,
    accounts.NODE_ACCOUNT,
    accounts.NARROW_ROLES,
    accounts.PRIVATE_ACCOUNT,
    accounts.NO_STATIC_KEYS,
    resources.CONTAINER_RESOURCES,
    services.LIMITED_LOAD_BALANCER,
    kserve.MODELCAR_ENABLED,
    unseen.SEEN_OBJECTS,
)
