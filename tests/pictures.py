"""What the pictures in docs/ show of the code.

It is kept in each picture when `make pictures` takes it, so that a test can tell which one is outdated.
"""

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import dagster as dg
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modal_forecast.report.report_input import FOLDER
from serverless_assets.automation.jobs import PREFILL
from serverless_assets.hashing import digest
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.run_inputs import RunInputs

DOCS = PROJECT_ROOT / "docs"
SHOWS = "Shows"
# The picture of the report ends below the chart and the tables of weeks and months.
ON_THE_PICTURE = (
    "page.html.j2",
    *(f"sections/{section}.html.j2" for section in ("outlook", "chart", "periods")),
    *(f"sections/{section}.py" for section in ("outlook", "periods")),
    *(f"assets/{name}" for name in ("page.css", "chart.css", "sections.css", "ticks.js", "chart.js")),
)
RAW_ORDERS = dg.AssetKey("raw_orders")


def _assets(definitions: dg.Definitions) -> object:
    return sorted(key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys())


def _automation(definitions: dg.Definitions) -> object:
    schedules, sensors = definitions.schedules or [], definitions.sensors or []
    return sorted(each.name for each in (*schedules, *sensors))


def _raw_orders(definitions: dg.Definitions) -> object:
    graph = definitions.resolve_asset_graph()
    node = graph.get(RAW_ORDERS)
    columns = node.metadata["dagster/column_schema"].columns
    code = node.metadata["dagster/code_references"].code_references
    return {
        "description": node.description,
        "columns": [[column.name, column.type, column.description] for column in columns],
        "group": node.group_name,
        "owners": sorted(node.owners),
        "kinds": sorted(node.kinds),
        "tags": sorted(tag for tag in node.tags if not tag.startswith("dagster/")),
        "storage": node.metadata["dagster/table_name"],
        "code": [reference.label for reference in code],
        "checks": len(graph.get_check_keys_for_assets({RAW_ORDERS})),
        "jobs": sorted(
            job.name
            for job in definitions.resolve_all_job_defs()
            if RAW_ORDERS in job.asset_layer.executable_asset_keys and not job.name.startswith("__")
        ),
    }


def _report(definitions: dg.Definitions) -> object:
    """The code of what the picture has of the page, without blank lines, file by file."""
    files = [FOLDER / name for name in ON_THE_PICTURE]
    return {file.name: digest("\n".join(file.read_text().split())) for file in files}


CONTENTS: Mapping[str, Callable[[dg.Definitions], object]] = {
    "asset-graph": _assets,
    "asset": _raw_orders,
    "automation": _automation,
    "launchpad": lambda definitions: [PREFILL, RunInputs.model_json_schema()],
    "report": _report,
}


def save(screenshot: bytes, name: str, definitions: dg.Definitions) -> None:
    """Write the picture to docs/, in 256 colours, with what it shows."""
    shows = PngInfo()
    shows.add_text(SHOWS, json.dumps(CONTENTS[name](definitions)), zip=True)
    image = Image.open(BytesIO(screenshot)).convert("RGB")
    colours = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colours.save(DOCS / f"{name}.png", optimize=True, pnginfo=shows)


def shown_by(picture: Path) -> object:
    """Return what the code had to show when the picture was taken; None if the picture does not say."""
    with Image.open(picture) as image:
        text = getattr(image, "text", {}).get(SHOWS)
    return json.loads(text) if text else None
