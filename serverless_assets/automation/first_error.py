"""What a run failed with, in words."""

import dagster as dg
from dagster import DagsterEventType

from serverless_assets.publishing.outcome import failure_in_words, run_failure_sentence, without_class

UNKNOWN = "No reason was recorded: the run's process may have been killed."


def first_error(instance: dg.DagsterInstance, run_id: str) -> str:
    """The sentence of the first step that failed; of the run itself if it failed outside of its steps."""
    steps = instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    for entry in steps:
        if entry.dagster_event:
            return without_class(failure_in_words(entry.dagster_event))
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.RUN_FAILURE):
        event = entry.dagster_event
        if event and event.job_failure_data.error:
            return run_failure_sentence(event.job_failure_data.error)
        if event and event.message:
            return event.message
    return UNKNOWN
