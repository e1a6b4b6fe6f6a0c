"""Behind a proxy: whatever concerns the embedded platform does not take it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from local import ask, direct, platform, stack
from local.gpu_report import bare, load, steps
from local.instance import Instance
from local.oci_push import push_layout
from local.supervisor import check
from local.tools import Toolbox
from modelcar.manifest import sha256_digest
from modelcar.proxies import is_direct
from operations.kernel_reading import _ASK
from tests import registry_server
from tests.conftest import PROJECT
from tests.proxy_server import Proxy, elsewhere

pytestmark = pytest.mark.usefixtures("no_proxies")


def test_the_tests_ask_their_own_servers_past_the_proxy(proxy: Proxy) -> None:
    one = "tests/unit/test_modelcar_hub.py::test_a_revision_is_resolved_to_its_commit"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", one],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], **proxy.variables()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert not [line for line in proxy.asked if "127.0.0.1" in line]


def instance_in(folder: Path) -> Instance:
    return Instance("local", 5, folder)


def test_the_platform_s_registry_gets_its_image_past_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry, tmp_path: Path
) -> None:
    proxy.stand_before(monkeypatch)
    blobs = {name: sha256_digest(text) for name, text in (("config", b"{}"), ("layer", b"x"))}
    manifest = json.dumps(
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"digest": blobs["config"], "size": 2},
            "layers": [{"digest": blobs["layer"], "size": 1}],
        }
    ).encode()
    for content in (b"{}", b"x", manifest):
        path = tmp_path / "blobs" / sha256_digest(content).replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    index = {"manifests": [{"digest": sha256_digest(manifest)}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert push_layout(tmp_path, elsewhere(plain_registry.host), "tool") in plain_registry.manifests
    assert proxy.asked == []


def test_its_model_servers_are_asked_past_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    text = {"choices": [{"text": "a"}], "model": "m"}
    plain_registry.instead = lambda method, path: (200, {}, json.dumps(text).encode())
    proxy.stand_before(monkeypatch)
    url = f"http://{elsewhere(plain_registry.host)}"
    assert ask.is_healthy(url)
    assert ask.ask(url, "m").text == "a"
    assert load.answers(load.Server(url, "m", full=False), 1)
    assert vars(steps)["is_healthy"](url), "what the report calls a pod healthy by"
    assert bare._answers(int(url.rpartition(":")[2]))
    assert proxy.asked == []


def test_the_supervisor_looks_past_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    proxy.stand_before(monkeypatch)
    assert check({"url": f"http://{elsewhere(plain_registry.host)}/v2/"})
    assert check({"url": f"http://{plain_registry.host}/v2/"})
    assert proxy.asked == []


def test_a_server_in_a_pod_with_a_proxy_is_warmed_up(
    proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    text = {"data": [{"max_model_len": 64}]}
    plain_registry.instead = lambda method, path: (200, {}, json.dumps(text).encode())
    port = plain_registry.host.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-c", _ASK, port, "m"],
        env={**os.environ, **proxy.variables()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["asked"] > 0, done.stdout + done.stderr
    assert proxy.asked == []


PLATFORM = ("localhost", "127.0.0.1", "::1", "198.18.5.2", "198.18.5.1", "10.244.5.0/24", "10.96.0.0/16")


def test_what_is_started_for_the_platform_knows_its_addresses(tmp_path: Path) -> None:
    instance = instance_in(tmp_path)
    found = direct.variables(instance, {"HTTPS_PROXY": "http://proxy.example"})
    assert found["NO_PROXY"] == found["no_proxy"] == ",".join((*PLATFORM, ".svc", ".cluster.local"))
    user = {"http_proxy": "p", "NO_PROXY": "corp.example, 10.9.0.0/16", "no_proxy": "intra.example"}
    found = direct.variables(instance, user)
    assert found["no_proxy"].startswith("corp.example,10.9.0.0/16,intra.example,localhost,")
    assert direct.variables(instance, {**user, **found}) == found, "once is enough"
    assert direct.variables(instance, {**user, "no_proxy": "*"}) == {"NO_PROXY": "*", "no_proxy": "*"}
    assert direct.variables(instance, {"PATH": "x"}) == {}, "without a proxy nothing is set"
    assert direct.variables(None, {"https_proxy": "p"})["no_proxy"] == "localhost,127.0.0.1,::1"
    for url in (f"http://{instance.registry}", instance.api_server, "http://10.244.5.7:8080"):
        host, port = httpx.URL(url).host, httpx.URL(url).port or 443
        assert is_direct(host, port, direct.variables(instance, user)["NO_PROXY"])


def test_kubectl_and_pulumi_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: Proxy) -> None:
    proxy.stand_before(monkeypatch, "corp.example")
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$NO_PROXY $no_proxy"\n')
    program.chmod(0o755)
    tools = Toolbox({"kubectl": program, "pulumi": program}, str(tmp_path), tmp_path)
    instance = instance_in(tmp_path)
    wanted = f"corp.example,{','.join(PLATFORM)},.svc,.cluster.local"
    assert platform.kubectl(instance, tools, "get") == f"{wanted} {wanted}\n"
    assert stack.pulumi(instance, tools, "up", capture=True) == f"{wanted} {wanted}\n"
    direct.reach(instance)
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == wanted


def test_a_cluster_of_the_user_s_own_gets_none_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    tools = Toolbox({}, str(tmp_path), tmp_path, embedded=False)
    assert stack.environment(instance_in(tmp_path), tools)["no_proxy"] == "localhost,127.0.0.1,::1"
