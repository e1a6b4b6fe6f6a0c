"""Registry and API server are connected to before a build, each told by its setting where it is not there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.cluster.access import Cluster
from components.cluster.kubeconfig import current_context
from components.config import disk
from components.config.cluster import DestinationSettings
from components.config.models import load_stack
from components.config.settings import Settings
from components.stack import delivery, reachability
from components.stack.preflight import CheckedStack
from modelcar.errors import InputError, Problem
from tests.unit.mocked_engine import Engine
from tests.unit.test_google_settings import PROJECT, as_texts, dev

DIGEST = "sha256:" + "a" * 64


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and nothing in the environment that changes what is connected to."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


class Listener:
    """A server that accepts connections and says nothing."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def connections(self) -> int:
        """Count the connections since the last call."""
        count = 0
        while True:
            try:
                self.socket.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def listeners() -> Iterator[tuple[Listener, Listener]]:
    both = Listener(), Listener()
    yield both
    for listener in both:
        listener.socket.close()


@pytest.fixture
def registry(listeners: tuple[Listener, Listener]) -> Listener:
    return listeners[0]


@pytest.fixture
def api_server(listeners: tuple[Listener, Listener]) -> Listener:
    return listeners[1]


@pytest.fixture
def closed() -> Iterator[str]:
    """An address that nobody listens at: the port is bound, so that no one else gets it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def stack(registry: str, **changes: Any) -> Settings:
    image = f"busybox@{DIGEST}"
    values = {"registry": f"{registry}/models", "serverImage": image, "model": "tiny", "namespace": "models"}
    return Settings.model_validate({**values, **changes})


def kubeconfig(*servers: str, current: str = "context-0", **cluster: str) -> str:
    """Return a kubeconfig with one context for each server."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": current,
            "contexts": [
                {"name": f"context-{number}", "context": {"cluster": f"cluster-{number}", "user": "u"}}
                for number in range(len(servers))
            ],
            "clusters": [
                {"name": f"cluster-{number}", "cluster": {"server": f"https://{server}", **cluster}}
                for number, server in enumerate(servers)
            ],
        }
    )


def problems(settings: Settings, default: str | None = "") -> list[Problem]:
    """Return what is wrong, in the order in which it is told."""
    with pytest.raises(InputError) as caught:
        reachability.require(settings, default)
    return list(caught.value.problems)


# --- reachable or not -------------------------------------------------------------------------------


def test_both_are_connected_to_once(registry: Listener, api_server: Listener) -> None:
    reachability.require(stack(registry.address, kubeconfig=kubeconfig(api_server.address)), "")
    assert (registry.connections(), api_server.connections()) == (1, 1)


def test_what_git_delivers_needs_no_api_server(registry: Listener, api_server: Listener) -> None:
    where = kubeconfig(api_server.address)
    by_git = stack(registry.address, kubeconfig=where, delivery="gitops", gitops={"folder": "x"})
    assert reachability.check(by_git, required=True) is False
    assert (registry.connections(), api_server.connections()) == (1, 0)


def test_both_problems_are_told_at_once(closed: str) -> None:
    first, second = problems(stack(closed, kubeconfig=kubeconfig(closed)))
    assert first.key == "modelcar:registry"
    assert first.value == f"{closed}/models: 127.0.0.1 cannot be reached (Connection refused)"
    assert "accepts connections" in first.allowed
    assert "pulumi config set modelcar:checkReachable false" in first.fix
    assert second.key == "modelcar:kubeconfig"
    assert second.value == f"the API server https://{closed} cannot be reached (Connection refused)"
    assert "accepts connections" in second.allowed
    assert "make platform" in second.fix


def test_each_is_told_alone(registry: Listener, api_server: Listener, closed: str) -> None:
    [problem] = problems(stack(closed, kubeconfig=kubeconfig(api_server.address)))
    assert problem.key == "modelcar:registry"
    assert api_server.connections() == 1
    [problem] = problems(stack(registry.address, kubeconfig=kubeconfig(closed)))
    assert problem.key == "modelcar:kubeconfig"
    assert registry.connections() == 1


def test_a_silent_host_is_given_up(monkeypatch: pytest.MonkeyPatch, registry: Listener) -> None:
    monkeypatch.setattr(reachability, "TIMEOUT", 0.05)

    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        assert timeout == 0.05
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    [problem] = problems(stack(registry.address))
    assert "127.0.0.1 cannot be reached (timed out)" in problem.value


def test_a_host_without_an_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(address: tuple[str, int], timeout: float) -> socket.socket:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", nowhere)
    [problem] = problems(stack("registry.invalid"))
    assert (
        problem.value
        == "registry.invalid/models: registry.invalid cannot be reached (Name or service not known)"
    )


def connected(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> list[tuple[str, int]]:
    """Return what would be connected to, without a network."""
    found: list[tuple[str, int]] = []

    def note(address: tuple[str, int], timeout: float) -> socket.socket:
        found.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", note)
    reachability.require(settings, "")
    return found


@pytest.mark.parametrize(
    ("place", "insecure", "address"),
    [
        ("europe-docker.pkg.dev/project", False, ("europe-docker.pkg.dev", 443)),
        ("registry.local", True, ("registry.local", 80)),
        ("registry.local:5000", False, ("registry.local", 5000)),
        ("docker.io", False, ("registry-1.docker.io", 443)),
        ("index.docker.io", False, ("registry-1.docker.io", 443)),
    ],
)
def test_registry_is_where_its_name_says(
    monkeypatch: pytest.MonkeyPatch, place: str, insecure: bool, address: tuple[str, int]
) -> None:
    assert connected(monkeypatch, stack(place, registryInsecure=insecure)) == [address]


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("https://cluster.example", ("cluster.example", 443)),
        ("https://cluster.example:6443/path", ("cluster.example", 6443)),
        ("https://[::1]:6443", ("::1", 6443)),
        pytest.param("http://cluster.example", ("cluster.example", 80)),
    ],
)
def test_api_server_is_where_the_kubeconfig_says(
    monkeypatch: pytest.MonkeyPatch, server: str, address: tuple[str, int]
) -> None:
    text = kubeconfig("placeholder").replace("https://placeholder", server)
    assert connected(monkeypatch, stack("r.example", kubeconfig=text)) == [("r.example", 443), address]


# --- the context ------------------------------------------------------------------------------------


def test_context_of_the_setting_is_taken_and_else_the_current_one(
    registry: Listener, api_server: Listener, closed: str
) -> None:
    text = kubeconfig(closed, api_server.address)
    reachability.require(stack(registry.address, kubeconfig=text, kubeContext="context-1"), "")
    assert api_server.connections() == 1
    [problem] = problems(stack(registry.address, kubeconfig=text))
    assert problem.key == "modelcar:kubeconfig"
    [problem] = problems(stack(registry.address, kubeconfig=text, kubeContext="context-0"))
    assert problem.key == "modelcar:kubeContext"
    assert closed in problem.value


def test_unknown_context_lists_those_that_there_are(registry: Listener, api_server: Listener) -> None:
    text = kubeconfig(api_server.address, api_server.address)
    [problem] = problems(stack(registry.address, kubeconfig=text, kubeContext="contxt-1"))
    assert problem.key == "modelcar:kubeContext"
    assert problem.value == "there is no context 'contxt-1' in the kubeconfig"
    assert problem.allowed == "one of context-0, context-1"
    assert "choose one of these" in problem.fix
    assert api_server.connections() == 0


def test_unknown_current_context_is_told_of_the_kubeconfig(registry: Listener) -> None:
    [problem] = problems(stack(registry.address, kubeconfig=kubeconfig("h.example", current="gone")))
    assert problem.key == "modelcar:kubeconfig"
    assert "'gone'" in problem.value
    assert problem.allowed == "one of context-0"


def test_kubeconfig_without_contexts_is_told(registry: Listener) -> None:
    [problem] = problems(stack(registry.address, kubeconfig="apiVersion: v1\ncontexts: null\n"))
    assert problem.allowed == "one of the contexts of a kubeconfig, which has none"


def test_unknown_context_and_unreachable_registry_are_told_at_once(closed: str) -> None:
    found = problems(stack(closed, kubeconfig=kubeconfig("h.example"), kubeContext="x"))
    assert [problem.key for problem in found] == ["modelcar:registry", "modelcar:kubeContext"]


# --- where the kubeconfig is ------------------------------------------------------------------------


def test_kubeconfig_may_be_text_in_yaml_or_json_or_a_file(
    registry: Listener, api_server: Listener, home: Path
) -> None:
    text = kubeconfig(api_server.address)
    (home / "config").write_text(text)
    as_json = json.dumps(yaml.safe_load(text))
    assert "\n" not in as_json
    for setting in (text, as_json, f"  {as_json}", str(home / "config"), "~/config"):
        reachability.require(stack(registry.address, kubeconfig=setting), "")
        assert api_server.connections() == 1, setting


def test_default_is_the_first_file_of_kubeconfig_that_is_there(
    registry: Listener, api_server: Listener, home: Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "one").write_text(kubeconfig(api_server.address))
    (home / ".kube").mkdir()
    (home / ".kube" / "config").write_text(kubeconfig(closed))
    paths = os.pathsep.join(["", str(home / "missing"), str(home / "one")])
    reachability.require(stack(registry.address), paths)
    assert api_server.connections() == 1
    monkeypatch.setenv("KUBECONFIG", paths)
    reachability.require(stack(registry.address))
    assert api_server.connections() == 1


def test_default_of_the_default_is_in_the_home(registry: Listener, home: Path, closed: str) -> None:
    (home / ".kube").mkdir()
    (home / ".kube" / "config").write_text(kubeconfig(closed))
    [problem] = problems(stack(registry.address), None)
    assert closed in problem.value


def test_setting_wins_over_the_default(
    registry: Listener, api_server: Listener, home: Path, closed: str
) -> None:
    (home / "default").write_text(kubeconfig(closed))
    text = kubeconfig(api_server.address)
    reachability.require(stack(registry.address, kubeconfig=text), str(home / "default"))
    assert api_server.connections() == 1


def test_no_kubeconfig_at_all_is_no_problem(registry: Listener) -> None:
    reachability.require(stack(registry.address), "")
    reachability.require(stack(registry.address, kubeContext="any"), "")
    assert registry.connections() == 2


def test_context_may_be_in_any_file_of_kubeconfig(
    registry: Listener, api_server: Listener, home: Path, closed: str
) -> None:
    (home / "one").write_text(kubeconfig(closed))
    (home / "two").write_text(kubeconfig(api_server.address).replace("-0", "-of-two"))
    paths = os.pathsep.join([str(home / "one"), str(home / "two")])
    reachability.require(stack(registry.address, kubeContext="context-of-two"), paths)
    assert api_server.connections() == 1


def files(home: Path, **texts: str) -> str:
    """Write kubeconfigs, and return what KUBECONFIG says of them, in their order."""
    for name, text in texts.items():
        (home / name).write_text(text)
    return os.pathsep.join(str(home / name) for name in texts)


@pytest.mark.parametrize(
    "first",
    ["", "clusters: []\n", "current-context: ''\n", "current-context:\ncontexts:\n", "# nothing yet\n"],
)
def test_the_first_file_that_names_a_current_context_counts(
    registry: Listener,
    api_server: Listener,
    closed: str,
    home: Path,
    first: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file with clusters alone, or one that kubectl has just made, says nothing of it."""
    third = kubeconfig(closed).replace("-0", "-of-three")
    paths = files(home, one=first, two=kubeconfig(api_server.address), three=third)
    reachability.require(stack(registry.address), paths)
    assert api_server.connections() == 1
    monkeypatch.setenv("KUBECONFIG", paths)
    assert current_context() == "context-0"


def test_the_first_entry_of_a_name_counts_whichever_file_says_which_is_current(
    registry: Listener, api_server: Listener, closed: str, home: Path
) -> None:
    one = yaml.safe_load(kubeconfig(api_server.address))
    del one["current-context"]
    paths = files(home, one=yaml.safe_dump(one), two=kubeconfig(closed))
    reachability.require(stack(registry.address), paths)
    assert api_server.connections() == 1


def test_a_context_may_be_of_a_cluster_in_another_file(
    registry: Listener, api_server: Listener, home: Path
) -> None:
    document = yaml.safe_load(kubeconfig(api_server.address))
    clusters = {"clusters": document.pop("clusters")}
    paths = files(home, contexts=yaml.safe_dump(document), clusters=yaml.safe_dump(clusters))
    reachability.require(stack(registry.address), paths)
    assert api_server.connections() == 1


def test_a_kubeconfig_without_a_current_context_is_told(registry: Listener, home: Path) -> None:
    [problem] = problems(stack(registry.address), files(home, one=kubeconfig("h.example", current="")))
    assert problem.value == "the kubeconfig has no current context"
    assert problem.allowed == "one of context-0"


def test_the_program_asks_the_cluster_that_kubectl_and_the_provider_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python client would take the last file's current context."""
    for text in ("one", "two"):
        document = yaml.safe_load(kubeconfig(f"{text}.example").replace("-0", f"-{text}"))
        document["users"] = [{"name": "u", "user": {}}]
        (home / text).write_text(yaml.safe_dump(document))
    paths = os.pathsep.join(str(home / name) for name in ("one", "two"))
    monkeypatch.setenv("KUBECONFIG", paths)
    # The client reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", paths)
    assert Cluster.of(DestinationSettings()).name == "https://one.example"
    assert Cluster.of(DestinationSettings(kube_context="context-two")).name == "https://two.example"


@pytest.mark.parametrize("text", ["contexts: [{context: {}}]\n", "clusters: text\n", "contexts: [a]\n"])
def test_a_kubeconfig_of_another_shape_is_told(registry: Listener, text: str) -> None:
    [problem] = problems(stack(registry.address, kubeconfig=text))
    assert "no list of entries with names" in problem.value


def test_kubeconfig_of_the_setting_that_is_not_there_is_told(registry: Listener) -> None:
    [problem] = problems(stack(registry.address, kubeconfig="/nowhere/config"))
    assert problem.key == "modelcar:kubeconfig"


@pytest.mark.parametrize("server", ["127.0.0.1:99999", "[::1"])
def test_a_server_that_is_no_address_is_told_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with pytest.raises(InputError, match=r"modelcar:kubeconfig: it is not as kubectl writes it"):
        Cluster.of(DestinationSettings(kubeconfig=kubeconfig(server)))


def test_kubeconfig_in_a_home_that_is_not_there_is_told(registry: Listener) -> None:
    path = "~nobody-of-this-name/kubeconfig"
    [found] = problems(stack(registry.address, kubeconfig=path))
    assert "the file that it names: No such file" in found.value
    with pytest.raises(InputError, match=r"modelcar:kubeconfig: the file that it names: No such file"):
        Cluster.of(DestinationSettings(kubeconfig=path))


def test_kubeconfig_that_is_not_yaml_is_told(registry: Listener) -> None:
    [problem] = problems(stack(registry.address, kubeconfig="contexts: [\n"))
    assert problem.key == "modelcar:kubeconfig"


# --- proxies ----------------------------------------------------------------------------------------


def as_elsewhere(address: str) -> str:
    """Return an address of this machine that is no loopback one: Linux takes 0.0.0.0 for itself."""
    return address.replace("127.0.0.1", "0.0.0.0")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_proxy_stands_between_so_nothing_is_checked(
    monkeypatch: pytest.MonkeyPatch, closed: str, name: str
) -> None:
    monkeypatch.setenv(name, "http://proxy.example:3128")
    elsewhere = as_elsewhere(closed)
    reachability.require(stack(elsewhere, kubeconfig=kubeconfig(elsewhere)), "")


@pytest.mark.parametrize("named", ["0.0.0.0", "10.0.0.0/8, 0.0.0.0/8", "*"])
def test_host_that_needs_no_proxy_is_checked(
    monkeypatch: pytest.MonkeyPatch, closed: str, named: str
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", named)
    elsewhere = as_elsewhere(closed)
    assert len(problems(stack(elsewhere, kubeconfig=kubeconfig(elsewhere)))) == 2


def test_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert len(problems(stack(closed, kubeconfig=kubeconfig(closed)))) == 2


def test_proxy_of_another_scheme_changes_nothing(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    elsewhere = as_elsewhere(closed)
    assert len(problems(stack(elsewhere, kubeconfig=kubeconfig(elsewhere)))) == 2
    [problem] = problems(stack(elsewhere, registryInsecure=True, kubeconfig=kubeconfig(elsewhere)))
    assert problem.key == "modelcar:kubeconfig"


def test_cluster_behind_a_proxy_of_its_own_is_not_checked(registry: Listener, closed: str) -> None:
    text = kubeconfig(closed, **{"proxy-url": "socks5://proxy.example:1080"})
    reachability.require(stack(registry.address, kubeconfig=text), "")
    assert registry.connections() == 1


def test_a_cluster_that_an_earlier_run_made_is_asked_before_anything_in_it_is_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `up` makes in the same run has nothing in it yet, and is not waited for."""
    cron = {"type": "cron", "timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *", "desiredReplicas": 1}
    config = dev(kserve={"install": True}, autoscaling={"triggers": [cron]}, maxReplicas=2)
    config["modelcar:google"]["nodes"]["maxNodes"] = 2
    stack = load_stack(as_texts(config), PROJECT)
    made = {"clusterName": "models-dev", "clusterLocation": "europe-west4-b"}
    assert reachability.made_before(stack.shared, made)
    assert not reachability.made_before(stack.shared, {})
    assert not reachability.made_before(stack.shared, {**made, "clusterName": "former"})
    own = stack.shared.model_copy(update={"kube_context": "mine"})
    assert not reachability.made_before(own, made), "it is asked as any cluster"

    asked: list[Any] = []
    monkeypatch.setattr("components.cluster.keda.require", asked.append)
    for there in (False, True):
        checked = CheckedStack(stack, {}, {}, {"gpu": disk.need([])}, cluster_there=there)

        async def program(checked: CheckedStack = checked) -> None:
            await delivery.require_fit(checked, delivery.google(checked))

        Engine(preview=False).run(lambda: {"done": pulumi.Output.from_input(program())})
        assert bool(asked) is there
    assert "https://models.gke.goog" in asked[0].kubeconfig
