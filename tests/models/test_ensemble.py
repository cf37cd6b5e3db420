"""An ensemble answers with the mean of its members."""

import numpy as np
from support.networks import answers, cnn, mlp, onnx_answers, saved_and_loaded

from fmnist_exp.models import ensemble


def test_an_ensemble_answers_with_the_mean_of_its_members(small, tmp_path):
    few = small.test.images[:30]
    members = [mlp(8), mlp(16, 8), cnn(widths=(4,), batch_norm=True), mlp(8)]
    expected = np.mean([answers(member, few) for member in members], axis=0)
    model = ensemble.average(members)
    assert np.allclose(answers(model, few), expected, atol=1e-6)
    assert not model.trainable_weights
    assert model.count_params() == sum(member.count_params() for member in members)
    assert np.allclose(answers(saved_and_loaded(model, tmp_path), few), expected, atol=1e-6)
    assert np.allclose(onnx_answers(model, few, tmp_path), expected, atol=1e-5)


def test_an_ensemble_of_ensembles(small):
    few = small.test.images[:30]
    first, second = ensemble.average([mlp(8), mlp(8)]), ensemble.average([mlp(8), mlp(8)])
    expected = (answers(first, few) + answers(second, few)) / 2
    assert np.allclose(answers(ensemble.average([first, second]), few), expected, atol=1e-6)
