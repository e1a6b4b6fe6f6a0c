"""The types of the component provider's inputs; written by `make reference`."""

# Without `from __future__ import annotations`: Pulumi reads the types themselves.
from typing import NotRequired, TypedDict

import pulumi


class SignatureSettings(TypedDict):
    """Who signs images, and whose signature counts: by key, or by identity (keyless)."""

    public_key: NotRequired[str]
    """File (relative to the project) or URI of the key that signatures are verified by."""
    key: NotRequired[str]
    """File or URI of the private key. Without it a key management service's publicKey signs too, and a public key in a file only verifies."""
    identity: NotRequired[str]
    """E-mail address, or a workflow's address, whose signature counts."""
    issuer: NotRequired[str]
    """Address of the identity's provider."""
    transparency_log: NotRequired[bool]
    """Write signatures by a key to Sigstore's public log, and ask for them there. Those by an identity always are. Default: false."""


class ModelcarImageArgs(TypedDict):
    """What one image is made of."""

    lock: str
    """Path of the model's model.lock, below the project, or the lock itself. A preview takes None too."""
    registry: pulumi.Input[str]
    """HOST[:PORT]/PATH to push to. The digest in a preview does not depend on it."""
    name: NotRequired[str]
    """Repository below the registry; by default the name of the lock's folder."""
    architecture: NotRequired[str]
    """Processor of the nodes. One of: amd64, arm64. Default: amd64."""
    builder: NotRequired[str]
    """Name of the buildx builder; by default Docker's default one."""
    insecure: NotRequired[bool]
    """Push over plain HTTP, for a registry on this machine. Default: false."""
    project: NotRequired[str]
    """Folder of the program; by default the current one."""
    hub_endpoint: NotRequired[str]
    """Address of a mirror of the model hub; by default the hub itself."""
    fetch_on: NotRequired[str]
    """What downloads the weights: this machine, or the builder, which then needs a name. One of: machine, builder. Default: machine."""
    mirrors: NotRequired[list[str]]
    """HOST[:PORT]/PATH of repositories that layers come from before the hub."""
    mirrors_insecure: NotRequired[bool]
    """Read mirrors on other hosts than the registry's over plain HTTP. Default: false."""
    sbom: NotRequired[bool]
    """Attach the model's bill of materials to the image. Default: true."""
    signature: NotRequired[SignatureSettings]
    """Who signs the image, and whose signature it needs before anything refers to it."""


class RepositorySettings(TypedDict):
    """The Artifact Registry repository."""

    name: NotRequired[str]
    """Id of the repository. Default: modelcars."""
    existing: NotRequired[bool]
    """Adopt one that is there, instead of creating it. Default: false."""
    untagged_days: NotRequired[int]
    """Untagged images are deleted after so many days; tagged ones never are. At least 1, at most 3650. Default: 30."""
    vulnerability_scanning: NotRequired[bool]
    """As the project is set where not set; true also switches the scanning API on, which bills each image that is pushed to any repository of the project; false scans nothing of this one."""


class ModelRegistryArgs(TypedDict):
    """What the repository is made of."""

    project: pulumi.Input[str]
    """Id of the project."""
    region: pulumi.Input[str]
    """Region of the repository."""
    reader: pulumi.Input[str]
    """E-mail of the nodes' service account."""
    repository: NotRequired[RepositorySettings]
    """Name of the repository, and what is kept in it."""
    protect: NotRequired[bool]
    """Refuse to delete the repository; `protect` in the options is for all of the component. Default: false."""
    labels: NotRequired[dict[str, str]]
    """Labels, for costs."""
    imports: NotRequired[list[str]]
    """Kinds of objects that are there already (Repository, RepositoryIamMember), and are taken over as they are. They need plain values of project, region and reader."""


class NodeServiceAccountArgs(TypedDict):
    """Whose account it is."""

    project: pulumi.Input[str]
    """Id of the project."""
    purpose: str
    """What the account is named by, when it is made; unique in the project. One that is there keeps its id, whatever it says later."""
    image_streaming: NotRequired[bool]
    """Whether the nodes stream images, which takes one role more. Default: false."""


class NodeSettings(TypedDict):
    """The pool of GPU nodes."""

    name: NotRequired[str]
    """Name of the pool in the cluster. Default: gpu."""
    gpu: str
    """GPU, as GKE names it (`cloud.google.com/gke-accelerator`); `nvidia-gb200` is known and refused (its machines are Arm ones). One of: nvidia-l4, nvidia-rtx-pro-6000, nvidia-tesla-a100, nvidia-a100-80gb, nvidia-h100-80gb, nvidia-h100-mega-80gb, nvidia-h200-141gb, nvidia-b200, nvidia-gb200, nvidia-tesla-t4."""
    gpus_per_node: NotRequired[int]
    """GPUs of one node: as many as the machine type has, or one of those that it can have. At least 1, at most 16. Default: 1."""
    machine_type: str
    """Machine type of Compute Engine, with that GPU."""
    zones: NotRequired[list[str]]
    """Where nodes may be; all zones of the cluster's region that have the GPU where empty."""
    check_zones: NotRequired[bool]
    """Refuse a zone that is not known to have the GPU; false where Google has a new one. Default: true."""
    min_nodes: NotRequired[int]
    """So many nodes of the whole pool stay once pods have made them; none is made for this number. At least 0, at most 1000. Default: 0."""
    max_nodes: NotRequired[int]
    """The most nodes of the whole pool, over all zones. At least 1, at most 1000. Default: 1."""
    provisioning: NotRequired[str]
    """`spot` can be taken away at any time, at a fraction of the price. One of: spot, on-demand, reservation. Default: on-demand."""
    reservation: NotRequired[str]
    """Name of the reservation, for provisioning `reservation`; of one that another project shares `projects/PROJECT/reservations/NAME`."""
    disk_gb: NotRequired[int]
    """Size of the boot disk; computed from the model's size where not set. At least 10, at most 65536."""
    disk_type: NotRequired[str]
    """Type of the boot disk; the first one that the machine takes where not set. One of: pd-balanced, pd-ssd, hyperdisk-balanced."""
    driver: NotRequired[str]
    """Version of the GPU driver that GKE installs. One of: DEFAULT, LATEST. Default: DEFAULT."""
    image_streaming: NotRequired[bool]
    """Start pods before their image is pulled whole; a modelcar reads all of it anyway. Default: false."""
    secondary_boot_disk: NotRequired[str]
    """Disk image with preloaded container images (gke-disk-image-builder); takes streaming."""
    local_ssds: NotRequired[int]
    """Local SSDs of 375 GB each, for images and all else that pods write, in place of the boot disk; A3 and A4 machines always have theirs, and need no number here. At least 0, at most 32. Default: 0."""
    parallel_pulls: NotRequired[int]
    """Images that the kubelet pulls at the same time; GKE's own choice (2 or 3) where not set. At least 2, at most 5."""
    service_account: NotRequired[str]
    """E-mail of the nodes' own, of all pools; one with the least rights is made where not set. One that is set gets no roles in the project."""


class DiskNeed(TypedDict):
    """What has to fit on a node's disk; `disk` is the size that follows."""

    model: float
    """GB of all models that can be on one node at once."""
    servers: NotRequired[int]
    """Images of model servers among them. Default: 1."""
    models: NotRequired[int]
    """How many models that are. Default: 1."""


class GpuNodePoolArgs(TypedDict):
    """What the pool is made of."""

    project: pulumi.Input[str]
    """Id of the cluster's project."""
    cluster: pulumi.Input[str]
    """Id or name of the cluster."""
    location: pulumi.Input[str]
    """Region or zone of the cluster."""
    nodes: NodeSettings
    """What the nodes are, and how many."""
    service_account: pulumi.Input[str]
    """E-mail of the service account that the nodes run as."""
    zones: NotRequired[list[str]]
    """Zones of the nodes; by default those of `nodes`, or of the cluster."""
    need: NotRequired[DiskNeed]
    """What the disks have to hold; by default what any node needs."""
    labels: NotRequired[dict[str, str]]
    """Labels, for costs."""


class ClusterSettings(TypedDict):
    """The cluster: adopted by name and location, or by a StackReference, or created."""

    name: NotRequired[str]
    """Name of the cluster."""
    location: NotRequired[str]
    """Region or zone of it; the stack's region where not set."""
    create: NotRequired[bool]
    """Make it; else it has to be there. Default: false."""
    stack_reference: NotRequired[str]
    """ORG/PROJECT/STACK whose outputs `clusterName` and `clusterLocation` name the cluster."""
    release_channel: NotRequired[str]
    """Release channel of a created cluster. One of: RAPID, REGULAR, STABLE, EXTENDED. Default: REGULAR."""
    authorized_networks: NotRequired[list[str]]
    """Who may reach a created cluster's control plane by address; where empty, it is reached by its DNS name only, which asks for IAM rights before anything else. A cluster that is deployed keeps having some, or none."""


class GoogleSettings(TypedDict):
    """Project, registry, cluster and nodes in Google Cloud."""

    project: str
    """Id of the project."""
    region: str
    """Region of the repository and of the cluster."""
    protect: NotRequired[bool]
    """Refuse to delete the repository and the cluster; for production. Default: false."""
    enable_apis: NotRequired[bool]
    """Switch on the APIs that the stack needs. Default: true."""
    repository: NotRequired[RepositorySettings]
    """Where modelcars are pushed to."""
    cluster: ClusterSettings
    """Where models are served."""
    nodes: NodeSettings
    """The pool of GPU nodes."""
    pools: NotRequired[list[NodeSettings]]
    """More of them, with other GPUs or machines; each model's pods land on one (`modelcar:nodePool`)."""


class GoogleCloudArgs(TypedDict):
    """All that a stack has in Google Cloud."""

    settings: GoogleSettings
    """Project, registry, cluster and nodes."""
    needs: NotRequired[dict[str, DiskNeed]]
    """What the disks of a pool's nodes have to hold, by the pool's name."""
    imports: NotRequired[list[str]]
    """Kinds of the registry's parts that are there already."""
    endpoint: NotRequired[str]
    """By which an adopted cluster's control plane is reached: `ip`, its address, where it has one; `dns`, its DNS name; `auto`, the name where it lets in who comes from outside of Google, else as `ip`. Another one than before makes all anew that the cluster's Kubernetes provider declares, unless that has the cluster's `identifier`. One of: auto, dns, ip. Default: ip."""


class LoraModule(TypedDict):
    """A LoRA adapter that is served beside the model."""

    name: str
    """Name that clients ask the server for."""
    path: NotRequired[str]
    """Path of its folder in the model's image: lock model and adapters together."""
    image: NotRequired[str]
    """An image of its own, HOST/PATH@sha256:…, with placement imageVolume: a modelcar that holds the adapter's files alone. It comes and goes without a change of the model's image."""


class VllmServer(TypedDict):
    """vLLM, with its own arguments typed; each is left to vLLM where it is not set."""

    tensor_parallel_size: NotRequired[int]
    """GPUs that share each layer; all GPUs of the pod where this and pipelineParallelSize are not set. At least 1, at most 16."""
    pipeline_parallel_size: NotRequired[int]
    """Groups of GPUs that share the layers. At least 1, at most 16."""
    max_model_len: NotRequired[str]
    """Tokens of prompt and answer together, also as 32k (32000) or 32K (32768); auto is what fits into memory."""
    dtype: NotRequired[str]
    """Type of weights and activations. One of: auto, half, float16, bfloat16, float, float32."""
    gpu_memory_utilization: NotRequired[float]
    """Share of a GPU's memory that the server takes. More than 0, at most 1."""
    max_num_seqs: NotRequired[int]
    """Requests that are computed together. At least 1, at most 65536."""
    quantization: NotRequired[str]
    """Method, as vLLM names it."""
    kv_cache_dtype: NotRequired[str]
    """Type of the cache of keys and values. One of: auto, float16, bfloat16, fp8, fp8_e4m3, fp8_e5m2, fp8_inc, fp8_ds_mla, turboquant_k8v4, turboquant_4bit_nc, turboquant_k3v4_nc, turboquant_3bit_nc, int8_per_token_head, fp8_per_token_head, nvfp4."""
    load_format: NotRequired[str]
    """How the weights are read. Some take a package that the server's image has to hold: fastsafetensors, instanttensor, runai_streamer (and _sharded), bitsandbytes. One of: auto, hf, safetensors, fastsafetensors, instanttensor, runai_streamer, runai_streamer_sharded, sharded_state, mistral, bitsandbytes."""
    enforce_eager: NotRequired[bool]
    """No CUDA graphs; starts faster and answers slower. Default: false."""
    enable_prefix_caching: NotRequired[bool]
    """Keep what prompts have in common."""
    lora_modules: NotRequired[list[LoraModule]]
    """Adapters in the model's image, or in images of their own."""
    max_lora_rank: NotRequired[int]
    """The largest rank among them. One of: 1, 8, 16, 32, 64, 128, 256, 320, 512."""
    image: str
    """Image of the server, by digest."""
    command: NotRequired[list[str]]
    """Command of the container; the arguments follow it. Default: python3 -m vllm.entrypoints.openai.api_server."""
    args: NotRequired[list[str]]
    """More arguments of the server."""
    env: NotRequired[dict[str, str]]
    """Environment variables. Whoever sees the pod sees their values."""
    port: NotRequired[int]
    """Port that the server listens on. At least 1024, at most 65535. Default: 8080."""
    health_path: NotRequired[str]
    """Path that answers 200 once the server can serve. Default: /health."""
    served_model_name: NotRequired[str]
    """Name that clients ask for; by default the service's."""
    writable_paths: NotRequired[list[str]]
    """Folders of the image that the server writes to."""
    host_paths: NotRequired[list[str]]
    """Folders of the node, on a machine of your own."""
    read_ahead: NotRequired[bool]
    """Read the model into the node's memory while the server is imported. Default: false."""
    kernels: NotRequired[str]
    """Compiled kernels in the model's image: use them where they fit, require that they fit, or off. Kernels are code that the server runs: set off for an image that somebody else built. One of: use, require, off. Default: use."""


class CustomServer(TypedDict):
    """Any server that reads a model from /mnt/models and answers its health path."""

    image: str
    """Image of the server, by digest."""
    command: NotRequired[list[str]]
    """Command of the container; the arguments follow it. Default: python3 -m vllm.entrypoints.openai.api_server."""
    args: NotRequired[list[str]]
    """More arguments of the server."""
    env: NotRequired[dict[str, str]]
    """Environment variables. Whoever sees the pod sees their values."""
    port: NotRequired[int]
    """Port that the server listens on. At least 1024, at most 65535. Default: 8080."""
    health_path: NotRequired[str]
    """Path that answers 200 once the server can serve. Default: /health."""
    served_model_name: NotRequired[str]
    """Name that clients ask for; by default the service's."""
    writable_paths: NotRequired[list[str]]
    """Folders of the image that the server writes to."""
    host_paths: NotRequired[list[str]]
    """Folders of the node, on a machine of your own."""
    read_ahead: NotRequired[bool]
    """Read the model into the node's memory while the server is imported. Default: false."""


class ServerResources(TypedDict):
    """What one pod asks for."""

    gpus: NotRequired[int]
    """GPUs of one pod; 0 for a server without. At least 0, at most 16. Default: 1."""
    cpu: NotRequired[str]
    """Processors that one pod asks for. Default: 4."""
    cpu_limit: NotRequired[str]
    """Processors that it may use; by default as many as it asks for."""
    memory: NotRequired[str]
    """Memory of one pod, request and limit. Default: 16Gi."""
    shared_memory: NotRequired[str]
    """Memory for /dev/shm, which counts as the pod's memory. Default: 2Gi."""


class Replicas(TypedDict):
    """How many pods there are, and how they change."""

    min: NotRequired[int]
    """The fewest pods that an autoscaler keeps. At least 0, at most 1000. Default: 1."""
    max: NotRequired[int]
    """The most pods that an autoscaler makes. At least 1, at most 1000. Default: 1."""
    idle: NotRequired[bool]
    """True for no pods for now. Default: false."""
    rollout: NotRequired[str]
    """Recreate ends the former pod before the new one starts. auto takes it for a single pod with GPUs. One of: auto, Recreate, RollingUpdate. Default: auto."""
    canary_traffic_percent: NotRequired[int]
    """Share of requests for the newest revision, in percent (Knative). At least 0, at most 100."""


class KnativeSettings(TypedDict):
    """What Knative waits for, in seconds; where a field is not set, the cluster's own default holds."""

    timeout_seconds: NotRequired[int]
    """Seconds that a request may take, the wait for a first pod included. A value above 600 takes a Knative whose config-defaults allow it (max-revision-timeout-seconds); else the cluster refuses the service. At least 1, at most 86400. Default: 600."""
    stable_window_seconds: NotRequired[int]
    """Seconds over which requests are counted before pods go (Knative's own: 60). At least 6, at most 3600."""
    scale_down_delay_seconds: NotRequired[int]
    """Seconds for which fewer requests have to last before pods go (0). At least 0, at most 3600."""
    last_pod_retention_seconds: NotRequired[int]
    """Seconds for which the last pod stays after the decision for none (0). At least 0, at most 3600."""


class NodeRequirement(TypedDict):
    """What the labels of a node have to be (a match expression of required node affinity)."""

    key: str
    """Key of the label."""
    operator: NotRequired[str]
    """How the label is compared: In and NotIn compare with the values; Gt and Lt with one number. One of: In, NotIn, Exists, DoesNotExist, Gt, Lt. Default: In."""
    values: NotRequired[list[str]]
    """Values to compare with; none for Exists and DoesNotExist."""


class Toleration(TypedDict):
    """A taint of nodes that the pods put up with."""

    key: NotRequired[str]
    """Key of the taint; all taints where not set, with operator Exists."""
    operator: NotRequired[str]
    """Equal compares the value too. One of: Exists, Equal. Default: Exists."""
    value: NotRequired[str]
    """Value of the taint, with operator Equal."""
    effect: NotRequired[str]
    """Effect of the taint; all effects where not set. One of: NoSchedule, PreferNoSchedule, NoExecute."""
    toleration_seconds: NotRequired[int]
    """Until a pod leaves such a node, with effect NoExecute; it stays where not set. At least 0, at most 1000000000."""


class Spread(TypedDict):
    """How the pods of one model are spread over nodes or zones."""

    topology_key: str
    """Label of nodes whose values are kept apart, as topology.kubernetes.io/zone."""
    max_skew: NotRequired[int]
    """How many pods more one value may have than another. At least 1, at most 1000. Default: 1."""
    when_unsatisfiable: NotRequired[str]
    """DoNotSchedule leaves a pod pending rather than to break it. One of: DoNotSchedule, ScheduleAnyway. Default: ScheduleAnyway."""


class SchedulingSettings(TypedDict):
    """Which nodes take the pods, and what is said of the pods themselves."""

    node_selector: NotRequired[dict[str, str]]
    """Labels that a node has to have."""
    node_affinity: NotRequired[list[NodeRequirement]]
    """Requirements that a node has to meet, all of them."""
    tolerations: NotRequired[list[Toleration]]
    """Taints of nodes that the pods put up with; that of GPUs (nvidia.com/gpu) always is."""
    topology_spread: NotRequired[list[Spread]]
    """Over what the pods of one model are spread."""
    runtime_class_name: NotRequired[str]
    """RuntimeClass, as nvidia where that is not the default runtime of GPU nodes."""
    priority_class_name: NotRequired[str]
    """PriorityClass."""
    scheduler_name: NotRequired[str]
    """Scheduler, in place of the default one."""
    pod_labels: NotRequired[dict[str, str]]
    """Labels of the pods, for what else runs in the cluster: queues, meshes, autoscalers."""
    pod_annotations: NotRequired[dict[str, str]]
    """Annotations of the pods, for the same."""


class StartupProbe(TypedDict):
    """Asks until the server has started; `startTimeoutSeconds` says how long that may take."""

    period_seconds: NotRequired[int]
    """Seconds between two questions; a server that has started waits for half of it on average. At least 1, at most 60. Default: 2."""
    timeout_seconds: NotRequired[int]
    """Seconds for one answer. At least 1, at most 300. Default: 5."""


class ReadinessProbe(TypedDict):
    """Keeps requests away from a pod that does not answer."""

    path: NotRequired[str]
    """Path that answers 200 while the server takes requests; healthPath where not set."""
    period_seconds: NotRequired[int]
    """Seconds between two questions. At least 1, at most 300. Default: 5."""
    timeout_seconds: NotRequired[int]
    """Seconds for one answer. At least 1, at most 300. Default: 10."""
    failure_threshold: NotRequired[int]
    """Unanswered questions after which the pod gets no new requests. The requests that it has are not ended. At least 1, at most 1000. Default: 6."""


class LivenessProbe(TypedDict):
    """Restarts a server that does not answer any more, and with it all requests that it has."""

    enabled: NotRequired[bool]
    """False leaves restarts to the server itself, which ends when its engine does. Default: true."""
    path: NotRequired[str]
    """Path that answers 200 while the server need not be restarted; healthPath where not set."""
    period_seconds: NotRequired[int]
    """Seconds between two questions. At least 1, at most 3600. Default: 30."""
    timeout_seconds: NotRequired[int]
    """Seconds for one answer. At least 1, at most 600. Default: 30."""
    failure_threshold: NotRequired[int]
    """Unanswered questions after which the server is restarted. At least 1, at most 1000. Default: 10."""


class ProbesSettings(TypedDict):
    """How Kubernetes asks the server for its health."""

    startup: NotRequired[StartupProbe]
    """Until it has started."""
    readiness: NotRequired[ReadinessProbe]
    """Whether it takes requests."""
    liveness: NotRequired[LivenessProbe]
    """Whether it has to be restarted."""


class TerminationSettings(TypedDict):
    """How a pod that is deleted, replaced or scaled down ends (Standard mode)."""

    grace_period_seconds: NotRequired[int]
    """Seconds from the deletion to SIGKILL (the pod's terminationGracePeriodSeconds). Nodes that go may give less: spot nodes of Google Cloud 15 s. At least 1, at most 86400. Default: 330."""
    pre_stop_seconds: NotRequired[int]
    """Seconds before the server is told to end, so that proxies and load balancers learn that the pod takes no new requests; 0 leaves the hook out. At least 0, at most 3600. Default: 10."""
    drain_seconds: NotRequired[int]
    """Seconds in which vLLM finishes what it has begun (its --shutdown-timeout); what the grace period leaves where not set, and 0 leaves the argument out, so that vLLM cuts answers off. Another server (runtime custom) has to do it by itself. At least 0, at most 86400."""


class Trigger(TypedDict):
    """One reason for pods; where several speak, the largest number counts."""

    type: str
    """Requests, requestsWaiting or kvCacheUse (vLLM's own metrics, which need a pod to come from), prometheus (any query) or cron. One of: requests, requestsWaiting, kvCacheUse, prometheus, cron."""
    threshold: NotRequired[float]
    """Requests (running and waiting), or waiting ones, that one pod is to have; of kvCacheUse the share of the cache, 0.8 for 80 %; of prometheus what the query's value is divided by. More than 0."""
    activation_threshold: NotRequired[float]
    """Above which the first pod comes, where there is none; 0 where not set. At least 0."""
    query: NotRequired[str]
    """PromQL that gives one number (prometheus)."""
    timezone: NotRequired[str]
    """Of start and end (cron), as the IANA names it: Europe/Berlin."""
    start: NotRequired[str]
    """When a cron trigger begins to hold, as a cron expression: five fields, with Sunday as 0."""
    end: NotRequired[str]
    """When it no longer holds, as a cron expression that differs from start."""
    desired_replicas: NotRequired[int]
    """Pods while a cron trigger holds. At least 1, at most 1000."""


class AutoscalingSettings(TypedDict):
    """Between minReplicas, which may be 0, and maxReplicas."""

    triggers: list[Trigger]
    """What asks for pods; at least one."""
    server_address: NotRequired[str]
    """Address of the Prometheus that the queries go to, as KEDA reaches it."""
    polling_interval: NotRequired[int]
    """Seconds between two looks of KEDA at the triggers. At least 1, at most 3600. Default: 30."""
    cooldown_period: NotRequired[int]
    """Seconds from the last trigger that held until the last pod goes (minReplicas 0). At least 0, at most 86400. Default: 300."""
    fallback_replicas: NotRequired[int]
    """Pods while Prometheus does not answer; where not set there are as many as before. Triggers of type cron need none; with a trigger kvCacheUse it needs KEDA 2.18 or newer. At least 1, at most 1000."""


class ModelServiceArgs(TypedDict):
    """What is served, by what, and where."""

    storage_uri: pulumi.Input[str]
    """URI of the image, `oci://…@sha256:…`; an output of ModelcarImage. A service that is imported may have any other."""
    namespace: pulumi.Input[str]
    """Namespace of the InferenceService. It has to exist."""
    vllm_server: NotRequired[VllmServer]
    """vLLM, as the model server. Either this or customServer."""
    custom_server: NotRequired[CustomServer]
    """Another model server. Either this or vllmServer."""
    resources: NotRequired[ServerResources]
    """What one pod asks for."""
    replicas: NotRequired[Replicas]
    """How many pods there are, and how they change."""
    lock: NotRequired[str]
    """Path of the model's lock. The server's arguments are checked against the model's configuration."""
    name: NotRequired[str]
    """Name of the InferenceService; by default the component's."""
    deployment_mode: NotRequired[str]
    """KServe's deployment mode. One of: Standard, Knative. Default: Standard."""
    knative: NotRequired[KnativeSettings]
    """How long Knative waits, in deployment mode Knative."""
    placement: NotRequired[str]
    """How the image comes into the pod: by KServe, from where its URI stands (docs/decisions/0001-storage-uri-placement.md), or as an image volume of Kubernetes (docs/decisions/0012-image-volumes.md). One of: servingRuntime, storageUriEnv, storageUris, imageVolume. Default: servingRuntime."""
    shared_runtime: NotRequired[str]
    """ServingRuntime that this model uses together with others: the component, or the name of one that is there, which nothing is compared with."""
    scheduling: NotRequired[SchedulingSettings]
    """Which nodes take the pods."""
    probes: NotRequired[ProbesSettings]
    """How Kubernetes asks the server for its health."""
    termination: NotRequired[TerminationSettings]
    """How a pod ends."""
    autoscaling: NotRequired[AutoscalingSettings]
    """What KEDA keeps the number of pods by. Autoscaler declares the ScaledObject."""
    start_timeout_seconds: NotRequired[int]
    """Seconds that pulling the image and starting the server may take. Default: 1800."""
    node_pool: NotRequired[pulumi.Input[str]]
    """Pool of GPU nodes that the pods run on (GKE)."""
    service_account: NotRequired[pulumi.Input[str]]
    """ServiceAccount of the pods; by default the namespace's own."""
    await_ready: NotRequired[bool]
    """False ends `up` before the model is served. Default: true."""
    imports: NotRequired[list[str]]
    """Kinds of objects that are there already (InferenceService, ServingRuntime), and are taken over as they are."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class SharedRuntimeArgs(TypedDict):
    """What the models that use it have in common."""

    namespace: pulumi.Input[str]
    """Namespace of the ServingRuntime. It has to exist."""
    vllm_server: NotRequired[VllmServer]
    """vLLM, as the model server. Either this or customServer."""
    custom_server: NotRequired[CustomServer]
    """Another model server. Either this or vllmServer."""
    deployment_mode: NotRequired[str]
    """KServe's deployment mode of the models. Knative takes no preStop hook. One of: Standard, Knative. Default: Standard."""
    shared_memory: NotRequired[str]
    """Memory for /dev/shm. Default: 2Gi."""
    probes: NotRequired[ProbesSettings]
    """How Kubernetes asks the server for its health."""
    termination: NotRequired[TerminationSettings]
    """How a pod ends."""
    start_timeout_seconds: NotRequired[int]
    """Seconds that a server may take to start. Default: 1800."""
    name: NotRequired[str]
    """Name of the ServingRuntime; by default the component's."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class EgressRule(TypedDict):
    """A network that the pods may connect to."""

    cidr: str
    """The network, as 10.0.0.0/8; a single address as 10.0.0.5/32."""
    ports: NotRequired[list[int]]
    """TCP ports; all where empty."""


class EgressSettings(TypedDict):
    """What the pods may connect to."""

    restrict: NotRequired[bool]
    """Let the pods connect to nothing but what follows. Default: true."""
    dns: NotRequired[bool]
    """Let them ask for names. Default: true."""
    allow: NotRequired[list[EgressRule]]
    """Networks that they may connect to."""


class EgressPolicyArgs(TypedDict):
    """Which pods, and what they may connect to."""

    service: str
    """Name of the InferenceService whose pods the policy is for."""
    namespace: pulumi.Input[str]
    """Namespace of the InferenceService."""
    settings: NotRequired[EgressSettings]
    """What the pods may connect to."""
    imports: NotRequired[list[str]]
    """Kinds of objects that are there already (NetworkPolicy), and are taken over as they are."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class IngressSettings(TypedDict):
    """Where it is set, nobody connects to the pods but these; their own node always may."""

    namespaces: NotRequired[list[str]]
    """Namespaces whose pods may connect: of the gateway, of those who ask, of what collects metrics."""
    networks: NotRequired[list[str]]
    """Networks that may connect, as those of a load balancer (GKE: 35.191.0.0/16 and 130.211.0.0/22)."""


class IngressPolicyArgs(TypedDict):
    """Which pods, and who may connect to them."""

    service: str
    """Name of the InferenceService whose pods the policy is for."""
    namespace: pulumi.Input[str]
    """Namespace of the InferenceService."""
    settings: IngressSettings
    """Who may connect to the pods."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class PullAccessArgs(TypedDict):
    """Whose pods may pull, and with which credentials: those of an existing Secret, or a user's."""

    service: str
    """Name of the InferenceService whose pods pull. The ServiceAccount gets the same name."""
    namespace: pulumi.Input[str]
    """Namespace of the InferenceService."""
    host: pulumi.Input[str]
    """Host of the registry."""
    secret: NotRequired[pulumi.Input[str]]
    """Name of an existing Secret of type kubernetes.io/dockerconfigjson."""
    username: NotRequired[pulumi.Input[str]]
    """User of the registry, to make such a Secret."""
    password: NotRequired[pulumi.Input[str]]
    """Password of that user. It is kept as a Pulumi secret."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class PrePullArgs(TypedDict):
    """What is pulled, and to which nodes."""

    storage_uri: pulumi.Input[str]
    """URI of the modelcar, `oci://…@sha256:…`."""
    server_image: str
    """Image of the model server, by digest."""
    service: str
    """Name of the InferenceService that will use them."""
    namespace: pulumi.Input[str]
    """Namespace of the InferenceService."""
    gpus: NotRequired[int]
    """GPUs of one pod of the service. With GPUs, and neither a pool nor a selector or affinity, the images are pulled to nodes whose labels say that they have GPUs (docs/scheduling.md). Default: 1."""
    scheduling: NotRequired[SchedulingSettings]
    """Which nodes take the service's pods."""
    node_pool: NotRequired[pulumi.Input[str]]
    """Pool of GPU nodes that the service's pods run on (GKE)."""
    service_account: NotRequired[pulumi.Input[str]]
    """ServiceAccount whose pull secrets are used; by default the namespace's own."""
    start_timeout_seconds: NotRequired[int]
    """Seconds that it may take. Default: 1800."""
    closed: NotRequired[bool]
    """Deny its pods every connection, by a NetworkPolicy: they run both images, and need none. Default: true."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class AutoscalerArgs(TypedDict):
    """Which pods, and by what their number is kept."""

    service: str
    """Name of the InferenceService."""
    namespace: pulumi.Input[str]
    """Namespace of the InferenceService."""
    scaling: AutoscalingSettings
    """What asks for pods."""
    min_replicas: NotRequired[int]
    """The fewest pods; 0 lets the last one go. Default: 1."""
    max_replicas: NotRequired[int]
    """The most pods. Default: 1."""
    start_timeout_seconds: NotRequired[int]
    """Seconds before which the first pod is not taken away. Default: 1800."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class KServePlatformArgs(TypedDict):
    """Which KServe is installed, and how."""

    version: NotRequired[str]
    """Version of KServe and of its charts. Default: v0.19.0."""
    mode: NotRequired[str]
    """The default deployment mode. One of: Standard, Knative. Default: Standard."""
    namespace: NotRequired[str]
    """Namespace of KServe's controller. Default: kserve."""
    chart_repository: NotRequired[str]
    """Where KServe's charts are: oci://HOST/PATH, or a folder. Default: oci://ghcr.io/kserve/charts."""
    install_cert_manager: NotRequired[bool]
    """Install cert-manager too. False where the cluster has one. Default: true."""
    cert_manager_version: NotRequired[str]
    """Version of cert-manager, which KServe's webhooks need. Default: v1.21.2."""
    cert_manager_repository: NotRequired[str]
    """Where cert-manager's chart is: https://HOST, oci://HOST/PATH, or a folder. Default: https://charts.jetstack.io."""
    image_registry: NotRequired[str]
    """HOST/PATH that the charts' images were copied to, by the names that they have."""
    modelcar_uid: NotRequired[int]
    """User that the pods' processes run as (KServe's uidModelcar). Default: 1010."""
    modelcar_cpu: NotRequired[str]
    """Processors of the containers that KServe adds to a pod for the weights. Default: 100m."""
    modelcar_memory: NotRequired[str]
    """Memory of the containers that KServe adds to a pod for the weights. Default: 15Mi."""
    unread: NotRequired[bool]
    """In a preview, do not let the provider download the charts. Each release shows as changed then. Default: false."""
    firewall_rule: NotRequired[str]
    """What lets the control plane through to KServe's webhooks, told where they do not answer. Default: let the control plane's addresses through to the nodes on TCP port 9443."""
    imports: NotRequired[list[str]]
    """Kinds of objects that are there already (Namespace: those of KServe and cert-manager), and are taken over as they are."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""


class ImageOptions(TypedDict):
    """How the image of a ServedModel is built, named and signed."""

    name: NotRequired[str]
    """Repository below the registry; by default the name of the lock's folder."""
    architecture: NotRequired[str]
    """Processor of the nodes. One of: amd64, arm64. Default: amd64."""
    builder: NotRequired[str]
    """Name of the buildx builder; by default Docker's default one."""
    insecure: NotRequired[bool]
    """Push over plain HTTP, for a registry on this machine. Default: false."""
    hub_endpoint: NotRequired[str]
    """Address of a mirror of the model hub; by default the hub itself."""
    fetch_on: NotRequired[str]
    """What downloads the weights: this machine, or the builder, which then needs a name. One of: machine, builder. Default: machine."""
    mirrors: NotRequired[list[str]]
    """HOST[:PORT]/PATH of repositories that layers come from before the hub."""
    mirrors_insecure: NotRequired[bool]
    """Read mirrors on other hosts than the registry's over plain HTTP. Default: false."""
    sbom: NotRequired[bool]
    """Attach the model's bill of materials to the image. Default: true."""
    signature: NotRequired[SignatureSettings]
    """Who signs the image, and whose signature it needs before anything refers to it."""


class ServedModelArgs(TypedDict):
    """What one model is made of, by what it is served, and where."""

    lock: NotRequired[str]
    """Path of the model's lock, below the project. The image is built of it."""
    registry: NotRequired[pulumi.Input[str]]
    """HOST[:PORT]/PATH to push to. The digest in a preview does not depend on it."""
    project: NotRequired[str]
    """Folder of the program; by default the current one."""
    image: NotRequired[ImageOptions]
    """How the image is built, named and signed."""
    storage_uri: NotRequired[pulumi.Input[str]]
    """An image that is there already; in place of lock and registry."""
    namespace: pulumi.Input[str]
    """Namespace of the InferenceService. It has to exist."""
    vllm_server: NotRequired[VllmServer]
    """vLLM, as the model server. Either this or customServer."""
    custom_server: NotRequired[CustomServer]
    """Another model server. Either this or vllmServer."""
    resources: NotRequired[ServerResources]
    """What one pod asks for."""
    replicas: NotRequired[Replicas]
    """How many pods there are, and how they change."""
    name: NotRequired[str]
    """Name of the InferenceService; by default the component's."""
    deployment_mode: NotRequired[str]
    """KServe's deployment mode. One of: Standard, Knative. Default: Standard."""
    knative: NotRequired[KnativeSettings]
    """How long Knative waits, in deployment mode Knative."""
    placement: NotRequired[str]
    """How the image comes into the pod: by KServe, from where its URI stands (docs/decisions/0001-storage-uri-placement.md), or as an image volume of Kubernetes (docs/decisions/0012-image-volumes.md). One of: servingRuntime, storageUriEnv, storageUris, imageVolume. Default: servingRuntime."""
    shared_runtime: NotRequired[str]
    """ServingRuntime that this model uses together with others: the component, or the name of one that is there, which nothing is compared with."""
    scheduling: NotRequired[SchedulingSettings]
    """Which nodes take the pods."""
    probes: NotRequired[ProbesSettings]
    """How Kubernetes asks the server for its health."""
    termination: NotRequired[TerminationSettings]
    """How a pod ends."""
    autoscaling: NotRequired[AutoscalingSettings]
    """What KEDA keeps the number of pods by. Autoscaler declares the ScaledObject."""
    start_timeout_seconds: NotRequired[int]
    """Seconds that pulling the image and starting the server may take. Default: 1800."""
    node_pool: NotRequired[pulumi.Input[str]]
    """Pool of GPU nodes that the pods run on (GKE)."""
    service_account: NotRequired[pulumi.Input[str]]
    """ServiceAccount of the pods; by default the namespace's own."""
    await_ready: NotRequired[bool]
    """False ends `up` before the model is served. Default: true."""
    imports: NotRequired[list[str]]
    """Kinds of objects that are there already (InferenceService, ServingRuntime), and are taken over as they are."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the component have a Kubernetes provider, that declares the objects, and the program only asks the cluster by the kubeconfig, if there is one."""
    kube_context: NotRequired[str]
    """Context in the kubeconfig; by default the current one."""
    cluster_identifier: NotRequired[pulumi.Input[str]]
    """What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, or the DNS name of a GKE cluster. With it another address or certificate authority in the kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider that the component makes: where the options have one, give it to that."""
    egress: NotRequired[EgressSettings]
    """What the pods may connect to; by default nothing but names."""
    ingress: NotRequired[IngressSettings]
    """Who may connect to them; by default everybody."""
