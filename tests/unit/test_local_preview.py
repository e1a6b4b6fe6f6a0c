"""Which backend a preview compares with: the one that the user has chosen, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.preview import chosen_backend


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [
        ({}, []),
        # What `eval "$(python -m local env)"` puts into a shell: nobody's choice for other stacks.
        ({"PULUMI_BACKEND_URL": "OWN"}, []),
        ({"PULUMI_BACKEND_URL": "gs://bucket"}, ["PULUMI_BACKEND_URL"]),
        ({"PULUMI_ACCESS_TOKEN": "token"}, ["PULUMI_ACCESS_TOKEN"]),
        ({"PULUMI_BACKEND_URL": "OWN", "PULUMI_ACCESS_TOKEN": "token"}, ["PULUMI_ACCESS_TOKEN"]),
    ],
)
def test_the_local_stacks_backend_is_no_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], chosen: list[str]
) -> None:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path))
    for name in ("PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, (tmp_path / "pulumi").as_uri() if value == "OWN" else value)
    assert chosen_backend() == chosen
