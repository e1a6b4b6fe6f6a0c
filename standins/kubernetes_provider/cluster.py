"""Requests to the API server: read, server-side apply, delete and watch objects of any kind.

Authentication, TLS and proxies are those of the `kubernetes` package; kinds are looked up in the server's
own discovery, so that custom resources work like built-in ones.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import urllib3
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from standins.kubernetes_provider.stopping import Stop

APPLY = "application/apply-patch+yaml"  # JSON is YAML
# Seconds: to connect, and for one answer (an admission webhook may take 30).
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
# Seconds after which the server ends a watch; it is then taken up again from where it was.
WATCH_SECONDS = 300
# Seconds between attempts to reach the server again while something is watched.
WATCH_RETRY = 1.0
_GONE = 410
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


class ClusterError(Exception):
    """The API server refused a request. str() is the server's own message, unchanged."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        """Take the HTTP status and the Status object that came with it."""
        self.status = status
        self.reason = str(body.get("reason", ""))
        self.causes: list[dict[str, Any]] = list((body.get("details") or {}).get("causes") or [])
        super().__init__(str(body.get("message") or f"the API server answered {status}"))

    @property
    def not_found(self) -> bool:
        """The object, its namespace or its kind does not exist."""
        return self.status == 404

    @property
    def namespace_missing(self) -> bool:
        """The namespace the object is to be in does not exist."""
        return self.not_found and str(self).startswith("namespaces ")

    @property
    def conflict(self) -> bool:
        """Another field manager owns a field that was to be changed."""
        return self.status == 409 and self.reason == "Conflict"

    @property
    def denied_by_webhook(self) -> bool:
        """An admission webhook refused the object."""
        return str(self).startswith("admission webhook ") and "denied the request" in str(self)

    @property
    def cannot_dry_run(self) -> bool:
        """A webhook on the way does not take part in dry runs, or this user may not make them."""
        text = str(self)
        return ("dry run" in text and "support" in text) or (
            self.status == 403 and not self.denied_by_webhook
        )

    @property
    def immutable(self) -> bool:
        """The server says that a field cannot be changed in place."""
        return self.status == 422 and "field is immutable" in str(self)


class UnreachableError(Exception):
    """The API server could not be asked; the message names its address, the reason and the fix."""


class UnknownKindError(Exception):
    """The API server does not know the kind: its CustomResourceDefinition is missing."""


@dataclass(frozen=True)
class ResourceType:
    """Where the objects of one kind are: api_root is `/api/v1` or `/apis/GROUP/VERSION`."""

    api_root: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of the collection or of one object in it."""
        scope = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        tail = f"/{quote(name, safe='')}" if name else ""
        return f"{self.api_root}{scope}/{self.plural}{tail}"


@dataclass
class Applied:
    """The answer to an apply: the object as it is now, and what the server warned of."""

    object: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


class Cluster:
    """One API server, seen with one user's credentials."""

    def __init__(self, client: ApiClient) -> None:
        """Client: configured with the server's address and credentials."""
        self._client = client
        self.server = str(client.configuration.host)
        self._types: dict[str, dict[str, ResourceType]] = {}
        self._lock = threading.Lock()

    # --- kinds

    def resource_type(self, api_version: str, kind: str) -> ResourceType:
        """Look a kind up, asking the server again where it is not known yet.

        Raises:
            UnknownKindError: the server does not serve it.
            UnreachableError: the server cannot be asked.
        """
        with self._lock:
            known = self._types.get(api_version, {}).get(kind)
        if known is None:
            known = self._discover(api_version).get(kind)
        if known is None:
            raise UnknownKindError(
                f"the API server {self.server} does not know {api_version} {kind}; is its "
                "CustomResourceDefinition installed?"
            )
        return known

    def _discover(self, api_version: str) -> dict[str, ResourceType]:
        api_root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            listing = self.get(api_root)
        except ClusterError as error:
            if error.not_found:
                return {}
            raise
        found = {
            entry["kind"]: ResourceType(api_root, entry["name"], bool(entry["namespaced"]))
            for entry in listing.get("resources", [])
            if "/" not in entry["name"]  # a subresource
        }
        with self._lock:
            self._types[api_version] = found
        return found

    # --- objects

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read one object, or a list of them."""
        return self._json("GET", path, query)

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Read the items of a collection."""
        return list(self.get(path, **query).get("items") or [])

    def text(self, path: str, **query: str) -> str:
        """Read what is not JSON, such as a container's log."""
        try:
            return self._request("GET", path, query).data.decode(errors="replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def apply(
        self, path: str, wanted: Mapping[str, Any], manager: str, *, force: bool, dry_run: bool
    ) -> Applied:
        """Make the object have the wanted fields, as this field manager.

        force takes over fields that other managers own; dry_run asks every admission webhook and
        validation, and changes nothing.

        Raises:
            ClusterError: refused; `.conflict` where another manager owns a field.
            UnreachableError: the server cannot be asked.
        """
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Warn"}
        if dry_run:
            query["dryRun"] = "All"
        response = self._request("PATCH", path, query, body=dict(wanted), content_type=APPLY)
        body = self._read(response)
        # Several Warning headers arrive joined by commas.
        shown = [
            re.sub(r"\\(.)", r"\1", text) for text in _WARNING.findall(response.headers.get("Warning", ""))
        ]
        return Applied(body, shown)

    def delete(self, path: str, propagation: str) -> None:
        """Start the deletion of one object; propagation is Foreground, Background or Orphan.

        Raises:
            ClusterError: refused; `.not_found` where it is gone already.
            UnreachableError: the server cannot be asked.
        """
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        self._json("DELETE", path, {}, body=options)

    def watch(
        self, path: str, query: Mapping[str, str], stop: Stop
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Follow a collection until stop is set.

        Yields ("SYNC", all items) after every fresh listing, then ("ADDED"|"MODIFIED"|"DELETED", [object]).
        A server that goes away for a while is asked again; ("LOST", []) is yielded when that begins.
        """
        while not stop.is_set():
            try:
                listing = self.get(path, **query)
                version = str(listing["metadata"].get("resourceVersion", ""))
                yield "SYNC", list(listing.get("items") or [])
                while not stop.is_set():
                    for kind, item in self._stream(path, {**query, "resourceVersion": version}, stop):
                        if kind == "ERROR":
                            raise ClusterError(int(item.get("code") or 500), item)
                        version = str(item["metadata"].get("resourceVersion", version))
                        if kind != "BOOKMARK":
                            yield kind, [item]
            except (ClusterError, UnreachableError) as error:
                if isinstance(error, ClusterError) and error.status == _GONE:
                    continue  # the server forgot that version: list afresh
                if isinstance(error, ClusterError) and error.status < 500 and error.status != 429:
                    raise
                yield "LOST", []
                stop.wait(WATCH_RETRY)

    def _stream(
        self, path: str, query: Mapping[str, str], stop: Stop
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        parameters = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        response = self._request("GET", path, parameters, read_timeout=WATCH_SECONDS + READ_TIMEOUT)
        rest = b""
        try:
            with stop.calling(response.shutdown):
                for chunk in response.stream():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            event = json.loads(line)
                            yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if not stop.is_set():
                raise self._unreachable(error) from error
        finally:
            response.close()

    # --- requests

    def _json(
        self, method: str, path: str, query: Mapping[str, str], *, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return self._read(self._request(method, path, query, body=body))

    def _read(self, response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        try:
            parsed: dict[str, Any] = json.loads(response.data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise self._unreachable(ValueError("it answers, but not with JSON")) from error
        return parsed

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
        read_timeout: float = READ_TIMEOUT,
    ) -> urllib3.BaseHTTPResponse:
        try:
            # Credentials are taken per request: those from a command or a token file expire.
            request = self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=json.dumps(body) if content_type == APPLY else body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT, read_timeout))
        except (urllib3.exceptions.HTTPError, OSError, ApiException) as error:
            raise self._unreachable(error) from error
        response: urllib3.BaseHTTPResponse = answer.response
        if not 200 <= response.status <= 299:
            raise ClusterError(response.status, _status(response))
        return response

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"the Kubernetes API server {self.server} cannot be reached: {_cause(error)}. "
            "fix: start the cluster, or point the kubeconfig at one that runs"
        )


def _status(response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    data = response.data
    try:
        body = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace").strip()[:500]}
    return body if isinstance(body, dict) else {}


def _cause(error: BaseException) -> str:
    """Return what is at the bottom of urllib3's nested errors, in one line."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, ApiException):
        return " ".join(str(error.reason).split())
    text = str(error.__cause__ or error) if isinstance(error, urllib3.exceptions.HTTPError) else str(error)
    return " ".join(text.split())
