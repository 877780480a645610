"""A disk that is full while a run works: the run says so, and the next run on a larger one is whole."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serverless_assets.project_root import PROJECT_ROOT
from tests.faults.conftest import ROUNDS
from tests.faults.tally import Attempt, Tally
from tests.faults.world import EndState, World, end_state, left_overs

KIND = "full disk"
KIB = 1024
# What is free for a run that needs 10 MiB: from its first file to its last.
SPARE = [0, 512 * KIB, 4096 * KIB]
WORDS = ("No space left", "disk is full", "disk full", "out of space", "Dagster's history is full")
NAMESPACE = ["unshare", "-Urm"]


@pytest.fixture(scope="module")
def may_mount() -> None:
    """Skip where a process may not have file systems of its own."""
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no file system of a given size: this machine does not let a user mount one")


@pytest.mark.usefixtures("may_mount")
def test_a_full_disk_is_named_and_loses_nothing(
    place: World,
    template: Path,
    undisturbed: tuple[EndState, str],
    attempt: Tally,
    chance: random.Random,
) -> None:
    sizes = [*SPARE, *(chance.randrange(8192) * KIB for _ in range(4 * (ROUNDS - 1)))]
    reference, _ = undisturbed
    with place.a_week_later():
        place.put(template)
        shutil.rmtree(place.home)
        words = [sys.executable, "-m", "tests.faults.full_disk", str(place.home), str(template)]
        with subprocess.Popen(
            [*NAMESPACE, *words, *map(str, sizes)],
            env=place.variables, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout
            for size in sizes:
                with attempt(f"{size // KIB:,} KiB free") as fault:
                    report = json.loads(process.stdout.readline())
                    check_messages(report, fault)
                    home = place.home.with_name(f"{place.home.name}-{size}")
                    fault.loss(*end_state(home).differences(reference))
                    fault.left_overs(
                        path
                        for path in left_overs(home, place.temporary, reference)
                        # The traceback of a run whose home is full, and the socket of the runs' own server.
                        if not path.startswith(("TMPDIR/serverless-logs", "TMPDIR/pymp-"))
                    )
                    shutil.rmtree(home)


def check_messages(report: dict[str, tuple[int, str]], fault: Attempt) -> None:
    """The run on the full disk says that it is full, and the one after it succeeds."""
    code, text = report["full"]
    if code and not any(word in text for word in WORDS):
        fault.silent(f"the run ends with {code} and does not name the disk: {text[-600:]}")
    if "Traceback" in text:
        fault.silent(f"a traceback: {text[-600:]}")
    code, text = report["freed"]
    if code:
        fault.other(f"the next run ends with {code}: {text[-600:]}")
