"""Send what the folders of processes hold that are gone: those of this machine, or a copy from another one."""

from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.attempt import is_refusal
from fmnist_exp.tracking.spool.folder import Folder
from fmnist_exp.tracking.spool.left import patience
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.spool.queue import Spool

AT_ONCE = 200  # folders that are open at the same time


@dataclass
class Sent:
    """The result of sending folders whose writers are gone."""

    records: int = 0  # that the store has now
    refused: int = 0  # records that the store will never take
    left: dict[str, str] = field(default_factory=dict)  # names of folders that could not be sent whole, and why not
    in_use: set[str] = field(default_factory=set)  # names of folders of processes that live, which send them
    elsewhere: set[str] = field(default_factory=set)  # addresses of other stores that folders are for
    unreadable: set[str] = field(default_factory=set)  # sentences

    def problem(self) -> str:
        """Return a sentence about what could not be sent, or an empty text."""
        reasons = sorted(self.unreadable)
        if self.refused:
            reasons.append(f"the tracking store refused {self.refused} of the records, which are kept")
        if self.left:
            why = "; ".join(sorted(set(self.left.values())))
            which = ", ".join(sorted(self.left)[:3]) + (", …" if len(self.left) > 3 else "")
            reasons.append(f"the spool still has {which} ({why}); run the command again later")
        return "; ".join(reasons)


def adopt(client: MlflowClient) -> Sent:
    """Send what earlier processes left for this store, as far as the store takes it now; return when that is done."""
    return _send(client, folders.root(), everything=False)


def send(client: MlflowClient, folder: Path | None = None) -> Sent:
    """Send one folder of records, or all below a folder; by default, all that wait for this store.

    A folder that is named is sent whatever address it was written for, if it was not sent to another store before.
    Records that the store refused are sent once more.
    """
    return _send(client, folder or folders.root(), everything=True, named=folder is not None)


def _send(client: MlflowClient, parent: Path, everything: bool, named: bool = False) -> Sent:
    done, refused = Sent(), sender().refused
    if sender().offline:
        return done
    paths, before, reasons = folders.all_paths(parent), -1, dict[str, str]()
    while paths and done.records != before:  # a folder may have to wait for another one, as a child for its parent
        before, waiting = done.records, []
        for start in range(0, len(paths), AT_ONCE):
            taken = {}
            for path in paths[start : start + AT_ONCE]:
                if spool := _open(client, path, done, everything, named):
                    taken[path] = spool, len(spool.pending)
            sender().send([spool for spool, _ in taken.values()], patience() if everything else 0.0)
            done.records += sum(count - len(spool.pending) for spool, count in taken.values())
            waiting += [path for path, (spool, _) in taken.items() if spool.pending]
            reasons |= {path.name: spool.reason for path, (spool, _) in taken.items()}
        paths = waiting
    done.refused = sender().refused - refused
    done.records -= done.refused
    done.left = {path.name: reasons[path.name] or sender().left().reason for path in paths}
    return done


def _open(client: MlflowClient, path: Path, done: Sent, again: bool, named: bool) -> Spool | None:
    """Return the records of a folder if they are for this store and nobody else sends them."""
    try:
        folder = Folder.reopen(path)
    except (OSError, ValueError) as error:
        done.unreadable.add(str(error))
        return None
    if folder is None:
        done.in_use.add(path.name)
        return None
    spool = Spool(folder.head, sender())
    spool.reopen(folder, again)
    if folder.address == sender().address or (named and _belongs(client, spool)):
        return spool
    done.elsewhere.add(folder.address)
    folder.release()
    return None


def _belongs(client: MlflowClient, spool: Spool) -> bool:
    """Return True if the run of a folder is in this store, or in none yet."""
    if not spool.run_id:
        return True
    try:
        client.get_run(spool.run_id)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        return ids.resolve(client, spool.head.id) is not None and ids.is_local(spool.head.id)
    return True
