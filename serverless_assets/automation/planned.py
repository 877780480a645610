"""What a plan says of an asset, what it is limited to, and the plan as text."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from modal_forecast.report.formats import counted
from serverless_assets.months import Window
from serverless_assets.names import NAMES_IN_A_LINE, name_some

# `depends`: made anew if the rows that it reads change in the run. `admit` and `refuse`: by the budget.
Verdict = Literal[
    "load", "build", "test", "compute", "forecast", "score", "write", "depends", "reuse", "keep", "drop",
    "skip", "fail", "admit", "refuse",
]  # fmt: skip


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


def unless_reused(
    asset: str, verdict: Verdict, reason: str | None, unchanged: str, rows: int | None = None
) -> Planned:
    """Return what would become of an asset that is made anew if there is a reason to."""
    return Planned(asset, verdict if reason else "reuse", reason or unchanged, rows)


def upstream_rebuilt(assets: Iterable[str], then: str = "") -> str:
    """Return the reason of an asset that reads these, which a run makes anew, and what follows for it."""
    return f"upstream rebuilt ({', '.join(assets)})" + (f": {then}" if then else "")


def plan_lines(plan: Sequence[Planned]) -> Iterator[str]:
    """The plan as a table of text: a heading, and a line for each asset.

    Assets that are skipped for the same reason share a line at the end.
    """
    skipped: dict[str, list[str]] = {}
    for planned in plan:
        if planned.verdict == "skip":
            skipped.setdefault(planned.reason, []).append(planned.asset)
    width = max([22, *(len(planned.asset) for planned in plan)]) + 2
    yield f"{'asset':<{width}}{'what':<16}{'rows':>12}  why"
    for planned in plan:
        if len(skipped.get(planned.reason, ())) > 1 and planned.verdict == "skip":
            continue
        rows = "" if planned.rows is None else f"{planned.rows:,}"
        yield f"{planned.asset:<{width}}{planned.text:<16}{rows:>12}  {planned.reason}"
    for reason, assets in skipped.items():
        if len(assets) > 1:
            yield f"\nskip {name_some(assets, NAMES_IN_A_LINE)}: {reason}"
