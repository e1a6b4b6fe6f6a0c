"""`kubernetes:helm.sh/v3:Release`: a Helm chart that is installed, changed and removed by the real Helm.

The state has the official provider's shape (pulumi-kubernetes 4.34.2). On purpose different are:

- a chart from a registry or repository needs an exact version, because any other may become another chart;
- a release that exists already is refused unless this very resource made it. The official provider finds
  out when Helm refuses the name; here Helm is run as `upgrade --install`, which would take the release over;
- what a killed run left pending is cleared away, which Helm itself refuses to touch;
- in a preview, Helm also asks the cluster (`--dry-run=server`); what the cluster would refuse is a warning,
  because an earlier step of the same update may put it right.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pulumi.runtime.proto import provider_pb2

from standins.kubernetes_provider import diagnosis, differences, naming, properties, release_inputs
from standins.kubernetes_provider.cluster import Cluster
from standins.kubernetes_provider.connection import Settings
from standins.kubernetes_provider.helm import Helm, HelmError, chart_name, secret_texts
from standins.kubernetes_provider.properties import Secret, plain
from standins.kubernetes_provider.refusals import PartialError, RefusedError
from standins.kubernetes_provider.stopping import Stop
from standins.plugin import INFO, WARNING, EngineLog

TOKEN = "kubernetes:helm.sh/v3:Release"  # noqa: S105 (a type token, no password)
# The label of Helm's own record by which a resource knows the release that it made.
OWNER = "pulumi.com/field-manager"
_DEPLOYED = "deployed"
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
_MOST_REASONS = 12
_REPLACING = (("name",), ("namespace",))
# What a stack that the official provider wrote has in its inputs, and a program never.
_COMPUTED = ("checksum", "resourceNames", "compat")
# A chart's manifests may be megabytes: libyaml where it is there.
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def is_release(urn: str) -> bool:
    """Say whether a URN is that of a Helm release."""
    return urn.split("::")[2].rsplit("$", 1)[-1] == TOKEN


@dataclass(frozen=True)
class _Operation:
    """A release as one request has it. given: with secret marks; inputs: without."""

    urn: str
    given: dict[str, Any]
    inputs: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.inputs["name"])

    @property
    def namespace(self) -> str:
        return str(self.inputs["namespace"])

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def title(self) -> str:
        return f"Release {self.id}"

    @property
    def owner(self) -> str:
        return naming.field_manager(self.urn)


def _operation(urn: str, given: dict[str, Any]) -> _Operation:
    return _Operation(urn, given, plain(given))


class Releases:
    """The releases of one provider."""

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        cluster: Cluster | None,
        unreachable: str,
        log: EngineLog,
        stop: Stop,
    ) -> None:
        """Cluster: None where it cannot be asked, and then unreachable says why."""
        self._settings = settings
        self._namespace = namespace
        self._cluster = cluster
        self._unreachable = unreachable
        self._log = log
        self._stop = stop
        self._helm = Helm(settings, stop)

    # --- what the engine asks

    def check(self, request: provider_pb2.CheckRequest) -> provider_pb2.CheckResponse:
        """Refuse what cannot be done or is not fixed to one chart, name the release, fill in defaults."""
        assets = [key for key in ("valueYamlFiles", "manifest") if key in request.news.fields]
        release_inputs.require_known({**dict.fromkeys(request.news.fields), **dict.fromkeys(assets, True)})
        news = {key: value for key, value in properties.decode(request.news).items() if value is not None}
        release_inputs.require_known(plain(news))
        if not plain(news.get("name")):
            news["name"] = _autoname(request, plain(properties.decode(request.olds)))
        if not plain(news.get("namespace")):
            news["namespace"] = self._namespace
        shown = plain(news)
        if release_inputs.waits(shown) and "timeout" not in news:
            news["timeout"] = release_inputs.DEFAULT_TIMEOUT
        failures = [
            provider_pb2.CheckFailure(property=key, reason=reason)
            for key, reason in release_inputs.problems(shown).items()
        ]
        if not failures and not properties.has_unknown([shown["chart"], shown.get("repositoryOpts")]):
            local = release_inputs.locate(shown).local
            if local is not None:
                news["checksum"] = release_inputs.checksum(local)
        return provider_pb2.CheckResponse(inputs=properties.encode(news), failures=failures)

    def diff(self, request: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
        """Compare the inputs; a name or a namespace makes another release of it."""
        state, news = plain(properties.decode(request.olds)), plain(properties.decode(request.news))
        olds = state.get(properties.STATE_INPUTS) or plain(properties.decode(request.old_inputs))
        for key in _COMPUTED:
            if key not in news or key == "compat":
                olds.pop(key, None)
                news.pop(key, None)
        found = differences.differences(olds, news, _REPLACING)
        status = (state.get("status") or {}).get("status", _DEPLOYED)
        if status != _DEPLOYED:
            found["status.status"] = differences.Kind(kind=differences.Kind.UPDATE)
        for pattern in request.ignoreChanges:
            found = {path: kind for path, kind in found.items() if not differences.matches(pattern, path)}
        changes = provider_pb2.DiffResponse
        return provider_pb2.DiffResponse(
            changes=changes.DIFF_SOME if found else changes.DIFF_NONE,
            replaces=[path for path in found if path in ("name", "namespace")],
            detailedDiff=found,
            hasDetailedDiff=True,
        )

    def create(self, request: provider_pb2.CreateRequest) -> provider_pb2.CreateResponse:
        """Install the chart; one that this very resource began in an interrupted run is gone on with."""
        this = _operation(request.urn, properties.decode(request.properties))
        if request.preview:
            self._preview(this, exists=False)
            return provider_pb2.CreateResponse(properties=request.properties)
        self._require_cluster()
        self._require_ours(this)
        self._clear_pending(this)
        state = self._upgrade(this, request.timeout)
        return provider_pb2.CreateResponse(id=this.id, properties=properties.encode(state))

    def update(self, request: provider_pb2.UpdateRequest) -> provider_pb2.UpdateResponse:
        """Upgrade the release; one that somebody uninstalled meanwhile is made again, with a warning."""
        this = _operation(request.urn, properties.decode(request.news))
        if request.preview:
            self._preview(this, exists=True)
            return provider_pb2.UpdateResponse(properties=request.news)
        self._require_cluster()
        if not self._listed(this):
            self._say(f"{this.title} was no longer in the cluster; it is installed again", this, WARNING)
        self._clear_pending(this)
        state = self._upgrade(this, request.timeout)
        return provider_pb2.UpdateResponse(properties=properties.encode(state))

    def read(self, request: provider_pb2.ReadRequest) -> provider_pb2.ReadResponse:
        """Read the release for a refresh, or by `namespace/name` for an import; empty where it is gone."""
        given = properties.decode(request.inputs)
        namespace, _, name = request.id.rpartition("/")
        namespace = namespace or self._namespace
        where = ("--namespace", namespace)
        try:
            answers = [
                self._helm.run("get", "metadata", *where, "--output", "json", names=[name]).output,
                self._helm.run("get", "values", *where, "--output", "json", names=[name]).output,
                self._helm.run("get", "manifest", *where, names=[name]).output,
            ]
        except HelmError as error:
            if error.not_found:
                return provider_pb2.ReadResponse()
            raise RefusedError(f"Release {request.id}: {error}") from error
        metadata, values = json.loads(answers[0]), json.loads(answers[1]) or {}
        inputs = _live_inputs(given, metadata, values, name, namespace)
        state = _state(inputs, metadata, answers[2])
        return provider_pb2.ReadResponse(
            id=request.id, properties=properties.encode(state), inputs=properties.encode(inputs)
        )

    def delete(self, request: provider_pb2.DeleteRequest) -> None:
        """Uninstall the release and wait until its objects are gone; one that is gone already is fine."""
        state = properties.decode(request.properties)
        olds = plain(state.get(properties.STATE_INPUTS)) or plain(state)
        namespace, _, name = request.id.rpartition("/")
        this = _operation(request.urn, {**olds, "name": name, "namespace": namespace or self._namespace})
        seconds = release_inputs.timeout_seconds(olds, request.timeout)
        arguments = ["--namespace", this.namespace, "--ignore-not-found", "--timeout", f"{round(seconds)}s"]
        arguments += ["--wait"] if release_inputs.waits(olds) else []
        arguments += ["--no-hooks"] if olds.get("disableWebhooks") else []
        try:
            answer = self._helm.run("uninstall", *arguments, names=[this.name])
        except HelmError as error:
            raise RefusedError(
                f"{this.title} is not uninstalled: {error}. fix: see what holds its objects "
                f"(`helm status {this.name} --namespace {this.namespace} --show-resources`), then run the "
                "command again"
            ) from error
        for line in (*answer.output.splitlines(), *answer.remarks):
            if line.strip() and "uninstalled" not in line:
                self._say(line, this)  # what a chart's policy keeps, for example

    # --- before a change

    def _require_cluster(self) -> None:
        if self._cluster is None:
            raise RefusedError(self._unreachable)

    def _listed(self, this: _Operation, *arguments: str) -> dict[str, Any] | None:
        """Return Helm's entry of the release, in whatever state it is, or None."""
        pattern = f"^{this.name.replace('.', '[.]')}$"
        where = ("--namespace", this.namespace, "--all", "--filter", pattern, "--output", "json")
        try:
            found = json.loads(self._helm.run("list", *where, *arguments).output)
        except HelmError as error:
            raise RefusedError(f"{this.title}: {error}") from error
        return found[0] if found else None

    def _is_foreign(self, this: _Operation) -> bool:
        if self._settings.flag("upsertExistingObjects"):
            return False
        there = self._listed(this)
        return bool(there) and not self._listed(this, "--selector", f"{OWNER}={this.owner}")

    def _require_ours(self, this: _Operation) -> None:
        if self._is_foreign(this):
            raise RefusedError(_foreign(this))

    def _clear_pending(self, this: _Operation) -> None:
        """Undo what a killed run of ours left half done: Helm refuses every change while it is pending."""
        there = self._listed(this, "--selector", f"{OWNER}={this.owner}")
        status = str((there or {}).get("status", ""))
        if not status.startswith("pending-"):
            return
        self._say(
            f"{this.title} is {status}, left by a run that was killed; this is undone first", this, WARNING
        )
        where = ("--namespace", this.namespace)
        try:
            if status == "pending-install":
                self._helm.run("uninstall", *where, names=[this.name])
            else:
                self._helm.run("rollback", *where, names=[this.name])
        except HelmError as error:
            raise RefusedError(
                f"{this.title} is {status} and that cannot be undone: {error}. "
                f"fix: `helm rollback {this.name} --namespace {this.namespace}`, or uninstall it"
            ) from error

    # --- the change

    def _upgrade(self, this: _Operation, requested: float) -> dict[str, Any]:
        """Run `helm upgrade --install` and return the new state.

        Raises:
            PartialError: the release is there, but it failed or is not ready in time.
            RefusedError: there is no release of it.
        """
        seconds = release_inputs.timeout_seconds(this.inputs, requested)
        before = (self._listed(this) or {}).get("revision")
        arguments = (
            *("upgrade", "--install", "--namespace", this.namespace, "--output", "json"),
            *("--labels", f"{OWNER}={this.owner}"),
            *release_inputs.chart_arguments(this.inputs),
            *release_inputs.upgrade_arguments(this.inputs, seconds),
        )
        until = "until it is ready" if release_inputs.waits(this.inputs) else "without waiting"
        self._say(f"helm upgrade --install, {until}", this, passing=True)
        try:
            answer = self._run(this, arguments)
        except HelmError as error:
            raise self._failure(this, error, before) from error
        finally:
            self._say("", this, passing=True)
        for line in answer.remarks:
            self._say(line, this, WARNING if line.startswith("W") else INFO)
        release = json.loads(answer.output)
        chart = release["chart"]["metadata"]
        metadata = {
            "name": release["name"],
            "namespace": release["namespace"],
            "chart": chart["name"],
            "version": chart["version"],
            "appVersion": chart.get("appVersion", ""),
            "revision": release["version"],
            "status": release["info"]["status"],
        }
        return _state(this.given, metadata, str(release.get("manifest") or ""))

    def _run(self, this: _Operation, arguments: tuple[str, ...]) -> Any:
        chart = release_inputs.locate(this.inputs)
        return self._helm.run(
            *arguments,
            names=[this.name, chart_name(chart.reference, chart.home)],
            values=release_inputs.values_of(this.inputs),
            home=chart.home,
            secrets=secret_texts(this.given),
        )

    def _failure(self, this: _Operation, error: HelmError, before: str | None) -> Exception:
        """Return the error to raise: a partial one where Helm got as far as a new revision."""
        where = ("--namespace", this.namespace)
        try:
            get = functools.partial(self._helm.run, "get", names=[this.name], interruptible=False)
            told = get("metadata", *where, "--output", "json")
            manifest = get("manifest", *where).output
        except HelmError:
            return RefusedError(f"{this.title}: {error}")
        metadata = json.loads(told.output)
        if str(metadata["revision"]) == before:
            return RefusedError(f"{this.title} is as it was: {error}")
        message = f"{this.title} is {metadata['status']}: {error}"
        reasons = [] if self._stop.is_set() else list(self._not_ready(manifest, this.namespace))
        return PartialError(
            id=this.id,
            state=_state(this.given, metadata, manifest),
            inputs=properties.encode(this.given),
            message=message,
            # The engine shows the reasons and not the message, so what happened is the first of them.
            reasons=[message, *dict.fromkeys(reasons)][: _MOST_REASONS + 1],
        )

    def _not_ready(self, manifest: str, namespace: str) -> Iterator[str]:
        """Say what keeps the release's workloads from being ready."""
        if self._cluster is None:
            return
        for document in _documents(manifest):
            if document["kind"] in _WORKLOADS:
                document["metadata"].setdefault("namespace", namespace)
                title = f"{document['kind']} {document['metadata']['name']}"
                for reason in diagnosis.reasons(self._cluster, document, ""):
                    yield f"{title}: {reason}"

    # --- the preview

    def _preview(self, this: _Operation, *, exists: bool) -> None:
        """Render the chart where that can be done, and ask the cluster; warn of what it would refuse."""
        chart = None if properties.has_unknown(this.given) else release_inputs.locate(this.inputs)
        if chart is None or chart.local is None:
            why = (
                f"it is fetched from {chart.origin} only to be installed"
                if chart
                else "not every input is known"
            )
            self._say(f"{this.title}: the chart is not rendered in this preview, because {why}", this)
            return
        if self._cluster is not None:
            try:
                if not exists and self._is_foreign(this):
                    self._say(_foreign(this), this, WARNING)
                self._run(this, self._dry_run(this))
                return
            except HelmError as error:
                refused = str(error)
        try:
            self._run(this, self._template(this))
        except HelmError as error:
            raise RefusedError(f"{this.title}: the chart cannot be rendered: {error}") from error
        if self._cluster is not None:
            self._say(
                f"{this.title}: as the cluster is now, it would refuse this: {refused}. That is no error "
                "yet: an earlier step of this update may put it right",
                this,
                WARNING,
            )

    def _dry_run(self, this: _Operation) -> tuple[str, ...]:
        return (
            *("upgrade", "--install", "--dry-run=server", "--hide-notes", "--namespace", this.namespace),
            *release_inputs.chart_arguments(this.inputs),
            *release_inputs.upgrade_arguments(this.inputs, release_inputs.DEFAULT_TIMEOUT),
        )

    def _template(self, this: _Operation) -> tuple[str, ...]:
        return ("template", "--namespace", this.namespace, *release_inputs.chart_arguments(this.inputs))

    def _say(self, message: str, this: _Operation, severity: Any = INFO, *, passing: bool = False) -> None:
        self._log.say(message, severity=severity, urn=this.urn, passing=passing)


def _foreign(this: _Operation) -> str:
    return (
        f"{this.title} exists in the cluster already, and this stack did not make it. fix: take it over with "
        f"`pulumi import {TOKEN} NAME {this.id}`, choose another name, or uninstall it; the provider's "
        "upsertExistingObjects changes it in place"
    )


def _autoname(request: provider_pb2.CheckRequest, olds: Mapping[str, Any]) -> str:
    """Return the name of before, else the resource's name and a suffix."""
    if olds.get("name"):
        return str(olds["name"])
    modes = provider_pb2.CheckRequest.AutonamingOptions
    if request.HasField("autonaming"):
        if request.autonaming.mode == modes.DISABLE:
            raise naming.NamingError("automatic naming is switched off (pulumi:autonaming); give name")
        if request.autonaming.proposed_name:
            return request.autonaming.proposed_name
    suffix = hashlib.sha256(request.randomSeed + request.urn.encode()).hexdigest()[:8]
    return f"{request.urn.rsplit('::', 1)[-1]}-{suffix}"


def _live_inputs(
    given: dict[str, Any], metadata: Mapping[str, Any], values: dict[str, Any], name: str, namespace: str
) -> dict[str, Any]:
    """Return the inputs with what the cluster has now: the values and, of a fetched chart, the version."""
    if not given:  # an import
        found = {"chart": metadata["chart"], "version": metadata["version"], "values": values}
        return {"name": name, "namespace": namespace, **found}
    inputs = dict(given)
    old = release_inputs.values_of(plain(given))
    live = differences.prune(values, old) if plain(given).get("reuseValues") else values
    if live != old:
        marked = properties.mark_secrets({"values": live}, given)
        inputs["values"] = marked["values"]
    if plain(given).get("version") not in (None, metadata["version"]):
        inputs["version"] = metadata["version"]
    return inputs


def _state(given: dict[str, Any], metadata: Mapping[str, Any], manifest: str) -> dict[str, Any]:
    """Return the state of a release: inputs and outputs in one, as the official provider keeps them."""
    status = {key: metadata.get(key) or "" for key in ("name", "namespace", "chart", "version", "appVersion")}
    state = {key: value for key, value in plain(given).items() if key != "compat"}
    state |= {
        "version": metadata["version"],
        "resourceNames": _resource_names(manifest),
        "status": {**status, "revision": metadata["revision"], "status": metadata["status"]},
    }
    state = properties.mark_secrets(state, given)
    state[properties.STATE_INPUTS] = Secret(plain(given))
    return state


def _documents(manifest: str) -> Iterator[dict[str, Any]]:
    for document in yaml.load_all(manifest, Loader=_LOADER):
        if isinstance(document, dict) and document.get("kind") and document.get("metadata"):
            yield document


def _resource_names(manifest: str) -> dict[str, list[str]]:
    """Return the names of the objects of a manifest by kind, as `Deployment.apps/apps/v1: [ns/name]`."""
    names: dict[str, set[str]] = {}
    for document in _documents(manifest):
        api_version, metadata = str(document["apiVersion"]), document["metadata"]
        group = differences.group_of(api_version)
        kind = f"{document['kind']}.{group}" if group else str(document["kind"])
        namespace, name = metadata.get("namespace"), metadata["name"]
        names.setdefault(f"{kind}/{api_version}", set()).add(f"{namespace}/{name}" if namespace else name)
    return {key: sorted(found) for key, found in sorted(names.items())}
