"""`training.precision: auto` measures both on the network at hand, takes the faster, and writes down what it took."""

import math

import numpy as np
import pytest
from support.searches import configure, search

from fmnist_exp.backend import seeds
from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.resolve import log_choice, resolve
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.training import fit as fitting
from fmnist_exp.training import precision
from fmnist_exp.tuning.space import SearchSpace

CONFIG = files.override(
    ExperimentConfig(),
    {
        "name": "settled",
        "model.family": "mlp",
        "model.widths": [16],
        "model.batch_norm": True,
        "model.dropout": 0.2,
        "training.epochs": 1,
        "training.batch_size": 50,
        "training.steps_per_execution": 1,  # several make a loop, which takes TensorFlow longer to trace than to run
        "training.precision": "auto",
        "augmentation.horizontal_flip": True,
    },
)


def test_the_faster_one_is_chosen(small):
    choice = precision.choose(CONFIG, small)
    assert choice.images_per_second.keys() == {"float32", "bfloat16"}
    assert all(0 < speed < math.inf for speed in choice.images_per_second.values())
    assert choice.images_per_second[choice.precision] == max(choice.images_per_second.values())
    assert choice.metrics().keys() == {"float32_images_per_second", "bfloat16_images_per_second", "precision_seconds"}
    assert 0 < choice.seconds == choice.metrics()["precision_seconds"]


def test_a_batch_of_all_images_can_be_measured(small):
    """Four batches of 600 of 600 images: they are shown again."""
    whole = files.override(CONFIG, {"training.batch_size": 600, "training.steps_per_execution": 3})
    assert all(speed > 0 for speed in precision.choose(whole, small).images_per_second.values())


def test_what_it_costs_has_a_limit(data, small, monkeypatch):
    """Neither large batches nor copies of the images make it long: two calls of the real fit, looked at."""
    fits, fit = [], fitting.fit

    def watched(model, config, shown, callbacks):
        fits.append((config, len(shown.train.images)))
        return fit(model, config, shown, callbacks)

    monkeypatch.setattr(fitting, "fit", watched)
    large = {"training.batch_size": 50_000, "training.steps_per_execution": 32, "augmentation.copies": 3}
    precision.choose(files.override(CONFIG, large), data)
    few = {"training.batch_size": 400, "training.steps_per_execution": 32, "augmentation.copies": 1}
    precision.choose(files.override(CONFIG, few), small)
    assert [images for _, images in fits] == [4 * 8192] * 2 + [4 * 3 * 400] * 2  # an epoch of `few` has three steps
    assert not any(config.augmentation.copies or config.augmentation.transforms() for config, _ in fits)


def test_the_run_says_what_was_used_and_can_be_run_again(shared_store, small):
    """Measuring leaves no trace in the numbers: a run with the chosen precision in its file comes to the same ones."""
    client = store.connect()
    with runs.closing(runs.start_run(client, "train", "auto", "settled")) as run:
        resolved = resolve(CONFIG, small, client)
        log_choice(run, resolved.choice)
        first = experiment_run.run_experiment(resolved.config, small, run, score_test=False)
    found = client.get_run(run.id)
    used = found.data.tags["fmnist.precision"]
    assert used == found.data.params["training.precision"]
    speeds = {name: found.data.metrics[f"{name}_images_per_second"] for name in ("float32", "bfloat16")}
    assert speeds[used] == max(speeds.values())
    logged = files.parse(store.download_text(f"runs:/{run.id}/experiment.yaml"), "logged")
    assert flatten(logged) == flatten(CONFIG) | {"training.precision": used}
    with runs.closing(runs.start_run(client, "train", "again", "settled")) as again:
        second = experiment_run.run_experiment(logged, small, again, score_test=False)
    models = [logged_models.load_keras(f"models:/{outcome.model_id}") for outcome in (first, second)]
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        assert np.array_equal(ours, theirs)
    assert "fmnist.precision" not in client.get_run(again.id).data.tags  # nothing was left to be settled


def test_a_search_settles_it_once(shared_store, small, monkeypatch):
    """The study keeps the choice: its trials are told, and so are a later session's.

    What another machine would have chosen stands in the study already when the second session comes.
    """
    chosen, choose = [], precision.choose

    def watched(config, data):
        chosen.append(choose(config, data))
        return chosen[-1]

    monkeypatch.setattr(precision, "choose", watched)
    first = search(configure(training__precision="auto", search__n_trials=2), "settled", data=small)
    assert len(chosen) == 1
    used = chosen[0].precision
    assert first.study.user_attrs["precision"] == first.parent.data.tags["fmnist.precision"] == used
    other = ({"float32", "bfloat16"} - {used}).pop()
    first.study.set_user_attr("precision", other)
    second = search(configure(training__precision="auto", search__n_trials=3), "settled", data=small)
    assert len(chosen) == 1
    precisions = [run.data.params["training.precision"] for run in second.children()]
    assert precisions == [used, used, other]
    assert second.parent.data.params["training.precision"] == other


def test_what_is_not_trained_needs_no_choice(small):
    naive = files.override(CONFIG, {"model.family": "naive", "model.batch_norm": False})
    choice = precision.choose(naive, small)
    assert (choice.precision, choice.images_per_second) == ("float32", {})


def test_another_precision_is_refused():
    with pytest.raises(RequestError, match=r"^training\.precision='float16': must be one of auto, float32, bfloat16$"):
        files.override(ExperimentConfig(), {"training.precision": "float16"})


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("training.precision", {"choices": ["float32", "float64"]}, r"^training\.precision='float64': must be one of"),
        ("training.precision", {"choices": ["float32", "auto"]}, r"^search\.space: training\.precision has choices"),
        (
            "training.batch_size",
            {"choices": [128, 601]},
            r"^search\.space: training\.batch_size=601: must be at most 600",
        ),
        (
            "training.batch_size",
            {"low": 100, "high": 700},
            r"^search\.space: training\.batch_size=700: must be at most",
        ),
    ],
)
def test_a_search_of_what_cannot_be_trained_is_refused(small, field, values, message):
    own = {"training.precision": "float32", "training.batch_size": 128, "search.space": {field: values}}
    config = files.override(CONFIG, own)
    with pytest.raises(RequestError, match=message):
        (SearchSpace(config).validate(), SearchSpace(config).validate_data(small))


def test_runtime_knows_no_other_precision():
    with pytest.raises(KeyError):
        seeds.prepare(0, "auto")
