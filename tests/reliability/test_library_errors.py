"""Faults that libraries report, under every entry point: one sentence that says what to do, and no traceback."""

import contextlib
import http.server
import shutil
import signal
import sqlite3
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import disks
from support.stable import Done, Stable

from fmnist_exp.export import checksums, layout
from fmnist_exp.tracking.names import LoggedModelTag, VersionTag

SMALL = ["--training.batch_size", "50", "--training.epochs", "1"]
LATER, EARLIER = "ffffffffffff", "451aebb31d03"  # revisions of MLflow's tables; nobody has the first one


@dataclass(frozen=True)
class House:
    """A store with version 1 of a small network, and a run that was killed after some epochs."""

    folder: Path
    words: dict[str, list[str]]  # the command of each entry point

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"


@pytest.fixture(scope="module")
def house(commands, tiny, folder, new_database, tmp_path_factory) -> House:
    made = tmp_path_factory.mktemp("house")
    place = {"folder": made, "MLFLOW_TRACKING_URI": new_database(made, str(made / "mlruns"))}
    experiment = ["--experiment", str(tiny)]
    done = commands.run("train", *experiment, "--register", "true", **place)
    assert done.code == 0, done.printed
    at_third = ["fmnist_exp.experiment.checkpoints.CheckpointLog.on_checkpoint", 3, signal.SIGTERM]
    longer = ["--training.checkpoint", "true", "--training.epochs", "9"]
    done = commands.run("train", *experiment, *longer, press=at_third, **place)
    assert done.code == 130, done.printed
    client = MlflowClient(place["MLFLOW_TRACKING_URI"])
    client.set_registered_model_alias("fashion-mnist", "champion", "1")
    finished, killed = (
        client.search_runs(["0"], f"attributes.status = '{status}' and tags.`fmnist.kind` = 'train'")[0].info.run_id
        for status in ("FINISHED", "KILLED")
    )
    images, one = ["--data.source", folder], "models:/fashion-mnist/1"
    words = {
        "main": ["main", *experiment],
        "train": ["train", *experiment],
        "warm start": ["train", *experiment, "--model.warm_start", one],
        "logged experiment": ["train", "--experiment", f"runs:/{finished}/experiment.yaml"],
        "resume": ["train", "--resume", killed],
        "mlp": ["mlp", *images, *SMALL],
        "cnn": ["cnn", *images, *SMALL],
        "baseline": ["baseline", *images, *SMALL],
        "tune": ["tune", *experiment, "--workers", "1", "--study", "mine"],
        "ensemble": ["ensemble", "--members", f"{one},{one}", *images, "--data.validation_fraction", "0.2"],
        "reproduce": ["reproduce", finished],
        "evaluate": ["evaluate", *images],
        "promote": ["promote", *images],
        "serve": ["serve", "--port", "0"],
        "sync": ["sync"],
        "clean": ["clean"],
        "certificates": ["certificates", "--file", "missing/dask.yaml"],
    }
    return House(made, words)


Fault = Callable[[Path], contextlib.AbstractContextManager[dict[str, str]]]  # folder → environment variables


def sql(*statements: str, file: str = "mlflow.db") -> Fault:
    """Change a copy of the store's database."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        with contextlib.closing(sqlite3.connect(place / file)) as database, database:
            for statement in statements:
                database.execute(statement)
        yield {}

    return fault


def files(change: Callable[[Path], object]) -> Fault:
    """Change files of the folder in which the command runs."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        change(place)
        yield {}

    return fault


def no_database(file: str) -> Fault:
    return files(lambda place: (place / file).write_text("no database\n" * 1000))


def a_folder(file: str) -> Fault:
    def change(place: Path) -> None:
        (place / file).unlink(missing_ok=True)
        (place / file).mkdir()

    return files(change)


@contextlib.contextmanager
def locked(place: Path) -> Iterator[dict[str, str]]:
    with contextlib.closing(sqlite3.connect(place / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield {}


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[dict[str, str]]:
    with disks.small(place / "disk") as disk:
        shutil.copy(place / "mlflow.db", disk.folder)
        subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
        yield {"MLFLOW_TRACKING_URI": f"sqlite:///{disk.folder}/mlflow.db"}


def server(status: int, answer: str, passes: str = "nothing") -> Fault:
    """A server that gives the same answer to all requests but those whose path has the word `passes`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            passed = passes in self.path
            body = b"{}" if passed else answer.encode()
            self.send_response(200 if passed else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PATCH = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{running.server_port}"
            yield {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
            running.shutdown()

    return fault


def model(name: str, change: Callable[[Path], object]) -> Fault:
    """Change a file of version 1, with checksums that fit, so that the reader of the file meets it."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        client = MlflowClient(f"sqlite:///{place}/mlflow.db")
        version = client.get_model_version("fashion-mnist", "1")
        folder = Path(shutil.copytree(mlflow_folder(client, version.model_id or version.source), place / "model"))
        change(folder / name)
        digest = checksums.write(folder)
        client.set_model_version_tag("fashion-mnist", "1", VersionTag.SHA256, digest)
        client.set_logged_model_tags(model_id(version.source), {str(LoggedModelTag.SHA256): digest})
        with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database, database:
            change_place = "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?"
            database.execute(change_place, [str(folder), model_id(version.source)])
        yield {}

    return fault


def model_id(source: str) -> str:
    return source.rpartition("/")[2]


def mlflow_folder(client: MlflowClient, source: str) -> str:
    return str(client.get_logged_model(model_id(source)).artifact_location)


def half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def half_of_the_weights(file: Path) -> None:
    """Cut what is inside the file short; the file itself stays a whole archive."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["model.weights.h5"] = parts["model.weights.h5"][:4000]
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def artifacts(change: Callable[[Path], object]) -> Fault:
    """Change a copy of the artifacts of all runs."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        client = MlflowClient(f"sqlite:///{place}/mlflow.db")
        for run in client.search_runs(["0"], "tags.`fmnist.kind` = 'train'"):
            copy = Path(shutil.copytree(run.info.artifact_uri, place / run.info.run_id))
            change(copy)
            with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database, database:
                change_place = "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?"
                database.execute(change_place, [str(copy), run.info.run_id])
        yield {}

    return fault


def tables(revision: str) -> Fault:
    return sql(f"UPDATE alembic_version SET version_num = '{revision}'")


@contextlib.contextmanager
def later_studies(place: Path) -> Iterator[dict[str, str]]:
    import optuna

    optuna.create_study(study_name="mine", storage=f"sqlite:///{place}/studies.db")
    later = "UPDATE version_info SET schema_version = 99, library_version = '9.9.9'"
    with sql(later, "UPDATE alembic_version SET version_num = 'v9.9.9.a'", file="studies.db")(place):
        yield {}


PAGE = "<!doctype html>\n<html><body>please log in</body></html>"
RELEASE, STORE = "install the release that made it", "check MLFLOW_TRACKING_URI and the server"
WEIGHTS = "put its files back, or name another model"
CASES: list[tuple[str, str, Fault, int, list[str]]] = [  # name, entry point, fault, exit code, words of the sentence
    ("later tables", "train", tables(LATER), 2, ["the tracking store sqlite:///", LATER, RELEASE]),
    ("earlier tables", "serve", tables(EARLIER), 2, [EARLIER, "mlflow db upgrade"]),
    ("no database", "sync", no_database("mlflow.db"), 2, ["not a database", "put a copy of its file back"]),
    ("a folder", "clean", a_folder("mlflow.db"), 2, ["unable to open database file", "check that"]),
    ("a locked database", "promote", locked, 2, ["database is locked", "wait for the process"]),
    ("a read-only disk", "mlp", read_only, 2, ["cannot be written", "check that it exists and may be used"]),
    ("500", "cnn", server(500, PAGE), 2, ["does not answer", "is MLFLOW_TRACKING_URI right?"]),
    ("a page", "baseline", server(200, PAGE), 2, ["valid JSON", STORE]),
    ("other JSON", "ensemble", server(200, '{"experiments": 3}'), 2, ["the tracking store http://", STORE]),
    ("404", "reproduce", server(404, PAGE), 2, ["404", STORE]),
    ("a page later", "evaluate", server(200, PAGE, "experiments/"), 1, ["the tracking store failed", STORE]),
    ("500 later", "warm start", server(500, PAGE, "experiments/"), 1, ["500", STORE]),
    ("a page later", "resume", server(200, PAGE, "experiments/"), 1, ["the tracking store failed", STORE]),
    ("later tables of studies", "tune", later_studies, 2, ["the study database sqlite:///", "9.9.9", RELEASE]),
    ("later tables of studies", "clean", later_studies, 2, ["the study database sqlite:///", "9.9.9", RELEASE]),
    ("a folder for studies", "tune", a_folder("studies.db"), 2, ["the study database sqlite:///", "check that"]),
    ("no database of studies", "clean", no_database("studies.db"), 2, ["not a database", "put a copy"]),
    ("half a model.keras", "ensemble", model(layout.KERAS_MODEL, half), 1, ["model.keras", WEIGHTS]),
    ("half the weights", "warm start", model(layout.KERAS_MODEL, half_of_the_weights), 1, ["model.keras", WEIGHTS]),
    ("half a model.onnx", "evaluate", model(layout.ONNX_MODEL, half), 1, ["model.onnx", WEIGHTS]),
    ("half a model.onnx", "serve", model(layout.ONNX_MODEL, half), 1, ["model.onnx", WEIGHTS]),
    ("no weights", "warm start", model(layout.KERAS_MODEL, Path.unlink), 1, ["model.keras", WEIGHTS]),
    (
        "half states",
        "resume",
        artifacts(lambda copy: [half(file) for file in copy.glob("checkpoint/*")]),
        2,
        ["the checkpoints of the run are damaged", "run the experiment again"],
    ),
    (
        "no file",
        "logged experiment",
        artifacts(lambda copy: (copy / "experiment.yaml").unlink()),
        2,
        ["no artifact runs:/", "experiment.yaml"],
    ),
    ("a missing folder", "certificates", files(lambda place: None), 2, ["missing/dask.yaml cannot be written"]),
]


def run(commands: Stable, house: House, place: Path, entry: str, fault: Fault, *options: str) -> Done:
    shutil.copy(house.folder / "mlflow.db", place)
    with fault(place) as variables:
        settings = {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "FMNIST_EXP_SEND_SECONDS": "1", **variables}
        return commands.run(*house.words[entry], *options, folder=place, **settings)


@pytest.mark.parametrize(
    ("entry", "fault", "code", "words"), [case[1:] for case in CASES], ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
def test_a_fault_is_one_sentence_with_what_to_do(commands, house, tmp_path, entry, fault, code, words):
    done = run(commands, house, tmp_path, entry, fault)
    assert done.code == code, done.printed
    for word in words:
        assert word in done.error, done.printed
    assert "\n" not in done.error
    assert "Retrying" not in done.printed


@pytest.mark.parametrize(
    ("entry", "fault", "code"),
    [
        ("main", no_database("mlflow.db"), 2),
        ("promote", server(200, PAGE, "experiments/"), 1),
        ("ensemble", model(layout.KERAS_MODEL, half_of_the_weights), 1),
    ],
)
def test_debug_shows_the_traceback(commands, house, tmp_path, entry, fault, code):
    done = run(commands, house, tmp_path, entry, fault, "--debug", "true")
    assert (done.code, "Traceback (most recent call last)" in done.printed) == (code, True), done.printed
    assert done.printed.splitlines()[-1].startswith("fmnist-exp: ")


def test_a_search_whose_store_fails_says_how_to_continue(commands, house, tmp_path):
    """The study exists, and its runs cannot be read."""
    done = run(commands, house, tmp_path, "tune", files(lambda place: None), "--n_trials", "1")
    assert done.code == 0, done.printed
    done = run(commands, house, tmp_path, "tune", server(200, PAGE, "experiments/"))
    assert (done.code, "the tracking store failed" in done.error) == (1, True), done.printed
    assert "to continue: fmnist-exp tune --experiment" in done.printed
    assert "--study mine" in done.printed


def test_an_upload_that_fails_says_why(commands, house, tmp_path):
    """The store answers, so that nothing but the uploads fails, and their reason is the one that counts."""
    blocked = sql(f"UPDATE experiments SET artifact_location = '{tmp_path}/mlruns/0'")
    (tmp_path / "mlruns").touch()
    done = run(commands, house, tmp_path, "train", blocked)
    assert done.code == 0, done.printed
    (line,) = [line for line in done.printed.splitlines() if line.startswith("fmnist-exp: ")]
    assert "has not taken them yet (" in line
    assert f"{tmp_path}/mlruns" in line.partition("has not taken them yet (")[2]
    assert line.endswith("send them with: fmnist-exp sync")
