"""What is used of dlt outside of its documented API; tests/test_private_apis.py checks it.

`RESTClient` resolves its configuration from files and variables unless it is given one: an option to read
none would replace `RuntimeConfiguration`. The detectors guess a paginator, and where the rows of an answer
are, as `RESTClient` does: a public way to ask it what it would take would replace them.
"""

from dlt.common.configuration.specs.runtime_configuration import RuntimeConfiguration
from dlt.sources.helpers.rest_client.detector import (
    PaginatorFactory,
    find_response_page_data,
    header_links_detector,
)

__all__ = ["PaginatorFactory", "RuntimeConfiguration", "find_response_page_data", "header_links_detector"]
