"""The commands. Each is a thin shell over the layers."""

import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import click

from serverless_assets.cli import production
from serverless_assets.cli.failures import Commands
from serverless_assets.instance import open_instance, prepare_dagster_home
from serverless_assets.names import MAIN_JOB
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.settings import Settings

PORT = click.IntRange(1, 65535)


@click.group(cls=Commands)
@click.version_option(package_name="serverless-assets", prog_name="serverless")
def main() -> None:
    """Run the serverless pipeline, or open its UI."""
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
            "--months", metavar="FIRST..LAST", help="Load only these months, such as 2026-01..2026-03."
        ),
        click.option(
            "--drop-deleted", is_flag=True, help="Drop the tables of models deleted from the dbt project."
        ),
        click.option("--rebuild", is_flag=True, help="Also load, build and forecast what did not change."),
        click.option("--skip-forecast", is_flag=True, help="Run no forecast."),
        click.option("--reuse", is_flag=True, help="Keep the raw tables as they are."),
        click.argument("job", default=MAIN_JOB),
    ):
        command = parameter(command)
    return command


@main.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run config as YAML, as the launchpad shows it.",
)
@takes_a_run
@click.option("--resume", is_flag=True, help="Continue the last run of the job from where it failed.")
def run(job: str, months: str | None, config_file: Path | None, resume: bool, **choices: bool) -> None:
    """Run JOB in this process.

    JOB is serverless_pipeline (the default), ingest, transform, forecast or another one.
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
@click.option("--port", type=PORT, default=3000, show_default=True)
def ui(port: int) -> None:
    """Open the Dagster UI on 127.0.0.1 until Ctrl-C."""
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

    The exit code is 1 if it finds that the run would fail or be refused.
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
    for line in [*plan_lines(planned), "", plan_summary(planned, parts.publisher.pending_before_publish())]:
        click.echo(line)
    if {"fail", "refuse"} & {asset.verdict for asset in planned}:
        sys.exit(1)


@main.command()
@click.argument("asset")
def why(asset: str) -> None:
    """Say why ASSET would be loaded, built, forecast or reused.

    Names the parts of its fingerprint that changed since it was built.
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
    """Start a project of your own in FOLDER, without the shop."""
    from serverless_assets.cli.init import start_project

    for sentence in start_project(folder.expanduser().resolve()):
        click.echo(sentence)


@main.command("add-table")
@click.argument("url")
@click.option("--name", help="The name of the table; by default that of the file.")
@click.option("--token", metavar="VARIABLE", help="The variable that has the bearer token of an API.")
def add_table(url: str, name: str | None, token: str | None) -> None:
    """Declare the raw table that is at URL.

    That is a parquet file, or rows that an API serves as JSON or CSV.
    Also writes a staging model that reads it.
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
    """Check each part of the environment."""
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
@click.option("--port", type=PORT, default=8080, show_default=True)
def sample_api(port: int) -> None:
    """Serve the sample shop's API until Ctrl-C."""
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
    """Delete all state on this machine.

    That is the warehouse, artifacts and runs; of a branch, its dataset and folder in the cloud too.
    """
    settings = Settings.from_environ()
    home, scratch = settings.home, dict[str, Callable[[], None]]()
    if settings.branch:
        from serverless_assets.environments import environment

        scratch = {**environment(settings).publisher.scratch_places}
    places = [*([str(home)] if home.exists() else []), *scratch]
    if not places:
        click.echo(f"There is nothing at {home}.")
        return
    if home.exists() and not (home / "dagster" / "dagster.yaml").exists():
        raise click.ClickException(f"{home} was not made by this program, so it is left alone.")
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
