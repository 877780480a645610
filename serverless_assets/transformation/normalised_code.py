"""The code of a model or macro without comments and white space, which no warehouse sees. Pure."""

import re

_TOKENS = re.compile(
    r"""(?P<kept>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)   # text and quoted names, to the letter
      | (?P<nothing>\{\#(?!-).*?(?<!-)\#\})                 # a comment of Jinja's; with a dash it takes more
      | (?P<blank>(?:\s|--[^\n]*|/\*.*?\*/)+)""",
    re.VERBOSE | re.DOTALL,
)
# With these, quotes may begin and end elsewhere than the pattern above thinks.
_HARD_TO_READ = re.compile(r"""\\|\$\$|'''|\"\"\"""")


def normalised(code: str) -> str:
    """The code without what no warehouse sees: comments, and white space beyond one blank.

    A comment is worth nothing to those who read the table, and rebuilding everything downstream costs. Code
    in which quotes are hard to tell is left to the letter: it is built once too often rather than not at all.
    """
    if _HARD_TO_READ.search(code):
        return code
    without = _TOKENS.sub(lambda match: match["kept"] or ("" if match["nothing"] else " "), code)
    return _TOKENS.sub(lambda match: match["kept"] or " ", without).strip()
