"""What a preview finds out of a model beside its settings, and where a reviewer reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.cluster.access import ClusterError
from components.cluster.placement import Found
from components.config.checks import without_effect
from components.config.models import load_stack
from components.config.settings import Settings
from components.stack import kept_cluster, kept_endpoint, preflight, reachability, renamed
from modelcar import locking
from modelcar.errors import InputError, Problem
from modelcar.tiny_model import make_tiny_model
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_models import load as list_of
from tests.unit.test_components_settings import MINIMAL, as_text, load
from tests.unit.test_google_settings import CLUSTER, PROJECT, as_texts, dev


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights")
    locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    return tmp_path


def check(project: Path, outputs: dict[str, Any] | None = None, **settings: Any) -> preflight.CheckedStack:
    """Look at a stack; a setting that is None is left out. outputs: of its last run."""
    config = {**MINIMAL, "model": "tiny", "checkReachable": "false", **settings}
    told = {f"modelcar:{key}": as_text(value) for key, value in config.items() if value is not None}
    return preflight.check(load_stack(told, project), project, outputs)


BY_DAY = {"type": "cron", "timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *", "desiredReplicas": 1}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"egress": {"restrict": False, "allow": [{"cidr": "10.0.0.0/8"}]}}, "egress.allow"),
        ({"gpu": "nvidia-l4"}, "gpu"),
        ({"mirrorsInsecure": True}, "mirrorsInsecure"),
        ({"kserve": {"modelcarCpu": "1"}}, "kserve.modelcarCpu"),
        (
            {
                "minReplicas": 0,
                "maxReplicas": 2,
                "autoscaling": {"fallbackReplicas": 1, "triggers": [BY_DAY]},
            },
            "autoscaling.fallbackReplicas",
        ),
    ],
)
def test_a_setting_without_effect_is_told(project: Path, settings: dict[str, Any], key: str) -> None:
    [doubt] = check(project, **settings).doubts
    assert doubt.startswith(f"modelcar:{key} has no effect w")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"cidr": "169.254.169.254/32"}, True),
        ({"cidr": "169.254.0.0/16", "ports": [80]}, True),
        ({"cidr": "169.254.169.254/32", "ports": [53]}, False),
        ({"cidr": "10.0.0.0/8"}, False),
    ],
)
def test_a_way_to_the_clouds_tokens_is_told_and_not_refused(rule: dict[str, Any], told: bool) -> None:
    found = list(without_effect.doubts(load(egress={"allow": [rule]})))
    assert [doubt.partition(" lets")[0] for doubt in found] == (
        [f"modelcar:egress.allow[0] ({rule['cidr']})"] if told else []
    )


def test_settings_of_google_without_effect_are_told() -> None:
    google: dict[str, Any] = {
        "project": "my-project",
        "region": "europe-west4",
        "repository": {"name": "m", "existing": True, "untaggedDays": 7},
        "cluster": {"name": "c", "releaseChannel": "RAPID"},
        "nodes": {"gpu": "nvidia-l4", "machineType": "g2-standard-8"},
    }
    told = [doubt.split()[0] for doubt in without_effect.doubts(load(google=google, registry=None))]
    assert told == [
        "modelcar:google.cluster.releaseChannel",
        "modelcar:google.repository.untaggedDays",
    ]


def test_a_length_beyond_the_models_is_refused_or_told(project: Path) -> None:
    longer = {"vllm": {"maxModelLen": "4k"}}
    with pytest.raises(InputError, match="4000, more than the model was made for"):
        check(project, **longer)
    [doubt] = check(project, **longer, serverEnv=["VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"]).doubts
    assert doubt.startswith("qwen-oci: modelcar:vllm.maxModelLen: 4000 tokens")
    assert check(project).doubts == ()


def test_folders_that_arguments_name_are_looked_for_in_the_lock(project: Path) -> None:
    with pytest.raises(InputError, match=r"the model's lock has no draft/config\.json"):
        check(project, serverArgs=["--spec-model", "/mnt/models/draft"])


def test_a_deployed_service_is_not_renamed_by_its_model(project: Path) -> None:
    before = {"serviceName": "qwen-oci"}
    with pytest.raises(InputError) as caught:
        check(project, before, serviceName=None)
    [found] = caught.value.problems
    assert found.key == "modelcar:serviceName"
    assert "the model's name makes it tiny, and the deployed service is qwen-oci" in found.value
    assert found.fix == "pulumi config set modelcar:serviceName qwen-oci"


@pytest.mark.parametrize(
    ("outputs", "settings"),
    [
        ({}, {"serviceName": None}),
        ({"serviceName": "tiny"}, {"serviceName": None}),
        ({"serviceName": "qwen-oci"}, {"serviceName": "tiny"}),
        ({"serviceName": "qwen-oci"}, {"serviceName": None, "model": None, "models": [{"name": "tiny"}]}),
    ],
    ids=["new", "as before", "said", "listed"],
)
def test_a_service_is_renamed_where_the_stack_says_so(
    project: Path, outputs: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert check(project, outputs, **settings).stack.shared.service_name == "tiny"


def told_of(**services: str) -> dict[str, Any]:
    return {
        "models": {key: {"serviceName": name, "namespace": "kserve-demo"} for key, name in services.items()}
    }


ONLY = {**told_of(**{"qwen-oci": "qwen-oci"}), "serviceName": "qwen-oci"}


@pytest.mark.parametrize(
    ("outputs", "entries", "fix"),
    [
        (
            told_of(chat="chat"),
            [{"name": "chat-v2", "serviceName": "chat"}],
            "say formerNames: [chat] and model: chat-v2 in its entry",
        ),
        (
            ONLY,
            [{"name": "qwen", "model": "qwen2.5-0.5b", "serviceName": "qwen-oci"}],
            "say formerNames: [qwen-oci] in its entry",
        ),
        # As a version before 0.3.0 told it.
        (
            {"serviceName": "qwen-oci"},
            [{"name": "qwen", "model": "m", "serviceName": "qwen-oci"}],
            "say formerNames: [qwen-oci] in its entry",
        ),
        (
            told_of(a="x", b="y"),
            [{"name": "a", "serviceName": "y"}, {"name": "b", "serviceName": "z"}],
            "run `pulumi up` twice: first with a name for b's service that nobody has",
        ),
        (told_of(a="x", b="y"), [{"name": "a", "serviceName": "y"}], "run `pulumi up` twice"),
    ],
    ids=["another name", "one model to a list", "0.2.0", "exchanged", "of one that goes"],
)
def test_a_service_of_the_last_run_is_not_made_again_for_another_model(
    outputs: dict[str, Any], entries: list[dict[str, Any]], fix: str
) -> None:
    """Pulumi would delete it, by the former model's name, after it has made it by the new one's."""
    found, *_ = renamed.taken(list_of(*entries, namespace="kserve-demo"), outputs)
    assert found.key == "modelcar:models[0].serviceName"
    assert fix in found.fix


def test_the_service_of_an_entry_is_not_made_again_for_a_stack_without_a_list(project: Path) -> None:
    with pytest.raises(InputError, match="fix: if it is the same model, keep it in modelcar:models as qwen;"):
        check(project, told_of(qwen="tiny"), serviceName="tiny", namespace="kserve-demo")


def test_a_shared_runtime_is_not_called_as_a_service_of_the_last_run() -> None:
    stack = list_of({"name": "a"}, {"name": "b"}, sharedRuntime="chat", namespace="kserve-demo")
    [found] = renamed.taken(stack, told_of(a="a", chat="chat"))
    assert (found.key, found.value[:35]) == (
        "modelcar:models[0].sharedRuntime",
        "chat, as the ServingRuntime of the ",
    )


@pytest.mark.parametrize(
    ("outputs", "entries", "shared"),
    [
        (told_of(chat="chat"), [{"name": "assistant", "formerNames": ["chat"]}], {}),
        (told_of(chat="chat"), [{"name": "chat"}, {"name": "new", "serviceName": "x"}], {}),
        (ONLY, [{"name": "qwen", "serviceName": "qwen-oci", "formerNames": ["qwen-oci"]}], {}),
        (told_of(chat="chat"), [{"name": "v2", "serviceName": "chat"}], {"namespace": "other"}),
        (
            told_of(chat="chat"),
            [{"name": "v2", "serviceName": "chat"}],
            {"delivery": "gitops", "gitops": {"folder": "../apps"}},
        ),
    ],
    ids=["renamed", "as before", "one model to a list", "another namespace", "files"],
)
def test_a_service_that_stays_its_model_s_or_is_new_is_taken(
    outputs: dict[str, Any], entries: list[dict[str, Any]], shared: dict[str, Any]
) -> None:
    assert list(renamed.taken(list_of(*entries, **{"namespace": "kserve-demo", **shared}), outputs)) == []


NETWORKS = {CLUSTER + "authorizedNetworks": ["192.0.2.0/24"]}
DEPLOYED = {"clusterName": "models-dev", "clusterLocation": "europe-west4-b"}
BY_NAME, BY_ADDRESS = ({**DEPLOYED, "clusterEndpoint": endpoint} for endpoint in ("dns", "ip"))


def endpoint_problems(outputs: dict[str, Any], **changes: Any) -> list[Problem]:
    return list(kept_endpoint.problems(load_stack(as_texts(dev(**changes)), PROJECT), outputs))


def test_a_deployed_cluster_that_is_not_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi's provider says nothing where it gets no token, and previews what is declared as it is."""

    def told(outputs: dict[str, Any], **changes: Any) -> list[str]:
        return list(reachability.doubts(load_stack(as_texts(dev(**changes)), PROJECT).shared, outputs))

    monkeypatch.setattr("shutil.which", lambda _: None)
    [doubt] = told(BY_NAME)
    assert doubt.startswith("gke-gcloud-auth-plugin is not on PATH, so cluster models-dev is not asked")
    assert told({}) == [], "not made yet"
    assert told(BY_NAME, kubeContext="mine") == []
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert told(BY_NAME) == []


def test_the_endpoint_of_a_created_cluster_is_looked_at_before_anything_is_declared(project: Path) -> None:
    with pytest.raises(InputError, match=r"authorizedNetworks: 192\.0\.2\.0/24; models-dev was"):
        preflight.check(load_stack(as_texts(dev(**NETWORKS)), PROJECT), project, BY_NAME)


def test_a_created_cluster_is_not_reached_otherwise_than_it_was_made() -> None:
    """A preview has no host for an endpoint that only `up` makes."""
    [first] = endpoint_problems(BY_NAME, **NETWORKS)
    assert first.key == "modelcar:google.cluster.authorizedNetworks"
    assert first.value == (
        "192.0.2.0/24; models-dev was made without, and is reached by its DNS name. Its address is not there "
        "before `up` makes it, and so Pulumi can ask nothing in it"
    )
    assert first.allowed == "no network, as it was made with"
    assert first.fix.startswith("pulumi config rm --path modelcar:google.cluster.authorizedNetworks; for a")
    [last] = endpoint_problems(BY_ADDRESS)
    assert last.value.startswith("not set; models-dev was made with some, and is reached by its address. Its")
    assert last.allowed == "one network or more, as it was made with; which ones may change"
    assert last.fix.startswith("set the networks again; for a cluster without, deploy a new stack")
    heading = re.findall(r"docs/google-cloud\.md, '(.+?)'", last.fix)
    assert f"### {heading[0]}\n" in (PROJECT / "docs" / "google-cloud.md").read_text()


@pytest.mark.parametrize(
    ("outputs", "changes"),
    [
        ({}, NETWORKS),
        (BY_NAME, {}),
        (BY_ADDRESS, NETWORKS),
        (BY_ADDRESS, {CLUSTER + "authorizedNetworks": ["198.51.100.0/24", "192.0.2.0/24"]}),
        (DEPLOYED, NETWORKS),
        ({**BY_NAME, "clusterName": "other"}, NETWORKS),
        ({**BY_NAME, "googleMadeWith": {"cluster": {"project": "other-project"}}}, NETWORKS),
        (BY_NAME, {**NETWORKS, "kubeContext": "mine"}),
        (
            BY_NAME,
            {**NETWORKS, "delivery": "gitops", "gitops": {"folder": "../apps"}, "kserve": {"install": False}},
        ),
    ],
    ids=[
        *("new", "as before", "networks as before", "other networks", "an earlier version's"),
        *(
            "another cluster",
            "another project",
            "a context of one's own",
            "nothing of Pulumi's in the cluster",
        ),
    ],
)
def test_networks_are_changed_where_nothing_is_made_anew(
    outputs: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert endpoint_problems(outputs, **changes) == []


def test_a_placement_is_not_tested_before_the_registry_of_this_stack_is_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def find(*_: Any, **arguments: Any) -> Found:
        told.append(arguments)
        return Found("servingRuntime")

    monkeypatch.setattr(preflight, "require_adopted", lambda *_: None)
    monkeypatch.setattr("components.stack.preflight.placement.find", find)
    place = {CLUSTER + "create": None, CLUSTER + "name": "shared"}
    config = dev(**place, model="tiny", vllm=None, placement="auto", kserve={"install": False})
    stack = load_stack(as_texts(config), project)
    for outputs in ({}, {"registry": stack.shared.registry}):
        checked = preflight.check(stack, project, outputs)
        assert checked.stack.shared.placement == "servingRuntime"
    assert [arguments["registry"] for arguments in told] == [False, True]


@pytest.mark.parametrize(
    ("outputs", "listed"),
    [({}, False), (ONLY, False), ({"serviceName": "m"}, False), (told_of(chat="chat"), True)],
    ids=["new", "one model", "0.2.0", "a list"],
)
def test_whether_the_last_run_had_a_list_is_known(
    project: Path, outputs: dict[str, Any], listed: bool
) -> None:
    assert check(project, outputs).was_listed is listed


IN_A = {"clusterUid": "a"}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """The cluster that the stack's context leads to."""
    found = FakeCluster()
    found.found["/api/v1/namespaces/kube-system"] = {"metadata": {"name": "kube-system", "uid": "b"}}
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: found)
    return found


def in_cluster(**settings: Any) -> Settings:
    return load(**{"checkReachable": True, **settings})


@pytest.mark.parametrize("own", [{"kubeContext": "lab"}, {}], ids=["a context", "kubectl's own"])
def test_a_context_of_another_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster, own: dict[str, Any]
) -> None:
    """Pulumi would make nothing there, and forget what is in the former one."""
    (tmp_path / "config").write_text("{contexts: [], current-context: lab}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    settings = in_cluster(**own)
    assert kept_cluster.uid(settings, {}, reachable=True) == ("b", []), "told for the next run"
    assert kept_cluster.uid(settings, {"clusterUid": "b"}, reachable=True) == ("b", [])
    with pytest.raises(InputError) as caught:
        kept_cluster.uid(settings, IN_A, reachable=True)
    [problem] = caught.value.problems
    assert problem.key == "modelcar:kubeContext"
    assert problem.value.startswith(
        "lab: another cluster than the last run's (its namespace kube-system has uid b"
    )
    assert "had a" in problem.value
    assert "pulumi destroy" in problem.fix
    heading = problem.fix.partition(", '")[2].partition("')")[0]
    assert f"## `{heading}`\n" in (PROJECT / "docs/troubleshooting.md").read_text()


def test_where_nobody_can_ask_it_is_the_last_runs_cluster(cluster: FakeCluster) -> None:
    settings = in_cluster(kubeContext="lab")
    assert kept_cluster.uid(settings, IN_A, reachable=False) == ("a", [])
    cluster.refusals["/api/v1/namespaces/kube-system"] = ClusterError(403, "forbidden")
    assert kept_cluster.uid(settings, IN_A, reachable=True) == ("a", []), "and the next run still knows it"


def test_a_cluster_that_is_gone_can_be_left(cluster: FakeCluster) -> None:
    settings = in_cluster(kubeContext="lab", checkReachable=False)
    found, [doubt] = kept_cluster.uid(settings, IN_A, reachable=True)
    assert found == "b"
    assert "`pulumi up --refresh`" in doubt


def test_a_kubeconfig_of_the_stacks_own_is_compared_by_pulumi(cluster: FakeCluster) -> None:
    found, [doubt] = kept_cluster.uid(in_cluster(kubeconfig="/a/path"), IN_A, reachable=True)
    assert found == "b"
    assert "another cluster than the last run's" in doubt


@pytest.mark.parametrize("more", [{}, {"delivery": "gitops", "gitops": {"folder": "../apps"}}])
def test_the_cluster_is_asked_only_where_the_stack_names_it(
    cluster: FakeCluster, more: dict[str, Any]
) -> None:
    if more:
        more = {**more, "kubeContext": "lab", "kserve": {"install": False}}
    google = load_stack(as_texts(dev(**more)), PROJECT).shared
    assert kept_cluster.uid(google, IN_A, reachable=True) == (None, []), "Google tells which one it is"


def test_another_cluster_is_found_out_before_anything_is_declared(
    project: Path, monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster
) -> None:
    monkeypatch.setattr("components.stack.reachability.check", lambda *_, **__: True)
    settings: dict[str, Any] = {"checkReachable": "true", "kubeContext": "lab", "kserve": {"verify": False}}
    assert check(project, **settings).cluster_uid == "b"
    with pytest.raises(InputError, match=r"modelcar:kubeContext: lab: another cluster"):
        check(project, IN_A, **settings)
