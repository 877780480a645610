"""People are told once when the source does not answer, and once when it does again."""

from dataclasses import dataclass

from serverless_assets.automation.alerts import Alerts, duration_in_words
from serverless_assets.automation.webhook import AlertError


@dataclass(frozen=True)
class Outage:
    """Since when the source does not answer (Unix time; None: it does), and whether people know."""

    since: float | None = None
    told: bool = False


def down(outage: Outage, name: str, error: str, alerts: Alerts) -> tuple[Outage, str]:
    """Tell people once; again at the next tick if that failed."""
    since = alerts.now().timestamp() if outage.since is None else outage.since
    if outage.told:
        return outage, "People know of it."
    sentence = (
        f"{name} cannot be asked for what changed. {error} No change is lost: it is asked every minute."
    )
    try:
        alerts.tell("source_down", "The source does not answer", sentence)
    except AlertError as failure:
        return Outage(since), str(failure)
    return Outage(since, told=True), "People were told."


def back(outage: Outage, name: str, alerts: Alerts) -> tuple[Outage, str]:
    """Tell people who were told that it was gone."""
    if outage.since is None or not outage.told:
        return Outage(), ""
    lasted = duration_in_words(alerts.now().timestamp() - outage.since)
    try:
        alerts.tell("source_back", "The source answers again", f"{name} answers again, after {lasted}.")
    except AlertError as failure:
        return outage, str(failure)
    return Outage(), f"The source answers again, after {lasted}: people were told."
