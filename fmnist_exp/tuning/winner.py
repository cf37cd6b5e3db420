"""The winner of a search: the best trial whose model can still be loaded.

Where a plan shortened all trials, for the final fit to have more time, their accuracies say little about that fit.
Then the experiment's own setting wins, unless another one is better by more than chance.
"""

from __future__ import annotations

from collections.abc import Callable

from optuna.trial import FrozenTrial

from fmnist_exp.errors import WorkError, is_full_disk
from fmnist_exp.evaluation import intervals
from fmnist_exp.registry import private_copy
from fmnist_exp.tracking import transport
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.session import Search


def choose(search: Search, notify: Callable[[str], None]) -> FrozenTrial:
    """Return the best trial whose model's files are those that were logged, after verifying them.

    The tag `fmnist.damaged_trials` of the parent run gets the numbers of better trials, whose files are damaged.

    Args:
        search: the search.
        notify: called with a sentence for each trial that is passed over.

    Raises:
        WorkError: no trial has a model that can be loaded, or the store or the disk failed while the files were read.
    """
    damaged: dict[int, str] = {}
    for trial in candidates(search):
        reason = _damage(search, TrialRecord.of(trial).model_id)
        if not reason:
            if damaged:
                search.parent.set_tags({Tag.DAMAGED: " ".join(map(str, damaged))})
            return trial
        damaged[trial.number] = reason
        notify(f"the model of trial {trial.number} is passed over, and the next-best trial is taken: {reason}")
    number, reason = next(iter(damaged.items()))
    raise WorkError(
        f"none of the {len(damaged)} trials with a model can be registered, because their files are damaged (trial"
        f" {number}: {reason}); restore the files in the artifact store, or add trials with a larger --n_trials"
    )


def candidates(search: Search) -> list[FrozenTrial]:
    """Return the trials that have a model; the one that wins if its files are whole comes first.

    The own setting wins over a trial of the same number of epochs, fewer than a whole trial has, if its accuracy lies
    in the 95% interval of the other one's.
    """
    ranked, config = studies.ranked(search.study), search.space.config
    own = next((trial for trial in ranked if trial.params == search.space.defaults()), None)
    if config.final is None or own is None:
        return ranked
    epochs = [len(objectives.curve(trial)) for trial in (ranked[0], own)]
    low, _ = intervals.bounds(TrialRecord.of(ranked[0]).val_accuracy, len(search.data.validation.labels))
    if epochs[0] == epochs[1] < config.training.epochs and TrialRecord.of(own).val_accuracy >= low:
        return [own, *(trial for trial in ranked if trial is not own)]
    return ranked


def _damage(search: Search, model_id: str) -> str:
    """Return why a model cannot be loaded, or an empty text. Raises WorkError if that may be otherwise later."""
    try:
        with private_copy.opened(search.parent.client, model_id):
            return ""
    except WorkError as error:
        if transport.is_lost(error) or is_full_disk(error):
            raise
        return str(error)
