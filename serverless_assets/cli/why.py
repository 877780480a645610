"""`serverless why MODEL`: the parts of a model's fingerprint, when it was built and now."""

import difflib
from collections.abc import Iterator, Mapping

from serverless_assets.environments import Environment
from serverless_assets.errors import UserError
from serverless_assets.transformation.decide_models import decide_models
from serverless_assets.transformation.green_manifest import known_models
from serverless_assets.transformation.relation_states import State, read_states


def explain(parts: Environment, model: str) -> Iterator[str]:
    """Compare what the relation of a model was built from with the project and the raw tables as they are.

    What changed at the source since the raw tables were loaded is not part of it.

    Raises:
        UserError: the project has no such model.
    """
    warehouse, artifacts = parts.publisher.warehouse, parts.publisher.artifacts
    decisions = decide_models(
        parts.project, parts.project.read_manifest(), warehouse, known_models=lambda: known_models(artifacts)
    )
    by_name = {decision.node.name: decision for decision in decisions}
    if model not in by_name:
        names = difflib.get_close_matches(model, by_name, 3) or sorted(by_name)[:10]
        raise UserError(
            f"The dbt project has no model {model!r} that has a relation. It has {', '.join(names)}."
        )
    decision = by_name[model]
    previous = read_states(warehouse, [decision.node]).get(model, State())
    yield f"{model}: {f'would be built: {decision.reason}' if decision.build else 'is reused: unchanged'}"
    if previous.built_by:
        yield f"Last built by run {previous.built_by}."
    yield ""
    rows = [*_rows(previous.data_hashes, decision.state.data_hashes)]
    # Where it is known which columns the model reads, the content is theirs.
    then, now = previous.read or previous.parents, decision.state.read or decision.state.parents
    rows += _rows(then, now, "content of ")
    width = max(len(part) for part, *_ in rows)
    yield f"  {'part':<{width}}  {'when built':<12}now"
    for part, before, after in rows:
        yield f"  {part:<{width}}  {before:<12}{after:<12}{'' if before == after else 'differs'}".rstrip()


def _rows(
    then: Mapping[str, str], now: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Each part with the beginning of its hash in both; a dash where it is not there."""
    for part in sorted(then.keys() | now.keys()):
        before, after = (hashes.get(part, "-")[:10] or "unknown" for hashes in (then, now))
        yield prefix + part, before, after
