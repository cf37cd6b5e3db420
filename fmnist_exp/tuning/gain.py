"""Measure what a search gained over the experiment's own setting, whose trial was trained like all others.

This trial and the best one are compared on the images of the gate, which no trial has seen. On the validation images,
which chose the best of many trials, its lead would be too large.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.data.dataset import Split
from fmnist_exp.errors import WorkError, is_full_disk
from fmnist_exp.evaluation import intervals
from fmnist_exp.registry import private_copy
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import transport
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.session import Search

GAIN = "gain"  # user attribute of a study: the best trial of a session, and what `sentence` said of it


def sentence(search: Search, best: FrozenTrial) -> str:
    """Return what the search gained over the experiment's own setting, with the uncertainty, in a sentence.

    It is measured once for each best trial, because `search.keep` may delete the weights of the other one afterwards.

    Args:
        search: the search.
        best: the best trial.

    Raises:
        WorkError: the store or the disk failed while the models were read.
    """
    known = search.study.user_attrs.get(GAIN)
    if known and known["trial"] == best.number:
        return str(known["text"])
    text = _measure(search, best)
    search.study.set_user_attr(GAIN, {"trial": best.number, "text": text})
    return text


def _measure(search: Search, best: FrozenTrial) -> str:
    defaults, trials = search.space.defaults(), studies.finished(search.study)
    if best.params == defaults:
        return _nothing(search, best)
    own = max((trial for trial in trials if trial.params == defaults), key=_worth, default=None)
    if own is None or not TrialRecord.of(own).model_id:
        return "It is not known what the search gained, because no trial of the experiment's own setting has a model."
    curves = objectives.curve(own), objectives.curve(best)
    if len(curves[0]) != len(curves[1]) and not own.state == best.state == TrialState.COMPLETE:
        return _on_curves(search, own, best)
    try:
        return _on_images(search, own, best)
    except WorkError as error:
        if transport.is_lost(error) or is_full_disk(error):
            raise
        return f"It is not known what the search gained over trial {own.number}, the experiment's own setting: {error}."


def _nothing(search: Search, own: FrozenTrial) -> str:
    """Return the sentence for a search whose winner is the experiment's own setting."""
    ranked = studies.ranked(search.study)
    what = "is the best" if ranked[0].number == own.number else "is as good, within chance, as the best"
    text = f"The search gained nothing: the experiment's own setting, trial {own.number}, {what} of all trials."
    other = next((trial for trial in ranked if trial.params != own.params and trial.state == own.state), None)
    if other is None or len(objectives.curve(other)) != len(objectives.curve(own)):
        return text
    try:
        points, images = _compared(search, other, own)
    except WorkError as error:
        if transport.is_lost(error) or is_full_disk(error):
            raise
        return text
    return f"{text} The best other one, trial {other.number}, differs from it by {points}, measured on {images}."


def _worth(trial: FrozenTrial) -> tuple[bool, bool]:
    return bool(TrialRecord.of(trial).model_id), trial.state == TrialState.COMPLETE


def _on_curves(search: Search, own: FrozenTrial, best: FrozenTrial) -> str:
    """Return the sentence for two trials of which one was stopped early."""
    curves = objectives.curve(own), objectives.curve(best)
    epoch = min(max(curve) for curve in curves)
    there = " and ".join(intervals.text(curve[epoch], len(search.data.validation.labels)) for curve in curves)
    return (
        f"It is not known what the search gained: not both trial {own.number}, the experiment's own setting, and trial"
        f" {best.number} ran to the end. After epoch {epoch} they had {there} on the validation images."
    )


def _on_images(search: Search, own: FrozenTrial, best: FrozenTrial) -> str:
    """Return the sentence for two complete trials, which are compared image by image."""
    points, images = _compared(search, best, own)
    return (
        f"The search gained {points} over trial {own.number}, the experiment's own setting trained equally, measured"
        f" with trial {best.number} on {images}."
    )


def _compared(search: Search, one: FrozenTrial, other: FrozenTrial) -> tuple[str, str]:
    """Return the difference between the accuracies of two trials with its interval, and the images, in words."""
    data = search.data
    unseen = data.gate if len(data.gate.labels) else data.validation
    ours, theirs = (_correct(search, trial, unseen) for trial in (one, other))
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    difference, low, high = (100 * value for value in intervals.paired(won, lost, len(unseen.labels)))
    images = f"{len(unseen.labels):,} images that no trial has seen"
    if unseen is not data.gate:
        images = f"the {len(unseen.labels):,} validation images, which have ranked the trials"
    chance = "; that may be chance" if low <= 0 <= high else ""
    return f"{difference:+.2f} points (95% interval {low:+.2f} to {high:+.2f})", images + chance


def _correct(search: Search, trial: FrozenTrial, split: Split) -> NDArray[np.bool_]:
    """Return the mask (N,) of the images that the trial's network classifies correctly."""
    client = search.parent.client
    model_id = logged_models.arrived(client, TrialRecord.of(trial).model_id)
    with private_copy.opened(client, model_id) as copy:
        predictor = copy.predictor()
    return np.asarray(predictor.probabilities(split.images).argmax(axis=1) == split.labels, np.bool_)
