"""A forecast by day, week or month, and its report, that run on Modal, in a worker process or from a shell.

Pure core
    messages.py        requests and answers, and how they are put into bytes
    validation.py      the rules for a request that can be forecast
    model.py           forecast(request, log): a combination of candidates, with nested 80% and 95% intervals
    candidates/        the forecasting methods: harmonic regressions, recent levels, seasonal naives, Prophet
    grain.py           days, weeks and months: their arithmetic, seasons and names
    series.py, calendars.py   a series on a calendar; holidays, closed days and calendar columns
    backtest.py        forecasts from earlier days, and their accuracy by metrics.py; combine.py weighs the
                       candidates by it, intervals.py makes bounds of the errors, diagnostics.py describes it
    reconciliation.py  parts scaled to add up to their total
    report/            the forecast as one HTML page
Thin shells
    batch.py           many series on several processes
    handler.py         bytes in, bytes out, with the time and memory that took (resources.py)
    worker.py          the handler over stdin and stdout: `python -m modal_forecast.worker`
    app.py             the handler as a Modal function; code_version.py tells deployed versions apart
    __main__.py        the model on a CSV file: `python -m modal_forecast history.csv --out forecast.csv`

It imports neither dagster nor serverless_assets. This file imports nothing, because a worker decides what is
loaded, and in which order (see worker.reserve_little_memory).
"""
