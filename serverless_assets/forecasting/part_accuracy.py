"""The asset of the accuracy of the parts: their published forecasts, scored on what has come since.

A part is scored over all vintages together, so that the table has few rows for each of ten thousand parts.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modal_forecast import metrics
from modal_forecast.grain import DAY, Grain
from modal_forecast.report.formats import plural
from serverless_assets.artifacts import Artifacts
from serverless_assets.forecasting.accuracy import (
    SCORES,
    ScoreDecision,
    all_of,
    describe_scores,
    horizons,
    reason_to_score,
    scores_asset,
)
from serverless_assets.forecasting.checks import VALUES
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.part_history import PartMatrix, read_part_histories
from serverless_assets.forecasting.record import (
    PartVintage,
    RecordError,
    RecordName,
    list_records,
    read_part_record,
)
from serverless_assets.hashing import digest
from serverless_assets.publishing.publisher import Publisher

UNCHANGED = "unchanged: same forecasts and history of {}"
# Scored are the first forecasts of each week, of the last half year: ten thousand parts make 40 MB a vintage.
SCORED_VINTAGES = 26
# Each holds a vintage in memory.
PARALLEL_READS = 2
# Of the worst parts, on the asset page and in the report.
WORST_PARTS = 10


def part_accuracy_schema(parts: Parts, grain: Grain = DAY) -> pa.Schema:
    """Return the columns of the table; the one that counts scored rows is named days, weeks or months."""
    return pa.schema(
        [
            *parts.columns,
            ("horizon", pa.string()),
            ("forecasts", pa.int64()),
            (grain.plural, pa.int64()),
            *((name, pa.float64()) for name in SCORES),
        ]
    )


def describe_part_accuracy(parts: Parts, grain: Grain = DAY) -> Mapping[str, str]:
    """Return the description of each column of the table."""
    descriptions = describe_scores(grain)
    return {
        **{name: descriptions[name] for name in ("horizon", *SCORES)},
        parts.name: f"The name of the {parts.noun}.",
        parts.id: f"The {parts.noun}.",
        "forecasts": f"How many forecasts are scored: the first of each week, of {SCORED_VINTAGES} weeks.",
        grain.plural: f"How many of their {grain.plural} have come, each counted once for each forecast.",
    }


def part_accuracy_asset(
    declaration: ForecastDeclaration, parts: Parts, pool: str, timezone: str
) -> dg.AssetsDefinition:
    """Return the asset of the accuracy of the parts."""
    grain, noun = declaration.time_grain, plural(parts.noun)

    def scores(
        decision: ScoreDecision[PartMatrix], artifacts: Artifacts, warn: Callable[[str], None]
    ) -> tuple[pa.Table, Mapping[str, Any]]:
        table = score_parts(parts, decision.actual, decision.names, artifacts, warn, grain)
        for name in superseded(list_records(artifacts, declaration.name, of_parts=True), decision.names):
            artifacts.delete(str(name))
        worst, scored = worst_parts(parts, table, grain)
        columns = (parts.name, grain.plural, *SCORES)
        records = [dg.TableRecord({name: row[name] for name in columns}) for row in worst]
        shown = {f"worst_{noun}": dg.MetadataValue.table(records)} if records else {}
        return table, {"forecasts": len(decision.names), f"{noun}_scored": scored, **shown}

    return scores_asset(
        declaration,
        declaration.part_accuracy,
        f"Published forecasts of each {parts.noun} against what came: error, bias and coverage.",
        UNCHANGED.format(noun),
        partial(decide_part_accuracy, declaration, parts),
        scores,
        pool,
        timezone,
    )


def decide_part_accuracy(
    declaration: ForecastDeclaration,
    parts: Parts,
    publisher: Publisher,
    total: pa.Table,
    rebuild_all: bool,
) -> ScoreDecision[PartMatrix]:
    """Decide whether to score the parts again. total: ds date32 and y float64, the history of all of them."""
    warehouse = publisher.warehouse
    records = list_records(publisher.artifacts, declaration.name, of_parts=True)
    last_day = total["ds"][-1].as_py() if total.num_rows else None
    names = vintages_to_score([name for name in records if last_day and name.data_as_of < last_day])
    # Without a forecast to score, nothing is read.
    histories = read_part_histories(declaration, parts, warehouse, total) if names else []
    actual = PartMatrix.of(histories, total)
    columns = part_accuracy_schema(parts, declaration.time_grain).to_string()
    content = "\n".join(
        [columns, *map(str, names), *actual.ids, *map(repr, actual.names), str(actual.days[-1:])]
    )
    key = digest(content.encode() + actual.values.tobytes())
    first = f"first scores of {plural(parts.noun)}"
    reason = reason_to_score(warehouse, declaration.part_accuracy, key, first, rebuild_all)
    return ScoreDecision(names, actual, key, reason)


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
    actual: PartMatrix,
    names: Sequence[RecordName],
    artifacts: Artifacts,
    warn: Callable[[str], None],
    grain: Grain = DAY,
) -> pa.Table:
    """Return rows of part_accuracy_schema(): for each part one for each of horizons().

    A record that cannot be read is left out, and `warn` is called. So is, without, one of another grain.
    """
    labels = list(horizons(grain))

    def read(name: RecordName) -> np.ndarray | None:
        try:
            vintage = read_part_record(artifacts, name)
            return add_up_errors(actual, vintage) if vintage.grain is grain else None
        except RecordError as error:
            warn(str(error))
            return None

    sums = np.zeros((len(metrics.MEASURES) + 1, len(labels), len(actual.ids)))
    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="records") as pool:
        for of_vintage in pool.map(read, names):
            if of_vintage is not None:
                sums += of_vintage
    *measures, forecasts = sums
    count, scores = measures[0], metrics.scores(np.array(measures))
    part, horizon = np.nonzero(count.T)
    indices = pa.array(part)
    columns = {
        parts.id: pa.array(actual.ids, pa.string()).take(indices),
        parts.name: pa.array(actual.names, pa.string()).take(indices),
        "horizon": pa.array(labels, pa.string()).take(pa.array(horizon)),
        "forecasts": pa.array(forecasts[horizon, part].astype(int)),
        grain.plural: pa.array(count[horizon, part].astype(int)),
        # Null where the denominator is zero.
        **{name: pa.array(scores[name][horizon, part], from_pandas=True) for name in SCORES},
    }
    return pa.table(columns, schema=part_accuracy_schema(parts, grain))


def add_up_errors(actual: PartMatrix, vintage: PartVintage) -> np.ndarray:
    """Return the sums over the vintage's periods that have come, and whether there are any of them.

    Returns:
        (metrics.MEASURES and that, horizons(), parts)

    A part that the vintage has and `actual` has not is left out.
    """
    as_of, grain = np.datetime64(vintage.data_as_of), vintage.grain
    ids = vintage.rows["id"].combine_chunks()
    rows_of_ids = np.array([actual.rows_by_id.get(id, -1) for id in ids.dictionary.to_pylist()], int)
    part = rows_of_ids[ids.indices.to_numpy()]
    numbers = grain.numbers(vintage.rows["ds"].to_numpy().astype("datetime64[D]"))
    column_of_y = numbers - grain.numbers(actual.days[:1])
    came = (part >= 0) & (column_of_y >= 0) & (column_of_y < len(actual.days))
    part, ahead = part[came], numbers[came] - grain.number(vintage.data_as_of)
    y = actual.values[part, column_of_y[came]]
    # A part that opened since has no value before.
    has_value = ~np.isnan(y)
    part, ahead = part[has_value], ahead[has_value]
    columns = {name: vintage.rows[name].to_numpy()[came][has_value] for name in VALUES}
    scale = metrics.seasonal_error(actual.values[:, actual.days <= as_of], grain.season)[part]
    measured = metrics.measure(y[has_value], columns, scale)
    count = len(actual.ids)
    _whole, *limits = (last for _, last in horizons(grain).values())
    horizon = np.searchsorted(limits, ahead)
    cells, size = horizon * count + part, len(limits) * count
    by_horizon = np.stack([np.bincount(cells, values, size).reshape(-1, count) for values in measured])
    sums = np.concatenate([by_horizon.sum(axis=1, keepdims=True), by_horizon], axis=1)
    return np.concatenate([sums, sums[:1] > 0])


def worst_parts(parts: Parts, scores: pa.Table, grain: Grain) -> tuple[list[Mapping[str, Any]], int]:
    """Return the scores over all periods of the parts that were forecast worst, and how many are scored.

    By the error in terms of repeating the season before, as a share of what came tells small from large.
    """
    rows = scores.filter(pc.equal(scores["horizon"], all_of(grain)))
    worst = rows.sort_by([("mase", "descending"), (parts.name, "ascending")]).slice(0, WORST_PARTS)
    return worst.to_pylist(), rows.num_rows


def reported_part_accuracy(
    declaration: ForecastDeclaration, publisher: Publisher
) -> Mapping[str, Any] | None:
    """Return the accuracy of the parts as the track record in ReportInput has it; None if none is scored."""
    parts, warehouse = declaration.parts, publisher.warehouse
    if parts is None or declaration.part_accuracy not in warehouse.tables():
        return None
    grain = declaration.time_grain
    worst, scored = worst_parts(parts, warehouse.read_rows(declaration.part_accuracy), grain)
    if not worst:
        return None
    rows = [
        {"name": row[parts.name], "periods": row[grain.plural], **{name: row[name] for name in SCORES}}
        for row in worst
    ]
    return {"scored": scored, "worst": rows}
