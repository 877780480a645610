"""Build the bundled dbt project as a Prefect flow with a server of its own: a contender of `building.py`.

In an environment of its own, as Prefect and Dagster need other versions of the same libraries.
"""

from prefect import flow
from prefect_dbt import PrefectDbtRunner, PrefectDbtSettings


@flow
def build() -> None:
    """Build and test each model as a task; the variables of dbt say which project."""
    PrefectDbtRunner(settings=PrefectDbtSettings()).invoke(["build", "--exclude-resource-type", "unit_test"])


if __name__ == "__main__":
    build()
