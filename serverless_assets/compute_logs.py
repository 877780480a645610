"""Dagster's logs of what the code of a run prints, kept beside the run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from serverless_assets.dagster_internals import CapturedLogContext, LocalComputeLogManager


class ComputeLogs(LocalComputeLogManager):
    """Dagster's own, with an option to leave the output of a process in the terminal.

    To show captured output in the terminal as well, Dagster starts four processes, of which two print a
    traceback on Ctrl-C.
    """

    is_capturing = True

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "ComputeLogs":
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        if not self.is_capturing:
            yield CapturedLogContext(log_key)
            return
        with super().capture_logs(log_key) as context:
            yield context
