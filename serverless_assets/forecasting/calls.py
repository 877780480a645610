"""Remote calls in flight: kept in the warehouse, where a run in a fresh container finds them."""

from dataclasses import asdict, dataclass

import dagster as dg

from serverless_assets.forecasting.compute import Call
from serverless_assets.warehouse import Warehouse

# The record of the warehouse that holds, by asset, the key, id and link of its last call.
CALLS_RECORD = "calls_in_flight"


@dataclass(frozen=True)
class RecordedCalls:
    """`Calls` for an asset that is being materialized: one at a time, the last one that was started."""

    context: dg.AssetExecutionContext
    asset: str
    warehouse: Warehouse

    def in_flight(self, key: str) -> Call | None:
        call = self.warehouse.read_record(CALLS_RECORD).get(self.asset)
        return Call(**call) if call and call["key"] == key else None

    def started(self, call: Call) -> None:
        calls = self.warehouse.read_record(CALLS_RECORD)
        self.warehouse.write_record(CALLS_RECORD, {**calls, self.asset: asdict(call)})
        # For people, who find the call in the UI.
        self.context.log_event(
            dg.AssetObservation(
                self.asset,
                description=f"Remote call {call.id} started.",
                metadata={"call_id": call.id, "call_link": dg.MetadataValue.url(call.link)},
            )
        )

    def ended(self, call: Call) -> None:
        calls = dict(self.warehouse.read_record(CALLS_RECORD))
        if calls.get(self.asset) == asdict(call):
            del calls[self.asset]
            self.warehouse.write_record(CALLS_RECORD, calls)


class ForgottenCalls:
    """`Calls` that are not kept: a later run does not resume them."""

    def in_flight(self, key: str) -> Call | None:
        return None

    def started(self, call: Call) -> None:
        pass

    def ended(self, call: Call) -> None:
        pass
