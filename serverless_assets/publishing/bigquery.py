"""Publishing on BigQuery: runs write to work datasets, and what they changed is replaced in one burst.

BigQuery has no rename of a dataset, and no transaction over tables that reads no rows: for the few seconds of
the burst, people may read tables of two releases. Each table by itself is always whole.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from serverless_assets.artifacts import Artifacts
from serverless_assets.artifacts.staged import StagedArtifacts
from serverless_assets.errors import UserError
from serverless_assets.publishing.publisher import PartlyPublished, PendingAssets, Publisher, Storage
from serverless_assets.publishing.releases import Release
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_release import (
    carry_out,
    find_changes,
    is_recorded,
    prepare_datasets,
    read_releases,
    record_release,
)


class BigQueryPublisher(Publisher):
    """Runs write to a dataset beside the one that people read; a green run replaces what changed."""

    warehouse: BigQueryWarehouse
    artifacts: StagedArtifacts

    def __init__(self, home: Path, warehouse: BigQueryWarehouse, store: Artifacts) -> None:
        """`warehouse` and `store` are what people read."""
        super().__init__(home, warehouse.working(), StagedArtifacts(store.staging(), store))

    @property
    def published(self) -> Storage:
        return Storage(self.warehouse.published(), self.artifacts.published)

    @property
    def address(self) -> str:
        return self.warehouse.name

    @property
    def pending_assets(self) -> PendingAssets:
        # The next run may be one of another machine.
        return PendingAssets(self.home, shared=self.artifacts.staged.staging())

    @contextmanager
    def scratch(self) -> Iterator[Storage]:
        with self.warehouse.published().scratch() as beside:
            yield Storage(beside, self.artifacts.published)

    def prepare(self, run_id: str, log: dg.DagsterLogManager) -> None:
        self.warehouse = self.warehouse.for_run(run_id)
        self.artifacts.prepare()
        adopted = prepare_datasets(self.warehouse)
        if adopted:
            log.info(f"Continuing from the tables in {self.address}: {', '.join(sorted(adopted))}.")

    def publish(self, run_id: str, log: dg.DagsterLogManager) -> None:
        read, began = self.warehouse.published(), datetime.now(UTC)
        changes = find_changes(self.warehouse, self.existing)
        for change in changes:
            if change.by_hand:
                log.warning(f"{change.name} {change.by_hand}: it is published again.")
        for schema in self.warehouse.with_custom_schemas() if changes else ():
            schema.published().prepare()
        errors = carry_out(read, changes)
        if errors:
            made = len(changes) - len(errors)
            raise PartlyPublished(
                f"{made} of {len(changes)} changed relations were replaced in {self.address}. "
                + " ".join(f"{name}: {error}" for name, error in sorted(errors.items()))
            )
        try:
            files = self.artifacts.publish()
            if not changes and not files and is_recorded(read):
                log.info("Nothing changed, so nothing was published.")
                return
            record_release(read, run_id, began)
        except UserError as error:
            raise PartlyPublished(f"All tables are in {self.address}, but not the rest. {error}") from error
        seconds = (datetime.now(UTC) - began).total_seconds()
        log.info(
            f"Published {len(changes)} relations to {self.address} and {len(files)} files to "
            f"{self.artifacts.name} in {seconds:.1f} s."
        )

    def releases(self) -> Sequence[Release]:
        rows = read_releases(self.warehouse.published())
        return [Release(row["run_id"], row["run_id"], row["published_at"], is_kept=False) for row in rows]

    def restore(self, release: Release, log: logging.Logger) -> None:
        raise NotImplementedError("no release is kept yet")

    @property
    def scratch_places(self) -> Mapping[str, Callable[[], None]]:
        if not self.warehouse.is_scratch:
            return super().scratch_places

        def drop() -> None:
            for schema in self.warehouse.with_custom_schemas():
                schema.drop()
                schema.published().drop()

        return {self.warehouse.name: drop, **super().scratch_places}
