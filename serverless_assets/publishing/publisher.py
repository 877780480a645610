"""The resource that wraps every run: where it writes to, and what becomes of that at its end."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from modal_forecast.report.formats import counted
from serverless_assets.artifacts import Artifacts
from serverless_assets.asset_keys import asset_key
from serverless_assets.errors import UserError, error_sentence
from serverless_assets.failures import RunFailure
from serverless_assets.files import remove_leftovers, remove_scratch_folders, write_atomically
from serverless_assets.names import NAMES_IN_A_LINE, NAMES_OF_FAILED, PIPELINE_RUNS, REFUSED_TAG, name_some
from serverless_assets.publishing.layout import Layout, prepare_work_folder
from serverless_assets.publishing.outcome import NOT_REACHED, AssetOutcome, RunEvents
from serverless_assets.publishing.releases import Release, find_release
from serverless_assets.publishing.run_lock import RunLock, registered
from serverless_assets.publishing.summary import record_of, summarise, write_summary
from serverless_assets.run_inputs import ChoiceError, RunInputs
from serverless_assets.stopping import bounded_stop
from serverless_assets.warehouse import TableShape, Warehouse

AS_BEFORE = "What was published before stays as it is."


@dataclass(frozen=True)
class PendingAssets:
    """The assets that a run set out to write and that have not succeeded since.

    Kept in a file below `home`, so that what a killed run left behind is not published by the next
    one, even if that writes something else altogether. `shared` is where they are kept, too, if runs of
    several machines write to one place: what it says counts.
    """

    home: Path
    shared: Artifacts | None = None

    @property
    def path(self) -> Path:
        return self.home / "work" / "unsettled.json"

    def is_readable(self) -> bool:
        """Whether it is known which assets are pending."""
        return self._read() is not None

    def read(self) -> set[str]:
        """The pending assets; none if that is not known."""
        return self._read() or set()

    def replace(self, assets: Iterable[str]) -> None:
        """Keep these assets, in the place of those that were pending."""
        content = json.dumps(sorted(set(assets))).encode()
        if self.shared:
            self.shared.write(self.path.name, content)
        write_atomically(self.path, content)

    def _read(self) -> set[str] | None:
        try:
            content = self.shared.read(self.path.name) if self.shared else None
            assets = json.loads(content or self.path.read_text())
        except (OSError, ValueError):
            return None
        is_valid = isinstance(assets, list) and all(isinstance(asset, str) for asset in assets)
        return set(assets) if is_valid else None


class PartlyPublished(UserError):
    """Some of what a run changed is what people read, and the rest is not; the message says what."""


# Raises a `UserError` if a run that means to write these assets, with these run inputs, may not begin.
Admit = Callable[[Sequence[str], RunInputs, Callable[[str], None]], None]


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
        # The names of all assets that runs can write.
        self.existing: Collection[str] = ()
        self._lock: RunLock | None = None
        self._events: RunEvents | None = None

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
        find_release(self.releases(), run)
        try:
            self.take_lock("rollback", log, wait=False)
            releases = self.releases()
            release = find_release(releases, run)
            self.restore(release, log)
        finally:
            self.close()
        description = f"Rolled back from {releases[0]}, to {release}."
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key(PIPELINE_RUNS), description=description, metadata={"run": release.run_id}
            )
        )
        log.info(description)
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
        self, run_id: str, planned: Sequence[str], existing: Collection[str], log: dg.DagsterLogManager
    ) -> None:
        """Make ready for a run that means to write the `planned` assets.

        Of the assets that earlier runs did not finish, those that are not among the `existing` ones are
        dropped: no run can finish them any more.
        """
        self.existing = {asset.rpartition("/")[2] for asset in existing}
        self.open(run_id, log)
        remove_leftovers(self.home)
        self.pending_assets.replace((self.pending_assets.read() & set(existing)) | set(planned))

    def end(self, run_id: str, outcomes: Sequence[AssetOutcome], log: dg.DagsterLogManager) -> bool:
        """Publish what runs wrote if all of it is sound, and say whether it is what people now read."""
        pending = self.pending_assets.read() - {outcome.asset for outcome in outcomes if outcome.is_settled}
        self.pending_assets.replace(pending)
        if pending:
            log.warning(
                f"Not published: {_pending_text(pending, outcomes)}. {AS_BEFORE} "
                "The next run continues from what this one finished."
            )
            return False
        self.publish(run_id, log)
        return True

    def as_resource(self, admit: Admit, existing: Collection[str], runs_kept: int) -> dg.ResourceDefinition:
        """The release for Dagster, with no config: the launchpad should not offer where to publish.

        With one process per run, Dagster opens it before the first step and closes it after the last,
        whatever was launched: a job, one asset from the graph, a schedule.

        `existing` are the names of all assets that runs can write; `runs_kept` is how many runs the history
        keeps at least.
        """

        @contextmanager
        def around(context: dg.InitResourceContext) -> Iterator[Publisher]:
            if context.run is None or context.instance is None or context.log is None:
                raise ValueError("a publisher belongs to a run")
            run, instance, log = context.run, context.instance, context.log
            run_inputs = context.resources.run_inputs
            self._events = RunEvents(instance, run.run_id)
            forced = (
                "The run was stopped, and its process ended: it waited for something that did not answer."
            )
            with bounded_stop(lambda _: instance.report_run_canceled(run, forced)), ExitStack() as stack:
                stack.callback(self.close)
                self._begin_or_refuse(
                    run,
                    instance,
                    log,
                    lambda planned: admit(planned, run_inputs.checked(), log.info),
                    existing,
                    stack,
                )
                yield self
                outcomes = self.outcomes()
                try:
                    published = self.end(run.run_id, outcomes, log)
                except PartlyPublished as error:
                    published = False
                    log.error(
                        f"Not published as a whole: {error} The next successful run publishes the rest."
                    )
                except Exception as error:
                    published = False
                    # Dagster would record this as a failed teardown, which neither the UI nor the exit code
                    # shows.
                    log.error(
                        f"Not published: {error_sentence(error)} {AS_BEFORE} "
                        "The next successful run publishes this work."
                    )
                self._summarise(instance, run.run_id, outcomes, published, log)
            _prune(instance, runs_kept, log)

        return dg.ResourceDefinition(around, description=self.__doc__, required_resource_keys={"run_inputs"})

    def _begin_or_refuse(
        self,
        run: dg.DagsterRun,
        instance: dg.DagsterInstance,
        log: dg.DagsterLogManager,
        admit: Callable[[Sequence[str]], None],
        existing: Collection[str],
        stack: ExitStack,
    ) -> None:
        """Begin the run; or say in its summary and its failure why it cannot begin."""
        planned = [outcome.asset for outcome in self.outcomes()]
        try:
            stack.enter_context(registered(self.home, run.run_id))
            admit(planned)
            self.begin(run.run_id, planned, existing, log)
        except dg.DagsterExecutionInterruptedError:
            stopped = [AssetOutcome(asset, "skipped", NOT_REACHED) for asset in planned]
            self._summarise(instance, run.run_id, stopped, False, log)
            # Dagster takes what ends outside of a step for a failure.
            instance.report_run_canceled(run, "The run was stopped before its first step.")
            raise
        except Exception as error:
            if isinstance(error, ChoiceError):
                # Whoever chose it sees it at once: no alert is sent about it.
                instance.add_run_tags(run.run_id, {REFUSED_TAG: "run config"})
            is_expected = isinstance(error, UserError | dg.Failure)
            sentence = str(error) if is_expected else error_sentence(error)
            refused = [AssetOutcome(asset, "failed", sentence) for asset in planned]
            self._summarise(instance, run.run_id, refused, False, log)
            # Dagster keeps the traceback of an error that nobody expected.
            raise RunFailure(sentence, cause=None if is_expected else error) from None

    def _summarise(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        outcomes: Sequence[AssetOutcome],
        published: bool,
        log: dg.DagsterLogManager,
    ) -> None:
        """Say what the run did, to programs and in the UI."""
        try:
            summary = summarise(instance, run_id, outcomes, self.address, published)
            instance.report_runless_asset_event(record_of(summary))
            write_summary(self.home, summary)
        except Exception as error:
            # A summary that cannot be written hides neither what the run did nor why it failed.
            log.error(f"The run's summary, runs/latest.json, was not written: {error_sentence(error)}")


def _prune(instance: dg.DagsterInstance, runs_kept: int, log: dg.DagsterLogManager) -> None:
    # It brings SQLAlchemy, which takes long to import, and which a run has and `plan` has not.
    from serverless_assets.publishing.run_history import prune_runs

    try:
        pruned = prune_runs(instance, runs_kept)
    except Exception as error:
        # The run is none the worse for it, and the next one tries again.
        log.warning(f"Old runs were not deleted from Dagster's history: {error_sentence(error)}")
    else:
        if pruned:
            log.info(f"Deleted {pruned} old runs from Dagster's history (SERVERLESS_KEEP_RUNS).")


def _pending_text(pending: Collection[str], outcomes: Sequence[AssetOutcome]) -> str:
    """Say which assets keep a run from being published: those that failed in it, those that it did not reach,
    or those that an earlier run left unfinished."""
    own = [outcome for outcome in outcomes if outcome.asset in pending]
    if not own:
        return f"an earlier run did not finish {name_some(sorted(pending), NAMES_IN_A_LINE)}"
    named = sorted(outcome.asset for outcome in own if outcome.status == "failed") or sorted(pending)
    others = len(pending) - len(named)
    return f"{name_some(named, NAMES_OF_FAILED)} did not succeed" + (
        f", and {counted(others, 'more asset')} {'is' if others == 1 else 'are'} not finished"
        if others
        else ""
    )
