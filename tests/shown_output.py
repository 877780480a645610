"""Commands as a page shows them after `$`, and whether they print what it shows below them."""

import re
from collections.abc import Iterator

PROMPT = "$ "
# The id of a run, whole or its beginning.
RUN_ID = r"\b(?=[a-f]*\d)[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?\b"
# Not of the command, but of dbt, whenever files changed.
PARSING = re.compile(r"^Parsing the dbt project .*\n", re.MULTILINE)


def steps(block: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a block, and what is shown below it; a block without a prompt is one command."""
    if not block.startswith(PROMPT):
        yield block, "..."
        return
    for step in re.split(rf"^{re.escape(PROMPT)}", block, flags=re.MULTILINE)[1:]:
        command, _, output = step.partition("\n")
        yield re.sub(" +#.*", "", command), output


def is_as_shown(printed: str, shown: str) -> bool:
    """Whether lines are the same but for numbers, times, ids and space; `...` is any text or lines."""
    lines = [re.escape(line).replace(r"\.\.\.", ".*") for line in _shape(shown).splitlines()]
    pattern = "".join(r"(.*\n)*" if line == ".*" else rf"{line}\n" for line in lines)
    return re.fullmatch(pattern, f"{_shape(printed)}\n") is not None


def _shape(text: str) -> str:
    text = re.sub(RUN_ID, "ID", PARSING.sub("", text))
    text = re.sub(r"\d[\d,.:-]*\d|\d", "0", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
