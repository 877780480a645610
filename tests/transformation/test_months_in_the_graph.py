"""Models that are built month by month have these months as partitions."""

import dagster as dg

FACT, MODELS = dg.AssetKey("raw_orders"), {"orders", "daily_revenue"}


def test_models_built_by_month_have_the_partitions_of_the_facts(green):
    specs = {spec.key: spec for spec in green.definitions.resolve_all_asset_specs()}
    partitioned = {key for key, spec in specs.items() if spec.partitions_def == specs[FACT].partitions_def}
    facts = {table.name for table in green.parts.raw_tables if table.has_months}
    assert partitioned == {*map(dg.AssetKey, {*facts, *MODELS})}
    assert FACT in partitioned


def test_a_run_of_everything_shows_the_months_that_they_hold(green):
    months = green.instance.get_materialized_partitions(FACT)
    assert len(months) > 1
    for model in MODELS:
        assert green.instance.get_materialized_partitions(dg.AssetKey(model)) == months
