"""Faults that libraries report, under every entry point: one sentence that says what to do, and no traceback."""

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import faults
from support.faults import Fault
from support.stable import Done, Stable

from fmnist_exp.export import layout

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


PAGE = "<!doctype html>\n<html><body>please log in</body></html>"
RELEASE, STORE = "install the release that made it", "check MLFLOW_TRACKING_URI and the server"
WEIGHTS = "put its files back, or name another model"
STORES: dict[str, tuple[Fault, list[str]]] = {  # faults that every command meets that asks the store, and the words
    "later tables": (faults.tables(LATER), [LATER, RELEASE]),
    "no database": (faults.no_database("mlflow.db"), ["not a database", "put a copy of its file back"]),
    "a folder": (faults.a_folder("mlflow.db"), ["unable to open database file", "check that"]),
    "500": (faults.server(500, PAGE), ["does not answer", "is MLFLOW_TRACKING_URI right?"]),
    "a page": (faults.server(200, PAGE), ["valid JSON", STORE]),
    "404": (faults.server(404, PAGE), ["404", STORE]),
}
COMMANDS = ["main", "train", "resume", "mlp", "cnn", "baseline", "tune", "ensemble", "reproduce"]
COMMANDS += ["evaluate", "promote", "serve", "sync", "clean"]
CASES: list[tuple[str, str, Fault, int, list[str]]] = [  # name, entry point, fault, exit code, words of the sentence
    ("later tables", "train", faults.tables(LATER), 2, ["the tracking store sqlite:///", LATER, RELEASE]),
    ("earlier tables", "serve", faults.tables(EARLIER), 2, [EARLIER, "mlflow db upgrade"]),
    ("no database", "sync", faults.no_database("mlflow.db"), 2, ["not a database", "put a copy of its file back"]),
    ("a folder", "clean", faults.a_folder("mlflow.db"), 2, ["unable to open database file", "check that"]),
    ("a locked database", "promote", faults.locked, 2, ["database is locked", "wait for the process"]),
    ("a read-only disk", "mlp", faults.read_only, 2, ["cannot be written", "check that it exists and may be used"]),
    ("500", "cnn", faults.server(500, PAGE), 2, ["does not answer", "is MLFLOW_TRACKING_URI right?"]),
    ("a page", "baseline", faults.server(200, PAGE), 2, ["valid JSON", STORE]),
    ("other JSON", "ensemble", faults.server(200, '{"experiments": 3}'), 2, ["the tracking store http://", STORE]),
    ("404", "reproduce", faults.server(404, PAGE), 2, ["404", STORE]),
    ("a page later", "evaluate", faults.server(200, PAGE, "experiments/"), 1, ["the tracking store failed", STORE]),
    ("500 later", "warm start", faults.server(500, PAGE, "experiments/"), 1, ["500", STORE]),
    ("a page later", "resume", faults.server(200, PAGE, "experiments/"), 1, ["the tracking store failed", STORE]),
    ("later tables of studies", "tune", faults.later_studies, 2, ["the study database sqlite:///", "9.9.9", RELEASE]),
    ("later tables of studies", "clean", faults.later_studies, 2, ["the study database sqlite:///", "9.9.9", RELEASE]),
    ("a folder for studies", "tune", faults.a_folder("studies.db"), 2, ["the study database sqlite:///", "check that"]),
    ("no database of studies", "clean", faults.no_database("studies.db"), 2, ["not a database", "put a copy"]),
    ("half a model.keras", "ensemble", faults.model(layout.KERAS_MODEL, faults.half), 1, ["model.keras", WEIGHTS]),
    (
        "half the weights",
        "warm start",
        faults.model(layout.KERAS_MODEL, faults.half_of_the_weights),
        1,
        ["model.keras", WEIGHTS],
    ),
    ("half a model.onnx", "evaluate", faults.model(layout.ONNX_MODEL, faults.half), 1, ["model.onnx", WEIGHTS]),
    ("half a model.onnx", "serve", faults.model(layout.ONNX_MODEL, faults.half), 1, ["model.onnx", WEIGHTS]),
    ("no weights", "warm start", faults.model(layout.KERAS_MODEL, Path.unlink), 1, ["model.keras", WEIGHTS]),
    (
        "half states",
        "resume",
        faults.artifacts(lambda copy: [faults.half(file) for file in copy.glob("checkpoint/*")]),
        2,
        ["the checkpoints of the run are damaged", "run the experiment again"],
    ),
    (
        "no file",
        "logged experiment",
        faults.artifacts(lambda copy: (copy / "experiment.yaml").unlink()),
        2,
        ["no artifact runs:/", "experiment.yaml"],
    ),
    ("a missing folder", "certificates", faults.files(lambda place: None), 2, ["missing/dask.yaml cannot be written"]),
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


@pytest.mark.slow
@pytest.mark.parametrize("entry", COMMANDS)
@pytest.mark.parametrize("name", STORES)
def test_a_fault_of_the_store_under_every_entry_point(commands, house, tmp_path, name, entry):
    fault, words = STORES[name]
    done = run(commands, house, tmp_path, entry, fault)
    assert done.code == 2, done.printed
    for word in words:
        assert word in done.error, done.printed
    assert "\n" not in done.error
    assert "Retrying" not in done.printed


@pytest.mark.parametrize(
    ("entry", "fault", "code"),
    [
        ("main", faults.no_database("mlflow.db"), 2),
        ("promote", faults.server(200, PAGE, "experiments/"), 1),
        ("ensemble", faults.model(layout.KERAS_MODEL, faults.half_of_the_weights), 1),
    ],
)
def test_debug_shows_the_traceback(commands, house, tmp_path, entry, fault, code):
    done = run(commands, house, tmp_path, entry, fault, "--debug", "true")
    assert (done.code, "Traceback (most recent call last)" in done.printed) == (code, True), done.printed
    assert done.printed.splitlines()[-1].startswith("fmnist-exp: ")


def test_a_search_whose_store_fails_says_how_to_continue(commands, house, tmp_path):
    """The study exists, and its runs cannot be read."""
    done = run(commands, house, tmp_path, "tune", faults.files(lambda place: None), "--n_trials", "1")
    assert done.code == 0, done.printed
    done = run(commands, house, tmp_path, "tune", faults.server(200, PAGE, "experiments/"))
    assert (done.code, "the tracking store failed" in done.error) == (1, True), done.printed
    assert "to continue: fmnist-exp tune --experiment" in done.printed
    assert "--study mine" in done.printed


def test_an_upload_that_fails_says_why(commands, house, tmp_path):
    """The store answers, so that nothing but the uploads fails, and their reason is the one that counts."""
    blocked = faults.sql(f"UPDATE experiments SET artifact_location = '{tmp_path}/mlruns/0'")
    (tmp_path / "mlruns").touch()
    done = run(commands, house, tmp_path, "train", blocked)
    assert done.code == 0, done.printed
    (line,) = [line for line in done.printed.splitlines() if line.startswith("fmnist-exp: ")]
    assert "has not taken them yet (" in line
    assert f"{tmp_path}/mlruns" in line.partition("has not taken them yet (")[2]
    assert line.endswith("send them with: fmnist-exp sync")
