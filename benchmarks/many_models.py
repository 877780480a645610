"""What a run of a large dbt project costs when nothing or one model changed: `make bench-many-models`.

A generated project of ten layers over one raw table, run in a home of its own by processes of their own, as a
person starts them.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Contender, Cost, measure

from tests.generated_project import write_project


def measured(project: Path, home: Path) -> tuple[Cost, dict[str, int]]:
    """Run the project; return what it cost, and the totals by status."""
    variables = {
        "SERVERLESS_HOME": str(home),
        "SERVERLESS_SAMPLE_END": "2026-10-30",
        "SERVERLESS_DBT_PROJECT": str(project),
    }
    serverless = Path(sys.executable).with_name("serverless")
    cost = measure(Contender("serverless run", [serverless, "run"], variables), home)
    return cost, json.loads((home / "runs" / "latest.json").read_text())["totals"]


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [10, 300, 1000]
    print(f"{'models':>7}  {'run':<18}{'cpu':>9}{'clock':>9}  totals")
    for models in sizes:
        with TemporaryDirectory(prefix="bench-") as folder:
            project, home = Path(folder, "project"), Path(folder, "home")
            write_project(project, models)
            for run in ("first", "nothing changed", "one model changed"):
                if run == "one model changed":
                    last = sorted(project.rglob("m*.sql"))[-1]
                    last.write_text(last.read_text().replace("upper", "lower"))
                cost, totals = measured(project, home)
                counts = ", ".join(f"{totals[status]} {status}" for status in ("built", "reused"))
                print(f"{models:>7}  {run:<18}{cost.cpu:>8.1f}s{cost.clock:>8.1f}s  {counts}", flush=True)


if __name__ == "__main__":
    main()
