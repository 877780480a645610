"""A forecast by day, week or month, and its report, that run on Modal, in a worker process or from a shell.

`model.py` has `forecast()`, `messages.py` what it is asked and answers; docs/ARCHITECTURE.md names all files.

It imports neither dagster nor serverless_assets. This file imports nothing, because a worker decides what is
loaded, and in which order (see worker.reserve_little_memory).
"""
