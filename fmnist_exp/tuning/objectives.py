"""The objectives of a search: measured in a trial, reported to Optuna, and the Pareto front of several of them."""

from __future__ import annotations

import statistics
import time

import numpy as np
from numpy.typing import NDArray
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.registry import private_copy
from fmnist_exp.tracking import access
from fmnist_exp.tuning.record import TrialRecord

WARM_UP, TIMED = 20, 200  # predictions


def prediction_seconds(model_id: str, images: NDArray[np.uint8]) -> float:
    """Return the median time of predicting one image with a logged model on ONNX Runtime, in seconds.

    The median is taken over 200 predictions after 20 warm-up predictions, on one thread, so that trials that run at the
    same time keep their cores. They still share memory and clock rate; see `warning`.

    Args:
        model_id: id of the logged model.
        images: any real images, shape (n, 28, 28).

    Raises:
        WorkError: the model cannot be loaded or fails.
    """
    with private_copy.opened(access.client(), model_id) as copy:
        loaded = copy.predictor(threads=1)
    seconds = []
    for turn in range(WARM_UP + TIMED):
        image = images[turn % len(images)][None]
        start = time.perf_counter()
        loaded.probabilities(image)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def warning(search: SearchConfig, workers: int) -> str:
    """Return a warning if this number of workers disturbs the measurement of an objective, otherwise an empty text."""
    if workers == 1 or "prediction_seconds" not in search.objectives:
        return ""
    return (
        f"prediction_seconds is measured while {workers} workers compute, which makes it longer and less certain;"
        " --workers 1 measures it alone"
    )


def report(trial: Trial, epoch: int, val_accuracy: float) -> None:
    """Report an epoch to Optuna. With several objectives it accepts no reports; the trial's record keeps the curve."""
    if len(trial.study.directions) == 1:
        trial.report(val_accuracy, epoch)
    else:
        TrialRecord.write(trial, val_accuracies=[*TrialRecord.of(trial).val_accuracies, val_accuracy])


def curve(trial: FrozenTrial) -> dict[int, float]:
    """Return the validation accuracy of a trial by epoch, counted from 1; empty until its first epoch ends."""
    return trial.intermediate_values or dict(enumerate(TrialRecord.of(trial).val_accuracies, start=1))


def front(study: Study) -> list[FrozenTrial]:
    """Return the complete trials on the Pareto front, or none if the study has a single objective.

    The most accurate trial comes first; it is the one that is registered.
    """
    if len(study.directions) == 1:
        return []
    return sorted(study.best_trials, key=order)


def order(trial: FrozenTrial) -> tuple[object, ...]:
    """Return a key that sorts trials that have a model; the best trial comes first.

    The key is the validation accuracy. Among equal trials, complete ones come before those that were stopped early, and
    small or fast models before others.
    """
    complete = trial.state == TrialState.COMPLETE
    others = tuple(trial.values[1:]) if complete else ()
    return -TrialRecord.of(trial).val_accuracy, not complete, others
