"""What the pictures in docs/ show of the code.

It is kept in each picture when `make pictures` takes it, so that a test can tell which one is outdated.
"""

import json
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import dagster as dg
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modal_forecast.report.report_input import FOLDER
from serverless_assets.automation.jobs import PREFILL
from serverless_assets.run_inputs import RunInputs
from serverless_assets.settings import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
SHOWS = "Shows"
RAW_ORDERS = dg.AssetKey("raw_orders")


def _assets(definitions: dg.Definitions) -> object:
    return sorted(key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys())


def _automation(definitions: dg.Definitions) -> object:
    schedules, sensors = definitions.schedules or [], definitions.sensors or []
    return sorted(each.name for each in (*schedules, *sensors))


def _raw_orders(definitions: dg.Definitions) -> object:
    node = definitions.resolve_asset_graph().get(RAW_ORDERS)
    columns = node.metadata["dagster/column_schema"].columns
    return [node.description, *([column.name, column.description] for column in columns)]


def _headings(definitions: dg.Definitions) -> object:
    sections = sorted(FOLDER.rglob("*.html.j2"))
    return [heading for page in sections for heading in re.findall(r"<h2[^>]*>(.+?)</h2>", page.read_text())]


CONTENTS: Mapping[str, Callable[[dg.Definitions], object]] = {
    "asset-graph": _assets,
    "asset": _raw_orders,
    "automation": _automation,
    "launchpad": lambda definitions: [PREFILL, RunInputs.model_json_schema()],
    "report": _headings,
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
