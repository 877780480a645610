"""What a run of everything would do and why, and what that would cost. It changes nothing.

What changed at the source is downloaded and looked at, as in a run: nothing else tells which months changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from modal_forecast.messages import ForecastRefused
from serverless_assets.automation.jobs import PREFILL
from serverless_assets.budget import BudgetGuard, refusal, verdict
from serverless_assets.failures import as_failure
from serverless_assets.files import scratch_folder
from serverless_assets.forecasting.accuracy import UNCHANGED as ACCURACY_UNCHANGED
from serverless_assets.forecasting.accuracy import decide_accuracy
from serverless_assets.forecasting.assets import decide_report, refuse_owned_name
from serverless_assets.forecasting.compute import Compute, Size, Usage
from serverless_assets.forecasting.forecast_table import UNCHANGED as FORECAST_UNCHANGED
from serverless_assets.forecasting.forecast_table import decide_forecast
from serverless_assets.forecasting.history import HistoryError, Today, has_revenue, read_history
from serverless_assets.forecasting.report import UNCHANGED as REPORT_UNCHANGED
from serverless_assets.forecasting.stores import UNCHANGED as STORES_UNCHANGED
from serverless_assets.forecasting.stores import decide_stores
from serverless_assets.ingestion.assets import NOT_LOADED_YET
from serverless_assets.ingestion.catalog import RawTable
from serverless_assets.ingestion.fetch import AuditedTable, Failed, ends_run, fetch_tables
from serverless_assets.ingestion.load import decide_load
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.ingestion.state import TableState
from serverless_assets.names import FORECAST, FORECAST_ACCURACY, FORECAST_REPORT, REVENUE, STORE_FORECAST
from serverless_assets.publishing.outcome import NOT_REACHED, SKIPPED_AS_ASKED, AssetOutcome
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import Reuse, RunForecast, RunInputs, SkipForecast
from serverless_assets.transformation.assets import asset_names
from serverless_assets.transformation.decide_models import bytes_to_read, decide_models
from serverless_assets.transformation.deleted_models import deleted_text, find_deleted
from serverless_assets.transformation.green_manifest import known_models
from serverless_assets.transformation.left_out import models_left_out
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.rebuild_rules import BuildDecision
from serverless_assets.transformation.relation_states import State, read_states
from serverless_assets.warehouse import Warehouse


class PlannedEnvironment(Protocol):
    """The parts of an environment that a plan uses."""

    @property
    def source(self) -> Source: ...
    @property
    def publisher(self) -> Publisher: ...
    @property
    def compute(self) -> Compute: ...
    @property
    def project(self) -> Project: ...
    @property
    def raw_tables(self) -> Sequence[RawTable]: ...
    @property
    def budget_guard(self) -> BudgetGuard: ...
    @property
    def timezone(self) -> str: ...


FORECASTS = (FORECAST_ACCURACY, FORECAST, STORE_FORECAST, FORECAST_REPORT)


@dataclass(frozen=True)
class Planned:
    """What would become of one asset. `rows` is how many it has now, or would be loaded; None if unknown."""

    asset: str
    verdict: str
    reason: str
    rows: int | None = None

    def __str__(self) -> str:
        rows = "" if self.rows is None else f"{self.rows:,}"
        return f"{self.asset:<24}{self.verdict:<16}{rows:>12}  {self.reason}"


def dry_run(environment: PlannedEnvironment, inputs: RunInputs, forecast_table: str) -> Iterator[Planned]:
    """Asset after asset, in the order of a run."""
    warehouse = environment.publisher.warehouse
    manifest = environment.project.read_manifest()
    has_forecast = has_revenue(manifest)
    if has_forecast:
        refuse_owned_name(forecast_table, manifest)
    notes = dict(warehouse.read_states())
    failed = list[Failed]()
    for planned, note, failure in _raw_tables(
        environment.raw_tables, environment.source, environment.publisher.home, inputs, warehouse, notes
    ):
        yield planned
        if note is not None:
            notes[planned.asset] = note
        if failure:
            failed.append(failure)
    assets = asset_names(manifest)
    required = [table for table in failed if not table.is_optional]
    if required and ends_run(required, environment.raw_tables):
        names = [*assets.values(), *(FORECASTS if has_forecast else ())]
        yield from (Planned(name, "skip", NOT_REACHED) for name in names)
        return
    loads = [
        AssetOutcome(
            table.table.name,
            "skipped" if table.is_optional else "failed",
            table.reason,
            optional=table.is_optional,
        )
        for table in failed
    ]
    left_out = models_left_out(manifest, environment.project.variables["DBT_SCHEMA"], notes, loads)
    yield from (Planned(assets[id], "skip", model.reason) for id, model in left_out.items())
    decisions = decide_models(
        environment.project,
        manifest,
        warehouse,
        assets.keys() - left_out.keys(),
        notes=notes,
        known_models=lambda: known_models(environment.publisher.artifacts),
        force=inputs.rebuild_all,
    )
    sizes = bytes_to_read(environment.project, warehouse, decisions, manifest)
    there = read_states(warehouse, [decision.node for decision in decisions], notes)
    for decision in decisions:
        rows = there.get(decision.node.name, State()).rows
        yield _model(decision, assets[decision.node.id], warehouse, rows, sizes)
    for model in find_deleted(manifest, environment.publisher.artifacts, warehouse):
        sentence = deleted_text(model.qualified_name(warehouse), model.name, inputs.drop_deleted)
        yield Planned(model.name, "drop" if inputs.drop_deleted else "keep", sentence)
    revenue = [model.reason for id, model in left_out.items() if assets[id] == REVENUE]
    if has_forecast and revenue:
        yield from (Planned(name, "skip", revenue[0]) for name in FORECASTS)
    elif has_forecast:
        yield from _forecast(environment, inputs, forecast_table, decisions)
    models = [assets[decision.node.id] for decision in decisions]
    forecasts = [FORECAST, STORE_FORECAST] if has_forecast else []
    yield from _budget(environment.budget_guard, [*models, *forecasts], inputs)


def _raw_tables(
    tables: Sequence[RawTable],
    source: Source,
    home: Path,
    inputs: RunInputs,
    warehouse: Warehouse,
    notes: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Planned, Mapping[str, Any] | None, Failed | None]]:
    """Yield what would become of each table, the note that it then has, and why it is not loaded."""
    if isinstance(inputs.ingestion, Reuse):
        for table in tables:
            if table.name in notes:
                yield Planned(table.name, "reuse", "ingestion: reuse"), notes[table.name], None
            else:
                missing = Failed(table, NOT_LOADED_YET, table.optional)
                yield _not_loaded(missing, None), None, missing
        return
    url, force = inputs.ingestion.address, inputs.rebuild_all
    states = {name: TableState.from_note(note) for name, note in notes.items()}
    with scratch_folder(home, "plan") as scratch, (HttpSource(url) if url else source).open() as opened:
        for fetched in fetch_tables(
            tables, opened, warehouse, None, scratch, lambda line: None, states, force
        ):
            name = fetched.table.name
            note = notes.get(name)
            if isinstance(fetched, Failed):
                yield _not_loaded(fetched, note), note, fetched
                continue
            decision = decide_load(fetched, states.get(name), "", force)
            rows = fetched.content.rows if isinstance(fetched, AuditedTable) else warehouse.row_count(name)
            verdict = "load" if decision.load else "reuse"
            after = decision.state.as_note() if decision.load and decision.state else note
            yield Planned(name, verdict, decision.reason, rows), after, None


def _not_loaded(failed: Failed, note: Mapping[str, Any] | None) -> Planned:
    verdict = "skip" if note is None else "reuse"
    return Planned(failed.table.name, verdict if failed.is_optional else "fail", failed.reason)


def _model(
    decision: BuildDecision,
    asset: str,
    warehouse: Warehouse,
    rows: int | None,
    sizes: Mapping[str, int],
) -> Planned:
    name = decision.node.name
    months = "" if decision.months is None else f", {len(decision.months)} months"
    reason = decision.reason
    if name in sizes:
        reason += f"; reads {sizes[name]:,} bytes, about ${warehouse.price(sizes[name]) or 0.0:.6f}"
    return Planned(asset, f"build{months}" if decision.build else "reuse", reason, rows)


def _forecast(
    environment: PlannedEnvironment,
    inputs: RunInputs,
    forecast_table: str,
    decisions: Sequence[BuildDecision],
) -> Iterator[Planned]:
    """The assets that follow daily_revenue. What hangs on rows that do not exist yet comes as they come."""
    publisher = environment.publisher
    if any(decision.build and decision.node.name == REVENUE for decision in decisions):
        reason = f"upstream rebuilt ({REVENUE}): made anew if its rows differ"
        yield from (
            Planned(name, *_unless_skipped(name, inputs, "as it comes", reason)) for name in FORECASTS
        )
        return
    if REVENUE not in publisher.warehouse.tables():
        reason = f"{REVENUE}, which it reads, is a source of the dbt project, and not in the warehouse"
        yield from (Planned(name, *_unless_skipped(name, inputs, "fail", reason)) for name in FORECASTS)
        return
    history = read_history(publisher.warehouse, Today.of(environment.timezone))
    _, _, reason_to_score = decide_accuracy(publisher, history.table, inputs.rebuild_all)
    yield Planned(
        FORECAST_ACCURACY,
        "score" if reason_to_score else "reuse",
        reason_to_score or ACCURACY_UNCHANGED,
    )
    if isinstance(inputs.forecast, SkipForecast):
        yield from (
            Planned(name, "skip", SKIPPED_AS_ASKED) for name in (FORECAST, STORE_FORECAST, FORECAST_REPORT)
        )
        return
    try:
        forecast = decide_forecast(
            publisher.warehouse, forecast_table, history, inputs.forecast.horizon, inputs.rebuild_all
        )
    except (HistoryError, ForecastRefused) as error:
        yield from (Planned(name, "fail", str(error)) for name in (FORECAST, STORE_FORECAST, FORECAST_REPORT))
        return
    rows = inputs.forecast.horizon
    if forecast.reason is not None:
        cost = _cost_as_last_time(environment.compute, inputs.forecast, forecast.state or {})
        yield Planned(FORECAST, "forecast", forecast.reason + cost, rows)
        # The same history gives the same rows, and then the stores stay.
        yield Planned(
            STORE_FORECAST, "as it comes", f"upstream rebuilt ({FORECAST}): forecast anew if its rows differ"
        )
        yield Planned(FORECAST_REPORT, "write", f"upstream rebuilt ({FORECAST})")
        return
    yield Planned(FORECAST, "reuse", FORECAST_UNCHANGED, rows)
    stores = decide_stores(publisher.warehouse, forecast_table, inputs.rebuild_all)
    yield Planned(STORE_FORECAST, "forecast" if stores.reason else "reuse", stores.reason or STORES_UNCHANGED)
    rebuilt = [
        name for name, why in ((STORE_FORECAST, stores.reason), (FORECAST_ACCURACY, reason_to_score)) if why
    ]
    if rebuilt:
        yield Planned(
            FORECAST_REPORT,
            "as it comes",
            f"upstream rebuilt ({', '.join(rebuilt)}): written anew if rows differ",
        )
        return
    report = decide_report(
        publisher,
        forecast_table,
        inputs.forecast.names_and_colors,
        history,
        inputs.rebuild_all,
        lambda line: None,
    )
    yield Planned(FORECAST_REPORT, "write" if report.reason else "reuse", report.reason or REPORT_UNCHANGED)


def _unless_skipped(name: str, inputs: RunInputs, verdict: str, reason: str) -> tuple[str, str]:
    is_skipped = isinstance(inputs.forecast, SkipForecast) and name != FORECAST_ACCURACY
    return ("skip", SKIPPED_AS_ASKED) if is_skipped else (verdict, reason)


def _cost_as_last_time(compute: Compute, forecast: RunForecast, note: Mapping[str, Any]) -> str:
    """Return what a forecast costs that takes as long as the last one; empty if nothing is charged."""
    seconds = float(note.get("seconds") or 0.0)
    used = Usage(seconds, float(note.get("cpu_seconds") or 0.0))
    price = compute.price(Size(forecast.cores, forecast.mib), used)
    return "" if price is None else f"; about ${price:.6f} for {seconds:.0f} s as last time"


def _budget(budget_guard: BudgetGuard, assets: Sequence[str], inputs: RunInputs) -> Iterator[Planned]:
    """Return what the run may cost at most, if there is a budget."""
    if budget_guard.budget_usd is not None:
        most = budget_guard.most(assets, inputs)
        refused = refusal(most, budget_guard.budget_usd)
        yield Planned("budget", "refuse" if refused else "admit", verdict(most, budget_guard.budget_usd))


def plan_job(environment: PlannedEnvironment, forecast_table: str) -> dg.JobDefinition:
    """A job that says what `serverless_pipeline` would do with the same run inputs, and does none of it."""

    @dg.op(out=dg.Out(dg.Nothing), description="What would be loaded, built and forecast, and why.")
    def look(context: dg.OpExecutionContext, run_inputs: RunInputs) -> None:
        with as_failure():
            planned = list(dry_run(environment, run_inputs.checked(), forecast_table))
        context.log.info("\n".join(map(str, planned)))
        records = [
            dg.TableRecord({"asset": p.asset, "verdict": p.verdict, "rows": p.rows or 0, "reason": p.reason})
            for p in planned
        ]
        context.add_output_metadata({"plan": dg.MetadataValue.table(records)})

    @dg.job(name="plan", config=PREFILL, description=plan_job.__doc__)
    def job() -> None:
        look()

    return job
