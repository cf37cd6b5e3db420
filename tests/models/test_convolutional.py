"""The fields of the convolutional families change the layers as their descriptions say."""

import pytest
from support.networks import cnn, kinds, of_kind


@pytest.mark.parametrize(("convolutions", "filters"), [(1, [4, 6]), (2, [4, 4, 6, 6]), ((1, 3), [4, 6, 6, 6])])
def test_convolutions_per_block(convolutions, filters):
    model = cnn(convolutions=convolutions)
    assert [layer.filters for layer in of_kind(model, "Conv2D")] == filters
    assert kinds(model).count("MaxPooling2D") == 2


def test_residual_adds_the_input_of_every_later_convolution():
    assert "Add" not in kinds(cnn(convolutions=3))
    sums = of_kind(cnn(convolutions=(1, 3), residual=True), "Add")
    assert len(sums) == 2
    for layer in sums:
        branch, skipped = (tensor._keras_history.operation for tensor in layer.input)
        assert type(branch).__name__ == "Activation"
        assert type(skipped).__name__ in ("Activation", "Add")


def test_pool_first_pools_straight_after_the_first_convolution():
    last, first = kinds(cnn()), kinds(cnn(pool_first=True))
    assert [last[i - 1] for i, kind in enumerate(last) if kind == "MaxPooling2D"] == ["Activation"] * 2
    assert [first[i - 1] for i, kind in enumerate(first) if kind == "MaxPooling2D"] == ["Conv2D"] * 2
    assert cnn().count_params() == cnn(pool_first=True).count_params()


def test_pooling_of_the_last_maps():
    assert cnn().layers[-1].input.shape == (None, 7 * 7 * 6)
    assert cnn(pooling="average").layers[-1].input.shape == (None, 6)


def test_head():
    model = cnn(head_widths=(9, 8), head_dropout=0.4)
    assert [layer.units for layer in of_kind(model, "Dense")] == [9, 8, 10]
    assert kinds(model)[-2] == "Dropout"
    assert model.layers[-2].rate == 0.4


def test_kernel_size_and_stem_stride():
    convolutions = of_kind(cnn(kernel_size=5, stem_stride=2), "Conv2D")
    assert {layer.kernel_size for layer in convolutions} == {(5, 5)}
    assert [layer.strides for layer in convolutions] == [(2, 2), (1, 1), (1, 1), (1, 1)]
