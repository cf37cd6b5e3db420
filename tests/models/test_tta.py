"""Test-time augmentation answers with the mean over its views."""

import numpy as np
import pytest
from support.networks import answers, mlp, onnx_answers, saved_and_loaded

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.models import tta


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    bordered = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return bordered[:, 1 - down : 29 - down, 1 - right : 29 - right]


def test_without_averaging_it_is_the_same_model():
    model = mlp(8)
    assert tta.with_tta(model, ModelConfig()) is model


@pytest.mark.parametrize(
    ("averaging", "moves"), [("flip", [(0, 0)]), ("flip_shift", [(0, 0), (1, 1), (-1, -1)])], ids=["flip", "flip_shift"]
)
def test_the_answer_is_the_mean_over_the_views(averaging, moves, small, tmp_path):
    few = small.test.images[:30]
    model = mlp(8)
    averaged = tta.with_tta(model, ModelConfig(averaging=averaging))
    views = [moved(few, *move) for move in moves]
    views += [view[:, :, ::-1] for view in views]
    expected = np.mean([answers(model, view) for view in views], axis=0)
    assert np.allclose(answers(averaged, few), expected, atol=1e-6)
    assert not np.allclose(answers(averaged, few), answers(model, few), atol=1e-3)
    assert np.array_equal(answers(saved_and_loaded(averaged, tmp_path), few), answers(averaged, few))
    assert np.allclose(onnx_answers(averaged, few, tmp_path), expected, atol=1e-5)
