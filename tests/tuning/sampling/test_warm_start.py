"""A study that begins with the best settings of an earlier one; no trial is trained."""

import optuna
import pytest
from support.searches import STORAGE, configure

from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.sampling import warm_start
from fmnist_exp.tuning.space import SearchSpace

OTHER = {"model.l2": {"low": 1e-6, "high": 1e-3}}


@pytest.fixture(autouse=True)
def earlier(tmp_path, monkeypatch) -> optuna.Study:
    """Five trials; the higher the dropout, the better, from 0 to 0.4."""
    monkeypatch.chdir(tmp_path)
    config = configure(model__widths=[16])
    study = studies.open_study(config, "earlier", STORAGE)
    for number in range(5):
        if number:
            study.enqueue_trial({"model.dropout": number / 10, "model.widths.depth": 1, "model.widths.1": 8 * number})
        trial = study.ask()
        SearchSpace(config).suggest(trial)
        trial.set_user_attr("val_accuracy", number / 10)
        trial.set_user_attr("model_id", f"m-{number}")
        study.tell(trial, number / 10)
    return study


def queued(study: optuna.Study) -> list[dict]:
    return [trial.system_attrs["fixed_params"] for trial in study.get_trials()]


def test_the_best_settings_come_after_the_experiments_own(earlier):
    config = configure(search__warm_start="earlier", training__epochs=7)
    study = studies.open_study(config, "later", STORAGE)
    own, *taken = queued(study)
    assert own == SearchSpace(config).defaults()
    assert [params["model.dropout"] for params in taken] == [0.4, 0.3]  # as many as search.startup_trials
    assert taken[0] == {**earlier.get_trials()[4].params, "model.widths.2": 8}  # which a depth of 1 does not use
    assert study.user_attrs[warm_start.TAKEN] == "2 of 5 complete trials"
    assert len(optuna.load_study(study_name="earlier", storage=STORAGE).get_trials()) == 5


def test_only_what_lies_in_the_space_is_taken():
    narrow = {
        "model.dropout": {"low": 0.0, "high": 0.25, "step": 0.05},
        "model.widths": {"depth": [1, 2], "low": 16, "high": 32},
    }
    study = studies.open_study(configure(search__warm_start="earlier", search__space=narrow), "later", STORAGE)
    _, *taken = queued(study)
    assert [(params["model.dropout"], params["model.widths.1"]) for params in taken] == [(0.2, 16), (0.0, 16)]
    assert all("training.learning_rate" not in params for params in taken)


def test_a_field_that_was_fixed_then_is_searched_from_its_value():
    wide = {"model.dropout": {"low": 0.0, "high": 0.5}, "training.optimizer": {"choices": ["sgd", "adam"]}}
    study = studies.open_study(configure(search__warm_start="earlier", search__space=wide), "later", STORAGE)
    assert queued(study)[1] == {"model.dropout": 0.4, "training.optimizer": '"adam"'}


def test_a_study_that_goes_on_takes_nothing_a_second_time(earlier):
    config = configure(search__warm_start="earlier")
    studies.open_study(config, "later", STORAGE)
    optuna.delete_study(study_name="earlier", storage=STORAGE)
    assert len(queued(studies.open_study(config, "later", STORAGE))) == 3


def test_the_settings_are_suggested_in_the_trials():
    config = configure(search__warm_start="earlier")
    study = studies.open_study(config, "later", STORAGE)
    chosen = [SearchSpace(config).suggest(study.ask()) for _ in range(3)]
    assert [one.model.dropout for one in chosen] == [0.0, 0.4, 0.3]
    assert [one.model.widths for one in chosen] == [(32,), (32,), (24,)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"search__warm_start": "erlier"},
            "search.warm_start='erlier': the storage has no such study; did you mean 'earlier'?",
        ),
        (
            {
                "search__warm_start": "earlier",
                "search__space": {"model.l2": {"low": 1e-6, "high": 1e-3}},
                "model__l2": 1e-4,
            },
            "search.warm_start='earlier': none of its 5 complete trials lies in this search's space",
        ),
        ({"search__warm_start": "foreign"}, "search.warm_start='foreign': that study was not made by fmnist-exp tune"),
    ],
)
def test_what_gives_nothing_is_refused_before_anything_is_written(changes, reason):
    optuna.create_study(study_name="foreign", storage=STORAGE)
    with pytest.raises(RequestError) as raised:
        studies.open_study(configure(**changes), "later", STORAGE)
    assert str(raised.value).startswith(reason)
    assert "later" not in optuna.get_all_study_names(STORAGE)
