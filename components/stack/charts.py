"""The hosts of KServe's charts: looked for before anything is built.

The provider (4.25) downloads a chart each time it checks a release whose values are known, in a preview too.
A preview is to work without network, and an `up` that cannot have its charts is to say so at its beginning.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from components.config.kserve import KServeSettings
from components.config.problems import NAMESPACE
from components.stack.reachability import refusal
from modelcar.errors import Problem

_FIX = (
    "open the way to it (HTTPS_PROXY counts); or name a copy of the charts "
    f"({NAMESPACE}:kserve.chartRepository and kserve.certManagerRepository: an oci:// place, or a folder); "
    f"or install cert-manager and KServe yourself, and leave {NAMESPACE}:kserve.install out"
)


def unreachable(settings: KServeSettings) -> list[Problem]:
    """Return the places of charts that do not accept a connection from here."""
    found = []
    places = {}
    if settings.install_cert_manager:
        places["kserve.certManagerRepository"] = settings.cert_manager_repository
    places["kserve.chartRepository"] = settings.chart_repository
    for key, place in places.items():
        url = urlsplit(place)
        if not url.hostname:
            continue  # a folder
        if reason := refusal("https", url.hostname, url.port or 443):
            found.append(
                Problem(
                    f"{NAMESPACE}:{key}",
                    f"{place}: {url.hostname} cannot be reached ({reason})",
                    "a place of charts that accepts connections from here",
                    _FIX,
                )
            )
    return found
