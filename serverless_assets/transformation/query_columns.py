"""What each column of a query is computed from, and by what code. Pure.

It tells whether an edit of a model changes what its readers read. A hash of the values of each column would
tell it, too, but reads every new table once more, and is known only when the table is built: long after dbt
was told what to build. Code is known before. The same code over the same rows gives the same values, unless
it picks among equals or asks the clock: such a column is not sure, and a query with anything else that is
not understood is not sure as a whole. What is not sure counts as changed with every change of its model.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

# dagster-dbt imports sqlglot too, so that this costs nothing.
from sqlglot import MappingSchema, exp, parse_one, to_table
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

from serverless_assets.hashing import json_digest
from serverless_assets.transformation.relation_states import ROWS, UNSURE, QueryColumns


class UnsureError(Exception):
    """It is not known what the query reads, or whether it gives the same again."""


def query_columns(
    sql: str, relations: Mapping[str, str], columns: Mapping[str, Sequence[str]], dialect: str
) -> QueryColumns:
    """Return what each column of a query is computed from; empty if that is not sure.

    Args:
        sql: the query as dbt compiled it.
        relations: the name of each relation that it may read, by its name as dbt writes it in a query.
        columns: the columns, in order, of those relations of which they are known, by name.
        dialect: sqlglot's name of the warehouse's SQL.
    """
    schema, tables = MappingSchema(dialect=dialect), {}
    for quoted, name in relations.items():
        table = to_table(quoted, dialect=dialect)
        tables[_key(table)] = _Table(name, is_known=bool(columns.get(name)))
        if columns.get(name):
            schema.add_table(table, dict.fromkeys(columns[name], "unknown"), dialect=dialect)
    try:
        query = parse_one(sql, dialect=dialect)
        used = {table for table in map(_key, query.find_all(exp.Table)) if table in tables}
        if not all(tables[table].is_known for table in used) and _is_ambiguous(query):
            return {}
        for node in query.walk():
            node.pop_comments()
        qualified = qualify(
            query,
            dialect=dialect,
            schema=schema,
            allow_partial_qualification=True,
            validate_qualify_columns=False,
        )
        result = _Reader(tables).read(cast("Scope", build_scope(qualified)), {})
    # sqlglot raises many kinds of errors about what it does not know.
    except Exception:
        return {}
    if isinstance(result, _Table):
        return {}
    rows = result.rows
    return {
        ROWS: (rows.code, _by_relation(rows.reads)),
        **{
            name: (("" if column.is_sure else UNSURE) + column.code, _by_relation(column.reads - rows.reads))
            for name, column in result.columns.items()
        },
    }


def _is_ambiguous(query: exp.Expr) -> bool:
    """Whether a name may stand for a column or for something else, depending on which columns there are."""
    if any(join.method or join.args.get("using") for join in query.find_all(exp.Join)):
        return True
    for select in query.find_all(exp.Select):
        is_subquery = isinstance(select.parent, exp.Subquery | exp.In | exp.Exists)
        if is_subquery and not isinstance(
            select.find_ancestor(exp.From, exp.Join, exp.Select), exp.From | exp.Join
        ):
            return True
        aliases = {value.alias.lower(): value for value in select.expressions if isinstance(value, exp.Alias)}
        for node in select.walk(prune=lambda node: isinstance(node, exp.With | exp.Subquery)):
            is_name = isinstance(node, exp.Column) and not node.table
            if is_name and aliases.get(node.name.lower()) not in (None, node.find_ancestor(exp.Alias)):
                return True
    return False


def _by_relation(reads: Collection[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    columns: dict[str, list[str]] = {name: [] for name, _ in sorted(reads)}
    for name, column in sorted(reads):
        columns[name] += [column] if column != ROWS else []
    return columns


def _key(table: exp.Table) -> tuple[str, ...]:
    return table.catalog.lower(), table.db.lower(), table.name.lower()


@dataclass(frozen=True)
class _Part:
    """A piece of a query: a hash of its code, and the columns that it reads, each with its relation."""

    code: str
    reads: frozenset[tuple[str, str]] = frozenset()
    is_sure: bool = True


def _together(code: str, parts: Mapping[str, _Part], is_sure: bool = True) -> _Part:
    return _Part(
        json_digest([code, {name: part.code for name, part in parts.items()}]),
        frozenset[tuple[str, str]]().union(*(part.reads for part in parts.values())),
        is_sure and all(part.is_sure for part in parts.values()),
    )


@dataclass(frozen=True)
class _Table:
    """A relation that a query reads; `is_known` says whether its columns are."""

    name: str
    is_known: bool

    @property
    def rows(self) -> _Part:
        return _Part(self.name, frozenset({(self.name, ROWS)}))

    def column(self, name: str) -> _Part:
        return _Part(f"{self.name}.{name}", self.rows.reads | {(self.name, name)})


class _Query:
    """What a SELECT, or a union of two, gives: rows, and columns in order."""

    def __init__(
        self, shape: str, rows: Mapping[str, _Part], values: Mapping[str, _Part], are_rows: bool
    ) -> None:
        """`are_rows`: which rows there are depends on all values."""
        self.rows = _together(shape, {**rows, **(values if are_rows else {})})
        if not self.rows.is_sure:
            raise UnsureError
        self.columns = {
            name: _together("column", {"rows": self.rows, "value": value}) for name, value in values.items()
        }

    def column(self, name: str) -> _Part:
        return self.columns[name]


Sources = Mapping[str, _Table | _Query]


class _Reader:
    """Reads queries over `tables`, each by its name in a query."""

    def __init__(self, tables: Mapping[tuple[str, ...], _Table]) -> None:
        self._tables = tables
        # By the identity of their expressions, as several queries may select from one.
        self._queries: dict[int, _Table | _Query] = {}

    def read(self, scope: Scope, outer: Sources) -> _Table | _Query:
        """Return what a query gives: the table itself for `select * from` one whose columns are not known.

        outer: what the query around it selects from, by alias.
        """
        query = scope.expression
        if id(query) not in self._queries:
            sources = [source for _, source in scope.selected_sources.values()]
            if len(sources) == 1 and _is_star(query):
                self._queries[id(query)] = self._source(sources[0])
            elif isinstance(query, exp.Union):
                self._queries[id(query)] = self._union(query, scope, outer)
            elif isinstance(query, exp.Select):
                self._queries[id(query)] = self._select(query, scope, outer)
            else:
                raise UnsureError
        return self._queries[id(query)]

    def _source(self, source: object) -> _Table | _Query:
        if isinstance(source, Scope):
            return self.read(source, {})
        if not isinstance(source, exp.Table) or not isinstance(source.this, exp.Identifier):
            raise UnsureError
        _allow(source, {"this", "db", "catalog", "alias"})
        return self._tables[_key(source)]

    def _inner(self, scope: Scope, outer: Sources) -> _Query:
        query = self.read(scope, outer)
        if isinstance(query, _Table):
            raise UnsureError
        return query

    def _union(self, query: exp.Union, scope: Scope, outer: Sources) -> _Query:
        _allow(query, {"this", "expression", "distinct", "with_", "order"})
        left, right = (self._inner(part, outer) for part in scope.set_operation_scopes)
        if len(left.columns) != len(right.columns):
            raise UnsureError
        pairs = {
            name: _together("union", {"left": column, "right": other})
            for (name, column), other in zip(left.columns.items(), right.columns.values(), strict=True)
        }
        is_distinct = bool(query.args.get("distinct"))
        rows = {"left": left.rows, "right": right.rows}
        return _Query("union" if is_distinct else "union all", rows, pairs, are_rows=is_distinct)

    def _select(self, query: exp.Select, scope: Scope, outer: Sources) -> _Query:
        _allow(query, {"expressions", "distinct", "from_", "with_", "joins", *CONDITIONS, "order"})
        if (query.args.get("with_") or exp.With()).args.get("recursive"):
            raise UnsureError
        own = {alias: self._source(source) for alias, (_, source) in scope.selected_sources.items()}
        joins = query.args.get("joins") or []
        tables = [*([query.args["from_"].this] if query.args.get("from_") else []), *(j.this for j in joins)]
        if len(tables) != len(own) or not all(
            isinstance(table, exp.Table | exp.Subquery) for table in tables
        ):
            raise UnsureError
        shape = [*own]
        conditions: list[exp.Expr] = []
        for join in joins:
            _allow(join, {"this", "on", "side", "kind"})
            shape.append(f"{join.side} {join.kind} {join.this.alias_or_name}")
            conditions += [join.args["on"]] if join.args.get("on") else []
        for clause in CONDITIONS:
            value = query.args.get(clause)
            conditions += value if isinstance(value, list) else [value] if value else []
        group = query.args.get("group") or exp.Group()
        if group.args.get("all") or any(isinstance(key, exp.Literal) for key in group.expressions):
            raise UnsureError
        subqueries = {id(inner.expression): inner for inner in scope.subquery_scopes}
        sources = {**outer, **own}
        for source in own.values():
            if len(own) == 1 and isinstance(source, _Table) and not source.is_known:
                # Where columns are known, sqlglot has named the relation of each.
                sources[""] = source
        values = {
            value.alias_or_name.lower(): self._expression(value, sources, subqueries)
            for value in query.expressions
        }
        if len(values) != len(query.expressions):
            raise UnsureError
        if any(_is_aggregate(node) for value in query.expressions for node in value.find_all(exp.AggFunc)):
            # Without groups, it leaves one row.
            shape.append("aggregated")
        if distinct := query.args.get("distinct"):
            _allow(distinct, set())
            shape.append("distinct")
        rows = {f"from {alias}": source.rows for alias, source in own.items()}
        for number, condition in enumerate(conditions):
            rows[f"condition {number}"] = self._expression(condition, sources, subqueries)
        return _Query("; ".join(shape), rows, values, are_rows=bool(distinct))

    def _expression(self, expression: exp.Expr, sources: Sources, subqueries: Mapping[int, Scope]) -> _Part:
        """The code of an expression and what it reads."""
        parts: dict[str, _Part] = {}
        is_sure = True
        for node in expression.walk(prune=lambda node: isinstance(node, exp.Column | QUERIES)):
            if isinstance(node, QUERIES):
                # It is in the expression's code as a whole.
                inner = self._inner(subqueries[id(node)], sources)
                parts[f"subquery {len(parts)}"] = _together("", {"rows": inner.rows, **inner.columns})
            elif isinstance(node, exp.Column):
                parts[f"{node.table}.{node.name}"] = sources[node.table].column(node.name.lower())
            elif isinstance(node, UNSTABLE) or (isinstance(node, exp.WindowSpec) and node.args.get("kind")):
                is_sure = is_sure and str(node.args.get("kind")).upper() == "RANGE"
            elif not _is_stable(node):
                raise UnsureError
        return _together(repr(expression), parts, is_sure)


def _is_star(query: exp.Expr) -> bool:
    """Whether a query is `select * from` something, and nothing else."""
    if not isinstance(query, exp.Select) or len(query.expressions) != 1:
        return False
    (value,) = query.expressions
    star = value.this if isinstance(value, exp.Column) else value
    if not isinstance(star, exp.Star):
        return False
    clauses = {clause for clause, content in query.args.items() if content}
    return clauses <= {"expressions", "from_", "with_", "order"} and not any(star.args.values())


def _allow(node: exp.Expr, arguments: Collection[str]) -> None:
    if any(value and name not in arguments for name, value in node.args.items()):
        raise UnsureError


def _is_stable(node: exp.Expr) -> bool:
    if isinstance(node, exp.Star):
        return isinstance(node.parent, exp.Count)
    if isinstance(node, exp.Anonymous):
        return node.name.lower() in STABLE_FUNCTIONS
    return isinstance(node, STABLE)


def _is_aggregate(node: exp.Expr) -> bool:
    """Whether an aggregate function is one of groups, not of a window."""
    while isinstance(node.parent, exp.Filter | exp.IgnoreNulls | exp.RespectNulls | exp.WithinGroup):
        node = node.parent
    return not (isinstance(node.parent, exp.Window) and node.arg_key == "this")


CONDITIONS = ("where", "group", "having", "windows", "qualify")
QUERIES = exp.Select | exp.SetOperation
# These pick among equals, or give something else at another time.
UNSTABLE = (
    exp.AnyValue, exp.ArgMax, exp.ArgMin, exp.ArrayAgg, exp.CurrentDate, exp.CurrentDatetime,
    exp.CurrentTime, exp.CurrentTimestamp, exp.First, exp.FirstValue, exp.GroupConcat, exp.Lag, exp.Last,
    exp.LastValue, exp.Lead, exp.NthValue, exp.Ntile, exp.Rand, exp.RowNumber, exp.Uuid,
)  # fmt: skip
# These give the same for the same, and one value each: no rows.
STABLE = (
    exp.Alias, exp.Binary, exp.Boolean, exp.DataType, exp.DataTypeParam, exp.Distinct, exp.Filter,
    exp.Group, exp.Having, exp.Identifier, exp.IgnoreNulls, exp.Interval, exp.Literal, exp.Null, exp.Order,
    exp.Ordered, exp.Predicate, exp.Qualify, exp.Star, exp.Subquery, exp.Tuple, exp.Unary, exp.Var, exp.Where,
    exp.Window, exp.WindowSpec, exp.Abs, exp.Avg, exp.Case, exp.Cast, exp.Ceil, exp.Coalesce, exp.Concat,
    exp.Count, exp.CountIf, exp.Date, exp.DateAdd, exp.DateDiff, exp.DateSub, exp.DateTrunc, exp.Day,
    exp.DayOfMonth, exp.DayOfWeek, exp.DenseRank, exp.EndsWith, exp.Extract, exp.Floor, exp.Greatest,
    exp.Hour, exp.If, exp.Initcap, exp.LastDay, exp.Least, exp.Left, exp.Length, exp.Lower, exp.MD5,
    exp.MD5Digest, exp.Max, exp.Median, exp.Min, exp.Minute, exp.Month, exp.Nullif, exp.Quarter, exp.Rank,
    exp.RegexpExtract, exp.RegexpLike, exp.RegexpReplace, exp.Repeat, exp.Replace, exp.Right, exp.Round,
    exp.SafeDivide, exp.Second, exp.Sign, exp.SplitPart, exp.Sqrt, exp.StartsWith, exp.StrPosition,
    exp.StrToDate, exp.StrToTime, exp.Substring, exp.Sum, exp.TimeToStr, exp.TimestampTrunc, exp.Hex,
    exp.LowerHex, exp.Trim, exp.Trunc, exp.TryCast, exp.TsOrDsToDate, exp.Upper, exp.Week, exp.Year,
)  # fmt: skip
# Of those that sqlglot has no name for.
STABLE_FUNCTIONS = frozenset({"divide"})
