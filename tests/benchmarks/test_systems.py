"""Tests of the page of results: runs of other versions are not shown, and missing results are named."""

import pytest
from mlflow import MlflowClient

from benchmarks import runs
from benchmarks.peers import augmented_cnn_keras, l2_mlp_keras, simple_cnn_keras
from benchmarks.results import fits, page
from benchmarks.results.fits import Results
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
    for key, value in flatten(files.load(name, fits.wanted(name, seed, split_seed).overrides)).items():
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
    return Results(Runs("systems", version))


def test_runs_of_other_versions_are_not_shown(shown, capsys):
    """F13: the page mixed runs of all versions that had the same settings."""
    store = MlflowClient()
    parent = git("log", "--format=%H", "--", "fmnist_exp/models", "fmnist_exp/data").splitlines()
    for seed in fits.SEEDS:
        log(store, "naive", seed, 0, 0.1, {Tag.GIT_COMMIT: shown.runs.version.commit})
    log(store, "mlp", 0, 0, 0.9, {Tag.GIT_COMMIT: shown.runs.version.commit, Tag.LIBRARIES: "older"})
    log(store, "mlp", 0, 0, 0.9, {Tag.GIT_COMMIT: shown.runs.version.commit, Tag.DIRTY: "true"})
    log(store, "mlp", 0, 0, 0.9, {Tag.GIT_COMMIT: "0" * 40})
    for earlier in parent[1:][-1:]:  # a shallow clone has none
        log(store, "mlp", 0, 0, 0.9, {Tag.GIT_COMMIT: earlier})
    page.write(shown)
    text = (page.DOCS / "results.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert rows["naive"] == "| `naive` | 7 | 1 | 10.00 ± 0.00 | 10.00 (n = 1) | 10.00 ± 0.00 | 10.00 (n = 1) |  | 10 |"
    assert rows["mlp"] == "| `mlp` | – | – | – | – | – | – |  | 91.0 wanted |"
    assert "`naive` with a split per seed, seed 1, 2; all of `l2_mlp`; all of `funnel_mlp`;" in text
    assert shown.runs.version.code in text
    assert "90.00" not in text


def test_plain_keras_counts_when_it_is_done_and_only_for_its_own_script(shown, monkeypatch, tmp_path):
    folder = shown.folder("l2_mlp", 1)
    folder.mkdir(parents=True)
    (folder / "curve.json").write_text('{"epochs": [], "done": false}')
    assert shown.plain("l2_mlp") == {}
    (folder / "curve.json").write_text('{"epochs": [], "done": true, "test_accuracy": 0.85}')
    assert shown.plain("l2_mlp") == {1: 85.0}
    changed = tmp_path / "peers"
    changed.mkdir()
    for file in fits.PEERS.glob("*.py"):
        (changed / file.name).write_bytes(file.read_bytes() + b"\n")
    monkeypatch.setattr(fits, "PEERS", changed)
    assert shown.plain("l2_mlp") == {}


def test_the_fits_that_are_missing(shown):
    assert len(list(fits.missing(shown, ["naive"], fits.SEEDS))) == 5  # seed 0 has the common split as its own
    assert len(list(fits.missing(shown, ["l2_mlp"], [0, 1]))) == 5  # with two in plain Keras


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
