"""Quoting: every name and text that enters SQL goes through here."""


def identifier(*parts: str) -> str:
    """A quoted, possibly dotted name, in DuckDB's and standard SQL's way."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def literal(text: str) -> str:
    """A quoted string."""
    return "'" + text.replace("'", "''") + "'"
