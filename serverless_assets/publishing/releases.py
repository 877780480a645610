"""Releases: what each run has published, and the way back to one that is kept."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from serverless_assets.errors import UserError
from serverless_assets.names import name_some
from serverless_assets.run_inputs import RECORD_INFIX

RELEASES_KEPT = 3
NAMES_LISTED = 4
RECORDS = "no rows changed, only the record of what they were built from"


class ReleaseError(UserError):
    """There is no such release to return to; the message says which there are."""


@dataclass(frozen=True)
class Release:
    """What people could read since `published_at`: the work of a run, or of an earlier one after a rollback.

    Args:
        name: the publisher's own name for it.
        run_id: the run that made it.
        changed: the relations whose rows differ from the release before, those that were `dropped()`, and the
            files that differ.
        is_rollback: whether it was an earlier release that somebody returned to.
        is_kept: whether it can be returned to.
    """

    name: str
    run_id: str
    published_at: datetime
    changed: Sequence[str] = ()
    is_rollback: bool = False
    is_kept: bool = True

    @property
    def read_by_people(self) -> Sequence[str]:
        """What changed of what people read: neither dbt's files nor the records of forecasts, which change
        with everything else."""
        return sorted(
            name for name in self.changed if not name.startswith("dbt-") and RECORD_INFIX not in name
        )

    @property
    def counts(self) -> bool:
        """Whether people read something else since it than before, so that it is one to return to."""
        return bool(self.read_by_people)

    def __str__(self) -> str:
        return f"the release of run {self.run_id[:8]}, published {self.published_at:%Y-%m-%d %H:%M:%S} UTC"


def dropped(relation: str) -> str:
    """Return how a release names a relation that it does not have any more."""
    return f"{relation} (dropped)"


def names_to_keep(releases: Sequence[Release], keep: int) -> Set[str]:
    """The names of the releases that stay, of all that there are, the newest first.

    These are the newest `keep` of those that count, and the newest `keep` of all, as readers may have one of
    them open. One that was returned to and the release that it returns to are one.
    """
    kept: set[str] = set()
    for candidates in (releases, [release for release in releases if release.counts]):
        kept |= {*list(dict.fromkeys(release.run_id for release in candidates))[:keep]}
    return {release.name for release in releases if release.run_id in kept}


def find_release(releases: Sequence[Release], run: str | None, has_unpublished: bool = False) -> Release:
    """The release to return to.

    Args:
        releases: the newest first, which is the one that people read now.
        run: the id of its run, or the beginning of that. By default it is the newest one that counts of those
            in which people read something else than now; where what they read now was itself returned to, of
            those before its first publish.
        has_unpublished: whether runs have written what is not published, which a return to what people read
            now discards.

    Raises:
        ReleaseError: there is none, it is kept no longer, or there is nothing to return from.
    """
    if not releases:
        raise ReleaseError("Nothing was published yet, so there is no release to return to.")
    now = releases[0]
    if run is None:
        others = [release for release in releases[_since(releases) + 1 :] if release.counts]
    else:
        others = [release for release in releases if release.run_id.startswith(run)]
        if len({release.run_id for release in others}) > 1:
            raise ReleaseError(f"The ids of several runs begin with {run!r}. Give more of the id.")
    kept = [release for release in others if release.is_kept]
    if kept and (has_unpublished or kept[0].run_id != now.run_id):
        return kept[0]
    ways = sorted({release.run_id[:8] for release in releases if release.is_kept} - {now.run_id[:8]})
    ways_back = (
        f"You can return to that of {'run' if len(ways) == 1 else 'one of these runs:'} {', '.join(ways)}."
        if ways
        else "The release that people read now is the only one."
    )
    if run is None:
        raise ReleaseError(f"No release that is kept is older than what people read now. {ways_back}")
    if kept:
        raise ReleaseError(f"The release of run {now.run_id[:8]} is what people read now. {ways_back}")
    if others:
        raise ReleaseError(f"The release of run {others[0].run_id[:8]} is no longer kept. {ways_back}")
    raise ReleaseError(f"No release of a run {run!r} is kept. {ways_back}")


def _since(releases: Sequence[Release]) -> int:
    """The place of the release since which people read what they read now, at its first publish."""

    def counting(start: int) -> int:
        places = range(start, len(releases))
        return next((place for place in places if releases[place].counts), len(releases) - 1)

    run_id = releases[counting(0)].run_id
    return counting(max(place for place, release in enumerate(releases) if release.run_id == run_id))


def as_lines(releases: Sequence[Release]) -> Iterator[str]:
    """A line for each release, the newest first, for a terminal."""
    yield f"{'published (UTC)':<21}{'run':<10}{'':<10}what changed"
    for at, release in enumerate(releases):
        state = "read now" if at == 0 else "" if release.is_kept else "not kept"
        changed = name_some(release.read_by_people, NAMES_LISTED) or RECORDS
        if release.is_rollback:
            changed = f"rollback: {changed}"
        yield (
            f"{release.published_at:%Y-%m-%d %H:%M:%S}  {release.run_id[:8]:<10}{state:<10}{changed}"
        ).rstrip()
