"""Where the raw tables come from: any base URL, or the bundled sample shop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from serverless_assets.ingestion.catalog import TABLES
from serverless_assets.ingestion.download import TableSource
from serverless_assets.ingestion.http import without_credentials
from serverless_assets.ingestion.limits import DEFAULT_LIMITS, DownloadLimits
from serverless_assets.sample_shop.api import create_app, serve
from serverless_assets.sample_shop.shop import SampleShop


class Source(Protocol):
    """A source that a run opens while it loads."""

    def open(self) -> AbstractContextManager[TableSource]:
        """Open the source, reachable until the context ends."""

    @property
    def limits(self) -> DownloadLimits:
        """Return the limits of a download, from this source or from another that a run names."""

    @property
    def name(self) -> str:
        """Return the name to show, without any secret."""

    def check(self) -> str:
        """Return what the source serves, without loading it.

        Raises:
            SourceError: it cannot be used.
        """


@dataclass(frozen=True)
class HttpSource:
    """A REST API, or a folder of parquet files behind any web server."""

    base_url: str
    limits: DownloadLimits = DEFAULT_LIMITS

    @contextmanager
    def open(self) -> Iterator[TableSource]:
        yield TableSource(self.base_url, limits=self.limits)

    @property
    def name(self) -> str:
        return without_credentials(self.base_url)

    def check(self) -> str:
        source = TableSource(self.base_url, timeout_seconds=10.0, limits=self.limits)
        for table in TABLES:
            source.probe(table.name)
        return f"serves all {len(TABLES)} tables"


@dataclass(frozen=True)
class SampleSource:
    """The bundled sample shop, on a free port of this machine for as long as it is open."""

    seed: int
    end: Callable[[], date]
    limits: DownloadLimits = DEFAULT_LIMITS

    @contextmanager
    def open(self) -> Iterator[TableSource]:
        app = create_app(lambda: SampleShop(seed=self.seed, end=self.end()))
        with serve(app) as base_url:
            yield TableSource(base_url, identity=f"the sample shop of seed {self.seed}", limits=self.limits)

    @property
    def name(self) -> str:
        return "the bundled sample shop"

    def check(self) -> str:
        return f"serves all {len(TABLES)} tables up to {self.end()}"
