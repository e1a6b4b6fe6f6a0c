"""`modelcar:termination`: how a pod ends."""

from __future__ import annotations

from pydantic import Field

from components.config.section import Section


class TerminationSettings(Section):
    """`modelcar:termination`: how a pod that is deleted, replaced or scaled down ends (Standard mode).

    grace_period_seconds: seconds from the deletion to SIGKILL (the pod's terminationGracePeriodSeconds).
        Nodes that go may give less: spot nodes of Google Cloud 15 s.
    pre_stop_seconds: seconds before the server is told to end, so that proxies and load balancers learn
        that the pod takes no new requests; 0 leaves the hook out.
    drain_seconds: seconds in which vLLM finishes what it has begun (its --shutdown-timeout); what the grace
        period leaves where not set, and 0 leaves the argument out, so that vLLM cuts answers off. Another
        server (runtime custom) has to do it by itself.
    """

    grace_period_seconds: int = Field(330, ge=1, le=86400)
    pre_stop_seconds: int = Field(10, ge=0, le=3600)
    drain_seconds: int | None = Field(None, ge=0, le=86400)
