"""The assets of a forecast: the total and its parts, their accuracy, and the report on them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial

import dagster as dg

from modal_forecast.messages import ForecastRefused
from modal_forecast.wire import MessageError
from serverless_assets.asset_keys import asset_key, asset_name
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.accuracy import decide_accuracy, scores_asset
from serverless_assets.forecasting.checks import CheckResult, ForecastUnsound, check_specs
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_run import ForecastRun, log_skipped
from serverless_assets.forecasting.part_accuracy import decide_part_accuracy
from serverless_assets.forecasting.parts import forecast_parts, stored_part_checks
from serverless_assets.forecasting.report_asset import report_asset
from serverless_assets.forecasting.tables import tables_of
from serverless_assets.forecasting.total import forecast_total, stored_checks
from serverless_assets.names import FORECAST_TAG, GRAIN_TAG, STEP_PREFIX
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunInputs, SkipForecast


def forecasting_assets(
    declaration: ForecastDeclaration, fresh_hours: int, pool: str, timezone: str
) -> list[dg.AssetsDefinition]:
    """Return the assets of the forecast.

    Args:
        fresh_hours: the forecast is stale if it was not made for so long.
        timezone: of the business; a day belongs to the history once it is over there and in UTC.
    """
    accuracies = [
        scores_asset(
            declaration,
            declaration.accuracy,
            partial(decide_accuracy, declaration),
            pool,
            timezone,
        )
    ]
    if parts := declaration.parts:
        accuracies.append(
            scores_asset(
                declaration,
                declaration.part_accuracy,
                partial(decide_part_accuracy, declaration, parts),
                pool,
                timezone,
            )
        )
    report = report_asset(declaration, pool, timezone)
    return [forecast_assets(declaration, fresh_hours, pool, timezone), *accuracies, report]


def forecast_assets(
    declaration: ForecastDeclaration, fresh_hours: int, pool: str, timezone: str
) -> dg.AssetsDefinition:
    """Return the assets of the total and of its parts, and their checks: one step that makes one call."""
    parts, tables = declaration.parts, tables_of(declaration)
    specs = [
        dg.AssetSpec(
            declaration.asset,
            group_name=declaration.group,
            kinds={"forecast"},
            deps=[declaration.relation],
            skippable=True,
            tags={FORECAST_TAG: declaration.name, GRAIN_TAG: declaration.grain},
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=fresh_hours)),
            description=tables[declaration.asset][0].description,
        )
    ]
    if parts:
        specs.append(
            dg.AssetSpec(
                parts.asset,
                group_name=declaration.group,
                kinds={"forecast"},
                deps=[declaration.asset, declaration.relation],
                skippable=True,
                description=tables[parts.asset][0].description,
            )
        )

    @dg.multi_asset(
        name=declaration.asset if declaration.asset != declaration.name else STEP_PREFIX + declaration.name,
        specs=specs,
        check_specs=check_specs(declaration),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
    )
    def forecast(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        publisher: dg.ResourceParam[Publisher],
        compute: dg.ResourceParam[Compute],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        if isinstance(run_inputs.forecast, SkipForecast):
            log_skipped(context)
            return
        selected = {asset_name(key) for key in context.selected_asset_keys}
        chosen = declaration.of_run(run_inputs.forecast)
        run = ForecastRun(context, publisher, chosen, compute, run_inputs.forecast)
        rebuild_all = run_inputs.rebuild_all
        with as_failure(ForecastRefused, MessageError):
            if chosen.asset in selected:
                also = parts if parts and parts.asset in selected else None
                yield from _made(context, lambda: forecast_total(run, timezone, rebuild_all, also))
            else:
                yield from _checked(context, chosen.asset, lambda: stored_checks(run, timezone))
            if parts and parts.asset in selected:
                yield from _made(context, lambda: forecast_parts(run, parts, rebuild_all))
            elif parts:
                yield from _checked(context, parts.asset, lambda: stored_part_checks(run, parts))

    return forecast


def _made(
    context: dg.AssetExecutionContext,
    make: Callable[[], tuple[dg.MaterializeResult, Sequence[CheckResult]]],
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Yield the results of a forecast and of its checks, also of those that refused it."""
    try:
        result, checks = make()
    except ForecastUnsound as error:
        yield from _selected(context, error.results)
        raise
    yield result
    yield from _selected(context, checks)


def _checked(
    context: dg.AssetExecutionContext, asset: str, check: Callable[[], Sequence[CheckResult]]
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks that were selected without their asset."""
    if any(key.asset_key == asset_key(asset) for key in context.selected_asset_check_keys):
        yield from _selected(context, check())


def _selected(
    context: dg.AssetExecutionContext, checks: Sequence[CheckResult]
) -> Iterator[dg.AssetCheckResult]:
    selected = context.selected_asset_check_keys
    yield from (
        check.result for check in checks if dg.AssetCheckKey(asset_key(check.asset), check.name) in selected
    )
