"""The forecast as people see it: one interactive HTML document, and one small picture of it."""

from modal_forecast.report.colors import check_color
from modal_forecast.report.document import render
from modal_forecast.report.preview import preview_png
from modal_forecast.report.report_input import ReportInput
from modal_forecast.report.report_key import key_in, report_key

__all__ = ["ReportInput", "check_color", "key_in", "preview_png", "render", "report_key"]
