"""One method on one history, in a process of its own: `python forecast_methods.py METHOD < job.json`.

A job has days, values, horizon and country. The forecast, its bounds and what it cost go to stdout as JSON.
"""

import json
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

Answer = dict[str, list[float] | None]


def ours(job: dict[str, Any]) -> Answer:
    from modal_forecast.worker import reserve_little_memory

    reserve_little_memory()
    import numpy as np
    import pyarrow as pa

    from modal_forecast.handler import measured_forecast
    from modal_forecast.messages import ForecastRequest

    days = np.array(job["days"], dtype="datetime64[D]")
    table = pa.table({"ds": days, "y": np.array(job["values"], dtype=float)})
    answer = measured_forecast(ForecastRequest(table, job["horizon"], job["country"]), lambda _line: None)
    made: Answer = {name: answer.forecast[name].to_pylist() for name in answer.forecast.column_names[1:]}
    return made | {"child_mib": [answer.diagnostics["peak_memory_children_mib"]]}


def ours_without_prophet(job: dict[str, Any]) -> Answer:
    from modal_forecast.worker import reserve_little_memory

    reserve_little_memory()
    from modal_forecast.candidates import CANDIDATES

    del CANDIDATES["prophet"]
    return ours(job)


def prophet(job: dict[str, Any]) -> Answer:
    """As it comes: no holidays, additive, 80% interval; 95% from a second prediction."""
    import logging

    logging.disable(logging.CRITICAL)
    import numpy as np
    import pandas as pd
    from prophet import Prophet

    np.random.seed(1)
    model = Prophet()
    model.fit(pd.DataFrame({"ds": pd.to_datetime(job["days"]), "y": job["values"]}), seed=1)
    ahead = pd.DataFrame({"ds": pd.date_range(job["days"][-1], periods=job["horizon"] + 1)[1:]})
    made = model.predict(ahead)
    model.interval_width = 0.95
    wide = model.predict(ahead)
    return _named(
        made["yhat"], (made["yhat_lower"], made["yhat_upper"]), (wide["yhat_lower"], wide["yhat_upper"])
    )


def sarima(job: dict[str, Any]) -> Answer:
    """The demo's: SARIMAX(1,1,1)(1,1,1,7)."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    fit = SARIMAX(_calendar(job), order=(1, 1, 1), seasonal_order=(1, 1, 1, 7)).fit(disp=0)
    made = fit.get_forecast(job["horizon"])
    narrow, wide = made.conf_int(alpha=0.2), made.conf_int(alpha=0.05)
    return _named(made.predicted_mean, (narrow[:, 0], narrow[:, 1]), (wide[:, 0], wide[:, 1]))


def mstl(job: dict[str, Any]) -> Answer:
    """statsforecast's MSTL of week and year (week alone under two years) with its AutoETS trend."""
    from statsforecast.models import MSTL

    values = _filled(job)
    seasons = [7, 364] if len(values) >= 2 * 364 else [7]
    made = MSTL(season_length=seasons).forecast(values, job["horizon"], level=[80, 95])
    return _named(made["mean"], (made["lo-80"], made["hi-80"]), (made["lo-95"], made["hi-95"]))


def naive_7(job: dict[str, Any]) -> Answer:
    return _repeat(job, 7)


def naive_364(job: dict[str, Any]) -> Answer:
    return _repeat(job, 364)


METHODS = {
    "ours": ours, "no Prophet": ours_without_prophet, "prophet": prophet, "sarima": sarima, "mstl": mstl,
    "naive 7": naive_7, "naive 364": naive_364,
}  # fmt: skip


def _named(yhat: Any, narrow: Any, wide: Any) -> Answer:
    bounds = {"80": narrow, "95": wide}
    made: Answer = {"yhat": [float(value) for value in yhat]}
    for level, (lower, upper) in bounds.items():
        made[f"yhat_lower_{level}"] = [float(value) for value in lower]
        made[f"yhat_upper_{level}"] = [float(value) for value in upper]
    return made


def _repeat(job: dict[str, Any], lag: int) -> Answer:
    values = _filled(job)
    lag = lag if len(values) >= lag else 7
    return {"yhat": [float(values[len(values) - lag + n % lag]) for n in range(job["horizon"])]}


def _calendar(job: dict[str, Any]) -> Any:
    import numpy as np

    days = np.array(job["days"], dtype="datetime64[D]")
    values = np.full(int((days[-1] - days[0]).astype(int)) + 1, np.nan)
    values[(days - days[0]).astype(int)] = np.array(job["values"], dtype=float)
    return values


def _filled(job: dict[str, Any]) -> Any:
    """Missing days take the last value of the same weekday, else the mean."""
    import numpy as np

    values = _calendar(job)
    for today in np.flatnonzero(np.isnan(values)):
        if today >= 7:
            values[today] = values[today - 7]
    return np.where(np.isnan(values), np.nanmean(values), values)


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    answer: dict[str, Any] = dict(METHODS[sys.argv[1]](json.load(sys.stdin)))
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    answer["cpu"] = sum(of.ru_utime + of.ru_stime for of in usage)
    answer["mib"] = _peak_mib() + sum(answer.pop("child_mib", None) or [0.0])
    print(json.dumps(answer))
