"""Declaring a raw table from a sample file: what is written, and what is refused."""

import io
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from jinja2 import Template

from serverless_assets.errors import UserError
from serverless_assets.ingestion.add_table import add_table
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.settings import PROJECT_ROOT
from tests.ingestion.scripted import GOOD, Answer, body, shop, status

RAW = (PROJECT_ROOT / "dbt_project" / "models" / "staging" / "raw.yml").read_text()
SOURCE = {
    "identifier": "raw_stores",
    "source_name": "raw",
    "package_name": "shop",
    "original_file_path": "models/staging/raw.yml",
    "config": {"meta": {"key": ["id"]}},
}
MANIFEST = {"metadata": {"project_name": "shop"}, "sources": {"raw": SOURCE}, "nodes": {}}


def parquet(**columns: list[object]) -> Answer:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return body(buffer.getvalue())


def add(folder: Path, answer: Answer, text: str = RAW, file: str = "visits", name: str | None = None) -> str:
    """Add a table to a project with this sources file; the file afterwards."""
    path = folder / "models" / "staging" / "raw.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with shop(answer) as source:
        base = HttpSource(source.url, attempts=1)
        list(add_table(f"{source.url}/{file}.parquet", name, folder, MANIFEST, base, folder))
    return path.read_text()


def entry(text: str, name: str) -> dict:
    (found,) = [table for table in yaml.safe_load(text)["sources"][0]["tables"] if table["name"] == name]
    return found


def test_the_entry_follows_the_others_which_stay_to_the_letter(tmp_path):
    text = add(tmp_path, GOOD)
    assert text.startswith(RAW)
    assert entry(text, "visits")["config"] == {"meta": {"key": ["id"]}}
    assert "key: [id]  # a guess" in text
    assert text.endswith("data_type: string\n")


COMMENTED = """# Ours.
sources:
  - name: raw
    tables:
    - name: raw_stores   # the shops
      config: {meta: {key: [id]}}
      description: >
        Two
        lines.
    # about to come

  - name: other
    tables: []
"""


def test_comments_and_other_sources_stay_where_they_are(tmp_path):
    text = add(tmp_path, GOOD, COMMENTED, "a/b", "visits")
    assert [line for line in text.splitlines() if line in COMMENTED.splitlines()] == COMMENTED.splitlines()
    assert entry(text, "visits")["config"]["meta"]["path"] == "a/b"
    assert [source["name"] for source in yaml.safe_load(text)["sources"]] == ["raw", "other"]


def test_two_columns_are_the_key_where_no_single_one_is(tmp_path):
    text = add(tmp_path, parquet(visit=["a", "a", "b"], n=[1, 2, 1], x=["u", "u", "u"]))
    assert entry(text, "visits")["config"]["meta"]["key"] == ["visit", "n"]


def test_names_that_yaml_or_sql_would_take_for_something_else_are_quoted(tmp_path):
    text = add(tmp_path, parquet(id=["a"], **{"no": ["x"], "a b: c": [True]}))
    assert [column["name"] for column in entry(text, "visits")["columns"]] == ["id", "no", "a b: c"]
    assert '{{ adapter.quote("a b: c") }}' in (tmp_path / "models/staging/stg_visits.sql").read_text()


@pytest.mark.parametrize(
    ("answer", "options", "sentence"),
    [
        (GOOD, {"file": "raw_stores"}, "The dbt project has a raw_stores already"),
        (GOOD, {"file": "Visits of May"}, "'visits of may' is no name of a table"),
        (status(404), {}, "answered 404"),
        (body(b"<html>"), {}, "not parquet"),
        (parquet(id=["a", "a"]), {}, "No column of visits, nor two of them, identifies its rows."),
        (parquet(id=[]), {}, "has no rows or columns to load"),
        (GOOD, {"text": "sources: [{name: raw, tables: [{name: raw_stores}]}]"}, "Add the entry by hand"),
    ],
)
def test_what_cannot_be_added_is_refused_in_a_sentence_and_nothing_is_written(
    tmp_path, answer, options, sentence
):
    with pytest.raises(UserError) as refused:
        add(tmp_path, answer, **options)
    assert sentence in str(refused.value)
    assert {path.name for path in (tmp_path / "models").rglob("*.*")} == {"raw.yml"}
    assert (tmp_path / "models/staging/raw.yml").read_text() == options.get("text", RAW)


def test_a_file_beside_the_source_of_all_other_tables_is_refused(tmp_path):
    base = HttpSource("https://example.com/data")
    with pytest.raises(UserError, match=r"is not below https://example\.com/data"):
        list(add_table("https://example.org/data/x.parquet", None, tmp_path, MANIFEST, base, tmp_path))
    with pytest.raises(UserError, match="is not the address of a parquet file"):
        list(add_table("https://example.com/data/x.csv", None, tmp_path, MANIFEST, base, tmp_path))


def test_a_name_with_jinja_in_it_stays_a_name(tmp_path):
    add(tmp_path, parquet(id=[1], **{"') }}{{ 1/0 }}": [2]}))
    sql = (tmp_path / "models/staging/stg_visits.sql").read_text()
    context = {"source": lambda *names: names[1], "adapter": SimpleNamespace(quote='"{}"'.format)}
    assert '"\') }}{{ 1/0 }}"' in Template(sql).render(context)


def test_a_name_that_dbt_cannot_quote_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match="has a quotation mark in its name"):
        add(tmp_path, parquet(id=[1], **{'a", 1 as "b': [2]}))
    assert (tmp_path / "models/staging/raw.yml").read_text() == RAW
    assert not (tmp_path / "models/staging/stg_visits.sql").exists()
