"""Each private API that the package uses is still there, and does what the package expects."""

import asyncio
import multiprocessing
import random
import socket
import time
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import keras
import mlflow
import numpy as np
import optuna
import psutil
import pytest
import sqlalchemy
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from fmnist_exp import compat
from fmnist_exp.compat import forking, http
from fmnist_exp.tracking.spool import attempt


def test_seed_keras_makes_initial_weights_independent_of_pythons_generator():
    weights = []
    for state in (1, 2):
        random.seed(state)
        compat.seed_keras(5)
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        weights.append(layer.get_weights()[0])
    assert np.array_equal(*weights)


@pytest.mark.parametrize("functional", [True, False], ids=["functional", "sequential"])
def test_keras_nodes_are_those_of_the_layers(functional):
    layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
    chained = keras.Model(layers[0], layers[2](layers[1](layers[0])))
    model = chained if functional else keras.Sequential(layers)
    nodes = compat.keras_nodes(model)
    names = [node.operation.name for depth in sorted(nodes, reverse=True) for node in nodes[depth]]
    assert names[1:] == [layer.name for layer in layers[1:]]


def test_networks_without_values_have_shapes_and_leave_nothing_behind():
    with compat.without_values():
        huge = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10**10)])
    assert huge.weights[0].shape == (10, 10**10)
    with keras.StatelessScope():  # its end would give them values
        pass
    assert keras.layers.Dense(1)(np.ones((1, 2))).shape == (1, 1)


def test_tensorflow_gradients_hold_custom_gradients():
    import tensorflow as tf

    @tf.custom_gradient
    def double(x):
        return 2 * x, lambda upstream: 2 * upstream

    before = set(compat.tensorflow_gradients())
    tf.function(double)(tf.constant(1.0))
    added = set(compat.tensorflow_gradients()) - before
    assert added
    assert all(name.startswith("CustomGradient-") for name in added)


def test_accept_any_input_lets_floats_reach_a_model_of_bytes():
    class Echo:
        def predict(self, images, params=None):
            return images.dtype

    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, 2))]))
    metadata = mlflow.models.Model(signature=signature, flavors={"python_function": {"loader_module": "none"}})
    model = mlflow.pyfunc.PyFuncModel(metadata, Echo())
    with pytest.raises(mlflow.MlflowException, match="uint8"):
        model.predict(np.zeros((1, 2)))
    compat.accept_any_input(signature)
    assert model.predict(np.zeros((1, 2))) == np.float64


def test_artifact_repository_lists_and_deletes(tmp_path):
    (tmp_path / "a.txt").touch()
    repository = compat.artifact_repository(str(tmp_path), "sqlite://")
    assert [entry.path for entry in repository.list_artifacts()] == ["a.txt"]
    assert compat.local_folder(repository) == tmp_path
    assert compat.local_folder(compat.artifact_repository("https://127.0.0.1/a", "https://127.0.0.1")) is None
    for foreign in ("https://127.0.0.2/a", "mlflow-artifacts://127.0.0.2/a", "http://127.0.0.1:81/a"):
        with pytest.raises(PermissionError, match="which is not the tracking server"):
            compat.artifact_repository(foreign, "http://127.0.0.1:80")
    repository.delete_artifacts("a.txt")
    assert list(tmp_path.iterdir()) == []


def test_mlflow_request_uses_mlflows_credentials(monkeypatch):
    """The server answers every request with 418 and keeps the headers."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(
                (self.path, self.headers["Authorization"], self.rfile.read(int(self.headers["Content-Length"])))
            )
            self.send_response(418)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        status = compat.mlflow_request(f"http://127.0.0.1:{server.server_port}/", "/api", {"a": 1}, 5)
        server.shutdown()
    assert (status, seen) == (418, [("/api", "Bearer abc", b'{"a": 1}')])


def test_one_thread_is_impatient_while_another_waits(monkeypatch):
    """Without patience, a busy server is asked once; with MLflow's own settings, again and again, for a time."""
    asked: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"busy")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        client = mlflow.MlflowClient(f"http://127.0.0.1:{server.server_port}")

        def patient() -> None:
            with pytest.raises(mlflow.MlflowException, match="503"):
                client.get_run("patient")

        with compat.impatient(1, 1):
            thread = Thread(target=patient)
            thread.start()
            thread.join()
            with pytest.raises(mlflow.MlflowException, match="busy"):
                client.get_run("impatient")
        with compat.retrying(2), pytest.raises(mlflow.MlflowException, match="503"):
            client.get_run("limited")
        with compat.retrying(1000), pytest.raises(mlflow.MlflowException, match="503"):
            client.get_run("allowed")
        server.shutdown()
    names = ("impatient", "patient", "limited", "allowed")
    assert [sum(f"run_id={name}" in path for path in asked) for name in names] == [1, 3, 2, 3]


def test_an_impatient_request_ends_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = mlflow.MlflowClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with compat.impatient(1, 0.2), pytest.raises(mlflow.MlflowException) as error:
            client.get_run("run")
    assert time.monotonic() < began + 10  # MLflow would wait for two minutes, eight times
    assert attempt.is_timeout(error.value)


def test_context_tags_name_the_user_and_the_source():
    tags = compat.context_tags({"own": "1"})
    assert tags["own"] == "1"
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type"} <= set(tags)


def test_select_trials_decides_what_a_sampler_reads():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    offered = []

    def select(trials: list, states: tuple) -> list:
        offered.append(len(trials))
        assert optuna.trial.TrialState.COMPLETE in states
        return trials[:1]

    class Sampler(optuna.samplers.TPESampler):
        def sample_relative(self, study, trial, space):
            return super().sample_relative(compat.select_trials(study, select), trial, space)

        def infer_relative_search_space(self, study, trial):
            return {"x": optuna.distributions.FloatDistribution(0, 1)}

    study.sampler = Sampler(n_startup_trials=2, multivariate=True)  # one trial is too few for it
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert offered
    assert max(offered) >= 3
    assert compat.select_trials(study, select).study_name == study.study_name


@pytest.mark.parametrize("states", [None, ("WAITING",), ("RUNNING", "WAITING"), ("COMPLETE",), ("PRUNED", "RUNNING")])
def test_study_storage_finds_the_same_trials_as_optunas(tmp_path, states):
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/studies.db")
    study = optuna.create_study(storage=compat.study_storage(storage), study_name="x")
    study.enqueue_trial({"x": 0.5})
    trials = [study.ask() for _ in range(4)]
    study.enqueue_trial({"x": 0.6})
    study.tell(trials[2], 1.0)
    study.tell(trials[0], state=optuna.trial.TrialState.PRUNED)
    another = optuna.load_study(study_name="x", storage=f"sqlite:///{tmp_path}/studies.db")
    another.tell(another.ask(), 2.0)  # by another process
    wanted = states and tuple(optuna.trial.TrialState[state] for state in states)
    found = study.get_trials(deepcopy=False, states=wanted)
    assert found == another.get_trials(deepcopy=False, states=wanted)
    assert found == study.get_trials(deepcopy=True, states=wanted)
    assert found or states == ("WAITING",)
    assert len(study.get_trials(deepcopy=False)) == 5


def test_dask_workers_are_listed_by_address():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(2, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        workers = compat.dask_workers(client)
        assert set(workers) == {worker.address for worker in cluster.workers.values()}
        assert all(worker["host"] for worker in workers.values())


def test_http_protocol_is_an_asyncio_protocol():
    assert issubclass(http.http_protocol(), asyncio.Protocol)


def test_heads_are_checked_as_they_came():
    import h11

    seen = []
    connection = h11.Connection(h11.SERVER)
    http.check_heads(connection, lambda head: seen.append(head) or b"bad" not in head)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Request)
    assert seen == [b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"]
    other = h11.Connection(h11.SERVER)
    http.check_heads(other, lambda head: False)
    other.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError):
        other.next_event()


def test_an_api_that_is_gone_is_named_with_library_and_version(monkeypatch):
    monkeypatch.delattr("keras.src.random.seed_generator.python_random")
    with pytest.raises(compat.MissingAPIError, match=rf"keras {keras.__version__} has no .*python_random"):
        compat.seed_keras(0)
    with pytest.raises(compat.MissingAPIError, match=r"optuna .* has no SimpleNamespace\._get_trials"):
        compat.select_trials(types.SimpleNamespace(), list)


def test_mlflows_tables_are_those_of_its_own_store(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/made.db")
    compat.create_mlflow_tables(engine)
    made = set(sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/made.db")  # refuses tables of another schema
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert {"experiments", "runs", "metrics", "alembic_version"} <= made


def test_the_fork_server_ends_and_another_one_starts_when_it_is_needed():
    context = multiprocessing.get_context("forkserver")
    for _ in range(2):
        process = context.Process(target=print)
        process.start()
        process.join()
        server = forking.server()
        assert (process.exitcode, psutil.pid_exists(server)) == (0, True)
        forking.end()
        assert (forking.server(), psutil.pid_exists(server)) == (None, False)
    forking.end()  # does nothing without a server
