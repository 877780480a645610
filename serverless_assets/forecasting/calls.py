"""Remote calls on record in Dagster's event log, where a killed run leaves them and people see them."""

from dataclasses import dataclass
from typing import Literal

import dagster as dg

from serverless_assets import metadata
from serverless_assets.forecasting.compute import Call

State = Literal["started", "ended"]
KEY, ID, LINK, STATE = "call_key", "call_id", "call_link", "call_state"
# Far more than a run and its retries record.
MOST_OBSERVATIONS = 100


@dataclass(frozen=True)
class RecordedCalls:
    """See `Calls`: the calls made for the asset that is being materialized, whichever run made them."""

    context: dg.AssetExecutionContext

    def in_flight(self, key: str) -> Call | None:
        ended = set()
        for found in self._newest_first():
            if found.get(KEY) != key:
                continue
            if found[STATE] == "ended":
                ended.add(found[ID])
            elif found[ID] not in ended:
                return Call(key, str(found[ID]), str(found[LINK]))
        return None

    def started(self, call: Call) -> None:
        self._record(call, "started")

    def ended(self, call: Call) -> None:
        self._record(call, "ended")

    def _record(self, call: Call, state: State) -> None:
        self.context.log_event(
            dg.AssetObservation(
                self.context.asset_key,
                description=f"Remote call {call.id} {state}.",
                metadata={
                    KEY: call.key,
                    ID: call.id,
                    LINK: dg.MetadataValue.url(call.link),
                    STATE: state,
                },
            )
        )

    def _newest_first(self) -> list[dict[str, object]]:
        records = self.context.instance.fetch_observations(self.context.asset_key, MOST_OBSERVATIONS).records
        return [
            metadata.plain(record.asset_observation.metadata)
            for record in records
            if record.asset_observation
        ]


class ForgottenCalls:
    """See `Calls`: nobody takes up what is asked on the side. Whatever ends the wait still ends the call."""

    def in_flight(self, key: str) -> Call | None:
        return None

    def started(self, call: Call) -> None:
        pass

    def ended(self, call: Call) -> None:
        pass
