"""The command line: each command parses its arguments, makes one call and prints the result.

Application logic does not belong here. Commands import the application late, so that `--help` and a wrong argument
answer at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from fmnist_exp.backend import interrupts
from fmnist_exp.cli import serve, train, tune, versions
from fmnist_exp.errors import RequestError, WorkError

DONE, WORK_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = {
    DONE: "The work is done.",
    WORK_FAILED: "The work failed. The run is closed as FAILED, and the reason is its tag `fmnist.error`.",
    WRONG_REQUEST: "The request was wrong. Nothing was written.",
    INTERRUPTED: "The command was interrupted. Runs are closed as KILLED, and a search can be resumed.",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Train, tune, compare and register Fashion-MNIST classifiers. The same entry points work with `mlflow run`."""


for command in (*train.COMMANDS, *tune.COMMANDS, *versions.COMMANDS, *serve.COMMANDS):
    main.add_command(command)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    interrupts.install()
    try:
        main.main(args=arguments, standalone_mode=False)
        code = DONE
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        code = _fail(error.format_message(), WRONG_REQUEST)
    except RequestError as error:
        code = _fail(str(error), WRONG_REQUEST)
    except WorkError as error:
        code = _fail(str(error), WORK_FAILED)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted", INTERRUPTED)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    click.echo(f"fmnist-exp: {message}", err=True)
    return code
