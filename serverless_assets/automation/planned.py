"""What a plan is made from, what it is limited to, and what it says of an asset."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from modal_forecast.report.formats import counted
from serverless_assets.budget import BudgetGuard
from serverless_assets.forecasting.compute import Compute
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import Source
from serverless_assets.months import Window
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.python_assets.reuse import FrameAsset
from serverless_assets.transformation.project import Project

# `depends`: made anew if what it reads changes in the run. `admit` and `refuse` are of the budget.
Verdict = Literal[
    "load", "build", "test", "compute", "forecast", "score", "write", "depends", "reuse", "keep", "drop",
    "skip", "fail", "admit", "refuse",
]  # fmt: skip


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
    """What would become of one asset.

    rows: how many it has now, or would be loaded; None if unknown. months: how many of them would be built;
    None if it is not built by month.
    """

    asset: str
    verdict: Verdict
    reason: str
    rows: int | None = None
    months: int | None = None

    @property
    def text(self) -> str:
        """The verdict for people, with the months."""
        return self.verdict if self.months is None else f"{self.verdict}, {counted(self.months, 'month')}"


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


def upstream_rebuilt(assets: Iterable[str], then: str = "") -> str:
    """Return the reason of an asset that reads these, which a run makes anew, and what follows for it."""
    return f"upstream rebuilt ({', '.join(assets)})" + (f": {then}" if then else "")
