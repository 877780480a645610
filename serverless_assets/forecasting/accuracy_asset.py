"""What published forecasts turned out to be worth, as a table that grows with every day that comes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets import metadata, sql
from serverless_assets.artifacts import Artifacts
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.accuracy import ALL, SCHEMA, Vintage, matured, score
from serverless_assets.forecasting.history import REVENUE, Today, read_history
from serverless_assets.forecasting.record import RecordError, RecordName
from serverless_assets.forecasting.records import read_record, recorded
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunInputs
from serverless_assets.scratch import scratch_folder
from serverless_assets.warehouse import TableShape

TABLE = "forecast_accuracy"
DESCRIPTION = "Every published forecast against what came: error, bias and coverage, by how far ahead it saw."
MEASURED = ("mase", "wape", "bias", "coverage_80", "coverage_95")
VINTAGES_SHOWN = 12
READS_AT_ONCE = 8
BASIS = "accuracy_basis"
UNCHANGED = "unchanged: same forecasts and revenue"
# The forecast that is drawn in the report is the one of which about so many days have come.
DAYS_DRAWN, FEWEST_DAYS_DRAWN = 30, 7


def accuracy_asset(group: str, pool: str, timezone: str) -> dg.AssetsDefinition:
    """The asset `forecast_accuracy`; only days that are over in this time zone are scored."""

    @dg.asset(
        name=TABLE,
        group_name=group,
        deps=[REVENUE],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
        description=DESCRIPTION,
    )
    def forecast_accuracy(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> dg.MaterializeResult:
        warehouse, rebuild = publisher.warehouse, run_inputs.choices().rebuild_all
        with as_failure():
            with warehouse.connected():
                actual = read_history(warehouse, Today.of(timezone)).table
                names, basis, reason = decide_accuracy(publisher, actual, rebuild)
                if reason is None:
                    reused = metadata.outcome("reused", UNCHANGED, rows=warehouse.row_count(TABLE))
                    return dg.MaterializeResult(data_version=dg.DataVersion(basis), metadata=reused)
            vintages = read_vintages(publisher.artifacts, names, context.log.warning)
            scores = score(vintages, actual)
            with scratch_folder(publisher.home, "accuracy") as scratch:
                path = scratch / "accuracy.parquet"
                pq.write_table(scores, path)
                shape = TableShape(TABLE, SCHEMA, DESCRIPTION)
                work = warehouse.replace(shape, path, {BASIS: basis})
        return dg.MaterializeResult(
            data_version=dg.DataVersion(basis),
            metadata={
                **metadata.outcome("built", reason, rows=scores.num_rows),
                "forecasts": len(vintages),
                **metadata.work(work, warehouse),
                **_plotted(scores),
            },
        )

    return forecast_accuracy


def decide_accuracy(
    publisher: Publisher, actual: pa.Table, rebuild_all: bool
) -> tuple[Sequence[RecordName], str, str | None]:
    """The forecasts to score against `actual` (ds, y), a hash of both, and why to; None reuses the scores."""
    warehouse = publisher.warehouse
    names = matured_records(recorded(publisher.artifacts), actual)
    basis = basis_of(names, actual)
    note = warehouse.read_state(TABLE) if TABLE in warehouse.tables() else None
    return names, basis, reason_to_score(note, basis, rebuild_all)


def matured_records(names: Sequence[RecordName], actual: pa.Table) -> Sequence[RecordName]:
    """The forecasts of which a day has come. Pure."""
    if not actual.num_rows:
        return []
    last_day = actual["ds"][-1].as_py()
    return [name for name in names if name.data_as_of < last_day]


def basis_of(names: Sequence[RecordName], actual: pa.Table) -> str:
    """What tells these forecasts and what came from others. Pure."""
    found = [SCHEMA.to_string(), *map(str, names), repr(actual.to_pydict())]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def reason_to_score(held: Mapping[str, Any] | None, basis: str, force: bool) -> str | None:
    """Why to score; None if the scores that there are, with the note `held`, are of the same. Pure."""
    if force:
        return "forced: rebuild all"
    if held is None:
        return "first scores"
    return None if held.get(BASIS) == basis else "forecasts or days have come"


def read_vintages(
    artifacts: Artifacts, names: Sequence[RecordName], warn: Callable[[str], None]
) -> list[Vintage]:
    """The forecasts of these records; one that cannot be read is told of and left out."""

    def read(name: RecordName) -> Vintage | None:
        try:
            record = read_record(artifacts, name)
        except RecordError as error:
            warn(str(error))
            return None
        as_of = date.fromisoformat(record.facts["data_as_of"])
        return Vintage(name.run_id, name.made_at, as_of, record.rows)

    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="records") as pool:
        return [vintage for vintage in pool.map(read, names) if vintage]


def to_draw(scored: Sequence[Mapping[str, Any]]) -> str | None:
    """The vintage to draw beside what came: of those with enough days, the one nearest to a month. Pure."""
    enough = [row for row in scored if row["days"] >= FEWEST_DAYS_DRAWN]
    nearest = min(enough, key=lambda row: abs(row["days"] - DAYS_DRAWN), default=None)
    return nearest["vintage"] if nearest else None


def drawn(vintage: Vintage, actual: pa.Table) -> Mapping[str, Any]:
    """A vintage beside what came, as the report draws it."""
    came = matured(vintage, actual)
    return {
        "made_on": vintage.made_at.date().isoformat(),
        "ds": [day.isoformat() for day in came["ds"].to_pylist()],
        "actual": came["y"].to_pylist(),
        "yhat": came["yhat"].to_pylist(),
        "lower_80": came["yhat_lower_80"].to_pylist(),
        "upper_80": came["yhat_upper_80"].to_pylist(),
    }


def accuracy_shown(
    publisher: Publisher, actual: pa.Table, warn: Callable[[str], None]
) -> Mapping[str, Any] | None:
    """How earlier forecasts did, as the report has it; None before a day of any has come."""
    warehouse = publisher.warehouse
    if TABLE not in warehouse.tables():
        return None
    rows = warehouse.query(
        f"select * from {warehouse.quoted_name(TABLE)} where horizon = {sql.literal(ALL)} order by made_at"
    ).to_pylist()
    if not rows:
        return None
    shown = [
        {"made_on": row["made_at"].date().isoformat(), **{name: row[name] for name in ("days", *MEASURED)}}
        for row in rows[-VINTAGES_SHOWN:]
    ]
    drawn_one = to_draw(rows)
    names = [name for name in recorded(publisher.artifacts) if name.run_id == drawn_one]
    found = read_vintages(publisher.artifacts, names[-1:], warn)
    return {"vintages": shown, **({"compared": drawn(found[0], actual)} if found else {})}


def _plotted(scores: pa.Table) -> dict[str, float]:
    """The latest forecast of which a month has come, to be plotted from run to run."""
    rows = [row for row in scores.to_pylist() if row["horizon"] == ALL and row["days"] >= DAYS_DRAWN]
    if not rows:
        return {}
    return {name: round(rows[-1][name], 4) for name in MEASURED if rows[-1][name] is not None}
