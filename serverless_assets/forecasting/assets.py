"""The assets of the forecasts, of all stores and of each, and of the report on them."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dagster as dg

from modal_forecast.messages import ForecastRefused, MessageError
from modal_forecast.report.page import render
from modal_forecast.report.report_input import ReportInput, key_in, report_key
from serverless_assets import metadata
from serverless_assets.dagster_internals import DATA_VERSION_TAG
from serverless_assets.failures import as_failure
from serverless_assets.forecasting import stores
from serverless_assets.forecasting.accuracy import accuracy_asset, reported_accuracy
from serverless_assets.forecasting.checks import (
    HISTORY,
    CheckResult,
    ForecastUnsound,
    check_forecast,
    check_specs,
)
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.forecast_table import (
    DESCRIPTION,
    decide_forecast,
    query_forecast,
    read_forecast,
    reuse_forecast,
)
from serverless_assets.forecasting.history import COUNTRY, History, Today, read_history
from serverless_assets.forecasting.record import read_details
from serverless_assets.forecasting.report import UNCHANGED as REPORT_UNCHANGED
from serverless_assets.forecasting.report import preview, reason_to_report, report_input
from serverless_assets.forecasting.run_forecast import ForecastRun, StoreAnswers
from serverless_assets.names import FORECAST, FORECAST_ACCURACY, FORECASTING, REVENUE, STORE_FORECAST
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import CustomisedStyle, RunInputs, SkipForecast
from serverless_assets.settings import SettingsError


@dataclass(frozen=True)
class ReportDecision:
    """Whether to render the report: `reason` says why; None reuses `page`, the stored one."""

    report: ReportInput
    key: Mapping[str, str]
    page: bytes | None
    reason: str | None


def forecasting_assets(
    forecast_table: str, fresh_hours: int, pool: str, timezone: str
) -> list[dg.AssetsDefinition]:
    """Return the assets of the forecast.

    Args:
        forecast_table: the name of the forecast's table in the warehouse.
        fresh_hours: the forecast is stale if it was not made for so long.
        timezone: of the business; a day belongs to the history once it is over there and in UTC.
    """
    single_run = dg.BackfillPolicy.single_run()

    # One step for both, so that a run that makes both makes one call.
    @dg.multi_asset(
        name=FORECAST,
        specs=[
            dg.AssetSpec(
                FORECAST,
                group_name=FORECASTING,
                kinds={"prophet"},
                deps=[REVENUE],
                skippable=True,
                freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=fresh_hours)),
                description=DESCRIPTION,
            ),
            dg.AssetSpec(
                STORE_FORECAST,
                group_name=FORECASTING,
                kinds={"prophet"},
                deps=[FORECAST, REVENUE],
                skippable=True,
                description=stores.DESCRIPTION,
            ),
        ],
        check_specs=check_specs(),
        can_subset=True,
        backfill_policy=single_run,
        pool=pool,
    )
    def order_forecast(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        publisher: dg.ResourceParam[Publisher],
        compute: dg.ResourceParam[Compute],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        inputs = run_inputs.checked()
        selected = {key.to_user_string() for key in context.selected_asset_keys}
        if isinstance(inputs.forecast, SkipForecast):
            _log_skipped(context)
            return
        run = ForecastRun(context, publisher, forecast_table, compute, inputs.forecast)
        with as_failure(ForecastRefused, MessageError):
            store_answers = None
            if FORECAST in selected:
                store_answers = yield from _forecast_total(
                    run, timezone, inputs.rebuild_all, with_stores=STORE_FORECAST in selected
                )
            elif context.selected_asset_check_keys:
                yield from _check_stored_forecast(run, timezone)
            if STORE_FORECAST in selected:
                yield stores.forecast_stores(run, store_answers, inputs.rebuild_all)

    @dg.asset(
        group_name=FORECASTING,
        kinds={"html"},
        deps=[FORECAST, STORE_FORECAST, FORECAST_ACCURACY, REVENUE],
        output_required=False,
        backfill_policy=single_run,
        pool=pool,
        description="The forecast as one interactive HTML file that works offline.",
    )
    def forecast_report(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> Iterator[dg.MaterializeResult]:
        inputs, warehouse = run_inputs.checked(), publisher.warehouse
        if isinstance(inputs.forecast, SkipForecast):
            _log_skipped(context)
            return
        style = inputs.forecast.names_and_colors
        name = style.html_report
        with as_failure():
            with warehouse.connected():
                decision = decide_report(
                    publisher,
                    forecast_table,
                    style,
                    read_history(warehouse, Today.of(timezone)),
                    inputs.rebuild_all,
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
                **metadata.place(metadata.REPORT, publisher.artifacts.place(name)),
                **(
                    _last_preview(context, version)
                    if decision.reason is None
                    else {"preview": preview(decision.report)}
                ),
            },
        )

    return [
        order_forecast,
        accuracy_asset(FORECASTING, pool, timezone),
        forecast_report,
    ]


def _forecast_total(
    run: ForecastRun, timezone: str, rebuild_all: bool, with_stores: bool
) -> Generator[dg.MaterializeResult | dg.AssetCheckResult, None, StoreAnswers | None]:
    """Yield the results of `order_forecast` and its checks, and return the answers for the stores.

    with_stores: also ask for the stores, if the total is forecast.
    """
    context, publisher, warehouse = run.context, run.publisher, run.publisher.warehouse
    store_batch, stores_state, store_answers = None, None, None
    with warehouse.connected():
        history = read_history(warehouse, Today.of(timezone))
        for sentence in history.warnings:
            context.log.warning(sentence)
        for sentence in history.notes:
            context.log.info(sentence)
        horizon = run.inputs.horizon
        decision = decide_forecast(warehouse, run.table, history, horizon, rebuild_all)
        if with_stores and decision.reason is not None:
            store_histories, stores_state = stores.read_stores(warehouse, history.table)
            store_batch = stores.batch_of(store_histories, horizon, COUNTRY)
    history_check = CheckResult(HISTORY, " ".join(history.warnings))
    try:
        if decision.state is not None and decision.reason is None:
            file, checks = run.inputs.names_and_colors.forecast_file, decision.checks
            forecast_metadata = reuse_forecast(publisher, run.table, file, decision.state, decision.request)
        else:
            forecast_metadata, checks, store_answers = run.forecast_total(decision, store_batch, stores_state)
    except ForecastUnsound as error:
        yield from _selected(context, [*error.results, history_check])
        raise
    sentences = [*history.warnings, *history.notes]
    yield dg.MaterializeResult(
        asset_key=FORECAST,
        data_version=dg.DataVersion(decision.fingerprint.key),
        metadata={
            **forecast_metadata,
            "orders_left_out": history.left_out,
            **({"history": " ".join(sentences)} if sentences else {}),
        },
    )
    yield from _selected(context, [*checks, history_check])
    return store_answers


def _check_stored_forecast(run: ForecastRun, timezone: str) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks that were selected without their asset, if there is a forecast."""
    warehouse = run.publisher.warehouse
    with warehouse.connected():
        history_check = CheckResult(HISTORY, " ".join(read_history(warehouse, Today.of(timezone)).warnings))
        if run.table in warehouse.tables():
            facts = warehouse.read_state(run.table)
            checks = check_forecast(query_forecast(warehouse, run.table), facts)
            yield from _selected(run.context, [*checks, history_check])


def decide_report(
    publisher: Publisher,
    forecast_table: str,
    style: CustomisedStyle,
    history: History,
    rebuild_all: bool,
    warn: Callable[[str], None],
) -> ReportDecision:
    """Decide whether to render the report in this style on the forecast in `forecast_table`.

    warn: called with a sentence for each earlier forecast whose record cannot be read.
    """
    warehouse = publisher.warehouse
    forecast, facts = read_forecast(warehouse, forecast_table), warehouse.read_state(forecast_table)
    report = report_input(
        history.not_empty(),
        forecast,
        facts,
        style,
        read_details(publisher.artifacts, facts),
        reported_accuracy(publisher, history.table, warn),
        stores.reported_stores(warehouse, forecast),
        [*history.warnings, *history.notes],
    )
    page, key = publisher.artifacts.read(style.html_report), report_key(report)
    return ReportDecision(report, key, page, reason_to_report(key_in(page), key, rebuild_all))


def refuse_owned_name(table: str, manifest: Mapping[str, Any]) -> None:
    """Raise SettingsError if the forecast's table would replace one that something else writes.

    manifest: of the dbt project.
    """
    owner = table_owners(manifest).get(table.lower())
    if owner:
        raise SettingsError(
            f"SERVERLESS_FORECAST_TABLE is {table!r}, which is the table of {owner}. Set it to a name that "
            "no model, seed, snapshot, source or other asset has, such as order_forecast."
        )


def table_owners(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return who writes each table, by its name in lower case, as names in DuckDB ignore case."""
    owners: dict[str, str] = {}
    for node in manifest["nodes"].values():
        if node["resource_type"] in ("model", "seed", "snapshot"):
            owner = f"the {node['resource_type']} {node['name']} ({node['original_file_path']})"
            owners |= {name.lower(): owner for name in (node["name"], node.get("alias")) if name}
    for source in manifest["sources"].values():
        owners[source["identifier"].lower()] = f"the source {source['source_name']}.{source['name']}"
    return owners | {name: f"the asset {name}" for name in (STORE_FORECAST, FORECAST_ACCURACY)}


def _log_skipped(context: dg.AssetExecutionContext) -> None:
    context.log.info("Skipped as asked: the last forecast stays as it is.")
    for key in context.selected_asset_keys:
        context.log_event(metadata.not_built(key, "skipped", SKIPPED_AS_ASKED))


def _selected(
    context: dg.AssetExecutionContext, checks: Sequence[CheckResult]
) -> Iterator[dg.AssetCheckResult]:
    names = {key.name for key in context.selected_asset_check_keys}
    yield from (check.result for check in checks if check.name in names)


def _last_preview(context: dg.AssetExecutionContext, version: str) -> dict[str, Any]:
    """Return the preview of the last materialization of the same version: drawing it takes a second."""
    last = metadata.latest_materialization(context.instance, context.asset_key)
    if last is None or (last.tags or {}).get(DATA_VERSION_TAG) != version:
        return {}
    return {"preview": last.metadata["preview"]} if "preview" in last.metadata else {}
