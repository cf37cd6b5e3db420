"""Every optimizer learns with every schedule of the learning rate, and each does to rate and weights what it says."""

import typing

import pytest
from support.experiments import Collector, configure, fit

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config.schema import TrainingConfig


@pytest.mark.parametrize("schedule", typing.get_args(TrainingConfig.model_fields["schedule"].annotation))
@pytest.mark.parametrize("optimizer", typing.get_args(TrainingConfig.model_fields["optimizer"].annotation))
def test_every_optimizer_with_every_schedule(small, optimizer, schedule):
    decay = 0.0 if optimizer == "adam" else 1e-4
    rate = 0.03 if optimizer in ("sgd", "muon") else 3e-3
    config = configure(
        training__optimizer=optimizer,
        training__schedule=schedule,
        training__weight_decay=decay,
        training__learning_rate=rate,
    )
    _, result = fit(config, small)
    assert result.best.metrics["val_accuracy"] > 0.25
    if schedule != "one_cycle":
        assert [epoch.metrics["learning_rate"] for epoch in result.epochs] == pytest.approx([rate, rate])


def size(model: typing.Any) -> float:
    return sum(float((weight**2).sum()) for weight in model.get_weights())


def test_weight_decay_shrinks_the_weights_of_adamw(small, plain):
    model, _ = fit(configure(training__optimizer="adamw", training__weight_decay=1), small)
    assert size(model) < 0.92 * size(plain[0])  # adam is adamw without decay; (1 - 0.003)^24 squared is 0.87


def test_weight_decay_shrinks_the_weights_of_sgd(small):
    config = configure(training__optimizer="sgd", training__weight_decay=1, training__learning_rate=0.05)
    seeds.prepare(config.seed, "float32")
    before = size(models.build(config.model))
    assert size(fit(config, small)[0]) < 0.5 * before


def test_one_cycle_climbs_then_falls_to_zero(small):
    collector = Collector()
    config = configure(training__schedule="one_cycle", training__epochs=8, training__warmup=0.25)
    _, result = fit(config, small, [collector])
    rates = [epoch.metrics["learning_rate"] for epoch in collector.epochs]
    peak = 3e-3
    assert rates[0] == pytest.approx(peak / 25 + (peak - peak / 25) / 2, rel=1e-3)  # half of the climb
    assert rates[1] == pytest.approx(peak, rel=1e-3)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[4] == pytest.approx(peak / 2, rel=1e-3)  # a cosine, half of the way down
    assert rates[-1] == pytest.approx(0, abs=peak * 1e-3)
    assert len(result.epochs) == 8


def test_plateau_cuts_the_rate_when_nothing_gets_better(small):
    # a rate this small changes no prediction, so the validation accuracy stays the same
    config = configure(
        training__schedule="plateau",
        training__epochs=6,
        training__learning_rate=1e-9,
        training__plateau_patience=2,
        training__plateau_factor=0.1,
    )
    rates = [epoch.metrics["learning_rate"] for epoch in fit(config, small)[1].epochs]
    assert rates == pytest.approx([1e-9, 1e-9, 1e-9, 1e-10, 1e-10, 1e-11], rel=1e-3)
