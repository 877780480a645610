"""The pictures in docs/ show what there is."""

import json
import re

import pytest

from serverless_assets.environments import ARTIFACT_STORES, COMPUTES, WAREHOUSES
from serverless_assets.project_root import PROJECT_ROOT
from tests.pictures import CONTENTS, DOCS, shown_by


def test_every_picture_says_what_it_shows():
    assert {picture.stem for picture in DOCS.glob("*.png")} == set(CONTENTS)


def test_the_drawing_of_the_architecture_names_what_the_code_has():
    """The drawing is written by hand: what it lists is compared with the choices and folders of the code."""
    labels = re.findall(r"<text[^>]*>([^<]+)</text>", (DOCS / "architecture.svg").read_text())
    assert labels[-6:] == [
        "Warehouse", "DuckDB file, BigQuery",
        "Compute", "a subprocess, Modal",
        "Artifact store", "folder, GCS, fsspec",
    ]  # fmt: skip
    assert [[*parts] for parts in (WAREHOUSES, COMPUTES, ARTIFACT_STORES)] == [
        ["duckdb", "bigquery"],
        ["subprocess", "modal"],
        ["folder", "gcs", "url"],
    ]
    for label, folder in (
        ("Raw tables", "ingestion"),
        ("dbt models", "transformation"),
        ("Forecast", "forecasting"),
    ):
        assert label in labels and (PROJECT_ROOT / "serverless_assets" / folder).is_dir()
    models = {path.name for path in (PROJECT_ROOT / "dbt_project" / "models").iterdir()}
    assert (
        labels[labels.index("dbt models") + 1] == "staging, marts, totals" and {"staging", "marts"} <= models
    )


@pytest.mark.parametrize("name", CONTENTS)
def test_a_picture_shows_what_the_code_has(name, green):
    now = json.loads(json.dumps(CONTENTS[name](green.definitions)))
    # A raw table that the sample shop lacks, and its models, are in no picture.
    left_out = green.summary["assets"].keys() - green.outcomes.keys()
    if name == "asset-graph":
        now = [asset for asset in now if asset not in left_out]
    assert shown_by(DOCS / f"{name}.png") == now, f"docs/{name}.png is outdated: run `make pictures`."
