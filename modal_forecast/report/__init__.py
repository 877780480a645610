"""The forecast as people see it: page.render() makes an interactive HTML page, preview_svg() an image of it.

This file imports nothing, so that checking a colour at launch (report_input.check_color) stays cheap.
"""
