"""Publishing to a warehouse that everybody reads at once: each table and file is live once it is written.

BigQuery has no rename of a whole dataset: what a run changes becomes visible table by table, each in one
atomic statement. This is the place for publishing a run's tables together, should that be wanted.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg

from serverless_assets.artifacts import Artifacts
from serverless_assets.publishing.publisher import Published, Publisher, Scratch
from serverless_assets.publishing.run_lock import RunLock
from serverless_assets.warehouse.bigquery import BigQueryWarehouse


class BigQueryPublisher(Publisher):
    """Runs write straight to what people read, each table in one atomic statement."""

    def __init__(self, home: Path, warehouse: BigQueryWarehouse, artifacts: Artifacts) -> None:
        super().__init__(home)
        self._warehouse = warehouse
        self._artifacts = artifacts
        self._lock: RunLock | None = None

    @property
    def warehouse(self) -> BigQueryWarehouse:
        return self._warehouse

    @property
    def artifacts(self) -> Artifacts:
        return self._artifacts

    @property
    def published(self) -> Published:
        return Published(self._warehouse, self._artifacts)

    @property
    def address(self) -> str:
        return self._warehouse.name

    @property
    def if_not_published(self) -> str:
        return (
            f"What this run wrote to {self.address} is live all the same, also tables whose tests failed: "
            "nothing is held back on BigQuery."
        )

    @contextmanager
    def scratch(self) -> Iterator[Scratch]:
        with self._warehouse.scratch() as beside:
            yield Scratch(beside.dataset, self._artifacts, beside.dbt_variables())

    def open(self, run_id: str, log: dg.DagsterLogManager) -> None:
        self._lock = RunLock(self.home / "work", run_id, log)
        # Every job of the run is found by its id in the warehouse's own history, and on its bill.
        self._warehouse = replace(self._warehouse, labels={"run": run_id})
        self._warehouse.prepare()
        self._artifacts.prepare()

    def publish(self, run_id: str, log: dg.DagsterLogManager) -> None:
        log.info(f"Everything is live in {self.address}.")

    def close(self) -> None:
        if self._lock:
            self._lock.release()

    @property
    def scratch_places(self) -> Mapping[str, Callable[[], None]]:
        tables = {} if self._warehouse.lifetime is None else {self._warehouse.name: self._warehouse.drop}
        return {**tables, **super().scratch_places}
