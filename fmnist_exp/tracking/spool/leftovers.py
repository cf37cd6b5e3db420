"""Find the folders of the spool that nobody needs any more, and the runs of those that wait to be sent."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids, records
from fmnist_exp.tracking.spool.folder import RECORDS, SENT, Folder


@dataclass(frozen=True)
class Leftover:
    """A folder that nobody needs, and its size in bytes."""

    client: MlflowClient
    path: Path
    bytes: int

    def delete(self) -> None:
        """Delete the folder, unless it is needed by now."""
        if (folder := _reopen(self.path)) is not None:
            if _is_unneeded(self.client, folder):
                folder.delete()
            else:
                folder.release()


def unneeded(client: MlflowClient) -> list[Leftover]:
    """Return the folders for this store that were sent whole, or whose run was deleted. Nothing is changed."""
    found = []
    for path in folders.all_paths(folders.root()):
        if (folder := _reopen(path)) is not None:
            try:
                if _is_unneeded(client, folder):
                    found.append(Leftover(client, path, folders.size(path)))
            finally:
                folder.release()
    return found


def waiting_runs() -> set[str]:
    """Return the ids of the runs that records are about which wait to be sent, by any process of this machine."""
    found: set[str] = set()
    for path in folders.all_paths(folders.root()):
        written = records.read(path / name for name in RECORDS)
        settled = records.read([path / SENT])
        waiting = [record for number, record in written.items() if number and number not in settled]
        if waiting:
            heads = [str(written[0].body["id"])] if 0 in written else []
            made = [str(record.body["id"]) for record in settled.values() if record.body.get("run")]
            found.update(heads + made, (str(record.body["run_id"]) for record in waiting if "run_id" in record.body))
    return found


def _reopen(path: Path) -> Folder | None:
    """Return the folder if it can be read, its writer is gone and it is for this store."""
    with suppress(OSError, ValueError):
        folder = Folder.reopen(path)
        if folder is None or folder.address == store.address():
            return folder
        folder.release()
    return None


def _is_unneeded(client: MlflowClient, folder: Folder) -> bool:
    written, settled, damaged = folder.read()
    waiting = [record for record in written if settled.get(record.number) is None]
    refused = any(record.kind != folders.DELIVERED for record in settled.values())
    if not (waiting or refused or damaged):
        return True
    if any("run_id" in record.body for record in waiting):  # about another run
        return False
    run_ids = {folder.head.id, *(str(record.body["id"]) for record in settled.values() if record.body.get("run"))}
    return any(_is_deleted(client, run_id) for run_id in run_ids if not ids.is_local(run_id))


def _is_deleted(client: MlflowClient, run_id: str) -> bool:
    """Return True if the store has the run among those that were deleted."""
    with suppress(MlflowException):  # it never had the run, or does not answer
        return bool(client.get_run(run_id).info.lifecycle_stage == "deleted")
    return False
