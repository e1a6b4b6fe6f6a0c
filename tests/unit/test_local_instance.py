"""Slots, paths, the settings of two checkouts on one machine, and what make up tells a user."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from local import instance, own_cluster, pki, plan, slots
from local.tools import Toolbox
from modelcar.errors import InputError
from tests.unit.test_docs import table


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "s"))
    monkeypatch.setattr(slots, "CLAIMS", tmp_path / "claims")
    return tmp_path / "s"


def test_a_platform_keeps_its_slot(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "slot_is_free", lambda slot: slot > 2)
    first = instance.load("local")
    assert first.slot == 3
    first.state.mkdir(parents=True)
    (first.state / "slot").write_text("3")
    monkeypatch.setattr(instance, "slot_is_free", lambda slot: True)
    assert instance.load("local") == first, "a restart must not move the registry's address"


@pytest.mark.parametrize("cut", ["", "\n", "5x", "64", "-1"])
def test_a_slot_that_a_full_disk_cut_is_that_of_the_platforms_link_or_a_free_one(
    cut: str, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = state / "local"
    folder.mkdir(parents=True)
    (folder / "slot").write_text(cut)
    monkeypatch.setattr(instance, "slot_is_free", lambda slot: slot > 2)
    monkeypatch.setattr(instance, "link_owner", lambda link: None)
    assert instance.load("local").slot == 3
    assert f"{folder / 'slot'} holds no number from 0 to 63" in capsys.readouterr().err
    monkeypatch.setattr(instance, "link_owner", lambda link: str(folder) if link == "modelcar1" else "/other")
    assert instance.load("local").slot == 1, "a platform that runs keeps its addresses"


def test_two_checkouts_that_look_at_the_same_moment_take_two_slots(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "slot_is_free", lambda slot: True)

    def look(checkout: str) -> int | None:
        return slots.claim(range(20), state / checkout)

    with ThreadPoolExecutor(8) as several:
        taken = list(several.map(look, map(str, range(16))))
    assert {slot for slot in taken if slot is not None} == set(range(16))
    assert look("3") == taken[3], "the same one again"
    slots.release(5, state / "another")
    assert look("another") == 16, "no claim of another's goes"
    slots.release(16, state / "another")
    # Of a platform that never started; those that did have their links.
    for path in slots.CLAIMS.iterdir():
        os.utime(path, (0, 0))
    assert look("another") == 0


def test_a_claim_counts_as_long_as_its_command_runs(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools of a first `make up` take longer than two minutes."""

    def look(checkout: str) -> int | None:
        return slots.claim(range(20), state / checkout)

    with subprocess.Popen(["sleep", "60"]) as command:
        with monkeypatch.context() as there:
            there.setattr("local.slots.os.getpid", lambda: command.pid)
            assert look("a") == 0
        assert look("a") == 0, "`make status` meanwhile"
        os.utime(slots.CLAIMS / "0", (0, 0))
        assert look("b") == 1
        command.kill()
    os.utime(slots.CLAIMS / "0", (0, 0))
    assert look("c") == 0


def test_who_may_not_write_claims_takes_the_first(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_text("no folder")
    monkeypatch.setattr(slots, "CLAIMS", state / "claims")
    assert slots.claim([4, 5], state) == 4


def test_all_slots_taken(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "slot_is_free", lambda slot: False)
    with pytest.raises(InputError, match=r"(?s)all taken.*make down"):
        instance.load("local")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / ("x" * 90)))
    with pytest.raises(InputError, match=r"(?s)MODELCAR_STATE.*shorter folder"):
        instance.load("local")


def test_keys_are_private_and_certificates_chain_to_one_ca(state: Path) -> None:
    made = instance.Instance("local", 0, state)
    state.mkdir()
    pki.write_pki(made)
    authority = x509.load_pem_x509_certificate((made.pki / "ca.crt").read_bytes())
    for path in made.pki.glob("*.crt"):
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(authority)
    for path in [*made.pki.glob("*.key"), made.kubeconfig]:
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} is readable by others"
    before = (made.pki / "admin.crt").read_bytes()
    pki.write_pki(made)
    assert (made.pki / "admin.crt").read_bytes() == before, "a restart keeps the keys"


@pytest.mark.parametrize(
    ("setting", "days"), [("BACKDATED", -2), ("VALIDITY", 20)], ids=["a clock that was ahead", "last year"]
)
def test_certificates_that_do_not_hold_are_made_anew(
    state: Path, monkeypatch: pytest.MonkeyPatch, setting: str, days: int
) -> None:
    made = instance.Instance("local", 0, state)
    with monkeypatch.context() as other_day:
        other_day.setattr(pki, setting, timedelta(days=days))
        pki.write_pki(made)
    before = [path.read_bytes() for path in sorted(made.pki.glob("*.crt"))]
    pki.write_pki(made)
    after = [path.read_bytes() for path in sorted(made.pki.glob("*.crt"))]
    assert not set(before) & set(after)
    pki.write_pki(made)
    assert [path.read_bytes() for path in sorted(made.pki.glob("*.crt"))] == after


def test_certificates_of_another_slot_are_made_anew(state: Path) -> None:
    """Else nothing trusts the API server, and the kubeconfig leads to an address that nobody has."""
    pki.write_pki(instance.Instance("local", 0, state))
    moved = instance.Instance("local", 7, state)
    pki.write_pki(moved)
    server = x509.load_pem_x509_certificate((moved.pki / "apiserver.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert moved.address in {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    for kubeconfig in [moved.kubeconfig, *moved.pki.glob("*.kubeconfig")]:
        assert moved.api_server in kubeconfig.read_text()


def test_one_of_the_two_settings_alone_is_refused() -> None:
    assert own_cluster.is_chosen({}) is False
    assert own_cluster.is_chosen({"kubeContext": "kind-kind", "registry": "localhost:5001/m"}) is True
    with pytest.raises(InputError, match=r"(?s)modelcar:registry: not set.*both.*Pulumi\.local\.yaml"):
        own_cluster.is_chosen({"kubeContext": "kind-kind"})
    with pytest.raises(InputError, match="modelcar:kubeContext: not set"):
        own_cluster.is_chosen({"registry": "localhost:5001/m"})


def test_the_page_tells_what_is_chosen_on_a_cluster_of_ones_own(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_cluster, "pinned", lambda image, _: image)
    monkeypatch.setattr(own_cluster, "_builder", lambda name, _: name)
    monkeypatch.setattr(own_cluster, "_architecture", lambda *_: "arm64")
    made, stack = (
        instance.Instance("local", 0, state),
        {"kubeContext": "mine", "registry": "localhost:5001/m"},
    )
    own_cluster.write_settings(made, Toolbox({}, "", Path(), embedded=False), stack, lambda _: None)
    chosen = json.loads(made.settings_file.read_text())
    told: dict[str, Any] = {}
    for keys, text in table("docs/local-stack.md", "| setting | default on your cluster |"):
        named = re.findall(r"`modelcar:(\w+)`", keys)
        values = re.findall(r"`([^`]+)`", text)
        told |= dict(zip(named, values, strict=True)) if len(named) > 1 else {named[0]: values}
    assert told.keys() == chosen.keys()
    assert told["serverArgs"] == chosen["serverArgs"]
    for key in ("cpu", "cpuLimit", "memory"):
        assert told[key] == chosen[key]
    assert told["gpuCount"] == [str(chosen["gpuCount"])]
    assert chosen["serverImage"].endswith(told["serverImage"][0])


def test_the_plan_orders_every_process(state: Path) -> None:
    made = instance.Instance("local", 5, state)
    state.mkdir()
    pki.write_pki(made)
    names = ["docker-registry", "buildkitd", "runc", "etcd", "kube-apiserver", "kube-controller-manager"]
    names += [
        "kube-scheduler",
        "kserve-manager",
        "containerd",
        "containerd-shim-runc-v2",
        "bridge",
        "kubelet",
        "ip",
    ]
    tools = Toolbox({name: Path("/bin") / name for name in names}, "", Path("/kserve"))
    written = json.loads(plan.write_plan(made, tools, "198.18.5.2:5000/b@sha256:0").read_text())
    assert written["kernel"] == plan.KERNEL_SETTINGS
    services = {service["name"]: service["after"] for service in written["services"]}
    for after in services.values():
        assert all(name in services or name.startswith("file:") for name in after)
    assert "198.18.5.2:5000/b@sha256:0" in (state / "containerd.toml").read_text(), (
        "the sandbox image is pinned"
    )
    # What a soak saw grow is bounded.
    builder = tomllib.loads((state / "buildkitd.toml").read_text())
    assert builder["registry"][made.registry] == {"http": True}
    assert set(builder["history"]) == {"maxAge", "maxEntries"}, "a record goes when it is beyond both"
    [policy] = builder["worker"]["oci"]["gcpolicy"]
    assert policy["all"] is True
    assert policy["keepDuration"] == builder["history"]["maxAge"]
