"""A driver with workers that die, hang or lose touch, and with kills between two writes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from support import standin

from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import resumption, store
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.run import Run
from fmnist_exp.tuning import driver, objectives, recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.driver import Driver, Search
from fmnist_exp.tuning.record import LOSSES, OUTAGES
from fmnist_exp.tuning.space import SearchSpace
from fmnist_exp.tuning.workers import trial
from fmnist_exp.tuning.workers.messages import (
    Answer,
    Begin,
    Died,
    Envelope,
    EpochEnd,
    Failed,
    Finished,
    Handler,
    Lost,
    Started,
    TrialResult,
    Unreachable,
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


def away(execution: str) -> Envelope:
    return Envelope(0, execution, Unreachable("the tracking server does not answer"))


class Slow(Script):
    """A script that has a minute between two messages."""

    def __init__(self, clock: Clock, *messages: Envelope) -> None:
        super().__init__(*messages)
        self.clock = clock

    def work(self, handle: Handler, seconds: float) -> None:
        super().work(handle, seconds)
        self.clock.ahead += 60


def test_executions_that_a_server_did_not_answer_are_no_failures_and_no_deaths(stage):
    names = "abcdef"
    lost = [message for name in names for message in (start(name), away(name))]
    script = Slow(stage.clock, *lost, start("g"), away("a"), end("g"))
    stage.drive(script, 10_000)
    assert [ended.state.name for ended in stage.study.trials] == ["COMPLETE"]
    assert script.started == [0] * 7
    assert script.dropped == [0] * 7  # so that the end of a job is not taken for a loss
    assert script.answers[-2] is Verdict.ABANDON


def test_a_server_that_never_comes_back_ends_the_search_and_not_the_setting(stage):
    script = Slow(stage.clock, start("a"), Envelope(0, "a", EpochEnd(1, 0.5), 2), *[away("a")] + [away("x")] * OUTAGES)
    with pytest.raises(WorkError, match="a server did not answer 20 executions of trial 0 in a row: the tracking"):
        stage.drive(script, 10_000)
    assert [left.state.name for left in stage.study.trials] == ["RUNNING"]
    recovery.finalise(stage.study, stage.parent, "the search ended")
    assert [left.state.name for left in stage.study.trials] == ["FAIL", "WAITING"]
    assert stage.study.user_attrs["cut_off"] == [0]


def test_a_trial_that_waits_for_a_server_is_cut_off_when_the_time_is_over(stage):
    stage.drive(Slow(stage.clock, start("a"), away("a")), 90)
    assert stage.study.user_attrs["cut_off"] == [0]


def test_what_a_superseded_execution_says_is_dropped(stage):
    late = Envelope(0, "a", EpochEnd(1, 0.9), 2)
    script = Script(start("a"), start("b"), late, end("a"), end("b"))
    stage.drive(script, 60)
    assert script.answers[2:4] == [Verdict.ABANDON, Verdict.ABANDON]
    assert stage.study.trials[0].intermediate_values == {}
    assert stage.study.trials[0].state.name == "COMPLETE"


def run_of(stage: Stage, number: int = 0) -> Any:
    return store.client().get_run(stage.study.trials[number].user_attrs["run_id"])


def test_a_retried_trial_keeps_its_run(stage):
    script = Script(start("a"), DIED, start("b"), end("b"))
    stage.drive(script, 60)
    first, second = script.answers[0], script.answers[2]
    assert isinstance(first, Begin)
    assert isinstance(second, Begin)
    assert (first.resumed, second.resumed) == (False, True)
    assert first.run.id == second.run.id == run_of(stage).info.run_id
    assert run_of(stage).data.tags["fmnist.resumptions"] == "1"
    assert run_of(stage).info.status == "FINISHED"


def test_a_trial_whose_run_somebody_deleted_gets_a_new_one_in_the_next_session(stage):
    with pytest.raises(KeyboardInterrupt):
        stage.drive(Interrupted(start("a")), 60)
    recovery.finalise(stage.study, stage.parent, "its driver was killed")
    deleted = run_of(stage).info.run_id
    store.client().delete_run(deleted)
    script = Script(
        Envelope(1, "a", Started("one", "tcp://one"), 1), Envelope(1, "a", Finished(TrialResult(False, 0.5)))
    )
    stage.drive(script, 60)
    begun = script.answers[0]
    assert isinstance(begun, Begin)
    assert not begun.resumed
    assert run_of(stage, 1).info.run_id != deleted
    assert run_of(stage, 1).info.status == "FINISHED"


def test_a_kill_between_record_and_run_loses_no_state(stage, monkeypatch):
    def begin(number: int) -> Script:
        return Interrupted(Envelope(number, "a", Started("one", "tcp://one"), 1))

    def kill(*arguments: Any) -> None:
        raise KeyboardInterrupt

    run_ids = []
    for number in range(3):
        if number == 1:
            monkeypatch.setattr(resumption, "take", kill)  # between the trial's record and the tags of its run
        with pytest.raises(KeyboardInterrupt):
            stage.drive(begin(number), 60)
        recovery.finalise(stage.study, stage.parent, "its driver was killed")
        run_ids += [
            stage.study.trials[number].user_attrs["run_id"],
            stage.study.trials[number + 1].user_attrs["resumes"],
        ]
    assert len(set(run_ids)) == 1
    found = store.client().get_run(run_ids[0])
    assert (found.info.lifecycle_stage, found.info.status) == ("active", "KILLED")


class Interrupted(Script):
    """Says its messages, and then the driver is interrupted."""

    def work(self, handle: Handler, seconds: float) -> None:
        if not self.messages:
            raise KeyboardInterrupt
        super().work(handle, seconds)


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
