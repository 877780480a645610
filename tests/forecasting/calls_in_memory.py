from dataclasses import dataclass, field

from serverless_assets.forecasting.compute import Call, Calls


@dataclass
class CallsInMemory(Calls):
    """`Calls` that do not outlive the test."""

    begun: list[Call] = field(default_factory=list)
    over: list[Call] = field(default_factory=list)

    def in_flight(self, key: str) -> Call | None:
        waiting = [call for call in self.begun if call.key == key and call not in self.over]
        return waiting[-1] if waiting else None

    def started(self, call: Call) -> None:
        self.begun.append(call)

    def ended(self, call: Call) -> None:
        self.over.append(call)
