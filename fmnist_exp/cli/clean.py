"""The command that deletes what nobody needs any more."""

from __future__ import annotations

import click

from fmnist_exp.backend import loading
from fmnist_exp.cli.options import switch
from fmnist_exp.errors import WorkError


@click.command("clean")
@click.option(
    "--keep",
    type=click.IntRange(1, 100_000),
    default=5,
    show_default=True,
    help="Number of the best trials of each study whose weights stay; a larger search.keep of a study counts instead.",
)
@click.option(
    "--storage",
    envvar="FMNIST_EXP_STORAGE",
    default="sqlite:///studies.db",
    show_default=True,
    help="Address of the studies' database, as for tune.",
)
@switch("--yes", "Delete. Without it, the command only says what it would delete, and how much that is.")
def clean(keep: int, storage: str, yes: bool) -> None:
    """Delete weights of weak trials, incomplete models, old checkpoints and spool folders that were sent."""
    loading.load_keras()
    from fmnist_exp.cli import clean_display
    from fmnist_exp.tracking import store
    from fmnist_exp.tuning import cleaning

    found = cleaning.find(store.connect(), storage, keep)
    clean_display.show(found)
    if not found.items:
        return
    if not yes:
        clean_display.console.print("nothing was deleted; the same command with --yes true deletes it")
        return
    if problems := cleaning.delete(found):
        raise WorkError(f"not everything could be deleted; {len(problems)} problems, the first one: {problems[0]}")
    clean_display.console.print("all of it was deleted")


COMMANDS = (clean,)
