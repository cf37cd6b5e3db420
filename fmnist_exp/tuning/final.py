"""Train the winner of a search to the end: a longer fit with the values of the experiment's `final:` section.

It is fitted on the images of the trials, so that its network is judged on validation and gate images like a trial's.
"""

from __future__ import annotations

from optuna.trial import FrozenTrial

from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.evaluation import intervals
from fmnist_exp.tracking import transport
from fmnist_exp.tracking.access import StoreAwayError
from fmnist_exp.tracking.names import Tag
from fmnist_exp.training import speed
from fmnist_exp.tuning import again, objectives
from fmnist_exp.tuning.again import Fitted
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.session import Search

# The part of the time limit in which no trial runs, unless the plan lends it to trials that would not fit otherwise.
# Trials that end earlier leave more to the final fit.
SHARE = 0.4
# An epoch takes longer than its measured steps: it is validated, and a state is kept now and then.
SLOWER = 1.15
LOGGING_SECONDS = 20.0  # for the last steps: the network is scored, exported and logged


def fit(search: Search, best: FrozenTrial, callback: SearchCallback) -> Fitted | None:
    """Fit the winner with the values of `final`, in a child run of the parent run, if the time limit allows it.

    It is trained for the epochs of `final`, or for as many as fit into the time that is left on this machine, which a
    few timed steps tell. A final fit that was interrupted continues with the epochs that it began with.

    Returns:
        The network to register; None if the time does not suffice for the epochs that the trial had, if the fit fails,
        or if the network of the trial is better on the validation images.
    """
    trial, images = TrialRecord.of(best), len(search.data.validation.labels)
    try:
        fitted = _fit(search, best, callback)
    except (RequestError, WorkError) as error:
        if isinstance(error, StoreAwayError) or transport.is_lost(error) or is_full_disk(error):
            raise
        callback.on_notice(f"the final fit failed, so the network of trial {best.number} is registered: {error}")
        return None
    if fitted is None:
        return None
    accuracy = fitted.val_accuracy or 0.0
    shown = f"the final fit reaches {intervals.text(accuracy, images)} on the validation images"
    if accuracy < trial.val_accuracy:
        callback.on_notice(
            f"{shown}, and trial {best.number} {intervals.text(trial.val_accuracy, images)}, so that one is registered"
        )
        return None
    callback.on_notice(shown)
    return fitted


def _fit(search: Search, best: FrozenTrial, callback: SearchCallback) -> Fitted | None:
    """Fit the winner for as many epochs as there is time for; return None if these are fewer than the trial had."""
    config, least = search.space.longer().apply(best.params), len(objectives.curve(best))
    epochs = _begun(search, best) or _affordable(config, search)
    if epochs < min(least, config.training.epochs):
        callback.on_notice(
            f"the time left of search.timeout does not suffice for a final fit of {_count(least)}, so the network of"
            f" trial {best.number} is registered"
        )
        return None
    callback.on_notice(f"training the setting of trial {best.number} to the end: {_count(epochs)}")
    config = override(config, {"training.epochs": epochs})
    return again.fit(config, search.data, search, best, Tag.FINAL_OF, callback)


def _begun(search: Search, best: FrozenTrial) -> int:
    """Return the epochs of the final fit that an earlier session began, or 0."""
    known = [run.data.params.get("training.epochs") for run in again.earlier(search, best, Tag.FINAL_OF)]
    return next((int(epochs) for epochs in known if epochs), 0)


def _affordable(config: ExperimentConfig, search: Search) -> int:
    """Return how many epochs of this experiment fit into the time that is left, at most its own."""
    left = search.end - LOGGING_SECONDS - search.clock()
    return min(config.training.epochs, int(left / (speed.epoch_seconds(config, search.data) * SLOWER)))


def _count(epochs: int) -> str:
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"
