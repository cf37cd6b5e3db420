"""Studies: which ones are resumed and which are refused, what a killed driver leaves, which trial is the best."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from support.searches import STORAGE, configure, ended

from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import study as studies

# what studies stored of their search before it was YAML
FLAT = {
    "name": "tiny_search",
    "seed": 0,
    "data.validation_fraction": 0.1,
    "model.family": "mlp",
    "model.widths": [32],
    "training.epochs": 2,
    "training.batch_size": 50,
    "training.learning_rate": 0.01,
    "training.steps_per_execution": 1,
    "search.space.model.dropout.low": 0.0,
    "search.space.model.dropout.high": 0.5,
    "search.space.model.dropout.log": False,
    "search.space.training.learning_rate.low": 3e-4,
    "search.space.training.learning_rate.high": 3e-2,
    "search.space.training.learning_rate.log": True,
    "search.space.model.widths.depth": [1, 2],
    "search.space.model.widths.low": 8,
    "search.space.model.widths.high": 32,
    "search.space.model.widths.step": 8,
    "search.startup_trials": 2,
    "search.pruner": "none",
    "search.objectives": ["val_accuracy"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"training__epochs": 3}, "training.epochs is 2 there and 3 here"),
        ({"model__dropout": 0.1}, "model.dropout is 0.0 there and 0.1 here"),
        ({"search__space": {"model.dropout": {"low": 0, "high": 0.4}}}, "search.space.model.dropout.high is 0.5 there"),
    ],
)
def test_another_search_under_the_same_name_is_refused(folder, changes, key):
    studies.open_study(configure(), "first", STORAGE)
    with pytest.raises(RequestError) as raised:
        studies.open_study(configure(**changes), "first", STORAGE)
    assert str(raised.value).startswith(f"study 'first' belongs to another search: {key}")


@pytest.mark.parametrize(
    "storage", ["sqlite:////proc/none/studies.db", "postgresql://me:hunter2@127.0.0.1:1/x", "nonsense"]
)
def test_a_database_that_cannot_be_used(folder, storage):
    with pytest.raises(RequestError, match=r"the study database .* cannot be used: ") as raised:
        studies.open_study(configure(), "x", storage)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def begun_before(stored: dict[str, Any]) -> optuna.Study:
    """A study of an earlier version, with one trial."""
    study = optuna.create_study(study_name="old", storage=STORAGE, direction="maximize")
    study.set_user_attr("search", stored)
    study.tell(study.ask(), 0.5)
    return study


def test_a_study_of_an_earlier_version_is_resumed(folder):
    begun_before(FLAT)
    with pytest.raises(RequestError, match=r"data\.gate_fraction is 0\.0 there and 0\.1 here"):
        studies.open_study(configure(), "old", STORAGE)
    then: dict[str, Any] = {"data__gate_fraction": 0}  # that release kept no images back for the gate
    resumed = studies.open_study(configure(search__n_trials=9, gate__level=0.01, **then), "old", STORAGE)
    assert [trial.value for trial in resumed.get_trials()] == [0.5]  # and nothing was queued again
    with pytest.raises(RequestError, match=r"another search: training\.epochs is 2 there and 3 here"):
        studies.open_study(configure(training__epochs=3, **then), "old", STORAGE)


@pytest.mark.parametrize("stored", [{**FLAT, "model.magic": 1}, "model: {magic: 1}"])
def test_a_study_that_this_version_cannot_read_is_refused(folder, stored):
    begun_before(stored)
    with pytest.raises(RequestError) as raised:
        studies.open_study(configure(), "old", STORAGE)
    assert str(raised.value).startswith("study 'old' was made by another version of fmnist-exp")
    assert "model.magic" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_stopped_trial_wins_if_its_model_is_the_best():
    study = optuna.create_study(direction="maximize")
    for number, (state, accuracy) in enumerate([("COMPLETE", 0.8), ("PRUNED", 0.9), ("PRUNED", 0.8), ("FAIL", None)]):
        values = None if accuracy is None else [accuracy]
        study.add_trial(ended(number, {}, {}, values, state=TrialState[state], curve={1: accuracy or 0.0}))
    assert [trial.number for trial in studies.ranked(study)] == [1, 0, 2]


def test_a_queued_setting_of_which_a_kill_left_a_part_is_queued_whole(monkeypatch):
    study = optuna.create_study()
    whole = {"first": 0.25, "second": 0.75}
    study.enqueue_trial(whole)
    begun = study.ask()
    begun.suggest_float("first", 0, 1)

    def kill(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", kill)
        with pytest.raises(KeyboardInterrupt):
            studies.cut_off(study, begun)
    studies.cut_off(study, begun)
    assert study.user_attrs[studies.CUT_OFF] == [0]
    assert [ended.state.name for ended in study.get_trials()] == ["FAIL", "WAITING"], "queued once"
    again = study.ask()
    assert {name: again.suggest_float(name, 0, 1) for name in whole} == whole
