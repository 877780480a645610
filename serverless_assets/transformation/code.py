"""The code of a dbt project as the warehouse sees it: normalised SQL, macros and variables. Pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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


def digest(value: object) -> str:
    """A short hash of any JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Macros:
    """The macros of a manifest, and the values that variables have in them."""

    found: Mapping[str, Mapping[str, Any]]
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
        return str(self.found[id]["macro_sql"])

    def used_by(self, called: Iterable[str], config: Mapping[str, Any]) -> list[str]:
        """The macros called, those that they call, and so on; and the model's own incremental strategy's.

        Of those that its materialization calls, the ones that are not dbt's own.
        """
        strategy = f".get_incremental_{config.get('incremental_strategy')}_sql"
        materialization = f".materialization_{config.get('materialized')}_"
        if materialization not in self.own:
            builds = self._closure(id for id in self.found if materialization in id)
            self.own[materialization] = {id for id in builds if not self.is_built_in(id)}
        return sorted(
            self.own[materialization]
            | self._closure([*called, *(id for id in self.found if id.endswith(strategy))])
        )

    def _closure(self, called: Iterable[str]) -> set[str]:
        waiting = list(called)
        used: set[str] = set()
        while waiting:
            id = waiting.pop()
            if id in self.found and id not in used:
                used.add(id)
                waiting += self.found[id]["depends_on"]["macros"]
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
        return {f"any {kind}": digest({k: v for k, v in known.items() if k not in IMMATERIAL_VARIABLES})}
    return {f"{kind} {name}": digest(known.get(name)) for name in names - IMMATERIAL_VARIABLES}
