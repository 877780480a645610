"""The forecast of the total: whether to make it again, the call for it, and its table, file and record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.code_version import code_version
from modal_forecast.grain import GRAINS
from modal_forecast.messages import ForecastBatch, ForecastRefused, ForecastRequest
from modal_forecast.report.formats import plural
from serverless_assets import metadata
from serverless_assets.asset_keys import asset_key
from serverless_assets.forecasting.checks import (
    HISTORY,
    CheckResult,
    ForecastUnsound,
    check_forecast,
    failures,
)
from serverless_assets.forecasting.compute import (
    Calls,
    WorkerFailed,
)
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.forecast_run import ForecastRun, details_in, forecast_facts
from serverless_assets.forecasting.history import History, Today, read_history
from serverless_assets.forecasting.part_history import read_part_histories
from serverless_assets.forecasting.record import (
    HORIZON_FACTS,
    Record,
    RecordName,
    as_file,
    facts_in,
    record_facts,
)
from serverless_assets.forecasting.report import backtest_picture
from serverless_assets.forecasting.reuse import SAME_FORECAST, fingerprint, reason_to_forecast
from serverless_assets.forecasting.tables import TOTAL_SCHEMA, forecast_rows
from serverless_assets.hashing import digest
from serverless_assets.names import FORECAST_KEY, TABLE_NAME
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.warehouse import Warehouse

# The facts that people look for or have plotted from run to run, and their names where the report has
# others; all others are one value, DETAILS.
SHOWN = {
    **{name: name for name in (*HORIZON_FACTS, "data_as_of", "peak_memory_mib", "modal_dashboard")},
    "backtest_wape": "typical_error",
}
DETAILS = "details"


@dataclass(frozen=True)
class ForecastDecision:
    """Whether to make the total's forecast: `reason` says why; None reuses the table.

    fingerprint: the facts on what it is made from.
    state: what is kept with the table, None if there is no table. checks: the results for the stored
    forecast, empty if it was not checked as there is another reason.
    """

    request: ForecastRequest
    fingerprint: Mapping[str, Any]
    state: Mapping[str, Any] | None
    checks: Sequence[CheckResult]
    reason: str | None


def decide_forecast(
    warehouse: Warehouse, history: History, horizon: int, rebuild_all: bool
) -> ForecastDecision:
    """Decide whether to make the forecast of `horizon` days, weeks or months after `history`.

    Raises:
        HistoryError: there is no day to forecast from.
        ForecastRefused: the history cannot be forecast.
    """
    table = history.declaration.table
    state = warehouse.read_state(table) if table in warehouse.tables() else None
    request = history.request(horizon)
    made_from = fingerprint(request, code_version())
    reason = reason_to_forecast(state, made_from, rebuild_all)
    checks: Sequence[CheckResult] = ()
    if state is not None and reason is None:
        checks = check_forecast(history.declaration, query_forecast(warehouse, table), state)
        # Rows that were changed by hand and fail a check are replaced.
        reason = failures(checks)
    return ForecastDecision(request, made_from, state, checks, reason)


def forecast_total(
    run: ForecastRun, timezone: str, rebuild_all: bool, parts: Parts | None
) -> tuple[dg.MaterializeResult, Sequence[CheckResult]]:
    """Make and store the total's forecast unless it is unchanged; return it and the results of its checks.

    parts: also to be asked for, if the total is forecast: in one call, whose answer `run` keeps for them.

    Raises:
        ForecastUnsound: a check failed; the last forecast stays.
        ComputeError: there is no answer.
        ForecastRefused: the total cannot be forecast.
    """
    declaration, publisher, log = run.declaration, run.publisher, run.context.log
    warehouse, horizon = publisher.warehouse, declaration.horizon_of(run.inputs)
    part_batch, part_state = None, None
    with warehouse.connected():
        history = read_history(declaration, warehouse, Today.of(timezone))
        for sentence in history.warnings:
            log.warning(sentence)
        for sentence in history.notes:
            log.info(sentence)
        decision = decide_forecast(warehouse, history, horizon, rebuild_all)
        if parts and decision.reason is not None:
            histories = read_part_histories(declaration, parts, warehouse, history.table)
            part_batch = histories.request(declaration, horizon)
            part_state = warehouse.read_state(parts.asset) if parts.asset in warehouse.tables() else None
    history_check = CheckResult(declaration.asset, HISTORY, " ".join(history.warnings))
    try:
        if decision.state is not None and decision.reason is None:
            facts, checks = reuse_forecast(run, decision.state, decision.request), decision.checks
        else:
            facts, checks = make_forecast(run, decision, part_batch, part_state)
    except ForecastUnsound as error:
        raise ForecastUnsound([*error.results, history_check]) from None
    sentences = [*history.warnings, *history.notes]
    result: dg.MaterializeResult = dg.MaterializeResult(
        asset_key=asset_key(declaration.asset),
        data_version=dg.DataVersion(decision.fingerprint[FORECAST_KEY]),
        metadata={
            **facts,
            f"{plural(declaration.counted)}_left_out": history.left_out,
            **({"history": " ".join(sentences)} if sentences else {}),
        },
    )
    return result, [*checks, history_check]


def make_forecast(
    run: ForecastRun,
    decision: ForecastDecision,
    parts: ForecastBatch | None,
    part_state: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], Sequence[CheckResult]]:
    """Make and store the total's forecast, in one call with those of `parts` if there are any.

    Return the metadata of the total's forecast, and the results of its checks. If the call fails, perhaps
    because of a part, the total is forecast by itself. Raises as forecast_total().
    """
    request, declaration, publisher = decision.request, run.declaration, run.publisher
    # A part may have any id.
    part_histories, total = parts.histories if parts else {}, "total"
    while total in part_histories:
        total += "_"
    batch = ForecastBatch(
        {**part_histories, total: request.history},
        request.horizon, request.country, request.model, request.grain,
    )  # fmt: skip
    try:
        reply = run.call(declaration.asset, batch.to_bytes(), decision.state, part_state)
    except WorkerFailed as error:
        if parts is None:
            raise
        run.context.log.warning(f"{error} The total is forecast again, without the parts.")
        run.part_replies[digest(parts.to_bytes())] = error
        return make_forecast(run, decision, None, None)
    answers = dict(reply.batch.answers)
    answer = answers.pop(total)
    if isinstance(answer, ForecastRefused):
        raise answer
    answer = replace(answer, diagnostics={**answer.diagnostics, **reply.batch.diagnostics})
    if parts:
        # The call is the total's, and ends with it.
        of_parts = replace(reply, batch=replace(reply.batch, answers=answers), calls=Calls())
        run.part_replies[digest(parts.to_bytes())] = of_parts
    made_at, run_id = datetime.now(UTC), run.context.run.run_id
    rows = forecast_rows([answer.forecast], run_id, made_at.date())
    facts = {
        **forecast_facts(request, answer, run.requested, reply.used, run.compute, reply.answered, run_id),
        **decision.fingerprint,
        **record_facts(rows, made_at, declaration.name),
    }
    details = details_in(answer.diagnostics)
    checks = check_forecast(
        declaration, rows, facts, lambda: backtest_picture(request.history, details, GRAINS[request.grain])
    )
    record = Record(rows, facts, request.to_bytes(), details)
    loaded = run.store(declaration.asset, record, rows, checks, reply)
    file, content = declaration.style_of(run.inputs).forecast_file, as_file(rows, facts)
    publisher.artifacts.write(file, content)
    # Of all that the worker tells, the line that a person waits for.
    if why := answer.diagnostics.get("why"):
        run.context.log.info(why)
    reason, seconds = str(decision.reason), float(facts["seconds"])
    built = metadata.outcome("built", reason, rows=rows.num_rows, size=len(content), seconds=seconds)
    return {
        **built,
        **_location_metadata(publisher, declaration.table, file, facts),
        **loaded,
        # Both to compute the forecast and to load its rows.
        **metadata.cost(facts.get(metadata.COST_USD), loaded.get(metadata.COST_USD)),
    }, checks


def reuse_forecast(run: ForecastRun, facts: Mapping[str, Any], request: ForecastRequest) -> dict[str, Any]:
    """Leave the forecast in the table as it is, and return its metadata.

    A missing file or record, such as after a run that was killed, is written from the table's rows.

    facts: those kept with the table. request: what the worker was asked for.
    """
    warehouse, artifacts, written = run.publisher.warehouse, run.publisher.artifacts, []
    table, file = run.declaration.table, run.declaration.style_of(run.inputs).forecast_file
    content = artifacts.read(file)
    if content is None or facts_in(content) != facts:
        content = as_file(query_forecast(warehouse, table), facts)
        artifacts.write(file, content)
        written.append(file)
    name = str(RecordName.of(facts) or "")
    if name and name not in artifacts.names(name):
        record = Record(query_forecast(warehouse, table).cast(TOTAL_SCHEMA), facts, request.to_bytes())
        artifacts.write(name, record.to_bytes())
        written.append("its record")
    reason = "; ".join([SAME_FORECAST, *(f"{target} was written" for target in written)])
    # Seconds and cost are those of the run that made the forecast.
    spent = (metadata.SECONDS, metadata.COST_USD)
    lasting = {fact: value for fact, value in facts.items() if fact not in spent}
    return {
        **metadata.outcome("reused", reason, rows=warehouse.row_count(table), size=len(content)),
        **_location_metadata(run.publisher, table, file, lasting),
        metadata.BUILT_BY: facts["run_id"],
    }


def stored_checks(run: ForecastRun, timezone: str) -> Sequence[CheckResult]:
    """Return the results of the checks for the forecast in the table; none if there is none."""
    declaration, warehouse = run.declaration, run.publisher.warehouse
    with warehouse.connected():
        history = read_history(declaration, warehouse, Today.of(timezone))
        if declaration.table not in warehouse.tables():
            return ()
        facts, rows = warehouse.read_state(declaration.table), query_forecast(warehouse, declaration.table)
        history_check = CheckResult(declaration.asset, HISTORY, " ".join(history.warnings))
        return [*check_forecast(declaration, rows, facts), history_check]


def query_forecast(warehouse: Warehouse, table: str) -> pa.Table:
    """Return the rows of the forecast's table, in order of days."""
    return warehouse.read_rows(table).sort_by("ds")


def read_forecast(declaration: ForecastDeclaration, warehouse: Warehouse) -> pa.Table:
    """Return the rows of the forecast's table. Raises dg.Failure if there is no table."""
    if declaration.table not in warehouse.tables():
        raise dg.Failure(f"There is no forecast yet: run {declaration.asset} first.", allow_retries=False)
    return query_forecast(warehouse, declaration.table)


def _location_metadata(
    publisher: Publisher, table: str, file: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    main_facts = {shown: facts[name] for name, shown in SHOWN.items() if facts.get(name) is not None}
    details = {name: value for name, value in facts.items() if SHOWN.get(name) not in main_facts}
    location: dict[str, Any] = {
        TABLE_NAME: publisher.warehouse.qualified_name(table),
        **metadata.file_metadata("file", publisher.artifacts.place(file)),
    }
    if name := RecordName.of(facts):
        location |= metadata.file_metadata("record", publisher.artifacts.place(str(name)))
        details["replay"] = f"serverless replay {name.run_id}"
    return {**metadata.with_links(main_facts), **location, DETAILS: dg.MetadataValue.json(details)}
