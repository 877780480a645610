"""Names that several modules, and people in the UI, refer to: assets, jobs, tags and metadata keys."""

from collections.abc import Sequence

# The asset that has a materialization for each run.
PIPELINE_RUNS = "pipeline_runs"

# The job that runs all assets, and its step that builds the models.
MAIN_JOB, TRANSFORMATION = "serverless_pipeline", "transformation"

# Before the name of a forecast's step where its asset has that of its job, as Dagster refuses a job and a
# step of one name. What a run prints leaves it out.
STEP_PREFIX = "compute_"

# Run tags: the change at the source that a run loads, why it was launched, and that a choice in its run
# config was refused.
SOURCE_CHANGE_TAG, REASON_TAG = "serverless/source_change", "serverless/reason"
REFUSED_TAG = "serverless/refused"

# The asset tags of the total of a forecast, with the forecast's name, and with day, week or month.
FORECAST_TAG, GRAIN_TAG = "serverless/forecast", "serverless/grain"
# The asset tag of raw tables, with the format that they are served in.
RAW_TABLE_TAG = "serverless/raw_table"

# The reason of everything that a run makes by `rebuild: all`.
FORCED = "forced: rebuild all"
# Keys in stored states: the hash of what a forecast, that of its parts, and its accuracy were made from.
FORECAST_KEYS = FORECAST_KEY, PARTS_KEY, ACCURACY_KEY = "forecast_key", "store_forecast_key", "accuracy_basis"

# Metadata keys of assets that the UI shows in its own way.
COLUMN_SCHEMA, TABLE_NAME = "dagster/column_schema", "dagster/table_name"
COLUMN_LINEAGE = "dagster/column_lineage"
CODE_REFERENCES = "dagster/code_references"
# dagster-dbt's key for a model's id in the manifest.
DBT_UNIQUE_ID = "dagster_dbt/unique_id"

# Ends the name of the dataset that runs write to; people read another one.
WORK = "__work"

# How many assets a line of text names, before `and N more`.
NAMES_IN_A_LINE = 6
# The same, of assets that failed and have a line each besides.
NAMES_OF_FAILED = 3


def name_some(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the names for a sentence; of more than `most`, the first ones and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more
