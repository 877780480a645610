"""How good published forecasts turned out to be: each of their days that has come since, scored. Pure.

Of a forecast made again and again, each version is a vintage, scored by itself and for how far ahead it saw.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import pyarrow as pa

# Days ahead, the first and the last, and what people call them.
HORIZONS: Sequence[tuple[int, int, str]] = (
    (1, 7, "1 to 7 days"),
    (8, 30, "8 to 30 days"),
    (31, 90, "31 to 90 days"),
    (91, 10_000, "over 90 days"),
)
ALL = "all days"
# The scale of MASE is the error of repeating the same weekday of the week before.
WEEK = 7

SCHEMA = pa.schema(
    {
        "vintage": pa.string(),
        "made_at": pa.timestamp("us"),
        "data_as_of": pa.date32(),
        "horizon": pa.string(),
        "days": pa.int64(),
        "mase": pa.float64(),
        "wape": pa.float64(),
        "bias": pa.float64(),
        "coverage_80": pa.float64(),
        "coverage_95": pa.float64(),
    }
)
DESCRIPTIONS = {
    "vintage": "The run that made the forecast.",
    "made_at": "When it was made, in UTC.",
    "data_as_of": "The last day of the history that it was made from.",
    "horizon": "How many days ahead: all of them, or a part.",
    "days": "How many of its days have come and are scored.",
    "mase": (
        "Mean absolute error, as a share of that of repeating the week before (Hyndman and Koehler, 2006). "
        "Null where the history has no such error."
    ),
    "wape": "Sum of absolute errors, as a share of what came. Null where nothing came.",
    "bias": "Sum of errors as a share of what came; above 0: the forecast was too high.",
    "coverage_80": "Share of days within the 80% bounds.",
    "coverage_95": "Share of days within the 95% bounds.",
}


@dataclass(frozen=True)
class Vintage:
    """A forecast as it was published: by which run, when, up to which day it knew, and its rows.

    rows: ds date32, and float64 yhat and its four bounds.
    """

    run_id: str
    made_at: datetime
    data_as_of: date
    rows: pa.Table


def score(vintages: Iterable[Vintage], actual: pa.Table) -> pa.Table:
    """The scores of each vintage against what came.

    actual: ds date32 and y float64, a row for every day from the first to the last, as they are known now.

    Returns:
        rows of SCHEMA: for each vintage of which a day has come, one for all its days and one for each part
        of its horizon; the oldest vintage first.
    """
    days = actual["ds"].to_numpy().astype("datetime64[D]")
    values = actual["y"].to_numpy()
    ordered = sorted(vintages, key=lambda vintage: (vintage.made_at, vintage.run_id))
    rows = [row for vintage in ordered for row in _scores(vintage, days, values)]
    return pa.Table.from_pylist(rows, SCHEMA)


def matured(vintage: Vintage, actual: pa.Table) -> pa.Table:
    """The days of a vintage that have come: its rows with what came as `y`."""
    known = dict(zip(actual["ds"].to_pylist(), actual["y"].to_pylist(), strict=True))
    came = [known.get(day) for day in vintage.rows["ds"].to_pylist()]
    joined = vintage.rows.append_column("y", pa.array(came, pa.float64()))
    return joined.filter(pa.array([value is not None for value in came]))


def _scores(vintage: Vintage, days: np.ndarray, values: np.ndarray) -> Iterator[dict[str, object]]:
    actual = pa.table({"ds": pa.array(days, pa.date32()), "y": values})
    came = matured(vintage, actual)
    if not came.num_rows:
        return
    scale = _naive_error(values[days <= np.datetime64(vintage.data_as_of)])
    ahead = (came["ds"].to_numpy().astype("datetime64[D]") - np.datetime64(vintage.data_as_of)).astype(int)
    parts = [(ALL, np.ones(len(ahead), bool))]
    parts += [(name, (first <= ahead) & (ahead <= last)) for first, last, name in HORIZONS]
    for name, mask in parts:
        if mask.any():
            yield {
                "vintage": vintage.run_id,
                "made_at": vintage.made_at.replace(tzinfo=None),
                "data_as_of": vintage.data_as_of,
                "horizon": name,
                **_score({column: came[column].to_numpy()[mask] for column in _COLUMNS}, scale),
            }


_COLUMNS = ("y", "yhat", "yhat_lower_80", "yhat_upper_80", "yhat_lower_95", "yhat_upper_95")


def _score(of: dict[str, np.ndarray], scale: float) -> dict[str, object]:
    errors, total = of["yhat"] - of["y"], float(np.abs(of["y"]).sum())
    return {
        "days": len(errors),
        "mase": float(np.abs(errors).mean()) / scale if scale else None,
        "wape": float(np.abs(errors).sum()) / total if total else None,
        "bias": float(errors.sum()) / total if total else None,
        **{
            f"coverage_{level}": float(
                np.mean((of[f"yhat_lower_{level}"] <= of["y"]) & (of["y"] <= of[f"yhat_upper_{level}"]))
            )
            for level in (80, 95)
        },
    }


def _naive_error(history: np.ndarray) -> float:
    """The mean absolute error of repeating the week before; 0 for less than two weeks."""
    return float(np.abs(history[WEEK:] - history[:-WEEK]).mean()) if len(history) > WEEK else 0.0
