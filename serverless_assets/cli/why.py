"""`serverless why MODEL`: the parts of the fingerprint of a model or Python asset, when built and now."""

import difflib
from collections.abc import Iterator, Mapping

from serverless_assets.environments import Environment
from serverless_assets.errors import UserError
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.python_assets.pandas_tables import read_state
from serverless_assets.python_assets.reuse import decide_frame
from serverless_assets.transformation.decide_models import decide_models
from serverless_assets.transformation.manifest import known_models
from serverless_assets.transformation.relation_states import State, read_states


def explain(parts: Environment, model: str) -> Iterator[str]:
    """Compare what the relation of a model or Python asset was built from with what there is now.

    What changed at the source since the raw tables were loaded is not part of it.

    Raises:
        UserError: the project has neither of that name, or it is a raw table or of a forecast.
    """
    warehouse, artifacts = parts.publisher.warehouse, parts.publisher.artifacts
    decisions = decide_models(
        parts.project, parts.manifest, warehouse, known_models=lambda: known_models(artifacts)
    )
    unchanged = "unchanged"
    by_name = {decision.node.name: decision for decision in decisions}
    frames = {frame.name: frame for frame in parts.python_assets}
    if model in by_name:
        decision = by_name[model]
        previous = read_states(warehouse, [decision.node]).get(model, State())
        state, reason = decision.state, decision.reason if decision.build else None
        unchanged = decision.reason
    elif model in frames:
        previous = read_state(warehouse, frames[model].table) or State()
        state, reason = decide_frame(frames[model], warehouse, force=False)
    else:
        others = [
            *(table.name for table in parts.raw_tables),
            *(name for forecast in parts.forecasts for name in forecast.assets),
        ]
        if model in others:
            raise UserError(
                "`serverless why` compares the code of models and Python assets: `serverless plan` says what "
                f"would become of {model}, and why."
            )
        choices = sorted([*by_name, *frames])
        names = difflib.get_close_matches(model, choices, 3) or choices
        raise UserError(
            f"The project has no model or Python asset {model!r} that has a relation. It has "
            f"{name_some(names, NAMES_IN_A_LINE)}."
        )
    yield f"{model}: {f'would be built: {reason}' if reason else f'is reused: {unchanged}'}"
    if previous.built_by:
        yield f"Last built by run {previous.built_by}."
    yield ""
    rows = [*_rows(previous.data_hashes, state.data_hashes)]
    # Where it is known which columns the model reads, the content is theirs.
    rows += _rows(previous.read or previous.parents, state.read or state.parents, "content of ")
    width = max(len(part) for part, *_ in rows)
    yield f"  {'part':<{width}}  {'when built':<12}now"
    for part, before, after in rows:
        yield f"  {part:<{width}}  {before:<12}{after:<12}{'' if before == after else 'differs'}".rstrip()


def _rows(
    built: Mapping[str, str], now: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Each part with the beginning of its hash in both; a dash where it is not there."""
    for part in sorted(built.keys() | now.keys()):
        before, after = (hashes.get(part, "-")[:10] or "unknown" for hashes in (built, now))
        yield prefix + part, before, after
