"""`serverless why ASSET`: which parts of the fingerprint of an asset differ from when it was built."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from serverless_assets.automation.plan import plan_raw_tables
from serverless_assets.automation.plan_forecasts import plan_forecast
from serverless_assets.automation.planned import Planned, Selection
from serverless_assets.environments import Environment
from serverless_assets.errors import UserError
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.history import Today, read_history
from serverless_assets.forecasting.reuse import SAME_FORECAST
from serverless_assets.forecasting.total import decide_forecast
from serverless_assets.ingestion.state import TableState
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.python_assets.pandas_tables import read_state
from serverless_assets.python_assets.reuse import SAME_FRAME, decide_frame
from serverless_assets.run_inputs import RunForecast, RunInputs
from serverless_assets.transformation.decide_models import decide_models
from serverless_assets.transformation.relation_states import State, read_states

# Of raw tables and of the assets of forecasts.
VERDICTS = {
    "reuse": "is reused",
    "load": "would be loaded",
    "forecast": "would be forecast",
    "score": "would be scored",
    "write": "would be written",
    "depends": "may be built",
    "skip": "would be skipped",
    "fail": "would fail",
}
# The parts of a forecast whose values a person can read; all others are hashes.
READABLE = {"grain", "horizon", "holidays", "model"}


@dataclass(frozen=True)
class Explanation:
    """What would become of an asset, the run that built it last, and its fingerprint then and now: the hash
    or value of each part."""

    verdict: str
    built_by: str = ""
    before: Mapping[str, str] = field(default_factory=dict)
    now: Mapping[str, str] = field(default_factory=dict)

    @property
    def differences(self) -> Mapping[str, str]:
        """The parts that differ: how."""
        differences = {}
        for part in self.before.keys() | self.now.keys():
            before, now = self.before.get(part), self.now.get(part)
            if before is None or now is None:
                differences[part] = "added" if before is None else "removed"
            elif before != now:
                differences[part] = f"was {before}, is {now}" if part in READABLE else "changed"
        return differences


def explain(environment: Environment, asset: str) -> Iterator[str]:
    """Compare what an asset was built from with what there is now.

    Of models, Python assets and forecasts, what changed at the source since the raw tables were loaded is not
    part of it.

    Raises:
        UserError: there is no such asset.
    """
    explanation = _explain(environment, asset)
    yield f"{asset} {explanation.verdict}"
    if explanation.built_by:
        yield f"Last built by run {explanation.built_by}."
    if not explanation.before:
        return
    yield ""
    differences, same = explanation.differences, sorted(explanation.now.keys() - explanation.differences)
    width = max(map(len, differences), default=0)
    for part, difference in sorted(differences.items()):
        yield f"  {part:<{width}}  {difference}"
    if same:
        # Most parts are dbt's own macros, which say little.
        same.sort(key=lambda part: part.startswith("macro "))
        yield f"  Unchanged: {name_some(same, NAMES_IN_A_LINE)}."


def _explain(environment: Environment, asset: str) -> Explanation:
    tables = {table.name for table in environment.raw_tables}
    if asset in tables:
        return _raw_table(environment, asset)
    for forecast in environment.forecasts:
        if asset in forecast.assets:
            return _forecast(environment, forecast, asset)
    warehouse, artifacts = environment.publisher.warehouse, environment.publisher.artifacts
    frames = {frame.name: frame for frame in environment.python_assets}
    if asset in frames:
        previous = read_state(warehouse, frames[asset].table) or State()
        state, reason = decide_frame(frames[asset], warehouse, force=False)
        return _of_states(_verdict(reason, SAME_FRAME), previous, state)
    decisions = decide_models(environment.project, environment.manifest, warehouse, artifacts)
    models = {decision.node.name: decision for decision in decisions}
    if asset in models:
        decision = models[asset]
        previous = read_states(warehouse, [decision.node]).get(asset, State())
        verdict = _verdict(decision.reason if decision.build else None, decision.reason)
        return _of_states(verdict, previous, decision.state)
    of_forecasts = (name for forecast in environment.forecasts for name in forecast.assets)
    choices = sorted({*tables, *models, *frames, *of_forecasts})
    near = difflib.get_close_matches(asset, choices, 1)
    names = f"Did you mean {near[0]}?" if near else f"Assets: {name_some(choices, NAMES_IN_A_LINE)}."
    raise UserError(f"There is no asset {asset!r} with a table or view. {names}")


def _verdict(reason: str | None, unchanged: str) -> str:
    return f"would be built: {reason}" if reason else f"is reused: {unchanged}"


def _of_states(verdict: str, previous: State, state: State) -> Explanation:
    # `read` has the content of the columns that it reads, if those are known: not of code that was edited.
    by_column = bool(previous.read and state.read)

    def parts(of: State) -> Mapping[str, str]:
        contents = of.read if by_column else of.parents
        return {**of.data_hashes, **{f"content of {parent}": hash for parent, hash in contents.items()}}

    return Explanation(verdict, previous.built_by, parts(previous), parts(state))


def _raw_table(environment: Environment, table: str) -> Explanation:
    """Ask the source, as a plan does."""
    stored_states = dict(environment.publisher.warehouse.read_states())
    ((planned, stored_state, _),) = plan_raw_tables(
        environment, RunInputs(), Selection({table}), stored_states
    )
    before, now = (TableState.from_json(state or {}) for state in (stored_states.get(table), stored_state))

    def parts(of: TableState) -> Mapping[str, str]:
        values = {"definition": of.definition, "source": of.source, "content": of.version}
        return {name: value for name, value in values.items() if value}

    return Explanation(_planned(planned), before.built_by, parts(before), parts(now))


def _forecast(environment: Environment, declaration: ForecastDeclaration, asset: str) -> Explanation:
    if asset != declaration.asset:
        for planned in plan_forecast(environment, RunInputs(), declaration, ()):
            if planned.asset == asset:
                return Explanation(_planned(planned))
    warehouse = environment.publisher.warehouse
    history = read_history(declaration, warehouse, Today.of(environment.settings.timezone))
    decision = decide_forecast(warehouse, history, declaration.horizon_of(RunForecast()), rebuild_all=False)
    state = decision.state or {}
    facts = {
        "history": "history_hash",
        "grain": "grain",
        "horizon": f"horizon_{declaration.time_grain.plural}",
        "holidays": "holidays",
        "model": "asked_model",
        "code": "forecast_code",
    }

    def parts(of: Mapping[str, Any]) -> Mapping[str, str]:
        return {name: str(of[fact]) for name, fact in facts.items() if fact in of}

    verdict, built_by = _verdict(decision.reason, SAME_FORECAST), str(state.get("run_id", ""))
    return Explanation(verdict, built_by, parts(state), parts(decision.fingerprint))


def _planned(planned: Planned) -> str:
    return f"{VERDICTS[planned.verdict]}: {planned.reason}"
