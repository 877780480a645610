import csv
import subprocess
import sys
from datetime import date, timedelta

import numpy as np
import pytest

from modal_forecast.__main__ import main

COLUMNS = ["ds", "yhat", "yhat_lower_80", "yhat_upper_80", "yhat_lower_95", "yhat_upper_95"]


@pytest.fixture
def history(tmp_path):
    """120 days around 100, the 7th of them missing."""
    values = 100 + np.random.default_rng(0).normal(0, 10, 120)
    lines = [
        f"{date(2024, 1, 1) + timedelta(days=n)},{'' if n == 6 else value}" for n, value in enumerate(values)
    ]
    path = tmp_path / "history.csv"
    path.write_text("\n".join(["ds,y", *lines]))
    return path


@pytest.fixture
def out(tmp_path):
    path = tmp_path / "forecast.csv"
    path.write_text("the forecast of yesterday")
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_is_forecast_from_a_shell(history, out):
    command = [sys.executable, "-m", "modal_forecast", history, "--horizon", "30", "--out", out]
    shell = subprocess.run(command, capture_output=True, text=True)
    assert shell.returncode == 0
    assert list(rows(out)[0]) == COLUMNS
    assert [row["ds"] for row in rows(out)] == [str(date(2024, 4, 30) + timedelta(days=n)) for n in range(30)]
    assert 90 < float(rows(out)[0]["yhat"]) < 110
    assert "30 days forecast, 2024-04-30 to 2024-05-29, from 119 days of history (1 missing)" in shell.stdout
    assert f"Wrote {out}" in shell.stdout
    assert "the holidays of US" in shell.stderr


def test_the_default_is_180_days_with_the_holidays_of_the_us(history, out, capsys):
    assert run(history, "--out", out) == 0
    assert len(rows(out)) == 180
    assert "the holidays of US" in capsys.readouterr().err


@pytest.mark.parametrize(("country", "said"), [("none", "no holidays"), ("de", "the holidays of DE")])
def test_the_country_may_be_another_or_none(history, out, capsys, country, said):
    assert run(history, "--country", country, "--horizon", 7, "--out", out) == 0
    assert said in capsys.readouterr().err


def test_a_report_is_written_beside_the_forecast(history, out, tmp_path):
    report = tmp_path / "report.html"
    assert run(history, "--horizon", 7, "--country", "none", "--out", out, "--html", report) == 0
    assert "Forecast of history" in report.read_text()
    assert len(rows(out)) == 7


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--horizon", 0], "choose a whole number of days from 1 to 730"),
        (["--country", "xx"], "No holidays are known for the country 'XX'"),
        (["--html", "/absent/report.html"], "/absent/report.html cannot be written: name a file in a folder"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_the_old_forecast(history, out, capsys, arguments, sentence):
    assert run(history, "--out", out, *arguments) == 1
    assert out.read_text() == "the forecast of yesterday"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("modal_forecast: ")
    assert sentence in said.err


def test_a_bad_history_leaves_the_old_forecast(history, out, capsys):
    history.write_text("ds,y\n2024-01-01,many\n")
    assert run(history, "--out", out) == 1
    assert out.read_text() == "the forecast of yesterday"
    assert "line 2, column y: 'many' is no number" in capsys.readouterr().err


def test_a_failure_while_writing_leaves_the_old_forecast(history, out, tmp_path, monkeypatch, capsys):
    def full_disk(_descriptor):
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr("os.fsync", full_disk)
    assert run(history, "--horizon", 7, "--country", "none", "--out", out) == 1
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert out.read_text() == "the forecast of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forecast.csv", "history.csv"]


def test_a_report_that_cannot_be_made_leaves_the_old_forecast(history, out, tmp_path, monkeypatch):
    monkeypatch.setattr("modal_forecast.report.render", lambda _report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(history, "--horizon", 7, "--country", "none", "--out", out, "--html", tmp_path / "report.html")
    assert out.read_text() == "the forecast of yesterday"


def test_the_history_is_never_overwritten(history, capsys):
    before = history.read_text()
    assert run(history, "--out", history) == 1
    assert "three different files" in capsys.readouterr().err
    assert history.read_text() == before


def test_help_comes_without_loading_prophet():
    script = (
        "import sys, modal_forecast.__main__ as m; m.parse(['h', '--out=o']); print('pandas' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"
