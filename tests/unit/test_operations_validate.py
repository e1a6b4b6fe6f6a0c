"""The report on a served model: each line passed, failed, or not to be found out, with what was seen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from components.cluster.access import ClusterError
from components.config.stack import Stack
from components.manifests.network import egress_policy
from operations import __main__ as operations
from operations import validate_network
from operations.gpu import SCRIPT, parse
from operations.validate import validate
from operations.validate_network import CLOSED, OPEN
from operations.validation_report import Line, document, report
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

IMAGE = "registry.example/models/m@sha256:" + "a" * 64
SETTINGS = load(namespace="models", serviceName="m", servedModelName="m")
PODS = "/api/v1/namespaces/models/pods"
PROXY = f"{PODS}/m-1:8080/proxy/v1/completions"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/models/networkpolicies"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
#: The pod beside the model's, by the name that it has here.
CONTROL = f"{validate_network.CONTROL}-1234abcd"
READY = [{"type": "Ready", "status": "True"}]
#: What the script of operations/gpu.py says in a pod whose server computes on its card.
ON_GPU = """smi 0 /usr/local/nvidia/bin/nvidia-smi
said 0, NVIDIA H100 80GB HBM3, GPU-3f2a, 580.159.04, 81559, 74020
driver NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (root@x)
node /dev/nvidia0
other 1 pause
other 7 python3
uses 84  /dev/nvidia0 VLLM::EngineCor
end
"""


def served(**changes: Any) -> dict[str, Any]:
    env = [{"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "TRANSFORMERS_OFFLINE", "value": "1"}]
    found: dict[str, Any] = {
        "metadata": {
            "name": "m-1",
            "namespace": "models",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"serving.kserve.io/inferenceservice": "m"},
        },
        "spec": {
            "nodeName": "gpu-1",
            "initContainers": [{"name": "modelcar-init", "image": IMAGE}],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "vllm",
                    "env": env,
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                },
                {"name": "modelcar", "image": IMAGE},
            ],
        },
        "status": {"phase": "Running", "conditions": READY},
    }
    return {**found, **changes}


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster on which all is as it should be."""
    made = FakeCluster()
    made.lists[PODS] = [served()]
    made.found[PROXY] = {"choices": [{"text": " great"}], "usage": {"completion_tokens": 8}}
    made.texts["kserve-container"] = "INFO started\nINFO model /mnt/models\n"
    made.lists[POLICIES] = [
        {
            "metadata": {"name": "m-egress"},
            "spec": {
                "podSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "m"}},
                "policyTypes": ["Egress"],
            },
        }
    ]
    made.lists[SLICES] = [
        {
            "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": [{"addresses": ["192.0.2.1"]}],
            "ports": [{"port": 6443}],
        }
    ]
    made.said = {"m-1": f"{CLOSED}\n", CONTROL: f"{OPEN}\n"}
    made.said_of = {("m-1", "nvidia-uvm"): ON_GPU}
    made.found[f"{PODS}/{CONTROL}"] = {"status": {"conditions": READY}}
    return made


@pytest.fixture(autouse=True)
def named_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod of the control has a name that tests know."""
    monkeypatch.setattr("operations.validate_network.token_hex", lambda _: "1234abcd")


def lines(cluster: FakeCluster, uri: str | None = f"oci://{IMAGE}") -> dict[str, Line]:
    return {line.name: line for line in validate(cluster, SETTINGS, uri)}


def test_a_model_as_it_should_be_passes_in_each_line(cluster: FakeCluster) -> None:
    found = lines(cluster)
    assert {name: line.passed for name, line in found.items()} == dict.fromkeys(
        [
            "served by digest",
            "told to stay offline",
            "answers a prompt",
            "GPU seen",
            "GPU in use",
            "log without a hub",
            "egress denied by policy",
            "egress impossible",
        ],
        True,
    )
    assert "192.0.2.1:6443 from the pod does not connect, from beside it connects" in (
        found["egress impossible"].evidence
    )
    assert cluster.deleted == [f"{PODS}/{CONTROL}"]
    assert document(tuple(found.values()))["passed"] is True


def test_the_gpu_that_answers_is_told_with_card_driver_and_process(cluster: FakeCluster) -> None:
    found = lines(cluster)
    assert found["GPU seen"].evidence == "0 NVIDIA H100 80GB HBM3, 81559 MiB; driver 580.159.04"
    assert found["GPU in use"].evidence == (
        "VLLM::EngineCor (pid 84) on /dev/nvidia0; 74020 of 81559 MiB in use on GPU 0"
    )
    told = {line["name"]: line.get("details") for line in document(tuple(found.values()))["lines"]}
    assert told["answers a prompt"]["tokens"] == 8
    assert told["GPU seen"]["driver"] == "580.159.04"
    assert told["GPU seen"]["cards"][0]["name"] == "NVIDIA H100 80GB HBM3"
    assert told["GPU in use"]["processes"] == [
        {"pid": 84, "name": "VLLM::EngineCor", "nodes": ("/dev/nvidia0",)}
    ]
    assert told["log without a hub"] is None


@pytest.mark.parametrize(
    ("changes", "name", "passed", "evidence", "fix"),
    [
        (  # the CPU build of the server's image
            {"uses 84  /dev/nvidia0 VLLM": "other 84 VLLM", ", 74020": ", 1"},
            "GPU in use",
            False,
            "none of 3 processes has a card open",
            "CPU build",
        ),
        (  # a context is there, and nothing in it
            {", 74020": ", 4"},
            "GPU in use",
            False,
            "4 of 81559 MiB in use on GPU 0",
            "fewer GPUs than the pod pays for",
        ),
        (
            {"smi 0": "smi 9", "said 0, NVIDIA H100": "said NVIDIA-SMI has failed because it couldn't, H100"},
            "GPU seen",
            False,
            "nvidia-smi shows no card: NVIDIA-SMI has failed",
            "/usr/local/nvidia",
        ),
        (  # the processes of another user, whose files the shell may not see
            {"other 1 pause\n": "", "other 7 python3\n": "", "uses 84  /dev/nvidia0 VLLM::EngineCor\n": ""},
            "GPU in use",
            None,
            "no process can be looked at; 74020 of 81559 MiB in use on GPU 0",
            "kubectl -n models exec m-1 -c kserve-container -- ",
        ),
        (  # the script broke off
            {"end\n": "", "smi 0": "sh: not found"},
            "GPU seen",
            None,
            "not seen: the container's shell did not come to the end",
            "kubectl -n models exec m-1 -c kserve-container -- nvidia-smi",
        ),
    ],
)
def test_a_gpu_that_is_not_used_as_it_should_be(
    cluster: FakeCluster, changes: dict[str, str], name: str, passed: bool | None, evidence: str, fix: str
) -> None:
    text = ON_GPU
    for former, new in changes.items():
        assert former in text
        text = text.replace(former, new)
    cluster.said_of["m-1", "nvidia-uvm"] = text
    found = lines(cluster)[name]
    assert found.passed is passed
    assert evidence in found.evidence
    assert fix in found.fix


def test_an_image_without_nvidia_smi_shows_device_and_driver(cluster: FakeCluster) -> None:
    kept = [line for line in ON_GPU.splitlines(keepends=True) if not line.startswith(("smi", "said"))]
    cluster.said_of["m-1", "nvidia-uvm"] = "".join(kept)
    found = lines(cluster)
    assert found["GPU seen"].passed is True
    assert found["GPU seen"].evidence == (
        "/dev/nvidia0; driver 580.159.04; names not seen: no nvidia-smi in the image"
    )
    assert found["GPU in use"].passed is True
    cluster.said_of["m-1", "nvidia-uvm"] = "other 1 pause\nother 7 python3\nend\n"
    found = lines(cluster)
    assert found["GPU seen"].passed is False
    assert "0 of 1 GPUs: no /dev/nvidia0; no NVIDIA driver in the kernel" in found["GPU seen"].evidence


def test_fewer_cards_than_were_asked_for_fail(cluster: FakeCluster) -> None:
    pod = served()
    pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "2"
    cluster.lists[PODS] = [pod]
    found = lines(cluster)["GPU seen"]
    assert found.passed is False
    assert found.evidence.startswith("1 of 2 GPUs: 0 NVIDIA H100")


def test_a_second_card_that_nothing_is_on_fails(cluster: FakeCluster) -> None:
    pod = served()
    pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "2"
    cluster.lists[PODS] = [pod]
    second = "said 1, NVIDIA H100 80GB HBM3, GPU-77aa, 580.159.04, 81559, {}\ndriver"
    cluster.said_of["m-1", "nvidia-uvm"] = ON_GPU.replace("driver", second.format(2), 1)
    assert lines(cluster)["GPU in use"].passed is False
    cluster.said_of["m-1", "nvidia-uvm"] = ON_GPU.replace("driver", second.format(70000), 1)
    assert lines(cluster)["GPU in use"].passed is True


def test_without_the_right_to_exec_the_gpu_is_not_seen_and_nothing_breaks(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = cluster.execute

    def refused(namespace: str, pod: str, container: str, command: list[str], **more: Any) -> str:
        if container == "kserve-container":
            raise ClusterError(403, "pods/exec is forbidden")
        return execute(namespace, pod, container, command, **more)

    monkeypatch.setattr(cluster, "execute", refused)
    found = lines(cluster)
    for name in ("GPU seen", "GPU in use"):
        assert found[name].passed is None
        assert found[name].evidence == "not seen: pods/exec is forbidden"
        assert "kubectl -n models exec m-1 -c kserve-container -- nvidia-smi" in found[name].fix
    assert found["egress impossible"].passed is True


def test_a_model_without_a_gpu_has_no_such_lines(cluster: FakeCluster) -> None:
    pod = served()
    del pod["spec"]["containers"][0]["resources"]
    cluster.lists[PODS] = [pod]
    found = lines(cluster)["GPU seen"]
    assert found.passed is False
    assert found.evidence == "the stack says gpuCount 1, and the pod asks for no GPU"
    settings = load(namespace="models", serviceName="m", servedModelName="m", gpuCount=0)
    assert not [line for line in validate(cluster, settings) if "GPU" in line.name]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_runs_in_a_shell_and_sees_its_own_processes(shell: str) -> None:
    """Here without a GPU: it comes to its end, says nothing on stderr, and calls no process a GPU's."""
    ran = subprocess.run([shell, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    seen = parse(ran.stdout)
    assert ran.stderr == ""
    assert ran.stdout.endswith("end\n")
    assert seen.looked_at > 0


def test_the_script_tells_who_has_a_card_open(tmp_path: Path) -> None:
    """With files in place of the devices: one process has both open, one only the card's, as nvidia-smi."""
    script = SCRIPT.replace("/dev/nvidia", f"{tmp_path}/nvidia")
    for name in ("nvidia0", "nvidia-uvm"):
        (tmp_path / name).touch()
    both = ["sh", "-c", f"exec 3<{tmp_path}/nvidia0 4<{tmp_path}/nvidia-uvm; echo; read -r line"]
    one = ["sh", "-c", f"exec 3<{tmp_path}/nvidia0; echo; read -r line"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(both, stdin=pipe, stdout=pipe) as server,
        subprocess.Popen(one, stdin=pipe, stdout=pipe) as other,
    ):
        for process in (server, other):
            assert process.stdout
            process.stdout.readline()  # the files are open
        ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=60)
        for process in (server, other):
            process.communicate(b"\n")
    told = [line.split() for line in ran.stdout.splitlines()]
    assert ["uses", str(server.pid), f"{tmp_path}/nvidia0", "sh"] in told
    assert ["other", str(other.pid), "sh"] in told


def test_the_control_is_no_pod_that_the_policy_selects(cluster: FakeCluster) -> None:
    lines(cluster)
    [(path, body)] = cluster.made
    assert path == PODS
    assert "serving.kserve.io/inferenceservice" not in body["metadata"]["labels"]
    assert body["spec"]["enableServiceLinks"] is False
    [box] = body["spec"]["containers"]
    assert box["image"] == IMAGE
    assert box["securityContext"]["runAsNonRoot"] is True


def test_two_runs_have_a_control_each(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another person's is running: it is neither removed nor used."""
    monkeypatch.setattr("operations.validate_network.token_hex", token_hex)
    found = cluster.get

    def get(path: str, **query: str) -> Any:
        return {"status": {"conditions": READY}} if validate_network.CONTROL in path else found(path, **query)

    monkeypatch.setattr(cluster, "get", get)
    monkeypatch.setattr(cluster, "execute", lambda *_, **__: CLOSED)
    for _ in range(2):
        lines(cluster)
    names = [body["metadata"]["name"] for _, body in cluster.made]
    assert len(set(names)) == 2
    assert cluster.deleted == [f"{PODS}/{name}" for name in names]


def test_what_killed_runs_have_left_is_removed_once_it_has_ended(cluster: FakeCluster) -> None:
    for name, phase in (("-1", "Running"), ("-2", "Failed"), ("", "Succeeded"), ("-3", "Pending")):
        metadata = {"name": f"{validate_network.CONTROL}{name}", "namespace": "models"}
        cluster.lists[PODS].append({"metadata": metadata, "status": {"phase": phase}, "spec": {}})
    lines(cluster)
    ended = [f"{PODS}/{validate_network.CONTROL}{name}" for name in ("-2", "")]
    assert cluster.deleted == [*ended, f"{PODS}/{CONTROL}"]


def test_the_control_runs_where_the_image_is(cluster: FakeCluster) -> None:
    """Another node would pull all of the weights for it."""
    lines(cluster)
    [(_, body)] = cluster.made
    required = body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    [term] = required["nodeSelectorTerms"]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]}


@pytest.mark.parametrize("inside", [CLOSED, OPEN])
def test_a_control_that_does_not_start_leaves_the_rest_of_the_report(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    monkeypatch.setattr("operations.validate_network.CONTROL_PATIENCE", 0.0)
    pending = {"metadata": {"name": CONTROL, "namespace": "models"}, "status": {"phase": "Pending"}}
    cluster.found[f"{PODS}/{CONTROL}"] = pending
    cluster.said["m-1"] = f"{inside}\n"
    found = lines(cluster)
    assert len(found) == 8
    line = found["egress impossible"]
    assert line.passed is (False if inside == OPEN else None), "what connects from the pod needs no control"
    assert f"192.0.2.1:6443 from the pod {inside}; not tried from beside it: pod {CONTROL}" in line.evidence
    assert cluster.deleted == [f"{PODS}/{CONTROL}"]


def test_a_control_that_somebody_deletes_is_told(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.validate_network.CONTROL_PATIENCE", 0.0)
    del cluster.found[f"{PODS}/{CONTROL}"]
    found = lines(cluster)["egress impossible"]
    assert found.passed is None
    assert found.evidence.endswith("does not start: somebody deleted it")


@pytest.mark.parametrize("where", [PODS, SLICES, "exec"])
def test_without_a_right_the_network_is_not_tried_and_nothing_breaks(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    error = ClusterError(403, "it is forbidden")
    settings = load(
        namespace="models", serviceName="m", servedModelName="m", ingress={"namespaces": ["apps"]}
    )

    def refused(*_: Any, **__: Any) -> Any:
        raise error

    if where == "exec":
        monkeypatch.setattr("operations.validate_network._attempts", refused)
    elif where == PODS:
        monkeypatch.setattr(cluster, "create", refused)
    else:
        cluster.refusals[where] = error
    found = {line.name: line for line in validate(cluster, settings)}
    assert len(found) == 9
    for name in ("egress impossible", "ingress as it is set"):
        assert found[name].passed is None
        assert found[name].evidence.endswith(": it is forbidden")
        assert "pods/exec" in found[name].fix
    assert "????  egress impossible" in "\n".join(report(tuple(found.values())))


def test_what_may_not_be_read_is_told_as_such(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> str:
        raise ClusterError(403, "pods/log is forbidden")

    monkeypatch.setattr(cluster, "logs", refused)
    cluster.refusals[POLICIES] = ClusterError(403, "networkpolicies is forbidden")
    found = lines(cluster)
    for name, evidence in (
        ("log without a hub", "not seen: pods/log is forbidden"),
        ("egress denied by policy", "not seen: networkpolicies is forbidden"),
    ):
        assert (found[name].passed, found[name].evidence) == (None, evidence)
    assert found["egress impossible"].passed is True


def test_another_image_than_the_stacks_fails(cluster: FakeCluster) -> None:
    other = "oci://registry.example/models/m@sha256:" + "b" * 64
    assert lines(cluster, other)["served by digest"].passed is False
    found = lines(cluster, None)["served by digest"]
    assert found.passed is None, "it was compared with nothing"
    assert "the stack's outputs do not say which image it is to be" in found.evidence


FORMER = "registry.example/models/m@sha256:" + "b" * 64


def beside(cluster: FakeCluster, name: str = "m-0", *, image: str = IMAGE, **changes: Any) -> dict[str, Any]:
    """Add a ready pod that is older than the one that is there."""
    pod = served(**changes)
    pod["metadata"] = {**pod["metadata"], "name": name, "creationTimestamp": "2025-01-01T00:00:00Z"}
    for box in (pod["spec"]["initContainers"][0], pod["spec"]["containers"][1]):
        box["image"] = image
    cluster.lists[PODS].insert(0, pod)
    return pod


def test_of_several_pods_each_is_looked_at_and_the_costly_lines_name_theirs(cluster: FakeCluster) -> None:
    beside(cluster)
    found = lines(cluster)
    assert all(line.passed for line in found.values())
    assert found["served by digest"].evidence.endswith("; the same in m-0")
    assert found["told to stay offline"].evidence == "HF_HUB_OFFLINE=1, TRANSFORMERS_OFFLINE=1"
    for name in ("answers a prompt", "GPU in use", "log without a hub", "egress impossible"):
        assert found[name].evidence.startswith("m-1: ")


def test_a_pod_that_a_rollout_has_left_behind_fails(cluster: FakeCluster) -> None:
    former = beside(cluster, image=FORMER)
    former["spec"]["containers"][0]["env"] = []
    former["metadata"]["labels"] = {}
    found = lines(cluster)
    assert found["served by digest"].passed is False
    assert f"m-0 serves {FORMER}, and is ready too" in found["served by digest"].evidence
    assert found["served by digest"].details["pods"] == {"m-0": FORMER, "m-1": IMAGE}
    assert found["told to stay offline"].passed is False
    assert found["told to stay offline"].evidence.endswith(
        "; m-0: HF_HUB_OFFLINE=not set, TRANSFORMERS_OFFLINE=not set"
    )
    assert found["egress denied by policy"].passed is False
    assert found["egress denied by policy"].evidence.endswith("holds the pod's egress back: m-0")


KNATIVE = "/apis/serving.knative.dev/v1/namespaces/models/services/m-predictor"


@pytest.mark.parametrize(
    ("canary", "share", "passed"),
    [(20, 80, True), (None, 0, True), (None, 100, False), (20, None, None)],
    ids=["canary", "leaving", "not over", "not seen"],
)
def test_a_former_revision_is_told_with_its_share(
    cluster: FakeCluster, canary: int | None, share: int | None, passed: bool | None
) -> None:
    more: dict[str, Any] = {} if canary is None else {"canaryTrafficPercent": canary}
    settings = load(
        namespace="models", serviceName="m", servedModelName="m", deploymentMode="Knative", **more
    )
    former = beside(cluster, image=FORMER)
    former["metadata"]["creationTimestamp"] = "2026-06-01T00:00:00Z"  # it had more requests, and got a pod
    for pod, number in ((former, 1), (cluster.lists[PODS][1], 2)):
        revision = f"m-predictor-0000{number}"
        pod["metadata"]["labels"] = {**pod["metadata"]["labels"], "serving.knative.dev/revision": revision}
    traffic = [{"revisionName": "m-predictor-00001", "percent": share}]
    cluster.found[KNATIVE] = {"status": {"traffic": traffic}}
    if share is None:
        cluster.refusals[KNATIVE] = ClusterError(403, "services is forbidden")
    found = validate(cluster, settings, f"oci://{IMAGE}")[0]
    assert found.passed is passed
    told = "services is forbidden" if share is None else f"m-predictor-00001 gets {share} % of the requests"
    assert f"m-0 serves {FORMER}, " in found.evidence
    assert told in found.evidence


def test_a_server_that_may_go_online_fails(cluster: FakeCluster) -> None:
    pod = served()
    pod["spec"]["containers"][0]["env"][0]["value"] = "0"
    cluster.lists[PODS] = [pod]
    found = lines(cluster)["told to stay offline"]
    assert found.passed is False
    assert "HF_HUB_OFFLINE=0" in found.evidence


@pytest.mark.parametrize(
    "line",
    [
        "GET https://huggingface.co/api/models/x",
        "Downloading shards: 10%",
        "Downloading model.safetensors: 100%",
        "Fetching 12 files: 0%",
        "HEAD https://cdn-lfs.hf.co/x",
        "HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /api/models/x",
        "NameResolutionError(\"HTTPSConnection(host='huggingface.co', port=443): Failed to resolve\")",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them",
        "'[Errno -3] Temporary failure in name resolution' thrown while requesting HEAD https://huggingface.co/x",
        'INFO:httpx:HTTP Request: GET https://huggingface.co/api/models/x "HTTP/1.1 200 OK"',
        "OfflineModeIsEnabled: Cannot reach https://huggingface.co/x/config.json: offline mode is enabled",
        "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/api/x",
        "aiohttp: Cannot connect to host huggingface.co:443 ssl:default [Name or service not known]",
        "error sending request for url (https://cas-bridge.xethub.hf.co/x)",
        "urllib3.connectionpool: Starting new HTTPS connection (1): huggingface.co:443",
        'urllib3.connectionpool: https://huggingface.co:443 "HEAD /x/resolve/main/config.json" 200 0',
    ],
)
def test_a_log_that_tells_of_a_hub_fails(cluster: FakeCluster, line: str) -> None:
    cluster.texts["kserve-container"] += line
    found = lines(cluster)["log without a hub"]
    assert found.passed is False
    assert found.evidence == line


@pytest.mark.parametrize(
    "line",
    [
        # Transformers, of weights in a folder (tokenization_utils_base.py)
        "The tokenizer you are loading from '/mnt/models' with an incorrect regex pattern: "
        "https://huggingface.co/mistralai/Mistral-Small-3.1-24B-Instruct-2503/discussions/84#6912. This will "
        "lead to incorrect tokenization. You should set the `fix_mistral_regex=True` flag",
        "See https://huggingface.co/docs/transformers/main_classes/quantization for details",
        "You can get https://hf.co/papers as a reference",
        "(base_model: https://huggingface.co/Qwen/Qwen2.5-7B)",
        'INFO 10.0.0.1:4711 - "GET /v1/models HTTP/1.1" 200 OK',
        "Cannot reach https://shelf.co/x",
    ],
)
def test_an_address_of_a_hub_is_no_connection_to_it(cluster: FakeCluster, line: str) -> None:
    cluster.texts["kserve-container"] += line
    assert lines(cluster)["log without a hub"].passed is True


def test_a_server_that_does_not_answer_fails(cluster: FakeCluster) -> None:
    cluster.refusals[PROXY] = ClusterError(503, "no endpoints available")
    found = lines(cluster)["answers a prompt"]
    assert found.passed is False
    assert "no endpoints available" in found.evidence
    del cluster.refusals[PROXY]
    cluster.found[PROXY] = {"detail": "Not Found"}
    assert lines(cluster)["answers a prompt"].passed is False


def test_a_server_that_wants_its_key_is_asked_in_its_pod(cluster: FakeCluster) -> None:
    cluster.refusals[PROXY] = ClusterError(401, '{"error": "Unauthorized"}')
    text = json.dumps({"choices": [{"text": " great"}]})
    cluster.said_of["m-1", "ANSWER"] = f"ANSWER {json.dumps([200, text])}\n"
    assert all(line.passed for line in lines(cluster).values())
    cluster.said_of["m-1", "ANSWER"] = "exec: python3: not found"
    found = lines(cluster)["answers a prompt"]
    assert found.passed is None, "it may serve all the same"
    assert "the server wants its API key" in found.evidence
    assert "pods/exec in models" in found.fix


def test_a_policy_for_other_pods_does_not_count(cluster: FakeCluster) -> None:
    cluster.lists[POLICIES][0]["spec"]["podSelector"]["matchLabels"]["other"] = "x"
    found = lines(cluster)["egress denied by policy"]
    assert found.passed is False
    assert "modelcar:egress.restrict true" in found.fix


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"podSelector": {}, "policyTypes": ["Egress"], **spec}}


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ({}, False),
        ({"ports": [{"port": 443}]}, False),
        ({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, False),
        ({"to": [{"podSelector": {}}, {"ipBlock": {"cidr": "::/0"}}]}, False),
        ({"ports": [{"port": 53, "endPort": 9000}]}, False),
        ({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["8.0.0.0/8"]}}]}, False),
        ({"to": [{"ipBlock": {"cidr": "0.0.0.0/1"}}, {"ipBlock": {"cidr": "128.0.0.0/1"}}]}, False),
        ({"to": [{"ipBlock": {"cidr": "2000::/3"}}]}, False),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}, True),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, True),
        ({"ports": [{"port": 53, "protocol": "UDP"}]}, True),
    ],
)
def test_a_policy_that_allows_every_address_undoes_the_others(
    cluster: FakeCluster, rule: dict[str, Any], passed: bool
) -> None:
    cluster.lists[POLICIES].append(policy("wide", egress=[rule]))
    found = lines(cluster)["egress denied by policy"]
    assert found.passed is passed
    if passed:
        assert found.evidence == "NetworkPolicy m-egress, wide; wide allows more than modelcar:egress says"
    else:
        assert found.evidence == "NetworkPolicy wide allows it to most addresses or all, and policies add up"
        assert "kubectl -n models delete networkpolicy wide" in found.fix


def test_what_the_stack_itself_allows_is_not_told_as_more(cluster: FakeCluster) -> None:
    cluster.lists[POLICIES][0]["spec"] = egress_policy("m", SETTINGS.egress)
    assert lines(cluster)["egress denied by policy"].evidence == "NetworkPolicy m-egress"


@pytest.mark.parametrize(
    ("operator", "values", "selects"),
    [
        ("In", ["m", "other"], True),
        ("In", ["other"], False),
        ("NotIn", ["other"], True),
        ("NotIn", ["m"], False),
        ("Exists", None, True),
        ("DoesNotExist", None, False),
    ],
)
def test_a_policy_selects_by_expressions_too(
    cluster: FakeCluster, operator: str, values: list[str] | None, selects: bool
) -> None:
    expression = {"key": "serving.kserve.io/inferenceservice", "operator": operator, "values": values}
    selector = {"matchExpressions": [expression]}
    cluster.lists[POLICIES] = [policy("p", podSelector=selector)]
    assert lines(cluster)["egress denied by policy"].passed is selects


def test_a_network_that_enforces_no_policies_fails(cluster: FakeCluster) -> None:
    cluster.said["m-1"] = OPEN
    found = lines(cluster)["egress impossible"]
    assert found.passed is False
    assert "Dataplane V2" in found.fix


@pytest.mark.parametrize("where", ["m-1", CONTROL])
@pytest.mark.parametrize("said", ["", "sh: out of memory\n"])
def test_an_exec_that_does_not_say_whether_it_connects_proves_nothing(
    cluster: FakeCluster, where: str, said: str
) -> None:
    cluster.said[where] = said
    settings = load(
        namespace="models", serviceName="m", servedModelName="m", ingress={"namespaces": ["apps"]}
    )
    found = {line.name: line for line in validate(cluster, settings)}
    for name in ("egress impossible", "ingress as it is set"):
        assert found[name].passed is None
        assert f"the shell in {where} said {said.strip()!r}" in found[name].evidence.replace("nothing", "''")


def test_a_shell_may_begin_with_a_warning(cluster: FakeCluster) -> None:
    cluster.said["m-1"] = f"bash: warning: setlocale: no such locale\n{CLOSED}\n"
    assert lines(cluster)["egress impossible"].passed is True


def test_where_nothing_can_be_reached_nothing_is_proven(cluster: FakeCluster) -> None:
    cluster.said[CONTROL] = CLOSED
    found = lines(cluster)["egress impossible"]
    assert found.passed is None
    assert "proves nothing" in found.fix
    assert next(report((found,))).startswith("????")
    assert document((found,))["passed"] is False


def test_a_model_that_is_not_served_is_one_line_with_the_reason(cluster: FakeCluster) -> None:
    waiting = {"name": "kserve-container", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    cluster.lists[PODS] = [served(status={"phase": "Running", "containerStatuses": [waiting]})]
    cluster.texts["kserve-container"] = "RuntimeError: no GPU\n"
    [found] = validate(cluster, SETTINGS)
    assert found.passed is False
    assert "CrashLoopBackOff" in found.evidence
    assert "RuntimeError: no GPU" in found.evidence
    cluster.texts["kserve-container"] = "RuntimeError: No CUDA GPUs are available\n"
    [found] = validate(cluster, SETTINGS)
    assert "reason: the server finds no GPU in its pod" in found.evidence
    assert "modelcar:gpuCount" in found.fix
    cluster.lists[PODS] = []
    [found] = validate(cluster, SETTINGS)
    assert "has no pod" in found.evidence


@pytest.mark.parametrize(
    ("replicas", "passed"), [(0, None), (1, False)], ids=["at rest", "its pods are refused"]
)
def test_a_model_that_nobody_asks_for_is_no_fault(
    cluster: FakeCluster, replicas: int, passed: bool | None
) -> None:
    cluster.lists[PODS] = []
    deployment = f"/apis/apps/v1/namespaces/models/deployments/{SETTINGS.service_name}-predictor"
    cluster.found[deployment] = {"spec": {"replicas": replicas}}
    by_day = {
        "type": "cron",
        "timezone": "UTC",
        "start": "0 8 * * *",
        "end": "0 18 * * *",
        "desiredReplicas": 1,
    }
    own = load(
        namespace="models",
        serviceName=SETTINGS.service_name,
        minReplicas=0,
        maxReplicas=2,
        autoscaling={"triggers": [by_day]},
    )
    [found] = validate(cluster, own)
    assert found.passed is passed
    assert "has no pod" in found.evidence
    cluster.refusals[deployment] = ClusterError(403, "deployments is forbidden")
    [found] = validate(cluster, own)
    assert found.passed is None
    assert found.evidence.endswith("whether nothing asks for one is not seen: deployments is forbidden")
    assert found.fix == "you need the right to get deployments (apps) in models"


@pytest.mark.parametrize("ready", ["True", "False"])
def test_nor_is_one_at_rest_in_knative_mode(cluster: FakeCluster, ready: str) -> None:
    cluster.lists[PODS] = []
    cluster.found[KNATIVE] = {"status": {"conditions": [{"type": "Ready", "status": ready}]}}
    settings = load(namespace="models", serviceName="m", deploymentMode="Knative", minReplicas=0)
    [found] = validate(cluster, settings)
    if ready == "True":
        assert (found.passed, found.fix) == (None, "ask it something, as its users do, and look again")
    else:
        assert found.passed is False
        assert found.fix.startswith("pulumi up; where that brings none: ")


def test_an_idle_model_is_told_as_such(cluster: FakeCluster) -> None:
    cluster.lists[PODS] = []
    [found] = validate(cluster, load(namespace="models", serviceName="m", idle=True))
    assert found.passed is None
    assert found.evidence == "InferenceService models/m has no pod, as the stack says (modelcar:idle)"
    assert found.fix == "make wake STACK=…"


def test_with_gitops_no_fix_ends_at_pulumi_up(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_network, "LET_IN", 0.0)
    settings = load(
        namespace="models",
        serviceName="m",
        delivery="gitops",
        gitops={"folder": "deploy"},
        ingress={"namespaces": ["models"]},
    )
    pod = served()
    del pod["spec"]["containers"][0]["resources"], pod["spec"]["containers"][0]["env"]
    cluster.lists[PODS], cluster.lists[POLICIES] = [pod], []
    cluster.said[CONTROL] = CLOSED
    found = {line.name: line for line in validate(cluster, settings, f"oci://{FORMER}")}
    told = [line.fix for line in found.values() if "pulumi up" in line.fix]
    assert len(told) == 5
    assert all("pulumi up; commit and push what it writes, and synchronise in Argo CD" in fix for fix in told)


def test_what_may_not_be_read_of_a_broken_pod_leaves_its_states(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = {"name": "kserve-container", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    cluster.lists[PODS] = [served(status={"phase": "Running", "containerStatuses": [waiting]})]
    cluster.refusals["/api/v1/namespaces/models/events"] = ClusterError(403, "events is forbidden")

    def refused(*_: Any, **__: Any) -> str:
        raise ClusterError(403, "pods/log is forbidden")

    monkeypatch.setattr(cluster, "logs", refused)
    [found] = validate(cluster, SETTINGS)
    assert found.passed is False
    assert found.evidence == (
        "m-1: kserve-container: CrashLoopBackOff; its events are not seen: events is forbidden; "
        "its log is not seen: pods/log is forbidden"
    )
    assert "the right to read pods' logs" in found.fix
    cluster.lists[PODS] = [served(status={"phase": "Pending"})]
    [found] = validate(cluster, SETTINGS)
    assert found.evidence.startswith("m-1: the pod is Pending; its events are not seen: events is forbidden")


def test_a_model_that_cannot_be_asked_hides_no_other(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = load(namespace="elsewhere", serviceName="other", model="other")
    stack = Stack((SETTINGS, other), listed=True)
    monkeypatch.setattr(operations, "stack_of", lambda *_: stack)
    monkeypatch.setattr(operations, "outputs_of", lambda *_: {})
    monkeypatch.setattr(operations, "cluster_of", lambda *_: cluster)
    cluster.refusals["/api/v1/namespaces/elsewhere/pods"] = ClusterError(403, "pods is forbidden")
    assert operations.main(["validate", "--stack", "dev"]) == 1
    out = capsys.readouterr().out
    assert "PASS  answers a prompt" in out
    assert "????  served  not seen: pods is forbidden\n" in out
    assert operations.main(["validate", "--stack", "dev", "--json"]) == 1
    models = json.loads(capsys.readouterr().out)["models"]
    assert [line["passed"] for line in models[other.key]["lines"]] == [None]
    assert len(models[SETTINGS.key]["lines"]) == 8
