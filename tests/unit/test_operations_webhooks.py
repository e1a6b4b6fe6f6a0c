"""KServe's webhooks: waited for after an installation, and told with the way out where they stay silent."""

from __future__ import annotations

from typing import Any

import pytest

from components.cluster import webhooks
from components.cluster.access import Cluster, ClusterError
from components.cluster.webhooks import Answer, ask, require
from local import doctor
from modelcar.errors import InputError
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load
from tests.unit.test_google_settings import dev
from tests.unit.test_google_settings import load as load_google

CALL = (
    'Internal error occurred: failed calling webhook "inferenceservice.kserve-webhook-server.defaulter": '
    'failed to call webhook: Post "https://kserve-webhook-server-service.kserve.svc:443/mutate?timeout=10s": '
)
REFUSED = f"{CALL}dial tcp 10.96.12.5:443: connect: connection refused"
NO_ENDPOINTS = f'{CALL}no endpoints available for service "kserve-webhook-server-service"'
NO_AUTHORITY = f"{CALL}tls: failed to verify certificate: x509: certificate signed by unknown authority"
NO_BUNDLE = (
    'Internal error occurred: failed calling webhook "inferenceservice.kserve-webhook-server.validator": '
    "could not get REST client: unable to load root certificates: unable to parse bytes as PEM block"
)
SILENT = f"{CALL}context deadline exceeded"
DENIED = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: no'


class Answers(FakeCluster):
    """An API server that says one thing after another of what is tried; None: it takes it."""

    def __init__(self, *said: tuple[int, str] | None) -> None:
        super().__init__()
        self.left = list(said)
        self.tried: list[tuple[str, Any]] = []

    def request(
        self, method: str, path: str, body: Any = None, query: Any = None, **_: Any
    ) -> dict[str, Any]:
        self.tried.append((path, query))
        said = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if said:
            raise ClusterError(*said)
        return {}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "PAUSE", 0)


def of(monkeypatch: pytest.MonkeyPatch, *said: tuple[int, str] | None) -> Answers:
    cluster = Answers(*said)
    monkeypatch.setattr(Cluster, "of", lambda _: cluster)
    return cluster


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (None, "answers"),
        ((403, DENIED), "answers"),
        ((400, DENIED), "answers"),
        ((500, REFUSED), "starting"),
        ((500, NO_ENDPOINTS), "starting"),
        ((500, NO_AUTHORITY), "starting"),
        ((500, NO_BUNDLE), "starting"),
        ((500, SILENT), "silent"),
        ((500, f"{CALL}dial tcp 10.0.0.9:9443: i/o timeout"), "silent"),
        ((404, "the server could not find the requested resource"), "unknown"),
        ((403, "inferenceservices is forbidden"), "unknown"),
        ((0, "does not answer"), "unknown"),
    ],
)
def test_what_an_answer_means(said: tuple[int, str] | None, state: str) -> None:
    cluster = Answers(said)
    assert ask(cluster).state == state
    [(path, query)] = cluster.tried
    assert path.endswith("/inferenceservices")
    assert query == {"dryRun": "All"}, "nothing is kept"


def test_webhooks_that_start_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = of(monkeypatch, (500, REFUSED), (500, NO_BUNDLE), (500, NO_AUTHORITY), None)
    told: list[str] = []
    require(load(), say=told.append)
    assert len(cluster.tried) == 4
    assert told == ["waiting for KServe's webhooks"]


def test_webhooks_that_never_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    of(monkeypatch, (500, REFUSED))
    with pytest.raises(InputError) as caught:
        require(load(), patience=0.05)
    [problem] = caught.value.problems
    assert "connection refused" in problem.value
    assert "kubectl -n kserve get pods,endpoints" in problem.fix


KYVERNO = (
    'Internal error occurred: failed calling webhook "mutate.kyverno.svc-fail": failed to call webhook: Post '
    '"https://kyverno-svc.kyverno.svc:443/mutate/fail?timeout=10s": '
)


@pytest.mark.parametrize("why", ["connect: connection refused", "context deadline exceeded"])
def test_a_webhook_that_is_none_of_kserves_is_told_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    of(monkeypatch, (500, KYVERNO + why))
    with pytest.raises(InputError) as caught:
        require(load(), patience=0.05)
    [problem] = caught.value.problems
    assert "does not reach the webhook mutate.kyverno.svc-fail, which is none of KServe's" in problem.value
    assert "kubectl -n kyverno get pods,endpoints: Service kyverno-svc" in problem.fix
    assert "kserve" not in problem.fix
    line = doctor._webhooks(Answers((500, KYVERNO + why)), load())
    assert (line.state, line.fix) == ("missing", problem.fix)


def test_kserves_own_are_known_by_their_names() -> None:
    names = ["inferenceservice.kserve-webhook-server.defaulter", "llminferenceservice.serving.kserve.io"]
    for name in names:
        assert Answer("starting", f'failed calling webhook "{name}": no').other is None
    assert Answer("starting", 'failed calling webhook "kserve.example": no').other == "kserve.example"


def test_a_port_that_stays_closed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = of(monkeypatch, (500, SILENT))
    place = {"google.cluster.create": None, "google.cluster.name": "shared"}
    adopted = load_google(dev(**place, **{"google.cluster.location": "europe-west4"}))
    with pytest.raises(InputError) as caught:
        require(adopted)
    assert len(cluster.tried) == webhooks.TRIES, "each takes ten seconds"
    [problem] = caught.value.problems
    assert "port 9443" in problem.allowed
    assert problem.fix.startswith("gcloud compute firewall-rules create shared-webhooks --project=")
    assert "--allow=tcp:9443" in problem.fix
    assert "describe shared --location=europe-west4" in problem.fix


def test_who_may_not_ask_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    of(monkeypatch, (403, "forbidden"))
    require(load())


def test_doctor_tells_it() -> None:
    settings = load()
    assert doctor._webhooks(Answers(None), settings).state == "ok"
    silent = doctor._webhooks(Answers((500, SILENT)), settings)
    assert silent.state == "missing"
    assert "9443" in silent.fix
    assert Answer("answers").said == ""
