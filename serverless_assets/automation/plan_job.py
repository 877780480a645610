"""A plan as people see it: as text, and as a job whose page has it as a table."""

from collections.abc import Iterator, Sequence

import dagster as dg

from serverless_assets.automation.jobs import PREFILL
from serverless_assets.automation.plan import dry_run
from serverless_assets.automation.planned import Planned, PlannedEnvironment
from serverless_assets.failures import as_failure
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.run_inputs import RunInputs


def plan_lines(plan: Sequence[Planned]) -> Iterator[str]:
    """The plan as a table of text: a heading, and a line for each asset.

    Assets that are skipped for the same reason share a line at the end.
    """
    skipped: dict[str, list[str]] = {}
    for planned in plan:
        if planned.verdict == "skip":
            skipped.setdefault(planned.reason, []).append(planned.asset)
    width = max([22, *(len(planned.asset) for planned in plan)]) + 2
    yield f"{'asset':<{width}}{'what':<16}{'rows':>12}  why"
    for planned in plan:
        if len(skipped.get(planned.reason, ())) > 1 and planned.verdict == "skip":
            continue
        rows = "" if planned.rows is None else f"{planned.rows:,}"
        yield f"{planned.asset:<{width}}{planned.text:<16}{rows:>12}  {planned.reason}"
    for reason, assets in skipped.items():
        if len(assets) > 1:
            yield f"\nskip {name_some(assets, NAMES_IN_A_LINE)}: {reason}"


def plan_job(environment: PlannedEnvironment) -> dg.JobDefinition:
    """A job that says what `serverless_pipeline` would do with the same run inputs, and does none of it."""

    @dg.op(out=dg.Out(dg.Nothing), description="What would be loaded, built and forecast, and why.")
    def look(context: dg.OpExecutionContext, run_inputs: RunInputs) -> None:
        with as_failure():
            planned = list(dry_run(environment, run_inputs.checked()))
        context.log.info("\n".join(plan_lines(planned)))
        records = [
            dg.TableRecord({"asset": p.asset, "verdict": p.text, "rows": p.rows or 0, "reason": p.reason})
            for p in planned
        ]
        context.add_output_metadata({"plan": dg.MetadataValue.table(records)})

    @dg.job(name="plan", config=PREFILL, description=plan_job.__doc__)
    def job() -> None:
        look()

    return job
