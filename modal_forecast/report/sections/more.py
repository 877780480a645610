"""Further sections: tables that somebody declares, such as what each store needs."""

from collections.abc import Mapping, Sequence
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.sections import Table


def more_sections(sections: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table for each of ReportInput.sections that has rows; a missing value is left empty."""
    return [
        Table(
            section["title"],
            (section["name"].capitalize(), *section["headings"]),
            tuple((name, *map(_text, values)) for name, *values in section["rows"]),
        )
        for section in sections
        if section["rows"]
    ]


def _text(value: float | None) -> str:
    return "" if value is None else formats.number(value, 0 if float(value).is_integer() else 2)
