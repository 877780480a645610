"""The interface of a publisher: where a run writes to, and what becomes of that at its end."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from modal_forecast.report.formats import counted
from serverless_assets.artifacts import Artifacts
from serverless_assets.asset_keys import asset_key
from serverless_assets.errors import UserError
from serverless_assets.files import remove_leftovers, remove_scratch_folders
from serverless_assets.names import NAMES_IN_A_LINE, NAMES_OF_FAILED, PIPELINE_RUNS, name_some
from serverless_assets.publishing.layout import Layout, prepare_work_folder
from serverless_assets.publishing.outcome import STOPPED_BY_HAND, AssetOutcome, PendingAssets, RunEvents
from serverless_assets.publishing.releases import Release, find_release
from serverless_assets.publishing.run_lock import RunLock, end_dead_runs
from serverless_assets.warehouse import TableShape, Warehouse

AS_BEFORE = "What was published before stays as it is."


class PartlyPublished(UserError):
    """Some of what a run changed is what people read, and the rest is not; the message says what."""


@dataclass(frozen=True)
class Storage:
    """A warehouse for tables, and the store for files beside it."""

    warehouse: Warehouse
    artifacts: Artifacts


class Publisher(ABC):
    """Where a run writes to. Every asset asks for it, so that it wraps the whole run."""

    def __init__(self, home: Path, warehouse: Warehouse, artifacts: Artifacts) -> None:
        """`home` is SERVERLESS_HOME; a run reads and writes `warehouse` and `artifacts`."""
        self.home = home
        self.warehouse = warehouse
        self.artifacts = artifacts
        # The tables that runs can write, which are named by the last part of an asset's name.
        self.writable_tables: Set[str] = frozenset()
        # Whether earlier runs left something unpublished in the place that runs write to.
        self._has_unpublished = True
        self._lock: RunLock | None = None
        self._events: RunEvents | None = None
        # What steps yield their events from: Dagster does not close the generator of a step that it
        # interrupts between two events.
        self.interrupted_steps = ExitStack()

    def watch(self, events: RunEvents) -> None:
        """Tell `outcomes` from the events of the run that this wraps."""
        self._events = events

    def outcomes(self) -> Sequence[AssetOutcome]:
        """What has become by now of each asset of the run that this wraps."""
        return self._events.outcomes() if self._events else ()

    @property
    @abstractmethod
    def published(self) -> Storage:
        """What people read now. Reading it neither keeps a run pending nor waits for one."""

    @property
    @abstractmethod
    def address(self) -> str | None:
        """Where people read the tables; None before there is anything to read."""

    def check(self) -> str:
        """Say what there is of the warehouse, or raise a `UserError` that says why it cannot be used."""
        return self.warehouse.check()

    @property
    def pending_assets(self) -> PendingAssets:
        """What runs have not finished."""
        return PendingAssets(self.home)

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Storage]:
        """A place to try things out in with the tables that people read, gone afterwards whatever happens.

        Its artifacts are those that people read. Nothing that is done in its warehouse changes the published
        tables, or keeps anybody from them.
        """

    @abstractmethod
    def prepare(self, run_id: str, log: dg.DagsterLogManager) -> None:
        """Make ready what a run writes to, which no other run does meanwhile.

        Raises:
            UserError: the run cannot be given a place to write to.
        """

    @abstractmethod
    def publish(self, run_id: str, log: dg.DagsterLogManager) -> None:
        """Let people read what runs have written: all of it is sound."""

    @abstractmethod
    def look_ahead(self) -> str | None:
        """Read what the next run starts from, to plan it, and say what that is unless runs built it last.

        Nothing is changed, and nothing is to be written afterwards.
        """

    @abstractmethod
    def has_unpublished(self) -> bool:
        """Whether people would read something else if what earlier runs have written was published; True if
        that is not known. Nothing is changed."""

    def pending_before_publish(self) -> set[str]:
        """The assets without which the next run is not published; none where earlier runs left nothing."""
        pending = self.pending_assets.read()
        return pending if pending and self.has_unpublished() else set()

    @abstractmethod
    def releases(self) -> Sequence[Release]:
        """What people could read, the newest first, which is what they read now."""

    @abstractmethod
    def restore(self, release: Release, log: logging.Logger) -> None:
        """Publish a release again, and let the next run continue from it. Call it where the lock is held."""

    def rollback(self, run: str | None, instance: dg.DagsterInstance, log: logging.Logger) -> Release:
        """Return to an earlier release, that of the run whose id begins with `run`, and record that.

        Raises:
            UserError: there is no such release, or a run is at work.
        """
        find_release(self.releases(), run, has_unpublished=True)
        try:
            self.take_lock("rollback", log, wait=False)
            releases = self.releases()
            has_unpublished = self.has_unpublished()
            release = find_release(releases, run, has_unpublished)
            self.restore(release, log)
            dead_runs = end_dead_runs(self.home, instance, is_dropped=True)
        finally:
            self.close()
        description = f"Rolled back from {releases[0]}, to {release}."
        if has_unpublished and not dead_runs:
            description += " What was not published is dropped."
        if release.run_id == releases[0].run_id:
            description = f"Discarded what was not published. People read {release}."
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key(PIPELINE_RUNS), description=description, metadata={"run": release.run_id}
            )
        )
        for sentence in [description, *dead_runs]:
            log.info(sentence)
        return release

    def open(self, run_id: str, log: dg.DagsterLogManager) -> None:
        """Wait until no other run is at work, and make ready for this one."""
        self.take_lock(run_id, log)
        self.prepare(run_id, log)

    def take_lock(self, run_id: str, log: logging.Logger, wait: bool = True) -> None:
        """Wait until no other run is at work; or, if this is not to `wait`, raise `AtWork` if one is."""
        layout = Layout(self.home)
        prepare_work_folder(layout)
        self._lock = RunLock(layout.work, run_id, log, wait)

    def irreplaceable(self) -> Mapping[str, str]:
        """A sentence on each relation that people read and that no run replaces, by name."""
        return {}

    def layout_changes(
        self, models: Iterable[Mapping[str, Any]], raw_tables: Iterable[TableShape]
    ) -> Mapping[str, str]:
        """In a clause, by name, what changes of a published relation beside its rows.

        `models` are their entries in the manifest.
        """
        return {}

    @abstractmethod
    def check_turn(self) -> None:
        """Raise a `UserError` if another run has taken this one's turn.

        The run's warehouse and artifacts do so before they write. Call it where another process writes.
        """

    def close(self) -> None:
        """Let the next run in."""
        remove_scratch_folders()
        if self._lock:
            self._lock.release()

    @property
    def scratch_places(self) -> Mapping[str, Callable[[], None]]:
        """What it holds outside of `home` for a branch alone: the name of each place, and what removes it
        with all that is in it, or raises a `UserError`."""
        return {self.artifacts.name: self.artifacts.clear} if self.artifacts.is_scratch else {}

    def begin(
        self, run_id: str, planned: Sequence[str], writable_assets: Collection[str], log: dg.DagsterLogManager
    ) -> None:
        """Make ready for a run that means to write the `planned` assets.

        Of the assets that earlier runs did not finish, those that are not among the `writable_assets` are
        dropped: no run can finish them any more.
        """
        self.writable_tables = {asset.rpartition("/")[2] for asset in writable_assets}
        self.open(run_id, log)
        remove_leftovers(self.home)
        pending = self.pending_assets.read() & set(writable_assets)
        self._has_unpublished = bool(pending - set(planned)) and self.has_unpublished()
        self.pending_assets.replace(pending | set(planned))

    def end(self, run_id: str, outcomes: Sequence[AssetOutcome], log: dg.DagsterLogManager) -> bool:
        """Publish what runs wrote if all of it is sound, and say whether it is what people now read.

        What an earlier run did not finish keeps this one from being published if that left something: then it
        would be half of a run that people read.
        """
        settled = {outcome.asset for outcome in outcomes if outcome.is_settled}
        self.pending_assets.replace(self.pending_assets.read() - settled)
        if self._blocking(outcomes):
            log.warning(self.pending_sentence(outcomes))
            return False
        self.publish(run_id, log)
        return True

    def _blocking(self, outcomes: Sequence[AssetOutcome]) -> set[str]:
        """Return the pending assets that keep a run with these outcomes from being published."""
        pending = self.pending_assets.read()
        return pending if self._has_unpublished else pending & {outcome.asset for outcome in outcomes}

    def pending_sentence(self, outcomes: Sequence[AssetOutcome]) -> str:
        """Say which pending assets keep a run with these outcomes from being published, and what to do."""
        pending = self._blocking(outcomes)
        resume = "`serverless run --resume` does what is left, and publishes all of it."
        own = [outcome for outcome in outcomes if outcome.asset in pending]
        if not own:
            names = name_some(sorted(pending), NAMES_IN_A_LINE)
            return f"Not published: an earlier run did not finish {names}. {AS_BEFORE} {resume}"
        if any(outcome.reason == STOPPED_BY_HAND for outcome in own):
            return f"The run was stopped, and nothing was published. {AS_BEFORE} {resume}"
        named = sorted(outcome.asset for outcome in own if outcome.status == "failed") or sorted(pending)
        others = len(pending) - len(named)
        more = f", and {counted(others, 'more asset')} {'is' if others == 1 else 'are'} not finished"
        return (
            f"Not published: {name_some(named, NAMES_OF_FAILED)} did not succeed{more if others else ''}. "
            f"{AS_BEFORE} What this run finished is kept: once the cause is corrected, {resume}"
        )
