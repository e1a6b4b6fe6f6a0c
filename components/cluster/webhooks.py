"""Whether KServe's webhooks answer the API server: no model is declared before they do.

Right after its first installation KServe is ready, and for some seconds its Service has no endpoints yet, or
its webhooks no certificate authority. On a private cluster the control plane may never get through to port
9443. Both are found out by an InferenceService that is only tried (`dryRun`), so that nothing is kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from components.cluster.access import Cluster, ClusterError
from components.config.cluster import DestinationSettings
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from modelcar.errors import InputError, refuse

#: Where KServe's webhooks listen (its chart, `containerPort`).
PORT = 9443
#: Seconds. After an installation endpoints and cert-manager's certificate take some, later a pod that moves.
PATIENCE, SHORT_PATIENCE, PAUSE = 180.0, 30.0, 2.0
#: A network that lets nothing through makes each try take the webhook's ten seconds.
TRIES = 3

#: What lets the API server through, where more is not known of the cluster.
WAY_IN = f"let the control plane's addresses through to the nodes on TCP port {PORT}"

_PATH = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
_ASKED = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "modelcar-asks-the-webhooks"},
    "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": "none.invalid/none"}]}},
}
#: What the API server says of a webhook that it cannot call, and of the Service where it was looked for.
_FAILED = re.compile(r'failed calling webhook "(?P<name>[^"]*)"')
_SERVICE = re.compile(r'Post "https://(?P<service>[^./:"]+)\.(?P<namespace>[^./:"]+)\.svc[:/"]')
#: KServe's own: its chart's, and those of its LLMInferenceServices.
_OF_KSERVE = re.compile(r".+\.kserve-webhook-server\..+|(?:.+\.)?kserve\.io")
_SILENT = ("deadline exceeded", "i/o timeout", "Client.Timeout", "no route to host", "timed out")


@dataclass(frozen=True)
class Answer:
    """What came of it. said: the API server's words, where a webhook does not answer.

    answers: webhooks took or refused it; starting: they are not there yet; silent: nothing comes back;
    unknown: there is no KServe, or this machine may not ask.
    """

    state: Literal["answers", "starting", "silent", "unknown"]
    said: str = ""

    @property
    def other(self) -> str | None:
        """The webhook that does not answer, where it is none of KServe's."""
        found = _FAILED.search(self.said)
        return found["name"] if found and not _OF_KSERVE.fullmatch(found["name"]) else None


def ask(cluster: Cluster) -> Answer:
    """Let the API server call KServe's webhooks once, and whatever else looks at an InferenceService."""
    try:
        cluster.create(_PATH, _ASKED, dry_run=True)
    except ClusterError as error:
        said = str(error)
        if not _FAILED.search(said):
            asked = "denied the request" in said or error.status not in {0, 401, 403, 404}
            return Answer("answers" if asked else "unknown")
        return Answer("silent" if any(word in said for word in _SILENT) else "starting", said)
    return Answer("answers")


def require(
    settings: Settings, *, patience: float = SHORT_PATIENCE, say: Callable[[str], None] = lambda _: None
) -> None:
    """Refuse a cluster whose API server does not reach KServe's webhooks, or another one that it has to ask.

    Args:
        settings: of any model; the cluster's.
        patience: seconds that webhooks have to start in.
        say: told that they are waited for.

    Raises:
        InputError: they do not answer, with the fix.
    """
    await_answer(settings, settings.kserve.namespace, firewall_rule(settings), patience=patience, say=say)


def await_answer(
    place: DestinationSettings,
    namespace: str,
    way_in: str,
    *,
    patience: float,
    say: Callable[[str], None],
) -> None:
    """Wait until KServe's webhooks answer the API server of a cluster.

    Args:
        place: the cluster.
        namespace: of KServe's controller.
        way_in: what lets the API server through to them.
        patience: seconds that webhooks have to start in.
        say: told that they are waited for.

    Raises:
        InputError: they do not answer, with the fix.
    """
    try:
        cluster = Cluster.of(place)
    except InputError:
        return  # the provider says so
    until, silent, told = time.monotonic() + patience, 0, False
    while (answer := ask(cluster)).state in {"starting", "silent"}:
        silent += answer.state == "silent"
        if silent >= TRIES or time.monotonic() >= until:
            raise _refusal(answer, namespace, way_in)
        if not told:
            say("waiting for KServe's webhooks")
            told = True
        time.sleep(PAUSE)


def _refusal(answer: Answer, namespace: str, way_in: str) -> InputError:
    if answer.other:
        return refuse(
            "the cluster",
            f"the API server does not reach the webhook {answer.other}, which is none of KServe's, so it "
            f"takes no InferenceService: {answer.said}",
            allowed="a cluster whose admission webhooks answer",
            fix=fix_of_other(answer),
        )
    fix = way_in
    if answer.state == "starting":
        fix = (
            f"kubectl -n {namespace} get pods,endpoints: the controller's pod has to be ready; and "
            "cert-manager's, which gives the webhooks their certificate"
        )
    return refuse(
        f"{NAMESPACE}:kserve",
        f"the API server does not reach KServe's webhooks, so it takes no InferenceService: {answer.said}",
        allowed=f"a control plane that reaches KServe's pods on port {PORT}",
        fix=fix,
    )


def fix_of_other(answer: Answer) -> str:
    """Return what to do about a webhook that is none of KServe's."""
    found = _SERVICE.search(answer.said)
    look = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations: which Service it has"
    if found:
        of = f"Service {found['service']} needs a ready pod"
        look = f"kubectl -n {found['namespace']} get pods,endpoints: {of}"
    return f"{look}, which the control plane reaches; ask whoever runs it"


def firewall_rule(settings: Settings) -> str:
    """Return how to let the control plane through to the webhooks.

    The control plane of a private GKE cluster reaches nodes on ports 443 and 10250 by default:
    https://cloud.google.com/kubernetes-engine/docs/how-to/private-clusters#add_firewall_rules
    """
    google = settings.google
    if google is None or google.cluster.name is None:
        return WAY_IN
    name = google.cluster.name
    asked = (
        f"gcloud container clusters describe {name} --location={google.location} --project={google.project}"
    )
    return (
        f"gcloud compute firewall-rules create {name}-webhooks --project={google.project} "
        f"--network=$({asked} --format='value(network)') "
        f"--source-ranges=$({asked} --format='value(privateClusterConfig.masterIpv4CidrBlock)') "
        f"--allow=tcp:{PORT}"
    )
