"""The commands about what is published: its report, its releases, its forecasts, its CI and its worker."""

import logging
import socket
import sys
import webbrowser
from collections.abc import Mapping
from urllib.parse import urlsplit

import click

from serverless_assets.instance import open_instance, prepare_dagster_home
from serverless_assets.settings import Settings

# In the home: the address of the UI that `serverless ui` started last.
UI_ADDRESS = "ui_address"


@click.command("slim-ci")
def slim_ci() -> None:
    """Build and test the models that differ from production.

    They are built in a scratch schema, which is removed at the end. The exit code is 1 if a model or a test
    failed.

    \b
    Example:
      SERVERLESS_ENV=gcp serverless slim-ci
    """
    settings = Settings.from_environ()
    from serverless_assets.environments import environment
    from serverless_assets.transformation.slim_ci import slim_ci as check

    parts = environment(settings)
    checked = check(parts.project, parts.publisher)
    click.echo(checked)
    sys.exit(0 if checked.is_green else 1)


@click.command()
@click.argument("forecast", required=False)
@click.option("--list", "list_all", is_flag=True, help="List the published forecasts, the newest first.")
def replay(forecast: str | None, list_all: bool) -> None:
    """Compute a published forecast again, and compare the two.

    FORECAST is the newest one by default; or a run id or its beginning, a forecast's key, or the day on which
    it was made. The exit code is 1 if they differ.

    \b
    Examples:
      serverless replay --list
      serverless replay 2026-11-28
    """
    settings = Settings.from_environ()
    from serverless_assets.environments import environment
    from serverless_assets.forecasting.replay import listed, replayed

    parts = environment(settings)
    artifacts = parts.publisher.published.artifacts
    if list_all:
        for line in listed(artifacts):
            click.echo(line)
        return
    verdict = replayed(artifacts, parts.compute, forecast, click.echo)
    click.echo(verdict.text)
    sys.exit(0 if verdict.reproduced else 1)


@click.command("open")
@click.argument("what", type=click.Choice(["report", "ui"]), default="report")
def open_in_browser(what: str) -> None:
    """Open the published reports, or the UI, in a browser.

    The UI is that of SERVERLESS_UI_URL, or else the one that `serverless ui` started. The exit code is 1 if
    no browser could be opened.

    \b
    Examples:
      serverless open
      serverless open ui
    """
    settings = Settings.from_environ()
    if what == "ui":
        address = _ui_address(settings)
        _open({address: address})
        return
    from serverless_assets.environments import environment

    artifacts = environment(settings).publisher.published.artifacts
    reports = [name for name in artifacts.names("") if name.endswith(".html")]
    if not reports:
        raise click.ClickException(
            "No report was published yet. The first run that succeeds publishes one: `serverless run`."
        )
    places = list(map(artifacts.place, reports))
    _open({place.address: place.link or place.address for place in places})


def _open(links: Mapping[str, str]) -> None:
    """Print each address, and open its link in a browser."""
    for address in links:
        click.echo(address)
    # click.launch reports success also where there is no browser.
    if not all([webbrowser.open(link) for link in links.values()]):
        raise click.ClickException("No browser could be opened here. Open the addresses above in one.")


def _ui_address(settings: Settings) -> str:
    """Return the address of the UI.

    Raises:
        click.ClickException: it is on this machine, and nothing answers there.
    """
    default = Settings.model_fields["ui_url"].default
    if settings.ui_url != default:
        return settings.ui_url
    file = settings.home / UI_ADDRESS
    address = file.read_text() if file.is_file() else str(default)
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port or 80), timeout=5).close()
    except OSError:
        raise click.ClickException(f"No UI is served at {address}: `serverless ui` starts one.") from None
    return address


@click.command()
def releases() -> None:
    """List the releases, the newest first.

    Each with the time of its publish, the run that made it, and what it changed.

    \b
    Example:
      serverless releases
    """
    settings = Settings.from_environ()
    from serverless_assets.environments import environment
    from serverless_assets.publishing.releases import as_lines

    published = environment(settings).publisher.releases()
    if not published:
        raise click.ClickException(
            "Nothing was published yet. The first run that succeeds makes a release: `serverless run`."
        )
    for line in as_lines(published):
        click.echo(line)


@click.command()
@click.argument("run", required=False)
def rollback(run: str | None) -> None:
    """Publish an earlier release again.

    RUN is the id of the run that made the release, or its beginning; by default, that of the release before
    what people read now. The next run continues from there, and publishes what it finds changed.

    \b
    Examples:
      serverless rollback
      serverless rollback 1a2b
    """
    settings = Settings.from_environ()
    prepare_dagster_home(settings.home, settings.run_deadline_seconds)
    from serverless_assets.environments import environment

    with open_instance() as instance:
        log = logging.getLogger("serverless_assets")
        environment(settings).publisher.rollback(run, instance, log)


@click.command("deploy-modal")
def deploy_modal() -> None:
    """Deploy the worker of the forecasts to Modal.

    Workers with other versions of its code stay as they are.

    \b
    Example:
      SERVERLESS_ENV=gcp serverless deploy-modal
    """
    settings = Settings.from_environ()
    from modal_forecast.code_version import versioned_app
    from serverless_assets.forecasting.modal_compute import deploy

    app = versioned_app(settings.modal_app)
    deploy(app, settings.modal_environment)
    click.echo(f"Deployed the worker as Modal app {app!r}. Runs with this version of the code call it.")
