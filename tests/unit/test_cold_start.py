"""A start's phases from what Kubernetes remembers, and what larger models would take."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from components.cluster.access import ClusterError
from components.config.stack import Stack
from local import __main__ as command_line
from local import up
from local.cold_start_report import Run, report
from local.forecast import Fit, Machine, fit, forecast, machines
from operations import __main__ as operations
from operations.cold_start import caches, cold_start, document, duration, log_times, pulled, table
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

SETTINGS = load(namespace="models", serviceName="m")
PODS = "/api/v1/namespaces/models/pods"
EVENTS = "/api/v1/namespaces/models/events"
IMAGE = "registry.example/tiny@sha256:" + "a" * 64
LOG = """2026-01-01T00:00:31.5000000001Z waiting for /mnt/models
2026-01-01T00:00:31.600000000Z /mnt/models is there
2026-01-01T00:00:40.1Z INFO loading
"""


def event(message: str) -> dict[str, Any]:
    return {"message": message}


PULLED = event(
    f'Successfully pulled image "{IMAGE}" in 25.25s (25.3s including waiting). Image size: 4124027 bytes.'
)


def served_pod() -> dict[str, Any]:
    def at(kind: str, second: int) -> dict[str, str]:
        return {"type": kind, "status": "True", "lastTransitionTime": f"2026-01-01T00:00:{second:02}Z"}

    return {
        "metadata": {"name": "m-1", "namespace": "models", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "initContainers": [{"name": "modelcar-init", "image": IMAGE}],
            "containers": [
                {"name": "kserve-container", "resources": {"limits": {"cpu": "4"}}},
                {"name": "modelcar", "resources": {"limits": {"cpu": "10m"}}},
            ],
        },
        "status": {
            "conditions": [at("PodScheduled", 3), at("Ready", 59)],
            "containerStatuses": [
                {"name": "kserve-container", "state": {"running": {"startedAt": "2026-01-01T00:00:31Z"}}}
            ],
        },
    }


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster()
    made.lists[PODS] = [served_pod()]
    made.lists[EVENTS] = [PULLED]
    made.texts["kserve-container"] = LOG
    return made


def test_the_phases_add_up(cluster: FakeCluster) -> None:
    found = cold_start(cluster, SETTINGS)
    assert found
    assert (found.schedule, found.pull, found.link) == (3.0, 25.25, 0.1)
    assert found.start == pytest.approx(31.5 - 3 - 25.25)
    assert found.load == pytest.approx(59 - 31.6)
    assert found.total == pytest.approx(59)
    assert found.image_bytes == 4124027
    assert table(found)[2].split() == ["pull", "25.2", "s"]


@pytest.mark.parametrize(
    ("link", "cpu", "told"),
    [
        (2.5, "10m", True),
        (0.9, "10m", False),
        (2.5, "100m", False),
        (2.5, "1", False),
        (None, "10m", False),
        (2.5, None, False),
    ],
)
def test_a_sidecar_that_is_held_up_by_its_limit_is_told(
    cluster: FakeCluster, link: float | None, cpu: str | None, told: bool
) -> None:
    found = cold_start(cluster, SETTINGS)
    assert found
    assert found.sidecar_cpu == "10m", "of the sidecar, not of the server"
    lines = table(replace(found, link=link, sidecar_cpu=cpu))
    assert any("cpuModelcar 100m" in line for line in lines) == told


def test_a_gpu_servers_phases_stand_below_its_load(cluster: FakeCluster) -> None:
    cluster.texts["kserve-container"] = LOG.replace(
        "2026-01-01T00:00:40.1Z INFO loading\n",
        "2026-01-01T00:00:41.6Z (APIServer pid=1) INFO 01-01 00:00:41 [api_utils.py:273] non-default "
        "args: {}\n"
        "2026-01-01T00:00:45Z (EngineCore pid=84) INFO 01-01 00:00:45 [core.py:113] Initializing a V1 "
        "LLM engine "
        "(v0.23.0) with config: model='/mnt/models', device_config=cuda\n"
        "2026-01-01T00:00:58Z (APIServer pid=1) INFO:     Application startup complete.\n",
    )
    found = cold_start(cluster, SETTINGS)
    assert found
    lines = [line.split() for line in table(found)]
    assert lines[-5:] == [
        ["load", "27.4", "s"],
        ["imports", "10.0", "s"],
        ["engine", "3.4", "s"],
        ["ready", "13.0", "s"],
        ["in", "all", "59.0", "s"],
    ]
    assert found.total == pytest.approx(59), "they are parts of load, and not counted twice"
    assert document(found)["server"][1] == {
        "name": "engine",
        "seconds": pytest.approx(3.4),
        "cache": None,
        "read": None,
    }


def test_another_servers_report_has_no_such_phases(cluster: FakeCluster) -> None:
    found = cold_start(cluster, SETTINGS)
    assert found
    assert len(table(found)) == 7
    assert document(found)["server"] == ()


def test_a_server_that_was_started_again_has_no_start(cluster: FakeCluster) -> None:
    """Between the pod's node and the log's first line lies the life of the container before."""
    status = cluster.lists[PODS][0]["status"]
    status["containerStatuses"][0]["restartCount"] = 2
    found = cold_start(cluster, SETTINGS)
    assert found
    assert (found.start, found.restarts) == (None, 2)
    assert found.load == pytest.approx(59 - 31.6)
    lines = table(found)
    assert lines[3].split() == ["start", "not", "known"]
    assert "was started again, 2 times" in lines[-1]
    status["containerStatuses"][0]["restartCount"] = 0
    found = cold_start(cluster, SETTINGS)
    assert found
    assert found.start is not None
    assert not any("started again" in line for line in table(found))


PROBES = {
    "startupProbe": {"periodSeconds": 2, "failureThreshold": 30},
    "readinessProbe": {"periodSeconds": 5},
}
GPU_LOG = (
    LOG
    + "2026-01-01T00:00:41.6Z INFO 01-01 00:00:41 [api_utils.py:273] non-default args: {}\n"
    + "2026-01-01T00:00:45Z INFO 01-01 00:00:45 [core.py:113] Initializing a V1 LLM engine (v0.23.0) "
    "with config: model='/mnt/models', device_config=cuda\n"
    + "2026-01-01T00:00:58Z INFO:     Application startup complete.\n"
)


@pytest.mark.parametrize(
    ("log", "probes", "ready", "known"),
    [
        (GPU_LOG, PROBES, "00:01:02", True),
        (GPU_LOG, PROBES, "00:02:00", False),  # ready was logged a minute before
        (GPU_LOG, PROBES, "05:00:00", False),
        (LOG, PROBES, "00:01:50", True),  # within what the startup probe allows from 00:00:31 on
        (LOG, PROBES, "00:02:30", False),
        (LOG, {}, "05:00:00", True),  # nothing tells
    ],
)
def test_a_pod_that_was_unready_for_a_while_has_no_load(
    cluster: FakeCluster, log: str, probes: dict[str, Any], ready: str, known: bool
) -> None:
    pod = cluster.lists[PODS][0]
    pod["status"]["conditions"][1]["lastTransitionTime"] = f"2026-01-01T{ready}Z"
    pod["spec"]["containers"][0] |= probes
    cluster.texts["kserve-container"] = log
    found = cold_start(cluster, SETTINGS)
    assert found
    assert (found.load is not None, found.unready) == (known, not known)
    assert any("load: the pod was not ready for a while" in line for line in table(found)) != known


def test_a_log_with_progress_bars_and_a_broken_beginning_is_read(cluster: FakeCluster) -> None:
    cluster.texts["kserve-container"] = (
        "of a line that was rotated away\n\n"
        + LOG
        + "2026-01-01T00:00:42Z Loading:  0%|\rLoading: 50%|\rLoading: 100%| INFO 01-01 00:00:42 [x.py:1] "
        "non-default args: {}\r\n"
        + "2026-01-01T00:00:50Z x\rINFO 01-01 00:00:01 [core.py:113] Initializing a V1 LLM engine (v0.23.0) "
        "with config: device_config=cuda\n"
    )
    found = cold_start(cluster, SETTINGS)
    assert found
    assert found.link == 0.1
    assert [(one.name, round(one.seconds, 1)) for one in found.server] == [("imports", 10.4), ("engine", 8.0)]


def test_what_is_forgotten_is_not_made_up(cluster: FakeCluster) -> None:
    cluster.lists[EVENTS] = []
    cluster.texts.clear()
    found = cold_start(cluster, SETTINGS)
    assert found
    assert (found.pull, found.link) == (None, None)
    assert found.start == 28.0  # the pull is in it
    assert found.load == 28.0
    assert table(found)[2].split() == ["pull", "not", "known"]


def test_no_ready_pod_has_no_phases(cluster: FakeCluster) -> None:
    cluster.lists[PODS][0]["status"]["conditions"][1]["status"] = "False"
    assert cold_start(cluster, SETTINGS) is None
    cluster.refusals[PODS] = ClusterError(403, "forbidden")
    with pytest.raises(ClusterError):
        cold_start(cluster, SETTINGS)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m2.5s", 62.5), ("850ms", 0.85), ("2h0m1s", 7201), ("12µs", 12e-6), ("3s", 3)],
)
def test_go_writes_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


def test_only_the_modelcars_own_pull_counts() -> None:
    other = event('Successfully pulled image "vllm@sha256:b" in 60s (60s including waiting)')
    assert pulled([other, PULLED], IMAGE) == (25.25, 4124027)
    assert pulled([event(f'Container image "{IMAGE}" already present on machine')], IMAGE) == (0.0, None)
    assert pulled([other], IMAGE) == (None, None)


def test_a_log_that_was_cut_says_nothing() -> None:
    assert log_times("2026-01-01T00:00:40Z INFO loading\n") is None


@pytest.mark.parametrize("text", ["{bad", "[]", '"x"', "1", "[" * 100_000])
def test_caches_are_not_seen_in_a_config_map_of_another_kind(cluster: FakeCluster, text: str) -> None:
    config = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
    cluster.found[config] = {"data": {"localModel": text}}
    [line] = caches(cluster, SETTINGS)
    assert "inferenceservice-config, or a cache, is not as KServe writes it" in line


def test_a_condition_without_a_time_tells_nothing(cluster: FakeCluster) -> None:
    [pod] = cluster.lists[PODS]
    other = {"type": "cloud.google.com/load-balancer-neg-ready", "status": "True", "lastTransitionTime": None}
    pod["status"]["conditions"] += [other, {"type": "own", "status": "True"}]
    pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = None
    found = cold_start(cluster, SETTINGS)
    assert found
    assert found.total == pytest.approx(59)


def test_a_cache_that_cannot_hold_a_modelcar_is_explained(cluster: FakeCluster) -> None:
    config = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
    cluster.found[config] = {"data": {"localModel": '{"enabled": false}'}}
    assert caches(cluster, SETTINGS) == []
    cluster.found[config] = {"data": {"localModel": '{"enabled": true}'}}
    sources = {"ours": f"oci://{IMAGE}", "other": "hf://org/model"}
    cluster.lists["/apis/serving.kserve.io/v1alpha1/localmodelcaches"] = [
        {"metadata": {"name": name}, "spec": {"sourceModelUri": uri}} for name, uri in sources.items()
    ]
    first, *more = caches(cluster, SETTINGS)
    assert "does not take oci://" in first
    assert "modelcar:prePull" in first
    assert more == ["LocalModelCache ours names an oci:// URI: it is never filled"]


def test_one_right_that_is_missing_costs_what_it_is_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operations, "stack_of", lambda *_: Stack((SETTINGS,)))
    monkeypatch.setattr(operations, "cluster_of", lambda *_: cluster)
    config = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
    cluster.refusals[config] = ClusterError(403, "configmaps is forbidden")
    assert operations.main(["coldstart", "--stack", "dev"]) == 0
    out = capsys.readouterr().out
    assert "  pull           25.2 s\n" in out
    assert out.endswith("\nwhether LocalModelCache is on is not seen: configmaps is forbidden\n")
    cluster.refusals[EVENTS] = ClusterError(403, "events is forbidden")

    def refused(*_: Any, **__: Any) -> str:
        raise ClusterError(403, "pods/log is forbidden")

    monkeypatch.setattr(cluster, "logs", refused)
    assert operations.main(["coldstart", "--stack", "dev"]) == 0
    out = capsys.readouterr().out
    assert "  pull      not known\n" in out
    assert "  load           28.0 s\n" in out
    unseen = ["events of the pod are not seen: events is forbidden"]
    unseen.append("the server's log is not seen: pods/log is forbidden")
    assert "\n".join(unseen) in out
    assert operations.main(["coldstart", "--stack", "dev", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unseen"] == unseen


# --- larger models


def test_a_line_is_fitted_with_its_error() -> None:
    exact = fit([1, 2, 4], [3, 5, 9])
    assert [exact.fixed, exact.slope, exact.error] == pytest.approx([1, 2, 0], abs=1e-9)
    # Worked by hand: residuals 1/6, -1/3, 1/6; s² = 1/6; spread 2.
    noisy = fit([1, 2, 3], [1, 2, 4])
    assert noisy.slope == pytest.approx(1.5)
    assert noisy.error == pytest.approx((1 / 6 / 2) ** 0.5)
    with pytest.raises(ValueError, match="three points"):
        fit([1, 2], [1, 2])


def test_the_slowest_of_processor_network_and_disk_counts() -> None:
    pull, load = Fit(1.0, 2.0, 0.1), Fit(0.0, 0.5, 0.0)
    fast = Machine("fast", write=10, read=10, network=10)
    assert forecast(10, pull, load, fast)[0].seconds == 21  # the processor: 1 + 2 * 10
    assert forecast(10, pull, load, fast)[0].error == 2  # two standard errors of the slope, times 10 GB
    slow_disk = Machine("disk", write=0.5, read=0.25, network=10)
    written, read = forecast(10, pull, load, slow_disk)
    assert (written.seconds, read.seconds) == (41, 40)  # written twice: 1 + 2 * 10 / 0.5; read once
    slow_network = Machine("network", write=10, read=10, network=0.1)
    assert forecast(10, pull, load, slow_network)[0].seconds == 101


def test_larger_models_get_larger_and_so_faster_disks() -> None:
    rates = {
        size: {machine.disk.split(",")[0]: machine.write for machine in machines(size)} for size in (15, 140)
    }
    assert rates[15]["pd-balanced"] == pytest.approx((140 + 0.28 * 200e9 / 2**30) * 2**20 / 1e9)
    assert rates[15]["pd-balanced"] < rates[140]["pd-balanced"] < rates[140]["pd-ssd"]


def test_the_report_has_a_row_and_a_bar_for_each_start() -> None:
    runs = [Run(size, "first", "reader", pull=size * 10, load=size) for size in (1.0, 2.0, 4.0)]
    runs += [Run(0.0, "warm", "vllm", load=20.0)]
    lines = list(report(runs))
    assert "| 4 GB | first | 0.00 | 40.00 | 0.00 | 0.00 | 0.00 | 4.00 | 0.00 | 0.00 | 44.00 |" in lines
    bars = {line.split()[0]: line for line in lines if line.rstrip().endswith(" s")}
    assert bars["4"].count("P") == 73  # of 80 columns for 44 seconds
    assert "fitted here: pull and unpack 0.00 + 10.00 (± 0.00) * GB s, load 0.00 + 1.00" in "\n".join(lines)
    assert [line.split(" | ")[0] for line in lines[-9:]] == ["| 15 GB"] * 3 + ["| 70 GB"] * 3 + [
        "| 140 GB"
    ] * 3


def test_two_sizes_give_no_forecast() -> None:
    assert "at least three sizes" in list(report([Run(1.0, "first", "reader", pull=1.0)]))[-1]


def test_as_json_standard_output_has_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: Any, **__: Any) -> list[Run]:
        up.indented("model server: transformers")
        return [Run(0.5, "first", "reader")]

    monkeypatch.setattr(command_line, "collect", lambda say: say("kubelet downloaded"))
    monkeypatch.setattr("local.cold_start.measure", measure)
    monkeypatch.setattr("sys.argv", ["local", "coldstart", "--json", "--reader-only"])
    assert command_line.main() == 0
    out, errors = capsys.readouterr()
    assert [run["gb"] for run in json.loads(out)] == [0.5]
    assert errors == "   kubelet downloaded\n   model server: transformers\n"
