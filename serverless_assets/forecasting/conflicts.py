"""Refuse forecasts whose table or file would replace that of something else."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from serverless_assets.errors import UserError
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.record import FIRST_FORECAST, RecordName
from serverless_assets.run_inputs import RunForecast, RunInputs
from serverless_assets.settings import SettingsError
from serverless_assets.warehouse import Warehouse


def refuse_owned_tables(
    forecasts: Sequence[ForecastDeclaration],
    manifest: Mapping[str, Any],
    other_assets: Iterable[str] = (),
    input: str = "",
) -> None:
    """Raise SettingsError if the table of a forecast would replace one that something else writes.

    Args:
        manifest: of the dbt project.
        other_assets: that write a table of their own name.
        input: the run input by which the table of the last forecast was chosen, if one did.
    """
    owners = dict(table_owners(manifest))
    owners |= {name.lower(): f"the asset {name}" for name in other_assets}
    for forecast in forecasts:
        for asset, table in forecast.tables.items():
            owner = owners.setdefault(table.lower(), f"the asset {asset}")
            if owner == f"the asset {asset}":
                continue
            setting = f"In defs.yaml of the forecast {forecast.name}, the table of {asset}"
            if forecast.name == FIRST_FORECAST and asset == forecast.asset:
                setting = "SERVERLESS_FORECAST_TABLE"
            raise SettingsError(
                f"{input or setting} is {table!r}, which is the table of {owner}. Set it to a name that no "
                "model, seed, snapshot, source or other asset has, such as order_forecast."
            )


def table_owners(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return who in the dbt project writes each table, by its name in lower case, as DuckDB ignores case."""
    owners: dict[str, str] = {}
    for node in manifest["nodes"].values():
        if node["resource_type"] in ("model", "seed", "snapshot"):
            owner = f"the {node['resource_type']} {node['name']} ({node['original_file_path']})"
            owners |= {name.lower(): owner for name in (node["name"], node.get("alias")) if name}
    for source in manifest["sources"].values():
        owners[source["identifier"].lower()] = f"the source {source['source_name']}.{source['name']}"
    return owners


def refuse_choices(
    forecasts: Sequence[ForecastDeclaration],
    planned: Collection[str],
    inputs: RunInputs,
    manifest: Mapping[str, Any],
    other_assets: Iterable[str],
    warehouse: Warehouse,
) -> None:
    """Raise UserError if the table or file that a run chose for its forecasts is another's.

    Args:
        planned: the assets that the run writes.
        manifest, other_assets: as for `refuse_owned_tables`.
        warehouse: that people read.
    """
    chosen = [forecast for forecast in forecasts if set(forecast.assets) & set(planned)]
    run = inputs.forecast
    if not chosen or not isinstance(run, RunForecast):
        return
    styles = [forecast.style_of(run) for forecast in chosen]
    for field in ("forecast_table", "forecast_file", "html_report"):
        if len({getattr(style, field) for style in styles}) < len(chosen):
            jobs = " or ".join(forecast.name for forecast in chosen)
            raise UserError(
                f"{field} is {getattr(styles[0], field)!r}, and this run makes {len(chosen)} forecasts: "
                f"leave it out, so that each has its own, or run the job {jobs}."
            )
    for forecast, style in zip(chosen, styles, strict=True):
        others = [other for other in forecasts if other.name != forecast.name]
        for field, value, of_others in (
            ("forecast_file", style.forecast_file, {other.file: other.name for other in others}),
            ("html_report", style.html_report, {other.page: other.name for other in others}),
        ):
            if owner := of_others.get(value):
                raise UserError(
                    f"{field} is {value!r}, which is that of the forecast {owner}. Choose another name."
                )
        table = forecast.of_run(run).table
        if table == forecast.table:
            continue
        refuse_owned_tables([*others, forecast.of_run(run)], manifest, other_assets, "forecast_table")
        existing = {name.lower(): name for name in warehouse.tables()}.get(table.lower())
        record = RecordName.of(warehouse.read_state(existing)) if existing else None
        if existing and (record is None or record.forecast != forecast.name):
            raise UserError(
                f"forecast_table is {table!r}, which is there already and was not made by the forecast "
                f"{forecast.name}. Choose another name, or drop it."
            )
