"""How good the forecast is by week and by month, beside the naives: `make bench-forecast-by-grain`.

The series of `make bench-forecast`, summed; each is forecast from three origins, which see no later value.
MASE counts errors in the mean difference to the value of 52 weeks or 12 months before.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from forecast_series import Series, made_up, real, sample_shop

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
from modal_forecast import metrics  # noqa: E402
from modal_forecast.candidates.naive import seasonal_naive  # noqa: E402
from modal_forecast.grain import MONTH, WEEK, Grain  # noqa: E402
from modal_forecast.messages import FORECAST_SCHEMA, ForecastRequest  # noqa: E402
from modal_forecast.model import forecast  # noqa: E402

ORIGINS = 3
# A period with a smaller share of its days is left out at the ends, and missing in between.
KNOWN_SHARE = 0.9


def main() -> None:
    folder = Path(os.environ.get("BENCH_SERIES", ROOT.parent / "shared" / "series"))
    every = made_up() + [of for of in [sample_shop()] if of] + (real(folder) if folder.is_dir() else [])
    for grain in (WEEK, MONTH):
        print(f"{f'MASE by {grain.name}':<30}{'ours':>8}" + "".join(f"{name:>26}" for name in grain.naives))
        rows, coverages = [], []
        for series in every:
            days, values = summed(series, grain)
            scores = [
                score(days, values, at, ahead, series.country, grain) for at, ahead in origins(values, grain)
            ]
            rows.append(np.mean([errors for errors, _ in scores], axis=0))
            coverages += [inside for _, inside in scores]
            print_row(series.name, rows[-1])
        print_row("geometric mean", np.exp(np.mean(np.log(rows), axis=0)))
        inside = " and ".join(f"{share:.0%}" for share in np.mean(coverages, axis=0))
        print(f"{len(rows)} series, inside the 80% and 95% bounds: {inside}\n", flush=True)


def print_row(name: str, errors: np.ndarray) -> None:
    ours, *naives = errors
    print(f"{name[:29]:<30}{ours:>8.2f}" + "".join(f"{error:>26.2f}" for error in naives), flush=True)


def summed(series: Series, grain: Grain) -> tuple[np.ndarray, np.ndarray]:
    """The first days and the sums of weeks or months; missing days count as a usual one of their period."""
    observed = ~np.isnan(series.values)
    numbers = grain.numbers(series.days[observed])
    periods = np.arange(numbers[0], numbers[-1] + 1)
    lengths = (grain.first_days(periods + 1) - grain.first_days(periods)).astype(int)
    counts = np.bincount(numbers - periods[0])
    sums = np.bincount(numbers - periods[0], weights=series.values[observed])
    known = counts >= KNOWN_SHARE * lengths
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(known, sums / counts * lengths, np.nan)
    first, last = np.flatnonzero(known)[[0, -1]]
    return grain.first_days(periods[first : last + 1]), values[first : last + 1]


def origins(values: np.ndarray, grain: Grain) -> list[tuple[int, int]]:
    """Values of the history, and periods ahead, at each origin with a value, the latest first."""
    ahead = min(grain.horizon, len(values) // 4)
    places = [len(values) - ahead - number * max(1, ahead // 3) for number in range(ORIGINS)]
    return [(at, ahead) for at in places if at >= grain.fewest and not np.isnan(values[at - 1])]


def score(
    days: np.ndarray, values: np.ndarray, at: int, ahead: int, country: str | None, grain: Grain
) -> tuple[list[float], list[float]]:
    """MASE of ours and of each naive, and the shares inside the 80% and the 95% bounds."""
    history, actual = values[:at], values[at : at + ahead]
    table = pa.table({"ds": days[:at], "y": history})
    answer = forecast(ForecastRequest(table, ahead, country, grain=grain.name)).forecast
    naives = [seasonal_naive(history, ahead, lag, grain.cycle) for lag in grain.naives.values()]
    scale = float(metrics.seasonal_error(history, grain.season))
    ours = metrics.score(actual, {name: answer[name].to_numpy() for name in FORECAST_SCHEMA.names[1:]}, scale)
    of_naives = [metrics.score(actual, {"yhat": naive}, scale) for naive in naives]
    return [made["mase"] for made in (ours, *of_naives)], [ours["coverage_80"], ours["coverage_95"]]


if __name__ == "__main__":
    main()
