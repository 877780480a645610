"""What a run prints at its end: what there is now, what was not done, and what to do next."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from modal_forecast.report.formats import counted
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.publishing.publisher import AS_BEFORE


def summary_text(
    document: Mapping[str, Any],
    raw_tables: Collection[str] = (),
    forecasts: Mapping[str, str] = MappingProxyType({}),
    command: str = "serverless run",
) -> str:
    """Return the summary of `runs/latest.json` as text: what there is now, and what to do next.

    Of a run that is not published it says only what failed, as people read none of it.

    Args:
        raw_tables: the assets that were loaded from the source.
        forecasts: the assets whose rows are days, weeks or months ahead, and which of these.
        command: what was typed to run it, without --resume.
    """
    assets, totals = document["assets"], document["totals"]
    counts = ", ".join(f"{totals[status]} {status}" for status in ("built", "reused", "failed", "skipped"))
    verdict = "Failed"
    if document["success"]:
        verdict = "Succeeded" if document["published"] else "Finished, but not published,"
    refusal = _refusal(assets)
    lines = [f"  failed  all {len(assets)} assets: {refusal}"] if refusal else _not_done(assets)
    warnings = [f"{asset}: {warning}" for asset, outcome in assets.items() for warning in outcome["warnings"]]
    lines += [f"  Warning   {warning}" for warning in warnings[:NAMES_IN_A_LINE]]
    if len(warnings) > NAMES_IN_A_LINE:
        lines.append(f"            and {len(warnings) - NAMES_IN_A_LINE} more: `serverless ui` shows each")
    if document["published"]:
        lines += _published(document, raw_tables, forecasts)
    happened = f"{verdict} in {document['seconds']:.1f} s: {counts}."
    parts = [happened, "\n".join(lines), f"Next: {_next_step(document, refusal, command)}"]
    return "\n\n".join(filter(None, parts))


def _published(
    document: Mapping[str, Any], raw_tables: Collection[str], forecasts: Mapping[str, str]
) -> list[str]:
    """Return what people read now: the rows of tables, how far forecasts look, and where all that is."""
    assets, lines = document["assets"], list[str]()
    loaded = [
        f"{asset} {outcome['rows']:,}"
        for asset, outcome in assets.items()
        if asset in raw_tables and outcome["rows"]
    ]
    if loaded:
        lines.append(f"  Tables    {', '.join(loaded)}")
    horizons = {asset: outcome["rows"] for asset, outcome in assets.items() if asset in forecasts}
    for asset, horizon in horizons.items():
        if horizon:
            of_asset = f" ({asset})" if len(horizons) > 1 else ""
            lines.append(f"  Forecast  {counted(horizon, forecasts[asset])} ahead{of_asset}")
    lines += [f"  Report    {outcome['path']}" for outcome in assets.values() if outcome["path"]]
    if document["warehouse"]:
        lines.append(f"  Warehouse {document['warehouse']}")
    return lines


def stopped_text(
    reason: str,
    seconds: float,
    has_begun: bool,
    has_pending: bool,
    finished: Sequence[str] | None,
    command: str = "serverless run",
    resumes: bool = False,
) -> str:
    """Return the last lines of a run that was stopped: why, what became of its work, and what to do next.

    Args:
        has_begun: whether its first step has begun.
        has_pending: whether assets are left to do, of this run or of an earlier one.
        finished: the assets that it built; None if that is not known.
        command: what was typed to run it, without --resume.
        resumes: whether --resume was typed as well.
    """
    again = f"`{command}{' --resume' if resumes else ''}`"
    if not has_begun:
        return (
            f"Stopped {reason} after {seconds:.1f} s, before the first step. Nothing was changed.\n"
            f"{again} starts it again."
        )
    stopped, unpublished = f"Stopped {reason} after {seconds:.1f} s.", f"Nothing was published. {AS_BEFORE}"
    if finished == []:
        return f"{stopped} {unpublished}\nNothing of it was finished: {again} starts it again."
    names = f" ({name_some(finished, NAMES_IN_A_LINE)})" if finished else ""
    if has_pending:
        kept = f"What it finished is kept{names}: `{command} --resume` continues from there."
        return f"{stopped} {unpublished}\n{kept}"
    # It was stopped while it was being published, or it is of a job that makes no assets.
    return f"{stopped} {again} does what is left to do."


def _not_done(assets: Mapping[str, Any]) -> list[str]:
    """Return what failed, then what was skipped, each reason once."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for asset, outcome in assets.items():
        if outcome["status"] in ("failed", "skipped"):
            by_reason.setdefault((outcome["status"], outcome["reason"]), []).append(asset)
    return [
        f"  {status:<8}{name_some(names, NAMES_IN_A_LINE)}: "
        + reason.removeprefix(f"{status}: ").removeprefix(f"{names[0]}: ")
        for (status, reason), names in sorted(by_reason.items(), key=lambda group: group[0][0])
    ]


def _refusal(assets: Mapping[str, Any]) -> str:
    """Return why no step of a run began; empty if one did."""
    outcomes = {(outcome["status"], outcome["reason"]) for outcome in assets.values()}
    status, reason = outcomes.pop() if len(outcomes) == 1 and len(assets) > 1 else ("", "")
    return reason if status == "failed" else ""


def _next_step(document: Mapping[str, Any], refusal: str, command: str) -> str:
    if refusal:
        return "no step was started. Correct what the message names, then run again."
    if not document["success"]:
        return (
            f"fix what failed, then run `{command} --resume` for only what was not finished, or "
            "`serverless run` for all that changed. `make ui` shows more."
        )
    if not document["published"]:
        return (
            "see above why it was not published. `serverless run --resume` does what is left, and publishes "
            "all of it."
        )
    if not document["report"]:
        return "`make ui` shows the graph, the launchpad and the schedules."
    return "open the report in a browser. `make ui` shows the graph, the launchpad and the schedules."
