"""What a report is made from, and the key that says whether an existing page was made from the same."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modal_forecast.code_version import code_hash
from modal_forecast.grain import DAY, Grain

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = Path(__file__).parent
# The page does not depend on the preview.
PREVIEW_FILES = ("preview.py", "preview.svg.j2")
# Everything else that the page shows is escaped: only the key's own tag can look like this.
KEY_TAG = re.compile(rb'<meta name="report-key" content="([a-z0-9 ]*)">')
# The part of the key that a field of ReportInput belongs to; any other field belongs to "forecast".
KEY_PARTS = {
    "history": "data",
    "sections": "data",
    "title": "style",
    "unit": "style",
    "decimals": "style",
    "part_noun": "style",
    "color_history": "style",
    "color_prediction": "style",
}
# The diagnostics of a forecast that a report reads, see modal_forecast.model.forecast().
DIAGNOSTICS = (
    "backtest",
    "candidates",
    "best_naive",
    "skill",
    "beats_naive",
    "last_origin",
    "components",
    "country",
    "fallbacks",
    "clipped_yhat_days",
)
HEX_COLOR = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6}|[0-9a-f]{8})")
_NUMBER, _COMMA = r"(?:\d{1,3}(?:\.\d{1,3})?|\.\d{1,3})%?", "(?: ?, ?| )"
_ALPHA = f"(?: ?[,/] ?{_NUMBER})?"
COLOR_FUNCTION = re.compile(
    rf"rgba?\({_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}{_ALPHA}\)"
    rf"|hsla?\(\d{{1,3}}(?:deg)?{_COMMA}\d{{1,3}}%{_COMMA}\d{{1,3}}%{_ALPHA}\)"
)
# The named colours of CSS Color 4.
_COLOR_NAMES = """
    aliceblue antiquewhite aqua aquamarine azure beige bisque black blanchedalmond blue blueviolet brown
    burlywood cadetblue chartreuse chocolate coral cornflowerblue cornsilk crimson cyan darkblue darkcyan
    darkgoldenrod darkgray darkgreen darkgrey darkkhaki darkmagenta darkolivegreen darkorange darkorchid
    darkred darksalmon darkseagreen darkslateblue darkslategray darkslategrey darkturquoise darkviolet
    deeppink deepskyblue dimgray dimgrey dodgerblue firebrick floralwhite forestgreen fuchsia gainsboro
    ghostwhite gold goldenrod gray green greenyellow grey honeydew hotpink indianred indigo ivory khaki
    lavender lavenderblush lawngreen lemonchiffon lightblue lightcoral lightcyan lightgoldenrodyellow
    lightgray lightgreen lightgrey lightpink lightsalmon lightseagreen lightskyblue lightslategray
    lightslategrey lightsteelblue lightyellow lime limegreen linen magenta maroon mediumaquamarine
    mediumblue mediumorchid mediumpurple mediumseagreen mediumslateblue mediumspringgreen mediumturquoise
    mediumvioletred midnightblue mintcream mistyrose moccasin navajowhite navy oldlace olive olivedrab
    orange orangered orchid palegoldenrod palegreen paleturquoise palevioletred papayawhip peachpuff peru
    pink plum powderblue purple rebeccapurple red rosybrown royalblue saddlebrown salmon sandybrown
    seagreen seashell sienna silver skyblue slateblue slategray slategrey snow springgreen steelblue tan
    teal thistle tomato turquoise violet wheat white whitesmoke yellow yellowgreen
"""
COLOR_NAMES = frozenset(_COLOR_NAMES.split())


def check_color(value: str) -> str:
    """Return the colour in lower case.

    Raises ValueError for anything but the colours that the error lists: the colour goes into a style
    sheet as it is, so this check is also what keeps other CSS out.
    """
    color = value.lower()
    if color in COLOR_NAMES or HEX_COLOR.fullmatch(color) or COLOR_FUNCTION.fullmatch(color):
        return color
    close = get_close_matches(color, COLOR_NAMES, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"{value!r:.100} is not a colour: use a CSS colour name, #rgb, #rrggbb, #rrggbbaa, rgb(), rgba(), "
        f"hsl() or hsla().{hint}"
    )


@dataclass(frozen=True)
class ReportInput:
    """A series of days, weeks or months, its forecast, its diagnostics, and how to show them.

    Only history and forecast are required. Where anything else is missing, the page leaves its section out or
    says in a line why it is empty. A number that is missing, None or NaN is shown as n/a. Shares and errors
    are 0..1; a bias is a share of the actuals, above zero if the forecast was too high.

    history: ds date32, y float64, null where a value is missing.
    forecast: ds date32, and float64 yhat, yhat_lower_80, yhat_upper_80, yhat_lower_95, yhat_upper_95.
    made_on: the day on which the forecast was made, in UTC.
    unit: of the series; a currency such as USD or $ is written before its amounts.
    facts: label to value, shown under "How it was made" in this order.
    diagnostics: of the forecast, as model.forecast() returns them; the page reads those named in DIAGNOSTICS.
    decimals: of values in tables; None for as many as the values need.
    parts: of the series, each {name, history, forecast}, with tables as above, and perhaps `widths`: those of
        its sums, number of periods -> width, as intervals.about_sums() measures them. One with a `count`
        stands for so many other parts together. part_noun: what one is.
    track_record: how earlier forecasts did; None if there was none.
        vintages: [{made_on, periods, wape, bias, mase, coverage_80, coverage_95}], where `periods` counts
            the days, weeks or months that were scored.
        compared: one earlier forecast beside the actuals, {made_on, ds, actual, yhat, lower_80, upper_80} of
            lists of one length, where an actual is None if it is not known yet.
        parts: how the parts did, {scored, worst}: how many were scored, and the worst of them in order, each
            {name, periods, mase, wape, bias, coverage_80, coverage_95}.
    notes: sentences on the history.
    grain: what a row of history, forecast and parts is of.
    sections: further tables, each {title, name, headings, rows}. A row is what it is about, and a number or
        None for each heading; name is what rows are about.

    Raises ValueError for an invalid colour, and for a history or a forecast without any day.
    """

    history: pa.Table
    forecast: pa.Table
    title: str = "Forecast"
    made_on: date | None = None
    unit: str = ""
    decimals: int | None = None
    color_history: str = "blue"
    color_prediction: str = "red"
    facts: Mapping[str, str] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    parts: Sequence[Mapping[str, Any]] = ()
    part_noun: str = "part"
    track_record: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    sections: Sequence[Mapping[str, Any]] = ()
    grain: Grain = DAY

    def __post_init__(self) -> None:
        check_color(self.color_history)
        check_color(self.color_prediction)
        if self.history["y"].null_count == self.history.num_rows:
            raise ValueError("A report needs at least one value of history.")
        if self.forecast.num_rows == 0:
            raise ValueError("A report needs at least one value of forecast.")


def report_key(report: ReportInput) -> Mapping[str, str]:
    """Return a hash of each part that a page depends on: data, forecast, style, code.

    Pages with equal keys are equal. Every field of the input is in one of the parts.
    """
    parts: dict[str, list[Any]] = defaultdict(list)
    for report_field in fields(report):
        value = getattr(report, report_field.name)
        if report_field.name == "parts":
            parts["data"].append([[part["name"], part["history"], part.get("count")] for part in value])
            value = [[part["forecast"], part.get("widths")] for part in value]
        elif report_field.name == "diagnostics":
            value = {name: value[name] for name in DIAGNOSTICS if name in value}
        elif report_field.name == "grain":
            value = value.name
        parts[KEY_PARTS.get(report_field.name, "forecast")].append([report_field.name, value])
    hashes = {part: _hash(parts[part]) for part in ("data", "forecast", "style")}
    return {**hashes, "code": _code_hash(FOLDER)}


def key_in(page: bytes | None) -> Mapping[str, str]:
    """Return the key that a page was rendered with; empty if there is no page, or no key in it."""
    tag = KEY_TAG.search(page or b"")
    words = tag.group(1).decode().split() if tag else []
    return dict(zip(words[::2], words[1::2], strict=False))


@cache
def _code_hash(folder: Path) -> str:
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    of_page = [path for path in files if path.name not in PREVIEW_FILES and "__pycache__" not in path.parts]
    return code_hash({path.as_posix(): folder / path for path in of_page})


def _hash(value: object) -> str:
    return hashlib.sha256(repr(_to_lists(value)).encode()).hexdigest()[:12]


def _to_lists(value: Any) -> Any:
    """Nested lists with a stable text: equal for equal input of any kind of mapping, sequence or table."""
    if hasattr(value, "to_pydict"):
        value = value.to_pydict()
    if isinstance(value, Mapping):
        return [[name, _to_lists(part)] for name, part in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_to_lists(part) for part in value]
    return value
