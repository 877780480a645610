"""What a plan is made from, what it is limited to, and what it says of an asset."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serverless_assets.budget import BudgetGuard
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.ingestion.raw_table import RawTable, Window
from serverless_assets.ingestion.source import Source
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.python_assets.reuse import FrameAsset
from serverless_assets.transformation.project import Project


class PlannedEnvironment(Protocol):
    """The parts of an environment that a plan uses."""

    @property
    def source(self) -> Source: ...
    @property
    def publisher(self) -> Publisher: ...
    @property
    def compute(self) -> Compute: ...
    @property
    def project(self) -> Project: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...
    @property
    def raw_tables(self) -> Sequence[RawTable]: ...
    @property
    def absent_tables(self) -> Collection[str]: ...
    @property
    def forecasts(self) -> Sequence[ForecastDeclaration]: ...
    @property
    def python_assets(self) -> Sequence[FrameAsset]: ...
    @property
    def budget_guard(self) -> BudgetGuard: ...
    @property
    def timezone(self) -> str: ...


@dataclass(frozen=True)
class Planned:
    """What would become of one asset. `rows` is how many it has now, or would be loaded; None if unknown."""

    asset: str
    verdict: str
    reason: str
    rows: int | None = None


@dataclass(frozen=True)
class Selection:
    """What a run is for: the names of its assets, and the months to load; None means all."""

    assets: Collection[str] | None = None
    window: Window | None = None

    def __contains__(self, asset: str) -> bool:
        return self.assets is None or asset in self.assets

    @property
    def months(self) -> Sequence[str] | None:
        return [month.isoformat() for month in self.window.months()] if self.window else None


EVERYTHING = Selection()
