"""The command line: each command parses its arguments, makes one call and prints the result.

Application logic does not belong here. Commands import the application late, so that `--help` and a wrong argument
answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click

from fmnist_exp.backend import interrupts
from fmnist_exp.cli import clean, serve, sync, train, tune, versions
from fmnist_exp.errors import RequestError, is_full_disk
from fmnist_exp.tracking import escape, failures, redact

DONE, WORK_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = {
    DONE: "The work is done. If the tracking store did not take all of it, a line names the spool that keeps the rest"
    " until `fmnist-exp sync` or the next command.",
    WORK_FAILED: "The work failed. The run is closed as FAILED, and the reason is its tag `fmnist.error`.",
    WRONG_REQUEST: "The request was wrong. Nothing was written.",
    INTERRUPTED: "The command was interrupted. Runs are closed as KILLED, and a search can be resumed.",
}
AFTER_INTERRUPT = 5.0  # seconds without a success after which an interrupted command no longer waits for the store
VISIBLE = (
    "an option has a password, which other users of this machine can read in the list of its processes; give the"
    " address in an environment variable instead, for example FMNIST_EXP_STORAGE"
)

log = logging.getLogger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Train, tune, compare and register Fashion-MNIST classifiers. The same entry points work with `mlflow run`."""


def _debug(_ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        os.environ[failures.DEBUG] = "true"  # for worker processes too


_DEBUG = click.Option(
    ["--debug"],
    is_flag=False,
    flag_value="true",
    default="false",
    type=click.BOOL,
    metavar="[BOOL]",
    expose_value=False,
    callback=_debug,
    help="Show the traceback of an error; FMNIST_EXP_DEBUG=true does the same.",
)

for command in (*train.COMMANDS, *tune.COMMANDS, *versions.COMMANDS, *serve.COMMANDS, *sync.COMMANDS, *clean.COMMANDS):
    command.params = [*command.params, _DEBUG]
    main.add_command(command)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code."""
    interrupts.install()
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        if code != WRONG_REQUEST and "fmnist_exp.tracking.spool.process" in sys.modules:
            code = _send(code)
    except KeyboardInterrupt:  # while an error was reported, or the store got the rest
        code = INTERRUPTED
    interrupts.leave_at_once(code)
    sys.exit(code)


def _run(words: list[str]) -> int:
    """Run the command line, report how it ended unless the work is done, and return the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    failures.install()
    if any([redact.remember(word) for word in words]):
        log.warning(VISIBLE)
    try:
        main.main(args=words, standalone_mode=False)
        return DONE
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _fail(error.format_message(), WRONG_REQUEST)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if failures.debugging():
            click.echo(failures.trace(error), err=True, nl=False)
        if interrupts.pending():  # a library has replaced the interrupt by an error of its own
            return _fail("interrupted", INTERRUPTED)
        sentence = failures.explain(error) or _unexpected(error)
        is_request = isinstance(error, RequestError) and not is_full_disk(error)
        return _fail(sentence, WRONG_REQUEST if is_request else WORK_FAILED)


def _send(code: int) -> int:
    """Wait until the tracking store has everything that was logged, or say what waits for `fmnist-exp sync`.

    Returns the exit code of the command, which is that of failed work if records are lost.
    """
    from fmnist_exp.tracking import store
    from fmnist_exp.tracking.spool import left, process, sync

    sender = process.sender()
    found = sender.drain(AFTER_INTERRUPT if code == INTERRUPTED else None)
    if not found and sender.is_up and not sender.offline and left.on_disk(sender.address):
        with suppress(Exception):  # the work is done, and the next command tries again
            sync.adopt(store.client())  # of processes of this command that are gone
        return code
    if waiting := left.on_disk(sender.address):
        state = "has not taken them yet" if sender.is_up else "does not answer"
        why = f" ({found.reason})" if found.reason else ""  # there is none before the first attempt
        reason = "of --offline" if sender.offline else f"{sender.address} {state}{why}"
        folders = "1 folder" if waiting.folders == 1 else f"{waiting.folders} folders"
        send = "send them with: fmnist-exp sync"
        _fail(f"{waiting.records} records wait in {folders} of {waiting.where} because {reason}; {send}", code)
    if not found.unsaved:
        return code
    lost = f"the disk is full, so that {found.unsaved} records were kept nowhere; make room, then run the command again"
    return _fail(lost, code or WORK_FAILED)


def _unexpected(error: Exception) -> str:
    return (
        f"an unexpected {type(error).__name__} ended the command: {redact.first_line(error)}; run it again with --debug"
        " to see where, and report that as a bug"
    )


def _fail(message: str, code: int) -> int:
    click.echo(f"fmnist-exp: {escape.terminal(redact.without_secrets(message))}", err=True)
    return code
