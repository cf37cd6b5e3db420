"""The end of a search: score, register and send its best model to the gate, and delete the weights of the others."""

from __future__ import annotations

from dataclasses import replace

from optuna.trial import FrozenTrial

from fmnist_exp.backend import interrupts
from fmnist_exp.registry import champions
from fmnist_exp.tracking import access
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.access import StoreAwayError
from fmnist_exp.tracking.names import Tag, VersionTag
from fmnist_exp.tuning import final, gain, refit, retention, score, winner
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.result import SearchResult
from fmnist_exp.tuning.session import Search


def finish(search: Search, result: SearchResult, callback: SearchCallback) -> SearchResult:
    """Register the best trial and delete weights. After Ctrl-C, a resumed search does the steps that are left.

    With `search.refit`, the refit of the winner is scored and registered, whatever its test accuracy. The gate compares
    it through the winning trial, which was not fitted on the validation images. All of that needs the tracking store:
    if it does not answer, the version is registered when it gets the rest, and a resumed search does the other steps.
    """
    keep, parent = search.space.search.keep, search.parent
    best = TrialRecord.of(winner.candidates(search)[0])
    try:
        with access.needed():
            logged_models.arrived(parent.client, best.model_id)
            result = _register(search, result, callback)
        return result if keep is None else _retain(search, keep, result, callback)
    except StoreAwayError:
        return _postpone(search, result, callback)
    except KeyboardInterrupt as interrupt:
        interrupts.release(interrupt)
        parent.mark_killed()
        interrupts.clear()
    return replace(result, status="interrupted")


def _retain(search: Search, keep: int, result: SearchResult, callback: SearchCallback) -> SearchResult:
    """Delete the weights of all trials but the best, unless the store stops answering, which costs no result."""
    try:
        with access.needed():
            kept = retention.apply(search.study, keep, search.parent.client)
    except StoreAwayError as error:
        callback.on_notice(f"{error}; the weights of the other trials stay until `fmnist-exp clean` deletes them")
        return result
    search.parent.set_tags({Tag.WEIGHTS_KEPT: " ".join(map(str, kept.kept))})
    return replace(result, retention=kept)


def _postpone(search: Search, result: SearchResult, callback: SearchCallback) -> SearchResult:
    """Leave what needs the store to later commands: the version is registered when the store gets the rest."""
    space, best = search.space.search, winner.candidates(search)[0]
    record, left = TrialRecord.of(best), ["the test score", "the gate"]
    if space.refit:
        left = ["the refit of the winner", "its registration", *left]
    else:
        tags = _version_tags(search, best) | {VersionTag.DATA_DIGEST: search.data.train.digest}
        search.parent.log_output_model(record.model_id)
        champions.register_later(record.model_id, record.run_id, tags, search.parent)
    if search.space.config.final:
        left = ["the final fit of the winner, which becomes another version", *left]
    if space.keep is not None:
        left.append("the deletion of weights")
    callback.on_notice(
        f"the tracking store does not have the trials yet, so these steps are left: {', '.join(left)}; run"
        f" `fmnist-exp sync` when it answers, and then resume study {search.study.study_name}, which does them"
    )
    return result


def _version_tags(search: Search, best: FrozenTrial) -> dict[str, object]:
    """Return the tags of the version that is registered from the best trial, without its test accuracy."""
    found: dict[str, object] = {VersionTag.STUDY: search.study.study_name, VersionTag.TRIAL: best.number}
    found[VersionTag.VAL_ACCURACY] = TrialRecord.of(best).val_accuracy
    return found | {VersionTag.GIT_COMMIT: search.parent.git_commit}


def _register(search: Search, result: SearchResult, callback: SearchCallback) -> SearchResult:
    """Score the winner on the test set, register it, and send it to the gate."""
    parent, data, best = search.parent, search.data, winner.choose(search, callback.on_notice)
    model_id = logged_models.arrived(parent.client, TrialRecord.of(best).model_id)
    run_id = TrialRecord.of(best).in_store(parent.client).run_id
    gained = gain.sentence(search, best)
    parent.set_tags({Tag.GAIN: gained})
    callback.on_notice(gained)
    tags = _version_tags(search, best) | {VersionTag.GAIN: gained}
    if search.space.search.refit:
        again = refit.refit(search, best, callback)
        tags[VersionTag.REFIT_OF] = run_id
        run_id, model_id, data = again.run_id, again.model_id, again.data
    elif search.space.config.final and (longer := final.fit(search, best, callback)):
        tags[VersionTag.VAL_ACCURACY] = longer.val_accuracy
        result = replace(result, final_accuracy=longer.val_accuracy)
        run_id, model_id = longer.run_id, longer.model_id
    run = runs.Run(parent.client, run_id)
    test_accuracy, scored = score.score(search, best, run, model_id, data, callback.on_notice)
    run.release()
    tags |= {**scored, VersionTag.DATA_DIGEST: data.train.digest, VersionTag.GIT_COMMIT: run.git_commit}
    parent.log_output_model(model_id)
    interrupts.check()
    registration = champions.register(model_id, run_id, tags, parent, search.space.config.gate, data)
    return replace(result, test_accuracy=test_accuracy, registration=registration, gain=gained)
