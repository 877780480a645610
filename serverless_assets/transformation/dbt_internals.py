"""What is used of dbt outside of its public API; tests/test_private_apis.py checks it.

Each function says which public API would replace it. dbt is imported by them alone, as only the process that
runs it (dbt_process.py) has it.
"""

import sys
from collections.abc import Iterator
from typing import Any


def engine_variables() -> Iterator[str]:
    """Import dbt, and return the variables of a shell that set its flags: DBT_TARGET, ...

    A public list of them, or a runner that does not read them, would replace this.
    """
    # The two import each other, which works in this order alone.
    import dbt.cli.main  # noqa: F401
    from dbt.env_vars import KNOWN_ENGINE_ENV_VARS

    return (variable.old_name or variable.name for variable in KNOWN_ENGINE_ENV_VARS)


def select_by_unique_id() -> None:
    """Have `--select` take the unique id of a node, for which dbt has no method.

    `fqn:team.orders` also selects all in the folder models/orders/. A public method `unique_id` would replace
    this.
    """
    from dbt.graph.selector import NodeSelector
    from dbt.graph.selector_methods import MethodName, QualifiedNameSelectorMethod

    class ByUniqueId(QualifiedNameSelectorMethod):
        def search(self, included_nodes: Any, selector: str) -> Any:
            is_id = selector in included_nodes
            return iter([selector]) if is_id else super().search(included_nodes, selector)

    NodeSelector.SELECTOR_METHODS[MethodName.FQN] = ByUniqueId


def close_duckdb() -> None:
    """Close the file of a DuckDB warehouse, if this process used one.

    dbt-duckdb keeps it open until its process ends, and this process outlives the command. Its own function
    closes the file only when nothing refers to the environment any more, such as a thread that is about to
    end: the parent would open the file meanwhile, beside a log of an older state. A runner that closes its
    connections would replace this.
    """
    duckdb_adapter = sys.modules.get("dbt.adapters.duckdb.connections")
    if duckdb_adapter:
        manager = duckdb_adapter.DuckDBConnectionManager
        if manager._ENV is not None:
            manager._ENV.close()
        manager.close_all_connections()
