"""What a run failed with, in words."""

import re

import dagster as dg
from dagster import DagsterEventType
from dagster._utils.error import SerializableErrorInfo

from serverless_assets.publishing.outcome import failure_in_words

UNKNOWN = "No reason was recorded: the run's process may have been killed."


def first_error(instance: dg.DagsterInstance, run_id: str) -> str:
    """The sentence of the first step that failed; of the run itself if it failed outside of its steps."""
    steps = instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    for entry in steps:
        if entry.dagster_event:
            return _without_class(failure_in_words(entry.dagster_event))
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.RUN_FAILURE):
        event = entry.dagster_event
        if event and event.job_failure_data.error:
            return _innermost(event.job_failure_data.error)
        if event and event.message:
            return event.message
    return UNKNOWN


def _innermost(error: SerializableErrorInfo) -> str:
    """What the error that all others were raised about says."""
    while error.cause:
        error = error.cause
    told = _without_class(error.message.strip())
    return told.splitlines()[-1] if told else UNKNOWN


def _without_class(words: str) -> str:
    # `dagster._core.definitions.events.Failure: The sentence.`
    return re.sub(r"^[\w.]*(Error|Exception|Failure): ", "", words)
