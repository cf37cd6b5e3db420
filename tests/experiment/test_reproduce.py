"""F10: runs are repeated from what they logged: to the last bit, with as many threads, or refused with the reason."""

import subprocess
import sys
from dataclasses import replace

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from support import searches

from fmnist_exp.cli import main
from fmnist_exp.data.dataset import Split
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import reproduce as library
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store

# a process that computes with one thread, and interrupts a run in its second epoch, and resumes it
TRAIN = """
import sys
from fmnist_exp.backend import setup
setup.start(1)
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.experiment import checkpoints
from fmnist_exp.experiment.train import Resume, TrainRequest, train

own = {"name": "tiny", "data.source": sys.argv[1], "training.batch_size": 50, "training.learning_rate": 3e-3}
own |= {"training.epochs": 3, "training.steps_per_execution": 1, "model.dropout": 0.2}
networks = {
    "mlp": {"model.family": "mlp", "model.widths": [16], "training.label_smoothing": 0.1, "training.labels": "one_hot"},
    "float32": {"model.family": "cnn", "model.widths": [4], "augmentation.shift": 2, "training.precision": "float32"},
    "bfloat16": {"model.family": "cnn", "model.widths": [4], "training.precision": "bfloat16"},
    "earlier": {"model.family": "mlp", "model.widths": [16], "data.gate_fraction": 0},
}
for name, changes in networks.items():
    print(name, train(TrainRequest(experiment=files.override(ExperimentConfig(), own | changes))).run_id)

keep = checkpoints.CheckpointLog.on_checkpoint
def interrupt(log, checkpoint):
    keep(log, checkpoint)
    if len(checkpoint.state().epochs) == 2:
        raise KeyboardInterrupt
checkpoints.CheckpointLog.on_checkpoint = interrupt
config = files.override(ExperimentConfig(), own | networks["float32"] | {"training.checkpoint": True})
cut = train(TrainRequest(experiment=config)).run_id
checkpoints.CheckpointLog.on_checkpoint = keep
print("cut", cut)
print("resumed", train(TrainRequest(experiment=Resume(cut, {}))).run_id)
"""
REPEAT = """
import sys
from contextlib import nullcontext
from fmnist_exp.experiment.reproduce import reproduce
from fmnist_exp.training.events import FitCallback
for run_id in sys.argv[1:]:
    print(reproduce(run_id, lambda *fit: nullcontext(FitCallback())).sentence(run_id))
"""


def python(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMNIST_EXP_CACHE", str(tmp_path_factory.mktemp("cache")))  # the other processes' too
        yield


@pytest.fixture(scope="module")
def trained(shared_store, folder) -> dict[str, str]:
    """The ids of runs with one thread, and of the trials of two workers; one of them was pruned.

    The run "earlier" has the experiment file of a release without a gate split.
    """
    ids = dict(line.split() for line in python(TRAIN, folder)[-6:])
    text = mlflow.artifacts.load_text(f"runs:/{ids['earlier']}/experiment.yaml")
    lines = [line for line in text.splitlines() if "gate_fraction" not in line]
    assert len(lines) + 1 == len(text.splitlines())
    store.client().log_text(ids["earlier"], "\n".join(lines), "experiment.yaml")
    config = searches.configure(
        data__source=folder,
        search__pruner="successive_halving",
        search__reduction_factor=2,
        search__n_trials=4,
        search__startup_trials=4,
        training__epochs=3,
    )
    found = searches.search(config, "searched", workers=2)
    states = {run.data.tags["fmnist.trial_state"]: run.info.run_id for run in found.children()}
    return ids | {f"trial {state}": run_id for state, run_id in states.items()}


def test_f10_every_kind_of_run_is_repeated_to_the_last_bit(trained):
    assert "trial COMPLETE" in trained
    originals = {name: run_id for name, run_id in trained.items() if name != "cut"}
    sentences = python(REPEAT, *originals.values())[-len(originals) :]
    for (name, run_id), sentence in zip(originals.items(), sentences, strict=True):
        assert sentence.startswith(f"Identical to run {run_id}: every metric of "), (name, sentence)
        tags = store.client().get_run(run_id).data.tags
        assert tags["fmnist.threads"] == "1"
        again = mlflow.search_runs(["0"], f"tags.`fmnist.reproduces` = '{run_id}'", output_format="list")
        assert [run.data.tags["fmnist.reproduced"] for run in again] == [sentence]
        assert again[0].data.tags["fmnist.weights_sha256"] == tags["fmnist.weights_sha256"]


def reproduce(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["reproduce", *arguments], catch_exceptions=False, standalone_mode=False)
    return done.output


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("fmnist.processor", "its processor was another, not .+"),
        ("fmnist.backend", r"its backend was another, not tensorflow [\d.]+, Python 3\.\d+"),
        ("fmnist.code", "its code of fmnist_exp was another, not .*; its Git commit was "),
        ("fmnist.libraries", "its set of library versions was another"),
    ],
)
def test_f10_a_condition_that_cannot_be_met_is_named(trained, tag, words):
    client = store.client()
    before = client.get_run(trained["mlp"]).data.tags[tag]
    client.set_tag(trained["mlp"], tag, "another")
    count = len(client.search_runs(["0"]))
    with pytest.raises(RequestError, match=words):
        reproduce(trained["mlp"])
    client.set_tag(trained["mlp"], tag, before)
    assert len(client.search_runs(["0"])) == count


@pytest.mark.parametrize("purpose", ["training", "validation"])
def test_f10_other_images_are_named_by_their_purpose(trained, purpose):
    original = store.client().get_run(trained["mlp"])
    _, data = library._experiment(store.client(), original)
    changed = {"training": "train", "validation": "validation"}[purpose]
    split = getattr(data, changed)
    other = replace(data, **{changed: Split(split.name, split.images, np.roll(split.labels, 1))})
    phrases = {f"its {name} images were others than those from {data.source}" for name in ("training", "validation")}
    assert phrases.isdisjoint(library._unmet(store.client(), original, data))
    found = phrases.intersection(library._unmet(store.client(), original, other))
    assert found == {f"its {purpose} images were others than those from {data.source}"}


def test_f10_what_cannot_be_repeated_is_refused(trained):
    parent = store.client().get_run(trained["trial COMPLETE"]).data.tags["mlflow.parentRunId"]
    with pytest.raises(RequestError, match="only runs of train"):
        reproduce(parent)
    unfinished = runs.start_run(store.client(), "train", "cut", "tiny", more_tags={"fmnist.threads": "1"})
    unfinished.close()
    with pytest.raises(RequestError, match="its fit did not end"):
        reproduce(unfinished.id)
    with pytest.raises(RequestError, match="not found"):
        reproduce("0" * 32)


def test_f10_another_result_is_told_with_its_largest_difference(trained):
    client, run_id = store.client(), trained["mlp"]
    value = next(entry.value for entry in client.get_metric_history(run_id, "val_loss") if entry.step == 2)
    client.log_metric(run_id, "val_loss", value + 0.25, step=2)
    command = [sys.executable, "-m", "fmnist_exp", "reproduce", run_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1, done.stderr
    expected = f"Different from run {run_id}: the largest difference is 0.25, in val_loss of epoch 2."
    assert done.stderr.splitlines()[-1] == f"fmnist-exp: {expected}"
