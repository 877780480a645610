import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from modal_forecast.report import report_input
from modal_forecast.report.page import render
from modal_forecast.report.report_input import ReportInput, key_in, report_key
from tests.modal_forecast.test_report import forecast, history, report


def test_a_page_carries_the_key_of_what_it_was_made_from():
    assert key_in(render(report()).encode()) == report_key(report())


@pytest.mark.parametrize(
    "part, change",
    [
        ("data", {"history": history([1.0, 2.0])}),
        ("forecast", {"forecast": forecast([3.0])}),
        ("forecast", {"facts": {"Run": "2"}}),
        ("forecast", {"diagnostics": {"skill": 0.2}}),
        ("forecast", {"diagnostics": {"components": {"weekly": [0.0] * 7}}}),
        ("forecast", {"track_record": {"vintages": []}}),
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
        return report_key(replace(report(), parts=[store]))

    before = key(1.0, 1.0)
    assert before == key(1.0, 1.0)
    assert [part for part in before if before[part] != key(2.0, 1.0)[part]] == ["data"]
    assert [part for part in before if before[part] != key(1.0, 2.0)[part]] == ["forecast"]


def test_a_list_and_a_tuple_of_the_same_have_the_same_key():
    keys = [
        report_key(replace(report(), diagnostics={"fallbacks": fallbacks}, notes=notes))
        for fallbacks, notes in ((["a"], []), (("a",), ()))
    ]
    assert keys[0] == keys[1]


def test_a_diagnostic_that_the_page_does_not_read_leaves_the_key_as_it_is():
    assert report_key(replace(report(), diagnostics={"seconds": 4.2})) == report_key(report())


@dataclass(frozen=True)
class LargerInput(ReportInput):
    """The input of a later version, with one more field."""

    footnote: Any = None


def test_a_field_that_is_added_to_the_input_changes_the_key():
    larger = [
        LargerInput(report().history, report().forecast, footnote=footnote) for footnote in ("one", "two")
    ]
    assert report_key(larger[0]) != report_key(larger[1])


def test_a_change_of_the_reports_code_changes_its_key_and_one_of_a_docstring_does_not(tmp_path, monkeypatch):
    def key(style, code):
        folder = tmp_path / hashlib.sha256(f"{style} {code}".encode()).hexdigest()
        folder.mkdir()
        (folder / "page.css").write_text(style)
        (folder / "page.py").write_text(code)
        monkeypatch.setattr(report_input, "FOLDER", folder)
        return report_key(report())["code"]

    body = 'def render():\n    """Return the page."""\n    return 1\n'
    red = key("red", body)
    assert len({red, key("tan", body), key("red", body.replace("1", "2"))}) == 3
    assert key("red", body.replace("the page", "a page") + "# As before.\n") == red


def test_what_a_person_wrote_is_never_taken_for_the_key():
    forged = '<meta name="report-key" content="data 1">'
    page = render(report(title=forged, unit=forged, facts={forged: forged})).encode()
    assert key_in(page) == report_key(report(title=forged, unit=forged, facts={forged: forged}))


@pytest.mark.parametrize(
    "page", [None, b"", b"<html></html>", b'<meta name="report-key" content="">', b"\xff\x00"]
)
def test_any_other_page_has_no_key(page):
    assert key_in(page) == {}
