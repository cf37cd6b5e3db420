"""What a search says that it gained over the experiment's own setting."""

import re

import mlflow
import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from support.searches import configure, ended, search

from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tuning import gain
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.space import SearchSpace

SLOW_START = {"training__learning_rate": 3e-4}  # so that some other trial is the best


def points(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]\d+\.\d+", text)]


@pytest.mark.parametrize("gate", [0.2, 0])
def test_the_best_trial_is_compared_with_the_own_setting_on_images_that_chose_neither(shared_store, folder, gate):
    config = configure(data__source=folder, data__gate_fraction=gate, search__n_trials=3, **SLOW_START)
    found = search(config, f"compared-{gate}")
    best, own = found.result.ranked[0], next(trial for trial in found.result.ranked if trial.number == 0)
    assert best.number != 0
    data = dataset.load(config.data, config.seed)
    unseen = data.gate if gate else data.validation
    models = (mlflow.keras.load_model(f"runs:/{trial.run_id}/model") for trial in (best, own))
    right = [np.argmax(model(unseen.images), axis=1) == unseen.labels for model in models]
    text = found.result.gain
    difference, low, high = points(text)
    assert difference == pytest.approx(100 * (right[0].mean() - right[1].mean()), abs=0.005)
    assert low < difference < high
    assert ("; that may be chance." in text) == (low <= 0 <= high)
    if gate:
        assert "160 images that no trial has seen" in text
    else:
        assert "the 80 validation images, which have ranked the trials" in text
    assert found.parent.data.tags["fmnist.gain"] == text


def searched(data: FashionMNIST, *trials: FrozenTrial) -> Search:
    """A search with these trials; none of the sentences below needs a store."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return Search(SearchSpace(configure(search__space=DROPOUT)), data, study, None, 0.0)  # type: ignore[arg-type]


DROPOUT = {"model.dropout": {"low": 0.0, "high": 0.3}}
KINDS = {"model.dropout": optuna.distributions.FloatDistribution(0.0, 0.3)}
CURVE = {1: 0.7, 2: 0.8}


def trial(number: int, dropout: float, **more: object) -> FrozenTrial:
    return ended(number, {"model.dropout": dropout}, KINDS, [0.8 + dropout], **{"curve": CURVE, **more})


def said(data: FashionMNIST, *trials: FrozenTrial) -> str:
    made = searched(data, *trials)
    return gain.sentence(made, studies.ranked(made.study)[0])


def test_no_gain_is_said_too(data):
    expected = "The search gained nothing: the experiment's own setting, trial 0, is the best of all trials."
    assert said(data, trial(0, 0.0), trial(1, 0.2, state=TrialState.PRUNED, attrs={"val_accuracy": 0.1})) == expected


def test_no_gain_has_its_uncertainty_too(shared_store, folder):
    rates = {"training.learning_rate": {"choices": [1e-2, 1e-5]}}
    found = search(configure(data__source=folder, search__n_trials=3, search__space=rates), "nothing gained")
    assert found.result.ranked[0].number == 0
    assert found.result.gain.startswith(
        "The search gained nothing: the experiment's own setting, trial 0, is the best of all trials."
        " The best other one, trial "
    )
    difference, low, high = points(found.result.gain)
    assert low < difference < high < 0
    assert found.result.gain.endswith("measured on 80 images that no trial has seen.")


def test_a_trial_that_was_stopped_early_is_compared_where_it_stopped(data):
    stopped = trial(0, 0.0, state=TrialState.PRUNED, curve={1: 0.5})
    assert said(data, stopped, trial(1, 0.2)) == (
        "It is not known what the search gained: not both trial 0, the experiment's own setting, and trial 1 ran to the"
        " end. After epoch 1 they had 50.00% (48.74 to 51.26) and 70.00% (68.83 to 71.15) on the validation images."
    )


def test_without_a_trial_of_the_own_setting_nothing_is_known(data):
    expected = "It is not known what the search gained, because no trial of the experiment's own setting has a model."
    assert said(data, trial(0, 0.1), trial(1, 0.2)) == expected


def test_what_was_measured_is_remembered(data):
    """The weights of the other trial may have been deleted meanwhile."""
    made = searched(data, trial(0, 0.0), trial(1, 0.2))
    made.study.set_user_attr(gain.GAIN, {"trial": 1, "text": "Trial 1 leads."})
    best = studies.ranked(made.study)[0]
    assert best.number == 1
    assert gain.sentence(made, best) == "Trial 1 leads."
