"""Behind a proxy: registries, downloads and clusters that are reached by it, and those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from components.cluster.access import Cluster, ClusterError
from components.config.cluster import DestinationSettings
from modelcar.base import _download
from modelcar.errors import InputError
from modelcar.proxies import is_direct, proxy_for
from modelcar.registry import Registry, Target
from tests import made_images, registry_server
from tests.proxy_server import Proxy, elsewhere


@pytest.fixture(autouse=True)
def none_of_this_machine(no_proxies: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


# --- NO_PROXY ---------------------------------------------------------------------------------------

#: As golang.org/x/net/http/httpproxy takes them: entries, host, port, and whether that is reached directly.
CASES = (
    ("", "registry.example", 443, False),
    ("registry.example", "registry.example", 443, True),
    ("REGISTRY.example", "registry.example", 443, True),
    ("registry.example", "eu.registry.example", 443, True),
    ("registry.example", "myregistry.example", 443, False),
    (".registry.example", "eu.registry.example", 443, True),
    (".registry.example", "registry.example", 443, False),
    ("*.registry.example", "eu.registry.example", 443, True),
    ("other.example, registry.example", "registry.example", 443, True),
    ("registry.example:5000", "registry.example", 5000, True),
    ("registry.example:5000", "registry.example", 443, False),
    ("registry.example:443", "registry.example", 443, True),
    ("*", "registry.example", 443, True),
    ("other.example,*", "10.1.2.3", 443, True),
    ("10.1.2.3", "10.1.2.3", 5000, True),
    ("10.1.2.3", "10.1.2.30", 5000, False),
    ("10.1.2.3:5000", "10.1.2.3", 5000, True),
    ("10.1.2.3:5000", "10.1.2.3", 443, False),
    ("192.0.2.0/24, 10.0.0.0/8", "10.1.2.3", 443, True),
    ("10.0.0.0/8", "11.1.2.3", 443, False),
    ("10.1.0.0/8", "10.9.9.9", 443, True),
    ("10.0.0.0/8", "registry.example", 443, False),
    ("10.0.0.0/nonsense", "10.1.2.3", 443, False),
    ("fd00::/8", "fd00::5", 443, True),
    ("fd00::5", "fd00::5", 443, True),
    ("[fd00::5]:5000", "fd00::5", 5000, True),
    ("[fd00::5]:5000", "fd00::5", 443, False),
    ("10.0.0.0/8", "fd00::5", 443, False),
    ("", "localhost", 5001, True),
    ("", "127.0.0.9", 5001, True),
    ("", "::1", 5001, True),
    (":5000,,", "registry.example", 5000, False),
)


@pytest.mark.parametrize(("entries", "host", "port", "direct_"), CASES)
def test_no_proxy_means_what_it_means_for_docker(entries: str, host: str, port: int, direct_: bool) -> None:
    assert is_direct(host, port, entries) is direct_


def test_the_scheme_chooses_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("https://registry.example") is None
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert proxy_for("https://registry.example") == "http://proxy.example:3128"
    assert proxy_for("http://registry.example") is None
    monkeypatch.setenv("all_proxy", "http://other.example:3128")
    assert proxy_for("http://registry.example") == "http://other.example:3128"
    monkeypatch.setenv("no_proxy", "registry.example:443, [fd00::5]")
    assert proxy_for("https://registry.example/v2/") is None, "the port that the scheme stands for counts"
    assert proxy_for("https://[fd00::5]:5000/v2/") is None


# --- a user's registry ------------------------------------------------------------------------------


def asked(host: str) -> list[str]:
    with Registry(Target(f"{host}/models", "m", insecure=True)) as registry:
        return [tag for _, tags in registry.tagged().values() for tag in tags]


@pytest.mark.parametrize("named", ["0.0.0.0", "0.0.0.9/8", "10.0.0.0/8, 0.0.0.9/8", "*"])
def test_a_registry_that_no_proxy_names_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry, named: str
) -> None:
    made_images.image([]).push(Target(f"{plain_registry.host}/models", "m", insecure=True), "v1")
    proxy.stand_before(monkeypatch, named)
    assert asked(elsewhere(plain_registry.host)) == ["v1"]
    assert proxy.asked == []


def test_a_registry_s_tokens_come_from_where_no_proxy_says(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, tmp_path: Path
) -> None:
    with registry_server.serve("Bearer") as server:
        proxy.stand_before(monkeypatch, "0.0.0.9/8")
        server.host = elsewhere(server.host)
        with pytest.raises(InputError, match="the registry answers 401"):
            asked(server.host)
        assert any("GET /token" in request for request in server.requests)
    assert proxy.asked == []


def test_every_other_registry_is_reached_by_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    proxy.stand_before(monkeypatch, "10.0.0.0/8,0.0.0.0:1")
    with pytest.raises(InputError, match="the registry answers 502"):
        asked(elsewhere(plain_registry.host))
    assert proxy.asked == [f"GET http://{elsewhere(plain_registry.host)}/v2/models/m/tags/list"]
    assert plain_registry.requests == []


def test_this_machine_s_registry_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    proxy.stand_before(monkeypatch)
    assert asked(plain_registry.host) == []
    assert asked(plain_registry.host.replace("127.0.0.1", "localhost")) == []
    assert proxy.asked == []


def test_where_a_redirect_leads_counts_for_itself(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    place = f"http://{elsewhere(plain_registry.host)}/v2/models/m/tags/list"
    plain_registry.instead = lambda method, path: (307, {"Location": place}, b"")
    proxy.stand_before(monkeypatch)
    with pytest.raises(InputError, match="the registry answers 502"):
        asked(plain_registry.host)
    assert proxy.asked == [f"GET {place}"]


def test_a_proxy_of_no_known_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "gopher://user:secret@proxy.example")
    with pytest.raises(InputError, match=r"proxy that the environment has for registry\.example") as caught:
        asked("registry.example")
    assert "secret" not in str(caught.value)


def test_a_download_is_reached_as_no_proxy_says(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    proxy.stand_before(monkeypatch, "0.0.0.9/8")
    assert _download([f"http://{elsewhere(plain_registry.host)}/v2/"]) == b""
    assert proxy.asked == []


# --- a user's cluster -------------------------------------------------------------------------------


def cluster_at(server: str, **more: str) -> Cluster:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, **more}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return Cluster.of(DestinationSettings(kubeconfig=yaml.safe_dump(document)))


def ask_and_execute(cluster: Cluster) -> None:
    """Ask it twice: by a request, and by a WebSocket, which another library makes."""
    cluster.get("/version")
    with pytest.raises(ClusterError, match="exec in p"):
        cluster.execute("n", "p", "c", ["true"])


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("127.0.0.1", ""),
        ("localhost", "registry.example"),
        ("0.0.0.0", "10.0.0.0/8, 0.0.0.9/8"),
        ("0.0.0.0", "0.0.0.0"),
    ],
)
def test_an_api_server_is_reached_as_kubectl_reaches_it(
    monkeypatch: pytest.MonkeyPatch,
    proxy: Proxy,
    plain_registry: registry_server.Registry,
    host: str,
    named: str,
) -> None:
    proxy.stand_before(monkeypatch, named)
    ask_and_execute(cluster_at(f"http://{plain_registry.host.replace('127.0.0.1', host)}"))
    assert proxy.asked == []
    assert [request.partition("?")[0] for request in plain_registry.requests] == [
        "GET /version",
        "GET /api/v1/namespaces/n/pods/p/exec",
    ]


def test_other_api_servers_are_behind_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    proxy.stand_before(monkeypatch, "10.0.0.0/8")
    with pytest.raises(ClusterError):
        cluster_at(f"http://{elsewhere(plain_registry.host)}").get("/version")
    assert len(proxy.asked) >= 1
    assert plain_registry.requests == []


def test_a_kubeconfig_s_own_proxy_stays(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, plain_registry: registry_server.Registry
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ClusterError):
        cluster_at(f"http://{plain_registry.host}", **{"proxy-url": proxy.url}).get("/version")
    assert len(proxy.asked) >= 1
