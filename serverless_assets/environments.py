"""From an environment's name to its parts. Nothing else in the code asks which environment it is in."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Generic, TypeVar

from modal_forecast.code_version import versioned_app
from serverless_assets.budget import BudgetGuard
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.local_compute import LocalCompute
from serverless_assets.ingestion.limits import DownloadLimits
from serverless_assets.ingestion.source import HttpSource, SampleSource, Source
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.sample_shop.shop import SampleShop
from serverless_assets.settings import Settings, SettingsError, yesterday
from serverless_assets.transformation.project import Project

# Where months begin for a source that we know nothing of; the public jaffle-shop data begins in 2016.
EARLIEST_MONTH = date(2016, 1, 1)
# Tables of a branch that nobody cleans are gone after that long without a run.
BRANCH_LIFETIME = timedelta(days=7)

Part = TypeVar("Part")


@dataclass(frozen=True)
class Environment:
    """The parts that differ between environments."""

    source: Source
    publisher: Publisher
    compute: Compute
    project: Project
    first_month: date
    budget_usd: float | None
    timezone: str
    runs_kept: int

    @property
    def budget_guard(self) -> BudgetGuard:
        """Whether a run may begin. What it may cost is asked of the warehouse that it would write to."""
        return BudgetGuard(self.budget_usd, self.compute, self.project, self.publisher.warehouse)

    def resources(self, assets: Collection[str]) -> Mapping[str, object]:
        """The parts that assets ask for by name. `assets` are the names of all that runs can write."""
        publisher = self.publisher.as_resource(self.budget_guard, assets, self.runs_kept)
        return {"source": self.source, "publisher": publisher, "compute": self.compute}


@dataclass(frozen=True)
class Factory(Generic[Part]):
    """A kind of part: how it is made from the settings, and the variables without which it cannot be.

    `needs` maps what to set to whether it is set.
    """

    build: Callable[[Settings], Part]
    needs: Callable[[Settings], Mapping[str, object]] = lambda settings: {}


def local(settings: Settings) -> Publisher:
    """A DuckDB file and a folder on this machine, with nothing to sign up for."""
    return LocalPublisher(settings.home, settings.dbt_schema)


# The cloud's clients take seconds to import: only those who use them pay for it.
def gcp(settings: Settings) -> Publisher:
    """BigQuery and Google Cloud Storage."""
    from serverless_assets.artifacts.gcs import GcsArtifacts
    from serverless_assets.publishing.bigquery import BigQueryPublisher
    from serverless_assets.warehouse.bigquery import BigQueryWarehouse

    project, location = str(settings.project), settings.location
    warehouse = BigQueryWarehouse(
        project,
        settings.dbt_schema,
        location,
        settings.maximum_bytes_billed,
        lifetime=BRANCH_LIFETIME if settings.branch else None,
    )
    folder = f"branches/{settings.branch}/" if settings.branch else ""
    artifacts = GcsArtifacts(project, str(settings.bucket), location, folder=folder)
    return BigQueryPublisher(settings.home, warehouse, artifacts)


def subprocess(settings: Settings) -> Compute:
    """A process on this machine, held to the cpu and memory that a run asks for."""
    return LocalCompute(deadline_seconds=settings.forecast_deadline_seconds)


def modal(settings: Settings) -> Compute:
    """A deployed Modal function, called with the cpu and memory that a run asks for."""
    from serverless_assets.forecasting.modal_compute import ModalCompute

    app = versioned_app(settings.modal_app)
    return ModalCompute(app, settings.modal_environment, settings.forecast_deadline_seconds)


# Where tables and files live.
ENVIRONMENTS: Mapping[str, Factory[Publisher]] = {
    "local": Factory(local),
    "gcp": Factory(
        gcp,
        lambda settings: {
            "GOOGLE_CLOUD_PROJECT, the project to work in": settings.project,
            "SERVERLESS_BUCKET, the bucket for the report and the forecast's file": settings.bucket,
        },
    ),
}
# Where the forecast is computed.
COMPUTES: Mapping[str, Factory[Compute]] = {
    "subprocess": Factory(subprocess),
    "modal": Factory(
        modal,
        lambda settings: {
            "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`": settings.has_modal_token
        },
    ),
}
COMPUTE_OF: Mapping[str, str] = {"local": "subprocess", "gcp": "modal"}


def environment(settings: Settings) -> Environment:
    """The parts of the environment that the settings name.

    Raises:
        SettingsError: there is no environment or compute of that name, or variables are missing: all
            of them are named.
    """
    place = _named("SERVERLESS_ENV", settings.environment, ENVIRONMENTS)
    compute = compute_kind(settings)
    _refuse_missing(settings, {**place.needs(settings), **compute.needs(settings)})
    publisher = place.build(settings)
    variables = {"SERVERLESS_ENV": settings.environment, **publisher.warehouse.dbt_variables()}
    return Environment(
        source=_source(settings),
        publisher=publisher,
        compute=compute.build(settings),
        project=Project(settings.dbt_project, settings.home / "dbt", variables),
        first_month=_first_month(settings),
        budget_usd=settings.budget_usd,
        timezone=settings.timezone,
        runs_kept=settings.runs_kept,
    )


def compute_kind(settings: Settings) -> Factory[Compute]:
    """The kind of compute that the settings name, or else the environment's."""
    name = settings.compute or COMPUTE_OF[settings.environment]
    return _named("SERVERLESS_COMPUTE", name, COMPUTES)


def _named(variable: str, name: str, known: Mapping[str, Factory[Part]]) -> Factory[Part]:
    if name not in known:
        raise SettingsError(f"{variable} is {name!r}, which there is not. Known: {', '.join(sorted(known))}.")
    return known[name]


def _refuse_missing(settings: Settings, needs: Mapping[str, object]) -> None:
    missing = [what for what, found in needs.items() if not found]
    if missing:
        raise SettingsError(
            "\n".join([f"The environment {settings.environment!r} needs, and does not have:", *missing])
        )


def _source(settings: Settings) -> Source:
    limits = DownloadLimits(settings.download_deadline_seconds, settings.download_minimum_rate)
    if settings.dataset_url:
        return HttpSource(settings.dataset_url, limits)
    return SampleSource(settings.sample_seed, lambda: settings.sample_end or yesterday(), limits)


def _first_month(settings: Settings) -> date:
    if settings.first_month or settings.dataset_url:
        return settings.first_month or EARLIEST_MONTH
    # The shop's own first month keeps the partition bar free of months that never were.
    return SampleShop(seed=settings.sample_seed, end=settings.sample_end or yesterday()).start
