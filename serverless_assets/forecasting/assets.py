"""The forecast of daily order revenue, and the report on it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from modal_forecast.messages import ForecastRefused, MessageError
from modal_forecast.report import render
from serverless_assets import metadata
from serverless_assets.dagster_internals import DATA_VERSION_TAG
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.accuracy_asset import TABLE as ACCURACY
from serverless_assets.forecasting.accuracy_asset import accuracy_asset
from serverless_assets.forecasting.checks import (
    CheckResult,
    ForecastUnsound,
    check_specs,
    history_check,
    sanity_of_held,
)
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.decide import decide_forecast, decide_report
from serverless_assets.forecasting.history import REVENUE, History, Today, read_history
from serverless_assets.forecasting.landing import forecast_in, leave
from serverless_assets.forecasting.making import Making
from serverless_assets.forecasting.report import UNCHANGED as REPORT_UNCHANGED
from serverless_assets.forecasting.report import preview
from serverless_assets.forecasting.store_asset import TABLE as STORES
from serverless_assets.forecasting.store_asset import store_asset
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunInputs

GROUP = "forecasting"
SINGLE_RUN = dg.BackfillPolicy.single_run()


def forecasting_assets(
    forecast_table: str, fresh_hours: int, pool: str, timezone: str
) -> list[dg.AssetsDefinition]:
    """The assets; the forecast lands in the warehouse as `forecast_table`.

    timezone: of the business, in which a day must be over to be part of the history.
    """

    # An asset that may be skipped together with its checks is one that can be subset.
    @dg.multi_asset(
        name="order_forecast",
        specs=[
            dg.AssetSpec(
                "order_forecast",
                group_name=GROUP,
                kinds={"prophet"},
                deps=[REVENUE],
                skippable=True,
                freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=fresh_hours)),
                description="Daily order revenue for the coming days, with 80% and 95% bounds.",
            )
        ],
        check_specs=check_specs(),
        can_subset=True,
        backfill_policy=SINGLE_RUN,
        pool=pool,
    )
    def order_forecast(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        publisher: dg.ResourceParam[Publisher],
        compute: dg.ResourceParam[Compute],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        choices = run_inputs.choices()
        if choices.forecast is None:
            yield from _skip(context)
            return
        warehouse = publisher.warehouse
        with as_failure(ForecastRefused, MessageError):
            with warehouse.connected():
                history = read_history(warehouse, Today.of(timezone))
                if not context.selected_asset_keys:
                    # Somebody asked for the checks alone.
                    if forecast_table in warehouse.tables():
                        note = warehouse.read_state(forecast_table)
                        checks = sanity_of_held(forecast_in(warehouse, forecast_table), note)
                        yield from _results(context, [*checks, history_check(history.warnings)])
                    return
                _log_history(context, history)
                decision = decide_forecast(
                    warehouse, forecast_table, history, choices.forecast.horizon, choices.rebuild_all
                )
            request, last, checks = decision.request, decision.note, decision.checks
            try:
                if last is not None and decision.reason is None:
                    described = leave(
                        publisher, forecast_table, choices.forecast.forecast_file, last, request
                    )
                else:
                    making = Making(context, publisher, forecast_table, compute, choices.forecast, last)
                    described, checks = making.make(request, decision.basis, str(decision.reason))
            except ForecastUnsound as error:
                yield from _results(context, [*error.found, history_check(history.warnings)])
                raise
        yield dg.MaterializeResult(
            asset_key=context.asset_key,
            data_version=dg.DataVersion(decision.basis.key),
            metadata={**described, **_history_metadata(history)},
        )
        yield from _results(context, [*checks, history_check(history.warnings)])

    @dg.asset(
        group_name=GROUP,
        kinds={"html"},
        deps=[order_forecast, STORES, ACCURACY, REVENUE],
        output_required=False,
        backfill_policy=SINGLE_RUN,
        pool=pool,
        description="The forecast as one interactive HTML file that works offline.",
    )
    def forecast_report(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> Iterator[dg.MaterializeResult]:
        choices = run_inputs.choices()
        if choices.forecast is None:
            yield from _skip(context)
            return
        warehouse, name = publisher.warehouse, choices.forecast.html_report
        with as_failure():
            with warehouse.connected():
                history = read_history(warehouse, Today.of(timezone))
                decision = decide_report(
                    publisher,
                    forecast_table,
                    choices.forecast,
                    history,
                    choices.rebuild_all,
                    context.log.warning,
                )
            report, reason, content = decision.report, decision.reason, decision.page
            if content is None or reason is not None:
                content = render(report).encode()
                publisher.artifacts.write(name, content)
        version = ".".join(decision.key.values())
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata={
                **metadata.outcome(
                    "built" if reason else "reused",
                    reason or REPORT_UNCHANGED,
                    rows=report.forecast.num_rows,
                    size=len(content),
                ),
                **metadata.place(metadata.REPORT, publisher.artifacts.place(name)),
                **(_last_preview(context, version) if reason is None else {"preview": preview(report)}),
            },
        )

    return [
        order_forecast,
        store_asset(GROUP, forecast_table, pool),
        accuracy_asset(GROUP, pool, timezone),
        forecast_report,
    ]


def _skip(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    context.log.info("Skipped as asked: the last forecast stays as it is.")
    context.log_event(metadata.not_built(context.asset_key, "skipped", SKIPPED_AS_ASKED))
    yield from ()


def _results(
    context: dg.AssetExecutionContext, found: Sequence[CheckResult]
) -> Iterator[dg.AssetCheckResult]:
    asked = {key.name for key in context.selected_asset_check_keys}
    yield from (check.result for check in found if check.name in asked)


def _log_history(context: dg.AssetExecutionContext, history: History) -> None:
    for sentence in history.warnings:
        context.log.warning(sentence)
    for sentence in history.notes:
        context.log.info(sentence)


def _history_metadata(history: History) -> dict[str, Any]:
    said = [*history.warnings, *history.notes]
    return {"orders_left_out": history.left_out, **({"history": " ".join(said)} if said else {})}


def _last_preview(context: dg.AssetExecutionContext, version: str) -> dict[str, Any]:
    """The picture of the same report, if the last materialization has it: to draw it takes a second."""
    event = context.instance.get_latest_materialization_event(context.asset_key)
    found = event.asset_materialization if event else None
    if found is None or "preview" not in found.metadata:
        return {}
    is_same = (found.tags or {}).get(DATA_VERSION_TAG) == version
    return {"preview": found.metadata["preview"]} if is_same else {}
