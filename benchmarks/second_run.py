"""What a run costs when nothing changed: `make bench-second-run`.

Three runs in a home of their own, each in a process of its own as a person starts them: the first builds
everything, the second finds nothing to do, the third starts from a day more at the source.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

RUNS = (("first", "2026-10-30"), ("nothing changed", "2026-10-30"), ("a day more", "2026-10-31"))


def measured(home: Path, end: str) -> tuple[float, float, int, dict[str, int]]:
    """Seconds of the whole process, seconds of the run in it, bytes downloaded, and totals by status."""
    serverless = Path(sys.executable).with_name("serverless")
    variables = {**os.environ, "SERVERLESS_HOME": str(home), "SERVERLESS_SAMPLE_END": end}
    started = time.monotonic()
    subprocess.run([serverless, "run"], env=variables, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    summary = json.loads((home / "runs" / "latest.json").read_text())
    downloaded = sum(
        found["bytes"] or 0 for name, found in summary["assets"].items() if name.startswith("raw_")
    )
    return seconds, summary["totals"]["seconds"], downloaded, summary["totals"]


def main() -> None:
    print(f"{'run':<18}{'process':>9}{'of first':>10}{'run':>9}{'of first':>10}{'downloaded':>13}  totals")
    with TemporaryDirectory(prefix="bench-") as folder:
        first: tuple[float, float] | None = None
        for name, end in RUNS:
            process, run, downloaded, totals = measured(Path(folder) / "home", end)
            first = first or (process, run)
            counts = ", ".join(f"{totals[status]} {status}" for status in ("built", "reused"))
            print(
                f"{name:<18}{process:>8.1f}s{process / first[0]:>9.0%} {run:>8.1f}s{run / first[1]:>9.0%} "
                f"{downloaded:>12,}  {counts}",
                flush=True,
            )


if __name__ == "__main__":
    main()
