"""The fingerprint of each model of a dbt manifest: a hash of each part of its code. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from serverless_assets.hashing import json_digest, normalised_sql
from serverless_assets.transformation.manifest import (
    TargetSchema,
    has_relation,
    is_model,
    relation_name,
    selected_from,
)
from serverless_assets.transformation.nodes import EPHEMERAL, Materialization, Node
from serverless_assets.transformation.profiles import DECIDED, TARGET_NAME
from serverless_assets.warehouse import published_schema

BUILT_IN_PACKAGES = ("dbt", "dbt_duckdb", "dbt_bigquery")

# They say what a run is for, not what a model is.
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


class ProjectCode:
    """The code of the models and tests of a manifest.

    Args:
        variables: the project's vars.
        environ: the environment variables that dbt is run with.
        large_seeds: a hash of the rows of each seed of which dbt has none, by its unique id.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        variables: Mapping[str, Any],
        environ: Mapping[str, str],
        large_seeds: Mapping[str, str] | None = None,
    ) -> None:
        self._manifest, self._variables, self._environ = manifest, variables, environ
        self._large_seeds = large_seeds or {}
        entries = [*filter(is_model, manifest["nodes"].values()), *manifest["sources"].values()]
        target = TargetSchema.of(environ)
        # The names of relations, by unique id.
        self._names = {entry["unique_id"]: relation_name(entry, target) for entry in entries}
        # By materialization and incremental strategy: the macros that build a model.
        self._builders: dict[tuple[Any, Any], set[str]] = {}
        # By id: a hash of the macro's code. Most models use the same ones.
        self._macro_hashes: dict[str, str] = {}

    def nodes(self) -> Sequence[Node]:
        """Return the models, each after its parents."""
        return _in_order(self._node(entry) for entry in filter(is_model, self._manifest["nodes"].values()))

    def test_hashes(self) -> Mapping[str, str]:
        """Return a hash of the code and the arguments of each data test, by its unique id."""
        tests = [node for node in self._manifest["nodes"].values() if node["resource_type"] == "test"]
        return {
            test["unique_id"]: json_digest([self._data_hashes(test), test.get("test_metadata")])
            for test in tests
        }

    def kind(self, node: Mapping[str, Any]) -> Materialization:
        """Return how a model is built."""
        config = node["config"]
        if node["resource_type"] == "snapshot":
            return Materialization.STATEFUL
        materialized = config.get("materialized")
        if materialized in (Materialization.VIEW, Materialization.EPHEMERAL):
            return Materialization(materialized)
        if materialized != "incremental":
            return Materialization.WHOLE
        if BY_MONTH_MACRO in map(_macro_name, self._macros(node)):
            return Materialization.BY_MONTH
        if config.get("full_refresh") is False:
            return Materialization.STATEFUL
        is_microbatch = config.get("incremental_strategy") == "microbatch"
        return Materialization.MICROBATCH if is_microbatch else Materialization.WHOLE

    def _node(self, node: Mapping[str, Any]) -> Node:
        models, config, names = self._manifest["nodes"], node["config"], self._names
        kind = self.kind(node)
        upstream = [id for id in selected_from(node, self._manifest) if id in names]
        ephemerals = [id for id in upstream if id in models and not has_relation(models[id])]
        parents = [id for id in node["depends_on"].get("nodes", ()) if id in names]
        own_hashes = {**self._data_hashes(node), **self._hooks}
        filtered: list[str] = []
        # With these words, a batch may read other batches, or a parent without dbt's filter.
        if kind == Materialization.MICROBATCH and not re.search(
            r"\bthis\b|\brender\b", node.get("raw_code") or ""
        ):
            filtered = [id for id in parents if id in models and models[id]["config"].get("event_time")]
        in_query = {
            f"{EPHEMERAL}{names[id]}": json_digest(self._data_hashes(models[id])) for id in ephemerals
        }
        return Node(
            id=node["unique_id"],
            name=names[node["unique_id"]],
            data_hashes={**own_hashes, **in_query},
            parents=tuple(names[id] for id in parents),
            reads=tuple(dict.fromkeys(names[id] for id in upstream if id not in ephemerals)),
            kind=kind,
            follows_months=kind in (Materialization.BY_MONTH, Materialization.MICROBATCH)
            or bool((config.get("meta") or {}).get(FOLLOWS_MONTHS)),
            database=str(node.get("database") or ""),
            schema=str(node.get("schema") or ""),
            identifier=str(node.get("alias") or ""),
            begin=str(config.get("begin") or "")[:10],
            filtered=frozenset(names[id] for id in filtered),
            build_hash=self._build_hash(node, kind, ephemerals, own_hashes),
        )

    @cached_property
    def _hooks(self) -> Mapping[str, str]:
        """A hash of what dbt runs before and after all models: it may create what these call."""
        hooks: dict[str, list[Any]] = {}
        for node in self._manifest["nodes"].values():
            for kind in node["tags"] if node["resource_type"] == "operation" else ():
                hooks.setdefault(f"hooks {kind}", []).append(self._data_hashes(node))
        return {part: json_digest(hashes) for part, hashes in hooks.items()}

    def _build_hash(
        self,
        node: Mapping[str, Any],
        kind: Materialization,
        ephemerals: Sequence[str],
        own_hashes: Mapping[str, str],
    ) -> str:
        config, macros = node["config"], self._manifest["macros"]
        code = [node, *(self._manifest["nodes"][id] for id in ephemerals)]
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
        builders = {f"macro {_macro_name(id)}" for id in self._building_macros(config)}
        # Variables of the macros that run the query are not told apart from those of macros in the query.
        in_query = ("SQL", "contract", "macro ", *(() if builders else ("var", "any var", "meta")))
        return json_digest(
            {
                part: hash
                for part, hash in own_hashes.items()
                if part in builders or not part.startswith(in_query)
            }
        )

    def _data_hashes(self, node: Mapping[str, Any]) -> dict[str, str]:
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
            hashes["SQL"] = json_digest(self._large_seeds.get(node["unique_id"]) or node["checksum"])
        else:
            hashes["SQL"] = json_digest(normalised_sql(code))
        if contract.get("enforced"):
            columns = {name: column.get("data_type") for name, column in node["columns"].items()}
            constraints = [node.get("constraints"), [c.get("constraints") for c in node["columns"].values()]]
            hashes["contract"] = json_digest([columns, constraints])
        macros = {id: str(self._manifest["macros"][id]["macro_sql"]) for id in self._macros(node)}
        for id, sql in macros.items():
            if id not in self._macro_hashes:
                self._macro_hashes[id] = json_digest(normalised_sql(sql))
            hashes[f"macro {_macro_name(id)}"] = self._macro_hashes[id]
        own_macros = [sql for id, sql in macros.items() if not _is_built_in(id)]
        if any("meta" in text for text in (code, *own_macros)):
            # Elsewhere, meta is documentation.
            hashes["meta"] = json_digest(node["config"].get("meta"))
        hooks = [hook["sql"] for key in ("pre-hook", "post-hook") for hook in config.get(key) or ()]
        text = "\n".join([code, *hooks, *macros.values()])
        # The name is that of the environment, unless the project gives it another.
        if self._environ.get(TARGET_NAME) not in (None, *DECIDED) and _TARGET.search(text):
            hashes["target"] = json_digest(self._environ[TARGET_NAME])
        return {
            **hashes,
            **_values("var", _VARIABLE, text, self._variables),
            **_values("variable", _ENVIRONMENT_VARIABLE, text, self._environ),
        }

    def _macros(self, node: Mapping[str, Any]) -> list[str]:
        """The ids of the macros that a model calls, those that they call, and so on.

        Its incremental strategy's are among them; of those that its materialization calls, the ones that are
        not dbt's own.
        """
        called = self._closure(node["depends_on"].get("macros", ()))
        return sorted(called | self._building_macros(node["config"]))

    def _building_macros(self, config: Mapping[str, Any]) -> set[str]:
        macros, materialized = self._manifest["macros"], config.get("materialized")
        strategy = config.get("incremental_strategy")
        if (materialized, strategy) not in self._builders:
            builds = self._closure(id for id in macros if f".materialization_{materialized}_" in id)
            own = {id for id in builds if not _is_built_in(id)}
            of_strategy = self._closure(
                id for id in macros if id.endswith(f".get_incremental_{strategy}_sql")
            )
            self._builders[materialized, strategy] = own | of_strategy
        return self._builders[materialized, strategy]

    def _closure(self, called: Iterable[str]) -> set[str]:
        macros, waiting = self._manifest["macros"], list(called)
        used: set[str] = set()
        while waiting:
            id = waiting.pop()
            if id in macros and id not in used:
                used.add(id)
                waiting += macros[id]["depends_on"]["macros"]
        return used


def _is_built_in(macro: str) -> bool:
    """Whether dbt or its adapter brings a macro, given by id."""
    return macro.split(".")[1] in BUILT_IN_PACKAGES


def _macro_name(id: str) -> str:
    _, package, name = id.split(".")
    return f"{package}.{name}" if _is_built_in(id) else name


def _values(kind: str, pattern: re.Pattern[str], text: str, known: Mapping[str, Any]) -> dict[str, str]:
    """A hash for each variable that the code reads; for all of them, if it does not say which."""
    names = {match["name"] for match in pattern.finditer(text)}
    if None in names:
        return {f"any {kind}": json_digest({k: v for k, v in known.items() if k not in IMMATERIAL_VARIABLES})}
    return {f"{kind} {name}": json_digest(known.get(name)) for name in names - IMMATERIAL_VARIABLES}


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
