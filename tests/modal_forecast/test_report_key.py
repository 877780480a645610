import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest

from modal_forecast.report import key_in, render, report_key
from modal_forecast.report.report_key import _code
from tests.modal_forecast.test_report import forecast, history, report


def test_a_page_carries_the_key_of_what_it_was_made_from():
    assert key_in(render(report()).encode()) == report_key(report())


@pytest.mark.parametrize(
    "part, change",
    [
        ("data", {"history": history([1.0, 2.0])}),
        ("forecast", {"forecast": forecast([3.0])}),
        ("forecast", {"facts": {"Run": "2"}}),
        ("forecast", {"windows": [{"days": 7, "lower_80": 1.0, "upper_80": 2.0}]}),
        ("forecast", {"backtest": {"skill": 0.2}}),
        ("forecast", {"components": {"weekly": [0.0] * 7}}),
        ("forecast", {"accuracy": {"vintages": []}}),
        ("forecast", {"notes": ["Clipped."]}),
        ("style", {"color_history": "teal"}),
        ("style", {"color_prediction": "teal"}),
        ("style", {"title": "Other"}),
        ("style", {"unit": "EUR"}),
    ],
)
def test_a_change_shows_in_just_its_part_of_the_key(part, change):
    before, after = report_key(report()), report_key(replace(report(), **change))
    assert [name for name in before if before[name] != after[name]] == [part]


def test_a_store_shows_in_the_part_that_its_table_belongs_to():
    def key(past: float, ahead: float) -> Mapping[str, str]:
        store = {"name": "Austin", "history": history([past]), "forecast": forecast([ahead])}
        return report_key(replace(report(), stores=[store]))

    before = key(1.0, 1.0)
    assert before == key(1.0, 1.0)
    assert [part for part in before if before[part] != key(2.0, 1.0)[part]] == ["data"]
    assert [part for part in before if before[part] != key(1.0, 2.0)[part]] == ["forecast"]


def test_a_list_and_a_tuple_of_the_same_have_the_same_key():
    lists, tuples = ([{"skill": 0.1, "models": []}], ({"skill": 0.1, "models": ()},))
    keys = [report_key(replace(report(), backtest=one[0], notes=())) for one in (lists, tuples)]
    assert keys[0] == keys[1]


def test_a_change_of_the_reports_own_files_changes_its_key(tmp_path, monkeypatch):
    before = report_key(report())["code"]
    _code.cache_clear()
    try:
        (tmp_path / "assets").mkdir()
        style = tmp_path / "assets" / "page.css"
        style.write_text("body { color: red }")
        # The package has a function of the module's name.
        monkeypatch.setattr(sys.modules[_code.__module__], "FOLDER", tmp_path)
        red = report_key(report())["code"]
        _code.cache_clear()
        style.write_text("body { color: tan }")
        assert len({before, red, report_key(report())["code"]}) == 3
    finally:
        _code.cache_clear()


def test_what_a_person_wrote_is_never_taken_for_the_key():
    forged = '<meta name="report-key" content="data 1">'
    page = render(report(title=forged, unit=forged, facts={forged: forged})).encode()
    assert key_in(page) == report_key(report(title=forged, unit=forged, facts={forged: forged}))


@pytest.mark.parametrize(
    "page", [None, b"", b"<html></html>", b'<meta name="report-key" content="">', b"\xff\x00"]
)
def test_any_other_page_has_no_key(page):
    assert key_in(page) == {}
