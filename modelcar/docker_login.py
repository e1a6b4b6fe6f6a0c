"""The credentials that docker keeps for a registry: in its configuration, or with a credential helper."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from docker import auth
from docker.errors import DockerException
from docker.utils.config import find_config_file

#: Seconds for a helper, which may ask a cloud.
TIMEOUT = 60
#: Characters of a helper's own words.
SHOWN = 400
#: What helpers say where they just know nothing of a registry (docker-credential-helpers, `credentials`).
_UNKNOWN = "credentials not found"


class LoginError(Exception):
    """Docker's credentials cannot be had. fix: what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.fix = fix


def login_of(host: str) -> dict[str, Any]:
    """Return `username` and `password`, or `identitytoken`, for a registry; nothing where docker has none.

    Raises:
        LoginError: the credential helper or the configuration is at fault.
    """
    try:
        return _login_of(host)
    except (DockerException, ValueError, LookupError, TypeError, AttributeError) as error:
        path = str(find_config_file() or "config.json")
        # The library trips over what is of another kind; its words on that would help nobody.
        known = isinstance(error, DockerException | ValueError)
        why = f"{error}" if known else "it is not as docker writes it"
        fix = f"correct {path}; `docker login` writes it anew"
        raise LoginError(f"docker's configuration {path} cannot be read: {why}", fix) from None


def _login_of(host: str) -> dict[str, Any]:
    config = auth.load_config()
    hub = host in {"docker.io", "index.docker.io"}
    server = auth.INDEX_URL if hub else host
    known = _from_helper(helper, server) if (helper := config.get_credential_store(server)) else None
    if known is None:
        known = auth.AuthConfig({"auths": config.auths}).resolve_authconfig(auth.INDEX_NAME if hub else host)
    return {key.lower(): value for key, value in (known or {}).items()}


def _from_helper(helper: str, server: str) -> dict[str, str] | None:
    """Ask a helper: docker-credential-helpers' protocol, `get` with the server on its input."""
    program = f"docker-credential-{helper}"
    fix = f"`echo {server} | {program} get` has to give them: install it, or log in anew"
    try:
        done = subprocess.run(
            [program, "get"], input=server, capture_output=True, text=True, errors="replace", timeout=TIMEOUT
        )
    except FileNotFoundError:
        raise LoginError(f"{program}, docker's credential helper, is not on PATH", fix) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoginError(f"{program} does not run: {type(error).__name__}", fix) from None
    if done.returncode:
        words = " ".join(f"{done.stdout} {done.stderr}".split())
        if _UNKNOWN in words:
            return None
        raise LoginError(f"{program} says: {words[-SHOWN:] or f'exit status {done.returncode}'}", fix)
    try:
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):  # what it did say may be a secret
        raise LoginError(f"{program} gives no credentials that docker could read", fix) from None
    if not user and not secret:
        return None
    if user == auth.TOKEN_USERNAME:
        return {"identitytoken": secret}
    return {"username": user, "password": secret}
