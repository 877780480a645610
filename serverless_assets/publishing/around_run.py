"""The publisher around a run, as the resource that its steps ask for: what happens before the first step, and
after the last."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import dagster as dg

from serverless_assets.errors import UserError, error_sentence
from serverless_assets.failures import RunFailure
from serverless_assets.names import REFUSED_TAG
from serverless_assets.publishing.outcome import NOT_REACHED, AssetOutcome, RunEvents
from serverless_assets.publishing.publisher import AS_BEFORE, PartlyPublished, Publisher
from serverless_assets.publishing.run_lock import registered
from serverless_assets.publishing.summary import record_of, summarise, write_summary
from serverless_assets.run_inputs import ChoiceError, RunInputs
from serverless_assets.stopping import bounded_stop

# Raises a `UserError` if a run that means to write these assets, with these run inputs, may not begin.
Admit = Callable[[Sequence[str], RunInputs, Callable[[str], None]], None]


def around_run(
    publisher: Publisher, admit: Admit, writable_assets: Collection[str], runs_kept: int
) -> dg.ResourceDefinition:
    """Return the publisher as a resource without config: the launchpad should not offer where to publish.

    With one process per run, Dagster opens it before the first step and closes it after the last, whatever
    was launched: a job, one asset from the graph, a schedule.

    Args:
        writable_assets: the names of all assets that runs can write.
        runs_kept: how many runs Dagster's history keeps at least.
    """

    @contextmanager
    def around(context: dg.InitResourceContext) -> Iterator[Publisher]:
        if context.run is None or context.instance is None or context.log is None:
            raise ValueError("a publisher belongs to a run")
        run, instance, log = context.run, context.instance, context.log
        run_inputs = context.resources.run_inputs
        events = RunEvents(instance, run.run_id)
        publisher.watch(events)
        forced = "The run was stopped. Its process was ended, as it waited for something that did not answer."
        with bounded_stop(lambda _: instance.report_run_canceled(run, forced)), ExitStack() as stack:
            stack.callback(publisher.close)
            _begin_or_refuse(
                publisher,
                run,
                instance,
                log,
                lambda planned: admit(planned, run_inputs.checked(), log.info),
                writable_assets,
                stack,
            )
            yield publisher
            try:
                publisher.interrupted_steps.close()
            except Exception as error:
                log.error(f"The interrupted step could not clean up: {error_sentence(error)}")
            outcomes = publisher.outcomes()
            try:
                published = publisher.end(run.run_id, outcomes, log)
                sentence = "" if published else publisher.pending_sentence(outcomes)
            except PartlyPublished as error:
                published = False
                sentence = f"Not published as a whole: {error} The next successful run publishes the rest."
                log.error(sentence)
            except Exception as error:
                published = False
                sentence = (
                    f"Not published: {error_sentence(error)} {AS_BEFORE} "
                    "The next successful run publishes this work."
                )
                log.error(sentence)
            _summarise(publisher, instance, run.run_id, outcomes, published, log)
        _prune(instance, runs_kept, log)
        if not published and events.all_steps_succeeded():
            # Any other error would be recorded as a failed teardown, and the run as a success.
            raise RunFailure(sentence)

    return dg.ResourceDefinition(around, description=publisher.__doc__, required_resource_keys={"run_inputs"})


def _begin_or_refuse(
    publisher: Publisher,
    run: dg.DagsterRun,
    instance: dg.DagsterInstance,
    log: dg.DagsterLogManager,
    admit: Callable[[Sequence[str]], None],
    writable_assets: Collection[str],
    stack: ExitStack,
) -> None:
    """Begin the run; or say in its summary and its failure why it cannot begin."""
    planned = [outcome.asset for outcome in publisher.outcomes()]
    try:
        stack.enter_context(registered(publisher.home, run.run_id))
        admit(planned)
        publisher.begin(run.run_id, planned, writable_assets, log)
    except dg.DagsterExecutionInterruptedError:
        stopped = [AssetOutcome(asset, "skipped", NOT_REACHED) for asset in planned]
        _summarise(publisher, instance, run.run_id, stopped, False, log)
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
        _summarise(publisher, instance, run.run_id, refused, False, log)
        # Dagster keeps the traceback of an error that nobody expected.
        raise RunFailure(sentence, cause=None if is_expected else error) from None


def _summarise(
    publisher: Publisher,
    instance: dg.DagsterInstance,
    run_id: str,
    outcomes: Sequence[AssetOutcome],
    published: bool,
    log: dg.DagsterLogManager,
) -> None:
    """Say what the run did, to programs and in the UI."""
    try:
        summary = summarise(instance, run_id, outcomes, publisher.address, published)
        instance.report_runless_asset_event(record_of(summary))
        write_summary(publisher.home, summary)
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
