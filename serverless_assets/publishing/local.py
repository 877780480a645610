"""Publishing on one machine: releases are folders, and one symbolic link says which is current.

A run writes to the working copy (`working_copy`); a run that succeeds as a whole becomes the next release.
Readers hold on to the release that they opened, so they neither block a run nor are blocked.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import dagster as dg

from serverless_assets.artifacts import ArtifactError, Artifacts
from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.artifacts.staged import StagedArtifacts
from serverless_assets.files import (
    copy_atomically,
    link_atomically,
    scratch_folder,
    share_atomically,
    write_atomically,
)
from serverless_assets.publishing.layout import (
    Layout,
    link_published,
    new_release_name,
    repair,
    stamp,
)
from serverless_assets.publishing.publisher import PartlyPublished, Publisher, Storage
from serverless_assets.publishing.working_copy import (
    WAREHOUSE,
    Base,
    artifact_files,
    forget_changes,
    open_working_copy,
    read_base,
    stamps,
    write_base,
)
from serverless_assets.warehouse.duckdb import DuckDBWarehouse

# A release is named by the time of its publish; a dot before it marks one that is being written or removed.
RELEASE_NAME = re.compile(r"\.?\d{8}T\d{6}\.\d{6}Z-.+")


class LocalPublisher(Publisher):
    """Runs write to a working copy; a green run becomes the next release."""

    warehouse: DuckDBWarehouse

    def __init__(self, home: Path, dbt_schema: str, store: Artifacts | None = None) -> None:
        """`store` gets the artifacts when a run is published; None makes them part of the release."""
        self.layout = layout = Layout(home)
        self._dbt_schema = dbt_schema
        self._store = store
        super().__init__(
            home,
            DuckDBWarehouse(layout.working_warehouse, dbt_schema),
            StagedArtifacts(store.staging(), store)
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
            if warehouse.exists():
                copy_atomically(warehouse, copy.path)
            published = self._store or LocalArtifacts(artifacts, self.layout.artifacts)
            yield Storage(copy, published)

    def prepare(self, run_id: str, log: dg.DagsterLogManager) -> None:
        repair(self.layout)
        self.artifacts.prepare()
        start = open_working_copy(self.layout)
        # After that: a release that somebody went back from tells that the working copy is of another.
        remove_old_releases(self.layout)
        if start:
            log.info(start)

    def publish(self, run_id: str, log: dg.DagsterLogManager) -> None:
        is_new = publish(self.layout, run_id)
        files: Sequence[str] = ()
        if isinstance(self.artifacts, StagedArtifacts):
            try:
                files = self.artifacts.publish()
            except ArtifactError as error:
                raise PartlyPublished(f"{self.layout.warehouse} is, but not all files. {error}") from error
        if is_new or files:
            log.info(f"Published {self.layout.warehouse}.")
        else:
            log.info("Nothing changed, so nothing was published.")


def publish(layout: Layout, run_id: str) -> bool:
    """Make the working copy the current release in one step; False if it already is."""
    if layout.working_warehouse.with_suffix(".duckdb.wal").exists():
        # A killed run left committed rows in the log beside the file, or dbt still holds it open.
        DuckDBWarehouse(layout.working_warehouse, schema="main").flush()
    base = read_base(layout)
    is_current = layout.release is not None and base == Base(
        layout.release.name, stamps(layout.release), stamps(layout.work)
    )
    if not is_current:
        release = _new_release(layout, run_id, base)
        link_atomically(Path("releases", release.name), layout.current)
    link_published(layout, adopted=base.published.get(WAREHOUSE) if base else None)
    if not is_current:
        write_base(layout)
        remove_old_releases(layout)
    forget_changes(layout)
    return not is_current


def remove_old_releases(layout: Layout) -> None:
    """Remove all releases but the current one and the one before, and what killed runs left of others."""
    release = layout.release
    if release is None:
        return
    kept = {release.name, _previous_release(release)}
    for path in layout.releases.iterdir():
        if path.name in kept or not RELEASE_NAME.fullmatch(path.name) or not path.is_dir():
            continue
        # Renamed first: a folder that is half removed is not taken for a release.
        hidden = path if path.name.startswith(".") else path.rename(path.with_name(f".{path.name}"))
        shutil.rmtree(hidden)


def _new_release(layout: Layout, run_id: str, base: Base | None) -> Path:
    release = layout.releases / new_release_name(run_id[:8])
    unfinished = release.with_name(f".{release.name}")
    (unfinished / "artifacts").mkdir(parents=True)
    if layout.working_warehouse.exists():
        copy_atomically(layout.working_warehouse, unfinished / WAREHOUSE)
    for file in artifact_files(layout.working_artifacts):
        _put_artifact(layout, base, file, unfinished / "artifacts" / file.name)
    about = {
        "run_id": run_id,
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": layout.release.name if layout.release else None,
    }
    write_atomically(unfinished / "release.json", json.dumps(about).encode())
    return unfinished.rename(release)


def _put_artifact(layout: Layout, base: Base | None, file: Path, to: Path) -> None:
    """Put a working file into a new release; one that has not changed since the last takes no space there."""
    key, last = f"artifacts/{file.name}", layout.current / "artifacts" / file.name
    is_from_last = base is not None and layout.release is not None and base.release == layout.release.name
    # People may have written to the published one by hand.
    if (
        is_from_last
        and base is not None
        and last.is_file()
        and base.working.get(key) == stamp(file)
        and base.published.get(key) == stamp(last)
    ):
        share_atomically(last, to)
    else:
        copy_atomically(file, to)


def _previous_release(release: Path) -> str | None:
    """The name of the release before; the newest other one if `release` does not say."""
    try:
        about = json.loads((release / "release.json").read_text())
        return str(about["previous"]) if about["previous"] else None
    except (OSError, ValueError, TypeError, KeyError):
        others = sorted(
            path.name
            for path in release.parent.iterdir()
            if path != release and RELEASE_NAME.fullmatch(path.name) and not path.name.startswith(".")
        )
        return others[-1] if others else None
