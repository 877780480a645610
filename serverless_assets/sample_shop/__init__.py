"""The bundled source: a shop whose tables are served over HTTP on this machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from serverless_assets.ingestion.http_client import DEFAULT_LIMITS, DownloadLimits
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource, format_served
from serverless_assets.sample_shop.catalogue import TABLES
from serverless_assets.sample_shop.shop import SampleShop


@dataclass(frozen=True)
class SampleSource:
    """The bundled sample shop, on a free port of this machine for as long as it is open."""

    seed: int
    end: Callable[[], date]
    limits: DownloadLimits = DEFAULT_LIMITS

    @contextmanager
    def open(self) -> Iterator[HttpSource]:
        # The web server takes long to import, and many commands ask the source nothing.
        from serverless_assets.sample_shop.api import create_app, serve

        app = create_app(lambda: SampleShop(seed=self.seed, end=self.end()))
        with serve(app) as base_url:
            yield HttpSource(base_url, identity=f"the sample shop of seed {self.seed}", limits=self.limits)

    @property
    def name(self) -> str:
        return "the bundled sample shop"

    @property
    def first_month(self) -> date:
        return SampleShop(seed=self.seed, end=self.end()).start

    def lacks(self, table: RawTable) -> bool:
        if table.dated_by and self.lacks(table.dated_by.parent):
            return True
        return table.location not in TABLES and not (table.rest and table.rest.url)

    def check(self, tables: Sequence[RawTable]) -> str:
        elsewhere = [table for table in tables if table.rest and table.rest.url]
        if elsewhere:
            with self.open() as source:
                source.check(elsewhere)
        missing = [table.name for table in tables if self.lacks(table)]
        return f"{format_served(tables, missing)} up to {self.end()}"
