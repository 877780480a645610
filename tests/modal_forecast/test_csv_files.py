from datetime import date

import pytest

from modal_forecast.csv_files import CsvError, read_history, write_together
from modal_forecast.messages import HISTORY_SCHEMA


@pytest.fixture
def csv_file(tmp_path):
    def write(text):
        path = tmp_path / "history.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_days_and_values_are_read(csv_file):
    table = read_history(csv_file("ds,y\n2024-01-01,1.5\n2024-01-02,-2e3\n"))
    assert table.schema == HISTORY_SCHEMA
    assert table.to_pydict() == {"ds": [date(2024, 1, 1), date(2024, 1, 2)], "y": [1.5, -2000.0]}


@pytest.mark.parametrize("missing", ["", " ", "nan", "NaN", "NA", "null"])
def test_an_empty_value_is_a_missing_day(csv_file, missing):
    assert read_history(csv_file(f"ds,y\n2024-01-01,{missing}\n"))["y"].to_pylist() == [None]


@pytest.mark.parametrize(
    "moment",
    [
        "2024-01-01",
        " 2024-01-01",
        "2024-01-01 00:00:00",
        "2024-01-01T00:00:00.000",
        "2024-01-01T00:00:00Z",
        "20240101",
    ],
)
def test_a_timestamp_at_midnight_is_a_day(csv_file, moment):
    assert read_history(csv_file(f"ds,y\n{moment},1\n"))["ds"].to_pylist() == [date(2024, 1, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "y,store,ds\n1,a,2024-01-01\n",
        "ds, y\n2024-01-01, 1\n",
        "\ufeffds,y\r\n2024-01-01,1\r\n",
        '"ds","y"\n"2024-01-01","1"\n\n',
        'note,ds,y\n"two\nlines",2024-01-01,1',
    ],
)
def test_what_spreadsheets_do_to_a_file_does_no_harm(csv_file, text):
    assert read_history(csv_file(text)).to_pylist() == [{"ds": date(2024, 1, 1), "y": 1.0}]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1: needs one column ds, and has none"),
        ("date,y\n2024-01-01,1\n", "line 1: needs one column ds, and has date, y"),
        (
            "ds;y\n2024-01-01;1\n",
            "line 1: needs one column ds, and has ds;y. Name the columns there, separated by",
        ),
        ("ds,y,y\n2024-01-01,1,2\n", "line 1: needs one column y"),
        ("ds,y\n2024-01-01,1\n2024-31-01,2\n", "line 3, column ds: '2024-31-01' is no date such as"),
        ("ds,y\n,1\n", "line 2, column ds: '' is no date"),
        (
            "ds,y\n2024-01-01 12:00,1\n",
            "line 2, column ds: '2024-01-01 12:00' is not midnight. Give one row a day",
        ),
        (
            "ds,y\n2024-01-01,1\n2024-01-02,1\n2024-01-01,1\n",
            "line 4, column ds: 2024-01-01 is already on line 2",
        ),
        ("ds,y\n2024-01-01,much\n", "line 2, column y: 'much' is no number such as 1234.5"),
        ("ds,y\n2024-01-01,1_000\n", "line 2, column y: '1_000' is no number"),
        ('ds,y\n2024-01-01,"1,5"\n', "line 2, column y: '1,5' is no number"),
        ("ds,y\n2024-01-01,-inf\n", "line 2, column y: '-inf' is not finite"),
        ("ds,y\n2024-01-01,1,5\n", "line 2: 3 cells, but 2 columns in line 1"),
        ("ds,y\n2024-01-01\n", "line 2: 1 cells, but 2 columns in line 1"),
        ('ds,y,note\n2024-01-01,1,"two\nlines"\n2024-01-02,x,\n', "line 4, column y: 'x' is no number"),
        ("ds,y\n2024-01-01,1\n".encode("utf-16"), "is not text in UTF-8"),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_column(csv_file, text, sentence):
    path = csv_file(text)
    with pytest.raises(CsvError) as refusal:
        read_history(path)
    assert str(path) in str(refusal.value)
    assert sentence in str(refusal.value)


def test_a_file_that_is_not_there_is_refused_in_words(tmp_path):
    with pytest.raises(CsvError, match=r"absent\.csv cannot be read: No such file"):
        read_history(tmp_path / "absent.csv")
    with pytest.raises(CsvError, match="cannot be read: Is a directory"):
        read_history(tmp_path)


def test_files_are_replaced_together_or_not_at_all(tmp_path):
    first = tmp_path / "first"
    first.write_text("old")
    with pytest.raises(OSError, match="absent"):
        write_together({first: "new", tmp_path / "absent" / "second": "new"})
    assert first.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_together({tmp_path / "written": "text"})
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "written").read_text() == "text"
