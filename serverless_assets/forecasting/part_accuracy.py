"""The asset of the accuracy of the parts: their published forecasts, scored on the days that have passed.

A part is scored over all vintages together, so that the table has few rows for each of ten thousand parts.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modal_forecast import metrics
from modal_forecast.report.formats import plural
from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.accuracy import ALL, DESCRIPTIONS, HORIZONS, SCORES
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.history import Today, read_history
from serverless_assets.forecasting.part_history import PartMatrix, read_part_histories
from serverless_assets.forecasting.part_record import PartVintage, read_part_record
from serverless_assets.forecasting.record import RecordError, RecordName, list_records
from serverless_assets.hashing import digest
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunInputs
from serverless_assets.transformation.relation_states import ACCURACY_KEY
from serverless_assets.warehouse import TableShape

UNCHANGED = "unchanged: same forecasts and history of {}"
# Scored are the first forecasts of each week, of the last half year: ten thousand parts make 40 MB a vintage.
SCORED_VINTAGES = 26
# Each holds a vintage in memory.
PARALLEL_READS = 2
# Of the worst parts, on the asset page and in the report.
REPORTED_PARTS = 10
LABELS = (ALL, *(label for _, _, label in HORIZONS))


def part_accuracy_schema(parts: Parts) -> pa.Schema:
    """Return the columns of the table."""
    return pa.schema(
        [
            (parts.id, pa.string()),
            (parts.name, pa.string()),
            ("horizon", pa.string()),
            ("forecasts", pa.int64()),
            ("days", pa.int64()),
            *((name, pa.float64()) for name in SCORES),
        ]
    )


def describe_part_accuracy(parts: Parts) -> Mapping[str, str]:
    """Return the description of each column of the table."""
    return {
        **{name: DESCRIPTIONS[name] for name in ("horizon", *SCORES)},
        parts.id: f"The {parts.noun}.",
        parts.name: f"The name of the {parts.noun}.",
        "forecasts": f"How many forecasts are scored: the first of each week, of {SCORED_VINTAGES} weeks.",
        "days": "How many of their days have come, a day counted once for each forecast.",
    }


@dataclass(frozen=True)
class PartAccuracyDecision:
    """Whether to score again: `reason` says why; None reuses the table.

    names: the records to score. key: a hash of these and of `actual`, the history of each part.
    """

    names: Sequence[RecordName]
    actual: PartMatrix
    key: str
    reason: str | None


def part_accuracy_asset(
    declaration: ForecastDeclaration, parts: Parts, pool: str, timezone: str
) -> dg.AssetsDefinition:
    """Return the asset; it scores days that are over both in UTC and in `timezone`."""
    description = f"Published forecasts of each {parts.noun} against what came: error, bias and coverage."

    @dg.asset(
        name=declaration.part_accuracy,
        group_name=declaration.group,
        deps=[declaration.relation],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
        description=description,
    )
    def part_accuracy(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> dg.MaterializeResult:
        warehouse, rebuild = publisher.warehouse, run_inputs.checked().rebuild_all
        with as_failure():
            with warehouse.connected():
                total = read_history(declaration, warehouse, Today.of(timezone)).table
                decision = decide_part_accuracy(declaration, parts, publisher, total, rebuild)
                if decision.reason is None:
                    rows = warehouse.row_count(declaration.part_accuracy)
                    reused = metadata.outcome("reused", UNCHANGED.format(plural(parts.noun)), rows=rows)
                    return dg.MaterializeResult(data_version=dg.DataVersion(decision.key), metadata=reused)
            scores = score_parts(
                parts, decision.actual, decision.names, publisher.artifacts, context.log.warning
            )
            shape = TableShape(declaration.part_accuracy, scores.schema, description)
            work = warehouse.replace_rows(shape, scores, {ACCURACY_KEY: decision.key})
        worst, scored = worst_parts(parts, scores)
        records = [
            dg.TableRecord({name: row[name] for name in (parts.name, "days", *SCORES)}) for row in worst
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(decision.key),
            metadata={
                **metadata.outcome("built", decision.reason, rows=scores.num_rows),
                "forecasts": len(decision.names),
                f"{plural(parts.noun)}_scored": scored,
                **({f"worst_{plural(parts.noun)}": dg.MetadataValue.table(records)} if records else {}),
                **metadata.work(work, warehouse),
            },
        )

    return part_accuracy


def decide_part_accuracy(
    declaration: ForecastDeclaration,
    parts: Parts,
    publisher: Publisher,
    total: pa.Table,
    rebuild_all: bool,
) -> PartAccuracyDecision:
    """Decide whether to score the parts again. total: ds date32 and y float64, the history of all of them."""
    warehouse, table = publisher.warehouse, declaration.part_accuracy
    records = list_records(publisher.artifacts, declaration.name, of_parts=True)
    last_day = total["ds"][-1].as_py() if total.num_rows else None
    names = vintages_to_score([name for name in records if last_day and name.data_as_of < last_day])
    # Without a forecast to score, nothing is read.
    histories = read_part_histories(declaration, parts, warehouse, total) if names else []
    actual = PartMatrix.of(histories, total)
    columns = part_accuracy_schema(parts).to_string()
    content = "\n".join(
        [columns, *map(str, names), *actual.ids, *map(repr, actual.names), str(actual.days[-1:])]
    )
    key = digest(content.encode() + actual.values.tobytes())
    state = warehouse.read_state(table) if table in warehouse.tables() else None
    if rebuild_all:
        reason: str | None = "forced: rebuild all"
    elif state is None:
        reason = f"first scores of {plural(parts.noun)}"
    else:
        reason = None if state.get(ACCURACY_KEY) == key else "forecasts or days have come"
    return PartAccuracyDecision(names, actual, key, reason)


def vintages_to_score(names: Sequence[RecordName]) -> Sequence[RecordName]:
    """Return the first of each week, of the last SCORED_VINTAGES weeks that have any."""
    first_of_week: dict[tuple[int, int], RecordName] = {}
    for name in sorted(names, key=lambda name: (name.data_as_of, name.made_at, name.run_id)):
        year, week, _ = name.data_as_of.isocalendar()
        first_of_week.setdefault((year, week), name)
    return [*first_of_week.values()][-SCORED_VINTAGES:]


def score_parts(
    parts: Parts,
    actual: PartMatrix,
    names: Sequence[RecordName],
    artifacts: Artifacts,
    warn: Callable[[str], None],
) -> pa.Table:
    """Return rows of part_accuracy_schema(): for each part one for all days ahead, and one for each horizon.

    A record that cannot be read is left out, and `warn` is called.
    """

    def read(name: RecordName) -> np.ndarray | None:
        try:
            return add_up_errors(actual, read_part_record(artifacts, name))
        except RecordError as error:
            warn(str(error))
            return None

    sums = np.zeros((len(MEASURES), len(LABELS), len(actual.ids)))
    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="records") as pool:
        for of_vintage in pool.map(read, names):
            if of_vintage is not None:
                sums += of_vintage
    measure = dict(zip(MEASURES, sums, strict=True))
    days = measure["days"]
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {
            "mase": measure["scaled_error"] / measure["scaled_days"],
            "wape": measure["error"] / measure["actual"],
            "bias": measure["signed_error"] / measure["actual"],
            "coverage_80": measure["inside_80"] / days,
            "coverage_95": measure["inside_95"] / days,
        }
    part, horizon = np.nonzero(days.T)
    indices = pa.array(part)
    columns = [
        pa.array(actual.ids, pa.string()).take(indices),
        pa.array(actual.names, pa.string()).take(indices),
        pa.array(LABELS, pa.string()).take(pa.array(horizon)),
        pa.array(measure["forecasts"][horizon, part].astype(int)),
        pa.array(days[horizon, part].astype(int)),
        # Null where the denominator is zero.
        *(
            pa.array(scores[name][horizon, part], mask=~np.isfinite(scores[name][horizon, part]))
            for name in SCORES
        ),
    ]
    return pa.table(columns, schema=part_accuracy_schema(parts))


MEASURES = (
    "days", "error", "signed_error", "actual", "inside_80", "inside_95", "scaled_error", "scaled_days",
    "forecasts",
)  # fmt: skip


def add_up_errors(actual: PartMatrix, vintage: PartVintage) -> np.ndarray:
    """Return the sums over the vintage's days that have come: (MEASURES, LABELS, parts).

    A part that the vintage has and `actual` has not is left out.
    """
    as_of = np.datetime64(vintage.data_as_of)
    ids = vintage.rows["id"].combine_chunks()
    rows_of_ids = np.array([actual.rows_by_id.get(id, -1) for id in ids.dictionary.to_pylist()], int)
    part = rows_of_ids[ids.indices.to_numpy()]
    days = vintage.rows["ds"].to_numpy().astype("datetime64[D]")
    day = (days - actual.days[0]).astype(int)
    came = (part >= 0) & (day >= 0) & (day < len(actual.days))
    part, day, ahead = part[came], day[came], (days[came] - as_of).astype(int)
    y = actual.values[part, day]
    column = {
        name: vintage.rows[name].to_numpy()[came]
        for name in ("yhat", "yhat_lower_80", "yhat_upper_80", "yhat_lower_95", "yhat_upper_95")
    }
    # A part that opened since has no day before.
    known = ~np.isnan(y)
    error = column["yhat"] - y
    scale = _seasonal_errors(actual, as_of)[part]
    is_scaled = known & (scale > 0)
    measured = {
        "days": known,
        "error": np.abs(error),
        "signed_error": error,
        "actual": np.abs(y),
        "inside_80": (column["yhat_lower_80"] <= y) & (y <= column["yhat_upper_80"]),
        "inside_95": (column["yhat_lower_95"] <= y) & (y <= column["yhat_upper_95"]),
        "scaled_error": np.where(is_scaled, np.abs(error) / np.where(is_scaled, scale, 1.0), 0.0),
        "scaled_days": is_scaled,
    }
    count = len(actual.ids)
    horizon = np.searchsorted([last for _, last, _ in HORIZONS], ahead)
    cells, size = (horizon * count + part)[known], len(HORIZONS) * count
    by_horizon = np.stack(
        [np.bincount(cells, values[known], size).reshape(-1, count) for values in measured.values()]
    )
    sums = np.concatenate([by_horizon.sum(axis=1, keepdims=True), by_horizon], axis=1)
    return np.concatenate([sums, sums[:1] > 0])


def _seasonal_errors(actual: PartMatrix, as_of: np.datetime64) -> np.ndarray:
    """Return metrics.seasonal_error() of the history of each part up to `as_of`; zero without one."""
    values = actual.values[:, actual.days <= as_of]
    differences = np.abs(values[:, metrics.WEEK :] - values[:, : -metrics.WEEK])
    counts = np.count_nonzero(~np.isnan(differences), axis=1)
    means: np.ndarray = np.nansum(differences, axis=1) / np.maximum(counts, 1)
    return means


def worst_parts(parts: Parts, scores: pa.Table) -> tuple[list[Mapping[str, Any]], int]:
    """Return the scores over all days of the parts that were forecast worst, and how many are scored.

    By the error in terms of repeating the week before, as a share of what came tells small parts from large.
    """
    rows = scores.filter(pc.equal(scores["horizon"], ALL))
    worst = rows.sort_by([("mase", "descending"), (parts.name, "ascending")]).slice(0, REPORTED_PARTS)
    return worst.to_pylist(), rows.num_rows


def reported_part_accuracy(
    declaration: ForecastDeclaration, publisher: Publisher
) -> Mapping[str, Any] | None:
    """Return the accuracy of the parts as the track record in ReportInput has it; None if none is scored."""
    parts, warehouse = declaration.parts, publisher.warehouse
    if parts is None or declaration.part_accuracy not in warehouse.tables():
        return None
    worst, scored = worst_parts(parts, warehouse.read_rows(declaration.part_accuracy))
    if not worst:
        return None
    rows = [{"name": row[parts.name], **{name: row[name] for name in ("days", *SCORES)}} for row in worst]
    return {"scored": scored, "worst": rows}
