"""The campaign itself: its plan follows from the seed, it goes on where it was, and it counts right."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient, TestServer

from local.processor import architecture
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.lock import lock_path
from modelcar.lock_reader import read_lock
from tests.campaign import __main__ as campaign_main
from tests.campaign import inputs, sameness
from tests.campaign.faults import KINDS
from tests.campaign.front import Rule, Rules, application
from tests.campaign.journal import LOST, MISSED, SAME, Case, Journal, Result, document, plan, report
from tests.campaign.prober import Prober
from tests.campaign.runner import Runner
from tests.campaign.world import World


def test_the_plan_follows_from_the_seed() -> None:
    assert plan(1, 2) == plan(1, 2)
    assert plan(1, 2) != plan(2, 2)
    pairs = {(kind.name, operation) for kind in KINDS for operation in kind.at}
    for cases in (plan(1, 1), plan(7, 3)[: len(pairs)]):
        assert {(case.kind, case.operation) for case in cases} == pairs, "a round tries everything once"


def test_more_rounds_look_at_other_moments() -> None:
    wanted = ("kill engine", "destroy")
    cases = [case for case in plan(3, 4) if (case.kind, case.operation) == wanted]
    assert sorted(int(case.moment * 4) for case in cases) == [0, 1, 2, 3], "one in each quarter"
    assert {case.kind for case in cases} == {"kill engine"}


def test_the_journal_holds_what_is_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "some" / "journal.jsonl")
    assert journal.results() == []
    results = [Result(Case(n, "kill engine", "up", 0.5), SAME, requests=n) for n in range(3)]
    for result in results:
        journal.add(result)
    assert Journal(journal.path).results() == results


def test_it_goes_on_from_a_report(tmp_path: Path) -> None:
    cases = plan(1, 1)
    results = [Result(case, SAME, requests=3, said="a path of the machine") for case in cases[:4]]
    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(document(1, len(cases), results)))
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(results[0])
    journal.take_over(file, cases)
    assert [result.case for result in journal.results()] == cases[:4], "nothing twice"
    with pytest.raises(ValueError, match="of a campaign with other cases"):
        journal.take_over(file, plan(2, 1))


def test_a_case_of_an_earlier_list_of_faults_is_not_taken_for_the_one_with_its_number(tmp_path: Path) -> None:
    cases = plan(1, 1)
    journal = Journal(tmp_path / "journal.jsonl")
    former = Case(cases[0].number, "kill moon", cases[0].operation, cases[0].moment)
    journal.add(Result(former, LOST, ["the moon"]))
    journal.add(Result(cases[1], SAME))
    assert [result.case for result in journal.of(cases)] == [cases[1]]
    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(document(1, len(cases), [Result(case, SAME) for case in cases[:2]])))
    journal.take_over(file, cases)
    assert {result.case for result in journal.of(cases)} == set(cases[:2])


def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: str) -> dict[str, Any]:
    file = tmp_path / "test_made_up.py"
    file.write_text(test)
    monkeypatch.setattr(inputs, "TESTS", str(file))
    monkeypatch.setattr(inputs, "PROJECT", tmp_path)
    (tmp_path / "conftest.py").write_text("")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return inputs.try_inputs(1, 5, tmp_path / "kept" / "inputs.json")


COUNTING = """
import json, os, pathlib
def test_a():
    pathlib.Path(os.environ["MODELCAR_TRIED"]).write_text(json.dumps({"test_a": 3}))
    assert %s
"""


def test_made_up_input_that_pytest_never_tried_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A usage error is on standard error; a test that counts no case has tried none."""
    found = tried(tmp_path, monkeypatch, COUNTING % "True")
    assert (found["cases"], found["failed"]) == ({"test_a": 3}, "")
    kept = tmp_path / "kept" / "inputs.json"
    assert kept.exists()
    kept.unlink()
    for test, said in (
        (COUNTING % "False", "1 failed"),
        ("def test_a(): pass", "after 0 cases"),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9"),
        ("import nothing_such", "nothing_such"),
    ):
        found = tried(tmp_path, monkeypatch, test)
        assert said in found["failed"], test
        assert not kept.exists(), "it is tried again next time"
    monkeypatch.setattr(inputs, "TESTS", str(tmp_path / "no_such_test.py"))
    assert "no_such_test.py" in inputs.try_inputs(1, 5, kept)["failed"]
    assert "not all well" in inputs.report(found)[0]


def test_a_kept_result_without_cases_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept" / "inputs.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps({"examples": 5, "cases": {}, "failed": ""}))
    assert tried(tmp_path, monkeypatch, COUNTING % "True")["cases"] == {"test_a": 3}


def test_anew_also_forgets_what_was_made_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaign_main, "campaign_folder", lambda: tmp_path)
    kept = tmp_path / "inputs-1-7.json"
    kept.write_text("{}")
    monkeypatch.setattr(
        inputs, "try_inputs", lambda _, n, file: {"cases": {}, "failed": f"kept: {file.exists()}"}
    )
    monkeypatch.setattr(sys, "argv", ["campaign", "--examples", "7", "--minutes", "0", "--anew"])
    assert campaign_main.main() == 1
    assert "kept: False" in capsys.readouterr().out


def test_the_report_counts() -> None:
    results = [
        Result(Case(0, "kill engine", "up", 0.1), SAME, requests=100, seconds=4.0),
        Result(Case(1, "kill engine", "update", 0.2), LOST, ["objects: lost a pod"], requests=50, failed=2),
        Result(Case(2, "node reboots", "rest", 0.3), MISSED, seconds=1.0),
    ]
    found = document(5, 9, results)
    assert (found["over"], found["tried"], found["lost"]) == (3, 2, 1)
    text = "\n".join(report(found))
    assert "Seed 5: 3 of 9 cases are over, 2 tried, **1 lost**" in text
    assert "| kill engine | 2 | 1 | 1 | 0 | 150 | 2 | 2.0 |" in text
    assert "| all | 2 | 1 | 1 | 1 | 150 | 2 | |" in text
    assert "case 1, kill engine in update at 0.2: objects: lost a pod" in text
    json.dumps(found)


def test_differences_name_what_is_not_the_same() -> None:
    wanted = {"objects": [["Pod", "a", "spec: 1"], ["Service", "a", "x"]], "pending": []}
    assert sameness.differences(wanted, wanted) == []
    now = {"objects": [["Pod", "a", "spec: 2"], ["Secret", "b", "y"]], "pending": ["creating"]}
    found = sameness.differences(now, wanted)
    assert any("objects: Pod a: …spec: 1… became …spec: 2…" in line for line in found)
    assert any("lost" in line and "Service" in line for line in found)
    assert any("new" in line and "Secret" in line for line in found)
    assert any("new creating" in line for line in found)
    doubled = {**wanted, "objects": [*wanted["objects"], wanted["objects"][0]]}
    assert sameness.differences(doubled, wanted), "the same twice is not the same"
    one, other = wanted["objects"]
    before, after = {"objects": [one, one, other]}, {"objects": [one, other, other]}
    assert len(sameness.differences(after, before)) == 2, "nor is as much, but not as often of each"


def owned(kind: str, name: str, uid: str, owner: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    references = [{**owner, "controller": True}] if owner else []
    metadata = {"name": name, "uid": uid, "ownerReferences": references}
    return {"kind": kind, "metadata": metadata, "spec": {}, "status": {}, **more}


@pytest.mark.parametrize("template", ["8ff644b", "5d59b7f8c", "7c6b9d5f4f", "x2kq"])
def test_who_a_pod_belongs_to_is_told_by_its_owner(template: str) -> None:
    """A ReplicaSet's hash is of any length: one of seven characters once ended each campaign."""

    def rows(template: str, pod: str) -> list[list[str]]:
        deployment = {"kind": "Deployment", "name": "subject-predictor", "uid": "d"}
        replica_set = {"kind": "ReplicaSet", "name": f"subject-predictor-{template}", "uid": template}
        return sameness.objects([
            owned("Pod", f"{replica_set['name']}-{pod}", pod, replica_set),
            owned("Pod", f"job-{pod}", pod, {"kind": "Job", "name": "job", "uid": "j"}),
            owned("Pod", "of-nobody", "n", None),
            owned("ReplicaSet", replica_set["name"], template, deployment),
            owned("ReplicaSet", "subject-predictor-former", "former", deployment),
        ])  # fmt: skip

    assert rows(template, "abcde") == rows("64b9c7d58f", "z2x4c")
    names = [row[1] for row in rows(template, "abcde")]
    assert names == ["of Deployment subject-predictor", "of Job job", "of-nobody"]


def seen(outputs: str, pod: str, revision: str = "0" * 16, lock: str = "1" * 64) -> dict[str, Any]:
    """What there is of a subject whose outputs and pod name these digests."""
    runtime = ["ServingRuntime", f"subject-{revision}", json.dumps({"lock": lock})]
    return {
        "pending": [],
        "outputs": json.dumps({"lockDigest": lock, "modelDigest": f"sha256:{outputs}"}),
        "objects": [["Pod", "of Deployment subject", f"oci://r/subject@sha256:{pod} for m00007"], runtime],
    }


def test_another_model_is_the_same_where_each_place_has_its_own() -> None:
    one, other = seen("a" * 64, "a" * 64), seen("b" * 64, "b" * 64, "f" * 16, "0" * 64)
    assert sameness.comparable(one) == sameness.comparable(other)
    assert "DIGEST-1 for MODEL-1" in json.dumps(sameness.comparable(one))


@pytest.mark.parametrize("letters", ["ab", "ba"])
def test_a_cluster_that_was_left_at_the_former_image_is_not_the_same(letters: str) -> None:
    new, former = (letter * 64 for letter in letters)
    found = sameness.comparable(seen(new, former))
    wanted = sameness.comparable(seen(new, new))
    assert sameness.differences(found, wanted), "its pod has another digest than the outputs"


def test_the_order_of_what_is_there_does_not_follow_from_digests() -> None:
    def rows(first: str, second: str) -> dict[str, Any]:
        named = [
            ["ServingRuntime", f"{name}-{which}", which] for which, name in ((first, "a"), (second, "b"))
        ]
        return sameness.comparable({"objects": sorted(named, key=lambda row: row[2])})

    assert rows("1" * 16, "2" * 16) == rows("2" * 16, "1" * 16)


@pytest.mark.parametrize(
    ("output", "pod", "told"),
    [("a", "a", []), ("b", "b", ["output modelDigest", "the pod's image"]), ("a", "b", ["the pod's image"])],
)
def test_what_is_served_is_the_image_of_the_cases_own_lock(output: str, pod: str, told: list[str]) -> None:
    """The former image in all places is as consistent as the new one."""
    world = Mock(digests={"subject": f"sha256:{'a' * 64}"})
    world.pulumi.return_value = json.dumps({"modelDigest": f"sha256:{output * 64}"})
    box = {"name": "modelcar-init", "image": f"r/subject@sha256:{pod * 64}"}
    world.pod.return_value = {"spec": {"initContainers": [box], "containers": []}}
    found = sameness.other_than_locked(world)
    assert [line.partition(" is ")[0] for line in found] == told
    world.pod.side_effect = LookupError("2 pods in subject")
    assert any("2 pods in subject" in line for line in sameness.other_than_locked(world))


def test_a_case_ends_with_the_image_that_its_lock_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sameness, "other_than_locked", lambda _: ["the pod's image is another"])
    campaign, kind, result = Mock(there=True), KINDS[0], Result(Case(0, KINDS[0].name, "up", 0.1), SAME)
    campaign._settled.return_value = campaign._incomplete.return_value = []
    Runner._again(campaign, Case(0, kind.name, "update", 0.1), kind, result)
    assert result.found == ["the pod's image is another"]
    Runner._again(campaign, Case(0, kind.name, "destroy", 0.1), kind, result)
    assert len(result.found) == 1, "where nothing is served, there is nothing to compare"


def test_a_world_knows_the_digest_of_what_it_has_locked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(World, "configure", lambda *_, **__: None)
    world = World.__new__(World)
    world.folder, world.model, world.digests = tmp_path, 0, {}
    name = world.lock("subject")
    first = world.digests["subject"]
    lock = read_lock(lock_path(tmp_path, name))
    assert first == modelcar_image(lock, read_base(architecture())).digest
    world.lock("subject")
    assert world.digests["subject"] != first


def test_a_blob_that_was_whole_before_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config, layer = b"{}", b"weights"
    blobs = {f"sha256:{hashlib.sha256(content).hexdigest()}": content for content in (config, layer)}
    of_config, of_layer = blobs
    manifest = json.dumps({"config": {"digest": of_config}, "layers": [{"digest": of_layer}] * 2}).encode()
    image = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    asked: list[str] = []

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = blobs.get(self.path.rpartition("/")[2], manifest)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        registry = f"127.0.0.1:{server.server_port}"
        world = Mock(instance=Mock(registry=registry))
        world.pulumi.return_value = f"oci://{registry}/models/subject@{image}"
        world.objects.return_value = []
        assert sameness.incomplete_images(world) == []
        assert len(asked) == 3, "a layer that is there twice is read once"
        blobs[of_layer] = layer[:3]
        assert sameness.incomplete_images(world) == [
            f"models/subject@{image}: blob {of_layer} has another content"
        ]
    finally:
        server.shutdown()


def test_cases_that_there_are_not_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["campaign", "--examples", "0", "--only", "kill moon"])
    with pytest.raises(SystemExit):
        campaign_main.main()
    assert "no case has 'kill moon' in its name; faults are API server stands" in capsys.readouterr().err


def test_a_campaign_that_cannot_begin_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stopped = []

    class Ruin:
        def __init__(self, say: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("update twice does not end the same")

        def stop(self) -> None:
            stopped.append("the platform")

    monkeypatch.setattr(campaign_main, "World", Ruin)
    monkeypatch.setattr(campaign_main, "campaign_folder", lambda: tmp_path)
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path))
    monkeypatch.setattr(campaign_main, "stop_on_sigterm", lambda: None)
    monkeypatch.setattr(sys, "argv", ["campaign", "--examples", "0"])
    assert campaign_main.main() == 1
    said = capsys.readouterr().err
    assert said == ("error: the campaign cannot begin: RuntimeError: update twice does not end the same\n")
    assert stopped == ["the platform"]


BLOB = bytes(range(256)) * 1000


@contextmanager
def ask(
    rules: Rules, path: str, method: str = "GET", data: bytes | None = None
) -> Iterator[tuple[int, bytes]]:
    """Send one request through the front to a registry that answers with a blob."""
    sent: list[bytes] = []

    async def registry(request: web.Request) -> web.Response:
        sent.append(await request.read())
        return web.Response(body=BLOB if request.method == "GET" else b"", headers={"X-Blob": "yes"})

    async def go() -> tuple[int, bytes]:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", registry)
        async with TestServer(app) as behind:
            front = application(f"{behind.host}:{behind.port}", rules)
            async with (
                TestClient(TestServer(front)) as client,
                client.request(method, path, data=data) as answer,
            ):
                return answer.status, await answer.read()

    status, body = asyncio.run(go())
    yield status, body if method == "GET" else b"".join(sent)


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(tmp_path / "rules.json")


def test_without_rules_everything_passes(rules: Rules) -> None:
    with ask(rules, "/v2/x/blobs/y") as (status, body):
        assert (status, body) == (200, BLOB)
    with ask(rules, "/v2/x/blobs/y", "PUT", BLOB) as (status, sent):
        assert (status, sent) == (200, BLOB)


def test_a_rule_answers_so_often_and_counts(rules: Rules) -> None:
    rules.set(Rule(path="/blobs/", status=503, times=1))
    seen = []
    for path in ("/v2/", "/v2/x/blobs/y", "/v2/x/blobs/y"):
        with ask(rules, path) as (status, _):
            seen.append(status)
    assert seen == [200, 503, 200]
    assert rules.used() == 1
    rules.set()
    assert rules.used() == 0


def test_a_body_is_cut(rules: Rules) -> None:
    rules.set(Rule(cut=1000))
    with pytest.raises(ClientError), ask(rules, "/v2/x/blobs/y"):
        pass
    assert rules.used() == 1


def test_a_prober_counts_what_is_not_answered() -> None:
    prober = Prober("127.0.0.1", 1).start()  # nobody listens there
    while not prober.failed:
        pass
    prober.stop()
    assert prober.sent == prober.failed
    assert set(prober.reasons) == {"ConnectionRefusedError"}


def test_kinds_have_names_of_their_own() -> None:
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    unknown: set[Any] = {operation for kind in KINDS for operation in kind.at} - {
        "up",
        "update",
        "destroy",
        "rest",
    }
    assert not unknown


@pytest.mark.parametrize(
    ("uid", "counts", "told"),
    [("1", (1, 1), []), ("1", (2, 1), ["started again"]), ("2", (0, 0), ["was replaced"])],
)
def test_restarts_of_the_served_model_count_from_the_cases_beginning(
    uid: str, counts: tuple[int, int], told: list[str]
) -> None:
    """A case before it may have rebooted the node, by which each container was started once more."""

    def pod(uid: str, *counts: int) -> dict[str, Any]:
        statuses = [{"restartCount": count} for count in counts]
        return {"metadata": {"uid": uid}, "status": {"containerStatuses": statuses}}

    campaign = Mock()
    campaign.world.pod.return_value = pod(uid, *counts)
    found = Runner._bystander(campaign, pod("1", 1, 1), Mock(failed=0))
    assert len(found) == len(told)
    assert all(words in line for words, line in zip(told, found, strict=True))
