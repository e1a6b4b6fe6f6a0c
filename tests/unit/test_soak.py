"""What the soak makes of its figures: growth is told, and what each version takes is not called growth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import soak as command
from tests.campaign.measures import Measures, registry_bytes
from tests.campaign.soak import Cycle, Soak, judged, report, rows

STEADY: dict[str, Any] = {
    "memory": {"etcd": 100.0, "registry": 20.0},
    "processes": 30,
    "runs": 0,
    "state": 50_000,
    "backend": 1_000_000,
    "disk": {"etcd": 1_000_000},
    "images": 5_000_000,
    "garbage": 0,
}


def soak(count: int = 40, *, wrong: Sequence[str] = (), **growing: Any) -> Soak:
    """Return a soak whose measures are steady but for those that grow by so much with each cycle."""

    def at(number: int) -> Measures:
        values = STEADY | {
            name: STEADY[name] + int(step * number) for name, step in growing.items() if name != "etcd"
        }
        if "etcd" in growing:
            values["memory"] = {**STEADY["memory"], "etcd": 100.0 + growing["etcd"] * number}
        return Measures(**values)

    return Soak([Cycle(n, 8.0, 7.0, 40, list(wrong), at(n)) for n in range(count)], asked=900)


def test_what_is_steady_is_well() -> None:
    assert judged(soak()) == []
    text = "\n".join(report(soak()))
    assert "40 cycles" in text
    assert "The changed model: 1600 requests, 0 failed." in text
    assert "| processes | 30.0 | 30.0 | +0.000 |" in text
    assert "Nothing grows, nothing is left, nothing is lost." in text


def test_what_each_version_takes_is_told_and_no_fault() -> None:
    grown = soak(images=100_000, backend=50_000)
    assert judged(grown) == []
    told = {row["what"]: row["slope"] for row in rows(grown.cycles)}
    assert told["registry: images, kB"] == pytest.approx(100)
    assert told["Pulumi's backend, kB"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("growing", "told"),
    [
        ({"etcd": 1.0}, "memory of all services"),
        ({"processes": 1}, "processes: "),
        ({"runs": 1}, "processes left by Pulumi"),
        ({"state": 1000}, "state, kB"),
        ({"garbage": 500}, "what no tag leads to"),
    ],
)
def test_what_grows_is_told(growing: dict[str, Any], told: str) -> None:
    [line] = judged(soak(**growing))
    assert told in line


def test_failed_requests_and_missing_models_are_told() -> None:
    bad = soak(wrong=["status 404"])
    bad.unanswered = 2
    bad.many = {"models": 24, "answered": 23}
    assert [line.split()[0] for line in judged(bad)] == ["40", "2", "23"]
    assert judged(bad)[0].endswith("status 404"), "and why"


def test_too_few_cycles_say_nothing_of_growth() -> None:
    assert rows(soak(5).cycles) == []
    assert judged(soak(5)) == []
    text = "\n".join(report(soak(5)))
    assert "so few cycles say nothing of growth" in text
    assert "Nothing grows" not in text


def test_a_soak_that_was_interrupted_is_no_clean_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Interrupted:
        def __init__(self, _: Any) -> None: ...

        def start(self) -> None:
            raise KeyboardInterrupt

        def stop(self) -> None: ...

    monkeypatch.setattr(command, "World", Interrupted)
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path))
    monkeypatch.setattr(command, "stop_on_sigterm", lambda: None)
    monkeypatch.setattr("sys.argv", ["soak", "--report", str(tmp_path)])
    assert command.main() == 1
    assert "interrupted after 0 cycles" in (tmp_path / "soak-report.md").read_text()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Keep an image with a tag, one without, and a broken upload, as a registry lays them out."""
    root = tmp_path / "docker/registry/v2"

    def blob(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = root / "blobs/sha256" / digest[:2] / digest / "data"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"sha256:{digest}"

    def image(layer: bytes) -> str:
        document = {
            "schemaVersion": 2,
            "config": {"digest": blob(b"{}")},
            "layers": [{"digest": blob(layer)}],
        }
        return blob(json.dumps(document).encode())

    tag = root / "repositories/models/tiny/_manifests/tags/v1/current/link"
    tag.parent.mkdir(parents=True)
    tag.write_text(image(b"a" * 1000))
    image(b"b" * 700)
    upload = root / "repositories/models/tiny/_uploads/some-id/data"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(b"c" * 50)
    return tmp_path


def test_garbage_is_what_no_tag_leads_to(store: Path) -> None:
    kept, garbage = registry_bytes(store)
    assert 1000 < kept < 1400
    assert 750 < garbage < 1200
    tag = next(store.rglob("tags/v1/current/link"))
    tag.unlink()
    assert registry_bytes(store) == (0, kept + garbage)
