"""A driver with workers that die, lose touch, compute slowly or fail to reach a server: which trials fail, and why."""

import time

import pytest
from support import standin
from support.scripts import DIED, LOST, Script, Slow, away, end, run_of, start
from support.searches import STORAGE

from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tuning import objectives, recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.driver import Driver
from fmnist_exp.tuning.record import LOSSES, OUTAGES
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.space import SearchSpace
from fmnist_exp.tuning.workers.messages import Begin, Envelope, EpochEnd, Failed, Verdict


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


def test_what_a_superseded_execution_says_is_dropped(stage):
    late = Envelope(0, "a", EpochEnd(1, 0.9), 2)
    script = Script(start("a"), start("b"), late, end("a"), end("b"))
    stage.drive(script, 60)
    assert script.answers[2:4] == [Verdict.ABANDON, Verdict.ABANDON]
    assert stage.study.trials[0].intermediate_values == {}
    assert stage.study.trials[0].state.name == "COMPLETE"


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


def test_a_full_disk_says_on_which_worker(stage):
    full = Envelope(0, "a", Failed("OSError: no room", full_disk=True))
    said = pytest.raises(WorkError, match=r"the disk is full \(on worker one: OSError: no room\)")
    with said, recovery.explaining_full_disk("study"):
        stage.drive(Script(start("a"), full), 60)


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
