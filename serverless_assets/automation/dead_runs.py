"""The sensor `dead_runs`: a run whose process was killed is marked as failed."""

from pathlib import Path

import dagster as dg

from serverless_assets.publishing.run_process import end_dead_runs

SECONDS_BETWEEN_TICKS = 15


def dead_runs(home: Path, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Marks runs as failed whose processes have ended without finishing them, killed, say."""

    @dg.sensor(
        name="dead_runs",
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=status,
        description=dead_runs.__doc__,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(" ".join(end_dead_runs(home, context.instance)) or "No run has died.")

    return sensor
