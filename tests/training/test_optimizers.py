"""Muon against NumPy: singular values, and one whole step of a network with every kind of weight."""

import numpy as np
import pytest
from keras import ops

from fmnist_exp.backend import seeds
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.models import build
from fmnist_exp.training.optimizers import NEWTON_SCHULZ, Muon, orthogonal

RATE, DECAY = 0.1, 0.5


@pytest.fixture(autouse=True)
def keras():
    seeds.prepare(0, "float32")


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """The paper's iteration as it is written there, on the matrix itself, in float64."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.astype(np.float64) / np.linalg.norm(matrix)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("shape", [(288, 32), (24, 200), (64, 64)], ids=["tall", "wide", "square"])
def test_the_update_is_the_papers(shape):
    random = np.random.default_rng(0)
    matrix = random.normal(size=shape).astype(np.float32) * np.logspace(0, -2, shape[1], dtype=np.float32)
    made = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(matrix)))
    np.testing.assert_allclose(made, newton_schulz(matrix), atol=1e-4)


def test_singular_values_come_close_to_one():
    matrix = np.random.default_rng(0).normal(size=(288, 32)).astype(np.float32)
    values = np.linalg.svd(ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(matrix))), compute_uv=False)
    assert values.min() > 0.65
    assert values.max() < 1.25


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_two_steps_of_a_network_with_weights_of_every_kind(momentum):
    model = build(ModelConfig(family="mobilenet", widths=(12, 16), convolutions=1, batch_norm=True))
    optimizer = Muon(RATE, momentum=momentum, nesterov=True, weight_decay=DECAY)
    random = np.random.default_rng(0)
    variables = model.trainable_variables
    gradients = [random.normal(size=variable.shape).astype(np.float32) for variable in variables]
    expected = [ops.convert_to_numpy(variable).astype(np.float64) for variable in variables]
    velocity = [np.zeros(variable.shape) for variable in variables]
    for _ in range(2):
        optimizer.apply([ops.convert_to_tensor(gradient) for gradient in gradients], variables)
        for i, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
            expected[i] *= 1 - RATE * DECAY
            kernel = len(variable.shape) in (2, 4) and variable.shape[-1] in (12, 16)
            scale = 1 if kernel else -RATE  # Keras' SGD keeps the rate in its velocity, with its sign
            velocity[i] = momentum * velocity[i] + scale * gradient
            ahead = momentum * velocity[i] + scale * gradient
            if kernel:
                ahead = -RATE * newton_schulz(ahead.reshape(-1, ahead.shape[-1])).reshape(ahead.shape)
            expected[i] += ahead
    kinds = {len(variable.shape) for variable in variables}
    assert kinds == {1, 2, 4}
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(variable), value, atol=1e-4, err_msg=variable.path)
