"""A builder that can do nothing with a model's layers is refused before anything is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.image import image_delivery
from local import doctor
from local.instance import load
from modelcar.buildx import KEY, builder_problem, require_builder
from modelcar.errors import InputError
from tests.unit.test_components_settings import MINIMAL

#: As buildx 0.35 writes it.
HEAD = "NAME/NODE   DRIVER/ENDPOINT                       STATUS     BUILDKIT   PLATFORMS\n"
OTHERS = (
    f"{HEAD}bk          remote\n \\_ bk0      \\_ unix:///b.sock   inactive\ndefault*               error\n"
)
NONE = f"{HEAD}default*                                          error\n"
DEFAULT = f"{HEAD}default*    docker\n \\_ default \\_ default   running   v0.20.0   linux/amd64\n"
DOWN = (
    "Name:   default\nDriver: \nError:  failed to connect to the docker API at unix:///var/run/docker.sock\n"
)
DAEMON = "Name:          default\nDriver:        docker\n\nNodes:\nName:     default\nStatus:   running\n"
CONTAINER = "Name:          mine\nDriver:        docker-container\n\nNodes:\nName:     mine0\n"
REMOTE = "Name:          bk\nDriver:        remote\n\nNodes:\nName:     bk0\nStatus:   inactive\n"
UNKNOWN = 'ERROR: no builder "mine" found\n'


@pytest.fixture
def buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes a buildx that answers as told, and notes how it was asked."""
    program, answers, calls = tmp_path / "buildx", tmp_path / "answers.json", tmp_path / "calls"
    program.write_text(
        "#!/usr/bin/python3\nimport json, sys\n"
        f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"status, text = json.load(open({str(answers)!r}))[sys.argv[1]]\n"
        "print(text, end='', file=sys.stderr if status else sys.stdout)\nsys.exit(status)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def answer(inspect: str, listed: str = NONE, status: int = 0) -> Path:
        answers.write_text(json.dumps({"inspect": [status, inspect], "ls": [0, listed]}))
        return calls

    return answer


@pytest.mark.parametrize(
    ("name", "inspect", "listed", "status"),
    [
        ("mine", CONTAINER, NONE, 0),
        ("bk", REMOTE, NONE, 0),
        (None, CONTAINER, NONE, 0),
        # The provider takes another builder than the daemon's own, or makes one.
        (None, DAEMON, DEFAULT, 0),
        (None, DOWN, OTHERS, 0),
        ("mine", "Name: mine\nDriver: nobody-knows\n", NONE, 0),
    ],
)
def test_what_can_build_is_let_be(
    buildx: Any, name: str | None, inspect: str, listed: str, status: int
) -> None:
    calls = buildx(inspect, listed, status)
    assert builder_problem(name) is None
    assert calls.read_text().splitlines()[0] == f"inspect {name or ''}".strip()


@pytest.mark.parametrize(
    ("name", "inspect", "status", "found"),
    [
        ("default", DAEMON, 0, "default has the driver docker, whose BuildKit takes no OCI layout"),
        ("mine", UNKNOWN, 1, 'no builder "mine" found'),
        ("default", DOWN, 0, "failed to connect to the docker API"),
        (None, DOWN, 0, "there is no builder, and none can be made: failed to connect to the docker API"),
    ],
)
def test_what_cannot_is_refused_with_the_way_out(
    buildx: Any, name: str | None, inspect: str, status: int, found: str
) -> None:
    buildx(inspect, NONE, status)
    with pytest.raises(InputError) as caught:
        require_builder(name)
    [problem] = caught.value.problems
    assert problem.key == KEY
    assert found in problem.value
    assert "docker-container, kubernetes, remote" in problem.allowed
    assert "docker buildx create --name modelcar" in problem.fix


def test_without_buildx_nobody_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert builder_problem("mine") is None


def test_it_is_asked_before_the_first_byte(buildx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    buildx(DAEMON)
    monkeypatch.setattr(image_delivery, "_layers_there", lambda _: pytest.fail("the registry is asked"))
    monkeypatch.setattr("modelcar.fetching.fetch", lambda *_, **__: pytest.fail("weights are fetched"))
    delivery: Any = SimpleNamespace(builder="default", image=None, lock=None, project=Path(), layout=Path())
    with pytest.raises(InputError, match="driver docker"):
        image_delivery.bring(delivery)


def test_doctor_looks_at_it(buildx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.stack.reachability.refusal", lambda *_: "no route")
    buildx(DAEMON)
    lines = {
        line.part: line for line in doctor.doctor(load("local"), "other", {**MINIMAL, "builder": "default"})
    }
    assert (lines["builder default"].state, lines["builder default"].fix[:20]) == (
        "missing",
        "docker buildx create",
    )
    lines = {line.part: line for line in doctor.doctor(load("local"), "other", MINIMAL)}
    assert lines["builder"].state == "ok"
