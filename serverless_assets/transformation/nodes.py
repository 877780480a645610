"""A model of the dbt project, as far as that decides what is built. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from serverless_assets.hashing import json_digest

# Begins the name of the part of a model that is the code of an ephemeral model.
EPHEMERAL = "ephemeral "


class Materialization(StrEnum):
    """How a model is built, as far as that decides what has to be built."""

    VIEW = "view"
    # Part of the query of each model that selects from it.
    EPHEMERAL = "ephemeral"
    # Tables, seeds, and incremental models that are rebuilt from all rows.
    WHOLE = "whole"
    # By this project's macro incremental_by_month.
    BY_MONTH = "by month"
    MICROBATCH = "microbatch"
    # Snapshots, and incremental models with `full_refresh: false`: their rows cannot be computed again.
    STATEFUL = "stateful"


@dataclass(frozen=True)
class Node:
    """A model, and what it is made of.

    `name` is that of its relation, with its schema if that is not the target's. `data_hashes` maps each part
    of it ("SQL", "macro cents_to_dollars") to a hash. `parents` are names of models and raw tables, and
    `reads` those of the relations among them and behind the ephemeral ones. `follows_months` says that rows
    of one month come from rows of the same month in every parent that has months. Of a microbatch model,
    `begin` is the day of the first batch, and `filtered` are the parents of which dbt has a batch read the
    rows of its own time alone. `build_hash` is a hash of what decides on the rows beside the query that dbt
    compiles: how it is run. It is empty if the compiled query does not tell what the model reads.
    """

    id: str
    name: str
    data_hashes: Mapping[str, str]
    parents: tuple[str, ...]
    reads: tuple[str, ...]
    kind: Materialization = Materialization.WHOLE
    follows_months: bool = False
    database: str = ""
    schema: str = ""
    identifier: str = ""
    begin: str = ""
    filtered: frozenset[str] = frozenset()
    build_hash: str = ""

    @property
    def fingerprint(self) -> str:
        """One hash of all its parts."""
        return json_digest(self.data_hashes)
