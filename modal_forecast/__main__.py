"""Forecast any series from a shell: `python -m modal_forecast history.csv --out forecast.csv`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modal_forecast.grain import DAY, GRAINS

if TYPE_CHECKING:
    from modal_forecast.messages import ForecastAnswer, ForecastRequest


def main(arguments: Sequence[str] | None = None, remote: Callable[[bytes], bytes] | None = None) -> int:
    """Exit code 0 if everything asked for is written, 1 with one sentence on stderr if nothing is.

    remote: answers the bytes of a ForecastRequest elsewhere; None forecasts in this process.
    """
    options = parse(arguments)
    # After parsing, so that --help and a mistyped option answer at once.
    from modal_forecast.csv_files import CsvError, is_stdout, read_history
    from modal_forecast.handler import measured_forecast
    from modal_forecast.messages import ForecastAnswer, ForecastRefused, ForecastRequest

    try:
        check_outputs(options)
        grain = GRAINS[options.grain]
        horizon = grain.horizon if options.horizon is None else options.horizon
        history = read_history(options.history)
        request = ForecastRequest(history, horizon, options.country, grain=grain.name)
        if remote:
            answer = ForecastAnswer.from_bytes(remote(request.to_bytes()))
        else:
            answer = measured_forecast(request, lambda line: print(line, file=sys.stderr, flush=True))
        write_outputs(options, request, answer)
    except (CsvError, ForecastRefused, OutputError) as error:
        print(f"modal_forecast: {error}", file=sys.stderr)
        return 1
    # What stdout carries is the forecast alone.
    to_stdout = any(map(is_stdout, outputs_of(options)))
    print(summary(options, answer), file=sys.stderr if to_stdout else sys.stdout)
    return 0


class OutputError(ValueError):
    """A place where nothing can be written."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m modal_forecast",
        description="Forecast a series of days, weeks or months, with 80% and 95% intervals.",
    )
    parser.add_argument(
        "history",
        type=Path,
        help="a CSV with the columns ds (a date of the day, week or month) and y (empty if missing)",
    )
    parser.add_argument(
        "--grain", choices=list(GRAINS), default=DAY.name, help="what a row is of (default: day)"
    )
    horizons = ", ".join(grain.counted(grain.horizon) for grain in GRAINS.values())
    parser.add_argument(
        "--horizon", type=int, metavar="PERIODS", help=f"how far to forecast (default: {horizons})"
    )
    parser.add_argument(
        "--country", default="US", metavar="CODE",
        type=lambda code: None if code.lower() == "none" else code.upper(),
        help='whose holidays to use, such as US or DE, or "none" (default: US)',
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="where to write the forecast")
    parser.add_argument("--html", type=Path, metavar="HTML", help="where to write a report, if wanted")
    return parser.parse_args(arguments)


def outputs_of(options: argparse.Namespace) -> list[Path]:
    return [path for path in (options.out, options.html) if path]


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse before the fit what could not be written after it."""
    from modal_forecast.csv_files import is_stream

    for path in outputs_of(options):
        if path.is_block_device() or path.is_socket():
            raise OutputError(f"{path} is a disk or a socket: name a file, a pipe or a character device.")
        try:
            is_writable = is_stream(path) or path.resolve().parent.is_dir()
        except RuntimeError:  # A symbolic link that leads to itself.
            is_writable = False
        if path.is_dir() or not is_writable:
            raise OutputError(f"{path} cannot be written: name a file in a folder that exists.")
    files = [path for path in (options.history, *outputs_of(options)) if not is_stream(path)]
    resolved = [path.resolve() for path in files]
    if len(set(resolved)) < len(resolved):
        raise OutputError("The history, the forecast and the report need three different files.")


def write_outputs(options: argparse.Namespace, request: "ForecastRequest", answer: "ForecastAnswer") -> None:
    from modal_forecast.csv_files import forecast_csv, write_together

    contents = {options.out: forecast_csv(answer.forecast)}
    if options.html:
        from modal_forecast.report.page import render
        from modal_forecast.report.report_input import ReportInput

        report = ReportInput(
            request.history,
            answer.forecast,
            title=f"Forecast of {options.history.stem}",
            facts=facts(answer.diagnostics),
            diagnostics=answer.diagnostics,
            grain=GRAINS[request.grain],
        )
        contents[options.html] = render(report)
    try:
        write_together(contents)
    except OSError as error:
        raise OutputError(f"{error.filename} cannot be written: {error.strerror}.") from error


def facts(diagnostics: Mapping[str, Any]) -> dict[str, str]:
    """Return the diagnostics that the report shows, by their labels."""
    of, plural = diagnostics, GRAINS[diagnostics["grain"]].plural
    return {
        "History": f"{of['first_ds']} to {of['last_ds']}",
        plural.capitalize(): f"{of['n_history']:,} with a value, {of['n_missing']:,} missing",
        "Holidays": str(of["country"] or "none"),
        "Clipped at zero": f"{of['clipped_days']} of {of['horizon']} {plural}",
        "Took": f"{of['seconds']:.1f} s, {of['peak_memory_mib']:.0f} MiB at most",
        "Versions": ", ".join(f"{library} {number}" for library, number in of["versions"].items()),
    }


def summary(options: argparse.Namespace, answer: "ForecastAnswer") -> str:
    days, of = answer.forecast["ds"], answer.diagnostics
    grain = GRAINS[of["grain"]]
    files = ", ".join(map(str, outputs_of(options)))
    mean = answer.forecast["yhat"].to_numpy().mean()
    average = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.4g}"
    return (
        f"{grain.counted(of['horizon'])} forecast, {days[0]} to {days[-1]}, from "
        f"{grain.counted(of['n_history'])} of history ({of['n_missing']:,} missing): "
        f"{average} a {grain.name} on average. "
        f"{of['seconds']:.1f} s, {of['peak_memory_mib']:.0f} MiB. Wrote {files}."
    )


if __name__ == "__main__":
    from modal_forecast.worker import reserve_little_memory

    reserve_little_memory()
    sys.exit(main())
