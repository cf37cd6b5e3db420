"""Refit the winner's setting on all 60,000 images, with one or several seeds, before it is registered.

No image is held out, so no choice can be made by validation: epochs, seeds and network are fixed before the refit.
"""

from __future__ import annotations

from optuna.trial import FrozenTrial

from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning import again
from fmnist_exp.tuning.again import Fitted
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.space import SearchSpace


def plan(space: SearchSpace, best: FrozenTrial) -> list[ExperimentConfig]:
    """Return the winner's experiment for each seed, counting up from `seed`, with no images held out.

    It trains for as many epochs as the winner needed to reach its best one. With one_cycle it trains for the whole
    schedule, because only the end of the schedule has small learning rates.
    """
    winner = space.apply(best.params)
    epochs = winner.training.epochs
    if winner.training.schedule != "one_cycle":
        epochs = TrialRecord.of(best).best_epoch or epochs
    fixed: dict[str, object] = {"data.validation_fraction": 0, "data.gate_fraction": 0, "training.epochs": epochs}
    fixed |= {"training.patience": None, "training.checkpoint": False}
    seeds = [(winner.seed + step) % 2**32 for step in range(space.search.refit)]
    return [override(winner, {**fixed, "seed": seed}) for seed in seeds]


def refit(search: Search, best: FrozenTrial, callback: SearchCallback) -> Fitted:
    """Fit the winner again with each seed, as child runs of the parent run.

    A resumed search repeats no finished fit, and continues one that was interrupted in its run.

    Args:
        search: the search.
        best: the winner.
        callback: receives a notice before each fit, and its progress.

    Returns:
        The model of the one seed, or, of several seeds, the network that averages their predictions.
    """
    experiments, data = plan(search.space, best), search.data.without_holdout()
    fits = []
    for config in experiments:
        callback.on_notice(f"fitting the winner again on {len(data.train.images):,} images, seed {config.seed}")
        fits.append(again.fit(config, data, search, best, Tag.REFIT_OF, callback))
    if len(fits) == 1:
        return fits[0]
    nothing = {"model.warm_start": None, "model.frozen": 0, "model.averaging": "none"}  # the members have had it
    members = [f"runs:/{fit.run_id}" for fit in fits]
    ensemble = override(experiments[0], {**nothing, "model.members": members})
    callback.on_notice(f"averaging the {len(fits)} networks")
    return again.fit(ensemble, data, search, best, Tag.REFIT_OF, callback)
