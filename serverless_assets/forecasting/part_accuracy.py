"""The asset of the accuracy of the parts: their published forecasts, scored on what has come since.

A part is scored over all vintages together, so that the table has few rows for each of ten thousand parts.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modal_forecast import metrics
from modal_forecast.grain import Grain
from modal_forecast.report.formats import plural
from serverless_assets.artifacts import Artifacts
from serverless_assets.forecasting.accuracy import (
    ScoreDecision,
    Warn,
    add_up_errors,
    all_of,
    horizons,
    reason_to_score,
)
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.part_history import PartHistories, read_part_histories
from serverless_assets.forecasting.record import (
    RecordError,
    RecordName,
    grain_in,
    list_records,
    read_record,
)
from serverless_assets.forecasting.reuse import FIRST_SCORES, SAME_SCORES
from serverless_assets.forecasting.tables import SCORED_VINTAGES, SCORES, part_score_schema
from serverless_assets.hashing import digest
from serverless_assets.publishing.publisher import Publisher

# Each holds a vintage in memory.
PARALLEL_READS = 2
# Of the worst parts, on the asset page and in the report.
WORST_PARTS = 10


def decide_part_accuracy(
    declaration: ForecastDeclaration,
    parts: Parts,
    publisher: Publisher,
    total: pa.Table,
    rebuild_all: bool,
) -> ScoreDecision:
    """Decide whether to score the parts again. total: ds date32 and y float64, the history of all of them."""
    warehouse, artifacts, grain = publisher.warehouse, publisher.artifacts, declaration.time_grain
    noun, last_day = plural(parts.noun), total["ds"][-1].as_py() if total.num_rows else None
    records = list_records(artifacts, declaration.name, of_parts=True)
    names = vintages_to_score([name for name in records if last_day and name.data_as_of < last_day])
    # Without a forecast to score, nothing is read.
    days = total["ds"].to_numpy().astype("datetime64[D]")
    nothing = PartHistories([], [], days, np.empty((0, len(days))))
    actual = read_part_histories(declaration, parts, warehouse, total) if names else nothing
    columns = part_score_schema(grain, parts.columns).to_string()
    content = "\n".join(
        [columns, *map(str, names), *actual.ids, *map(repr, actual.names), str(actual.days[-1:])]
    )
    key = digest(content.encode() + actual.values.tobytes())

    def score_records(warn: Warn) -> tuple[pa.Table, Mapping[str, Any]]:
        table = score_parts(parts, actual, names, artifacts, warn, grain)
        for name in superseded(list_records(artifacts, declaration.name, of_parts=True), names):
            artifacts.delete(str(name))
        worst, scored = worst_parts(parts, table, grain)
        columns_shown = (parts.name, grain.plural, *SCORES)
        rows = [dg.TableRecord({column: row[column] for column in columns_shown}) for row in worst]
        tables = {f"worst_{noun}": dg.MetadataValue.table(rows)} if rows else {}
        return table, {"forecasts": len(names), f"{noun}_scored": scored, **tables}

    first = f"{FIRST_SCORES} of {noun}"
    reason = reason_to_score(warehouse, declaration.part_accuracy, key, first, rebuild_all)
    return ScoreDecision(key, reason, f"{SAME_SCORES} of {noun}", score_records)


def vintages_to_score(names: Sequence[RecordName]) -> Sequence[RecordName]:
    """Return the first of each week, of the last SCORED_VINTAGES weeks that have any."""
    first_of_week: dict[tuple[int, int], RecordName] = {}
    for name in sorted(names, key=lambda name: (name.data_as_of, name.made_at, name.run_id)):
        year, week, _ = name.data_as_of.isocalendar()
        first_of_week.setdefault((year, week), name)
    return [*first_of_week.values()][-SCORED_VINTAGES:]


def superseded(names: Sequence[RecordName], scored: Sequence[RecordName]) -> Sequence[RecordName]:
    """Return the records that are not scored, of weeks before the last one that is: none of them will be.

    So there are never more than SCORED_VINTAGES and those of a week or two: of 10,000 parts, one has 59 MiB.
    """
    if not scored:
        return []
    last_week = scored[-1].data_as_of.isocalendar()[:2]
    return [name for name in names if name not in scored and name.data_as_of.isocalendar()[:2] < last_week]


def score_parts(
    parts: Parts,
    actual: PartHistories,
    names: Sequence[RecordName],
    artifacts: Artifacts,
    warn: Warn,
    grain: Grain,
) -> pa.Table:
    """Return rows of part_score_schema(): for each part one for each of horizons().

    A record that cannot be read is left out, and `warn` is called. So is, without, one of another grain, and
    a part that a record has and `actual` has not.
    """
    labels, row_of = list(horizons(grain)), {id: row for row, id in enumerate(actual.ids)}

    def measure(name: RecordName) -> np.ndarray | None:
        try:
            record = read_record(artifacts, name)
        except RecordError as error:
            warn(str(error))
            return None
        if grain_in(record.facts) is not grain:
            return None
        ids = record.rows["id"].combine_chunks()
        rows = np.array([row_of.get(id, -1) for id in ids.dictionary.to_pylist()], int)
        return add_up_errors(record, actual.days, actual.values, rows[ids.indices.to_numpy()])

    sums = np.zeros((len(metrics.MEASURES), len(labels), len(actual.ids)))
    forecasts = np.zeros((len(labels), len(actual.ids)), int)
    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="records") as pool:
        for measured in pool.map(measure, names):
            if measured is not None:
                sums += measured
                forecasts += measured[0] > 0
    count, scores = sums[0], metrics.scores(sums)
    part, horizon = np.nonzero(count.T)
    indices = pa.array(part)
    columns = {
        parts.id: pa.array(actual.ids, pa.string()).take(indices),
        parts.name: pa.array(actual.names, pa.string()).take(indices),
        "horizon": pa.array(labels, pa.string()).take(pa.array(horizon)),
        "forecasts": pa.array(forecasts[horizon, part]),
        grain.plural: pa.array(count[horizon, part].astype(int)),
        # Null where the denominator is zero.
        **{name: pa.array(scores[name][horizon, part], from_pandas=True) for name in SCORES},
    }
    return pa.table(columns, schema=part_score_schema(grain, parts.columns))


def worst_parts(parts: Parts, scores: pa.Table, grain: Grain) -> tuple[list[Mapping[str, Any]], int]:
    """Return the scores over all periods of the parts that were forecast worst, and how many are scored.

    By the error in terms of repeating the season before, as a share of what came tells small from large.
    """
    rows = scores.filter(pc.equal(scores["horizon"], all_of(grain)))
    worst = rows.sort_by([("mase", "descending"), (parts.name, "ascending")]).slice(0, WORST_PARTS)
    return worst.to_pylist(), rows.num_rows
