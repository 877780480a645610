"""What each model of a dbt manifest is made of: hashes of its own code, part by part. Pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODELS = ("model", "seed", "snapshot")

# Config that says how a model is documented or found, or which months of it a build is about: none of it
# changes what a full build gives.
IMMATERIAL_CONFIG = frozenset(
    {
        "access", "concurrent_batches", "deprecation_date", "docs", "enabled", "freshness", "full_refresh",
        "group", "incremental_predicates", "meta", "packages", "partitions", "persist_docs", "tags",
    }
)  # fmt: skip

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


@dataclass(frozen=True)
class Node:
    """A model, and what it is made of.

    `code` maps each part of it, in words ("SQL", "macro cents_to_dollars"), to a hash. `parents` are names
    of models and raw tables. `event_time` says that rows of one month come from rows of the same month in
    every parent that has months; a model that is also `incremental` can be built month by month.
    """

    id: str
    name: str
    code: Mapping[str, str]
    parents: tuple[str, ...]
    is_view: bool
    event_time: bool
    incremental: bool

    @property
    def code_version(self) -> str:
        """One hash of all its parts."""
        return digest(self.code)


def nodes(
    manifest: Mapping[str, Any], variables: Mapping[str, Any], environ: Mapping[str, str]
) -> Sequence[Node]:
    """The models of a manifest, each after its parents.

    `variables` are the project's vars, `environ` the environment variables that dbt is run with.
    """
    macros = _Macros(manifest["macros"], variables, environ)
    names = {
        **{id: node["alias"] for id, node in manifest["nodes"].items() if node["resource_type"] in MODELS},
        **{id: source["identifier"] for id, source in manifest["sources"].items()},
    }
    found = {
        id: _node(node, names, macros)
        for id, node in manifest["nodes"].items()
        if node["resource_type"] in MODELS and node["config"].get("materialized") != "ephemeral"
    }
    return _in_order(found.values())


def normalised(code: str) -> str:
    """The code without what no warehouse sees: comments, and white space beyond one blank.

    A comment is worth nothing to those who read the table, and rebuilding everything downstream costs. Code
    in which quotes are hard to tell is left to the letter: it is built once too often rather than not at all.
    """
    if _HARD_TO_READ.search(code):
        return code
    without = _TOKENS.sub(lambda match: match["kept"] or ("" if match["nothing"] else " "), code)
    return _TOKENS.sub(lambda match: match["kept"] or " ", without).strip()


def digest(value: object) -> str:
    """A short hash of any JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _node(node: Mapping[str, Any], names: Mapping[str, str], macros: "_Macros") -> Node:
    config = {key: value for key, value in node["config"].items() if key not in IMMATERIAL_CONFIG}
    contract = config.pop("contract", None) or {}
    where = {key: node.get(key) for key in ("database", "schema", "alias")}
    code = {"SQL": digest(_source(node)), "config": digest([config, where])}
    if contract.get("enforced"):
        columns = {name: column.get("data_type") for name, column in node["columns"].items()}
        constraints = [node.get("constraints"), [c.get("constraints") for c in node["columns"].values()]]
        code["contract"] = digest([columns, constraints])
    used = macros.used_by(node["depends_on"].get("macros", ()), config)
    code |= {f"macro {macros.name(id)}": digest(normalised(macros.sql(id))) for id in used}
    code |= macros.variables_in([node.get("raw_code") or "", *(macros.sql(id) for id in used)])
    return Node(
        id=node["unique_id"],
        name=node["alias"],
        code=code,
        parents=tuple(names[id] for id in node["depends_on"].get("nodes", ()) if id in names),
        is_view=config.get("materialized") == "view",
        event_time=bool(config.get("event_time")),
        incremental=config.get("materialized") == "incremental",
    )


def _source(node: Mapping[str, Any]) -> object:
    if node["resource_type"] == "seed":
        return node["checksum"]
    return normalised(node.get("raw_code") or "")


@dataclass(frozen=True)
class _Macros:
    """The macros of a manifest, and the values that variables have in them."""

    found: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, Any]
    environ: Mapping[str, str]

    def name(self, id: str) -> str:
        _, package, name = id.split(".")
        return name if package not in ("dbt", "dbt_duckdb", "dbt_bigquery") else f"{package}.{name}"

    def sql(self, id: str) -> str:
        return str(self.found[id]["macro_sql"])

    def used_by(self, called: Iterable[str], config: Mapping[str, Any]) -> list[str]:
        """The macros called, those that they call, and so on; and the model's own incremental strategy's."""
        strategy = f".get_incremental_{config.get('incremental_strategy')}_sql"
        waiting = [*called, *(id for id in self.found if id.endswith(strategy))]
        used: set[str] = set()
        while waiting:
            id = waiting.pop()
            if id in self.found and id not in used:
                used.add(id)
                waiting += self.found[id]["depends_on"]["macros"]
        return sorted(used)

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
        return {f"any {kind}": digest({k: v for k, v in known.items() if k not in IMMATERIAL_VARIABLES})}
    return {f"{kind} {name}": digest(known.get(name)) for name in names - IMMATERIAL_VARIABLES}


def _in_order(found: Iterable[Node]) -> list[Node]:
    waiting = {node.name: node for node in found}
    ordered: list[Node] = []
    while waiting:
        ready = [node for node in waiting.values() if not waiting.keys() & set(node.parents)]
        ordered += sorted(ready, key=lambda node: node.name)
        for node in ready:
            del waiting[node.name]
    return ordered
