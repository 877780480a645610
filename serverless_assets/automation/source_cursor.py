"""What `source_updated` remembers from tick to tick, as its cursor."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serverless_assets.automation.source_changes import Launch, Watch
from serverless_assets.automation.source_marks import Marks, Question
from serverless_assets.automation.source_outage import Outage


@dataclass(frozen=True)
class Cursor:
    """The cursor of one source. It holds no address and no secret."""

    watch: Watch = field(default_factory=Watch)
    outage: Outage = field(default_factory=Outage)

    @classmethod
    def read(cls, text: str | None) -> "Cursor":
        """The one that was written as `text`; a new one if that is none."""
        try:
            found = json.loads(text or "{}")
            launched = found.get("launched")
            watch = Watch(
                found["source"],
                _marks(found["confirmed"]),
                Launch(_marks(launched["marks"]), tuple(launched["runs"])) if launched else None,
                found["last_change"],
            )
            return cls(watch, Outage(found["down_since"], found["told"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            # Somebody reset or edited it: to look at everything once is never wrong.
            return cls()

    def __str__(self) -> str:
        watch, launched = self.watch, self.watch.launched
        return json.dumps(
            {
                "source": watch.source,
                "confirmed": _plain(watch.confirmed),
                "launched": {"marks": _plain(launched.marks), "runs": list(launched.runs)}
                if launched
                else None,
                "last_change": watch.last_change,
                "down_since": self.outage.since,
                "told": self.outage.told,
            }
        )


def _marks(found: Mapping[str, Any]) -> Marks:
    return {Question.of(question): str(mark) for question, mark in found.items()}


def _plain(marks: Marks) -> dict[str, str]:
    return {str(question): mark for question, mark in marks.items()}
