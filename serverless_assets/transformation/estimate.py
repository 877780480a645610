"""How much a build would read, where the warehouse charges for that."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from serverless_assets.transformation import dbt
from serverless_assets.transformation.arguments import full_name, months_variable
from serverless_assets.transformation.fingerprints import Materialization
from serverless_assets.transformation.plan import BuildDecision
from serverless_assets.transformation.project import Project
from serverless_assets.warehouse import Warehouse, WarehouseError


def bytes_to_read(
    project: Project, warehouse: Warehouse, decisions: Sequence[BuildDecision], manifest: Mapping[str, Any]
) -> Mapping[str, int]:
    """The bytes that each model to be built would read, by name, as the warehouse says without reading.

    A model is missing where nothing is charged, and where it reads a relation that there is not yet.
    """
    building = [
        decision for decision in decisions if decision.build and decision.node.kind != Materialization.VIEW
    ]
    if not building or warehouse.bytes_to_read("select 1") is None:
        return {}
    variables = {**project.variables, "SERVERLESS_MONTHS": months_variable(building)}
    target = project.target / "plan"
    select = ["--select", *(full_name(decision, manifest) for decision in building)]
    if dbt.invoke(["compile", *select], project.directory, target, variables):
        return {}
    compiled = json.loads((target / "manifest.json").read_text())["nodes"]
    found = {}
    for decision in building:
        try:
            size = warehouse.bytes_to_read(compiled[decision.node.id]["compiled_code"])
        except WarehouseError:
            continue
        found[decision.node.name] = size or 0
    return found
