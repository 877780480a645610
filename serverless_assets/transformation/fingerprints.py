"""The fingerprint of each model of a dbt manifest: a hash of each part of its code. Pure."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from serverless_assets.hashing import json_digest

BUILT_IN_PACKAGES = ("dbt", "dbt_duckdb", "dbt_bigquery")

# Which months to build, and who asks: not what is built.
IMMATERIAL_VARIABLES = frozenset({"SERVERLESS_MONTHS", "SERVERLESS_RUN_ID"})

_TOKENS = re.compile(
    r"""(?P<kept>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)   # text and quoted names, to the letter
      | (?P<nothing>\{\#(?!-).*?(?<!-)\#\})                 # a comment of Jinja's; with a dash it takes more
      | (?P<blank>(?:\s|--[^\n]*|/\*.*?\*/)+)""",
    re.VERBOSE | re.DOTALL,
)
# With these, quotes may begin and end elsewhere than the pattern above thinks.
_HARD_TO_READ = re.compile(r"""\\|\$\$|'''|\"\"\"""")

_VARIABLE = re.compile(r"""\bvar\(\s*(?:(['"])(?P<name>[^'"]+)\1)?""")
_ENVIRONMENT_VARIABLE = re.compile(r"""\benv_var\(\s*(?:(['"])(?P<name>[^'"]+)\1)?""")


def normalised(code: str) -> str:
    """The code without what no warehouse sees: comments, and white space beyond one blank.

    A comment is worth nothing to those who read the table, and rebuilding everything downstream costs. Code
    in which quotes are hard to tell is left to the letter: it is built once too often rather than not at all.
    """
    if _HARD_TO_READ.search(code):
        return code
    without = _TOKENS.sub(lambda match: match["kept"] or ("" if match["nothing"] else " "), code)
    return _TOKENS.sub(lambda match: match["kept"] or " ", without).strip()


@dataclass(frozen=True)
class Macros:
    """The macros of a manifest, and the values that variables have in them."""

    macros: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, Any]
    environ: Mapping[str, str]
    # By materialization: the macros of the project and its packages that take part in it.
    own: dict[str, set[str]] = field(default_factory=dict)

    def name(self, id: str) -> str:
        _, package, name = id.split(".")
        return f"{package}.{name}" if self.is_built_in(id) else name

    def is_built_in(self, id: str) -> bool:
        """Whether dbt or its adapter brings the macro."""
        return id.split(".")[1] in BUILT_IN_PACKAGES

    def sql(self, id: str) -> str:
        return str(self.macros[id]["macro_sql"])

    def used_by(self, called: Iterable[str], config: Mapping[str, Any]) -> list[str]:
        """The macros called, those that they call, and so on; and the model's own incremental strategy's.

        Of those that its materialization calls, the ones that are not dbt's own.
        """
        strategy = f".get_incremental_{config.get('incremental_strategy')}_sql"
        materialization = f".materialization_{config.get('materialized')}_"
        if materialization not in self.own:
            builds = self._closure(id for id in self.macros if materialization in id)
            self.own[materialization] = {id for id in builds if not self.is_built_in(id)}
        return sorted(
            self.own[materialization]
            | self._closure([*called, *(id for id in self.macros if id.endswith(strategy))])
        )

    def _closure(self, called: Iterable[str]) -> set[str]:
        waiting = list(called)
        used: set[str] = set()
        while waiting:
            id = waiting.pop()
            if id in self.macros and id not in used:
                used.add(id)
                waiting += self.macros[id]["depends_on"]["macros"]
        return used

    def variables_in(self, codes: Iterable[str]) -> dict[str, str]:
        """A hash for each variable that the code reads; for all of them, if it does not say which."""
        text = "\n".join(codes)
        return {
            **_values("var", _VARIABLE, text, self.variables),
            **_values("variable", _ENVIRONMENT_VARIABLE, text, self.environ),
        }


def _values(kind: str, pattern: re.Pattern[str], text: str, known: Mapping[str, Any]) -> dict[str, str]:
    names = {match["name"] for match in pattern.finditer(text)}
    if None in names:
        return {f"any {kind}": json_digest({k: v for k, v in known.items() if k not in IMMATERIAL_VARIABLES})}
    return {f"{kind} {name}": json_digest(known.get(name)) for name in names - IMMATERIAL_VARIABLES}


MODELS = ("model", "seed", "snapshot")
# The macro that a model calls to be built month by month, and the meta key by which another says that its
# rows of a month come from rows of the same month.
BY_MONTH_MACRO, FOLLOWS_MONTHS = "incremental_by_month", "follows_months"

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
    rows of its own time alone.
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
    reader = _Reader(
        manifest,
        Macros(manifest["macros"], variables, environ),
        {
            **{id: relation_name(node, schema) for id, node in manifest["nodes"].items() if is_model(node)},
            **{id: relation_name(source, schema) for id, source in manifest["sources"].items()},
        },
        large_seeds or {},
    )
    return _in_order(reader.node(node) for node in manifest["nodes"].values() if is_model(node))


def is_model(node: Mapping[str, Any]) -> bool:
    """Whether an entry of the manifest is a model, a seed or a snapshot."""
    return node["resource_type"] in MODELS


def relation_name(properties: Mapping[str, Any], schema: str) -> str:
    """The name of a model's or a source's relation: with its schema, unless that is the target's `schema`."""
    name = str(properties.get("alias") or properties.get("identifier"))
    own = str(properties.get("schema") or schema)
    return name if own.lower() == schema.lower() else f"{own}.{name}"


@dataclass(frozen=True)
class _Reader:
    manifest: Mapping[str, Any]
    macros: Macros
    names: Mapping[str, str]
    large_seeds: Mapping[str, str]

    def node(self, node: Mapping[str, Any]) -> Node:
        config = node["config"]
        used = self.macros.used_by(node["depends_on"].get("macros", ()), config)
        kind = _kind(node, {self.macros.name(id) for id in used})
        ephemerals = {
            f"ephemeral {self.names[id]}": json_digest(self.data_hashes(self.manifest["nodes"][id]))
            for id in self._ephemerals(node)
        }
        parents = [id for id in node["depends_on"].get("nodes", ()) if id in self.names]
        return Node(
            id=node["unique_id"],
            name=self.names[node["unique_id"]],
            data_hashes=self.data_hashes(node) | ephemerals,
            parents=tuple(self.names[id] for id in parents),
            reads=tuple(dict.fromkeys(self._reads(node))),
            kind=kind,
            follows_months=kind == Materialization.BY_MONTH
            or kind == Materialization.MICROBATCH
            or bool((config.get("meta") or {}).get(FOLLOWS_MONTHS)),
            database=str(node.get("database") or ""),
            schema=str(node.get("schema") or ""),
            identifier=str(node.get("alias") or ""),
            begin=str(config.get("begin") or "")[:10],
            filtered=self._filtered(node, parents) if kind == Materialization.MICROBATCH else frozenset(),
        )

    def data_hashes(self, node: Mapping[str, Any]) -> dict[str, str]:
        """A hash of each part of a model, but for the ephemeral models that it selects from."""
        config = {key: value for key, value in node["config"].items() if key not in IMMATERIAL_CONFIG}
        contract = config.pop("contract", None) or {}
        where = {key: node.get(key) for key in ("database", "schema", "alias")}
        code = {"SQL": self._source(node), "config": json_digest([config, where])}
        if node.get("language") == "python":
            code["Python"] = code.pop("SQL")
        if contract.get("enforced"):
            columns = {name: column.get("data_type") for name, column in node["columns"].items()}
            constraints = [node.get("constraints"), [c.get("constraints") for c in node["columns"].values()]]
            code["contract"] = json_digest([columns, constraints])
        used = self.macros.used_by(node["depends_on"].get("macros", ()), config)
        code |= {f"macro {self.macros.name(id)}": json_digest(normalised(self.macros.sql(id))) for id in used}
        for id in node["depends_on"].get("nodes", ()):
            if function := (self.manifest.get("functions") or {}).get(id):
                code[f"function {function['name']}"] = json_digest(function.get("raw_code"))
        hooks = [hook["sql"] for key in ("pre-hook", "post-hook") for hook in config.get(key) or ()]
        texts = [node.get("raw_code") or "", *hooks, *(self.macros.sql(id) for id in used)]
        own_texts = [*texts[:1], *(self.macros.sql(id) for id in used if not self.macros.is_built_in(id))]
        if any("meta" in text for text in own_texts):
            # Elsewhere, meta is documentation.
            code["meta"] = json_digest(node["config"].get("meta"))
        return code | self.macros.variables_in(texts)

    def _source(self, node: Mapping[str, Any]) -> str:
        if node["resource_type"] == "seed":
            return json_digest(self.large_seeds.get(node["unique_id"]) or node["checksum"])
        code = node.get("raw_code") or ""
        # A comment of SQL may be an operator of Python.
        return json_digest(code if node.get("language") == "python" else normalised(code))

    def _reads(self, node: Mapping[str, Any]) -> Iterator[str]:
        for id in node["depends_on"].get("nodes", ()):
            parent = self.manifest["nodes"].get(id)
            if parent and parent["config"].get("materialized") == "ephemeral":
                yield from self._reads(parent)
            elif id in self.names:
                yield self.names[id]

    def _ephemerals(self, node: Mapping[str, Any]) -> Iterator[str]:
        for id in node["depends_on"].get("nodes", ()):
            parent = self.manifest["nodes"].get(id)
            if parent and parent["config"].get("materialized") == "ephemeral":
                yield id
                yield from self._ephemerals(parent)

    def _filtered(self, node: Mapping[str, Any], parents: Iterable[str]) -> frozenset[str]:
        """The parents of which a batch reads its own months alone: dbt filters them by their event_time."""
        code = node.get("raw_code") or ""
        if re.search(r"\bthis\b|\brender\b", code):
            # It may read other batches, or a parent without the filter.
            return frozenset()
        models = self.manifest["nodes"]
        return frozenset(
            self.names[id] for id in parents if id in models and models[id]["config"].get("event_time")
        )


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


def _in_order(found: Iterable[Node]) -> list[Node]:
    waiting = {node.name: node for node in found}
    ordered: list[Node] = []
    while waiting:
        ready = [node for node in waiting.values() if not waiting.keys() & (set(node.parents) - {node.name})]
        # A source may be the relation of a model further down.
        for node in sorted(ready or waiting.values(), key=lambda node: node.name):
            ordered.append(node)
            del waiting[node.name]
    return ordered
