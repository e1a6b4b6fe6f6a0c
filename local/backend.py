"""Which Pulumi backend the user has chosen for stacks of his own; the local stack's own is no choice."""

from __future__ import annotations

import json
import os
from pathlib import Path

from local.instance import PROJECT, state_root
from local.stack_file import document_of
from modelcar.home import in_home

URL, TOKEN, PASSPHRASE = "PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN", "PULUMI_CONFIG_PASSPHRASE"
#: What `pulumi login` writes down.
LOGIN = "pulumi login"


def own_backend() -> str:
    """Return the URL of the local stack's backend; `eval "$(python -m local env)"` puts it into a shell."""
    return (state_root() / "pulumi").as_uri()


def chosen_backend() -> list[str]:
    """Return what says which backend the user has chosen: variables, Pulumi.yaml, `pulumi login`."""
    found = [TOKEN] if os.environ.get(TOKEN) else []
    found += [URL] if os.environ.get(URL, "") not in {"", own_backend()} else []
    found += ["Pulumi.yaml"] if _of_project() else []
    logged_in = _logged_in()
    # Scratch projects have theirs below the state folder.
    found += [LOGIN] if logged_in and not logged_in.startswith(state_root().as_uri()) else []
    return found


def _of_project() -> str:
    named = document_of(PROJECT / "Pulumi.yaml").get("backend")
    return str((named.get("url") if isinstance(named, dict) else named) or "")


def _logged_in() -> str:
    """Return the backend that `pulumi login` has chosen on this machine; empty where there is none."""
    home = os.environ.get("PULUMI_HOME") or in_home("~/.pulumi")
    folder = Path(os.environ.get("PULUMI_CREDENTIALS_PATH") or home)
    try:
        found = json.loads((folder / "credentials.json").read_bytes())
        return str(found.get("current") or "")
    except (OSError, ValueError, AttributeError):
        return ""
