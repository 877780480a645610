"""Publishing on one machine: releases are folders, and one symbolic link says which is current.

A run writes to the working copy (`working_copy`); a run that succeeds as a whole becomes the next release.
Readers hold on to the release that they opened, so they neither block a run nor are blocked.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dagster as dg

from serverless_assets.artifacts import ArtifactError, Artifacts
from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.artifacts.staged import StagedArtifacts
from serverless_assets.files import (
    copy_atomically,
    scratch_folder,
)
from serverless_assets.publishing.layout import (
    Layout,
    repair,
)
from serverless_assets.publishing.local_releases import (
    files_of,
    has_log,
    history_of,
    is_current,
    publish,
    read_releases,
    remove_old_releases,
    restore,
)
from serverless_assets.publishing.publisher import PartlyPublished, Publisher, Storage
from serverless_assets.publishing.releases import RECORDS, RELEASES_KEPT, Release
from serverless_assets.publishing.working_copy import (
    WAREHOUSE,
    database_files,
    is_outdated,
    open_working_copy,
    read_base,
    refuse_damaged,
)
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from serverless_assets.warehouse.duckdb_file import databases_beside


class LocalPublisher(Publisher):
    """Runs write to a working copy; a green run becomes the next release."""

    warehouse: DuckDBWarehouse

    def __init__(
        self, home: Path, dbt_schema: str, store: Artifacts | None = None, keep: int = RELEASES_KEPT
    ) -> None:
        """`store` gets the artifacts when a run is published; None makes them part of the release. As many
        releases stay as are to `keep`."""
        self.layout = layout = Layout(home)
        self._keep = keep
        self._dbt_schema = dbt_schema
        self._store = store
        super().__init__(
            home,
            DuckDBWarehouse(layout.working_warehouse, dbt_schema),
            StagedArtifacts(store)
            if store
            else LocalArtifacts(layout.working_artifacts, layout.artifacts, layout.artifact_changes),
        )

    @property
    def published(self) -> Storage:
        warehouse, artifacts = self.layout.published()
        return Storage(
            DuckDBWarehouse(warehouse, self._dbt_schema, read_only=True),
            self._store or LocalArtifacts(artifacts, self.layout.artifacts),
        )

    @property
    def address(self) -> str | None:
        return str(self.layout.warehouse) if self.layout.warehouse.exists() else None

    @contextmanager
    def scratch(self) -> Iterator[Storage]:
        # A copy: dbt writes to the file that it reads, and a file that is written to has no other reader.
        # It takes the place of a catalog, whose name is in the manifest: so its own name stays.
        warehouse, artifacts = self.layout.published()
        with scratch_folder(self.layout.home, "slim-ci-warehouse") as folder:
            copy = DuckDBWarehouse(folder / WAREHOUSE, f"{self._dbt_schema}_ci_{uuid4().hex[:8]}")
            for file in filter(Path.exists, (warehouse, *databases_beside(warehouse))):
                copy_atomically(file, folder / file.relative_to(warehouse.parent))
            published = self._store or LocalArtifacts(artifacts, self.layout.artifacts)
            yield Storage(copy, published)

    def check(self) -> str:
        refuse_damaged(self.layout)
        return super().check()

    def check_turn(self) -> None:
        # A file's lock is held until the process ends.
        pass

    def prepare(self, run_id: str, log: dg.DagsterLogManager) -> None:
        repair(self.layout)
        self.artifacts.prepare()
        start = open_working_copy(self.layout)
        # After that: a release that somebody went back from tells that the working copy is of another.
        remove_old_releases(self.layout, self._keep)
        if start:
            log.info(start)

    def publish(self, run_id: str, log: dg.DagsterLogManager) -> None:
        if isinstance(self.artifacts, StagedArtifacts):
            is_new = self._publish_with_files(self.artifacts, run_id)
        else:
            is_new = publish(self.layout, run_id, self._keep)
        if is_new:
            counts = self.releases()[0].counts
            log.info(f"Published {self.layout.warehouse}{'' if counts else f': {RECORDS}'}.")
        else:
            log.info("Nothing changed, so nothing was published.")

    def _publish_with_files(self, artifacts: StagedArtifacts, run_id: str) -> bool:
        """Publish the warehouse, then the files, which are in a store of their own; whether any changed."""
        files: Mapping[str, str] = files_of(self.layout.release)
        if artifacts.changed():
            files = artifacts.keep(files)
        is_new = publish(self.layout, run_id, self._keep, files)
        try:
            artifacts.publish()
            artifacts.settle()
            if is_new:
                artifacts.forget({key for path in history_of(self.layout) for key in files_of(path).values()})
        except ArtifactError as error:
            raise PartlyPublished(
                f"{self.layout.warehouse} was published, but not all files were. {error}"
            ) from error
        return is_new

    def has_unpublished(self) -> bool:
        layout = self.layout
        if is_outdated(layout):
            # The next run starts from what is published.
            return False
        # Where a killed run left a log beside a file, rows may be in there alone.
        is_unfinished = any(map(has_log, database_files(layout.work).values()))
        artifacts = self.artifacts
        has_files = isinstance(artifacts, StagedArtifacts) and bool(artifacts.changed())
        return is_unfinished or has_files or not is_current(layout, read_base(layout))

    def look_ahead(self) -> str | None:
        if not is_outdated(self.layout):
            return None
        refuse_damaged(self.layout)
        path, _ = self.layout.published()
        self.warehouse = DuckDBWarehouse(path, self._dbt_schema, read_only=True)
        self.artifacts = self.published.artifacts
        return (
            f"The next run starts from the published {path}: the working copy was made from another release."
        )

    def releases(self) -> Sequence[Release]:
        return read_releases(self.layout)

    def restore(self, release: Release, log: logging.Logger) -> None:
        files = files_of(self.layout.releases / release.name)
        if isinstance(self.artifacts, StagedArtifacts):
            self.artifacts.restore(files, files_of(self.layout.release))
        restore(self.layout, release.name)
        if isinstance(self.artifacts, StagedArtifacts):
            self.artifacts.publish()
            self.artifacts.settle()
