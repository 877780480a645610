"""What a plan says of an asset, what it is limited to, and the plan as text."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from modal_forecast.report.formats import counted
from serverless_assets.months import Window
from serverless_assets.names import NAMES_IN_A_LINE, name_some

# `depends`: built again if the rows that it reads change in the run. `admit` and `refuse`: by the budget.
Verdict = Literal[
    "load", "build", "test", "compute", "forecast", "score", "write", "depends", "reuse", "keep", "drop",
    "skip", "fail", "admit", "refuse",
]  # fmt: skip

# What the summary of a plan counts.
SUMMARY: Mapping[Verdict, str] = {
    **dict.fromkeys(("load", "build", "compute", "forecast", "score", "write"), "to build"),
    **dict.fromkeys(("reuse", "keep"), "to reuse"),
    "depends": "to build if rows differ",
    "test": "to test",
    "drop": "to drop",
    "skip": "to skip",
    "fail": "would fail",
}


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


def depends_on(asset: str, upstream: Iterable[str], verdict: Verdict, reason: str | None) -> Planned:
    """Return what would become of an asset that reads these, which a run builds before it.

    reason: why it is made anew whatever rows they have then; None if that depends on them.
    """
    if reason:
        return Planned(asset, verdict, reason)
    return Planned(
        asset, "depends", f"its upstream {', '.join(upstream)} will be built; built again if rows differ"
    )


def plan_summary(plan: Sequence[Planned], pending: Collection[str]) -> str:
    """Return how many assets would be built, reused and so on; the verdict of the budget is left out.

    pending: the assets that earlier runs were to make, and without which no run is published.
    """
    counts = Counter(SUMMARY[planned.verdict] for planned in plan if planned.verdict in SUMMARY)
    summary = ", ".join(f"{counts[text]} {text}" for text in dict.fromkeys(SUMMARY.values()) if counts[text])
    if not pending:
        return summary
    left_out = set(pending) - {planned.asset for planned in plan}
    # Of a run that was killed it is not known which of them are finished.
    unpublished = f"{summary}\nWork of an earlier run is not published yet."
    if not left_out:
        return f"{unpublished} This run does the rest, and publishes all of it."
    names = name_some(sorted(left_out), NAMES_IN_A_LINE)
    return (
        f"{unpublished} This run leaves out {names}, so nothing would be published. "
        "`serverless run --resume` does what is left, and publishes all of it."
    )


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
