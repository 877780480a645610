"""Whether to forecast and to render the report, and why: asked by the run and by the plan alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_forecast.code_version import code_version
from modal_forecast.messages import ForecastRequest
from modal_forecast.report import ReportInput, key_in, report_key
from serverless_assets.forecasting.accuracy_asset import accuracy_shown
from serverless_assets.forecasting.checks import CheckResult, sanity_of_held, unsound
from serverless_assets.forecasting.history import COUNTRY, History
from serverless_assets.forecasting.landing import forecast_in, read_forecast
from serverless_assets.forecasting.records import details_of
from serverless_assets.forecasting.report import reason_to_report, report_input
from serverless_assets.forecasting.reuse import ForecastFingerprint, reason_to_forecast
from serverless_assets.forecasting.store_asset import stores_shown
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import ForecastChoice
from serverless_assets.warehouse import Warehouse


@dataclass(frozen=True)
class ForecastDecision:
    """The total's forecast: `reason` says why to make a new one; None reuses the one that there is.

    note: what is kept with its table; None if there is no table. checks: what the checks say of the stored
    forecast, if it was looked at.
    """

    request: ForecastRequest
    basis: ForecastFingerprint
    note: Mapping[str, Any] | None
    checks: Sequence[CheckResult]
    reason: str | None


@dataclass(frozen=True)
class ReportDecision:
    """The report: `reason` says why to render it; None reuses `page`, the one that there is."""

    report: ReportInput
    key: Mapping[str, str]
    page: bytes | None
    reason: str | None


def decide_forecast(
    warehouse: Warehouse, table: str, history: History, horizon: int, rebuild_all: bool
) -> ForecastDecision:
    """Decide about the forecast in `table`, for `horizon` days after `history`.

    Raises:
        HistoryError: there is no day to forecast from.
        ForecastRefused: the history cannot be forecast.
    """
    note = warehouse.read_state(table) if table in warehouse.tables() else None
    request = history.request(horizon, COUNTRY)
    basis = ForecastFingerprint.of(request, code_version())
    reason = reason_to_forecast(note, basis, rebuild_all)
    checks: Sequence[CheckResult] = ()
    if note is not None and reason is None:
        checks = sanity_of_held(forecast_in(warehouse, table), note)
        # Rows that were changed by hand are made again.
        reason = unsound(checks)
    return ForecastDecision(request, basis, note, checks, reason)


def decide_report(
    publisher: Publisher,
    forecast_table: str,
    choice: ForecastChoice,
    history: History,
    rebuild_all: bool,
    warn: Callable[[str], None],
) -> ReportDecision:
    """Decide about the report that `choice` names, on the forecast in `forecast_table`."""
    warehouse = publisher.warehouse
    forecast, facts = read_forecast(warehouse, forecast_table), warehouse.read_state(forecast_table)
    report = report_input(
        history.not_empty(),
        forecast,
        facts,
        choice,
        details_of(publisher.artifacts, facts),
        accuracy_shown(publisher, history.table, warn),
        stores_shown(warehouse, forecast),
        [*history.warnings, *history.notes],
    )
    page, key = publisher.artifacts.read(choice.html_report), report_key(report)
    return ReportDecision(report, key, page, reason_to_report(key_in(page), key, rebuild_all))
