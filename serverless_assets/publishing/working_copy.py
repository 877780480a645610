"""The copy that runs write to: what it was made from, and whether the next run may continue from it.

`work/base.json` names the release that the working copy was made from or became. It is deleted before the
working copy is replaced and written as the last step, so that a replacement that was interrupted at any
point is repeated by the next run.
"""

import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from serverless_assets.artifacts.local import read_change
from serverless_assets.files import (
    copy_atomically,
    copy_file,
    make_folder,
    move_aside,
    scratch_folder,
    write_atomically,
)
from serverless_assets.publishing.layout import HomeError, Layout, is_replaced, stamp
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.warehouse.duckdb_file import DATABASES, damage_of, databases_beside, verify

Stamps = Mapping[str, object]
WAREHOUSE = "warehouse.duckdb"


@dataclass(frozen=True)
class Base:
    """The release that the working copy was equal to last, and the stamps of the files of both by then."""

    release: str | None
    published: Stamps
    working: Stamps


def read_base(layout: Layout) -> Base | None:
    """The base of the working copy; None if it is not known."""
    try:
        base = Base(**json.loads(layout.base.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return base if isinstance(base.published, dict) and isinstance(base.working, dict) else None


def write_base(layout: Layout) -> None:
    """Record that the working copy is equal to what is published now."""
    published = stamps(layout.release or layout.current)
    if is_replaced(layout.warehouse):
        published[WAREHOUSE] = stamp(layout.warehouse)
    base = Base(layout.release.name if layout.release else None, published, stamps(layout.work))
    write_atomically(layout.base, json.dumps(asdict(base)).encode())


def stamps(folder: Path) -> dict[str, object]:
    """The stamps of the databases and the artifacts in a folder: the working copy's, or a release's."""
    databases = {name: stamp(file) for name, file in database_files(folder).items()}
    files = {f"artifacts/{file.name}": stamp(file) for file in artifact_files(folder / "artifacts")}
    return {WAREHOUSE: None, **databases, **files}


def database_files(folder: Path) -> dict[str, Path]:
    """The DuckDB files in a folder by their paths there: the warehouse's, and those beside it."""
    files = [folder / WAREHOUSE, *databases_beside(folder / WAREHOUSE)]
    return {str(file.relative_to(folder)): file for file in files if file.is_file()}


def reason_to_replace(layout: Layout) -> str | None:
    """Why the next run cannot continue from the working copy; None if it can.

    It can if the working copy was made from what is published, opens, and if it is known which of its
    assets are unfinished. Without a release it is all there is.
    """
    published, base, working = _published_databases(layout), read_base(layout), layout.working_warehouse
    for missing in (layout.work / name for name in (WAREHOUSE, *published)):
        if not os.path.lexists(missing):
            return f"there is no {missing}" if published else None
    is_unchanged = base is not None and base.working == stamps(layout.work)
    for file in {working, *database_files(layout.work).values()}:
        # What was written since by a run that was killed, or by hand, is read in full.
        if damage := damage_of(file) if is_unchanged else verify(file):
            return f"{file} cannot be read ({damage})"
    if published and not _is_made_from(base, layout, published):
        return f"{working} was made from another release"
    if not is_unchanged and not PendingAssets(layout.home).is_readable():
        return (
            f"it is not known what is unfinished in {working}: {PendingAssets(layout.home).path} is damaged"
        )
    return None


def is_outdated(layout: Layout) -> bool:
    """Whether something is published that the working copy was not made from, such as after a rollback."""
    published = _published_databases(layout)
    return bool(published) and not (
        layout.working_warehouse.exists() and _is_made_from(read_base(layout), layout, published)
    )


def refuse_damaged(layout: Layout) -> None:
    """Raise `HomeError` if what is published cannot be opened, before anything is read from it."""
    for name, published in _published_databases(layout).items():
        if damage := damage_of(published):
            raise _damaged(published, layout.work / name, damage)


def open_working_copy(layout: Layout) -> str | None:
    """Make the working copy ready for a run.

    Returns:
        Where the run starts from and why, if it does not continue from the working copy.

    Raises:
        HomeError: what is published cannot be read. Nothing was changed.
    """
    shutil.rmtree(layout.working_warehouse.with_name(f"{WAREHOUSE}.tmp"), ignore_errors=True)
    reason = reason_to_replace(layout)
    if reason is None:
        _restore_artifacts(layout, read_base(layout))
        return None
    published, working = _published_databases(layout), layout.working_warehouse
    if not published:
        _discard(layout.base)
        aside = move_aside(working)
        for path in (_log_of(working), layout.work / DATABASES):
            move_aside(path)
        _settle(layout)
        return f"Starting from an empty warehouse: {reason}. It was moved to {aside}."
    with scratch_folder(layout.work, "adopt") as scratch:
        for name, file in published.items():
            _copy_verified(file, scratch / name, layout.work / name)
        _discard(layout.base)
        for path in (working, _log_of(working)):
            _discard(path)
        shutil.rmtree(layout.work / DATABASES, ignore_errors=True)
        for name in published:
            make_folder((layout.work / name).parent)
            (scratch / name).replace(layout.work / name)
    _settle(layout)
    return f"Starting from the published {published[WAREHOUSE]}: {reason}."


def forget_changes(layout: Layout) -> None:
    """Forget which artifacts runs have written and deleted: they are published, or given up."""
    shutil.rmtree(layout.artifact_changes, ignore_errors=True)


def artifact_files(folder: Path) -> list[Path]:
    """The files of an artifact folder; hidden ones are temporary copies."""
    files = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def _settle(layout: Layout) -> None:
    """The last steps of a replacement: artifacts, nothing unfinished, and the record that it is complete."""
    for name in (file.name for file in artifact_files(layout.artifact_changes)):
        _discard(layout.working_artifacts / name)
    forget_changes(layout)
    _restore_artifacts(layout, None)
    if os.path.lexists(PendingAssets(layout.home).path):
        PendingAssets(layout.home).replace(())
    write_base(layout)


def _is_made_from(base: Base | None, layout: Layout, published: Mapping[str, Path]) -> bool:
    if base is None:
        return False
    release = layout.release.name if layout.release else None
    if base.release == release:
        return all(base.published.get(name) == stamp(file) for name, file in published.items())
    # The release was deleted by hand, and `current` repaired: the working copy is the newest there is.
    is_lost = base.release is not None and not (layout.releases / base.release).is_dir()
    return is_lost and not is_replaced(layout.warehouse)


def _published_databases(layout: Layout) -> Mapping[str, Path]:
    """The published DuckDB files by their paths in a release; none without a warehouse."""
    path, _ = layout.published()
    return {**database_files(layout.release or layout.current), WAREHOUSE: path} if path.is_file() else {}


def _copy_verified(published: Path, copy: Path, working: Path) -> None:
    copy.parent.mkdir(exist_ok=True)
    copy_file(published, copy)
    if _log_of(published).is_file():
        # Rows that somebody committed by hand and that are not in the file yet.
        copy_file(_log_of(published), _log_of(copy))
    if damage := verify(copy):
        raise _damaged(published, working, damage)
    with copy.open("rb") as file:
        os.fsync(file.fileno())


def _damaged(published: Path, working: Path, damage: str) -> HomeError:
    """Return what is wrong with a published file, and the way on from there."""
    way_on = (
        "loads everything again" if damage_of(working) else f"continues from {working} and publishes that"
    )
    return HomeError(
        f"{published} cannot be read as a DuckDB database ({damage}). Nothing was changed. Put a good "
        f"copy of it in its place, or delete it: the next run then {way_on}."
    )


def _restore_artifacts(layout: Layout, base: Base | None) -> None:
    """Copy published artifacts to the working copy where it lacks them or has others that no run wrote."""
    for folder in dict.fromkeys([layout.published()[1], (layout.release or layout.current) / "artifacts"]):
        for file in artifact_files(folder):
            to = layout.working_artifacts / file.name
            if not _is_right(layout, base, file, to):
                copy_atomically(file, to)


def _is_right(layout: Layout, base: Base | None, published: Path, working: Path) -> bool:
    key, change = f"artifacts/{published.name}", read_change(layout.artifact_changes, published.name)
    if not working.is_file():
        return change == "deleted" and not os.path.lexists(working)
    if change == "written" or (base and base.working.get(key) == stamp(working)):
        return True
    is_edited = base is not None and base.published.get(key) not in (None, stamp(published))
    return is_edited or filecmp.cmp(published, working, shallow=False)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        move_aside(path)
    else:
        path.unlink(missing_ok=True)


def _log_of(warehouse: Path) -> Path:
    """DuckDB's write-ahead log of a database file."""
    return warehouse.with_name(f"{warehouse.name}.wal")
