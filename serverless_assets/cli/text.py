"""What a run did, as text for a person."""

from collections.abc import Mapping, Sequence
from typing import Any

from serverless_assets import metadata

NAMES_IN_A_LINE = 6


def outcome_line(asset: str, found: Mapping[str, Any]) -> str:
    """One asset in one line: its name, rows, bytes and seconds where they are known, and why."""
    rows, size, seconds = found.get(metadata.ROWS), found.get(metadata.BYTES), found.get(metadata.SECONDS)
    parts = [f"{asset:<24}"]
    parts.append(f"{rows:>10,} rows" if rows is not None else " " * 15)
    parts.append(f"{size_text(size):>9}" if size is not None else " " * 9)
    parts.append(f"{seconds:6.2f} s" if seconds is not None else " " * 8)
    status, reason = found.get(metadata.STATUS), found.get(metadata.REASON)
    parts.append(f" {status}: {reason}" if reason else "")
    return " ".join(parts).rstrip()


def size_text(size: int) -> str:
    """A number of bytes in the unit that reads best."""
    if size < 1024:
        return f"{size} B"
    if size < 1024**2:
        return f"{size / 1024:.1f} KiB"
    return f"{size / 1024**2:.1f} MiB"


def summary_text(document: Mapping[str, Any]) -> str:
    """The summary in `runs/latest.json` for a person: what there is now, and what to do next."""
    assets, totals = document["assets"], document["totals"]
    counts = ", ".join(f"{totals[status]} {status}" for status in ("built", "reused", "failed", "skipped"))
    verdict = "Succeeded" if document["success"] else "Failed"
    lines = [f"{verdict} in {document['seconds']:.1f} s: {counts}.", ""]
    lines += _not_done(assets)
    raw = {asset: outcome for asset, outcome in assets.items() if asset.startswith("raw_")}
    if raw:
        loaded = ", ".join(
            f"{asset} {outcome['rows']:,}" for asset, outcome in raw.items() if outcome["rows"]
        )
        lines.append(f"  Tables    {loaded}")
    horizon = assets.get("order_forecast", {}).get("rows")
    if horizon:
        lines.append(f"  Forecast  {horizon} days ahead")
    if document["report"]:
        lines.append(f"  Report    {document['report']}")
    if document["warehouse"]:
        lines.append(f"  Warehouse {document['warehouse']}")
    lines += ["", f"Next: {_next_step(document)}"]
    return "\n".join(lines)


def stopped_text(reason: str, seconds: float, has_begun: bool, is_unfinished: bool) -> str:
    """The end of a run that was stopped: why, and what to do next. `is_unfinished`: there is work left."""
    if not has_begun:
        return f"Stopped {reason} before the run began."
    following = (
        "What it finished is kept: `serverless run --resume` goes on from there."
        if is_unfinished
        else "`serverless run` begins again."
    )
    return f"Stopped {reason} after {seconds:.1f} s. {following}"


def _not_done(assets: Mapping[str, Any]) -> list[str]:
    """What failed or was skipped, each reason once; one line for all if the run was refused as a whole."""
    if reason := _refusal(assets):
        return [f"  failed  all {len(assets)} assets: {reason}"]
    by_reason: dict[tuple[str, str], list[str]] = {}
    for asset, outcome in assets.items():
        if outcome["status"] in ("failed", "skipped"):
            by_reason.setdefault((outcome["status"], outcome["reason"]), []).append(asset)
    return [f"  {status:<8}{_listed(names)}: {reason}" for (status, reason), names in by_reason.items()]


def _listed(names: Sequence[str]) -> str:
    """The names; of many, the first ones and how many more there are."""
    if len(names) <= NAMES_IN_A_LINE:
        return ", ".join(names)
    return f"{', '.join(names[:NAMES_IN_A_LINE])} and {len(names) - NAMES_IN_A_LINE} more"


def _refusal(assets: Mapping[str, Any]) -> str:
    """Why nothing of a run was begun; empty if something was."""
    told = {(outcome["status"], outcome["reason"]) for outcome in assets.values()}
    status, reason = told.pop() if len(told) == 1 and len(assets) > 1 else ("", "")
    return reason if status == "failed" else ""


def _next_step(document: Mapping[str, Any]) -> str:
    if _refusal(document["assets"]):
        return "nothing was begun: do as it says, then run again."
    if not document["success"]:
        return "mend what failed, then `serverless run --resume` goes on from there; `make ui` shows more."
    if not document["report"]:
        return "type `make ui` for the graph, the launchpad and the schedules."
    return "open the report in a browser, or type `make ui` for the graph, the launchpad and the schedules."
