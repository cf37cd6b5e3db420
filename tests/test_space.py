"""Spaces that cannot be searched are refused in one sentence, before anything is written."""

import pytest
from searches import SPACE, configure

from fmnist_exp import experiment_files, models
from fmnist_exp.config import ModelConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import space


def test_an_empty_space():
    with pytest.raises(RequestError, match=r"^search\.space is empty: name a field to search at least"):
        configure(search__space={})


def test_a_step_between_whole_numbers():
    searched = {"training.batch_size": {"low": 50, "high": 60, "step": 0.5}}
    with pytest.raises(RequestError, match=r"training\.batch_size is a whole number, so its step \(0\.5\) must be one"):
        space.check(configure(search__space=searched))


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
        ({"training.weight_decay": {"low": 0.0, "high": 0.1}}, {}, "training.weight_decay needs training.optimizer"),
    ],
)
def test_a_space_that_contradicts_itself_or_the_schema(searched, own, reason):
    with pytest.raises(RequestError) as raised:
        space.check(configure(search__space=searched, **own))
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("searched", "name"),
    [
        ({"model.kernel_size": {"low": 3, "high": 5}}, "model.kernel_size"),
        ({**SPACE, "model.pooling": {"choices": ["flatten", "average"]}}, "model.pooling"),
        ({"model.norm_position": {"choices": ["before_activation", "after_activation"]}}, "model.norm_position"),
    ],
)
def test_a_field_that_the_family_has_no_use_for(searched, name):
    config = configure(search__space=searched)
    space.check(config)  # the schema knows the field
    with pytest.raises(RequestError) as raised:
        space.check_effect(config)
    assert str(raised.value) == f"search.space: {name} changes nothing in model.family=mlp; take it out"


@pytest.mark.parametrize(
    "searched",
    [
        SPACE,
        {"model.l2": {"low": 0.0, "high": 0.1}, "model.averaging": {"choices": ["none", "flip"]}},
        {
            "model.norm_position": {"choices": ["before_activation", "after_activation"]},
            "model.batch_norm": {"choices": [False, True]},  # without it the position changes nothing
        },
    ],
)
def test_fields_that_change_the_network(searched):
    space.check_effect(configure(search__space=searched))


@pytest.mark.parametrize("name", sorted(p.stem for p in experiment_files.EXPERIMENTS.glob("tune_*.yaml")))
def test_shipped_searches_vary_what_their_family_has(name):
    space.check_effect(experiment_files.load(name))


def test_the_same_network_twice_and_another():
    small = ModelConfig(family="mlp", widths=(8,))
    assert models.same_network(small, small.model_copy(update={"kernel_size": 5}))
    assert not models.same_network(small, small.model_copy(update={"l2": 0.1}))
