"""Spaces that cannot be searched are refused in one sentence, before anything is written."""

import typing

import optuna
import pytest
from support.searches import SPACE, configure

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import Choice, Layers, Range
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning.space import SearchSpace


def test_an_empty_space():
    with pytest.raises(RequestError, match=r"^search\.space is empty: name at least one field"):
        configure(search__space={})


def test_a_step_between_whole_numbers():
    searched = {"training.batch_size": {"low": 50, "high": 60, "step": 0.5}}
    with pytest.raises(RequestError, match=r"training\.batch_size is a whole number, so its step \(0\.5\) must be one"):
        SearchSpace(configure(search__space=searched)).validate()


@pytest.mark.parametrize(
    ("searched", "own", "reason"),
    [
        ({"model.dropout": {"low": 0.5, "high": 0.1}}, {}, "low (0.5) must be below high (0.1)"),
        (
            {"model.dropout": {"low": 0.0, "high": 0.5, "step": 0.25}},
            {"model__dropout": 0.1},
            "is outside its space",
        ),
        ({"training.optimizer": {"choices": ["adam"]}}, {}, "search.space"),
        ({"model.dropout": {"depth": [1, 2], "low": 1, "high": 3}}, {}, "model.dropout"),
        ({"model.widths": {"low": 8, "high": 32}}, {}, "model.widths"),
        ({"training.weight_decay": {"low": 0.0, "high": 0.1}}, {}, "training.weight_decay requires training.optimizer"),
        (
            {"training.optimizer": {"choices": ["adamw", "adam"]}, "training.weight_decay": {"low": 0.0, "high": 0.1}},
            {"training__optimizer": "adamw"},
            "training.optimizer=adam is incompatible with training.weight_decay=0.1",
        ),
    ],
)
def test_a_space_that_contradicts_itself_or_the_schema(searched, own, reason):
    with pytest.raises(RequestError) as raised:
        SearchSpace(configure(search__space=searched, **own)).validate()
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("searched", "words"),
    [
        ({"model.kernel_size": {"low": 3, "high": 5}}, "model.kernel_size changes nothing in model.family=mlp"),
        ({**SPACE, "model.pooling": {"choices": ["flatten", "average"]}}, "model.pooling changes nothing"),
        (
            {"model.norm_position": {"choices": ["before_activation", "after_activation"]}},
            "model.norm_position changes nothing without model.batch_norm",
        ),
        ({"model.family": {"choices": ["mlp", "mpl"]}}, "did you mean 'mlp'"),
    ],
)
def test_a_field_that_the_family_does_not_use(searched, words):
    with pytest.raises(RequestError) as raised:
        SearchSpace(configure(search__space=searched)).validate()
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "searched",
    [
        SPACE,
        {"model.l2": {"low": 0.0, "high": 0.1}, "model.averaging": {"choices": ["none", "flip"]}},
        {
            "model.norm_position": {"choices": ["before_activation", "after_activation"]},
            "model.batch_norm": {"choices": [False, True]},  # without it the position changes nothing
        },
        {"model.family": {"choices": ["mlp", "cnn"]}, "model.kernel_size": {"low": 3, "high": 5}},
    ],
)
def test_fields_that_change_the_network(searched):
    SearchSpace(configure(search__space=searched)).validate()


def all_kinds() -> ExperimentConfig:
    return configure(
        search__space={
            "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
            "model.l2": {"low": 1e-6, "high": 1e-2, "log": True},
            "training.batch_size": {"low": 10, "high": 50, "step": 10},
            "training.optimizer": {"choices": ["adam", "sgd"]},
            "training.patience": {"choices": [None, 3]},
            "model.widths": {"depth": [1, 3], "low": 8, "high": 32, "step": 8},
            "augmentation.horizontal_flip": {"choices": [True, False]},
        },
        model__l2=1e-4,
    )


def test_suggestions_lie_in_the_space_and_are_experiments():
    config = all_kinds()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set[typing.Any]] = {name: set() for name in config.search.space}
    for _ in range(200):
        trial = study.ask()
        chosen = SearchSpace(config).suggest(trial)
        assert chosen.search is None
        assert chosen.training.epochs == config.training.epochs
        for name in seen:
            seen[name].add(flatten(chosen)[name])
        assert len(trial.params) == 6 + 4  # a depth and three widths, whether the depth uses them or not
    assert seen["model.dropout"] == {0.0, 0.25, 0.5}
    assert min(seen["model.l2"]) < 1e-5 < 1e-3 < max(seen["model.l2"])
    assert 1e-6 <= min(seen["model.l2"]) <= max(seen["model.l2"]) <= 1e-2
    assert seen["training.batch_size"] == {10, 20, 30, 40, 50}
    assert seen["training.optimizer"] == {"adam", "sgd"}
    assert seen["training.patience"] == {None, 3}
    assert seen["augmentation.horizontal_flip"] == {True, False}
    assert {len(widths) for widths in seen["model.widths"]} == {1, 2, 3}
    assert {width for widths in seen["model.widths"] for width in widths} == {8, 16, 24, 32}


@pytest.mark.parametrize("widths", [[8], [16, 32], [32, 8, 16]])
def test_defaults_are_the_experiments_own_values(widths):
    config = files.override(all_kinds(), {"model.widths": widths})
    trial = optuna.trial.FixedTrial(SearchSpace(config).defaults())
    assert SearchSpace(config).suggest(trial) == config.model_copy(update={"search": None})


def test_a_single_dropout_per_layer_follows_the_depth():
    config = configure(
        model__widths=[8, 16], model__dropout=[0.1, 0.2], search__space={"model.widths": SPACE["model.widths"]}
    )
    space = SearchSpace(config)
    one = space.apply({**space.defaults(), "model.widths.depth": 1})
    assert (one.model.widths, one.model.dropout) == ((8,), (0.1,))


@pytest.mark.parametrize("name", sorted(p.stem for p in files.EXPERIMENTS.glob("tune_*.yaml")))
def test_shipped_searches_are_valid(name):
    config = files.load(name)
    SearchSpace(config).validate()
    assert {"model.dropout", "model.l2", "training.learning_rate", "model.widths"} <= set(config.search.space)
    assert {type(form) for form in config.search.space.values()} <= {Range, Choice, Layers}


@pytest.mark.parametrize(
    ("searched", "reason"),
    [
        ({"model.dropot": {"low": 0, "high": 0.5}}, "unknown field 'model.dropot'; did you mean 'model.dropout'?"),
        ({"seed": {"low": 0, "high": 5}}, "search.space: seed cannot be searched"),
        ({"data.validation_fraction": {"low": 0.1, "high": 0.2}}, "cannot be searched"),
        ({"model.dropout": {"low": 0, "high": 1.5}}, "model.dropout=1.5: must be at least 0 and at most 0.95"),
        ({"model.dropout": {"low": 0.1, "high": 0.5}}, "the experiment's own model.dropout=0.0 is outside its space"),
        (
            {"training.optimizer": {"choices": ["adam", "x"]}},
            "training.optimizer='x': must be one of adam, adamw, sgd",
        ),
        ({"model.widths": {"depth": [1, 2], "low": 8, "high": 24, "step": 8}}, "own model.widths=(32,) is outside"),
        ({"model.widths": {"depth": [2, 3], "low": 8, "high": 32, "step": 8}}, "own model.widths=(32,) is outside"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_before_the_search(searched, reason):
    with pytest.raises(RequestError) as raised:
        SearchSpace(configure(search__space=searched)).validate()
    assert reason in str(raised.value)


def test_an_experiment_without_a_search_is_refused():
    with pytest.raises(RequestError, match="has no search: block"):
        SearchSpace(ExperimentConfig())


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("training.precision", {"choices": ["float32", "float64"]}, r"^training\.precision='float64': must be one of"),
        (
            "training.precision",
            {"choices": ["float32", "auto"]},
            r"^search\.space: training\.precision has the choices",
        ),
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
    config = files.override(ExperimentConfig(), own)
    with pytest.raises(RequestError, match=message):
        (SearchSpace(config).validate(), SearchSpace(config).validate_data(small))
