"""The forms of a search space, and those that contain nothing to search."""

import pydantic
import pytest

from fmnist_exp.config.search import Choice, Layers, Range, SearchConfig

SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
    "training.optimizer": {"choices": ["adam", None]},
    "model.widths": {"depth": [1, 3], "low": 16, "high": 64, "step": 16},
}


def test_the_three_forms_of_a_space():
    space = SearchConfig(space=SPACE).space
    assert [type(form) for form in space.values()] == [Range, Choice, Layers]


@pytest.mark.parametrize(
    ("form", "values", "reason"),
    [
        (Range, {"low": 1, "high": 1}, r"low \(1\) must be below high \(1\)"),
        (Range, {"low": 0, "high": 1, "log": True}, "log requires low above 0"),
        (Range, {"low": 1, "high": 2, "log": True, "step": 1}, "log requires low above 0 and no step"),
        (Range, {"low": 0, "high": 1, "step": 0.3}, r"step \(0.3\) must divide"),
        (Range, {"low": 0, "high": 1, "step": 0}, "greater than 0"),
        (Choice, {"choices": [1]}, "at least 2"),
        (Layers, {"depth": [2, 1], "low": 1, "high": 2}, "first depth"),
        (Layers, {"depth": [1, 2], "low": 2, "high": 2}, "must be below high"),
        (Layers, {"depth": [1, 2], "low": 1, "high": 4, "step": 2}, r"step \(2\) must divide"),
        (Layers, {"depth": [0, 2], "low": 1, "high": 4}, "greater than or equal to 1"),
    ],
)
def test_an_impossible_space_is_refused(form, values, reason):
    with pytest.raises(pydantic.ValidationError, match=reason):
        form(**values)


@pytest.mark.parametrize(("high", "step"), [(0.3, 0.1), (0.5, 0.1), (0.7, 0.1), (1.0, 0.25), (0.9, 0.3)])
def test_a_step_that_divides_up_to_rounding_is_taken(high, step):
    assert Range(low=0, high=high, step=step).step == step
