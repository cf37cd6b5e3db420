"""Tests of the page of results: runs of other versions are not shown, and missing results are named."""

import json

import pytest
from mlflow import MlflowClient

from benchmarks import runs
from benchmarks.peers import augmented_cnn_keras, l2_mlp_keras, simple_cnn_keras
from benchmarks.results import fits, page
from benchmarks.results.fits import Fit, Results
from benchmarks.runs import EQUAL, Runs, Version, code_digest, git
from fmnist_exp import models
from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.tracking.names import Metric, Tag
from fmnist_exp.tracking.writing import param_text

CONDITIONS = {str(tag): f"this {tag}" for tag in EQUAL}


@pytest.fixture
def version() -> Version:
    return Version(git("rev-parse", "HEAD"), CONDITIONS)


def log(store, name: str, seed: int, split_seed: int, accuracy: float, tags: dict[str, str]) -> str:
    """Log a finished run as `train` does."""
    experiment = store.get_experiment_by_name("systems")
    where = experiment.experiment_id if experiment else store.create_experiment("systems")
    run_id = store.create_run(where, tags={Tag.EXPERIMENT: name, Tag.DIRTY: "false", **CONDITIONS, **tags}).info.run_id
    fields = flatten(files.load(name, fits.wanted(name, seed, split_seed).overrides))
    for key, value in {**fields, "training.precision": "float32"}.items():  # the chosen one
        store.log_param(run_id, key, param_text(value))
    for metric in (Metric.TEST_ACCURACY, Metric.BEST_VAL_ACCURACY, Metric.VAL_ACCURACY):
        store.log_metric(run_id, metric, accuracy)
    store.log_metric(run_id, Metric.PARAMETERS, 7)
    store.set_terminated(run_id)
    return run_id


@pytest.fixture
def shown(store, version, tmp_path, monkeypatch) -> Results:
    monkeypatch.setattr(page, "DOCS", tmp_path)
    monkeypatch.setattr(fits.processes, "PROJECT", tmp_path)
    (tmp_path / "pictures").mkdir()
    return Results(Runs("systems", version), tmp_path / "results.jsonl")


def fit(results: Results, name: str, **fields) -> Fit:
    """Return a result on the common split."""
    version = results.plain_version(name) if fields.get("plain") else results.version(name)
    known = {"plain": False, "seed": 0, "split_seed": 0, "version": version, "machine": "2 threads on A"}
    known |= {"precision": "float32", "run_id": "", "validation": 10.0, "test": 10.0, "parameters": 7, "curve": [10.0]}
    return Fit(name, **{**known, **fields})


def written(results: Results) -> str:
    """Write the page and return its text."""
    page.write(results)
    return (page.DOCS / "results.md").read_text()


def rows_of(text: str) -> dict[str, str]:
    return {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}


def test_results_of_other_versions_are_not_shown(shown):
    """F13: the page mixed runs of all versions that had the same settings."""
    for seed in fits.SEEDS:
        shown.keep(fit(shown, "naive", seed=seed))
    shown.keep(fit(shown, "mlp", version="older", test=90.0, validation=90.0))
    text = written(shown)
    rows = rows_of(text)
    assert rows["naive"] == "| `naive` | 7 | 1 | 10.00 ± 0.00 | 10.00 (n = 1) | 10.00 ± 0.00 | 10.00 (n = 1) |  | 10 |"
    assert rows["mlp"] == "| `mlp` | – | – | – | – | – | – |  | 91.0 wanted |"
    assert "`naive` with a split per seed, seed 1, 2; all of `l2_mlp`; all of `funnel_mlp`;" in text
    assert shown.runs.version.code in text
    assert "90.00" not in text


def test_a_run_is_found_only_if_it_is_of_this_version(shown):
    """F13: a number belongs to the code, the libraries and the machine that computed it."""
    store, runs = MlflowClient(), shown.runs
    commit = {Tag.GIT_COMMIT: runs.version.commit}
    earlier = git("log", "--format=%H", "--", "fmnist_exp/models", "fmnist_exp/data").splitlines()
    others = [{**commit, Tag.LIBRARIES: "older"}, {**commit, Tag.DIRTY: "true"}, {Tag.GIT_COMMIT: "0" * 40}]
    others += [{Tag.GIT_COMMIT: parent} for parent in earlier[1:][-1:]]  # a shallow clone has none
    for tags in others:
        log(store, "mlp", 0, 0, 0.9, tags)
    assert runs.find(fits.wanted("mlp", 0, 0)) is None
    run_id = log(store, "mlp", 0, 0, 0.9, commit)
    assert runs.have(fits.wanted("mlp", 0, 0)).info.run_id == run_id


def test_a_run_becomes_a_result_once_and_another_machine_knows_it(shown):
    run_id = log(MlflowClient(), "mlp", 1, 0, 0.9, {Tag.GIT_COMMIT: shown.runs.version.commit})
    for _ in range(2):
        fits.fit(shown, "mlp", 1, 0)
    file = page.DOCS / "results.jsonl"
    assert len(file.read_text().splitlines()) == 1
    other = Version(shown.runs.version.commit, {**CONDITIONS, Tag.PROCESSOR: "another", Tag.THREADS: "64"})
    known = Results(Runs("systems", other), file).one_split("mlp")
    assert known == shown.one_split("mlp")
    assert known[1] == fit(
        shown, "mlp", seed=1, run_id=run_id, validation=90, test=90, curve=[90], machine=shown.runs.version.machine()
    )
    changed = Version(shown.runs.version.commit, {**CONDITIONS, Tag.LIBRARIES: "newer"})
    assert Results(Runs("systems", changed), file).one_split("mlp") == {}


def test_the_page_names_the_machines_and_precisions_of_the_fits(shown):
    shown.keep(fit(shown, "cnn", test=94.2))
    shown.keep(fit(shown, "cnn", test=94.1, seed=1, machine="2 threads on B", precision="bfloat16"))
    shown.keep(fit(shown, "cnn", test=94.0, seed=1, split_seed=1))
    text = written(shown)
    assert "- `cnn`, float32, 2 threads on A: 94.20 (seed 0, split 0), 94.00 (seed 1, split 1)\n" in text
    assert "- `cnn`, bfloat16, 2 threads on B: 94.10 (seed 1, split 0)\n" in text
    assert rows_of(text)["cnn"].count("94.15 ± 0.07 (n = 2)") == 1


def test_plain_keras_counts_when_it_is_done_and_only_for_its_own_script(shown, monkeypatch, tmp_path):
    result = {"val_accuracy": 0.86, "test_accuracy": 0.85, "parameters": 7, "epochs": [{"val_accuracy": 0.86}]}
    (tmp_path / "curve.json").write_text(json.dumps(result))
    shown.keep(fits.plain_result_of(shown, tmp_path, "l2_mlp", 1))
    assert shown.plain("l2_mlp")[1].test == 85
    assert rows_of(written(shown))["l2_mlp"].endswith("| 85.00 (n = 1) | 87.2 |")
    changed = tmp_path / "peers"
    changed.mkdir()
    for file in fits.PEERS.glob("*.py"):
        (changed / file.name).write_bytes(file.read_bytes() + b"\n")
    monkeypatch.setattr(fits, "PEERS", changed)
    assert shown.plain("l2_mlp") == {}


def test_the_fits_that_are_missing(shown):
    assert len(list(fits.missing(shown, ["naive"], fits.SEEDS))) == 5  # seed 0 has the common split as its own
    assert len(list(fits.missing(shown, ["l2_mlp"], [0, 1]))) == 5  # with two in plain Keras
    for seed in fits.SEEDS:
        shown.keep(fit(shown, "cnn", seed=seed))
    names = ["cnn", fits.ENSEMBLE]
    assert len(list(fits.missing(shown, names, fits.SEEDS))) == 3  # seeds 1 and 2 on their own splits, the ensemble
    shown.keep(fit(shown, fits.ENSEMBLE, test=94.5))
    assert len(list(fits.missing(shown, names, fits.SEEDS))) == 2
    assert (
        rows_of(written(shown))[fits.ENSEMBLE]
        == "| `ensemble` of the `cnn`s | | | 10.00 (n = 1) | | 94.50 (n = 1) | | | |"
    )


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [(l2_mlp_keras, 235_146), (simple_cnn_keras, 121_930), (augmented_cnn_keras, 871_402)],
)
def test_the_recipes_in_plain_keras_have_the_size_of_ours(small, recipe, parameters):
    model = recipe.build()
    name = recipe.__name__.rpartition(".")[2].removesuffix("_keras")
    assert model.count_params() == parameters == models.build(files.load(name).model).count_params()
    x, y = recipe.inputs(small.train.images[:4]), recipe.targets(small.train.labels[:4])
    if recipe is augmented_cnn_keras:
        x, y = recipe.extended(x, y)
        assert (len(x), len(y), x.min() >= 0, x.max() <= 1) == (8, 8, True, True)
    model.train_on_batch(x, y)


def test_the_code_of_an_unknown_commit_is_no_version():
    assert code_digest("") == code_digest("0" * 40) == ""
    assert len(code_digest("HEAD")) == 12


def test_comments_and_docstrings_are_no_other_version():
    one = b'"""Text."""\n\n\ndef f(x):\n    """Return it."""\n    return x  # so\n'
    assert runs._without_docstrings(one) == runs._without_docstrings(b"def f( x ):\n    return x\n")
    assert runs._without_docstrings(one) != runs._without_docstrings(b"def f(x):\n    return -x\n")
