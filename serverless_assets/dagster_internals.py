"""What is used of Dagster outside of its public API, but for its storages (dagster_storage.py).

tests/test_dagster_internals.py checks it.

Each import says which public API would replace it. Dagster is pinned to a patch release in pyproject.toml, so
an upgrade, not a run, is when one of them may be gone.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, cast

import dagster as dg

# The tags are documented as strings; constants in `dagster` would replace these.
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_EVENT_POINTER,
)

# An output with this key in its metadata lets later steps begin, and is no materialization of its asset: an
# `ObserveResult` of an asset that other runs materialize would replace it.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

# What `define_asset_job` returns: a parameter of it, whether the job has the partitions of its assets, would
# replace this.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# The words that no asset's output may be named by: a public list would replace it.
from dagster._core.definitions.utils import DISALLOWED_NAMES as RESERVED_NAMES

# What a run fails with that cannot begin (failures.py): a public error that the UI shows without the way
# through Dagster's code would replace it.
from dagster._core.errors import DagsterUserCodeProcessError

# Asks a run for its partition, and a step for its assets: a check of Dagster's own whether the run has one,
# and a set that it keeps, would replace these.
from dagster._core.execution.context.system import StepExecutionContext

# Calls an asset's function with context, config and resources of the step. A public way to wrap the function
# of an asset would replace `with_compute`.
from dagster._core.execution.plan.compute_generator import create_op_compute_wrapper

# Where a run of this process says which code location it is of: `execute_in_process` with a name for it would
# replace these.
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

# compute_logs.py extends it, and the UI serves its files: an option not to capture output, and a way to serve
# a file of a run in the UI, would replace these.
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    ROOT_RUN_ID_TAG,
    WILL_RETRY_TAG,
)

# The type of an event's `error`: an export from `dagster` would replace it.
from dagster._utils.error import SerializableErrorInfo

# What mistakes in a defs.yaml are raised with: exports from `dagster` would replace these.
from dagster.components.core.component_tree import ComponentTreeException
from dagster_shared.error import DagsterUnresolvableSymbolError

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "CODE_VERSION_TAG",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "INPUT_DATA_VERSION_TAG_PREFIX",
    "INPUT_EVENT_POINTER_TAG_PREFIX",
    "NULL_EVENT_POINTER",
    "RESERVED_NAMES",
    "ROOT_RUN_ID_TAG",
    "STEP_LOGGER",
    "SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION",
    "WILL_RETRY_TAG",
    "CapturedLogContext",
    "ComponentTreeException",
    "DagsterUnresolvableSymbolError",
    "DagsterUserCodeProcessError",
    "LocalComputeLogManager",
    "SerializableErrorInfo",
    "adapt_dagster",
    "allow_runs_without_partition",
    "keep_asset_keys_of_steps",
    "replace_keys",
    "show_in_code_location",
    "with_compute",
    "without_partitions",
]

# Where Dagster warns of steps that are skipped, beside the log of the run: an option not to would replace it.
STEP_LOGGER = "dagster._core.execution.plan.active"

# What an asset's function gives, given the frames of its inputs by name.
Call = Callable[[Mapping[str, Any]], Iterator[Any]]


# The beta APIs in use: code references, backfill policies, data versions of assets, owners of sensors.
BETA_APIS = (
    "Class `(CodeReferencesMetadataValue|LocalFileCodeReference|UrlCodeReference)`",
    "Function `with_source_code_references`",
    "Parameter `backfill_policy` of function `asset`",
    "Parameter `data_version` of initializer `Output.__init__`",
    "Parameter `owners` of initializer `SensorDefinition.__init__`",
)


def adapt_dagster() -> None:
    """Have Dagster in this process work as definitions and runs here need it, without warnings of its beta
    APIs."""
    for api in BETA_APIS:
        warnings.filterwarnings("ignore", f"{api} is currently in beta", dg.BetaWarning)
    allow_runs_without_partition()
    keep_asset_keys_of_steps()
    select_assets_of_unpartitioned_jobs()


_has_partitions_for_input = StepExecutionContext.has_asset_partitions_for_input


def allow_runs_without_partition() -> None:
    """Let a step with partitioned assets run without a partition if it reads other partitioned assets.

    By itself, Dagster asks the run for its partition, to record the versions of the inputs, and fails.
    """

    def has_partitions_for_input(context: StepExecutionContext, input_name: str) -> bool:
        return context.has_partitions and _has_partitions_for_input(context, input_name)

    setattr(StepExecutionContext, _has_partitions_for_input.__name__, has_partitions_for_input)


_get_output_asset_keys = StepExecutionContext.get_output_asset_keys


def keep_asset_keys_of_steps() -> None:
    """Have a step compute the set of its assets once.

    By itself, Dagster computes it for each result of a check: a million times with 1,000 models and their
    tests.
    """

    def get_output_asset_keys(context: StepExecutionContext) -> AbstractSet[dg.AssetKey]:
        kept = vars(context)
        if "output_asset_keys" not in kept:
            kept["output_asset_keys"] = frozenset(_get_output_asset_keys(context))
        return cast("AbstractSet[dg.AssetKey]", kept["output_asset_keys"])

    setattr(StepExecutionContext, _get_output_asset_keys.__name__, get_output_asset_keys)


class UnpartitionedJob(UnresolvedAssetJobDefinition):
    """A job that has no partitions, also if its assets have."""

    def resolve(self, *args: Any, **kwargs: Any) -> dg.JobDefinition:
        return super().resolve(*args, **kwargs)._copy(partitions_def=None)


def without_partitions(job: UnresolvedAssetJobDefinition) -> UnpartitionedJob:
    """Return the same job without the partitions of its assets. Tags may still limit a run to some of them.

    By itself, Dagster gives a job the partitions of its assets. The form of such a job demands one of them,
    and opens without the job's config.
    """
    fields = {name: getattr(job, name) for name in UnresolvedAssetJobDefinition.__annotations__}
    return UnpartitionedJob(**fields)


_get_job_def_for_asset_selection = dg.JobDefinition._get_job_def_for_asset_selection


def select_assets_of_unpartitioned_jobs() -> None:
    """Let runs of some assets of a job without partitions have none either, also if the assets have.

    By itself, Dagster gives such a run the partitions of its assets, and then refuses the config of the job.
    """

    def get_job_def(job: dg.JobDefinition, selection: Any) -> dg.JobDefinition:
        config = job.run_config or job.config_mapping
        if job.partitions_def or not config:
            return _get_job_def_for_asset_selection(job, selection)
        selected = _get_job_def_for_asset_selection(job._copy(config=None), selection)
        return selected._copy(config=config, partitions_def=None)

    setattr(dg.JobDefinition, _get_job_def_for_asset_selection.__name__, get_job_def)


def show_in_code_location(instance: dg.DagsterInstance, location_name: str, job_name: str) -> None:
    """Have the UI show runs of the job that are executed in this process on its timeline and the job's page.

    By itself, Dagster stores them without their code location, and shows them in the list of all runs alone.
    """
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location_name), "__repository__")
    origin = RemoteJobOrigin(repository_origin=repository, job_name=job_name)
    create_run = partial(instance.create_run_for_job, remote_job_origin=origin)
    vars(instance)["create_run_for_job"] = create_run


def replace_keys(declared: Any, new_key: Callable[[dg.AssetKey], dg.AssetKey]) -> Any:
    """Return an asset or checks with the keys that `new_key` returns for theirs and those of what they read.

    `dg.load_assets_from_modules(key_prefix=...)` does the same for modules: a function of Dagster for
    definitions would replace this.
    """
    if isinstance(declared, dg.AssetsDefinition):
        keys = {
            *declared.keys,
            *declared.keys_by_input_name.values(),
            *(dep.asset_key for spec in declared.specs for dep in spec.deps),
        }
        return declared.with_attributes(asset_key_replacements={key: new_key(key) for key in keys})
    if isinstance(declared, dg.AssetSpec):
        deps = [
            dg.AssetDep(new_key(dep.asset_key), partition_mapping=dep.partition_mapping)
            for dep in declared.deps
        ]
        return declared.replace_attributes(key=new_key(declared.key), deps=deps)
    return declared.with_attributes(key=new_key(declared.key))


def with_compute(
    definition: dg.AssetsDefinition,
    compute: Callable[[dg.AssetExecutionContext, Call], Iterator[Any]],
    resources: set[str],
    pool: str,
) -> dg.AssetsDefinition:
    """Return an asset that runs `compute` instead of its function. `compute` gets a way to call the function.

    Dagster loads none of its inputs, and `compute` stores what it yields.

    Args:
        resources: the keys of those that `compute` uses.
        pool: for an asset that has none.
    """
    op = definition.op
    call = create_op_compute_wrapper(op)

    def run(context: dg.AssetExecutionContext, _: Mapping[str, Any]) -> Iterator[Any]:
        return compute(context, lambda values: cast("Iterator[Any]", call(context, cast("Any", values))))

    node = dg.OpDefinition(
        compute_fn=run,
        name=op.name,
        ins={name: dg.In(dg.Nothing) for name in op.ins},
        outs={name: out._replace(dagster_type=dg.Any) for name, out in op.outs.items()},
        description=op.description,
        config_schema=op.config_schema,
        required_resource_keys={*op.required_resource_keys, *resources},
        tags=op.tags,
        retry_policy=op.retry_policy,
        pool=op.pool or pool,
    )
    # Its constructor warns of the parameters that are beta, all of which it gets.
    return dg.AssetsDefinition.dagster_internal_init(**{**definition.get_attributes_dict(), "node_def": node})
