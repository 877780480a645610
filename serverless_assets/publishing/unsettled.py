"""What runs set out to write and have not finished."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serverless_assets.files import write_atomically


@dataclass(frozen=True)
class Unsettled:
    """The assets that a run set out to write and that have not succeeded since.

    Kept in a file below `home`, so that what a killed run left behind is not published by the next
    one, even if that writes something else altogether.
    """

    home: Path

    @property
    def _path(self) -> Path:
        return self.home / "work" / "unsettled.json"

    def read(self) -> set[str]:
        return set(json.loads(self._path.read_text())) if self._path.exists() else set()

    def add(self, assets: Iterable[str]) -> None:
        self._write(self.read() | set(assets))

    def remove(self, assets: Iterable[str]) -> None:
        self._write(self.read() - set(assets))

    def clear(self) -> None:
        self._write(set())

    def _write(self, assets: set[str]) -> None:
        write_atomically(self._path, json.dumps(sorted(assets)).encode())
