"""The job `plan`: what a run of everything would do and why."""

import dagster as dg

from serverless_assets.automation.dry_run import Parts, dry_run
from serverless_assets.automation.jobs import PREFILL
from serverless_assets.failures import as_failure
from serverless_assets.run_inputs import RunInputs


def plan_job(parts: Parts, forecast_table: str) -> dg.JobDefinition:
    """A job that says what `serverless_pipeline` would do with the same run inputs, and does none of it."""

    @dg.op(out=dg.Out(dg.Nothing), description="What would be loaded, built and forecast, and why.")
    def look(context: dg.OpExecutionContext, run_inputs: RunInputs) -> None:
        with as_failure():
            planned = list(dry_run(parts, run_inputs.choices(), forecast_table))
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
