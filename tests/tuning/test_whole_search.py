"""A whole search in two real worker processes: objectives, refits, retention, and Ctrl-C while the winner is fitted."""

import os
import signal
import threading
import time
import typing

import mlflow
import pytest
from support import searches
from support.searches import configure

from fmnist_exp.backend import interrupts
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.result import SearchResult

# Ctrl-C may come between open() and its `with`: then Python says that nobody closed the file
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Pressing(SearchCallback):
    """Presses Ctrl-C as soon as the winner's second fit has its run."""

    def on_notice(self, text: str) -> None:
        if text.startswith("fitting the winner again"):
            threading.Thread(target=self.press, daemon=True).start()

    def press(self) -> None:
        deadline = time.monotonic() + 60
        while not refits() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)


def refits() -> list[mlflow.entities.Run]:
    """The runs that fit a winner again, in order."""
    client = store.client()
    return client.search_runs(["0"], f"tags.`{Tag.REFIT_OF}` LIKE '%'", order_by=["attributes.start_time"])


class Searched(typing.NamedTuple):
    interrupted: SearchResult
    result: SearchResult


@pytest.fixture(scope="module")
def searched(tmp_path_factory, shared_store, folder) -> typing.Iterator[Searched]:
    """Three trials in two processes, interrupted while the winner was fitted again, and the same search again."""
    config = configure(
        data__source=folder,
        search__objectives=["val_accuracy", "parameters"],
        search__n_trials=3,
        search__refit=1,
        search__keep=1,
    )
    heeding = signal.signal(signal.SIGINT, interrupts.interrupt)  # a shell in the background has it ignored
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMNIST_EXP_CACHE", str(tmp_path_factory.mktemp("cache")))  # the workers' too
        try:
            interrupted = searches.search(config, "whole", workers=2, callback=Pressing()).result
        finally:  # whatever happens here, later tests must not be interrupted by it
            signal.signal(signal.SIGINT, heeding)
            interrupts.clear()
        yield Searched(interrupted, searches.search(config, "whole").result)


def test_ctrl_c_while_the_winner_is_fitted_again_leaves_nothing_open(searched):
    assert (searched.interrupted.status, searched.result.status) == ("interrupted", "completed")
    assert searched.interrupted.registration is None
    assert searched.interrupted.retention is None
    assert searched.interrupted.states == {"COMPLETE": 3, "PRUNED": 0, "FAIL": 0}
    assert store.client().get_run(searched.interrupted.run_id).info.status == "KILLED"
    (refit,) = refits()  # the second search continued in the first one's run
    assert (refit.info.status, refit.data.tags["fmnist.resumptions"]) == ("FINISHED", "1")
    assert refit.data.tags["mlflow.parentRunId"] == searched.result.run_id


def test_trials_of_workers_have_all_objectives_and_lie_on_a_front(searched):
    assert searched.result.states == searched.interrupted.states
    for ended in searched.result.ranked:
        assert ended.parameters
        assert 0 < ended.val_accuracy <= 1
    best = searched.result.ranked[0]
    assert searched.result.front[0] == best.number
    smallest = min(searched.result.ranked, key=lambda ended: ended.parameters)
    assert smallest.number in searched.result.front


def test_the_refit_is_registered_and_the_weights_of_others_are_gone(searched):
    client = store.client()
    version = client.get_model_version("fashion-mnist", searched.result.registration.version)
    assert version.run_id == refits()[-1].info.run_id
    assert version.tags["refit_of"] == searched.result.ranked[0].run_id
    kept = searched.result.retention
    assert set(kept.kept) == set(searched.result.front)
    assert kept.deleted == 3 - len(kept.kept)
