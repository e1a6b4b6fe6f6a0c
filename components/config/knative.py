"""`modelcar:knative`: how long Knative waits, and how soon it takes pods away (deploymentMode Knative).

A request that finds no pod is held by Knative's activator until one serves, and ends with status 504 when
`timeoutSeconds` have passed, waiting and answering together; so it has to be longer than a cold start.
https://knative.dev/docs/serving/configuration/config-defaults/
https://knative.dev/docs/serving/autoscaling/scale-to-zero/
"""

from __future__ import annotations

from pydantic import Field

from components.config.section import Section

#: Seconds that a Knative as shipped lets a request take (`max-revision-timeout-seconds` of config-defaults).
LONGEST = 600
#: Knative's own bounds of what its autoscaler waits for, in seconds (WindowMin, WindowMax).
SHORTEST_WINDOW, LONGEST_WINDOW = 6, 3600


class KnativeSettings(Section):
    """What Knative waits for, in seconds; where a field is not set, the cluster's own default holds.

    timeout_seconds: seconds that a request may take, the wait for a first pod included. A value above 600
        takes a Knative whose config-defaults allow it (max-revision-timeout-seconds); else the cluster
        refuses the service.
    stable_window_seconds: seconds over which requests are counted before pods go (Knative's own: 60).
    scale_down_delay_seconds: seconds for which fewer requests have to last before pods go (0).
    last_pod_retention_seconds: seconds for which the last pod stays after the decision for none (0).
    """

    timeout_seconds: int = Field(LONGEST, ge=1, le=86400)
    stable_window_seconds: int | None = Field(None, ge=SHORTEST_WINDOW, le=LONGEST_WINDOW)
    scale_down_delay_seconds: int | None = Field(None, ge=0, le=LONGEST_WINDOW)
    last_pod_retention_seconds: int | None = Field(None, ge=0, le=LONGEST_WINDOW)
