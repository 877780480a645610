"""The fingerprint of each model of a dbt manifest: a hash of each part of its code. Pure."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from serverless_assets.hashing import json_digest, normalised_sql
from serverless_assets.transformation.manifest import is_model, relation_name
from serverless_assets.transformation.profiles import DECIDED, TARGET_NAME
from serverless_assets.warehouse import published_schema

BUILT_IN_PACKAGES = ("dbt", "dbt_duckdb", "dbt_bigquery")

# Begins the name of the part of a model that is the code of an ephemeral model.
EPHEMERAL = "ephemeral "

# Which months to build, and who asks: not what is built.
IMMATERIAL_VARIABLES = frozenset({"SERVERLESS_MONTHS", "SERVERLESS_RUN_ID", TARGET_NAME})

_VARIABLE = re.compile(r"""\bvar\(\s*(?:(['"])(?P<name>[^'"]+)\1)?""")
# Code that may read the target's name: not what follows from the environment, such as its schema.
_TARGET = re.compile(r"\btarget\b(?!\s*\.\s*(?!name\b)\w)")
_ENVIRONMENT_VARIABLE = re.compile(r"""\benv_var\(\s*(?:(['"])(?P<name>[^'"]+)\1)?""")


# The macro that a model calls to be built month by month, and the meta key by which another says that its
# rows of a month come from rows of the same month.
BY_MONTH_MACRO, FOLLOWS_MONTHS = "incremental_by_month", "follows_months"

# Code that asks the warehouse or the clock while it is compiled: the same code may give another query.
_ASKS_WHEN_COMPILED = re.compile(
    r"\b(run_query|statement|load_result|execute|graph|star|run_started_at|invocation_id|now|utcnow|today"
    r"|adapter\s*\.(?!\s*(dispatch|quote)\b)|\w*get_\w*(column|relation|value|field|query)\w*)\b"
)

# Config that says how a model is documented or found, or which months of it a build is about: none of it
# changes what a full build gives.
IMMATERIAL_CONFIG = frozenset(
    {
        "access", "concurrent_batches", "deprecation_date", "docs", "enabled", "freshness", "full_refresh",
        "group", "incremental_predicates", "meta", "packages", "partitions", "persist_docs", "tags",
    }
)  # fmt: skip


class Materialization(StrEnum):
    """How a model is built, as far as that decides what has to be built."""

    VIEW = "view"
    # Part of the query of whatever selects from it.
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


def nodes(
    manifest: Mapping[str, Any],
    variables: Mapping[str, Any],
    environ: Mapping[str, str],
    large_seeds: Mapping[str, str] | None = None,
) -> Sequence[Node]:
    """The models of a manifest, each after its parents.

    `variables` are the project's vars, `environ` the environment variables that dbt is run with.
    `large_seeds` maps the ids of seeds whose rows dbt does not hash to a hash of them.
    """
    schema = environ.get("DBT_SCHEMA", "")
    models = {id: node for id, node in manifest["nodes"].items() if is_model(node)}
    names = {id: relation_name(entry, schema) for id, entry in {**models, **manifest["sources"]}.items()}
    reader = _Reader(manifest, names, variables, environ, large_seeds or {})
    return _in_order(reader.node(node) for node in models.values())


def test_hashes(
    manifest: Mapping[str, Any], variables: Mapping[str, Any], environ: Mapping[str, str]
) -> Mapping[str, str]:
    """A hash of the code and the arguments of each data test, by its unique id."""
    reader = _Reader(manifest, {}, variables, environ, {})
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    return {
        test["unique_id"]: json_digest([reader.data_hashes(test), test.get("test_metadata")])
        for test in tests
    }


def models_by_month(manifest: Mapping[str, Any]) -> Collection[str]:
    """The unique ids of the models that are built month by month."""
    reader = _Reader(manifest, {}, {}, {}, {})
    incremental = {
        id: node
        for id, node in manifest["nodes"].items()
        if is_model(node) and node["config"].get("materialized") == "incremental"
    }
    kinds = {id: _kind(node, reader.macro_names(node)) for id, node in incremental.items()}
    return {id for id, kind in kinds.items() if kind == Materialization.BY_MONTH}


@dataclass(frozen=True)
class _Reader:
    """A manifest, the names of its relations by id, and the values that variables have in its code."""

    manifest: Mapping[str, Any]
    names: Mapping[str, str]
    variables: Mapping[str, Any]
    environ: Mapping[str, str]
    large_seeds: Mapping[str, str]
    # By materialization: the macros of the project and its packages that take part in it.
    own_macros: dict[str, set[str]] = field(default_factory=dict)
    # By id: a hash of the macro's code. Most models use the same ones.
    macro_hashes: dict[str, str] = field(default_factory=dict)

    def node(self, node: Mapping[str, Any]) -> Node:
        """Return a model and what it is made of."""
        models, config = self.manifest["nodes"], node["config"]
        kind = _kind(node, self.macro_names(node))
        upstream = list(self._upstream(node))
        ephemerals = [id for id in upstream if self._is_ephemeral(id)]
        parents = [id for id in node["depends_on"].get("nodes", ()) if id in self.names]
        own_hashes = {**self.data_hashes(node), **self._hooks}
        filtered: list[str] = []
        # With these words, a batch may read other batches, or a parent without dbt's filter.
        if kind == Materialization.MICROBATCH and not re.search(
            r"\bthis\b|\brender\b", node.get("raw_code") or ""
        ):
            filtered = [id for id in parents if id in models and models[id]["config"].get("event_time")]
        return Node(
            id=node["unique_id"],
            name=self.names[node["unique_id"]],
            data_hashes={
                **own_hashes,
                **{
                    f"{EPHEMERAL}{self.names[id]}": json_digest(self.data_hashes(models[id]))
                    for id in ephemerals
                },
            },
            parents=tuple(self.names[id] for id in parents),
            reads=tuple(
                dict.fromkeys(self.names[id] for id in upstream if id in self.names and id not in ephemerals)
            ),
            kind=kind,
            follows_months=kind in (Materialization.BY_MONTH, Materialization.MICROBATCH)
            or bool((config.get("meta") or {}).get(FOLLOWS_MONTHS)),
            database=str(node.get("database") or ""),
            schema=str(node.get("schema") or ""),
            identifier=str(node.get("alias") or ""),
            begin=str(config.get("begin") or "")[:10],
            filtered=frozenset(self.names[id] for id in filtered),
            build_hash=self._build_hash(node, kind, ephemerals, own_hashes),
        )

    @cached_property
    def _hooks(self) -> Mapping[str, str]:
        """A hash of what dbt runs before and after all models: it may create what these call."""
        hooks: dict[str, list[Any]] = {}
        for node in self.manifest["nodes"].values():
            for kind in node["tags"] if node["resource_type"] == "operation" else ():
                hooks.setdefault(f"hooks {kind}", []).append(self.data_hashes(node))
        return {part: json_digest(hashes) for part, hashes in hooks.items()}

    def macro_names(self, node: Mapping[str, Any]) -> Collection[str]:
        """The names of the macros that a model uses."""
        return {self._macro_name(id) for id in self._macros(node)}

    def _build_hash(
        self,
        node: Mapping[str, Any],
        kind: Materialization,
        ephemerals: Sequence[str],
        own_hashes: Mapping[str, str],
    ) -> str:
        config, macros = node["config"], self.manifest["macros"]
        code = [node, *(self.manifest["nodes"][id] for id in ephemerals)]
        called = self._closure(id for part in code for id in part["depends_on"].get("macros", ()))
        texts = [
            *(part.get("raw_code") or "" for part in code),
            *(macros[id]["macro_sql"] for id in called if not _is_built_in(id)),
        ]
        if (
            kind not in (Materialization.VIEW, Materialization.WHOLE, Materialization.BY_MONTH)
            or node["resource_type"] != "model"
            or node.get("language") != "sql"
            or any(config.get(key) for key in ("pre-hook", "post-hook", "sql_header"))
            or any(_ASKS_WHEN_COMPILED.search(text) for text in texts)
        ):
            return ""
        builders = {f"macro {self._macro_name(id)}" for id in self._building_macros(config)}
        # What the macros read that run the query is not told apart from what those read that are in it.
        in_query = ("SQL", "contract", "macro ", *(() if builders else ("var", "any var", "meta")))
        return json_digest(
            {
                part: hash
                for part, hash in own_hashes.items()
                if part in builders or not part.startswith(in_query)
            }
        )

    def _is_ephemeral(self, id: str) -> bool:
        node = self.manifest["nodes"].get(id)
        return bool(node) and node["config"].get("materialized") == "ephemeral"

    def _upstream(self, node: Mapping[str, Any]) -> Iterator[str]:
        """The ids of what a model selects from, each ephemeral one followed by what that selects from."""
        for id in node["depends_on"].get("nodes", ()):
            yield id
            if self._is_ephemeral(id):
                yield from self._upstream(self.manifest["nodes"][id])

    def data_hashes(self, node: Mapping[str, Any]) -> dict[str, str]:
        """A hash of each part of a model, but for the ephemeral models that it selects from."""
        config = {key: value for key, value in node["config"].items() if key not in IMMATERIAL_CONFIG}
        contract = config.pop("contract", None) or {}
        where = {key: node.get(key) for key in ("database", "schema", "alias")}
        where["schema"] = where["schema"] and published_schema(where["schema"])
        hashes = {"config": json_digest([config, where])}
        code = node.get("raw_code") or ""
        if node.get("language") == "python":
            # A comment of SQL may be an operator of Python.
            hashes["Python"] = json_digest(code)
        elif node["resource_type"] == "seed":
            hashes["SQL"] = json_digest(self.large_seeds.get(node["unique_id"]) or node["checksum"])
        else:
            hashes["SQL"] = json_digest(normalised_sql(code))
        if contract.get("enforced"):
            columns = {name: column.get("data_type") for name, column in node["columns"].items()}
            constraints = [node.get("constraints"), [c.get("constraints") for c in node["columns"].values()]]
            hashes["contract"] = json_digest([columns, constraints])
        macros = {id: str(self.manifest["macros"][id]["macro_sql"]) for id in self._macros(node)}
        for id, sql in macros.items():
            if id not in self.macro_hashes:
                self.macro_hashes[id] = json_digest(normalised_sql(sql))
            hashes[f"macro {self._macro_name(id)}"] = self.macro_hashes[id]
        own_macros = [sql for id, sql in macros.items() if not _is_built_in(id)]
        if any("meta" in text for text in (code, *own_macros)):
            # Elsewhere, meta is documentation.
            hashes["meta"] = json_digest(node["config"].get("meta"))
        hooks = [hook["sql"] for key in ("pre-hook", "post-hook") for hook in config.get(key) or ()]
        text = "\n".join([code, *hooks, *macros.values()])
        # The name is that of the environment, unless the project gives it another.
        if self.environ.get(TARGET_NAME) not in (None, *DECIDED) and _TARGET.search(text):
            hashes["target"] = json_digest(self.environ[TARGET_NAME])
        return {
            **hashes,
            **_values("var", _VARIABLE, text, self.variables),
            **_values("variable", _ENVIRONMENT_VARIABLE, text, self.environ),
        }

    def _macros(self, node: Mapping[str, Any]) -> list[str]:
        """The ids of the macros that a model calls, those that they call, and so on.

        Its incremental strategy's are among them; of those that its materialization calls, the ones that are
        not dbt's own.
        """
        called = self._closure(node["depends_on"].get("macros", ()))
        return sorted(called | self._building_macros(node["config"]))

    def _building_macros(self, config: Mapping[str, Any]) -> set[str]:
        macros, materialization = self.manifest["macros"], f".materialization_{config.get('materialized')}_"
        if materialization not in self.own_macros:
            builds = self._closure(id for id in macros if materialization in id)
            self.own_macros[materialization] = {id for id in builds if not _is_built_in(id)}
        strategy = f".get_incremental_{config.get('incremental_strategy')}_sql"
        return self.own_macros[materialization] | self._closure(id for id in macros if id.endswith(strategy))

    def _closure(self, called: Iterable[str]) -> set[str]:
        macros, waiting = self.manifest["macros"], list(called)
        used: set[str] = set()
        while waiting:
            id = waiting.pop()
            if id in macros and id not in used:
                used.add(id)
                waiting += macros[id]["depends_on"]["macros"]
        return used

    def _macro_name(self, id: str) -> str:
        _, package, name = id.split(".")
        return f"{package}.{name}" if _is_built_in(id) else name


def _is_built_in(macro: str) -> bool:
    """Whether dbt or its adapter brings a macro, given by id."""
    return macro.split(".")[1] in BUILT_IN_PACKAGES


def _values(kind: str, pattern: re.Pattern[str], text: str, known: Mapping[str, Any]) -> dict[str, str]:
    """A hash for each variable that the code reads; for all of them, if it does not say which."""
    names = {match["name"] for match in pattern.finditer(text)}
    if None in names:
        return {f"any {kind}": json_digest({k: v for k, v in known.items() if k not in IMMATERIAL_VARIABLES})}
    return {f"{kind} {name}": json_digest(known.get(name)) for name in names - IMMATERIAL_VARIABLES}


def _kind(node: Mapping[str, Any], macros: Collection[str]) -> Materialization:
    """How a model is built. `macros` are the names of those that it uses."""
    config = node["config"]
    if node["resource_type"] == "snapshot":
        return Materialization.STATEFUL
    materialized = config.get("materialized")
    if materialized in (Materialization.VIEW, Materialization.EPHEMERAL):
        return Materialization(materialized)
    if materialized != "incremental":
        return Materialization.WHOLE
    if BY_MONTH_MACRO in macros:
        return Materialization.BY_MONTH
    if config.get("full_refresh") is False:
        return Materialization.STATEFUL
    return (
        Materialization.MICROBATCH
        if config.get("incremental_strategy") == "microbatch"
        else Materialization.WHOLE
    )


def _in_order(nodes: Iterable[Node]) -> list[Node]:
    waiting = {node.name: node for node in nodes}
    ordered: list[Node] = []
    while waiting:
        ready = [node for node in waiting.values() if not waiting.keys() & (set(node.parents) - {node.name})]
        # A source may be the relation of a model further down.
        for node in sorted(ready or waiting.values(), key=lambda node: node.name):
            ordered.append(node)
            del waiting[node.name]
    return ordered
