"""Releases on one machine: folders that share what did not change, and a link to the current one."""

import filecmp
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from serverless_assets import sql
from serverless_assets.files import (
    copy_atomically,
    link_atomically,
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
from serverless_assets.publishing.releases import RELEASES_KEPT, Release, dropped, names_to_keep
from serverless_assets.publishing.working_copy import (
    WAREHOUSE,
    Base,
    artifact_files,
    database_files,
    forget_changes,
    read_base,
    stamps,
    write_base,
)
from serverless_assets.warehouse import TableName, content_of, version_of
from serverless_assets.warehouse.duckdb import state_in
from serverless_assets.warehouse.duckdb_file import flush

# A release is named by the time of its publish; a dot before it marks one that is being written or removed.
RELEASE_NAME = re.compile(r"\.?\d{8}T\d{6}\.\d{6}Z-.+")
# In each of them: the run, when it was published, what it changed, and the release before.
RELEASE_FILE = "release.json"


def publish(
    layout: Layout, run_id: str, keep: int = RELEASES_KEPT, files: Mapping[str, str] | None = None
) -> bool:
    """Make the working copy the current release in one step; False if it already is.

    `files` are those of a store of its own, by name, each with what its copy is found by.
    """
    databases = database_files(layout.work)
    for file in databases.values():
        if has_log(file):
            # A killed run left committed rows in the log beside the file, or dbt still holds it open.
            flush(file)
    base, files, before = read_base(layout), files or {}, files_of(layout.release)
    is_new = files != before or not is_current(layout, base)
    if is_new:
        folder = _begin_release(layout, run_id)
        for name, file in databases.items():
            copy_atomically(file, folder / name)
        changed = _changed_relations(layout.release, folder)
        for file in artifact_files(layout.working_artifacts):
            if not _put_artifact(layout, base, file, folder / "artifacts" / file.name):
                changed.append(file.name)
        changed += sorted({name for name, _ in files.items() ^ before.items()})
        _make_current(layout, folder, run_id, changed=changed, files=files)
    link_published(layout, adopted=base.published.get(WAREHOUSE) if base else None)
    # Also of a working copy that differs in bookkeeping alone: the next run needs no look at its content.
    write_base(layout)
    if is_new:
        remove_old_releases(layout, keep)
    forget_changes(layout)
    return is_new


def restore(layout: Layout, name: str) -> None:
    """Make an earlier release current again, as a new one that shares its files.

    The working copy is then not made from what is published, so the next run starts from that.
    """
    repair(layout)
    earlier = layout.releases / name
    files = [*database_files(earlier).values(), *artifact_files(earlier / "artifacts")]
    run_id = str(_about(earlier).get("run_id", "unknown"))
    folder = _begin_release(layout, run_id)
    for file in files:
        share_atomically(file, folder / file.relative_to(earlier))
    changed = [
        *_changed_relations(layout.release, folder),
        *_changed_files(layout.release or earlier, earlier),
    ]
    _make_current(layout, folder, run_id, changed=changed, files=files_of(earlier), returns_to=name)
    link_published(layout, adopted=None)


def read_releases(layout: Layout) -> Sequence[Release]:
    """The current release and those before it, the newest first."""
    return [
        Release(
            path.name,
            str(about.get("run_id", "unknown")),
            datetime.fromisoformat(str(about.get("published_at", "1970-01-01T00:00:00+00:00"))),
            # What is not known may be something that people read.
            about.get("changed", ("unknown",)),
            is_rollback="returns_to" in about,
        )
        for path in history_of(layout)
        for about in [_about(path)]
    ]


def remove_old_releases(layout: Layout, keep: int = RELEASES_KEPT) -> None:
    """Remove the releases beyond those to keep, and what killed runs left of others."""
    stay = names_to_keep(read_releases(layout), keep)
    if not stay:
        return
    for path in layout.releases.iterdir():
        if path.name in stay or not RELEASE_NAME.fullmatch(path.name) or not path.is_dir():
            continue
        # Renamed first: a folder that is half removed is not taken for a release.
        hidden = path if path.name.startswith(".") else path.rename(path.with_name(f".{path.name}"))
        shutil.rmtree(hidden)


def history_of(layout: Layout) -> Sequence[Path]:
    """The current release and those before it, each as named by the one after.

    Where that does not say, it is the newest other one; where the one that it names was removed, the newest
    one before that.
    """
    history: list[Path] = []
    release = layout.release
    while release is not None and release not in history:
        history.append(release)
        previous = _about(release).get("previous", "")
        if previous is None:
            break
        others = [path.name for path in release.parent.iterdir() if path.is_dir() and path not in history]
        names = [name for name in others if RELEASE_NAME.fullmatch(name) and not name.startswith(".")]
        older = [name for name in names if not previous or name <= previous]
        release = release.with_name(max(older)) if older else None
    return history


def files_of(release: Path | None) -> dict[str, str]:
    """The files in a store of its own that belong to a release, with what their copies are found by."""
    return dict(_about(release).get("files", {})) if release else {}


def _changed_files(before: Path, now: Path) -> list[str]:
    """The files that two releases do not share, in their folders and in a store of its own."""
    folders = before / "artifacts", now / "artifacts"
    names = {file.name for folder in folders for file in artifact_files(folder)}
    _, different, absent = filecmp.cmpfiles(*folders, names, shallow=False)
    elsewhere = {name for name, _ in files_of(before).items() ^ files_of(now).items()}
    return sorted({*different, *absent, *elsewhere})


def _about(release: Path) -> Mapping[str, Any]:
    """What a release says of itself; empty if that cannot be read."""
    try:
        about = json.loads((release / RELEASE_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _begin_release(layout: Layout, run_id: str) -> Path:
    """A new folder, hidden until `_make_current`."""
    hidden = layout.releases / f".{new_release_name(run_id[:8])}"
    (hidden / "artifacts").mkdir(parents=True)
    return hidden


def _make_current(layout: Layout, hidden: Path, run_id: str, **more: object) -> None:
    about = {
        "run_id": run_id,
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": layout.release.name if layout.release else None,
        **more,
    }
    write_atomically(hidden / RELEASE_FILE, json.dumps(about).encode())
    release = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
    link_atomically(Path("releases", release.name), layout.current)


def is_current(layout: Layout, base: Base | None) -> bool:
    """Whether people read what is in the working copy already; bookkeeping alone may differ."""
    release, working = layout.release, stamps(layout.work)
    if release is None or base is None or (base.release, base.published) != (release.name, stamps(release)):
        return False
    before, now = (
        {name: stamp for name, stamp in files.items() if name.startswith("artifacts/")}
        for files in (base.working, working)
    )
    if before != now:
        return False
    if base.working == working:
        return True
    contents, published = (
        {relation: content_of(state) for relation, state in _states(folder).items()}
        for folder in (layout.work, release)
    )
    # Of a relation without a state it is not known what changed.
    return bool(contents) and all(contents.values()) and contents == published


def has_log(database: Path) -> bool:
    """Whether DuckDB's write-ahead log is beside the file."""
    return database.with_suffix(".duckdb.wal").exists()


def _changed_relations(before: Path | None, now: Path) -> list[str]:
    """The relations whose rows differ between two folders' databases by their states, or that one of them
    alone has."""
    new, old = (
        {relation: version_of(state) for relation, state in _states(folder).items()}
        for folder in (now, before)
    )
    changed = {relation[-1] for relation, version in new.items() if version != old.get(relation)}
    return sorted(changed | {dropped(relation[-1]) for relation in old.keys() - new.keys()})


def _states(folder: Path | None) -> Mapping[TableName, Mapping[str, object]]:
    """The state of each relation in a folder's databases; none if one of them cannot be read."""
    files = database_files(folder) if folder else {}
    with closing(duckdb.connect()) as connection, suppress(duckdb.Error):
        for file in files.values():
            connection.execute(f"attach {sql.literal(str(file))} as {sql.identifier(file.stem)} (read_only)")
        rows = connection.execute(
            "select database_name, schema_name, table_name, comment from duckdb_tables()"
            " union all select database_name, schema_name, view_name, comment from duckdb_views()"
            " where not internal"
        ).fetchall()
        return {(database, schema, name): state_in(comment) for database, schema, name, comment in rows}
    return {}


def _put_artifact(layout: Layout, base: Base | None, file: Path, to: Path) -> bool:
    """Put a working file into a new release; one that has not changed since the last takes no space there.

    Returns whether it has not changed.
    """
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
        return True
    copy_atomically(file, to)
    return False
