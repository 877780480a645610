"""Publishing on BigQuery: runs write to work datasets, and what they changed is replaced in one burst.

BigQuery has no rename of a dataset, and no transaction over tables that reads no rows: for the few seconds of
the burst, people may read tables of two releases. Each table by itself is always whole.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from serverless_assets.artifacts import Artifacts
from serverless_assets.artifacts.staged import StagedArtifacts
from serverless_assets.errors import error_sentence
from serverless_assets.names import name_some
from serverless_assets.publishing.lease import Lease
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.publishing.publisher import PartlyPublished, Publisher, Storage
from serverless_assets.publishing.releases import RECORDS, RELEASES_KEPT, Release, dropped, names_to_keep
from serverless_assets.warehouse import TableShape, WarehouseError
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_history import (
    adopt,
    forget,
    is_recorded,
    keep,
    read_releases,
    record_release,
    refuse_failed,
    shorten_record,
    steps_to_restore,
)
from serverless_assets.warehouse.bigquery_layout import find_layout_changes
from serverless_assets.warehouse.bigquery_release import (
    Built,
    carry_out,
    find_changes,
    find_irreplaceable,
)

NOTHING_CHANGED = "Nothing changed, so nothing was published."
# The record of the warehouse of a rollback that has begun and not ended.
ROLLBACK = "rollback"


class BigQueryPublisher(Publisher):
    """Runs write to a dataset beside the one that people read; a green run replaces what changed."""

    warehouse: BigQueryWarehouse
    artifacts: StagedArtifacts

    def __init__(
        self, home: Path, warehouse: BigQueryWarehouse, store: Artifacts, keep: int = RELEASES_KEPT
    ) -> None:
        """`warehouse` and `store` are what people read. As many releases stay as are to `keep`."""
        self._keep = keep
        self._lease: Lease | None = None
        super().__init__(home, warehouse.working(), StagedArtifacts(store, self.check_turn))

    @property
    def published(self) -> Storage:
        return Storage(self.warehouse.published(), self.artifacts.published)

    @property
    def address(self) -> str:
        return self.warehouse.name

    @property
    def pending_assets(self) -> PendingAssets:
        # The next run may be one of another machine.
        return PendingAssets(self.home, shared=self.artifacts.bookkeeping)

    @contextmanager
    def scratch(self) -> Iterator[Storage]:
        with self.warehouse.published().scratch() as beside:
            yield Storage(beside, self.artifacts.published)

    def take_lock(self, run_id: str, log: logging.Logger, wait: bool = True) -> None:
        super().take_lock(run_id, log, wait)
        # The dataset that people read, and the one that runs write to.
        self.warehouse.prepare(self.warehouse.published().prepare())
        self._lease = Lease(self.warehouse, self.home, run_id, log, wait)

    def irreplaceable(self) -> Mapping[str, str]:
        return find_irreplaceable(self.warehouse)

    def layout_changes(
        self, models: Iterable[Mapping[str, Any]], raw_tables: Iterable[TableShape]
    ) -> Mapping[str, str]:
        return find_layout_changes(self.warehouse, models, raw_tables)

    def check_turn(self) -> None:
        if self._lease:
            self._lease.check_lately()

    def close(self) -> None:
        if self._lease:
            self._lease.release()
            self._lease = None
        super().close()

    def prepare(self, run_id: str, log: dg.DagsterLogManager) -> None:
        self.warehouse = self.warehouse.for_run(run_id, self.check_turn)
        in_the_way = [text for name, text in self.irreplaceable().items() if name in self.writable_tables]
        if in_the_way:
            raise WarehouseError(" ".join(in_the_way))
        self.artifacts.prepare()
        adopted = adopt(self.warehouse)
        if adopted:
            log.info(f"Continuing from the tables in {self.address}: {', '.join(sorted(adopted))}.")
        unfinished = self.warehouse.read_record(ROLLBACK)
        for release in self.releases() if unfinished else ():
            if release.name == unfinished["release"]:
                log.warning(f"Completing the rollback to {release}, which was interrupted.")
                self.restore(release, log)

    def publish(self, run_id: str, log: logging.Logger, rollback: bool = False) -> None:
        read, began = self.warehouse.published(), datetime.now(UTC)
        if self._lease:
            # It is gone, too, if somebody deleted the dataset: then there is nothing to compare.
            self._lease.check()
        built = {there: there.relations() for there in self.warehouse.in_all_schemas()}
        live = {there: there.published().relations() for there in built}
        # A rollback takes off, too, what people read and the release did not have.
        steps = find_changes(self.warehouse, built, live, frozenset() if rollback else self.writable_tables)
        changes = [change for step in steps for change in step]
        files = self.artifacts.changed()
        has_changed = bool(files) or not all(change.is_bookkeeping for change in changes)
        if not has_changed and not rollback and is_recorded(live.values()):
            log.info(NOTHING_CHANGED)
            return
        for change in changes:
            if change.by_hand:
                log.warning(f"{change.name} {change.by_hand}: it is published again.")
        releases = read_releases(read)
        before = releases[0]["contents"] if releases else {}
        # Before people read anything of it, so that what they read can be returned to.
        contents = {
            "relations": keep(self.warehouse, built),
            "files": self.artifacts.keep(before.get("files", {})),
        }
        if not has_changed and not rollback and contents == before:
            # Somebody changed more than rows of what people read, such as a label.
            log.info(NOTHING_CHANGED)
            return
        for there in built if changes else ():
            there.published().prepare()
        if self._lease:
            self._lease.check_lately()
        named = [(change, change.name.rpartition(".")[2]) for change in changes if not change.has_same_rows]
        changed = [dropped(name) if change.is_drop else name for change, name in named] + [*files]
        burst_began = datetime.now(UTC)
        errors = carry_out(read, steps)
        if errors:
            replaced = len(changes) - len(errors)
            names_by_error: dict[str, list[str]] = {}
            for name, error in sorted(errors.items()):
                names_by_error.setdefault(error, []).append(name)
            raise PartlyPublished(
                f"{replaced} of {len(changes)} changed relations were replaced in {self.address}. "
                + " ".join(f"{name_some(names, 3)}: {error}" for error, names in names_by_error.items())
            )
        try:
            self.artifacts.publish()
            record_release(read, run_id, burst_began, changed, contents, rollback)
        except Exception as error:
            raise PartlyPublished(
                f"All tables in {self.address} were replaced, but not all files and records were written. "
                f"{error_sentence(error)}"
            ) from error
        ended = datetime.now(UTC)
        seconds, in_burst = ((ended - start).total_seconds() for start in (began, burst_began))
        published = {"run_id": run_id, "published_at": ended, "changed": changed, "contents": contents}
        releases = [published, *releases]
        text = "" if self._as_releases(releases)[0].counts else f": {RECORDS}"
        log.info(
            f"Published {len(changes)} relations to {self.address} and {len(files)} files to "
            f"{self.artifacts.name} in {seconds:.1f} s{text}. People could read two releases for "
            f"{in_burst:.1f} s."
        )
        try:
            self.artifacts.settle()
            self._forget(releases, built)
            shorten_record(read, releases)
        except Exception as error:
            log.warning(
                "Copies of old releases were not deleted; the next publish does that. "
                + error_sentence(error)
            )

    def _forget(self, releases: Sequence[Mapping[str, Any]], built: Built) -> None:
        """Delete the copies of releases beyond those to keep."""
        kept = [release.is_kept for release in self._as_releases(releases)]
        contents = [row["contents"] for row, is_kept in zip(releases, kept, strict=True) if is_kept]
        forget(self.warehouse, built, [content.get("relations", {}) for content in contents])
        self.artifacts.forget({key for content in contents for key in content.get("files", {}).values()})

    def has_unpublished(self) -> bool:
        if self.artifacts.changed():
            return True
        built = {there: there.relations() for there in self.warehouse.in_all_schemas()}
        live = {there: there.published().relations() for there in built}
        try:
            steps = find_changes(self.warehouse, built, live, self.writable_tables)
        except WarehouseError:
            # A relation is unfinished.
            return True
        return not all(change.is_bookkeeping for step in steps for change in step)

    def look_ahead(self) -> str | None:
        sentence = self.warehouse.adoption()
        return f"{sentence} It loads and builds less than is listed here." if sentence else None

    def releases(self) -> Sequence[Release]:
        return self._as_releases(read_releases(self.warehouse.published()))

    def _as_releases(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Release]:
        """Return the rows of the record of releases, the newest first, with which of them are kept."""
        releases = [
            Release(
                row["published_at"].isoformat(),
                row["run_id"],
                row["published_at"],
                row["changed"],
                bool(row.get("is_rollback")),
            )
            for row in rows
        ]
        kept = names_to_keep(releases, self._keep)
        return [
            replace(release, is_kept=release.name in kept and "relations" in row["contents"])
            for release, row in zip(releases, rows, strict=True)
        ]

    def restore(self, release: Release, log: logging.Logger) -> None:
        releases = {row["published_at"].isoformat(): row for row in read_releases(self.warehouse.published())}
        contents, now = (releases[name]["contents"] for name in (release.name, max(releases)))
        built = {there: there.relations() for there in self.warehouse.in_all_schemas()}
        steps = steps_to_restore(self.warehouse, built, contents["relations"])
        self.artifacts.refuse_missing(contents["files"])
        # Until it is done, a run that finds this does it first.
        self.warehouse.write_record(ROLLBACK, {"release": release.name})
        refuse_failed(carry_out(self.warehouse, steps))
        self.artifacts.restore(contents["files"], now.get("files", {}))
        self.pending_assets.replace(())
        self.publish(release.run_id, log, rollback=True)
        self.warehouse.write_record(ROLLBACK, {})

    @property
    def scratch_places(self) -> Mapping[str, Callable[[], None]]:
        if self.warehouse.lifetime is None:
            return super().scratch_places

        def drop() -> None:
            # The first has the record of the others.
            for there in reversed(self.warehouse.in_all_schemas()):
                there.published().drop()
                there.drop()

        return {self.warehouse.name: drop, **super().scratch_places}
