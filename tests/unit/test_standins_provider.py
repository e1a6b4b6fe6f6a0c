"""The provider over gRPC, as the engine calls it, against a small API server in this process."""

from __future__ import annotations

import copy
import json
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest
import yaml
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc, status_pb2

from standins.kubernetes_provider import naming, properties
from standins.kubernetes_provider.properties import UNKNOWN, Secret
from standins.kubernetes_provider.provider import NOTICE, Provider
from standins.plugin import EngineLog

KINDS = {
    "/api/v1": [
        ("Namespace", "namespaces", False),
        ("ConfigMap", "configmaps", True),
        ("Secret", "secrets", True),
        ("Pod", "pods", True),
        ("Event", "events", True),
    ],
    "/apis/apps/v1": [("Deployment", "deployments", True)],
    "/apis/example.org/v1": [("Thing", "things", True)],
}
DENIED = 'admission webhook "check.example.org" denied the request: replicas must be odd'


def urn(kind: str = "core/v1:ConfigMap", name: str = "settings") -> str:
    return f"urn:pulumi:local::modelcar::kubernetes:{kind}::{name}"


class ApiServer(ThreadingHTTPServer):
    """Discovery, server-side apply with field managers, finalizers and watches; enough for these tests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict[str, Any]] = {
            "/api/v1/namespaces/demo": thing("v1", "Namespace", "demo")
        }
        self.owners: dict[tuple[str, str], str] = {}
        self.requests: list[str] = []
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        # Every event there was: version, collection and what a watcher gets.
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.version = 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def kubeconfig(self) -> str:
        return yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )

    def put(self, path: str, value: dict[str, Any]) -> dict[str, Any]:
        """Store an object as a controller would, and tell the watchers."""
        with self.lock:
            kind = "MODIFIED" if path in self.objects else "ADDED"
            self.version += 1
            value["metadata"].setdefault("uid", f"uid-{self.version}")
            value["metadata"].setdefault("generation", 1)
            value["metadata"]["resourceVersion"] = str(self.version)
            self.objects[path] = value
            self._tell(kind, path, value)
            return value

    def remove(self, path: str) -> None:
        with self.lock:
            self.version += 1
            value = self.objects.pop(path)
            value["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", path, value)

    def _tell(self, kind: str, path: str, value: dict[str, Any]) -> None:
        event = {"type": kind, "object": copy.deepcopy(value)}
        self.events.append((self.version, path.rsplit("/", 1)[0], event))
        self.changed.notify_all()

    def event_after(self, version: int, collection: str) -> tuple[int, dict[str, Any]]:
        """Return the next event of a collection, waiting for it."""
        with self.changed:
            while True:
                for at, where, event in self.events:
                    if at > version and where == collection:
                        return at, event
                if not self.changed.wait(30):
                    raise TimeoutError


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def answer(self, status: int, body: dict[str, Any], **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, reason: str, message: str, **details: Any) -> None:
        self.answer(
            status,
            {"kind": "Status", "code": status, "reason": reason, "message": message, "details": details},
        )

    def parts(self) -> tuple[str, dict[str, str], Any]:
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {address.path}{' dry' if 'dryRun' in query else ''}")
        return address.path, query, json.loads(body) if body else None

    def do_GET(self) -> None:
        path, query, _ = self.parts()
        if path == "/version":
            return self.answer(200, {"gitVersion": "v1.34.0"})
        if path in KINDS:
            listed = [
                {"kind": kind, "name": name, "namespaced": scoped} for kind, name, scoped in KINDS[path]
            ]
            return self.answer(200, {"resources": listed})
        if "watch" in query:
            return self.stream(path, int(query["resourceVersion"]))
        plurals = {name for kinds in KINDS.values() for _, name, _ in kinds}
        if path.rsplit("/", 1)[-1] in plurals:
            with self.server.lock:
                items = [value for key, value in self.server.objects.items() if key.rsplit("/", 1)[0] == path]
                version = str(self.server.version)
            name = query.get("fieldSelector", "").removeprefix("metadata.name=")
            if "fieldSelector" in query and "type=" not in query["fieldSelector"]:
                items = [item for item in items if item["metadata"]["name"] == name]
            return self.answer(200, {"metadata": {"resourceVersion": version}, "items": items})
        if path in self.server.objects:
            return self.answer(200, self.server.objects[path])
        return self.refuse(404, "NotFound", f"{path} not found")

    def stream(self, path: str, version: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                version, event = self.server.event_after(version, path)
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        except OSError:  # the watcher has gone, or nothing happened for long
            pass

    def do_PATCH(self) -> None:
        path, query, wanted = self.parts()
        server, manager, force = self.server, query["fieldManager"], query["force"] == "true"
        metadata = wanted["metadata"]
        namespace = metadata.get("namespace")
        with server.lock:
            if namespace and f"/api/v1/namespaces/{namespace}" not in server.objects:
                return self.refuse(404, "NotFound", f'namespaces "{namespace}" not found')
            if wanted.get("spec", {}).get("replicas", 1) % 2 == 0:
                return self.refuse(403, "Forbidden", DENIED)
            fields = {f".data.{key}": value for key, value in wanted.get("data", {}).items()}
            old = server.objects.get(path)
            conflicts = [
                {"field": field, "message": f'conflict with "{owner}"'}
                for field, value in fields.items()
                if (owner := server.owners.get((path, field), manager)) != manager
                and old is not None
                and old["data"].get(field.removeprefix(".data.")) != value
            ]
            if conflicts and not force:
                return self.refuse(409, "Conflict", "Apply failed with 1 conflict", causes=conflicts)
            merged = merge(copy.deepcopy(old) if old else {}, wanted)
            merged["metadata"]["managedFields"] = [{"manager": manager, "operation": "Apply"}]
            warned = (
                {"Warning": '299 - "unknown field \\"spec.typo\\""'}
                if "typo" in wanted.get("spec", {})
                else {}
            )
            if "dryRun" not in query:
                server.owners.update({(path, field): manager for field in fields})
                if merged != old:
                    merged = server.put(path, merged)
            return self.answer(200, merged, **warned)

    def do_DELETE(self) -> None:
        path, _, _ = self.parts()
        with self.server.lock:
            if path not in self.server.objects:
                return self.refuse(404, "NotFound", "not found")
            if not self.server.objects[path]["metadata"].get("finalizers"):
                self.server.remove(path)
            return self.answer(200, {"kind": "Status"})


def merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
    return new


def thing(api_version: str, kind: str, name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def config_map(name: str = "settings", namespace: str = "demo", **data: Any) -> dict[str, Any]:
    return thing("v1", "ConfigMap", name, namespace, data=data)


SETTINGS = "/api/v1/namespaces/demo/configmaps/settings"
THING = "/apis/example.org/v1/namespaces/demo/things/a"
THING_URN = urn("example.org/v1:Thing", "a")


def waiting_thing(seconds: int = 20, **spec: Any) -> dict[str, Any]:
    wanted = thing("example.org/v1", "Thing", "a", "demo", spec=spec)
    wanted["metadata"]["annotations"] = {
        "pulumi.com/waitFor": "condition=Ready",
        "pulumi.com/timeoutSeconds": str(seconds),
    }
    return wanted


class Engine(engine_pb2_grpc.EngineServicer):
    """Takes the log."""

    def __init__(self) -> None:
        self.messages: queue.Queue[engine_pb2.LogRequest] = queue.Queue()
        self.kept: list[str] = []

    def Log(self, request: engine_pb2.LogRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.messages.put(request)
        if not request.ephemeral:
            self.kept.append(request.message)
        return empty_pb2.Empty()

    def until(self, text: str) -> None:
        """Wait for a message with this text in it."""
        while text not in self.messages.get(timeout=20).message:
            pass


class World:
    """The engine's side of a provider: a client, what was logged, and the API server."""

    def __init__(self, stub: provider_pb2_grpc.ResourceProviderStub, engine: Engine, api: ApiServer) -> None:
        self.stub, self.engine, self.api = stub, engine, api

    def configure(self, **args: Any) -> None:
        given = {"kubeconfig": self.api.kubeconfig, **args}
        self.stub.Configure(provider_pb2.ConfigureRequest(args=properties.encode(given)))

    def check(self, news: dict[str, Any], olds: dict[str, Any] | None = None) -> provider_pb2.CheckResponse:
        response: provider_pb2.CheckResponse = self.stub.Check(
            provider_pb2.CheckRequest(
                urn=urn(),
                news=properties.encode(news),
                olds=properties.encode(olds or {}),
                randomSeed=b"seed",
            )
        )
        return response

    def create(
        self, wanted: dict[str, Any], *, preview: bool = False, of: str = ""
    ) -> tuple[str, dict[str, Any]]:
        response = self.stub.Create(
            provider_pb2.CreateRequest(urn=of or urn(), properties=properties.encode(wanted), preview=preview)
        )
        return response.id, properties.decode(response.properties)

    def update(
        self, old: dict[str, Any], wanted: dict[str, Any], *, preview: bool = False, of: str = ""
    ) -> dict[str, Any]:
        response = self.stub.Update(
            provider_pb2.UpdateRequest(
                urn=of or urn(),
                olds=properties.encode(old),
                news=properties.encode(wanted),
                preview=preview,
            )
        )
        return properties.decode(response.properties)

    def diff(self, old: dict[str, Any], wanted: dict[str, Any]) -> provider_pb2.DiffResponse:
        response: provider_pb2.DiffResponse = self.stub.Diff(
            provider_pb2.DiffRequest(urn=urn(), olds=properties.encode(old), news=properties.encode(wanted))
        )
        return response

    def read(
        self, id: str, state: dict[str, Any] | None = None, inputs: dict[str, Any] | None = None
    ) -> provider_pb2.ReadResponse:
        response: provider_pb2.ReadResponse = self.stub.Read(
            provider_pb2.ReadRequest(
                id=id,
                urn=urn(),
                properties=properties.encode(state or {}),
                inputs=properties.encode(inputs or {}),
            )
        )
        return response

    def delete(self, state: dict[str, Any], *, of: str = "") -> None:
        self.stub.Delete(provider_pb2.DeleteRequest(urn=of or urn(), properties=properties.encode(state)))


@pytest.fixture
def api() -> Iterator[ApiServer]:
    server = ApiServer()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def bare(api: ApiServer) -> Iterator[World]:
    """A provider that is not configured yet."""
    engine, log = Engine(), EngineLog()
    host = grpc.server(ThreadPoolExecutor(16))
    engine_pb2_grpc.add_EngineServicer_to_server(engine, host)
    engine_port = host.add_insecure_port("127.0.0.1:0")
    host.start()
    provider = Provider(log)
    server = grpc.server(ThreadPoolExecutor(16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # The detail of a partial failure travels in the trailers, which Python's client limits by default.
    options = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address=f"127.0.0.1:{engine_port}"))
        yield World(stub, engine, api)
        provider.stop()
    server.stop(None)
    host.stop(None)


@pytest.fixture
def world(bare: World) -> World:
    bare.configure()
    return bare


def told(error: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    value = error.value
    assert isinstance(value, grpc.Call)
    return str(value.details())


def partial(error: pytest.ExceptionInfo[grpc.RpcError]) -> provider_pb2.ErrorResourceInitFailed:
    value = error.value
    assert isinstance(value, grpc.Call)
    (blob,) = [item for key, item in value.trailing_metadata() if key == "grpc-status-details-bin"]
    assert isinstance(blob, bytes)
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(blob).details[0].Unpack(detail)
    return detail


# --- the provider itself


def test_it_says_once_that_it_is_a_stand_in(world: World) -> None:
    world.configure()
    assert world.engine.kept.count(NOTICE) == 1


def test_a_kubeconfig_that_is_not_there_is_refused_before_anything_is_planned(bare: World) -> None:
    response = bare.stub.CheckConfig(
        provider_pb2.CheckRequest(news=properties.encode({"kubeconfig": "/nowhere", "strictMode": "true"}))
    )
    assert {failure.property for failure in response.failures} == {"kubeconfig", "strictMode"}
    later = properties.encode({"kubeconfig": UNKNOWN})
    assert not bare.stub.CheckConfig(provider_pb2.CheckRequest(news=later)).failures


def test_the_provider_is_replaced_only_when_it_moves_to_another_server(bare: World) -> None:
    here = bare.api.kubeconfig
    for kubeconfig, replaced in (
        (here + "\n# a remark", []),
        (here.replace("127.0.0.1", "h"), ["kubeconfig"]),
    ):
        response = bare.stub.DiffConfig(
            provider_pb2.DiffRequest(
                olds=properties.encode({"kubeconfig": here}),
                news=properties.encode({"kubeconfig": kubeconfig}),
            )
        )
        assert list(response.replaces) == replaced


def test_without_a_server_a_preview_works_and_up_says_what_is_wrong_in_one_line(bare: World) -> None:
    url = bare.api.url
    bare.api.shutdown()
    bare.api.server_close()
    bare.configure()
    wanted = config_map(a="b")
    assert bare.create(wanted, preview=True) == ("", wanted)
    with pytest.raises(grpc.RpcError) as error:
        bare.create(wanted)
    assert f"the Kubernetes API server {url} cannot be reached: " in told(error)
    assert "fix:" in told(error)
    assert "\n" not in told(error)


# --- check and diff


def test_an_object_without_kind_is_refused(world: World) -> None:
    failures = world.check({"apiVersion": "v1", "metadata": {}}).failures
    assert [failure.property for failure in failures] == ["kind"]


def test_names_and_namespaces_are_filled_in(world: World) -> None:
    inputs = properties.decode(world.check({"apiVersion": "v1", "kind": "ConfigMap"}).inputs)
    assert inputs["metadata"]["name"].startswith("settings-")
    assert inputs["metadata"]["namespace"] == "default"
    inputs = properties.decode(
        world.check({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}).inputs
    )
    assert "namespace" not in inputs["metadata"]


def test_a_wait_that_is_not_understood_is_refused_in_preview(world: World) -> None:
    wanted = waiting_thing()
    wanted["metadata"]["annotations"]["pulumi.com/waitFor"] = "Ready"
    with pytest.raises(grpc.RpcError) as error:
        world.check(wanted)
    assert "pulumi.com/waitFor: Ready. allowed: condition=TYPE" in told(error)


@pytest.mark.parametrize("kind", ["core/v1:NamespacePatch", "core/v1:ConfigMapList"])
def test_kinds_that_are_no_single_object_are_refused(world: World, kind: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        world.stub.Check(provider_pb2.CheckRequest(urn=urn(kind), news=properties.encode(config_map())))
    assert "official plugin" in told(error)


def test_a_new_name_creates_first_and_the_same_name_deletes_first(world: World) -> None:
    _, state = world.create(config_map(a="1"))
    renamed = world.diff(state, config_map("other", a="1"))
    assert list(renamed.replaces) == ["metadata.name"]
    assert not renamed.deleteBeforeReplace
    assert world.diff(state, config_map(a="2")).deleteBeforeReplace


def test_what_a_controller_adds_is_no_change(world: World) -> None:
    _, state = world.create(config_map(a="1"))
    state["data"]["added"] = "x"
    state["metadata"]["labels"] = {"added": "x"}
    assert world.diff(state, config_map(a="1")).changes == provider_pb2.DiffResponse.DIFF_NONE


# --- create, update, read, delete


def test_the_state_holds_the_live_object_and_keeps_secrets(world: World) -> None:
    id, state = world.create(config_map(token=Secret("t"), open="o"))
    assert id == "demo/settings"
    assert state["metadata"]["uid"]
    assert state["data"] == {"token": Secret("t"), "open": "o"}
    assert world.api.objects[SETTINGS]["data"]["token"] == "t"


def test_a_preview_asks_the_server_and_changes_nothing(world: World) -> None:
    id, state = world.create(config_map(a="1"), preview=True)
    assert (id, state["data"]) == ("", {"a": "1"})
    assert f"PATCH {SETTINGS} dry" in world.api.requests
    assert SETTINGS not in world.api.objects


def test_a_webhook_refuses_in_the_preview_with_its_own_words(world: World) -> None:
    wanted = thing("example.org/v1", "Thing", "a", "demo", spec={"replicas": 2})
    for preview in (True, False):
        with pytest.raises(grpc.RpcError) as error:
            world.create(wanted, preview=preview, of=THING_URN)
        assert told(error) == DENIED


@pytest.mark.parametrize(
    "wanted",
    [
        config_map(namespace="later", a="1"),
        config_map(a=UNKNOWN),
        thing("later.org/v1", "Later", "a", "demo"),
    ],
    ids=["namespace", "unknown value", "kind"],
)
def test_a_preview_goes_on_where_the_server_cannot_judge_yet(world: World, wanted: dict[str, Any]) -> None:
    assert world.create(wanted, preview=True) == ("", wanted)


def test_what_the_server_warns_of_reaches_the_user(world: World) -> None:
    world.create(thing("example.org/v1", "Thing", "a", "demo", spec={"typo": 1}), of=THING_URN)
    assert 'Thing demo/a: unknown field "spec.typo"' in world.engine.kept


def test_an_object_of_somebody_else_is_not_taken_over(world: World) -> None:
    world.api.put(SETTINGS, config_map(a="theirs"))
    with pytest.raises(grpc.RpcError) as error:
        world.create(config_map(a="ours"))
    assert "ConfigMap demo/settings exists in the cluster already" in told(error)
    assert "pulumi import" in told(error)
    assert world.api.objects[SETTINGS]["data"] == {"a": "theirs"}

    world.configure(upsertExistingObjects="true")
    world.create(config_map(a="ours"))
    assert world.api.objects[SETTINGS]["data"] == {"a": "ours"}


def test_an_object_of_an_interrupted_run_is_taken_up_again(world: World) -> None:
    ours = config_map(a="1")
    ours["metadata"]["managedFields"] = [{"manager": naming.field_manager(urn()), "operation": "Apply"}]
    world.api.put(SETTINGS, ours)
    assert world.create(config_map(a="2"))[0] == "demo/settings"


def test_a_conflict_is_refused_with_its_owner_and_the_way_out(world: World) -> None:
    _, state = world.create(config_map(a="1"))
    world.api.owners[(SETTINGS, ".data.a")] = "gitops"
    for preview in (True, False):
        with pytest.raises(grpc.RpcError) as error:
            world.update(state, config_map(a="2"), preview=preview)
        assert '.data.a: conflict with "gitops"' in told(error)
        assert "pulumi.com/patchForce" in told(error)

    forced = config_map(a="2")
    forced["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    world.update(state, forced)
    assert world.api.objects[SETTINGS]["data"] == {"a": "2"}


def test_what_a_person_changed_with_kubectl_is_taken_back(world: World) -> None:
    _, state = world.create(config_map(a="1"))
    world.api.owners[(SETTINGS, ".data.a")] = "kubectl-edit"
    world.api.objects[SETTINGS]["data"]["a"] = "by hand"
    world.update(state, config_map(a="1"))
    assert world.api.objects[SETTINGS]["data"] == {"a": "1"}


def test_an_update_of_a_deleted_object_makes_it_again_and_says_so(world: World) -> None:
    _, state = world.create(config_map(a="1"))
    world.api.remove(SETTINGS)
    world.update(state, config_map(a="2"))
    assert world.api.objects[SETTINGS]["data"] == {"a": "2"}
    assert any("no longer in the cluster" in message for message in world.engine.kept)


def test_a_refresh_reads_drift_into_the_inputs_and_nothing_else(world: World) -> None:
    inputs = config_map(a="1", token=Secret("t"))
    id, state = world.create(inputs)
    world.api.objects[SETTINGS]["data"] = {"a": "drifted", "token": "t", "added": "x"}
    response = world.read(id, state, inputs)
    assert properties.decode(response.inputs)["data"] == {"a": "drifted", "token": Secret("t")}
    assert properties.decode(response.properties)["data"]["added"] == "x"


def test_a_refresh_of_a_deleted_object_says_that_it_is_gone(world: World) -> None:
    id, state = world.create(config_map(a="1"))
    world.api.remove(SETTINGS)
    assert world.read(id, state, config_map(a="1")).id == ""


def test_an_import_takes_everything_that_the_server_did_not_fill_in(world: World) -> None:
    live = config_map(a="1")
    live["metadata"] |= {"generation": 3, "annotations": {"keep": "x"}, "managedFields": []}
    world.api.put(SETTINGS, {**live, "status": {"x": 1}})
    response = world.read("demo/settings")
    expected = config_map(a="1")
    expected["metadata"]["annotations"] = {"keep": "x"}
    assert properties.decode(response.inputs) == expected


def test_a_refresh_of_what_a_program_only_reads_changes_nothing(world: World) -> None:
    world.api.put(SETTINGS, config_map(a="1"))
    first = world.read("demo/settings")
    again = world.read("demo/settings", properties.decode(first.properties), {})
    assert (again.inputs, again.properties) == (first.inputs, first.properties)


def test_a_delete_waits_until_the_finalizers_are_done(world: World) -> None:
    _, state = world.create(config_map(a="1"))
    world.api.objects[SETTINGS]["metadata"]["finalizers"] = ["example.org/held"]
    with ThreadPoolExecutor(1) as pool:
        deletion = pool.submit(world.delete, state)
        world.engine.until("waiting for finalizers: example.org/held")
        assert not deletion.done()
        world.api.remove(SETTINGS)
        deletion.result(20)


def test_deleting_what_is_gone_is_fine(world: World) -> None:
    _, state = world.create(config_map(a="1"))
    world.api.remove(SETTINGS)
    world.delete(state)


# --- waiting


def conditions_of(status: str, **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": status, **more}]}


def test_a_create_waits_for_the_condition(world: World) -> None:
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.create, waiting_thing(), of=THING_URN)
        world.engine.until("condition Ready is not there yet")
        assert not creation.done()
        world.api.put(THING, {**world.api.objects[THING], "status": conditions_of("True")})
        id, state = creation.result(20)
    assert id == "demo/a"
    assert state["status"] == conditions_of("True")


def test_a_wait_that_ends_by_time_keeps_the_object_and_tells_why(world: World) -> None:
    event = thing(
        "v1", "Event", "e", "demo", reason="Broken", message="no luck", lastTimestamp="2026-01-01T00:00:00Z"
    )
    event["involvedObject"] = {"kind": "Thing", "name": "a"}
    world.api.put("/api/v1/namespaces/demo/events/e", event)
    world.api.put(
        THING,
        {
            **thing("example.org/v1", "Thing", "a", "demo"),
            "status": conditions_of("False", reason="ImagePull", message="it is not there"),
        },
    )
    world.configure(upsertExistingObjects="true")
    with pytest.raises(grpc.RpcError) as error:
        world.create(waiting_thing(1), of=THING_URN)
    failed = partial(error)
    assert failed.id == "demo/a"
    assert properties.decode(failed.properties)["metadata"]["uid"]
    assert properties.decode(failed.inputs) == waiting_thing(1)
    first, *others = failed.reasons
    assert "Thing demo/a: not ready after 1 s (waited for condition=Ready)" in first
    assert "condition Ready is False: ImagePull - it is not there" in others
    assert "event Broken on Thing a: no luck" in others


def test_cancel_ends_a_wait_and_keeps_the_object(world: World) -> None:
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.create, waiting_thing(600), of=THING_URN)
        world.engine.until("condition Ready is not there yet")
        world.stub.Cancel(empty_pb2.Empty())
        with pytest.raises(grpc.RpcError) as error:
            creation.result(20)
    assert partial(error).id == "demo/a"
    assert "cancelled" in partial(error).reasons[0]


def test_skip_await_does_not_wait(world: World) -> None:
    wanted = waiting_thing()
    wanted["metadata"]["annotations"]["pulumi.com/skipAwait"] = "true"
    assert world.create(wanted, of=THING_URN)[0] == "demo/a"


def test_a_deployment_is_waited_for_without_being_asked(world: World) -> None:
    wanted = thing("apps/v1", "Deployment", "d", "demo", spec={"replicas": 1})
    path = "/apis/apps/v1/namespaces/demo/deployments/d"
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.create, wanted, of=urn("apps/v1:Deployment", "d"))
        world.engine.until("Deployment d:")
        live = world.api.objects[path]
        status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
        world.api.put(path, {**live, "status": status})
        assert creation.result(20)[0] == "demo/d"


def test_functions_and_components_are_refused_loudly(world: World) -> None:
    with pytest.raises(grpc.RpcError) as error:
        world.stub.Invoke(provider_pb2.InvokeRequest(tok="kubernetes:yaml:decode"))
    assert "kubernetes:yaml:decode" in told(error)
    assert "official plugin" in told(error)
