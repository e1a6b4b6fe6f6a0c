"""The API server of a stack's cluster: JSON in, JSON out, and its refusals in words."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import yaml

from components.cluster import kubeconfig
from components.config.cluster import DestinationSettings
from components.config.problems import NAMESPACE
from modelcar.errors import refuse
from modelcar.home import in_home
from modelcar.proxies import proxy_for

if TYPE_CHECKING:
    from kubernetes import client

#: Seconds for one request.
TIMEOUT = 30
#: What helps where the API server does not know who asks (401), which no right does.
LOG_IN = "log in to the cluster again, as your kubeconfig does it (GKE: gcloud auth login)"
#: Seconds between two looks at what is waited for.
POLL = 0.5

#: Channel of a command's WebSocket by which Kubernetes tells how it ended.
_ERROR_CHANNEL = 3

#: How the library trips over a kubeconfig whose parts are of another kind.
_ODD = (ValueError, LookupError, TypeError, AttributeError)

JSON = dict[str, Any]


class ClusterError(Exception):
    """The API server refused a request, or was not reached. status: HTTP's; 0 where there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TooSlowError(ClusterError):
    """No answer came in time."""


class NoJSONError(ClusterError):
    """What answered is no API server; or no model server that speaks JSON, where it was handed on to one."""


class Cluster:
    """An API server, with the credentials of a kubeconfig."""

    _ahead = timedelta()

    def __init__(self, api: client.ApiClient, name: str) -> None:
        self._api = api
        self.name = name

    @classmethod
    def of(cls, settings: DestinationSettings) -> Cluster:
        """Return the cluster that a stack deploys to: its own kubeconfig, else what kubectl uses here.

        Raises:
            InputError: there is no such kubeconfig or context, or it is not known which cluster is meant.
        """
        from kubernetes import config  # takes most of a second: only what asks a cluster pays for it

        make: Any = config.new_client_from_config
        make_of_text: Any = config.new_client_from_config_dict
        given, context = settings.kubeconfig, settings.kube_context
        if not given and not context:
            context = settings.own_context
        try:
            known = kubeconfig.read(given)  # whose words name the file, before the library reads it
            if not given and not context:
                context = (known or {}).get("current-context")
            if given and kubeconfig.is_text(given):
                api = make_of_text(yaml.safe_load(given), context=context)
            else:
                api = make(config_file=str(in_home(given)) if given else None, context=context)
            return cls(reached_as_kubectl_does(api), str(api.configuration.host))
        except (config.ConfigException, OSError, yaml.YAMLError, *_ODD) as error:
            odd = isinstance(error, _ODD)
            raise refuse(
                f"{NAMESPACE}:kubeconfig" if given else "kubeconfig",
                "it is not as kubectl writes it" if odd else str(error).splitlines()[0],
                allowed="a kubeconfig with the cluster's context",
                fix=f"log in to the cluster ({_login(context)}), or set {NAMESPACE}:kubeContext",
            ) from None

    def get(self, path: str, **query: str) -> JSON | None:
        """Return an object or a list; None where there is none."""
        try:
            return self.request("GET", path, query=query)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> JSON:
        """Create an object, or let the API server and its webhooks only say what they would make of it."""
        return self.request("POST", path, body, {"dryRun": "All"} if dry_run else {})

    def patch(self, path: str, body: Mapping[str, Any]) -> JSON:
        """Merge a patch into an object (RFC 7386)."""
        return self.request("PATCH", path, body)

    def delete(self, path: str, *, uid: str | None = None) -> None:
        """Delete an object; it may be gone already.

        uid: the only object of this name that is meant; one that somebody else made since stays.
        """
        options: JSON = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", path, options)
        except ClusterError as error:
            if error.status != 404 and (uid is None or error.status != 409):
                raise

    def remove(self, path: str, patience: float, *, uid: str | None = None) -> None:
        """Delete an object, and wait until it is gone; patience: seconds, uid: as in `delete`.

        Raises:
            ClusterError: it is still there.
        """
        self.delete(path, uid=uid)
        deadline = time.monotonic() + patience
        while (found := self.get(path)) is not None:
            if uid is not None and found["metadata"].get("uid") != uid:
                return
            if time.monotonic() > deadline:
                name = path.rpartition("/")[2]
                raise ClusterError(0, f"{name} is still being removed; look at its finalizers")
            time.sleep(POLL)

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        lines: int | None = 200,
        *,
        stamped: bool = False,
        previous: bool = False,
    ) -> str:
        """Return a container's last lines, or all of them; nothing where it has not started.

        stamped: each with its time (RFC 3339). previous: of the container before this one, which ended.
        """
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        query = {"container": container, "timestamps": str(stamped).lower()}
        if previous:
            query["previous"] = "true"
        if lines is not None:
            query["tailLines"] = str(lines)
        try:
            return self._call("GET", path, None, query)
        except ClusterError as error:
            if error.status in {400, 404}:
                return ""
            raise

    def execute(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        timeout: float = TIMEOUT,
        text: str = "",
    ) -> str:
        """Run a command in a container and return what it says.

        timeout: seconds. text: what it reads from stdin, whose end it is not told: let it read a line.

        Raises:
            ClusterError: it may not, it was not run to its end, or the connection broke. A command's own exit
                code is no error.
        """
        from kubernetes import client  # as in `of`
        from kubernetes.client.exceptions import ApiException  # as in `of`
        from kubernetes.stream import stream  # as in `of`
        from urllib3.exceptions import HTTPError  # as in `of`
        from websocket import WebSocketException  # as in `of`

        # A client of its own: the library turns one into a WebSocket's for the time of the call.
        api = client.CoreV1Api(client.ApiClient(self._api.configuration))
        run: Any = stream
        try:
            session: Any = run(
                api.connect_get_namespaced_pod_exec,
                pod,
                namespace,
                container=container,
                command=list(command),
                stderr=True,
                stdin=bool(text),
                stdout=True,
                tty=False,
                _preload_content=False,
            )
            if text:
                session.write_stdin(text)
            session.run_forever(timeout=timeout)
            late = session.is_open()
            how = session.read_channel(_ERROR_CHANNEL)  # before `read_all`, which drops it
            said = str(session.read_all())
            session.close()
        except ApiException as error:
            raise ClusterError(
                int(error.status or 0), f"exec in {pod}: {_message(str(error.body or ''), str(error.reason))}"
            ) from None
        except (WebSocketException, HTTPError, OSError) as error:
            raise ClusterError(0, f"exec in {pod}: {error}") from None
        if fault := f"it did not end within {timeout:.0f} s" if late else _unfinished(how):
            heard = f"; it said {said.strip()[-200:]!r}" if said.strip() else ""
            raise ClusterError(0, f"exec in {pod}: {fault}{heard}")
        return said

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> JSON:
        """Send one request and return what comes back; timeout: seconds.

        Raises:
            TooSlowError: nothing came in time.
            NoJSONError: what came is no JSON object.
            ClusterError: the API server refuses it, or cannot be reached.
        """
        text = self._call(method, path, body, query or {}, timeout)
        try:
            found = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            fix = "see that no proxy asks you to log in"
            raise NoJSONError(0, f"{self.name} sends no JSON object: {text.strip()[:200]!r}; {fix}")
        return found

    def now(self) -> datetime:
        """Return what the API server's clock says: this machine's may be another minute's."""
        return datetime.now(UTC) + self._ahead

    def _note_time(self, date: str | None) -> None:
        """Note by an answer's `Date` how far the API server's clock is ahead of this one."""
        try:
            self._ahead = parsedate_to_datetime(date or "") - datetime.now(UTC)
        except (ValueError, TypeError):
            return  # it says none

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str],
        timeout: float = TIMEOUT,
    ) -> str:
        from kubernetes.client.exceptions import ApiException  # as in `of`
        from urllib3.exceptions import HTTPError, ReadTimeoutError  # as in `of`

        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        serialize: Any = self._api.param_serialize
        call: Any = self._api.call_api
        try:
            request = serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Content-Type": kind, "Accept": "application/json, */*"},
                body=dict(body) if body is not None else None,
                auth_settings=["BearerToken"],
            )
            response = call(*request, _request_timeout=(TIMEOUT, timeout))  # to connect, to answer
            content: bytes = response.read()
        except ReadTimeoutError:
            raise TooSlowError(0, f"{self.name} does not answer within {timeout:.0f} s") from None
        except (HTTPError, ApiException, OSError) as error:
            raise ClusterError(0, f"{self.name} does not answer: {error}") from None
        self._note_time(response.getheader("Date"))
        text = content.decode(errors="replace")
        if response.status >= 400:
            raise ClusterError(int(response.status), _message(text, str(response.reason)))
        return text


def reached_as_kubectl_does(api: client.ApiClient) -> client.ApiClient:
    """Return a client that uses the environment's proxy only where kubectl does.

    The library sends requests to this machine (kind's API server, a tunnel) through the proxy, and its
    WebSockets do not find a network in NO_PROXY that follows a space.
    """
    from kubernetes import client  # as in `Cluster.of`

    configuration: Any = api.configuration
    server, proxies = str(configuration.host), getproxies()
    from_environment = configuration.proxy in {proxies.get(urlsplit(server).scheme), proxies.get("all")}
    if not configuration.proxy or not from_environment or proxy_for(server):
        return api
    # With a proxy and an exception from it: without one, the WebSocket's library would look for its own.
    configuration.no_proxy = urlsplit(server).hostname
    return client.ApiClient(configuration)


def _unfinished(text: str) -> str | None:
    """Return why a command was not run to its end, by the status that Kubernetes sends; None where it was."""
    try:
        status = json.loads(text)
        if status["status"] == "Success" or status.get("reason") == "NonZeroExitCode":
            return None
        return str(status.get("message") or text)
    except (TypeError, ValueError, KeyError, AttributeError):
        return text.strip()[:500] or "the connection ended before the command did"


def _login(context: str | None) -> str:
    """Return the command that makes a context of a GKE cluster."""
    command = "gcloud container clusters get-credentials"
    if context is None or context.count("_") != 3 or not context.startswith("gke_"):
        return f"{command} …"
    _, project, location, name = context.split("_")
    return f"{command} {name} --location={location} --project={project}"


def _message(text: str, reason: str) -> str:
    """Return what the API server says of a refusal."""
    try:
        return str(json.loads(text)["message"])
    except (TypeError, ValueError, KeyError):
        return text.strip()[:500] or reason
