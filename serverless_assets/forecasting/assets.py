"""The assets of a forecast: the total and its parts, their accuracy, and the report on them."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dagster as dg

from modal_forecast.messages import ForecastRefused, MessageError
from modal_forecast.report.formats import plural
from modal_forecast.report.page import headline, render
from modal_forecast.report.report_input import ReportInput, key_in, report_key
from serverless_assets import metadata
from serverless_assets.asset_keys import asset_key, asset_name
from serverless_assets.dagster_internals import DATA_VERSION_TAG
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.accuracy import accuracy_asset, reported_accuracy
from serverless_assets.forecasting.checks import (
    HISTORY,
    CheckResult,
    ForecastUnsound,
    check_forecast,
    check_specs,
)
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.forecast_table import (
    decide_forecast,
    describe_table,
    query_forecast,
    read_forecast,
    reuse_forecast,
)
from serverless_assets.forecasting.history import History, Today, read_history
from serverless_assets.forecasting.part_accuracy import part_accuracy_asset, reported_part_accuracy
from serverless_assets.forecasting.part_report import reported_parts
from serverless_assets.forecasting.parts import (
    batch_of,
    describe_parts,
    forecast_parts,
    read_parts,
    stored_part_checks,
)
from serverless_assets.forecasting.record import read_details
from serverless_assets.forecasting.report import UNCHANGED as REPORT_UNCHANGED
from serverless_assets.forecasting.report import (
    keep_with_run,
    preview,
    read_sections,
    reason_to_report,
    report_input,
)
from serverless_assets.forecasting.run_forecast import ForecastRun, PartAnswers
from serverless_assets.names import FORECAST_TAG, GRAIN_TAG
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast


@dataclass(frozen=True)
class ReportDecision:
    """Whether to render the report: `reason` says why; None reuses `page`, the stored one."""

    report: ReportInput
    key: Mapping[str, str]
    page: bytes | None
    reason: str | None


def forecasting_assets(
    declaration: ForecastDeclaration, fresh_hours: int, pool: str, timezone: str
) -> list[dg.AssetsDefinition]:
    """Return the assets of the forecast.

    Args:
        fresh_hours: the forecast is stale if it was not made for so long.
        timezone: of the business; a day belongs to the history once it is over there and in UTC.
    """
    single_run, parts = dg.BackfillPolicy.single_run(), declaration.parts
    specs = [
        dg.AssetSpec(
            declaration.asset,
            group_name=declaration.group,
            kinds={"prophet"},
            deps=[declaration.relation],
            skippable=True,
            tags={FORECAST_TAG: declaration.name, GRAIN_TAG: declaration.grain},
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=fresh_hours)),
            description=describe_table(declaration),
        )
    ]
    if parts:
        specs.append(
            dg.AssetSpec(
                parts.asset,
                group_name=declaration.group,
                kinds={"prophet"},
                deps=[declaration.asset, declaration.relation],
                skippable=True,
                description=describe_parts(declaration, parts)[0],
            )
        )

    # One step for both, so that a run that makes both makes one call.
    @dg.multi_asset(
        # Dagster wants other names for steps than for jobs, and the job has that of the forecast.
        name=declaration.asset if declaration.asset != declaration.name else f"compute_{declaration.name}",
        specs=specs,
        check_specs=check_specs(declaration),
        can_subset=True,
        backfill_policy=single_run,
        pool=pool,
    )
    def forecast(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        publisher: dg.ResourceParam[Publisher],
        compute: dg.ResourceParam[Compute],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        selected = {asset_name(key) for key in context.selected_asset_keys}
        if isinstance(run_inputs.forecast, SkipForecast):
            _log_skipped(context)
            return
        chosen = declaration.of_run(run_inputs.forecast)
        run = ForecastRun(context, publisher, chosen, compute, run_inputs.forecast)
        with as_failure(ForecastRefused, MessageError):
            part_answers = None
            selected_parts = parts if parts and parts.asset in selected else None
            if declaration.asset in selected:
                part_answers = yield from _forecast_total(
                    run, timezone, run_inputs.rebuild_all, selected_parts
                )
            else:
                yield from _check_stored_forecast(run, timezone)
            if selected_parts:
                yield from _forecast_parts(run, selected_parts, part_answers, run_inputs.rebuild_all)
            elif parts:
                yield from _check_stored_parts(run, parts)

    @dg.asset(
        name=declaration.report,
        group_name=declaration.group,
        kinds={"html"},
        deps=[
            *declaration.forecasts,
            *declaration.accuracies,
            declaration.relation,
            *dict.fromkeys(section.asset for section in declaration.sections),
        ],
        output_required=False,
        backfill_policy=single_run,
        pool=pool,
        description=(
            "The forecast as an interactive HTML file. `report_link` and `serverless open` open "
            "the published one; `download` of a materialization saves that of its run."
        ),
    )
    def report(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> Iterator[dg.MaterializeResult]:
        warehouse = publisher.warehouse
        if isinstance(run_inputs.forecast, SkipForecast):
            _log_skipped(context)
            return
        name = declaration.style_of(run_inputs.forecast).html_report
        with as_failure():
            with warehouse.connected():
                decision = decide_report(
                    publisher,
                    run_inputs.forecast,
                    read_history(declaration.of_run(run_inputs.forecast), warehouse, Today.of(timezone)),
                    run_inputs.rebuild_all,
                    context.log.warning,
                )
            page = decision.page
            if page is None or decision.reason is not None:
                page = render(decision.report).encode()
                publisher.artifacts.write(name, page)
        version = ".".join(decision.key.values())
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata={
                **metadata.outcome(
                    "built" if decision.reason else "reused",
                    decision.reason or REPORT_UNCHANGED,
                    rows=decision.report.forecast.num_rows,
                    size=len(page),
                ),
                "headline": headline(decision.report),
                **metadata.file_metadata(metadata.REPORT, publisher.artifacts.place(name)),
                **keep_with_run(context, name, page),
                **(
                    _last_preview(context, version)
                    if decision.reason is None
                    else {"preview": preview(decision.report)}
                ),
            },
        )

    accuracies = [accuracy_asset(declaration, pool, timezone)]
    if parts:
        accuracies.append(part_accuracy_asset(declaration, parts, pool, timezone))
    return [forecast, *accuracies, report]


def _forecast_total(
    run: ForecastRun, timezone: str, rebuild_all: bool, parts: Parts | None
) -> Generator[dg.MaterializeResult | dg.AssetCheckResult, None, PartAnswers | None]:
    """Yield the results of the total and its checks, and return the answers for the parts.

    parts: also to be asked for, if the total is forecast.
    """
    context, publisher, warehouse = run.context, run.publisher, run.publisher.warehouse
    declaration, style = run.declaration, run.declaration.style_of(run.inputs)
    horizon = declaration.horizon_of(run.inputs)
    part_batch, parts_state, part_answers = None, None, None
    with warehouse.connected():
        history = read_history(declaration, warehouse, Today.of(timezone))
        for sentence in history.warnings:
            context.log.warning(sentence)
        for sentence in history.notes:
            context.log.info(sentence)
        decision = decide_forecast(warehouse, history, horizon, rebuild_all)
        if parts and decision.reason is not None:
            part_histories, parts_state = read_parts(declaration, parts, warehouse, history.table)
            part_batch = batch_of(declaration, part_histories, horizon)
    history_check = CheckResult(declaration.asset, HISTORY, " ".join(history.warnings))
    try:
        if decision.state is not None and decision.reason is None:
            file, checks = style.forecast_file, decision.checks
            forecast_metadata = reuse_forecast(
                publisher, declaration.table, file, decision.state, decision.request
            )
        else:
            forecast_metadata, checks, part_answers = run.forecast_total(decision, part_batch, parts_state)
    except ForecastUnsound as error:
        yield from _selected(context, [*error.results, history_check])
        raise
    sentences = [*history.warnings, *history.notes]
    yield dg.MaterializeResult(
        asset_key=asset_key(declaration.asset),
        data_version=dg.DataVersion(decision.fingerprint.key),
        metadata={
            **forecast_metadata,
            f"{plural(declaration.counted)}_left_out": history.left_out,
            **({"history": " ".join(sentences)} if sentences else {}),
        },
    )
    yield from _selected(context, [*checks, history_check])
    return part_answers


def _forecast_parts(
    run: ForecastRun, parts: Parts, part_answers: PartAnswers | None, rebuild_all: bool
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Yield the results of the parts and their checks."""
    try:
        result, checks = forecast_parts(run, parts, part_answers, rebuild_all)
    except ForecastUnsound as error:
        yield from _selected(run.context, error.results)
        raise
    yield result
    yield from _selected(run.context, checks)


def _check_stored_forecast(run: ForecastRun, timezone: str) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks that were selected without their asset, if there is a forecast."""
    declaration, warehouse = run.declaration, run.publisher.warehouse
    if not _selects_checks(run.context, declaration.asset):
        return
    with warehouse.connected():
        history = read_history(declaration, warehouse, Today.of(timezone))
        history_check = CheckResult(declaration.asset, HISTORY, " ".join(history.warnings))
        if declaration.table in warehouse.tables():
            facts = warehouse.read_state(declaration.table)
            checks = check_forecast(declaration, query_forecast(warehouse, declaration.table), facts)
            yield from _selected(run.context, [*checks, history_check])


def _check_stored_parts(run: ForecastRun, parts: Parts) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks of parts that were selected without their asset, if there are any."""
    if _selects_checks(run.context, parts.asset):
        warehouse = run.publisher.warehouse
        with warehouse.connected():
            yield from _selected(run.context, stored_part_checks(run.declaration, parts, warehouse))


def decide_report(
    publisher: Publisher,
    run: RunForecast,
    history: History,
    rebuild_all: bool,
    warn: Callable[[str], None],
) -> ReportDecision:
    """Decide whether to render the report in the style of the run on the forecast in the warehouse.

    warn: called with a sentence for each earlier forecast whose record cannot be read.
    """
    declaration, warehouse = history.declaration, publisher.warehouse
    style = declaration.style_of(run)
    forecast, facts = read_forecast(declaration, warehouse), warehouse.read_state(declaration.table)
    report = report_input(
        declaration,
        history.not_empty(),
        forecast,
        facts,
        style,
        read_details(publisher.artifacts, facts),
        reported_accuracy(
            declaration, publisher, history.table, reported_part_accuracy(declaration, publisher), warn
        ),
        reported_parts(declaration, warehouse, forecast),
        [*history.warnings, *history.notes],
        read_sections(declaration, warehouse),
    )
    page, key = publisher.artifacts.read(style.html_report), report_key(report)
    return ReportDecision(report, key, page, reason_to_report(key_in(page), key, rebuild_all))


def _log_skipped(context: dg.AssetExecutionContext) -> None:
    context.log.info("Skipped as asked: the last forecast stays as it is.")
    for key in context.selected_asset_keys:
        context.log_event(metadata.not_built(key, "skipped", SKIPPED_AS_ASKED))


def _selects_checks(context: dg.AssetExecutionContext, asset: str) -> bool:
    return any(key.asset_key == asset_key(asset) for key in context.selected_asset_check_keys)


def _selected(
    context: dg.AssetExecutionContext, checks: Sequence[CheckResult]
) -> Iterator[dg.AssetCheckResult]:
    selected = context.selected_asset_check_keys
    yield from (
        check.result for check in checks if dg.AssetCheckKey(asset_key(check.asset), check.name) in selected
    )


def _last_preview(context: dg.AssetExecutionContext, version: str) -> dict[str, Any]:
    """Return the preview of the last materialization of the same version: drawing it takes a second."""
    last = metadata.latest_materialization(context.instance, context.asset_key)
    if last is None or (last.tags or {}).get(DATA_VERSION_TAG) != version:
        return {}
    return {"preview": last.metadata["preview"]} if "preview" in last.metadata else {}
