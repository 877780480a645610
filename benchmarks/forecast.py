"""How good and how dear the forecast is, beside its peers: `make bench-forecast`.

Each method forecasts each series from three origins, in a process of its own that sees no later day.
MASE counts errors in the mean difference to the same day a week before (Hyndman and Koehler, 2006).
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from forecast_series import Series, made_up, real, sample_shop

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # for the metrics and the sample shop
from modal_forecast import metrics  # noqa: E402
from modal_forecast.messages import FORECAST_SCHEMA  # noqa: E402

# "no Prophet" is ours without that candidate: `make bench-prophet` compares the two.
PEERS = ("prophet", "sarima", "mstl", "naive 7", "naive 364")
METHODS = ("ours", *PEERS, "no Prophet")
HORIZON, ORIGINS, STEP = 180, 3, 120
# What was set out to be reached: error in that of Prophet as it comes and of the demo's SARIMA.
AIMS = {"prophet": 0.67, "sarima": 0.46}


def main() -> None:
    options = parse()
    folder = options.series
    series = made_up() + [of for of in [sample_shop()] if of] + (real(folder) if folder.is_dir() else [])
    results: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    print(f"{'MASE':<30}" + "".join(f"{method:>11}" for method in options.methods), flush=True)
    for of in series:
        for origin, horizon in origins_of(of, options.origins):
            for method in options.methods:
                results[of.name][method].append(measure(method, of, origin, horizon))
        row = [np.mean([one["mase"] for one in results[of.name][method]]) for method in options.methods]
        print(f"{of.name[:29]:<30}" + "".join(f"{value:>11.2f}" for value in row), flush=True)
    summarize(results, options.methods)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    usual = os.environ.get("BENCH_SERIES", ROOT.parent / "shared" / "series")
    says = "a folder of CSV files with the columns ds and y (default: $BENCH_SERIES, else ../shared/series)"
    parser.add_argument("series", type=Path, nargs="?", default=usual, help=says)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["ours", *PEERS])
    parser.add_argument("--origins", type=int, default=ORIGINS)
    return parser.parse_args()


def origins_of(series: Series, number: int) -> Iterator[tuple[np.datetime64, int]]:
    """The last day of each history, and the days to forecast from it."""
    length = int((series.days[-1] - series.days[0]).astype(int)) + 1
    horizon = min(HORIZON, length // 4)
    step = STEP if length >= 900 else horizon // 2
    for index in range(number):
        yield series.days[-1] - horizon - index * step, horizon


def measure(method: str, series: Series, origin: np.datetime64, horizon: int) -> dict[str, float]:
    """mase, coverage_80, coverage_95 (NaN without bounds), cpu seconds and MiB of the whole process."""
    known = (series.days <= origin) & ~np.isnan(series.values)
    days, values = series.days[known], series.values[known]
    ahead = int((origin - days[-1]).astype(int)) + horizon
    job = {
        "days": [str(day) for day in days],
        "values": values.tolist(),
        "horizon": ahead,
        "country": series.country,
    }
    made = run(method, job)
    position = (series.days - days[-1]).astype(int) - 1
    asked = (series.days > origin) & (position < ahead) & ~np.isnan(series.values)
    actual, at = series.values[asked], position[asked]
    result = {"cpu": made["cpu"], "mib": made["mib"]}
    columns = {name: np.array(made[name])[at] for name in FORECAST_SCHEMA.names[1:] if made.get(name)}
    scores = metrics.score(actual, columns, lag_7(days, values))
    for name in ("mase", "coverage_80", "coverage_95"):
        result[name] = math.nan if scores[name] is None else scores[name]
    return result


def run(method: str, job: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("forecast_methods.py")), method]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(f"{method} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def lag_7(days: np.ndarray, values: np.ndarray) -> float:
    calendar = np.full(int((days[-1] - days[0]).astype(int)) + 1, np.nan)
    calendar[(days - days[0]).astype(int)] = values
    return float(metrics.seasonal_error(calendar, 7))


def summarize(results: dict[str, dict[str, list[dict[str, float]]]], methods: list[str]) -> None:
    def over_all(method: str, what: str) -> list[float]:
        return [one[what] for by_method in results.values() for one in by_method[method]]

    means = {
        method: math.exp(
            np.mean([math.log(np.mean([one["mase"] for one in of[method]])) for of in results.values()])
        )
        for method in methods
    }
    lines = {
        "geometric mean": [f"{means[method]:.2f}" for method in methods],
        "inside 80%": [f"{np.mean(over_all(method, 'coverage_80')):.0%}" for method in methods],
        "inside 95%": [f"{np.mean(over_all(method, 'coverage_95')):.0%}" for method in methods],
        "cpu seconds, mean": [f"{np.mean(over_all(method, 'cpu')):.2f}" for method in methods],
        "cpu seconds, most": [f"{np.max(over_all(method, 'cpu')):.2f}" for method in methods],
        "MiB, most": [f"{np.max(over_all(method, 'mib')):.0f}" for method in methods],
    }
    print()
    for name, cells in lines.items():
        print(f"{name:<30}" + "".join(f"{cell.replace('nan%', '-'):>11}" for cell in cells))
    for peer, aim in AIMS.items():
        if "ours" in methods and peer in methods:
            print(f"ours in {peer}'s: {means['ours'] / means[peer]:.2f} (aim: {aim} or less)")


if __name__ == "__main__":
    main()
