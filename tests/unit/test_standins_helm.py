"""Helm releases over gRPC, as the engine calls them: with a scripted Helm, and with the real one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from local.instance import KSERVE_VERSION
from local.tools import tools_folder
from standins.kubernetes_provider import helm, properties, release_inputs, releases
from standins.kubernetes_provider.connection import Settings
from standins.kubernetes_provider.properties import UNKNOWN, Secret
from standins.kubernetes_provider.stopping import Stop
from tests.unit.test_standins_provider import World, api, bare, partial, told, world

__all__ = ["api", "bare", "world"]  # fixtures

URN = "urn:pulumi:local::modelcar::kubernetes:helm.sh/v3:Release::kserve"
OCI = "oci://ghcr.io/kserve/charts/kserve-resources"
SECRET = "s3cr3t-text"

# A Helm that keeps its releases in a file, and writes down how it was called.
FAKE = """#!{python}
import json, os, pathlib, signal, sys, time
home = pathlib.Path({folder!r})
arguments = sys.argv[1:]
if arguments[0] == "version":
    print(os.environ.get("FAKE_VERSION", "v3.22.0")); sys.exit()
text = sys.stdin.read()
kubeconfig = os.environ.get("KUBECONFIG", "")
call = dict(arguments=arguments, text=text, kubeconfig=kubeconfig)
call["mode"] = oct(os.stat(kubeconfig).st_mode & 0o777)
for name in ("HELM_REGISTRY_CONFIG", "HELM_REPOSITORY_CONFIG"):
    call[name] = pathlib.Path(os.environ[name]).read_text() if name in os.environ else None
with (home / "calls").open("a") as file:
    file.write(json.dumps(call) + "\\n")
path = home / "releases.json"
known = json.loads(path.read_text()) if path.exists() else {{}}
def flag(name): return arguments[arguments.index(name) + 1]
def save(): path.write_text(json.dumps(known))
def fail(text): print("Error: " + text, file=sys.stderr); sys.exit(1)
names = arguments[arguments.index("--") + 1:]
command = arguments[0]
if command == "repo": sys.exit()
key = flag("--namespace") + "/" + (names[0] if names else flag("--filter").strip("^$"))
if command == "list":
    found = [known[key]] if key in known else []
    if "--selector" in arguments:
        found = [one for one in found if one["owner"] == flag("--selector").split("=")[1]]
    print(json.dumps(found)); sys.exit()
fault = os.environ.get("FAKE_FAULT", "")
if command == "template" or "--dry-run=server" in arguments:
    fail(fault) if fault and fault.split(":")[0] in (command, "both") else print("kind: Secret"); sys.exit()
if command == "upgrade":
    old = known.get(key, {{}})
    if str(old.get("status")).startswith("pending"): fail("another operation is in progress")
    if fault.startswith("early"): fail(fault)
    manifest = "apiVersion: apps/v1\\nkind: Deployment\\nmetadata: {{name: d, namespace: demo}}\\n"
    made = dict(name=names[0], namespace=flag("--namespace"), values=json.loads(text))
    made.update(revision=str(int(old.get("revision", 0)) + 1), owner=flag("--labels").split("=")[1])
    known[key] = dict(made, status="failed" if fault else "deployed")
    save()
    if fault == "wait":
        signal.signal(signal.SIGTERM, lambda *_: fail("context canceled"))
        (home / "waiting").touch(); time.sleep(30)
    if fault: fail(fault)
    chart = dict(metadata=dict(name="c", version="v1.2.3"))
    made.update(info=dict(status="deployed"), version=int(made["revision"]))
    print(json.dumps(dict(made, manifest=manifest, chart=chart)))
    print("Pulled: x", file=sys.stderr)
elif command in ("uninstall", "rollback"):
    if command == "uninstall": known.pop(key, None)
    else: known[key]["status"] = "deployed"
    save()
elif key not in known: fail("release: not found")
elif arguments[1] == "values": print(json.dumps(known[key]["values"]))
elif arguments[1] == "manifest": print("")
else: print(json.dumps(dict(known[key], chart="c", version="v1.2.3", revision=int(known[key]["revision"]))))
"""


class Scripted:
    """The scripted Helm: what it was called with, and the releases that it has."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        program = folder / "helm"
        program.write_text(FAKE.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        monkeypatch.setenv("MODELCAR_HELM", str(program))

    def fault(self, text: str) -> None:
        self.monkeypatch.setenv("FAKE_FAULT", text)

    def calls(self, command: str = "") -> list[dict[str, Any]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if command in ("", call["arguments"][0])]

    @property
    def releases(self) -> dict[str, Any]:
        path = self.folder / "releases.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def put(self, key: str, **changes: str) -> None:
        known = self.releases
        namespace, name = key.split("/")
        made = {"name": name, "namespace": namespace, "revision": "1", "status": "deployed", "owner": "other"}
        known[key] = {**made, "values": {}, **known.get(key, {}), **changes}
        (self.folder / "releases.json").write_text(json.dumps(known))


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    helm._version.cache_clear()
    return Scripted(tmp_path, monkeypatch)


def inputs(**changes: Any) -> dict[str, Any]:
    made = {"chart": OCI, "version": "v0.19.0", "name": "kserve", "namespace": "demo", "values": {"a": 1}}
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def check(
    world: World, news: dict[str, Any], olds: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Any]:
    response = world.stub.Check(
        provider_pb2.CheckRequest(
            urn=URN, news=properties.encode(news), olds=properties.encode(olds or {}), randomSeed=b"seed"
        )
    )
    return properties.decode(response.inputs), {entry.property: entry.reason for entry in response.failures}


def diff(world: World, state: dict[str, Any], news: dict[str, Any]) -> provider_pb2.DiffResponse:
    response: provider_pb2.DiffResponse = world.stub.Diff(
        provider_pb2.DiffRequest(urn=URN, olds=properties.encode(state), news=properties.encode(news))
    )
    return response


def read(world: World, state: dict[str, Any], given: dict[str, Any]) -> provider_pb2.ReadResponse:
    response: provider_pb2.ReadResponse = world.stub.Read(
        provider_pb2.ReadRequest(
            id="demo/kserve", urn=URN, properties=properties.encode(state), inputs=properties.encode(given)
        )
    )
    return response


# --- check


def test_inputs_get_a_name_a_namespace_and_a_timeout(world: World) -> None:
    checked, failures = check(world, inputs(name=None, namespace=None))
    assert not failures
    assert checked["name"].startswith("kserve-")
    assert (checked["namespace"], checked["timeout"]) == ("default", 300)
    again, _ = check(world, inputs(name=None), checked)
    assert again["name"] == checked["name"]
    assert "timeout" not in check(world, inputs(skipAwait=True))[0]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"cleanUpOnFail": True}, "did you mean cleanupOnFail"),
        ({"devel": True}, "give the exact version"),
        ({"postrender": "sed"}, "say it in the chart's values"),
        ({"valueYamlFiles": ["a.yaml"]}, "values=yaml.safe_load"),
    ],
)
def test_properties_that_do_nothing_are_refused(world: World, extra: dict[str, Any], expected: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        check(world, inputs(**extra))
    assert expected in told(error)
    assert "official plugin" in told(error)


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"chart": None}, "chart", "chart: required"),
        ({"version": None}, "version", f"required for a chart from {OCI}"),
        ({"version": "^1.2.0"}, "version", "may become another chart"),
        ({"version": "1.2"}, "version", "may become another chart"),
        ({"version": "latest"}, "version", "may become another chart"),
        ({"chart": "bitnami/redis"}, "chart", "no repository is given"),
        ({"chart": "./nowhere"}, "chart", "a folder with a Chart.yaml"),
        (
            {"chart": "redis", "version": None, "repositoryOpts": {"repo": "https://c.org"}},
            "version",
            "required",
        ),
        ({"repositoryOpts": {"url": "x"}}, "repositoryOpts", "has url"),
        ({"values": "a: 1"}, "values", "not a map"),
        ({"timeout": 0}, "timeout", "more than 0"),
    ],
)
def test_what_is_not_fixed_to_one_chart_is_refused_with_the_fix(
    world: World, changes: dict[str, Any], key: str, expected: str
) -> None:
    _, failures = check(world, inputs(**changes))
    assert list(failures) == [key]
    assert expected in failures[key]
    assert "allowed: " in failures[key]
    assert "fix: " in failures[key]


def test_unknown_values_pass_and_a_digest_stands_for_a_version(world: World) -> None:
    assert not check(world, inputs(version=UNKNOWN, values={"a": UNKNOWN}))[1]
    assert not check(world, inputs(chart=UNKNOWN, version=None))[1]
    assert not check(world, inputs(repositoryOpts=UNKNOWN))[1]
    assert not check(world, inputs(chart=f"{OCI}@sha256:{'a' * 64}", version=None))[1]


def test_a_local_chart_needs_no_version_and_its_files_are_looked_at(world: World, tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text("name: c\nversion: 1.2.3\n")
    local = inputs(chart=str(tmp_path), version=None)
    before, failures = check(world, local)
    assert not failures
    (tmp_path / "values.yaml").write_text("a: 2\n")
    assert check(world, local)[0]["checksum"] != before["checksum"]
    assert "is 1.2.3" in check(world, inputs(chart=str(tmp_path), version="1.2.4"))[1]["version"]


# --- the flow


def test_a_release_is_installed_with_its_values_out_of_sight(world: World, scripted: Scripted) -> None:
    given = inputs(values={"token": Secret(SECRET), "n": 1010}, createNamespace=True, timeout=60)
    id, state = world.create(given, of=URN)
    assert id == "demo/kserve"
    assert state["status"] == {
        **{"name": "kserve", "namespace": "demo", "revision": 1, "status": "deployed"},
        **{"chart": "c", "version": "v1.2.3", "appVersion": ""},
    }
    assert state["resourceNames"] == {"Deployment.apps/apps/v1": ["demo/d"]}
    assert state["values"] == {"token": Secret(SECRET), "n": 1010}
    assert isinstance(state["__inputs"], Secret)
    (call,) = scripted.calls("upgrade")
    assert json.loads(call["text"]) == {"token": SECRET, "n": 1010}
    line = " ".join(call["arguments"])
    assert SECRET not in line
    for part in (
        "--install",
        "--wait",
        "--create-namespace",
        "--timeout 60s",
        "--version v0.19.0",
        "--values -",
    ):
        assert part in line
    assert line.endswith(f"-- kserve {OCI}")
    assert call["mode"] == "0o600", "the kubeconfig that was given as text"
    assert not Path(call["kubeconfig"]).exists(), "and it is gone"
    assert "Pulled: x" in world.engine.kept


def test_flags_follow_the_inputs(scripted: Scripted) -> None:
    given = inputs(skipAwait=True, skipCrds=True, takeOwnership=True, maxHistory=0, description="why")
    arguments = " ".join(release_inputs.upgrade_arguments(given, 5))
    assert arguments == "--skip-crds --take-ownership --description why --history-max 0 --timeout 5s"
    assert "--wait" in release_inputs.upgrade_arguments(inputs(skipAwait=True, atomic=True), 5)
    assert "--wait-for-jobs" in release_inputs.upgrade_arguments(inputs(waitForJobs=True), 5)
    assert release_inputs.values_of({"values": {"a": None, "b": [None, 1]}}) == {"b": [1]}
    assert release_inputs.values_of({"values": {"a": None}, "allowNullValues": True}) == {"a": None}


def test_credentials_of_a_registry_and_a_repository_are_not_on_the_command_line(
    world: World, scripted: Scripted
) -> None:
    user = {"username": "u", "password": Secret(SECRET)}
    world.create(inputs(repositoryOpts=user), of=URN)
    (call,) = scripted.calls("upgrade")
    assert list(json.loads(call["HELM_REGISTRY_CONFIG"])["auths"]) == ["ghcr.io"]
    world.create(
        inputs(chart="redis", name="other", repositoryOpts={"repo": "https://c.org", **user}), of=URN
    )
    (added,) = scripted.calls("repo")
    assert added["text"] == SECRET
    assert "--password-stdin" in added["arguments"]
    assert scripted.calls("upgrade")[1]["arguments"][-2:] == ["other", "release/redis"]
    assert not any(SECRET in argument for call in scripted.calls() for argument in call["arguments"])


def test_a_repository_without_credentials_is_named_by_its_address(scripted: Scripted, world: World) -> None:
    world.create(inputs(chart="redis", repositoryOpts={"repo": "https://c.org/"}), of=URN)
    line = " ".join(scripted.calls("upgrade")[0]["arguments"])
    assert "--repo https://c.org" in line
    assert line.endswith("-- kserve redis")


def test_a_release_of_somebody_else_is_not_taken_over(world: World, scripted: Scripted) -> None:
    scripted.put("demo/kserve")
    with pytest.raises(grpc.RpcError) as error:
        world.create(inputs(), of=URN)
    assert "Release demo/kserve exists in the cluster already" in told(error)
    assert "pulumi import" in told(error)
    assert not scripted.calls("upgrade")
    world.configure(upsertExistingObjects="true")
    world.create(inputs(), of=URN)


def test_what_a_killed_run_left_pending_is_undone_first(world: World, scripted: Scripted) -> None:
    _, state = world.create(inputs(), of=URN)
    scripted.put("demo/kserve", status="pending-upgrade")
    world.update(state, inputs(values={"a": 2}), of=URN)
    assert scripted.calls("rollback")
    scripted.put("demo/kserve", status="pending-install")
    world.create(inputs(), of=URN)
    assert scripted.calls("uninstall")
    assert any("left by a run that was killed" in message for message in world.engine.kept)


def test_a_failed_release_stays_in_the_state_with_the_reasons(world: World, scripted: Scripted) -> None:
    scripted.fault(f"context deadline exceeded: {SECRET}")
    with pytest.raises(grpc.RpcError) as error:
        world.create(inputs(values={"token": Secret(SECRET)}), of=URN)
    failed = partial(error)
    assert failed.id == "demo/kserve"
    assert failed.reasons[0] == "Release demo/kserve is failed: context deadline exceeded: [secret]"
    state = properties.decode(failed.properties)
    assert state["status"]["status"] == "failed"
    assert "status.status" in diff(world, state, inputs(values={"token": Secret(SECRET)})).detailedDiff


def test_a_change_that_helm_refuses_leaves_the_state_alone(world: World, scripted: Scripted) -> None:
    _, state = world.create(inputs(), of=URN)
    scripted.fault("early: values do not fit the schema")
    with pytest.raises(grpc.RpcError) as error:
        world.update(state, inputs(values={"a": "x"}), of=URN)
    assert told(error) == "Release demo/kserve is as it was: early: values do not fit the schema"


def test_cancel_ends_helm_and_keeps_the_release(world: World, scripted: Scripted) -> None:
    scripted.fault("wait")
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.create, inputs(), of=URN)
        for _ in range(200):
            if (scripted.folder / "waiting").exists():
                break
            threading.Event().wait(0.05)
        world.stub.Cancel(empty_pb2.Empty())
        with pytest.raises(grpc.RpcError) as error:
            creation.result(20)
    assert "context canceled (cancelled)" in partial(error).reasons[0]


def test_a_change_of_values_or_version_upgrades_and_of_the_name_replaces(
    world: World, scripted: Scripted
) -> None:
    _, state = world.create(inputs(), of=URN)
    assert diff(world, state, inputs()).changes == provider_pb2.DiffResponse.DIFF_NONE
    changed = diff(world, state, inputs(values={"a": 2}, version="v0.19.1"))
    assert sorted(changed.detailedDiff) == ["values.a", "version"]
    assert not changed.replaces
    assert list(diff(world, state, inputs(name="other")).replaces) == ["name"]
    assert list(diff(world, state, inputs(namespace="other")).replaces) == ["namespace"]
    after = world.update(state, inputs(values={"a": 2}), of=URN)
    assert after["status"]["revision"] == 2


def test_a_state_of_the_official_plugin_is_no_change(world: World, scripted: Scripted) -> None:
    computed = {"checksum": "abc", "resourceNames": {"ConfigMap/v1": ["demo/c"]}}
    state = {**inputs(), **computed, "__inputs": Secret({**inputs(), **computed})}
    assert diff(world, state, {**inputs(), "compat": "true"}).changes == provider_pb2.DiffResponse.DIFF_NONE


def test_a_refresh_reads_drift_and_notices_what_is_gone(world: World, scripted: Scripted) -> None:
    given = inputs(version="v1.2.3", values={"a": 1, "token": Secret("t")})
    _, state = world.create(given, of=URN)
    assert properties.decode(read(world, state, given).inputs) == given
    scripted.put("demo/kserve", values={"a": 5, "token": "t"})  # type: ignore[arg-type]
    drifted = properties.decode(read(world, state, given).inputs)
    assert drifted["values"] == {"a": 5, "token": Secret("t")}
    imported = properties.decode(read(world, {}, {}).inputs)
    assert imported["chart"] == "c"
    (scripted.folder / "releases.json").write_text("{}")
    assert read(world, state, given).id == ""


def test_a_delete_uninstalls_and_waits(world: World, scripted: Scripted) -> None:
    _, state = world.create(inputs(), of=URN)
    world.stub.Delete(
        provider_pb2.DeleteRequest(id="demo/kserve", urn=URN, properties=properties.encode(state))
    )
    line = " ".join(scripted.calls("uninstall")[0]["arguments"])
    assert line == "uninstall --namespace demo --ignore-not-found --timeout 300s --wait -- kserve"
    assert not scripted.releases


# --- previews


@pytest.fixture
def chart(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "chart"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: c\nversion: 1.2.3\n")
    (folder / "templates" / "a.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
        'data: {a: {{ required "a is missing" .Values.a }}}\n'
    )
    return inputs(chart=str(folder), version=None)


def test_a_preview_of_a_chart_to_be_fetched_says_so(world: World, scripted: Scripted) -> None:
    assert world.create(inputs(), preview=True, of=URN)[1] == inputs()
    assert any(f"is fetched from {OCI} only to be installed" in line for line in world.engine.kept)
    assert not scripted.calls()


def test_a_preview_with_unknown_values_says_so(
    world: World, scripted: Scripted, chart: dict[str, Any]
) -> None:
    world.create({**chart, "values": {"a": UNKNOWN}}, preview=True, of=URN)
    assert any("not every input is known" in line for line in world.engine.kept)


def test_a_preview_asks_the_cluster_and_warns_of_what_it_would_refuse(
    world: World, scripted: Scripted, chart: dict[str, Any]
) -> None:
    world.create(chart, preview=True, of=URN)
    (call,) = scripted.calls("upgrade")
    assert "--dry-run=server" in call["arguments"]
    scripted.fault("upgrade: no matches for kind")
    world.create(chart, preview=True, of=URN)
    assert any("it would refuse this: upgrade: no matches for kind" in line for line in world.engine.kept)
    scripted.fault("both: bad template")
    with pytest.raises(grpc.RpcError) as error:
        world.create(chart, preview=True, of=URN)
    assert "the chart cannot be rendered: both: bad template" in told(error)


# --- the binary


def test_without_helm_the_error_says_how_to_get_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELCAR_HELM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(grpc.RpcError) as error:
        world.create(inputs(), of=URN)
    assert "helm: not on PATH" in told(error)
    assert "python -m local.tools helm" in told(error)
    monkeypatch.setenv("MODELCAR_HELM", "/nowhere/helm")
    with pytest.raises(grpc.RpcError) as error:
        world.create(inputs(), of=URN)
    assert "MODELCAR_HELM: /nowhere/helm is no program" in told(error)


@pytest.mark.parametrize("version", ["v3.13.3", "v4.0.0", "broken"])
def test_another_helm_than_3_is_refused(
    world: World, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("FAKE_VERSION", version)
    with pytest.raises(grpc.RpcError) as error:
        world.create(inputs(), of=URN)
    assert f"is of version {version}. allowed: Helm 3.14" in told(error)


def test_only_the_release_itself_is_taken_for_one() -> None:
    assert releases.is_release(URN)
    assert releases.is_release(URN.replace("kubernetes:helm", "a:b:C$kubernetes:helm"))
    assert not releases.is_release(URN.replace("v3:Release", "v4:Chart"))


# --- the real Helm


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which("helm") or str(tools_folder() / "bin" / "helm")
    if not os.access(found, os.X_OK):
        pytest.skip("there is no helm; `python -m local.tools helm` builds it")
    monkeypatch.setenv("MODELCAR_HELM", found)
    helm._version.cache_clear()


def test_the_real_helm_renders_a_preview_and_says_what_a_chart_lacks(
    bare: World, real: None, chart: dict[str, Any]
) -> None:
    """Without a cluster: only the chart itself is looked at."""
    bare.api.shutdown()
    bare.api.server_close()
    bare.configure()
    bare.create(chart, preview=True, of=URN)
    with pytest.raises(grpc.RpcError) as error:
        bare.create({**chart, "values": {}}, preview=True, of=URN)
    assert "a is missing" in told(error)


def test_the_real_helm_puts_the_values_into_kserves_configuration(bare: World, real: None) -> None:
    """A number of a million or more turns into 1.00065e+09 in a chart's text, which KServe cannot read."""
    folder = tools_folder() / f"kserve-{KSERVE_VERSION}" / "charts" / "kserve-resources"
    if not folder.exists():
        pytest.skip(f"{folder} is not there; `make platform` copies it out of KServe's Go module")
    runner = helm.Helm(Settings(bare.api.kubeconfig, "", "", frozenset()), Stop())
    for uid, shown in ((1010, "1010"), (1000650000, "1.00065e+09"), ("1000650000", "1000650000")):
        values = {"kserve": {"storage": {"enableModelcar": False, "uidModelcar": uid}}}
        rendered = runner.run("template", names=["kserve", str(folder)], values=values).output
        assert '"enableModelcar": false' in rendered
        assert f'"uidModelcar": {shown},' in rendered
