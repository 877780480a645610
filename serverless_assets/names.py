"""Names that several modules, and people in the UI, refer to: assets, jobs, tags and metadata keys."""

# Assets that are not models of the dbt project or raw tables.
FORECAST, STORE_FORECAST, FORECAST_REPORT = "order_forecast", "store_forecast", "forecast_report"
FORECAST_ACCURACY, PIPELINE_RUNS = "forecast_accuracy", "pipeline_runs"
# The model that is forecast.
REVENUE = "daily_revenue"

# Asset groups.
INGESTION, FORECASTING = "ingestion", "forecasting"

# The job that runs all assets, and its step that builds the models.
MAIN_JOB, TRANSFORMATION = "serverless_pipeline", "transformation"

# Run tags: the change at the source that a run loads, why it was launched, and `all` to rebuild everything.
SOURCE_CHANGE_TAG, REASON_TAG, REBUILD_TAG = (
    "serverless/source_change",
    "serverless/reason",
    "serverless/rebuild",
)

# Metadata keys of assets that the UI shows in its own way.
COLUMN_SCHEMA, TABLE_NAME = "dagster/column_schema", "dagster/table_name"
CODE_REFERENCES = "dagster/code_references"
# dagster-dbt's key for a model's id in the manifest.
DBT_UNIQUE_ID = "dagster_dbt/unique_id"
