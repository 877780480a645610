"""The bytes of messages: an Arrow IPC stream in long format, one row for each series and period.

JSON in the metadata of its schema holds the kind of message, the version of the protocol, the names of the
series, the number of rows, and the parameters. Equal messages have equal bytes.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

PROTOCOL_VERSION = 5
UNIQUE_ID = pa.field("unique_id", pa.dictionary(pa.int32(), pa.string()))
ENVELOPE = b"modal_forecast"


class MessageError(ValueError):
    """Bytes, or the parts of a message, that this version of the protocol cannot read."""


def conform(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """Return the table in the layout that makes equal tables equal bytes: these columns, in order of ds."""
    try:
        table = table.select(schema.names)
        if table.schema.types != schema.types:
            table = table.cast(schema)
    except (pa.ArrowException, KeyError, ValueError) as error:
        columns = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise MessageError(f"{what} needs the columns {columns}: {error}") from error
    order = np.argsort(table["ds"].to_numpy(), kind="stable")
    arrays = []
    for field in schema:
        values = table[field.name].to_numpy()[order]
        missing, zeros = np.isnan(values), np.zeros_like(values)
        # Chunks, the values under nulls and the sign of a zero would show in the bytes.
        plain = np.where(missing | (values == zeros), zeros, values)
        arrays.append(pa.array(plain, field.type, mask=missing))
    return pa.table(arrays, schema=schema)


def pack(
    kind: str, tables: Mapping[str, pa.Table], schema: pa.Schema, parameters: Mapping[str, Any]
) -> bytes:
    """Return the bytes of a message: the conformed table of each series, and parameters, JSON values."""
    names = list(tables)
    rows = pa.concat_tables(tables.values()) if tables else schema.empty_table()
    envelope = {
        "kind": kind,
        "version": PROTOCOL_VERSION,
        "rows": rows.num_rows,
        "series": names,
        "parameters": parameters,
    }
    text = json.dumps(envelope, sort_keys=True, allow_nan=False)
    codes = np.repeat(np.arange(len(names), dtype=np.int32), [table.num_rows for table in tables.values()])
    ids = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
    table = pa.table(
        [ids, *rows.combine_chunks().columns], schema=pa.schema([UNIQUE_ID, *schema], {ENVELOPE: text})
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def unpack(raw: bytes, kind: str, schema: pa.Schema) -> tuple[dict[str, pa.Table], Mapping[str, Any]]:
    """Return the table of each series and the parameters of a message of this kind.

    Raises MessageError if it is anything else.
    """
    stream, envelope = _open(raw)
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
    names = envelope["series"]
    if not table.schema.equals(pa.schema([UNIQUE_ID, *schema])) or table["unique_id"].null_count:
        raise MessageError(f"This {kind} is damaged (its columns are others). Send it again.")
    if len(set(names)) < len(names):
        raise MessageError(f"This {kind} has a series more than once. Give every series its own name.")
    ids = table["unique_id"].combine_chunks()
    codes = ids.indices.to_numpy()
    if len(codes) and (ids.dictionary.to_pylist() != names or (np.diff(codes) < 0).any()):
        raise MessageError(f"This {kind} is damaged (its series are mixed up). Send it again.")
    edges = np.searchsorted(codes, np.arange(len(names) + 1))
    rows = table.drop_columns(["unique_id"]).replace_schema_metadata()
    tables = {
        name: rows.slice(start, end - start)
        for name, start, end in zip(names, edges[:-1], edges[1:], strict=True)
    }
    return tables, envelope["parameters"]


def kind_of(raw: bytes) -> str:
    """Return the kind of a message. Raises MessageError if it is none."""
    return str(_open(raw)[1]["kind"])


def _open(raw: bytes) -> tuple[pa.RecordBatchReader, Mapping[str, Any]]:
    """Return the rows of a message, yet to be read, and its JSON."""
    try:
        stream = pa.ipc.open_stream(pa.py_buffer(raw))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MessageError(
            f"These {len(raw):,} bytes are no message of modal_forecast. Send what `to_bytes()` returned."
        ) from error
    try:
        envelope: Mapping[str, Any] = json.loads((stream.schema.metadata or {})[ENVELOPE])
        kind, version, _ = envelope["kind"], envelope["version"], (envelope["rows"], envelope["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(
            "This Arrow table is no message of modal_forecast. Send what `to_bytes()` returned."
        ) from error
    if version != PROTOCOL_VERSION:
        raise MessageError(
            f"This {kind} is of protocol version {version}, and this code reads version {PROTOCOL_VERSION}. "
            "Deploy the worker and its caller from the same commit."
        )
    parameter(envelope, "series")
    return stream, envelope


def parameter(parameters: Mapping[str, Any], name: str) -> Any:
    """Return one of the parameters. Raises MessageError if it is not there."""
    try:
        return parameters[name]
    except (KeyError, TypeError) as error:
        raise MessageError(f"This message lacks its {name}. Send what `to_bytes()` returned.") from error
