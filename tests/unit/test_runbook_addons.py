"""The runbook's steps with others' programs: which there are, and that they leave the stack's file alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from local import runbook_addons, stack
from local.runbook_addons import Addons, settings
from modelcar.errors import InputError


def steps(*names: str) -> list[str]:
    nothing = cast(Any, None)
    return list(Addons(nothing, nothing, print, lambda *_: "").steps(names))


def test_steps_come_in_the_runbooks_order_and_an_unknown_addon_is_refused() -> None:
    assert [title[0] for title in steps("argocd", "keda")] == ["7", "8"]
    assert steps() == []
    with pytest.raises(InputError, match=r"(?s)--with: knative.*allowed: keda, argocd"):
        steps("keda", "knative")


def test_the_stacks_file_is_as_it_was_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Pulumi.local.yaml"
    before = b"# a comment\nconfig:\n  modelcar:model: tiny-qwen2\n"
    path.write_bytes(before)
    monkeypatch.setattr(stack, "config_file", lambda: path)

    def told() -> dict[str, Any]:
        return dict(yaml.safe_load(path.read_text())["config"])

    during = settings(minReplicas=0)
    during.__enter__()
    assert told() == {"modelcar:model": "tiny-qwen2", "modelcar:minReplicas": 0}
    assert not during.__exit__(ValueError, ValueError("stopped"), None)
    assert path.read_bytes() == before


def test_a_trigger_holds_for_two_hours_of_the_day_over_midnight_too() -> None:
    for hours in range(-12, 13):
        trigger = runbook_addons._cron(timedelta(hours=hours))
        start, end = (int(trigger[name].split()[1]) for name in ("start", "end"))
        assert (end - start) % 24 == 2
        assert trigger["timezone"] == "Etc/UTC"
