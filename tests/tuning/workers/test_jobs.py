"""Jobs of Dask in this process: what they say, what becomes of answers, where trials run."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support import standin

from fmnist_exp.backend import machine
from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tuning.workers import pool, trial
from fmnist_exp.tuning.workers.jobs import GONE, Answer, Cluster, DriverGone, Line, Message

ENDED: list[str] = []  # jobs that noticed that nobody wants them


def wait(job: str, line: Line) -> None:
    try:
        line.ask("first")
        line.say("between")
        line.ask("second")
    except DriverGone:
        ENDED.append(job)


def leave(job: str, line: Line) -> None:
    raise DriverGone


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def hear_until(cluster: Cluster, kind: str, answer: Answer | None = None) -> list[Message]:
    """What is said up to a message of this kind; all that ask before it get the answer."""
    heard: list[Message] = []

    def hear(message: Message) -> Answer | None:
        heard.append(message)
        return answer if message.kind != kind else None

    deadline = time.monotonic() + 60
    while kind not in [message.kind for message in heard]:
        assert time.monotonic() < deadline, heard
        cluster.work(hear, 0.1)
    return heard


def variables(client: Any) -> list[str]:
    return list(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.extensions["variables"].variables)))


def test_a_job_that_the_scheduler_forgets_ends_the_search(client):
    cluster = Cluster(client, None)
    cluster.start("0", wait, "0")
    hear_until(cluster, "first")
    client.cancel(list(cluster._jobs.values()), force=True)
    with pytest.raises(WorkError, match="the Dask scheduler is gone, or was started anew"):
        hear_until(cluster, "never")


def test_a_dropped_job_ends_soon_and_leaves_no_answer(client):
    cluster = Cluster(client, None)
    cluster.start("0", wait, "dropped")
    heard = hear_until(cluster, "second", {"stop": False})
    assert [message.kind for message in heard] == ["first", "between", "second"]
    assert cluster._unread == {}
    cluster.drop("0")
    deadline = time.monotonic() + 20
    while "dropped" not in ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert variables(client) == []


def test_a_job_that_gives_its_driver_up_has_left(client):
    cluster = Cluster(client, None)
    cluster.start("0", leave, "0")
    assert [message.kind for message in hear_until(cluster, "left")] == ["left"]
    cluster.drop("0")


def test_answers_that_nobody_reads_are_deleted(client):
    cluster = Cluster(client, None)
    cluster._answer(Message("0", "dead", 1, "epoch", asks=True), GONE)
    assert variables(client) == ["dead-1"]
    cluster.close()
    deadline = time.monotonic() + 20
    while variables(client):
        assert time.monotonic() < deadline


def test_workers_that_share_cores_are_counted(client):
    cores = pool.Workers(Cluster(client, None))._core_sets()
    assert list(cores.values()) == [machine.core_set()] * 2


# where trials run


@pytest.mark.parametrize(("memory", "count"), [(64, 8), (9, 4), (1, 1)])
def test_short_memory_makes_fewer_workers(monkeypatch, caplog, memory, count):
    monkeypatch.setattr(machine, "memory", lambda: memory * 2**30)
    assert pool._affordable(8) == count
    assert bool(caplog.records) == (count < 8)


def test_a_trial_that_nobody_wants_is_not_said_to_have_failed(shared_store, data):
    config = standin.configure(1)
    run = runs.start_run(store.connect(), "trial", "gone", config.name)
    said = []

    def hear(message: Message) -> Answer:
        said.append(message.kind)
        return {"stop": False, "run_id": run.id} if message.kind == "start" else GONE

    task = trial.Task(0, config, standin.objective, trial.place_of(config, data))
    with runs.closing(run), pytest.raises(DriverGone):
        trial.run_here(replace(task, threads=1), pool._Direct("0", hear), data)
    assert said[-1] == "epoch"
