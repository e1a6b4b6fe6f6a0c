"""How a change comes to the cluster, for what a report says to do."""

from __future__ import annotations

from components.config.settings import Settings


def brought(settings: Settings, command: str = "pulumi up") -> str:
    """Return what brings a change to the cluster; with `delivery: gitops` a command only writes files."""
    if settings.delivery != "gitops":
        return command
    return f"{command}; commit and push what it writes, and synchronise in Argo CD"
