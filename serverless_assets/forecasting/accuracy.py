"""The asset of accuracy: each published forecast scored on those of its days that have passed since.

Each published version of the forecast is a vintage, scored by itself and by how many days ahead it saw.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any, Generic, TypeVar

import dagster as dg
import numpy as np
import pyarrow as pa

from modal_forecast import metrics
from modal_forecast.grain import DAY, Grain
from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.checks import VALUES
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_file import grain_in
from serverless_assets.forecasting.history import Today, read_history
from serverless_assets.forecasting.record import RecordError, RecordName, list_records, read_record
from serverless_assets.forecasting.reuse import reason_by_key
from serverless_assets.hashing import digest
from serverless_assets.names import ACCURACY_KEY
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunInputs
from serverless_assets.warehouse import TableShape, Warehouse

DESCRIPTION = "Every published forecast against what came: error, bias and coverage, by how far ahead it saw."
SCORES = ("mase", "wape", "bias", "coverage_80", "coverage_95")
NO_LIMIT = 10_000
UNCHANGED = "unchanged: same forecasts and history"
PARALLEL_READS = 8
REPORTED_VINTAGES = 12
# What came, as a table or as a matrix of parts.
Actual = TypeVar("Actual")


def score_schema(grain: Grain) -> pa.Schema:
    """Return the columns of the scores; the one that counts scored rows is named days, weeks or months."""
    return pa.schema(
        {
            "vintage": pa.string(),
            "made_at": pa.timestamp("us"),
            "data_as_of": pa.date32(),
            "horizon": pa.string(),
            grain.plural: pa.int64(),
            **dict.fromkeys(SCORES, pa.float64()),
        }
    )


def describe_scores(grain: Grain) -> Mapping[str, str]:
    """Return the description of each column of score_schema()."""
    return {
        "vintage": "The run that made the forecast.",
        "made_at": "When it was made, in UTC.",
        "data_as_of": "The last day of the history that it was made from.",
        "horizon": f"How many {grain.plural} ahead: all of them, or a part.",
        grain.plural: f"How many of its {grain.plural} have come and are scored.",
        "mase": "Mean absolute error, as a share of that of repeating what came "
        f"{grain.counted(grain.season)} before (Hyndman and Koehler, 2006). "
        "Null where the history has no such error.",
        "wape": "Sum of absolute errors, as a share of what came. Null where nothing came.",
        "bias": "Sum of errors as a share of what came; above 0: the forecast was too high.",
        "coverage_80": f"Share of {grain.plural} within the 80% bounds.",
        "coverage_95": f"Share of {grain.plural} within the 95% bounds.",
    }


def horizons(grain: Grain) -> Mapping[str, tuple[int, int]]:
    """Return what is scored of a horizon: label -> first and last period ahead; the whole first."""
    parts, first = {all_of(grain): (1, NO_LIMIT)}, 1
    for last in grain.windows:
        parts[f"{first} to {last} {grain.plural}"] = (first, last)
        first = last + 1
    return {**parts, f"over {grain.windows[-1]} {grain.plural}": (first, NO_LIMIT)}


def all_of(grain: Grain) -> str:
    """Return the label of the whole horizon in the column `horizon`."""
    return f"all {grain.plural}"


@dataclass(frozen=True)
class Vintage:
    """One published version of the forecast.

    data_as_of: the last day of its history. rows: ds date32, and float64 yhat and its four bounds.
    """

    run_id: str
    made_at: datetime
    data_as_of: date
    rows: pa.Table


@dataclass(frozen=True)
class ScoreDecision(Generic[Actual]):
    """Whether to score forecasts again: `reason` says why; None reuses the table.

    names: the records to score. actual: what came. key: a hash of both.
    """

    names: Sequence[RecordName]
    actual: Actual
    key: str
    reason: str | None


def accuracy_asset(declaration: ForecastDeclaration, pool: str, timezone: str) -> dg.AssetsDefinition:
    """Return the asset of the accuracy of the total."""
    grain = declaration.time_grain

    def scores(
        decision: ScoreDecision[pa.Table], artifacts: Artifacts, warn: Callable[[str], None]
    ) -> tuple[pa.Table, Mapping[str, Any]]:
        vintages = read_vintages(artifacts, decision.names, grain, warn)
        table = score(vintages, decision.actual, grain)
        # The scores of the latest vintage with a month of scored days are plotted from run to run.
        mature = [
            row
            for row in table.to_pylist()
            if row["horizon"] == all_of(grain) and row[grain.plural] >= grain.windows[1]
        ] or [{}]
        rounded = {name: round(mature[-1][name], 4) for name in SCORES if mature[-1].get(name) is not None}
        return table, {"forecasts": len(vintages), **rounded}

    return scores_asset(
        declaration,
        declaration.accuracy,
        DESCRIPTION,
        UNCHANGED,
        partial(decide_accuracy, declaration),
        scores,
        pool,
        timezone,
    )


def scores_asset(
    declaration: ForecastDeclaration,
    name: str,
    description: str,
    unchanged: str,
    decide: Callable[[Publisher, pa.Table, bool], ScoreDecision[Actual]],
    scores: Callable[
        [ScoreDecision[Actual], Artifacts, Callable[[str], None]], tuple[pa.Table, Mapping[str, Any]]
    ],
    pool: str,
    timezone: str,
) -> dg.AssetsDefinition:
    """Return an asset of scores, of days that are over both in UTC and in `timezone`.

    Args:
        unchanged: says that the table is reused.
        decide: gets the history, ds and y, and whether to rebuild all.
        scores: returns the table and its metadata; it may warn.
    """

    @dg.asset(
        name=name,
        group_name=declaration.group,
        deps=[declaration.relation],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
        description=description,
    )
    def scored(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> dg.MaterializeResult:
        warehouse, rebuild_all = publisher.warehouse, run_inputs.rebuild_all
        with as_failure():
            with warehouse.connected():
                history = read_history(declaration, warehouse, Today.of(timezone)).table
                decision = decide(publisher, history, rebuild_all)
                version = dg.DataVersion(decision.key)
                if decision.reason is None:
                    reused = metadata.outcome("reused", unchanged, rows=warehouse.row_count(name))
                    return dg.MaterializeResult(data_version=version, metadata=reused)
            table, facts = scores(decision, publisher.artifacts, context.log.warning)
            shape = TableShape(name, table.schema, description)
            work = warehouse.replace_rows(shape, table, {ACCURACY_KEY: decision.key})
        built = metadata.outcome("built", decision.reason, rows=table.num_rows)
        return dg.MaterializeResult(
            data_version=version, metadata={**built, **metadata.job_metadata(work, warehouse), **facts}
        )

    return scored


def decide_accuracy(
    declaration: ForecastDeclaration, publisher: Publisher, actual: pa.Table, rebuild_all: bool
) -> ScoreDecision[pa.Table]:
    """Decide whether to score again the forecasts of which a day has passed.

    actual: ds date32 and y float64, the history.
    """
    last_day = actual["ds"][-1].as_py() if actual.num_rows else date.min
    names = [
        name for name in list_records(publisher.artifacts, declaration.name) if name.data_as_of < last_day
    ]
    schema = score_schema(declaration.time_grain)
    key = digest("\n".join([schema.to_string(), *map(str, names), repr(actual.to_pydict())]))
    reason = reason_to_score(publisher.warehouse, declaration.accuracy, key, "first scores", rebuild_all)
    return ScoreDecision(names, actual, key, reason)


def reason_to_score(warehouse: Warehouse, table: str, key: str, first: str, force: bool) -> str | None:
    """Return why to fill a table of scores; None if it was made from what has this key."""
    state = warehouse.read_state(table) if table in warehouse.tables() else None
    return reason_by_key(state, ACCURACY_KEY, key, first, "new forecasts or days to score", force)


def read_vintages(
    artifacts: Artifacts, names: Sequence[RecordName], grain: Grain, warn: Callable[[str], None]
) -> list[Vintage]:
    """Return the forecasts in these records; one that cannot be read is left out, and `warn` is called.

    Forecasts of another grain, such as that by day of what is now forecast by month, are left out, too.
    """

    def read(name: RecordName) -> Vintage | None:
        try:
            record = read_record(artifacts, name)
        except RecordError as error:
            warn(str(error))
            return None
        if grain_in(record.facts) is not grain:
            return None
        data_as_of = date.fromisoformat(record.facts["data_as_of"])
        return Vintage(name.run_id, name.made_at, data_as_of, record.rows)

    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="records") as pool:
        return [vintage for vintage in pool.map(read, names) if vintage]


def score(vintages: Iterable[Vintage], actual: pa.Table, grain: Grain = DAY) -> pa.Table:
    """Return the scores of each vintage.

    Args:
        actual: ds date32 and y float64, a row for every period from the first to the last.

    Returns:
        rows of score_schema(): for each vintage of which a period has passed, one for each of horizons(); the
        oldest vintage first.
    """
    ordered = sorted(vintages, key=lambda vintage: (vintage.made_at, vintage.run_id))
    rows = [row for vintage in ordered for row in _scores(vintage, actual, grain)]
    return pa.Table.from_pylist(rows, score_schema(grain))


def matured(vintage: Vintage, actual: pa.Table) -> pa.Table:
    """Return the vintage's rows of periods that have passed, with the actual value as `y`."""
    actual_by_day = dict(zip(actual["ds"].to_pylist(), actual["y"].to_pylist(), strict=True))
    values = pa.array(map(actual_by_day.get, vintage.rows["ds"].to_pylist()), pa.float64())
    return vintage.rows.append_column("y", values).filter(values.is_valid())


def _scores(vintage: Vintage, actual: pa.Table, grain: Grain) -> Iterator[dict[str, object]]:
    passed = matured(vintage, actual)
    if not passed.num_rows:
        return
    as_of = np.datetime64(vintage.data_as_of)
    history = actual["y"].to_numpy()[actual["ds"].to_numpy().astype("datetime64[D]") <= as_of]
    scale = float(metrics.seasonal_error(history, grain.season))
    y, columns = passed["y"].to_numpy(), {name: passed[name].to_numpy() for name in VALUES}
    ahead = grain.numbers(passed["ds"].to_numpy().astype("datetime64[D]")) - grain.number(vintage.data_as_of)
    for label, (first, last) in horizons(grain).items():
        mask = (first <= ahead) & (ahead <= last)
        if mask.any():
            yield {
                "vintage": vintage.run_id,
                "made_at": vintage.made_at.replace(tzinfo=None),
                "data_as_of": vintage.data_as_of,
                "horizon": label,
                grain.plural: int(mask.sum()),
                **metrics.score(y[mask], {name: values[mask] for name, values in columns.items()}, scale),
            }


def reported_accuracy(
    declaration: ForecastDeclaration,
    publisher: Publisher,
    actual: pa.Table,
    parts: Mapping[str, Any] | None,
    warn: Callable[[str], None],
) -> Mapping[str, Any] | None:
    """Return the accuracy of earlier forecasts as ReportInput has it; None if none is scored yet.

    parts: that of the parts.
    """
    warehouse, grain = publisher.warehouse, declaration.time_grain
    if declaration.accuracy not in warehouse.tables():
        return None
    scores = warehouse.read_rows(declaration.accuracy).sort_by("made_at").to_pylist()
    rows = [
        {**row, "periods": row[grain.plural]}
        for row in scores
        # Until it is scored anew, the table may be of another grain.
        if row["horizon"] == all_of(grain) and grain.plural in row
    ]
    if not rows:
        return None
    accuracy: dict[str, Any] = {
        "vintages": [
            {
                "made_on": row["made_at"].date().isoformat(),
                **{name: row[name] for name in ("periods", *SCORES)},
            }
            for row in rows[-REPORTED_VINTAGES:]
        ],
        **({"parts": parts} if parts else {}),
    }
    run_id = vintage_to_draw(rows, grain)
    names = [name for name in list_records(publisher.artifacts, declaration.name) if name.run_id == run_id]
    for vintage in read_vintages(publisher.artifacts, names[-1:], grain, warn):
        passed = matured(vintage, actual)
        accuracy["compared"] = {
            "made_on": vintage.made_at.date().isoformat(),
            "ds": [day.isoformat() for day in passed["ds"].to_pylist()],
            "actual": passed["y"].to_pylist(),
            "yhat": passed["yhat"].to_pylist(),
            "lower_80": passed["yhat_lower_80"].to_pylist(),
            "upper_80": passed["yhat_upper_80"].to_pylist(),
        }
    return accuracy


def vintage_to_draw(scored: Sequence[Mapping[str, Any]], grain: Grain = DAY) -> str | None:
    """Return the run id of the vintage with enough scored periods that is nearest to the main window.

    None if none has as many as the shortest window.
    """
    fewest, main, _ = grain.windows
    enough = [row for row in scored if row["periods"] >= fewest]
    nearest = min(enough, key=lambda row: abs(row["periods"] - main), default=None)
    return nearest["vintage"] if nearest else None
