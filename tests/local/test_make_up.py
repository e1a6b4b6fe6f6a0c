"""The main job: `make up` in a fresh checkout, twice, and `make down` without a trace."""

from __future__ import annotations

import errno
import json
import re
import socket
import subprocess
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from local import instance, pki
from local.ask import PROMPT
from local.cgroups import ROOT as CGROUPS
from modelcar.demo_model import TEXT
from tests.conftest import Checkout, Platform
from tests.local.conftest import until


def summary(checkout: Checkout) -> dict[str, Any]:
    """Return what the last `make up` wrote down."""
    found: dict[str, Any] = json.loads((checkout.folder / ".local/local/summary.json").read_text())
    return found


def pod_of(evidence: dict[str, Any]) -> dict[str, Any]:
    """Return the pod that served the only model."""
    [model] = evidence["models"]
    found: dict[str, Any] = model["pod"]
    return found


@pytest.fixture(scope="module")
def served(platform: Platform) -> Platform:
    """Run `make up` once for the module."""
    platform.checkout.make("up")
    return platform


def test_a_completion_comes_from_the_pinned_image(served: Platform) -> None:
    evidence = summary(served.checkout)
    outputs, pod = evidence["outputs"], pod_of(evidence)
    assert evidence["models"][0]["answer"]["text"] == TEXT
    assert re.fullmatch(r"oci://\S+@sha256:[0-9a-f]{64}", outputs["storageUri"])
    assert list(pod["init_containers"]) == ["modelcar-init"]
    image = outputs["storageUri"].removeprefix("oci://")
    assert pod["init_containers"]["modelcar-init"] == image
    assert pod["sidecars"] == {"modelcar": image}
    assert pod["shares_processes"] is True
    assert pod["user"] == 1010
    assert pod["environment"]["HF_HUB_OFFLINE"] == "1"
    assert pod["environment"]["TRANSFORMERS_OFFLINE"] == "1"


def test_the_server_speaks_openai(served: Platform) -> None:
    evidence = summary(served.checkout)
    url = f"http://{pod_of(evidence)['address']}:{pod_of(evidence)['port']}"
    name = evidence["outputs"]["servedModelName"]
    body = {"model": name, "prompt": PROMPT, "max_tokens": 64, "temperature": 0}
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as pod:
        assert pod.get("/health").status_code == 200
        assert [model["id"] for model in pod.get("/v1/models").json()["data"]] == [name]
        first = pod.post("/v1/completions", json=body).json()
        assert first["choices"][0]["text"] == evidence["models"][0]["answer"]["text"], (
            "greedy decoding repeats itself"
        )
        unknown = pod.post("/v1/completions", json={**body, "model": "other"})
        assert unknown.status_code == 404


def test_the_pod_reads_the_weights_that_lie_on_disk(served: Platform) -> None:
    evidence = summary(served.checkout)
    listed = served.kubectl(
        *("-n", evidence["outputs"]["namespace"], "exec", pod_of(evidence)["name"], "-c", "kserve-container"),
        *("--", "sh", "-c", "cd /mnt/models/ && busybox sha256sum model.safetensors config.json"),
    )
    folder = served.checkout.folder / "modelcar/data/tiny-qwen2"
    on_disk = subprocess.run(
        ["sha256sum", "model.safetensors", "config.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listed == on_disk


def test_the_pod_cannot_reach_a_hub(served: Platform) -> None:
    evidence = summary(served.checkout)
    script = """
import socket
for attempt in (lambda: socket.create_connection(("198.51.100.1", 443), 3),
                lambda: socket.getaddrinfo("huggingface.co", 443)):
    try:
        print("reached", attempt())
    except OSError as error:
        print(type(error).__name__, error.errno)
"""
    said = served.kubectl(
        *("-n", evidence["outputs"]["namespace"], "exec", pod_of(evidence)["name"], "-c", "kserve-container"),
        *("--", served.settings["serverCommand"][0], "-c", script),
    )
    assert said.splitlines() == [f"OSError {errno.ENETUNREACH}", f"gaierror {socket.EAI_AGAIN}"]


def test_a_second_make_up_changes_nothing_and_is_quick(served: Platform) -> None:
    before = summary(served.checkout)
    started = time.monotonic()
    output = served.checkout.make("up").stdout
    seconds = time.monotonic() - started
    assert "unchanged" in output
    assert not re.search(r"\d+ (created|updated|replaced|deleted)", output)
    assert pod_of(summary(served.checkout))["name"] == pod_of(before)["name"], "the pod was left alone"
    assert seconds < 60, "8 s on two quiet processors"


def test_kubectl_keeps_what_it_knows_of_a_cluster_with_that_clusters_data(served: Platform) -> None:
    served.kubectl("get", "inferenceservices", "-A")
    kept = served.checkout.folder / ".local/local/kubectl/discovery"
    kinds = [path.read_text() for path in kept.rglob("serverresources.json")]
    assert any("inferenceservices" in text for text in kinds), "the next cluster at this address has others"


def test_status_shows_every_process(served: Platform) -> None:
    shown = served.checkout.make("status").stdout
    for name in ("registry", "buildkitd", "etcd", "kube-apiserver", "kubelet", "containerd", "kserve"):
        assert re.search(rf"^{name}\s+ready\s+\d+", shown, re.MULTILINE), shown


def test_a_platform_on_the_same_link_is_refused_and_harms_nobody(served: Platform, tmp_path: Path) -> None:
    own = served.checkout.folder / ".local" / "local" / "slot"
    state = tmp_path / "other"
    (state / "local").mkdir(parents=True)
    (state / "local" / "slot").write_text(own.read_text())
    refused = served.checkout.make("platform", check=False, MODELCAR_STATE=str(state))
    assert refused.returncode
    assert f"in use by the platform of {own.parent}" in refused.stderr
    assert "make clean" in refused.stderr
    served.checkout.make("down", MODELCAR_STATE=str(state))
    assert "modelcar" in served.kubectl("get", "nodes"), "this platform is still there"


def traces(folder: Path, link: str) -> dict[str, list[str]]:
    """Return what a platform of this checkout could leave: processes, mounts, links, routes, cgroups.

    Cgroups do not say whose they are: beside another platform they are not looked at.
    """

    def lines(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    links = [path.name for path in Path("/sys/class/net").glob("modelcar*")]
    own = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    running = [process.info for process in psutil.process_iter(["pid", "cmdline"])]
    return {
        "processes": [
            " ".join(one["cmdline"])
            for one in running
            if one["pid"] not in own and str(folder) in " ".join(one["cmdline"] or [])
        ],
        "mounts": [line for line in lines("mount") if str(folder) in line],
        "links": [name for name in links if name == link],
        "routes": [line for line in lines("ip", "route") if link in line.split()],
        "cgroups": [str(path) for path in CGROUPS.glob("**/k8s.io")] if {*links} <= {link} else [],
    }


def link_of(checkout: Checkout) -> str:
    return f"modelcar{(checkout.folder / '.local/local/slot').read_text().strip()}"


def leaves_nothing(checkout: Checkout) -> None:
    """Stop the platform: nothing of it is left, as soon as the kernel has done with its last process."""
    left = partial(traces, checkout.folder, link_of(checkout))
    checkout.make("down")
    until(lambda: not any(left().values()), 10, lambda: str(left()))


def test_down_leaves_nothing_and_up_brings_the_model_back(served: Platform) -> None:
    checkout = served.checkout
    before = summary(checkout)["outputs"]["modelDigest"]
    supervisor = int((checkout.folder / ".local/local/pids/supervisor.pid").read_text())
    running = traces(checkout.folder, link_of(checkout))
    assert all(running[what] for what in ("processes", "links", "routes")), "there is what to look for"
    leaves_nothing(checkout)
    assert not Path(f"/proc/{supervisor}").exists()
    checkout.make("up")
    assert summary(checkout)["outputs"]["modelDigest"] == before


@pytest.mark.extended
def test_a_platform_of_a_clock_that_was_ahead_comes_back(
    served: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificates do not hold yet, after the clock was put right; so it is with those of last year."""
    checkout = served.checkout
    before = summary(checkout)["outputs"]["modelDigest"]
    checkout.make("down")
    monkeypatch.setenv("MODELCAR_STATE", str(checkout.folder / ".local"))
    made = instance.load("local")
    (made.pki / "complete").unlink()
    monkeypatch.setattr(pki, "BACKDATED", -timedelta(days=2))
    pki.write_pki(made)
    ahead = made.kubeconfig.read_bytes()
    checkout.make("up")
    assert made.kubeconfig.read_bytes() != ahead, "nobody could have answered with these"
    evidence = summary(checkout)
    assert evidence["outputs"]["modelDigest"] == before
    assert evidence["models"][0]["answer"]["text"]


def test_down_after_a_crash_leaves_nothing(served: Platform) -> None:
    checkout = served.checkout
    supervisor = int((checkout.folder / ".local/local/pids/supervisor.pid").read_text())
    subprocess.run(["kill", "-9", str(supervisor)], check=True)
    leaves_nothing(checkout)
    checkout.make("platform")
