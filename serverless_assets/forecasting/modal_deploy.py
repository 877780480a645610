"""Deploy the forecast's worker to Modal."""

import modal
from modal.exception import NotFoundError

from modal_forecast.app import app
from serverless_assets.forecasting.compute import ComputeError
from serverless_assets.forecasting.modal_errors import refuse_if_nobody_listens, translate_errors


def deploy(app_name: str, environment: str | None) -> None:
    """Deploy this code's worker as `app_name`.

    Raises:
        ComputeError: it could not be deployed; the worker that was there stays.
    """
    with translate_errors(app_name, environment):
        refuse_if_nobody_listens()
        try:
            # The first time, Modal builds the image, which takes minutes: what it says meanwhile is shown.
            with modal.enable_output():
                app.deploy(name=app_name, environment_name=environment)
        except NotFoundError as error:
            raise ComputeError(
                f"Modal has no environment {environment!r} ({error}). Create it with "
                f"`modal environment create {environment}`, or set MODAL_ENVIRONMENT to one that there is."
            ) from None
