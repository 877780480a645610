"""How a message is put into bytes: a small Arrow IPC stream, and JSON in the metadata of its schema.

The JSON has the kind of message, the version of this protocol, the number of rows, and the parameters that
are not a table. Equal messages have equal bytes, so that a hash of a request's bytes identifies the forecast.
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

PROTOCOL_VERSION = 1

_ENVELOPE = b"modal_forecast"


class MessageError(ValueError):
    """Bytes, or the parts of a message, that this version of the protocol cannot read."""


def pack(kind: str, table: pa.Table, parameters: Mapping[str, Any]) -> bytes:
    """The bytes of a message: a table of any schema, and parameters that are JSON values."""
    envelope = {"kind": kind, "version": PROTOCOL_VERSION, "rows": table.num_rows, "parameters": parameters}
    text = json.dumps(envelope, sort_keys=True, allow_nan=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({_ENVELOPE: text})) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def unpack(raw: bytes, kind: str) -> tuple[pa.Table, Mapping[str, Any]]:
    """The table and the parameters of a message of this kind. Raises MessageError if it is anything else."""
    stream = _open(raw)
    envelope = _envelope(stream.schema)
    if envelope["kind"] != kind:
        raise MessageError(f"This is a {envelope['kind']}, where a {kind} was expected.")
    try:
        table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MessageError(f"This {kind} is damaged ({error}). Send it again.") from error
    # A stream cut off between two batches reads as a shorter stream, without an error.
    if table.num_rows != envelope["rows"]:
        raise MessageError(
            f"This {kind} is cut off after {table.num_rows} of {envelope['rows']} rows. Send it again."
        )
    return table.replace_schema_metadata(), envelope["parameters"]


def kind_of(raw: bytes) -> str:
    """The kind that a message was packed as. Raises MessageError if these are the bytes of none."""
    return str(_envelope(_open(raw).schema)["kind"])


def _open(raw: bytes) -> pa.RecordBatchReader:
    try:
        return pa.ipc.open_stream(pa.py_buffer(raw))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MessageError(
            f"These {len(raw):,} bytes are no message of modal_forecast. Send what `to_bytes()` returned."
        ) from error


def _envelope(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        envelope: Mapping[str, Any] = json.loads((schema.metadata or {})[_ENVELOPE])
        kind, version, _ = envelope["kind"], envelope["version"], (envelope["rows"], envelope["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(
            "This Arrow table is no message of modal_forecast. Send what `to_bytes()` returned."
        ) from error
    if version != PROTOCOL_VERSION:
        raise MessageError(
            f"This {kind} is of protocol version {version}, and version {PROTOCOL_VERSION} is spoken here. "
            "Deploy the worker and its caller from the same commit."
        )
    return envelope


def parameter(parameters: Mapping[str, Any], name: str) -> Any:
    """One of the parameters. Raises MessageError if it is not there."""
    try:
        return parameters[name]
    except (KeyError, TypeError) as error:
        raise MessageError(f"This message lacks its {name}. Send what `to_bytes()` returned.") from error
