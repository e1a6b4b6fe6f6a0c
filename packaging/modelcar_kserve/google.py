"""Google Cloud: registry, nodes' account, GPU nodes, or all of it. Needs the extra `google` (pulumi-gcp)."""

try:
    import pulumi_gcp  # noqa: F401 -- told before a component's own import of it fails
except ImportError:
    raise ImportError("pulumi-gcp is not installed: pip install modelcar-kserve[google]") from None

from modelcar_kserve.components.config.disk import DiskNeed
from modelcar_kserve.components.config.google import (
    ClusterSettings,
    GoogleSettings,
    NodeSettings,
    RepositorySettings,
)
from modelcar_kserve.components.google.cloud import GoogleCloud, GoogleCloudArgs
from modelcar_kserve.components.google.node_account import NodeServiceAccount, NodeServiceAccountArgs
from modelcar_kserve.components.google.node_pool import GpuNodePool, GpuNodePoolArgs
from modelcar_kserve.components.google.registry import ModelRegistry, ModelRegistryArgs

__all__ = [
    "ClusterSettings",
    "DiskNeed",
    "GoogleCloud",
    "GoogleCloudArgs",
    "GoogleSettings",
    "GpuNodePool",
    "GpuNodePoolArgs",
    "ModelRegistry",
    "ModelRegistryArgs",
    "NodeServiceAccount",
    "NodeServiceAccountArgs",
    "NodeSettings",
    "RepositorySettings",
]
