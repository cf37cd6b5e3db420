"""Settings as numbers, and back."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_exp.tuning.sampling.encoding import from_unit, row, rows, to_unit

SPACE = {
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
    "momentum": FloatDistribution(0.5, 0.9, step=0.1),
    "width": IntDistribution(16, 128, step=16),
    "depth": IntDistribution(1, 1000, log=True),
    "optimizer": CategoricalDistribution(["adam", "sgd", "muon"]),
}
LAYERS = {
    "widths.depth": IntDistribution(1, 3),
    **{f"widths.{layer}": IntDistribution(16, 128, step=16) for layer in (1, 2, 3)},
}


def test_many_settings_have_the_columns_that_each_of_them_has():
    space = SPACE | LAYERS
    units = np.random.default_rng(0).random((500, len(space)))
    units[0], units[1] = 0, 1 - 1e-9
    expected = [
        row({name: from_unit(unit, kind) for unit, (name, kind) in zip(place, space.items(), strict=True)}, space)
        for place in units
    ]
    assert rows(units, space) == pytest.approx(np.array(expected), abs=1e-12)
    assert rows(units, space).shape == (500, 5 + 3 + 4)


def test_the_width_of_a_layer_that_the_network_does_not_have_makes_no_difference():
    shallow = {"widths.depth": 2, "widths.1": 16, "widths.2": 32, "widths.3": 48}
    assert row(shallow, LAYERS) == row(shallow | {"widths.3": 128}, LAYERS)
    deep = shallow | {"widths.depth": 3}
    assert row(deep, LAYERS) != row(deep | {"widths.3": 128}, LAYERS)


@pytest.mark.parametrize("kind", SPACE.values(), ids=SPACE)
def test_a_value_comes_back_from_its_position(kind):
    for unit in np.linspace(0, 1 - 1e-9, 50):
        value = from_unit(unit, kind)
        again = from_unit(to_unit(value, kind), kind)
        assert again == pytest.approx(value) if isinstance(value, float) else again == value
        assert kind._contains(kind.to_internal_repr(value))


def test_whole_numbers_and_steps_have_equal_parts_of_the_interval():
    units = (np.arange(8000) + 0.5) / 8000
    widths, counts = np.unique([from_unit(unit, SPACE["width"]) for unit in units], return_counts=True)
    assert widths.tolist() == list(range(16, 129, 16))
    assert counts.tolist() == [1000] * 8
