"""What is used of dlt outside of its documented API; tests/test_private_apis.py checks it.

`RESTClient` resolves its configuration from files and variables unless it is given one: an option to read
none would replace `RuntimeConfiguration`. The detectors guess a paginator, and where the rows of an answer
are, as `RESTClient` does: a public way to ask it what it would take would replace them.
"""

from collections.abc import Mapping

import requests
from dlt.common.configuration.specs.runtime_configuration import RuntimeConfiguration
from dlt.sources.helpers.rest_client import paginators
from dlt.sources.helpers.rest_client.detector import (
    PaginatorFactory,
    find_response_page_data,
    header_links_detector,
)

__all__ = ["RuntimeConfiguration", "detect_paginator", "find_response_page_data"]


def detect_paginator(first_page: requests.Response, format: str) -> Mapping[str, str]:
    """Return the `paginator` of an entry that follows what a first page says of others; empty for nothing."""
    detect = header_links_detector if format == "csv" else PaginatorFactory().create_paginator
    paginator, _ = detect(first_page)
    match paginator:
        case paginators.HeaderLinkPaginator():
            return {"type": "header_link"}
        case paginators.JSONLinkPaginator():
            return {"type": "json_link", "next_url_path": str(paginator.next_url_path)}
        case paginators.PageNumberPaginator():
            return {"type": "page_number", "total_path": str(paginator.total_path)}
        case paginators.JSONResponseCursorPaginator():
            return {"type": "cursor", "cursor_path": str(paginator.cursor_path)}
    return {}
