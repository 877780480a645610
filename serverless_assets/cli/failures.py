"""How a failed command ends: one sentence, and a file with the traceback of an unexpected error."""

import errno
import os
import signal
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from serverless_assets.addresses import without_secrets
from serverless_assets.errors import UserError, causes, error_sentence
from serverless_assets.settings import Settings, SettingsError

# Errors of a folder that cannot be written to, or of a full disk.
REFUSALS = (errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class Commands(click.Group):
    """Commands that end with a sentence and exit code 1, whatever they raise."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            # click also handles a BrokenPipeError, by a reader such as `head`.
            raise
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
        except UserError as error:
            raise click.ClickException(str(error)) from None
        except Exception as error:
            # Commands start without dagster, whose failures are raised with a sentence.
            dagster = sys.modules.get("dagster")
            if dagster and isinstance(error, dagster.Failure):
                raise click.ClickException(str(error)) from None
            home = _home()
            if unusable := _unusable_home(error, home):
                raise click.ClickException(unusable) from None
            sentence = without_secrets(error_sentence(error))
            place = keep_traceback("".join(traceback.format_exception(error)), home)
            raise click.ClickException(f"{sentence}\n{place}") from None


def keep_traceback(text: str, home: Path | None) -> str:
    """Write a traceback below `home`, or else to the temporary folder. Returns a sentence that says where."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log"
    content = without_secrets(f"{' '.join(sys.argv)}\nPython {sys.version}\n\n{text.strip()}\n")
    for folder in ([home / "logs"] if home else []) + [Path(tempfile.gettempdir()) / "serverless-logs"]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        except OSError:
            continue
        return f"The full traceback is in {folder / name}."
    return f"The full traceback, which could not be written to a file:\n{content}"


def _unusable_home(error: Exception, home: Path | None) -> str | None:
    """Return what to do if the machine refuses a file below SERVERLESS_HOME; None for other errors."""
    for cause in causes(error):
        if not (home and isinstance(cause, OSError) and cause.filename and cause.errno in REFUSALS):
            continue
        path = Path(os.fsdecode(cause.filename))
        if path.is_relative_to(home):
            return (
                f"SERVERLESS_HOME is {home}, and {path} cannot be used: {cause.strerror}. Make room there, "
                "make it writable for this user, or choose another folder."
            )
    return None


def _home() -> Path | None:
    try:
        return Settings.from_environ().home
    except SettingsError:
        return None
