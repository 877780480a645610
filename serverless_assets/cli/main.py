"""The commands. Each is a thin shell over the layers."""

import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from serverless_assets.cli import production
from serverless_assets.cli.failures import Commands
from serverless_assets.instance import open_instance, prepare_dagster_home
from serverless_assets.names import MAIN_JOB
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.settings import Settings

# Columns of a help text in a terminal that has as many.
HELP_WIDTH = 100


class Port(click.IntRange):
    """The number of a port."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is no port: expected a number from {self.min} to {self.max}.", param, ctx)


PORT = Port(1, 65535)


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH, "show_default": True,
    },
)  # fmt: skip
@click.version_option(package_name="serverless-assets", prog_name="serverless")
def main() -> None:
    """Load raw tables, build dbt models, forecast, and publish the result.

    Settings are environment variables that begin with SERVERLESS_, or lines of the file .env.

    \b
    Examples:
      serverless run       load, build, forecast and publish what changed
      serverless plan      say what a run would do
      serverless ui        open the Dagster UI
      serverless run -h    list the options of a command
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise click.ClickException("The current folder was deleted. Change to another one first.") from None
    # SIGTERM, such as at the time limit of a CI, ends every command as Ctrl-C does, which cleans up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = logging.getLogger("serverless_assets")
    if not log.handlers:
        log.setLevel(logging.INFO)
        log.addHandler(_Echo())


for command in (
    production.deploy_modal,
    production.open_in_browser,
    production.releases,
    production.replay,
    production.rollback,
    production.slim_ci,
):
    main.add_command(command)


class _Echo(logging.Handler):
    """Prints log messages, such as that dbt parses the project, before a command prints its result."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def takes_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument and the options that say what a run is to do."""
    for parameter in (
        click.option(
            "--months", metavar="FIRST[..LAST]", help="Load only these months, such as 2026-01..2026-03."
        ),
        click.option(
            "--drop-deleted",
            is_flag=True,
            help="Drop the tables of models that were deleted from the dbt project.",
        ),
        click.option("--rebuild", is_flag=True, help="Load, build and forecast all of JOB, changed or not."),
        click.option("--skip-forecast", is_flag=True, help="Leave the forecasts as they are."),
        click.option("--reuse", is_flag=True, help="Leave the raw tables as they are."),
        click.argument("job", default=MAIN_JOB, metavar="[JOB]"),
    ):
        command = parameter(command)
    return command


@main.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the run config from a YAML file, in the form of Dagster's launchpad.",
)
@takes_a_run
@click.option("--resume", is_flag=True, help="Run only the assets of JOB that earlier runs did not finish.")
def run(job: str, months: str | None, config_file: Path | None, resume: bool, **choices: bool) -> None:
    """Run JOB in this process, and publish the result.

    JOB is serverless_pipeline by default, which runs everything. Parts of it are ingest, transform and one
    job for each forecast, by its name. The exit code is 1 if the run failed or was not published.

    \b
    Examples:
      serverless run
      serverless run transform --rebuild
      serverless run ingest --months 2026-01..2026-03
      serverless run --rebuild --resume
    """
    settings = Settings.from_environ()
    prepare_dagster_home(settings.home, settings.run_deadline_seconds)
    if not (settings.home / "dbt" / "manifest.json").exists():
        # dbt has to parse the project, and is imported at the same time as Dagster.
        from serverless_assets.transformation.dbt_runner import start_process

        start_process()
    # Imported here, as Dagster takes seconds to import and `serverless --help` does not need it.
    from serverless_assets.cli.request import Request
    from serverless_assets.cli.run import run_job
    from serverless_assets.run_inputs import run_inputs

    succeeded = run_job(Request(job, run_inputs(**choices), months, config_file), settings, resume)
    sys.exit(0 if succeeded else 1)


@main.command()
@click.option("--port", type=PORT, default=3000, metavar="PORT", help="The port of the UI.")
def ui(port: int) -> None:
    """Serve the Dagster UI on 127.0.0.1 until Ctrl-C.

    \b
    Example:
      serverless ui --port 3001
    """
    settings = Settings.from_environ()
    _refuse_unusable_port(port)
    prepare_dagster_home(settings.home, settings.run_deadline_seconds)
    from serverless_assets.artifacts.local import LocalArtifacts
    from serverless_assets.artifacts.report_server import start_report_server
    from serverless_assets.environments import environment
    from serverless_assets.publishing.run_lock import end_dead_runs
    from serverless_assets.transformation.dbt_runner import end_idle_processes

    # Settings that cannot be used are refused here, and dbt parses the project once for all of Dagster's
    # processes. This one becomes one of them, and has no use for dbt's.
    parts = environment(settings)
    parts.project.manifest()
    end_idle_processes()
    # Refuse a history that Dagster cannot use: each of its processes would end with a traceback.
    with open_instance() as instance:
        for sentence in end_dead_runs(settings.home, instance):
            click.echo(sentence)
    url = f"http://127.0.0.1:{port}"
    if settings.ui_url == Settings.model_fields["ui_url"].default:
        # Alerts link to the UI that sends them.
        os.environ["SERVERLESS_UI_URL"] = url
    artifacts = parts.publisher.published.artifacts
    if settings.reports_url is None and isinstance(artifacts, LocalArtifacts):
        # The code location links to it, see annotations.py.
        os.environ["SERVERLESS_REPORTS_URL"] = start_report_server(artifacts.published)
    (settings.home / production.UI_ADDRESS).write_text(url)
    click.echo(f"Dagster UI: {url} (Ctrl-C ends it)")
    dg = Path(sys.executable).with_name("dg")
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    # A process that a script started in the background ignores SIGINT, and Dagster then also ignores SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(dg, [str(dg), "dev", "-w", workspace, "-h", "127.0.0.1", "-p", str(port)])


@main.command()
@takes_a_run
def plan(job: str, months: str | None, **choices: bool) -> None:
    """Say what a run of JOB would do and why, and change nothing.

    JOB is serverless_pipeline by default. The exit code is 1 if the run would fail or be refused.

    \b
    Examples:
      serverless plan
      serverless plan transform --rebuild
    """
    settings = Settings.from_environ()
    from serverless_assets.automation.plan import dry_run
    from serverless_assets.automation.planned import EVERYTHING, plan_lines, plan_summary
    from serverless_assets.environments import environment
    from serverless_assets.run_inputs import NOTHING_TO_RUN, run_inputs

    inputs, selection = run_inputs(**choices), EVERYTHING
    if job != MAIN_JOB or months:
        # It loads all definitions, which takes a second.
        from serverless_assets.cli.request import Request

        inputs, selection = Request(job, inputs, months).launch(settings).to_plan()
    inputs, parts = inputs.checked(), environment(settings)
    if start := parts.publisher.look_ahead():
        click.echo(f"{start}\n")
    planned = [*dry_run(parts, inputs, selection)]
    if not planned:
        raise click.ClickException(NOTHING_TO_RUN)
    for line in [*plan_lines(planned), "", plan_summary(planned, parts.pending_assets())]:
        click.echo(line)
    if {"fail", "refuse"} & {asset.verdict for asset in planned}:
        sys.exit(1)


@main.command()
@click.argument("asset")
def why(asset: str) -> None:
    """Say why ASSET would be loaded, built, forecast or reused.

    Lists the parts of its fingerprint (code, configuration, inputs) that changed since it was built.

    \b
    Example:
      serverless why orders
    """
    settings = Settings.from_environ()
    from serverless_assets.cli.why import explain
    from serverless_assets.environments import environment

    parts = environment(settings)
    if start := parts.publisher.look_ahead():
        click.echo(f"{start}\n")
    for line in explain(parts, asset):
        click.echo(line)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Start a project of your own in FOLDER.

    FOLDER must be empty or new, and the project gets its name. Nothing of the sample shop is in it.

    \b
    Example:
      serverless init ../guest-visits
    """
    from serverless_assets.cli.init import start_project

    for sentence in start_project(folder.expanduser().resolve()):
        click.echo(sentence)


@main.command("add-table")
@click.argument("url")
@click.option("--name", help="The name of the table.  [default: the name of the file]")
@click.option("--token", metavar="VARIABLE", help="The environment variable with the bearer token of an API.")
def add_table(url: str, name: str | None, token: str | None) -> None:
    """Declare the raw table that is at URL.

    URL leads to a parquet file, or to rows that an API serves as JSON or CSV. A staging model that reads the
    table is written as well.

    \b
    Examples:
      serverless add-table https://example.com/data/raw_visits.parquet
      serverless add-table https://api.example.com/v1/visits --token API_TOKEN
    """
    settings = Settings.from_environ()
    from serverless_assets.environments import environment
    from serverless_assets.files import scratch_folder
    from serverless_assets.ingestion import add_table as command
    from serverless_assets.ingestion.source import HttpSource

    parts = environment(settings)
    source = parts.source if isinstance(parts.source, HttpSource) and parts.source.base_url else None
    with scratch_folder(settings.home, "add-table") as folder:
        project = parts.project
        for sentence in command.add_table(
            url, name, project.directory, project.read_manifest(), source, folder, token
        ):
            click.echo(sentence)


@main.command()
def doctor() -> None:
    """Check the source, warehouse, models, compute and artifacts.

    Changes nothing. The exit code is 1 if one of them cannot be used.

    \b
    Example:
      SERVERLESS_ENV=gcp serverless doctor
    """
    settings = Settings.from_environ()
    from serverless_assets.cli.doctor import examine, versions
    from serverless_assets.environments import environment

    click.echo(f"The environment {settings.environment!r} (SERVERLESS_ENV), state in {settings.home}")
    click.echo(f"{versions()}\n")
    all_well = True
    for finding in examine(environment(settings)):
        click.echo(finding)
        all_well = all_well and finding.is_well
    if not all_well:
        raise click.ClickException("Fix what is NOT OK, then run `serverless doctor` again.")


@main.command("sample-api")
@click.option("--port", type=PORT, default=8080, metavar="PORT", help="The port of the API.")
def sample_api(port: int) -> None:
    """Serve the API of the sample shop on 127.0.0.1 until Ctrl-C.

    \b
    Example:
      serverless sample-api --port 8081
    """
    settings = Settings.from_environ()
    _refuse_unusable_port(port)
    import uvicorn

    from serverless_assets.sample_shop.api import create_app
    from serverless_assets.sample_shop.shop import SampleShop
    from serverless_assets.settings import yesterday

    click.echo(f"Sample shop: http://127.0.0.1:{port} (Ctrl-C ends it)")
    app = create_app(lambda: SampleShop(seed=settings.sample_seed, end=settings.sample_end or yesterday()))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


@main.command()
@click.option("--yes", is_flag=True, help="Delete without asking for confirmation.")
def clean(yes: bool) -> None:
    """Delete SERVERLESS_HOME: the warehouse, artifacts and runs.

    With SERVERLESS_BRANCH, also the datasets and the folder of the branch in the cloud.

    \b
    Example:
      serverless clean --yes
    """
    settings = Settings.from_environ()
    home, scratch = settings.home, dict[str, Callable[[], None]]()
    if settings.branch:
        from serverless_assets.environments import environment

        scratch = {**environment(settings).publisher.scratch_places}
    places = [*([str(home)] if home.exists() else []), *scratch]
    if not places:
        click.echo(f"There is nothing to delete: {home} does not exist.")
        return
    if home.exists() and not (home / "dagster" / "dagster.yaml").exists():
        raise click.ClickException(
            f"Nothing was deleted: {home} has no dagster/dagster.yaml, so it may not be a home of this "
            "project. Check SERVERLESS_HOME, or delete the folder by hand."
        )
    if not yes:
        click.confirm(f"Delete everything in {' and '.join(places)}?", abort=True)
    for remove in scratch.values():
        remove()
    if home.exists():
        shutil.rmtree(home)
    click.echo(f"Deleted {' and '.join(places)}.")


def _refuse_unusable_port(port: int) -> None:
    """End the command if a server cannot listen on this port of 127.0.0.1: Dagster would wait for ever."""
    with socket.socket() as probe:
        # As servers do, so that a port with connections that are just closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            raise click.ClickException(
                f"Port {port} on 127.0.0.1 cannot be used: {error.strerror}. Choose another one with --port."
            ) from None
