"""A Dagster code location: REST API to warehouse to dbt to a forecast on serverless compute."""

from typing import Any

__all__ = ["Forecast"]


def __getattr__(name: str) -> Any:
    """Import a component when it is asked for: commands do not need Dagster until then."""
    if name in __all__:
        from serverless_assets.forecasting.component import Forecast

        return Forecast
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
