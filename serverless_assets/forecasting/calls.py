"""Remote calls in Dagster's event log, where they outlive a killed run and are visible in the UI."""

from dataclasses import dataclass
from typing import Literal

import dagster as dg

from serverless_assets import metadata
from serverless_assets.forecasting.compute import Call

State = Literal["started", "ended"]
KEY, ID, LINK, STATE = "call_key", "call_id", "call_link", "call_state"
# Far more than a run and its retries record.
MAX_OBSERVATIONS = 100


@dataclass(frozen=True)
class RecordedCalls:
    """`Calls` for an asset that is being materialized, from every run, as observations of the asset."""

    context: dg.AssetExecutionContext
    asset: str

    def in_flight(self, key: str) -> Call | None:
        ended = set()
        records = self.context.instance.fetch_observations(dg.AssetKey(self.asset), MAX_OBSERVATIONS).records
        for record in records:  # The newest first.
            if not record.asset_observation:
                continue
            observation = metadata.plain(record.asset_observation.metadata)
            if observation.get(KEY) != key:
                continue
            if observation[STATE] == "ended":
                ended.add(observation[ID])
            elif observation[ID] not in ended:
                return Call(key, str(observation[ID]), str(observation[LINK]))
        return None

    def started(self, call: Call) -> None:
        self._record(call, "started")

    def ended(self, call: Call) -> None:
        self._record(call, "ended")

    def _record(self, call: Call, state: State) -> None:
        self.context.log_event(
            dg.AssetObservation(
                self.asset,
                description=f"Remote call {call.id} {state}.",
                metadata={
                    KEY: call.key,
                    ID: call.id,
                    LINK: dg.MetadataValue.url(call.link),
                    STATE: state,
                },
            )
        )


class ForgottenCalls:
    """`Calls` that are not kept: a later run does not resume them."""

    def in_flight(self, key: str) -> Call | None:
        return None

    def started(self, call: Call) -> None:
        pass

    def ended(self, call: Call) -> None:
        pass
