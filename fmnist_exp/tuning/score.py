"""The score of a study on the test set: one, however often the study is resumed and whichever trial wins later."""

from collections.abc import Callable

from optuna.trial import FrozenTrial

from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.tracking import scorings
from fmnist_exp.tracking.names import VersionTag
from fmnist_exp.tracking.run import Run
from fmnist_exp.tuning.session import Search

SCORED = "test_scored"  # user attribute of a study: the trial, the run and the model that were scored on the test set


def score(
    search: Search, best: FrozenTrial, run: Run, model_id: str, data: FashionMNIST, notify: Callable[[str], None]
) -> tuple[float | None, dict[str, object]]:
    """Score the model that a search registers, unless the study has scored another one before.

    A second score would let the test set choose between the two, since somebody looked at the first and went on.

    Args:
        search: the search.
        best: the winning trial.
        run: the run that logged the model: that of the trial, or of its refit.
        model_id: id of the logged model.
        data: the images.
        notify: called with a sentence if the model is not scored.

    Returns:
        The test accuracy and the tags for the version; None and no tags if the model is not scored.
    """
    known = search.study.user_attrs.get(SCORED)
    if known and known["model"] != model_id:
        notify(
            f"study {search.study.study_name} was scored on the test set with the model of trial {known['trial']}"
            f" (run {known['run']}), and is scored once only; the model of trial {best.number} is registered without a"
            " test accuracy, which `fmnist-exp evaluate` measures"
        )
        return None, {}
    # before the score is known: a search that is killed right after it has used its score all the same
    search.study.set_user_attr(SCORED, {"trial": best.number, "run": run.id, "model": model_id})
    accuracy, scored = experiment_run.score_winner(run, search.parent, model_id, data)
    return accuracy, {VersionTag.TEST_ACCURACY: accuracy, **scorings.of_version(scored, {})}
