"""The bundled source: a shop whose tables are served over HTTP on this machine."""
