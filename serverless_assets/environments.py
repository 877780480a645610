"""The registry of environments: names of warehouses, artifact stores and computes, and how each is built.

Nothing else in the code asks which environment it is in. Another implementation is a module that implements
the protocol of its kind, and an entry here.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, TypeVar

import dagster as dg

from modal_forecast.code_version import versioned_app
from serverless_assets.artifacts import Artifacts
from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.asset_keys import asset_name, set_key_prefix
from serverless_assets.budget import BudgetGuard
from serverless_assets.forecasting.component import (
    build_defs_folder,
    read_forecasts,
    refuse_choices,
    refuse_owned_tables,
)
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.local_compute import LocalCompute
from serverless_assets.ingestion.catalog import read_catalogue
from serverless_assets.ingestion.http_client import DownloadLimits
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.names import PIPELINE_RUNS
from serverless_assets.project_root import CLONE, PROJECT_ROOT
from serverless_assets.publishing.around_run import around_run
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.python_assets.pandas_tables import pandas_tables
from serverless_assets.python_assets.reuse import FrameAsset, frame_assets
from serverless_assets.run_inputs import RunInputs
from serverless_assets.sample_shop import SampleSource
from serverless_assets.settings import Settings, SettingsError, yesterday
from serverless_assets.transformation.manifest import asset_names
from serverless_assets.transformation.project import Project

# The first month of an unknown source; the public jaffle-shop data begins in 2016.
EARLIEST_MONTH = date(2016, 1, 1)
# BigQuery deletes the tables of a branch that long after its last run.
BRANCH_LIFETIME = timedelta(days=7)

Part = TypeVar("Part")


@dataclass(frozen=True)
class Environment:
    """The settings, and the parts that they name."""

    settings: Settings
    source: Source
    publisher: Publisher
    compute: Compute
    project: Project

    @cached_property
    def first_month(self) -> date:
        """The first month of facts, as partitions have it."""
        # With the first month of the shop, the partition bar has no months without rows.
        begin = self.source.first_month if isinstance(self.source, SampleSource) else EARLIEST_MONTH
        return self.settings.first_month or begin

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest of the dbt project as of its first use, as each reading checks every file."""
        return self.project.read_manifest()

    @cached_property
    def forecasts(self) -> Sequence[ForecastDeclaration]:
        """The declared forecasts whose relation the dbt project has.

        Raises:
            SettingsError: a forecast or a Python asset cannot be as it is declared.
        """
        refuse_owned_tables(self._forecasts, self.manifest, self._other_assets)
        present = {frame.name for frame in self.python_assets}
        return [
            forecast.model_copy(
                update={"sections": [section for section in forecast.sections if section.asset in present]}
            )
            for forecast in self._forecasts
        ]

    @cached_property
    def python_assets(self) -> Sequence[FrameAsset]:
        """The Python assets whose frames the IO manager `pandas` stores, in the order of a run."""
        return frame_assets(self._declared_assets, self.manifest, self._forecasts)

    @cached_property
    def _declared_assets(self) -> Iterable[object]:
        """What the folder of definitions declares besides forecasts."""
        return build_defs_folder(lambda forecast: dg.Definitions()).assets or ()

    @property
    def _other_assets(self) -> Collection[str]:
        """The assets besides those of forecasts whose tables have their names."""
        written = (asset for asset in self._declared_assets if isinstance(asset, dg.AssetsDefinition))
        return {PIPELINE_RUNS, *(asset_name(key) for asset in written for key in asset.keys)}

    @cached_property
    def _forecasts(self) -> Sequence[ForecastDeclaration]:
        return read_forecasts(self.manifest, self.project.target_schema, self.settings.forecast_table)

    @cached_property
    def raw_tables(self) -> tuple[RawTable, ...]:
        """The raw tables that the dbt project declares."""
        return read_catalogue(self.manifest, self.project.target_schema.schema)

    def pending_assets(self) -> set[str]:
        """The assets without which the next run is not published, except those that the
        project no longer has."""
        existing = {table.name for table in self.raw_tables} | {*asset_names(self.manifest).values()}
        existing |= {name for forecast in self.forecasts for name in forecast.assets} | {*self._other_assets}
        return self.publisher.pending_before_publish() & existing

    @property
    def absent_tables(self) -> Collection[str]:
        """The raw tables that the sample shop lacks, which stands in for a source: runs leave them out."""
        return {table.name for table in self.raw_tables if self.source.lacks(table)}

    @property
    def budget_guard(self) -> BudgetGuard:
        """The budget, with what a run spends it on."""
        warehouse = self.publisher.warehouse
        return BudgetGuard(self.settings.budget_usd, self.compute, self.project, warehouse, self.forecasts)

    def admit(self, planned: Collection[str], inputs: RunInputs, log: Callable[[str], None]) -> None:
        """Raise a `UserError` if a run that plans to write these assets may not begin."""
        refuse_choices(
            self.forecasts,
            planned,
            inputs,
            self.manifest,
            self._other_assets,
            self.publisher.published.warehouse,
        )
        self.budget_guard(planned, inputs, log)

    def resources(self, assets: Collection[str]) -> Mapping[str, object]:
        """Return what assets ask for by name. `assets` are the names of all that runs can write."""
        return {
            "source": self.source,
            "publisher": around_run(self.publisher, self.admit, assets, self.settings.runs_kept),
            "compute": self.compute,
            "run_inputs": RunInputs.configure_at_launch(),
            "pandas": pandas_tables,
        }


@dataclass(frozen=True)
class Preset:
    """The names of the parts of an environment, where the settings do not name others."""

    warehouse: str
    artifacts: str
    compute: str


# The cloud's clients take seconds to import: only those who use them pay for it.
def build_bigquery(settings: Settings, store: Artifacts | None) -> Publisher:
    """A BigQuery dataset, published from the work dataset beside it; a folder without a store."""
    from serverless_assets.publishing.bigquery import BigQueryPublisher
    from serverless_assets.warehouse.bigquery import BigQueryWarehouse

    warehouse = BigQueryWarehouse(
        str(settings.project),
        settings.dbt_schema,
        settings.location,
        settings.maximum_bytes_billed,
        lifetime=BRANCH_LIFETIME if settings.branch else None,
        usd=settings.bigquery_price,
        execution_project=settings.execution_project or "",
    )
    folder = settings.home / "artifacts"
    store = store or LocalArtifacts(folder, published=folder)
    return BigQueryPublisher(settings.home, warehouse, store, settings.releases_kept)


def build_gcs(settings: Settings) -> Artifacts:
    """A bucket of Google Cloud Storage."""
    from serverless_assets.artifacts.gcs import GcsArtifacts

    folder = f"branches/{settings.branch}/" if settings.branch else ""
    return GcsArtifacts(str(settings.project), str(settings.bucket), settings.location, folder=folder)


def build_url(settings: Settings) -> Artifacts:
    """A folder at any address that fsspec knows."""
    from serverless_assets.artifacts.url import UrlArtifacts

    return UrlArtifacts(str(settings.artifacts_url), settings.branch)


def build_modal(settings: Settings) -> Compute:
    """A deployed Modal function, called with the cpu and memory that a run asks for."""
    from serverless_assets.forecasting.modal_compute import ModalCompute

    app = versioned_app(settings.modal_app)
    return ModalCompute(
        app, settings.modal_environment, settings.forecast_deadline_seconds, settings.modal_region
    )


PRESETS: Mapping[str, Preset] = {
    "local": Preset(warehouse="duckdb", artifacts="folder", compute="subprocess"),
    "gcp": Preset(warehouse="bigquery", artifacts="gcs", compute="modal"),
}
WAREHOUSES: Mapping[str, Callable[[Settings, Artifacts | None], Publisher]] = {
    # Without a store, the files are part of its releases.
    "duckdb": lambda settings, store: LocalPublisher(
        settings.home, settings.dbt_schema, store, settings.releases_kept
    ),
    "bigquery": build_bigquery,
}
# The target in dbt's profiles.yml for each warehouse.
DBT_TARGETS: Mapping[str, str] = {"duckdb": "local", "bigquery": "gcp"}
# `folder` is None: the publisher of the warehouse keeps the files in SERVERLESS_HOME.
ARTIFACT_STORES: Mapping[str, Callable[[Settings], Artifacts | None]] = {
    "folder": lambda settings: None,
    "gcs": build_gcs,
    "url": build_url,
}
COMPUTES: Mapping[str, Callable[[Settings], Compute]] = {
    "subprocess": lambda settings: LocalCompute(deadline_seconds=settings.forecast_deadline_seconds),
    "modal": build_modal,
}
# The settings that a part needs, each with its words in a message.
GOOGLE_PROJECT = {"project": "GOOGLE_CLOUD_PROJECT, the project to work in"}
NEEDS: Mapping[str, Mapping[str, str]] = {
    "bigquery": GOOGLE_PROJECT,
    "gcs": {
        **GOOGLE_PROJECT,
        "bucket": "SERVERLESS_BUCKET, the bucket for the report and the forecast's file",
    },
    "url": {"artifacts_url": "SERVERLESS_ARTIFACTS_URL, such as s3://my-bucket"},
    "modal": {"has_modal_token": "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`"},
}


def environment(settings: Settings) -> Environment:
    """Return the parts that the settings name, each by itself or by the preset SERVERLESS_ENV.

    Raises:
        SettingsError: a name is unknown, or variables are missing: all of them are named.
    """
    set_key_prefix(settings.key_prefix)
    preset = _named("SERVERLESS_ENV", settings.environment, PRESETS)
    warehouse = settings.warehouse or preset.warehouse
    store = settings.artifacts or ("url" if settings.artifacts_url else preset.artifacts)
    compute = settings.compute or preset.compute
    build_publisher = _named("SERVERLESS_WAREHOUSE", warehouse, WAREHOUSES)
    build_store = _named("SERVERLESS_ARTIFACTS", store, ARTIFACT_STORES)
    build_compute = _named("SERVERLESS_COMPUTE", compute, COMPUTES)
    needs = {name: text for part in (warehouse, store, compute) for name, text in NEEDS.get(part, {}).items()}
    if missing := [text for name, text in needs.items() if not getattr(settings, name)]:
        heading = f"The environment {settings.environment!r} lacks these settings:"
        raise SettingsError("\n".join([heading, *missing]))
    publisher = build_publisher(settings, build_store(settings))
    variables = {"SERVERLESS_ENV": DBT_TARGETS[warehouse], **publisher.warehouse.dbt_variables()}
    project = Project(settings.dbt_project, settings.home / "dbt", variables)
    return Environment(settings, _source(settings), publisher, build_compute(settings), project)


def _named(variable: str, name: str, known: Mapping[str, Part]) -> Part:
    if name not in known:
        raise SettingsError(f"Unknown {variable} {name!r}: expected one of {', '.join(sorted(known))}.")
    return known[name]


def _source(settings: Settings) -> Source:
    limits = DownloadLimits(
        settings.download_deadline_seconds,
        settings.download_minimum_rate,
        memory_mib=settings.load_memory_mib,
    )
    # The sample shop belongs to the clone: other projects have no source until they set one.
    if settings.dataset_url or PROJECT_ROOT != CLONE:
        return HttpSource(settings.dataset_url or "", limits=limits)
    return SampleSource(settings.sample_seed, lambda: settings.sample_end or yesterday(), limits)
