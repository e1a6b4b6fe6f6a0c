"""Big models to KServe as digest-pinned OCI images (modelcars): components for any Pulumi program.

For example:

    lock = "modelcar/models/chat/model.lock"
    image = ModelcarImage("chat", ModelcarImageArgs(lock=lock, registry=repository.registry_uri))
    service = ModelService("chat", ModelServiceArgs(
        storage_uri=image.storage_uri,
        namespace=space.metadata.name,
        server=VllmServer(image="…@sha256:…", max_model_len=16384),
    ))

Google's components are in `modelcar_kserve.google`, which needs the extra `google` (pulumi-gcp).
"""

from modelcar_kserve.components.cluster.guard import ClusterAccess
from modelcar_kserve.components.config import arguments as _arguments
from modelcar_kserve.components.config.autoscaling import AutoscalingSettings, Trigger
from modelcar_kserve.components.config.knative import KnativeSettings
from modelcar_kserve.components.config.network import EgressRule, EgressSettings, IngressSettings
from modelcar_kserve.components.config.probes import (
    LivenessProbe,
    ProbesSettings,
    ReadinessProbe,
    StartupProbe,
)
from modelcar_kserve.components.config.scheduling import (
    NodeRequirement,
    SchedulingSettings,
    Spread,
    Toleration,
)
from modelcar_kserve.components.config.signature import SignatureSettings
from modelcar_kserve.components.config.termination import TerminationSettings
from modelcar_kserve.components.config.vllm import LoraModule
from modelcar_kserve.components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from modelcar_kserve.components.kserve.autoscaler import Autoscaler, AutoscalerArgs
from modelcar_kserve.components.kserve.egress import EgressPolicy, EgressPolicyArgs
from modelcar_kserve.components.kserve.ingress import IngressPolicy, IngressPolicyArgs
from modelcar_kserve.components.kserve.kserve_platform import KServePlatform, KServePlatformArgs
from modelcar_kserve.components.kserve.model_service import ModelService, ModelServiceArgs
from modelcar_kserve.components.kserve.pre_pull import PrePull, PrePullArgs
from modelcar_kserve.components.kserve.pull_access import PullAccess, PullAccessArgs
from modelcar_kserve.components.kserve.server import CustomServer, Replicas, ServerResources, VllmServer
from modelcar_kserve.components.kserve.shared_runtime import SharedRuntime, SharedRuntimeArgs
from modelcar_kserve.components.stack.output_schema import ModelOutputs, StackOutputs
from modelcar_kserve.components.stack.stack_reader import read_stack
from modelcar_kserve.modelcar.base import read_base
from modelcar_kserve.modelcar.errors import InputError
from modelcar_kserve.modelcar.lock import Lock
from modelcar_kserve.modelcar.lock_reader import read_lock

# A program of one's own has arguments, and no stack's settings: messages name those.
_arguments.spelled = str

__all__ = [
    "Autoscaler",
    "AutoscalerArgs",
    "AutoscalingSettings",
    "ClusterAccess",
    "CustomServer",
    "EgressPolicy",
    "EgressPolicyArgs",
    "EgressRule",
    "EgressSettings",
    "IngressPolicy",
    "IngressPolicyArgs",
    "IngressSettings",
    "InputError",
    "KServePlatform",
    "KServePlatformArgs",
    "KnativeSettings",
    "LivenessProbe",
    "Lock",
    "LoraModule",
    "ModelOutputs",
    "ModelService",
    "ModelServiceArgs",
    "ModelcarImage",
    "ModelcarImageArgs",
    "NodeRequirement",
    "PrePull",
    "PrePullArgs",
    "ProbesSettings",
    "PullAccess",
    "PullAccessArgs",
    "ReadinessProbe",
    "Replicas",
    "SchedulingSettings",
    "ServerResources",
    "SharedRuntime",
    "SharedRuntimeArgs",
    "SignatureSettings",
    "Spread",
    "StackOutputs",
    "StartupProbe",
    "TerminationSettings",
    "Toleration",
    "Trigger",
    "VllmServer",
    "read_base",
    "read_lock",
    "read_stack",
]
