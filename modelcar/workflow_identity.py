"""As whom a job of GitHub's workflows signs without a key."""

from __future__ import annotations

import base64
import json
import os

import httpx

from modelcar.connections import client

#: Seconds for an answer of the runner's own service.
TIMEOUT = 30.0


def of_this_job() -> str | None:
    """Return the identity that cosign gets a certificate for here; None where that cannot be told.

    It is in the job's token. GITHUB_WORKFLOW_REF names another one where a workflow calls a shared one.
    """
    url, token = (os.environ.get(f"ACTIONS_ID_TOKEN_REQUEST_{end}") for end in ("URL", "TOKEN"))
    if not url or not token or os.environ.get("SIGSTORE_ID_TOKEN"):  # which cosign takes first
        return None
    try:
        with client(timeout=TIMEOUT) as asking:
            answer = asking.get(f"{url}&audience=sigstore", headers={"Authorization": f"Bearer {token}"})
        claims = answer.raise_for_status().json()["value"].split(".")[1]
        workflow = json.loads(base64.urlsafe_b64decode(f"{claims}=="))["job_workflow_ref"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):
        return None  # cosign says what is wrong
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{workflow}"
