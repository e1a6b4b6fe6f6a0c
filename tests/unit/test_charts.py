"""KServe's charts, where their hosts are out of reach."""

from __future__ import annotations

import pytest

from components.config.kserve import KServeSettings
from components.stack import charts, preflight
from modelcar.errors import InputError
from tests.unit.test_google_settings import dev, load

INSTALLS = load(dev(kserve={"install": True}))


def test_each_place_is_told_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def closed(_: str, host: str, port: int) -> str:
        asked.append((host, port))
        return "no route to host"

    settings = KServeSettings.model_validate({"chartRepository": "oci://mirror.example:8443/charts"})
    monkeypatch.setattr(charts, "refusal", closed)
    certificates, own = charts.unreachable(settings)
    assert asked == [("charts.jetstack.io", 443), ("mirror.example", 8443)]
    assert certificates.key == "modelcar:kserve.certManagerRepository"
    assert own.key == "modelcar:kserve.chartRepository"
    assert (
        own.value == "oci://mirror.example:8443/charts: mirror.example cannot be reached (no route to host)"
    )
    assert "name a copy of the charts" in own.fix


def test_a_folder_of_charts_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = KServeSettings.model_validate({"chartRepository": "/srv/charts"})
    monkeypatch.setattr(charts, "refusal", lambda *_: "closed")
    assert [found.key for found in charts.unreachable(settings)] == ["modelcar:kserve.certManagerRepository"]
    without = settings.model_copy(update={"install_cert_manager": False})
    assert charts.unreachable(without) == []


def test_a_preview_goes_on_and_says_so_and_up_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "refusal", lambda *_: "closed")
    told = preflight.unread_charts(INSTALLS, preview=True)
    assert len(told) == 2
    assert "ghcr.io cannot be reached (closed): this preview does not look into the chart" in told[1]
    with pytest.raises(InputError, match=r"(?s)charts\.jetstack\.io cannot.*ghcr\.io cannot"):
        preflight.unread_charts(INSTALLS, preview=False)
    unasked = INSTALLS.model_copy(update={"check_reachable": False})
    assert preflight.unread_charts(unasked, preview=False) == ()
    assert preflight.unread_charts(load(dev(kserve={"install": False})), preview=True) == ()
