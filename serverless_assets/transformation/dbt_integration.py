"""dagster-dbt, imported without dbt Core.

dbt runs in a process of its own (dbt_process.py). dagster-dbt would import it into this one, too, which takes
a fifth of a command's cpu; without dbt Core it works from the manifest alone, as it does beside dbt Fusion.
An option not to import dbt Core would replace this file.
"""

import sys

_HIDDEN = "dbt.version"
_is_hidden = _HIDDEN not in sys.modules
if _is_hidden:
    sys.modules[_HIDDEN] = None  # type: ignore[assignment]
try:
    from dagster_dbt import DagsterDbtTranslator, DbtCliEventMessage, dbt_assets
finally:
    if _is_hidden:
        del sys.modules[_HIDDEN]

__all__ = ["DagsterDbtTranslator", "DbtCliEventMessage", "dbt_assets"]
