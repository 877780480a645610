import pytest

from tests.conftest import Pipeline
from tests.test_pipeline import forget_old_revenue


@pytest.fixture
def short(pipeline: Pipeline) -> Pipeline:
    """The green pipeline with half a year of revenue, of which a forecast takes a fraction of the time."""
    forget_old_revenue(pipeline)
    return pipeline
