"""A registry's credentials, as a Secret of type kubernetes.io/dockerconfigjson has them."""

from __future__ import annotations

import base64
import json


def encoded_docker_config(host: str, username: str, password: str) -> str:
    """Return a registry's credentials as the `.dockerconfigjson` of a Secret."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    return base64.b64encode(json.dumps({"auths": {host: {"auth": token}}}).encode()).decode()
