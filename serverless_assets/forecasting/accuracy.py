"""The asset of accuracy: each published forecast scored on those of its days that have passed since.

Each published version of the forecast is a vintage, scored by itself and by how many days ahead it saw.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from modal_forecast import metrics
from modal_forecast.grain import Grain
from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.checks import VALUES
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.history import Today, read_history
from serverless_assets.forecasting.record import (
    Record,
    RecordError,
    RecordName,
    grain_in,
    list_records,
    read_record,
)
from serverless_assets.forecasting.reuse import FIRST_SCORES, SAME_SCORES, reason_by_key
from serverless_assets.forecasting.tables import SCORES, score_schema, tables_of
from serverless_assets.hashing import digest
from serverless_assets.names import ACCURACY_KEY
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunInputs
from serverless_assets.warehouse import Warehouse

NO_LIMIT = 10_000
PARALLEL_READS = 8
Warn = Callable[[str], None]


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
class ScoreDecision:
    """Whether to score forecasts again: `reason` says why; None reuses the table.

    key: a hash of the records to score and of what came.
    unchanged: the reason of a table that is reused.
    score: returns the table and its metadata; it calls what it gets with a warning for each record that
        cannot be read.
    """

    key: str
    reason: str | None
    unchanged: str
    score: Callable[[Warn], tuple[pa.Table, Mapping[str, Any]]]


def scores_asset(
    declaration: ForecastDeclaration,
    name: str,
    decide: Callable[[Publisher, pa.Table, bool], ScoreDecision],
    pool: str,
    timezone: str,
) -> dg.AssetsDefinition:
    """Return an asset of scores, of days that are over both in UTC and in `timezone`.

    Args:
        decide: gets the history, ds and y, and whether to rebuild all.
    """
    shape, _ = tables_of(declaration)[name]

    @dg.asset(
        name=name,
        group_name=declaration.group,
        deps=[declaration.relation],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
        description=shape.description,
    )
    def scored(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> dg.MaterializeResult:
        warehouse = publisher.warehouse
        with as_failure():
            with warehouse.connected():
                history = read_history(declaration, warehouse, Today.of(timezone)).table
                decision = decide(publisher, history, run_inputs.rebuild_all)
                version = dg.DataVersion(decision.key)
                if decision.reason is None:
                    reused = metadata.outcome("reused", decision.unchanged, rows=warehouse.row_count(name))
                    return dg.MaterializeResult(data_version=version, metadata=reused)
            table, facts = decision.score(context.log.warning)
            work = warehouse.replace_rows(shape, table, {ACCURACY_KEY: decision.key})
        built = metadata.outcome("built", decision.reason, rows=table.num_rows)
        return dg.MaterializeResult(
            data_version=version, metadata={**built, **metadata.job_metadata(work, warehouse), **facts}
        )

    return scored


def decide_accuracy(
    declaration: ForecastDeclaration, publisher: Publisher, actual: pa.Table, rebuild_all: bool
) -> ScoreDecision:
    """Decide whether to score again the forecasts of which a day has passed.

    actual: ds date32 and y float64, the history.
    """
    grain, artifacts = declaration.time_grain, publisher.artifacts
    last_day = actual["ds"][-1].as_py() if actual.num_rows else date.min
    names = [name for name in list_records(artifacts, declaration.name) if name.data_as_of < last_day]
    columns = score_schema(grain).to_string()
    key = digest("\n".join([columns, *map(str, names), repr(actual.to_pydict())]))

    def score_records(warn: Warn) -> tuple[pa.Table, Mapping[str, Any]]:
        records = read_records(artifacts, names, grain, warn)
        table = score(records, actual, grain)
        # The scores of the latest vintage with a month of scored days are plotted from run to run.
        mature = [
            row
            for row in table.to_pylist()
            if row["horizon"] == all_of(grain) and row[grain.plural] >= grain.windows[1]
        ] or [{}]
        rounded = {name: round(mature[-1][name], 4) for name in SCORES if mature[-1].get(name) is not None}
        return table, {"forecasts": len(records), **rounded}

    reason = reason_to_score(publisher.warehouse, declaration.accuracy, key, FIRST_SCORES, rebuild_all)
    return ScoreDecision(key, reason, SAME_SCORES, score_records)


def reason_to_score(warehouse: Warehouse, table: str, key: str, first: str, force: bool) -> str | None:
    """Return why to fill a table of scores; None if it was made from what has this key."""
    state = warehouse.read_state(table) if table in warehouse.tables() else None
    return reason_by_key(state, ACCURACY_KEY, key, first, "new forecasts or days to score", force)


def read_records(artifacts: Artifacts, names: Sequence[RecordName], grain: Grain, warn: Warn) -> list[Record]:
    """Return the records of totals; one that cannot be read is left out, and `warn` is called.

    Forecasts of another grain, such as that by day of what is now forecast by month, are left out, too.
    """

    def read(name: RecordName) -> Record | None:
        try:
            return read_record(artifacts, name)
        except RecordError as error:
            warn(str(error))
            return None

    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="records") as pool:
        return [record for record in pool.map(read, names) if record and grain_in(record.facts) is grain]


def score(records: Iterable[Record], actual: pa.Table, grain: Grain) -> pa.Table:
    """Return the scores of each vintage.

    Args:
        actual: ds date32 and y float64, a row for every period from the first to the last.

    Returns:
        rows of score_schema(): for each vintage of which a period has passed, one for each of horizons(); the
        oldest vintage first.
    """
    days, values = actual["ds"].to_numpy().astype("datetime64[D]"), actual["y"].to_numpy()[np.newaxis]
    rows = []
    for record in sorted(records, key=lambda record: (record.name.made_at, record.name.run_id)):
        sums = add_up_errors(record, days, values, np.zeros(record.rows.num_rows, int))[:, :, 0]
        scores = metrics.scores(sums)
        for number, horizon in enumerate(horizons(grain)):
            if count := int(sums[0, number]):
                rows.append(
                    {
                        "vintage": record.name.run_id,
                        "made_at": record.name.made_at.replace(tzinfo=None),
                        "data_as_of": record.name.data_as_of,
                        "horizon": horizon,
                        grain.plural: count,
                        **{name: None if np.isnan(of[number]) else of[number] for name, of in scores.items()},
                    }
                )
    return pa.Table.from_pylist(rows, score_schema(grain))


def add_up_errors(record: Record, days: np.ndarray, actual: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Return the sums over the periods of forecasts that have come.

    Args:
        days: first days of periods, datetime64[D], without a gap.
        actual: (series, days), NaN before the first value of a series.
        series: which of `actual` each row of the record is of; -1 leaves it out.

    Returns:
        (metrics.MEASURES, horizons(), series)
    """
    grain, as_of = grain_in(record.facts), record.name.data_as_of
    numbers = grain.numbers(record.rows["ds"].to_numpy().astype("datetime64[D]"))
    day = numbers - grain.numbers(days[:1])
    came = np.flatnonzero((series >= 0) & (day >= 0) & (day < len(days)))
    # A series that began since has no value before.
    came = came[~np.isnan(actual[series[came], day[came]])]
    y, ahead, series = actual[series[came], day[came]], numbers[came] - grain.number(as_of), series[came]
    scale = metrics.seasonal_error(actual[:, days <= np.datetime64(as_of)], grain.season)[series]
    forecast = {name: record.rows[name].to_numpy()[came] for name in VALUES}
    measured = metrics.measure(y, forecast, scale)
    _whole, *limits = (last for _, last in horizons(grain).values())
    cells, size = np.searchsorted(limits, ahead) * len(actual) + series, len(limits) * len(actual)
    by_horizon = np.stack(
        [np.bincount(cells, values, size).reshape(len(limits), len(actual)) for values in measured]
    )
    return np.concatenate([by_horizon.sum(axis=1, keepdims=True), by_horizon], axis=1)
