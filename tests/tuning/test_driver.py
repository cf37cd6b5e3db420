"""A driver with workers that die, hang or lose touch, and with kills between two writes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from support import standin

from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tracking.run import Run
from fmnist_exp.tuning import driver, objectives, recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.driver import Driver, Search
from fmnist_exp.tuning.record import LOSSES
from fmnist_exp.tuning.space import SearchSpace
from fmnist_exp.tuning.workers import trial
from fmnist_exp.tuning.workers.messages import (
    Answer,
    Died,
    Envelope,
    EpochEnd,
    Failed,
    Finished,
    Handler,
    Lost,
    Started,
    TrialResult,
    Verdict,
)

STORAGE = "sqlite:///studies.db"


class Script:
    """A pool of one worker whose messages a test writes; it keeps the answers."""

    size = 1

    def __init__(self, *messages: Envelope) -> None:
        self.messages = list(messages)
        self.answers: list[Answer | None] = []
        self.started: list[int] = []
        self.dropped: list[int] = []
        self.addresses = {"tcp://one"}

    def submit(self, task: trial.Task) -> None:
        self.started.append(task.number)

    def work(self, handle: Handler, seconds: float) -> None:
        if self.messages:
            self.answers.append(handle(self.messages.pop(0)))

    def drop(self, number: int) -> None:
        self.dropped.append(number)

    def has(self, address: str) -> bool:
        return address in self.addresses


def start(execution: str, address: str = "tcp://one", slow: str = "") -> Envelope:
    return Envelope(0, execution, Started("one", address, slow), 1)


def end(execution: str, stopped: bool = False) -> Envelope:
    return Envelope(0, execution, Finished(TrialResult(stopped, 0.5, parameters=1)))


LOST, DIED = Envelope(0, "", Lost()), Envelope(0, "", Died())


class Clock:
    """Time that a test can let pass."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@dataclass(frozen=True)
class Stage:
    """A new study, and how to have a driver work on it. `drive` with seconds until the time is over."""

    study: optuna.Study
    parent: Run
    drive: Callable[[Script, float], None]
    clock: Clock
    notices: list[str]


@pytest.fixture
def stage(shared_store, data, request) -> Iterator[Stage]:
    config, clock = standin.configure(1), Clock()
    client = store.connect()
    study = studies.open_study(config, request.node.name, STORAGE)
    with runs.closing(runs.start_run(client, "tune", "driver", config.name)) as parent:

        def drive(script: Script, seconds: float) -> None:
            search = Search(SearchSpace(config), data, study, parent, time.monotonic() + seconds, clock.monotonic)
            callback = SearchCallback()
            callback.on_notice = notices.append  # type: ignore[method-assign]
            Driver(search, script, standin.objective, callback, None).work()

        notices: list[str] = []
        yield Stage(study, parent, drive, clock, notices)


def test_a_worker_that_computes_slowly_is_named_once(stage):
    reason = "this processor has none"
    stage.drive(Script(start("a", slow=reason), DIED, start("b", slow=reason), end("b")), 60)
    assert stage.notices == [f"worker one computes slowly in float32: {reason}"]


def test_executions_that_lose_touch_are_no_deaths(stage):
    names = "abcd"
    script = Script(*(message for name in names for message in (start(name), LOST)), start("e"), end("e"))
    stage.drive(script, 60)
    assert [ended.state.name for ended in stage.study.trials] == ["COMPLETE"]
    assert script.started == [0] * 5


def test_a_trial_that_no_worker_can_keep_fails(stage):
    stage.drive(Script(*[LOST] * LOSSES), 60)
    assert stage.study.trials[0].user_attrs["error"].startswith("its workers lost touch with the driver 20 times")


def test_three_deaths_are_a_failure(stage):
    stage.drive(Script(start("a"), start("b"), LOST, start("c"), DIED, start("d"), DIED), 60)
    assert stage.study.trials[0].user_attrs["error"].startswith("its worker died 3 times")


def test_workers_that_die_before_they_begin_are_a_failure(stage):
    stage.drive(Script(start("a"), DIED, DIED, DIED), 60)  # the first one took the living one with it
    assert stage.study.trials[0].user_attrs["error"].startswith("its worker died 3 times")


def test_what_a_superseded_execution_says_is_dropped(stage):
    late = Envelope(0, "a", EpochEnd(1, 0.9), 2)
    script = Script(start("a"), start("b"), late, end("a"), end("b"))
    stage.drive(script, 60)
    assert script.answers[2:4] == [Verdict.ABANDON, Verdict.ABANDON]
    assert stage.study.trials[0].intermediate_values == {}
    assert stage.study.trials[0].state.name == "COMPLETE"


def test_a_trial_never_names_a_deleted_run(stage, monkeypatch):
    def kill(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "discard", kill)
    with pytest.raises(KeyboardInterrupt):
        stage.drive(Script(start("a"), start("b")), 60)
    named = store.client().get_run(stage.study.trials[0].user_attrs["run_id"])
    assert named.info.lifecycle_stage == "active"


def test_a_study_goes_on_after_somebody_deleted_a_run(stage):
    stage.drive(Script(start("a"), end("a")), 60)
    stage.parent.client.delete_run(stage.study.trials[0].user_attrs["run_id"])
    recovery.check(stage.study, stage.parent.client)
    recovery.reattach(stage.study, stage.parent)


def test_a_full_disk_says_on_which_worker(stage):
    full = Envelope(0, "a", Failed("OSError: no room", full_disk=True))
    said = pytest.raises(WorkError, match=r"the disk is full \(on worker one: OSError: no room\)")
    with said, recovery.explaining_full_disk("study"):
        stage.drive(Script(start("a"), full), 60)


def test_what_begins_again_after_the_time_is_cut_off(stage):
    script = Script(start("a"))
    script.messages.append(start("b"))
    late = Late(script, stage.clock)
    stage.drive(late, 60)
    assert late.answers[1] is Verdict.ABANDON
    check_cut(stage, late)


def test_after_the_time_only_what_has_epochs_left_is_stopped(stage):
    epochs = [Envelope(0, "a", EpochEnd(number, 0.5), 2) for number in (3, 4)]
    late = Late(Script(start("a"), *epochs, end("a")), stage.clock)
    stage.drive(late, 60)
    assert late.answers[1:3] == [Verdict.STOP, Verdict.CONTINUE]


def test_a_trial_whose_worker_is_gone_is_not_waited_for_after_the_time(stage):
    script = Late(Script(start("a", "tcp://gone")), stage.clock)
    stage.drive(script, 60)
    check_cut(stage, script)


def test_a_trial_that_hangs_is_not_waited_for_after_the_time(stage, monkeypatch):
    monkeypatch.setattr(driver, "SILENT_SECONDS", 0.5)
    script = Late(Script(start("a")), stage.clock)
    stage.drive(script, 60)
    check_cut(stage, script)


@pytest.mark.parametrize(
    ("names", "state"), [(["val_accuracy"], "PRUNED"), (["val_accuracy", "parameters"], "COMPLETE")]
)
def test_what_was_stopped_is_on_the_front_of_several_objectives(shared_store, data, names, state):
    config = standin.configure(1, search__pruner="none", search__objectives=names)
    study = studies.open_study(config, f"stopped for {len(names)}", STORAGE)
    stopped = end("a", stopped=True)
    with runs.closing(runs.start_run(store.connect(), "tune", "driver", config.name)) as parent:
        search = Search(SearchSpace(config), data, study, parent, time.monotonic() + 60)
        Driver(search, Script(start("a"), stopped), standin.objective, SearchCallback(), None).work()
    assert study.trials[0].state.name == state
    assert [one.number for one in objectives.front(study)] == [0] * (len(names) - 1)


class Late(Script):
    """Says all but the first message when the time is over."""

    def __init__(self, script: Script, clock: Clock) -> None:
        super().__init__(*script.messages)
        self.first = True
        self.clock = clock

    def work(self, handle: Handler, seconds: float) -> None:
        if not self.first:
            self.clock.ahead += seconds
            if seconds > 0.01:
                return
        self.first = False
        super().work(handle, seconds)


def check_cut(stage: Stage, script: Script) -> None:
    """The trial counts for nothing, its run is closed, and its setting waits for the next session."""
    first, queued = stage.study.get_trials()
    assert stage.study.user_attrs[studies.CUT_OFF] == [0]
    assert (first.state.name, queued.state.name) == ("FAIL", "WAITING")
    assert queued.system_attrs["fixed_params"] == first.params
    assert store.client().get_run(first.user_attrs["run_id"]).info.status == "KILLED"
    assert script.dropped == [0]
