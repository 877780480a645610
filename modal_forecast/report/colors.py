"""Which colours a person may choose for a report. Light to import: launch-time validation uses it too."""

import re
from difflib import get_close_matches

# The named colours of CSS Color 4, which matplotlib knows by the same names.
_CSS_NAMES = """
    aliceblue antiquewhite aqua aquamarine azure beige bisque black blanchedalmond blue blueviolet brown
    burlywood cadetblue chartreuse chocolate coral cornflowerblue cornsilk crimson cyan darkblue darkcyan
    darkgoldenrod darkgray darkgreen darkgrey darkkhaki darkmagenta darkolivegreen darkorange darkorchid
    darkred darksalmon darkseagreen darkslateblue darkslategray darkslategrey darkturquoise darkviolet
    deeppink deepskyblue dimgray dimgrey dodgerblue firebrick floralwhite forestgreen fuchsia gainsboro
    ghostwhite gold goldenrod gray green greenyellow grey honeydew hotpink indianred indigo ivory khaki
    lavender lavenderblush lawngreen lemonchiffon lightblue lightcoral lightcyan lightgoldenrodyellow
    lightgray lightgreen lightgrey lightpink lightsalmon lightseagreen lightskyblue lightslategray
    lightslategrey lightsteelblue lightyellow lime limegreen linen magenta maroon mediumaquamarine
    mediumblue mediumorchid mediumpurple mediumseagreen mediumslateblue mediumspringgreen mediumturquoise
    mediumvioletred midnightblue mintcream mistyrose moccasin navajowhite navy oldlace olive olivedrab
    orange orangered orchid palegoldenrod palegreen paleturquoise palevioletred papayawhip peachpuff peru
    pink plum powderblue purple rebeccapurple red rosybrown royalblue saddlebrown salmon sandybrown
    seagreen seashell sienna silver skyblue slateblue slategray slategrey snow springgreen steelblue tan
    teal thistle tomato turquoise violet wheat white whitesmoke yellow yellowgreen
"""
CSS_COLOR_NAMES = frozenset(_CSS_NAMES.split())
_HEX = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})")


def check_color(value: str) -> str:
    """The colour in lower case.

    Raises ValueError for anything but a CSS colour name, #rgb or #rrggbb: the colour goes into a style
    sheet as it is, so this check is also what keeps other CSS out.
    """
    color = value.lower()
    if color in CSS_COLOR_NAMES or _HEX.fullmatch(color):
        return color
    close = get_close_matches(color, CSS_COLOR_NAMES, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(f"{value!r:.100} is not a colour: use a CSS colour name, #rgb or #rrggbb.{hint}")
