"""From an environment's name to its parts. Nothing else in the code asks which environment it is in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from serverless_assets.automation.jobs import MAIN_JOB
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.local_compute import LocalCompute
from serverless_assets.ingestion.sample_shop import SampleShop
from serverless_assets.ingestion.source import HttpSource, SampleSource, Source
from serverless_assets.publishing.local import LocalRelease
from serverless_assets.publishing.release import Release
from serverless_assets.settings import Settings, SettingsError, yesterday
from serverless_assets.transformation.project import Project

# Where months begin for a source that we know nothing of; the public jaffle-shop data begins in 2016.
EARLIEST_MONTH = date(2016, 1, 1)


@dataclass(frozen=True)
class Environment:
    """The parts that differ between environments."""

    source: Source
    release: Release
    compute: Compute
    project: Project
    first_month: date

    def resources(self) -> Mapping[str, object]:
        """The parts that assets ask for by name."""
        return {"source": self.source, "release": self.release.as_resource(), "compute": self.compute}


def local(settings: Settings) -> Environment:
    """Everything on this machine, with nothing to sign up for."""
    release = LocalRelease(settings.home, MAIN_JOB, settings.dbt_schema)
    return Environment(
        source=_source(settings),
        release=release,
        compute=LocalCompute(),
        project=Project(
            settings.home / "dbt", {"SERVERLESS_ENV": "local", **release.warehouse.dbt_variables()}
        ),
        first_month=_first_month(settings),
    )


ENVIRONMENTS: Mapping[str, Callable[[Settings], Environment]] = {"local": local}


def environment(settings: Settings) -> Environment:
    """The parts of the environment that the settings name.

    Raises:
        SettingsError: there is no environment of that name.
    """
    build = ENVIRONMENTS.get(settings.environment)
    if build is None:
        raise SettingsError(
            f"SERVERLESS_ENV is {settings.environment!r}, which is not an environment. "
            f"Known: {', '.join(sorted(ENVIRONMENTS))}."
        )
    return build(settings)


def _source(settings: Settings) -> Source:
    if settings.dataset_url:
        return HttpSource(settings.dataset_url)
    return SampleSource(settings.sample_seed, lambda: settings.sample_end or yesterday())


def _first_month(settings: Settings) -> date:
    if settings.first_month or settings.dataset_url:
        return settings.first_month or EARLIEST_MONTH
    # The shop's own first month keeps the partition bar free of months that never were.
    return SampleShop(seed=settings.sample_seed, end=settings.sample_end or yesterday()).start
