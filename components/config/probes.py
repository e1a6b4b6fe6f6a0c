"""`modelcar:probes`: how patiently Kubernetes asks the model server whether it is there.

vLLM answers `/health` from the process that also takes requests (0.23, entrypoints/serve/instrumentator).
A server under load answers late, and one whose engine ended answers 503 and ends by itself. So a probe that
is not answered is a reason to wait, and the defaults are patient: a restart costs minutes, and every request
that is being answered.
"""

from __future__ import annotations

from pydantic import Field

from components.config.fields import HttpPath
from components.config.section import Section


class StartupProbe(Section):
    """Asks until the server has started; `startTimeoutSeconds` says how long that may take.

    period_seconds: seconds between two questions; a server that has started waits for half of it on average.
    timeout_seconds: seconds for one answer.
    """

    period_seconds: int = Field(2, ge=1, le=60)
    timeout_seconds: int = Field(5, ge=1, le=300)


class ReadinessProbe(Section):
    """Keeps requests away from a pod that does not answer.

    path: path that answers 200 while the server takes requests; healthPath where not set.
    period_seconds: seconds between two questions.
    timeout_seconds: seconds for one answer.
    failure_threshold: unanswered questions after which the pod gets no new requests. The requests that it has
        are not ended.
    """

    path: HttpPath | None = None
    period_seconds: int = Field(5, ge=1, le=300)
    timeout_seconds: int = Field(10, ge=1, le=300)
    failure_threshold: int = Field(6, ge=1, le=1000)


class LivenessProbe(Section):
    """Restarts a server that does not answer any more, and with it all requests that it has.

    enabled: false leaves restarts to the server itself, which ends when its engine does.
    path: path that answers 200 while the server need not be restarted; healthPath where not set.
    period_seconds: seconds between two questions.
    timeout_seconds: seconds for one answer.
    failure_threshold: unanswered questions after which the server is restarted.
    """

    enabled: bool = True
    path: HttpPath | None = None
    period_seconds: int = Field(30, ge=1, le=3600)
    timeout_seconds: int = Field(30, ge=1, le=600)
    failure_threshold: int = Field(10, ge=1, le=1000)


class ProbesSettings(Section):
    """`modelcar:probes`: how Kubernetes asks the server for its health.

    startup: until it has started.
    readiness: whether it takes requests.
    liveness: whether it has to be restarted.
    """

    startup: StartupProbe = Field(default_factory=StartupProbe)
    readiness: ReadinessProbe = Field(default_factory=ReadinessProbe)
    liveness: LivenessProbe = Field(default_factory=LivenessProbe)
