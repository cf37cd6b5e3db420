"""Trials as jobs of Dask in this process: their messages, and what becomes of answers."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from distributed import Client, Future, LocalCluster
from support import standin

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.training import speed
from fmnist_exp.tuning.workers import jobs, pool, trial
from fmnist_exp.tuning.workers.jobs import Cluster
from fmnist_exp.tuning.workers.messages import (
    Abandoned,
    Answer,
    Begin,
    Broken,
    Channel,
    Envelope,
    EpochEnd,
    Lost,
    Message,
    Progress,
    Started,
    Verdict,
)

ENDED: list[str] = []  # jobs that noticed that nobody wants them
THREADS: list[list[str]] = []  # the core sets of the workers, as a task has them


def ask_twice(name: str, channel: Channel) -> None:
    try:
        channel.ask(EpochEnd(1, 0.5))
        channel.send(Progress(1.5))
        channel.ask(EpochEnd(2, 0.6))
    except Abandoned:
        ENDED.append(name)


def give_up(name: str, channel: Channel) -> None:
    raise Abandoned


def break_down(name: str, channel: Channel) -> None:
    raise ValueError("this cannot be run")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def handle_until(cluster: Cluster, last: type | Message, answer: Answer | None = None) -> list[Message]:
    """Return the messages up to this message, or one of this type; all questions before it get the answer."""
    sent: list[Message] = []

    def is_last(message: Message) -> bool:
        return isinstance(message, last) if isinstance(last, type) else message == last

    def handle(envelope: Envelope) -> Answer | None:
        sent.append(envelope.message)
        return None if is_last(envelope.message) else answer

    deadline = time.monotonic() + 60
    while not any(map(is_last, sent)):
        assert time.monotonic() < deadline, sent
        cluster.work(handle, 0.1)
    return sent


def variables(client: Client) -> list[str]:
    return list(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.extensions["variables"].variables)))


def wait_for_no_variables(client: Client) -> None:
    deadline = time.monotonic() + 20
    while variables(client):
        assert time.monotonic() < deadline


def test_a_job_that_the_scheduler_forgets_ends_the_search(client):
    cluster = Cluster(client, None)
    cluster.submit(0, ask_twice, "forgotten")
    handle_until(cluster, EpochEnd)
    client.cancel([Future(key, client) for key in client.futures], force=True)
    with pytest.raises(WorkError, match="the Dask scheduler is gone, or was started anew"):
        handle_until(cluster, Started)


def test_a_dropped_job_ends_soon_and_leaves_no_answer(client):
    cluster = Cluster(client, None)
    cluster.submit(0, ask_twice, "dropped")
    sent = handle_until(cluster, EpochEnd(2, 0.6), Verdict.CONTINUE)
    assert sent == [EpochEnd(1, 0.5), Progress(1.5), EpochEnd(2, 0.6)]
    cluster.drop(0)
    deadline = time.monotonic() + 20
    while "dropped" not in ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert variables(client) == []


def test_an_abandoned_job_ends_at_its_question(client):
    cluster = Cluster(client, None)
    cluster.submit(0, ask_twice, "abandoned")
    handle_until(cluster, Lost, Verdict.ABANDON)
    assert "abandoned" in ENDED
    cluster.drop(0)


@pytest.mark.parametrize(
    ("function", "end"), [(give_up, Lost()), (break_down, Broken("ValueError: this cannot be run"))]
)
def test_what_the_end_of_a_job_means(client, function, end):
    cluster = Cluster(client, None)
    cluster.submit(0, function, "ended")
    assert handle_until(cluster, end) == [end]
    cluster.drop(0)


def test_answers_that_nobody_reads_are_deleted(client, monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 0)  # the job waits for no answer
    cluster = Cluster(client, None)
    cluster.submit(0, ask_twice, "impatient")
    handle_until(cluster, Lost, Verdict.CONTINUE)
    assert len(variables(client)) == 1
    cluster.close()
    wait_for_no_variables(client)


def record_cores(task: trial.Task, channel: Channel) -> None:
    THREADS.append(list(task.cores.values()))


def test_workers_that_share_cores_are_counted(client, monkeypatch, shared_store, data):
    monkeypatch.setattr(trial, "run_on_worker", record_cores)
    cluster = Cluster(client, None)
    config = standin.configure(1)
    pool.DaskPool(cluster).submit(trial.Task(0, config, standin.objective, trial.requirements_of(config, data)))
    handle_until(cluster, Lost)
    assert [[trial.core_set()] * 2] == THREADS


def test_a_trial_that_nobody_wants_is_not_said_to_have_failed(shared_store, data):
    config = standin.configure(1)
    run = runs.start_run(store.connect(), "trial", "gone", config.name)
    sent: list[Any] = []

    def handle(envelope: Envelope) -> Answer:
        sent.append(envelope.message)
        return Begin(run.head, 1) if isinstance(envelope.message, Started) else Verdict.ABANDON

    task = trial.Task(0, config, standin.objective, trial.requirements_of(config, data))
    with runs.closing(run), pytest.raises(Abandoned):
        trial.run_here(replace(task, threads=1), pool.DirectChannel(0, handle), data)
    assert isinstance(sent[-1], EpochEnd)


def test_a_network_whose_steps_cannot_be_timed_begins_without_a_plan(shared_store, data, monkeypatch):
    def fails(config: ExperimentConfig, data: FashionMNIST) -> float:
        raise MemoryError

    config = standin.configure(1)
    sent: list[Any] = []

    def handle(envelope: Envelope) -> Answer:
        sent.append(envelope.message)
        return Verdict.ABANDON

    monkeypatch.setattr(speed, "epoch_seconds", fails)
    task = trial.Task(0, config, standin.objective, trial.requirements_of(config, data), timed=config)
    with pytest.raises(Abandoned):
        trial.run_here(replace(task, threads=1), pool.DirectChannel(0, handle), data)
    assert sent == [Started("driver", "", seconds=None)]
