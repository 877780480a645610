"""Publishing to a warehouse that everybody reads at once: each table and file is live once it is written.

BigQuery has no rename of a whole dataset: what a run changes becomes visible table by table, each in one
atomic statement. This is the place for publishing a run's tables together, should that be wanted.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import dagster as dg

from serverless_assets.artifacts import Artifacts
from serverless_assets.publishing.publisher import Publisher, Storage
from serverless_assets.warehouse import Warehouse


class LiveWarehouse(Warehouse, Protocol):
    """A warehouse whose tables people read where they are written."""

    @property
    def is_scratch(self) -> bool:
        """Whether the tables are those of a branch alone, which `drop` deletes."""

    def for_run(self, run_id: str) -> "LiveWarehouse":
        """The same warehouse, in whose history and on whose bill each job names the run."""

    def prepare(self) -> None:
        """Create the dataset if there is none.

        Raises:
            WarehouseError: it cannot be created.
        """

    def scratch(self) -> AbstractContextManager[Warehouse]:
        """A dataset beside this one, gone afterwards."""

    def drop(self) -> None:
        """Delete the dataset of a branch with all that is in it.

        Raises:
            WarehouseError: it is still there, or not a branch's alone.
        """


class LivePublisher(Publisher):
    """Runs write straight to what people read, each table in one atomic statement."""

    warehouse: LiveWarehouse

    def __init__(self, home: Path, warehouse: LiveWarehouse, artifacts: Artifacts) -> None:
        super().__init__(home, warehouse, artifacts)

    @property
    def published(self) -> Storage:
        return Storage(self.warehouse, self.artifacts)

    @property
    def address(self) -> str:
        return self.warehouse.name

    @property
    def if_not_published(self) -> str:
        return (
            f"What this run wrote to {self.address} is live all the same, also tables whose tests failed: "
            "nothing is held back on BigQuery."
        )

    @contextmanager
    def scratch(self) -> Iterator[Storage]:
        with self.warehouse.scratch() as beside:
            yield Storage(beside, self.artifacts)

    def prepare(self, run_id: str, log: dg.DagsterLogManager) -> None:
        self.warehouse = self.warehouse.for_run(run_id)
        self.warehouse.prepare()
        self.artifacts.prepare()

    def publish(self, run_id: str, log: dg.DagsterLogManager) -> None:
        log.info(f"Everything is live in {self.address}.")

    @property
    def scratch_places(self) -> Mapping[str, Callable[[], None]]:
        tables = {self.warehouse.name: self.warehouse.drop} if self.warehouse.is_scratch else {}
        return {**tables, **super().scratch_places}
