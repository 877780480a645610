"""The pictures in docs/ show what there is."""

import json

import pytest

from tests.pictures import CONTENTS, DOCS, shown_by


def test_every_picture_says_what_it_shows():
    assert {picture.stem for picture in DOCS.glob("*.png")} == set(CONTENTS)


@pytest.mark.parametrize("name", CONTENTS)
def test_a_picture_shows_what_the_code_has(name, green):
    now = json.loads(json.dumps(CONTENTS[name](green.definitions)))
    # A raw table that the sample shop lacks, and its models, are in no picture.
    left_out = green.summary["assets"].keys() - green.outcomes.keys()
    if name == "asset-graph":
        now = [asset for asset in now if asset not in left_out]
    assert shown_by(DOCS / f"{name}.png") == now, f"docs/{name}.png is outdated: run `make pictures`."
