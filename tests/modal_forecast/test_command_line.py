import csv
import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

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
    monkeypatch.setattr("modal_forecast.report.page.render", lambda _report: 1 / 0)
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


# Paths that are no plain files


QUICK = ("--horizon", 7, "--country", "none")


def test_a_pipe_is_written_into_and_stays_a_pipe(history, tmp_path):
    pipes = [tmp_path / "out", tmp_path / "html"]
    for pipe in pipes:
        os.mkfifo(pipe)
    with ThreadPoolExecutor(2) as readers:
        read = [readers.submit(pipe.read_text) for pipe in pipes]
        assert run(history, *QUICK, "--out", pipes[0], "--html", pipes[1]) == 0
    assert read[0].result().startswith(",".join(COLUMNS))
    assert "Forecast of history" in read[1].result()
    assert all(pipe.is_fifo() for pipe in pipes)


def test_a_device_is_written_into_and_stays_a_device(history):
    ours, theirs = os.openpty()
    device = Path(os.ttyname(theirs))
    with os.fdopen(ours, "rb") as terminal, os.fdopen(theirs, "wb"):
        assert run(history, *QUICK, "--out", device) == 0
        assert terminal.readline().decode().strip() == ",".join(COLUMNS)
    assert not device.is_file()


@pytest.mark.parametrize("to_a_file", [False, True], ids=["pipe", "file"])
def test_stdout_carries_the_forecast_alone(history, tmp_path, to_a_file):
    command = [sys.executable, "-m", "modal_forecast", history, *QUICK, "--out", "/dev/stdout"]
    file = tmp_path / "redirected.csv"
    with file.open("wb") as redirected:
        shell = subprocess.run(
            list(map(str, command)),
            stdout=redirected if to_a_file else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert shell.returncode == 0
    lines = (file.read_text() if to_a_file else shell.stdout).splitlines()
    assert (lines[0], len(lines)) == (",".join(COLUMNS), 8)
    assert "7 days forecast" in shell.stderr


def test_a_reader_that_has_gone_is_said_in_a_sentence(history):
    command = f"{sys.executable} -m modal_forecast {history} --horizon 7 --country none --out /dev/stdout"
    reading, writing = os.pipe()
    os.close(reading)
    shell = subprocess.run(command.split(), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert shell.returncode == 1
    assert "modal_forecast: /dev/stdout cannot be written: Broken pipe." in shell.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_and_its_file_is_replaced(history, out, tmp_path, exists):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target.csv", tmp_path / "link.csv"
    link.symlink_to(target)
    if exists:
        target.write_text("old")
        target.chmod(0o600)
    assert run(history, *QUICK, "--out", link) == 0
    assert link.is_symlink()
    assert len(rows(target)) == 7
    assert [path.name for path in target.parent.iterdir()] == ["target.csv"]
    if exists:
        assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_to_the_history_or_to_itself_or_nowhere_is_refused(history, tmp_path, capsys):
    for name, target in {"history": history, "loop": tmp_path / "loop", "lost": "/absent/file.csv"}.items():
        (tmp_path / name).symlink_to(target)
        assert run(history, *QUICK, "--out", tmp_path / name) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_socket_is_refused_before_the_forecast(history, tmp_path, capsys):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert run(history, *QUICK, "--out", tmp_path / "socket") == 1
    assert capsys.readouterr().err.endswith("name a file, a pipe or a character device.\n")
