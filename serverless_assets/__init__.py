"""A Dagster code location: REST API to warehouse to dbt to a forecast on serverless compute."""
