"""What a search makes good: measured after a trial, told to Optuna, and the front where nothing is better in all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.registry import versions
from fmnist_exp.serving import predictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from fmnist_exp.experiment.outcome import Outcome

WARM_UP, TIMED = 20, 200  # predictions
CURVE = "val_accuracies"  # user attribute of a trial whose study takes no reports


def measure(names: Sequence[str], outcome: Outcome, images: NDArray[np.uint8]) -> dict[str, float]:
    """What a finished trial came to by name, those of `names` among it; `images` are any real ones."""
    found: dict[str, float] = {
        "val_accuracy": outcome.fit.best.metrics["val_accuracy"],
        "parameters": outcome.parameters,
    }
    if "prediction_seconds" in names:
        found["prediction_seconds"] = prediction_seconds(outcome.model_id, images)
    return found


def values(search: SearchConfig, found: Mapping[str, Any]) -> list[float]:
    """What Optuna is told, in the order of `search.objectives`."""
    return [float(found[name]) for name in search.objectives]


def prediction_seconds(model_id: str, images: NDArray[np.uint8]) -> float:
    """Median seconds of one answer: the logged model on ONNX Runtime with one thread, asked for one image at a time.

    The median of 200 after 20 to warm up. With one thread it takes no core from a trial beside it, and waits for none;
    memory and clock are still shared, see `warning`. Raises WorkError if the model's files cannot be had.
    """
    loaded = predictor.load(versions.download(f"models:/{model_id}") / "data", threads=1)
    seconds = []
    for turn in range(WARM_UP + TIMED):
        image = images[turn % len(images)][None]
        start = time.perf_counter()
        loaded.probabilities(image)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def warning(search: SearchConfig, workers: int) -> str:
    """What to tell before the first trial; empty if the objectives mean what they say with so many workers."""
    if workers == 1 or "prediction_seconds" not in search.objectives:
        return ""
    return (
        f"prediction_seconds is measured while {workers} workers compute, which makes it longer and less certain;"
        " --workers 1 measures it alone"
    )


def report(trial: Trial, epoch: int, val_accuracy: float) -> bool:
    """Tell Optuna of an epoch; True if it prunes the trial.

    Optuna takes no reports for several objectives and prunes none of their trials: the curve is kept with the trial.
    """
    if len(trial.study.directions) == 1:
        trial.report(val_accuracy, epoch)
        return trial.should_prune()
    trial.set_user_attr(CURVE, [*trial.user_attrs.get(CURVE, []), val_accuracy])
    return False


def curve(trial: FrozenTrial) -> dict[int, float]:
    """Return the validation accuracy of a trial by epoch, from 1; empty before its first epoch ended."""
    return trial.intermediate_values or dict(enumerate(trial.user_attrs.get(CURVE, []), start=1))


def front(study: Study) -> list[FrozenTrial]:
    """The complete trials that no other beats in every objective, the most accurate first; none of a single objective.

    The first is the one that is registered.
    """
    if len(study.directions) == 1:
        return []
    return sorted(study.best_trials, key=order)


def order(trial: FrozenTrial) -> tuple[Any, ...]:
    """Sorts trials with a model by falling accuracy; of equal ones the complete first, then the smaller or faster.

    A trial that was stopped, as by the time limit in its last epoch but one, has a model like any other.
    """
    complete = trial.state == TrialState.COMPLETE
    others = tuple(trial.values[1:]) if complete else ()
    return -trial.user_attrs["val_accuracy"], not complete, others
