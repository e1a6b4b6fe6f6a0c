"""Networks of a platform that this machine already uses: told before anything is started, with what helps."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local import platform, routes
from local.instance import SLOTS, Instance
from local.tools import Toolbox
from modelcar.errors import InputError

DEFAULT = {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}
#: A VPN that takes all, in halves; and what every machine has.
USUAL = [DEFAULT, {"dst": "0.0.0.0/1", "dev": "tun0"}, {"dst": "128.0.0.0/1", "dev": "tun0"}]
USUAL += [{"dst": "192.0.2.0/24", "dev": "eth0"}, {"dst": "172.17.0.0/16", "dev": "docker0"}]


@pytest.fixture(autouse=True)
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "slot_is_free", lambda _: True)
    monkeypatch.setattr(platform, "link_owner", lambda _: None)


def start(folder: Path, *more: dict[str, Any], slot: int = 0) -> list[str]:
    """Have the platform look at a machine with these routes; return what it says."""
    (folder / "ip").write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps([*USUAL, *more])}\nEND\n")
    (folder / "ip").chmod(0o755)
    said: list[str] = []
    tools = Toolbox({"ip": folder / "ip"}, "", Path())
    platform._require_free_addresses(Instance("local", slot, folder / "local"), tools, said.append)
    return said


def test_a_machine_that_uses_other_networks_is_fine(tmp_path: Path) -> None:
    other = {"dst": "198.18.1.0/30", "dev": "modelcar1"}, {"dst": "10.244.1.0/24", "dev": "modelcar1"}
    services = {"dst": "10.96.0.0/12", "dev": "minikube"}  # no route of ours leads to Services
    assert start(tmp_path, *other, services) == []


def test_its_own_link_is_no_other_use(tmp_path: Path) -> None:
    own = {"dst": "198.18.0.0/30", "dev": "modelcar0"}, {"dst": "10.244.0.0/24", "dev": "modelcar0"}
    assert start(tmp_path, *own) == []


@pytest.mark.parametrize(
    ("route", "fix"),
    [
        ({"dst": "198.18.0.2", "dev": "tun0"}, "echo 1 >"),
        ({"dst": "198.18.0.0/30", "dev": "Meta"}, "echo 1 >"),
        ({"dst": "198.18.0.0/16", "dev": "utun"}, "no slot is free of it: end what made utun"),
        ({"dst": "198.18.0.0/15", "dev": "utun"}, "no slot is free of it"),
        ({"dst": "10.244.0.0/16", "dev": "br-1234"}, "no slot is free of it: end what made br-1234"),
        ({"dst": "10.244.0.0/20", "dev": "cni0"}, "echo 16 >"),
        ({"dst": "10.244.0.7", "dev": "tun0"}, "echo 1 >"),
        ({"dst": "10.244.0.0/24", "type": "unreachable"}, "echo 1 >"),
    ],
    ids=lambda value: value["dst"] if isinstance(value, dict) else "",
)
def test_a_network_that_is_used_is_refused(route: dict[str, str], fix: str, tmp_path: Path) -> None:
    through = route.get("dev") or route["type"]
    with pytest.raises(InputError) as refused:
        start(tmp_path, route)
    said = str(refused.value)
    assert f"through {through}" in said
    assert fix in said


def test_the_fix_works_on_the_first_run_too(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        start(tmp_path, {"dst": "198.18.0.0/22", "dev": "tun0"})
    command = refused.value.problems[0].fix.partition(": ")[2]
    subprocess.run(command, shell=True, check=True)
    slot = int((tmp_path / "local/slot").read_text())
    assert slot == 4, "the first one that is free"
    assert start(tmp_path, {"dst": "198.18.0.0/22", "dev": "tun0"}, slot=slot) == []


def test_a_slot_that_another_platform_has_is_no_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "slot_is_free", lambda slot: slot == SLOTS[-1])
    with pytest.raises(InputError, match="echo 63 >"):
        start(tmp_path, {"dst": "198.18.0.0/30", "dev": "tun0"})


def test_a_wide_network_of_a_company_is_told_only(tmp_path: Path) -> None:
    [line] = start(tmp_path, {"dst": "10.0.0.0/8", "dev": "tun1"})
    assert line.startswith("NOTE: 10.244.0.0/24 is a part of 10.0.0.0/8, which tun1 leads to")
