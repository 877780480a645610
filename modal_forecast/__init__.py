"""A forecast of daily figures, and its report, that run on Modal, in a worker process or from a shell.

Pure core
    messages.py     what goes over the wire: ForecastRequest, ForecastAnswer, ForecastRefused
    validation.py   what a request must be to be forecast, and the sentence that says what is wrong
    model.py        forecast(request, log): a combination of candidates, with nested 80% and 95% intervals
    models/         the candidates: harmonic regressions, recent weeks, last years, Prophet, seasonal naives
    backtest.py     what each would have forecast earlier; combine.py weighs them by it, intervals.py makes
                    bounds of what they missed by, scores.py says how good it was, components.py of what it is
    report/         the forecast as one HTML page
Thin shells
    handler.py      bytes in, bytes out, with the time and memory it took
    worker.py       the handler over stdin and stdout: `python -m modal_forecast.worker`
    __main__.py     the model on a CSV file: `python -m modal_forecast history.csv --out forecast.csv`
and what they share: csv_files.py, lean_imports.py, resources.py.

It imports neither dagster nor serverless_assets. This file imports nothing, because a worker decides what is
loaded, and in which order (see lean_imports.py).
"""
