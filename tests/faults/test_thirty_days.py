"""Thirty days of a shop that runs by itself: it grows, corrects, re-dates, is away, and dates orders ahead.

On each day on which the pipeline's machine is on, the sensor `source_updated` looks at the source, and what
it launches is run. After each of them on which the source could be asked, the published tables equal what
is worked out here from the source's own rows.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.automation.alerts import Alerts
from serverless_assets.automation.source_updated import source_updated
from serverless_assets.ingestion.source import HttpSource
from tests.conftest import Pipeline
from tests.faults.tally import Tally
from tests.faults.world import add_days, correct, small_shop, world
from tests.ingestion.shop import Shop
from tests.raw_tables import TABLES

KIND = "thirty days by itself"
DAYS = 30
RUNS_KEPT = 8
# The share of days on which the machine is off.
OFF = 0.4
# How much the home may grow a run once as many runs are deleted as are made: by a record of a forecast, kept
# for good, and a manifest.
GROWTH_MIB_A_RUN = 0.5
FUTURE = timedelta(days=200)


@dataclass
class Days:
    """The shop, the pipeline, and what the sensor remembers."""

    source: Shop
    pipeline: Pipeline
    today: date
    cursor: str | None = None
    ahead: set[str] = field(default_factory=set)

    def happen(self, chance: random.Random) -> list[str]:
        """Add a day, and let something else happen."""
        self.today += timedelta(days=1)
        add_days(self.source, self.today, self.today)
        orders = self.source.rows["raw_orders"]
        earlier = date.fromordinal(self.today.toordinal() - chance.randrange(1, 90))
        happened = chance.choice(["nothing", "corrected", "re-dated", "dated ahead", "away", "removed"])
        if happened == "corrected":
            correct(self.source, earlier, chance.randrange(1, 900))
        elif happened == "re-dated":
            n = chance.randrange(len(orders))
            orders[n] = (*orders[n][:2], orders[n][2] - timedelta(days=chance.randrange(40)), *orders[n][3:])
        elif happened == "dated ahead":
            n = chance.randrange(len(orders))
            orders[n] = (*orders[n][:2], orders[n][2] + FUTURE, *orders[n][3:])
            self.ahead.add(orders[n][0])
        elif happened == "removed":
            id = orders.pop(chance.randrange(len(orders)))[0]
            items = self.source.rows["raw_items"]
            self.source.rows["raw_items"] = [item for item in items if item[1] != id]
        return [happened]

    def tick(self) -> list[dg.RunRequest]:
        alerts = Alerts(None, "json", "local", "http://ui.example")
        first_month = self.pipeline.parts.first_month
        sensor = source_updated(
            HttpSource(self.source.url), TABLES, first_month, alerts, dg.DefaultSensorStatus.STOPPED
        )
        context = dg.build_sensor_context(
            self.pipeline.instance, self.cursor, definitions=self.pipeline.definitions
        )
        data = sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return list(data.run_requests or [])

    def run(self, request: dg.RunRequest) -> bool:
        names = [key.to_user_string() for key in request.asset_selection or []]
        return self.pipeline.run(assets=names or None, tags=request.tags).success

    def differences(self) -> Iterator[str]:
        """How the published tables differ from the source's rows."""
        orders = self.source.rows["raw_orders"]
        published = dict(self.pipeline.published_rows("select id, order_total from dwh.raw_orders"))
        wanted = {row[0]: row[6] for row in orders if row[0] not in self.ahead}
        if {id: total for id, total in published.items() if id not in self.ahead} != wanted:
            yield "raw_orders has other rows than the source"
        revenue: Counter[date] = Counter()
        for row in orders:
            if row[0] not in self.ahead:
                revenue[row[2].date()] += row[6]
        daily = self.pipeline.published_rows(
            "select ds, cast(sum(revenue_usd) * 100 as bigint) from dwh.daily_revenue group by ds"
        )
        if {day: cents for day, cents in daily if cents and day <= self.today} != dict(revenue):
            yield "daily_revenue is not the sum of the source's orders"
        (first, last) = self.pipeline.published_rows("select min(ds), max(ds) from dwh.order_forecast")[0]
        if first > self.today + timedelta(days=2) or (last - first).days != 179:
            yield f"the forecast is of {first} to {last}"


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Days]:
    """The shop as it was thirty days ago, and Dagster's history on disk."""
    start = date.today() - timedelta(days=DAYS + 1)
    source = small_shop(start - timedelta(days=150), start)
    with world(tmp_path / "world", source) as place:
        dagster_home = place.home / "dagster"
        dagster_home.mkdir(parents=True)
        monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
        monkeypatch.setenv("TMPDIR", str(place.temporary))
        variables = {
            "SERVERLESS_DATASET_URL": source.url,
            "SERVERLESS_FIRST_MONTH": f"{start - timedelta(days=150):%Y-%m}",
            "SERVERLESS_KEEP_RUNS": str(RUNS_KEPT),
        }
        with dg.DagsterInstance.get() as instance:
            yield Days(source, Pipeline(place.home, instance, variables), start)


def test_thirty_days_end_in_the_right_state_and_in_bounds(
    days: Days, attempt: Tally, chance: random.Random
) -> None:
    sizes = []
    for n in range(DAYS):
        happened = days.happen(chance) if n else ["the first run"]
        # The changes of the days on which the machine is off come together with the next day's.
        if 0 < n < DAYS - 1 and chance.random() < OFF:
            continue
        with attempt(f"day {n + 1}: {', '.join(happened)}") as fault:
            if happened == ["away"]:
                url, days.source.url = days.source.url, "http://127.0.0.1:9"
                try:
                    for request in days.tick():
                        fault.other("a run is launched though the source is away")
                        days.run(request)
                finally:
                    days.source.url = url
                continue
            requests = days.tick()
            for request in requests:
                if not days.run(request):
                    fault.other(f"a run failed: {reasons(days.pipeline)}")
            if happened != ["nothing"] and not requests:
                fault.silent("the change was not seen")
            fault.loss(*days.differences())
        sizes.append(size_mib(days.pipeline.home))
    with attempt(f"growth of the home: {sizes[0]:.1f} to {sizes[-1]:.1f} MiB") as fault:
        if len(sizes) > RUNS_KEPT and sizes[-1] - sizes[RUNS_KEPT] > GROWTH_MIB_A_RUN * (
            len(sizes) - RUNS_KEPT
        ):
            fault.left_overs([f"{sizes[-1] - sizes[RUNS_KEPT]:.1f} MiB since run {RUNS_KEPT}"])
    # What a run that does nothing finds to do, there was something left to do.
    with attempt("a run of everything at the end") as fault:
        days.pipeline.run()
        fault.loss(*days.differences())


def reasons(pipeline: Pipeline) -> str:
    return "; ".join(
        f"{name}: {found['reason']}"
        for name, found in pipeline.summary["assets"].items()
        if found["status"] == "failed"
    )[:800]


def size_mib(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / (1 << 20)
