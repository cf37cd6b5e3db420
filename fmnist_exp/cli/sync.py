"""The command that sends what earlier commands could not send."""

from __future__ import annotations

from pathlib import Path

import click

from fmnist_exp.errors import WorkError


@click.command("sync")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
def sync(folder: Path | None) -> None:
    """Send to the tracking store what waits in the spool, or in FOLDER, which may come from another machine."""
    from fmnist_exp.cli.display import console
    from fmnist_exp.registry import deliveries  # noqa: F401  (so that models and versions can be sent)
    from fmnist_exp.tracking import store
    from fmnist_exp.tracking.spool import folder as folders
    from fmnist_exp.tracking.spool import sync as library

    sent = library.send(store.connect(), folder)
    if sent == library.Sent():
        console.print(f"nothing waits in {folder or folders.root()}")
    console.print(f"records sent to {store.address()}: {sent.records}")
    if sent.in_use:
        console.print(f"folders of commands that are still running, which send them: {len(sent.in_use)}")
    for address in sorted(sent.elsewhere):
        console.print(f"other folders wait for {address}; set MLFLOW_TRACKING_URI to it and run this command again")
    if problem := sent.problem():
        raise WorkError(problem)


COMMANDS = (sync,)
