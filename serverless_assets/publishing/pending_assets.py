"""What runs set out to write and have not finished."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serverless_assets.files import write_atomically


@dataclass(frozen=True)
class PendingAssets:
    """The assets that a run set out to write and that have not succeeded since.

    Kept in a file below `home`, so that what a killed run left behind is not published by the next
    one, even if that writes something else altogether.
    """

    home: Path

    @property
    def path(self) -> Path:
        return self.home / "work" / "unsettled.json"

    def is_readable(self) -> bool:
        """Whether it is known what is unfinished."""
        return self._read() is not None

    def read(self) -> set[str]:
        """The unfinished assets; none if that is not known."""
        return self._read() or set()

    def add(self, assets: Iterable[str]) -> None:
        self._write(self.read() | set(assets))

    def remove(self, assets: Iterable[str]) -> None:
        self._write(self.read() - set(assets))

    def clear(self) -> None:
        self._write(set())

    def _read(self) -> set[str] | None:
        try:
            assets = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return None
        is_valid = isinstance(assets, list) and all(isinstance(asset, str) for asset in assets)
        return set(assets) if is_valid else None

    def _write(self, assets: set[str]) -> None:
        write_atomically(self.path, json.dumps(sorted(assets)).encode())
