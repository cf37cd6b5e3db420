"""Studies: opened, continued, counted. A study remembers the search that made it and refuses any other."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import resolve
from fmnist_exp.tracking.redact import without_secrets
from fmnist_exp.tuning import objectives, space
from fmnist_exp.tuning.sampling import build as samplers
from fmnist_exp.tuning.sampling import warm_start
from fmnist_exp.tuning.workers import study_lock

if TYPE_CHECKING:
    from optuna import Study, Trial

    from fmnist_exp.data.dataset import FashionMNIST
    from fmnist_exp.tracking.run import Run
    from fmnist_exp.tuning.sampling.warm_start import EarlierSettings

PRECISION = "precision"  # what a study's `training.precision: auto` stands for
CUT_OFF = "cut_off"  # numbers of the trials that a kill or Ctrl-C ended; they do not count
# may differ when a study is continued, as may the gate
BUDGET = ("search.n_trials", "search.timeout", "search.refit", "search.keep")


def open_study(config: ExperimentConfig, name: str, storage: str) -> Study:
    """Create the study, or load it if the same search made it; its first trial is the experiment's own setting.

    Raises:
        RequestError: the database cannot be used, another search made the study, or search.warm_start gives nothing.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = space.search_of(config)
    try:
        warm = warm_start.find(config, storage) if _is_new(name, storage) else None
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=samplers.directions(search),
            load_if_exists=True,
        )
    except RequestError:
        raise
    except Exception as error:  # SQLAlchemy's and the drivers' own errors, of many types
        reason = without_secrets(str(error)).splitlines()[0]
        raise RequestError(f"the study database {without_secrets(storage)} cannot be used: {reason}") from error
    _claim(study, config, warm)
    samplers.configure(study, config)
    return study


def left_by_a_kill(config: ExperimentConfig, storage: str) -> str | None:
    """The newest study of this very search whose driver was killed, or none."""
    for name in study_lock.abandoned(storage):
        with suppress(KeyError):  # a kill before the study was made
            if optuna.load_study(study_name=name, storage=storage).user_attrs.get("search") == _search(config):
                return name
    return None


def with_precision(study: Study, config: ExperimentConfig, data: FashionMNIST, parent: Run) -> ExperimentConfig:
    """Return the experiment with a precision in the place of `auto`, measured once per study before its first trial.

    Trials that measured it themselves, while others compute beside them, could choose differently from each other and
    from the refit of the winner.
    """
    config, choice = resolve.choose_precision(config, data, study.user_attrs.get(PRECISION))
    if choice is not None:
        study.set_user_attr(PRECISION, choice.precision)
    resolve.log_choice(parent, choice)
    return config


def _is_new(name: str, storage: str) -> bool:
    """Whether there is no such study, or one that a kill left before it knew its search."""
    known = name in optuna.get_all_study_names(storage)
    return not known or "search" not in optuna.load_study(study_name=name, storage=storage).user_attrs


def _claim(study: Study, config: ExperimentConfig, warm: EarlierSettings | None) -> None:
    """Write the search into a new study; compare it with that of an old one."""
    mine = _search(config)
    theirs = study.user_attrs.get("search")
    if theirs is None:
        study.enqueue_trial(space.defaults(config), skip_if_exists=True)
        if warm:
            warm.enqueue(study)
        study.set_user_attr("search", mine)
        return
    different = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
    if different:
        key = different[0]
        raise RequestError(
            f"study {study.study_name!r} belongs to another search: {key} is {theirs.get(key)!r} there and"
            f" {mine.get(key)!r} here; choose another study name"
        )


def _search(config: ExperimentConfig) -> dict[str, Any]:
    """What makes a search the same one: all fields but its budget's and the gate's, as a study keeps them."""
    whole = _flat(yaml.safe_load(config.to_yaml()))
    return {key: value for key, value in whole.items() if key not in BUDGET and not key.startswith("gate.")}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count against the budget: complete, pruned or failed, but not cut off."""
    cut = study.user_attrs.get(CUT_OFF, [])
    return [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and trial.number not in cut
    ]


def running(study: Study) -> list[FrozenTrial]:
    """Trials in progress; before a driver starts its first, those that a killed driver left."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def cut_off(study: Study, trial: FrozenTrial | Trial) -> None:
    """End a running trial that nobody will finish, and put its setting back in the queue.

    The trial is told last: after a kill before that it is still running, and the next call does the rest.
    """
    cut = study.user_attrs.get(CUT_OFF, [])
    if trial.number not in cut:
        study.set_user_attr(CUT_OFF, [*cut, trial.number])
    frozen = study.get_trials(deepcopy=False)[trial.number]
    # of a setting from the queue, a kill may have left but a part in the trial's parameters
    setting = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if setting not in [other.system_attrs.get("fixed_params") for other in waiting]:
        study.enqueue_trial(setting)
    study.tell(trial.number, state=TrialState.FAIL)


def ranked(study: Study) -> list[FrozenTrial]:
    """Trials with a logged model, complete or stopped before their end, the most accurate first."""
    return sorted((trial for trial in finished(study) if "model_id" in trial.user_attrs), key=objectives.order)


def settings(config: ExperimentConfig, trial: FrozenTrial) -> dict[str, Any]:
    """What the search chose in `trial`, by the experiment's dotted names."""
    fixed = optuna.trial.FixedTrial(trial.params)
    chosen = flatten(space.suggest(fixed, config))  # type: ignore[arg-type]
    return {name: chosen[name] for name in space.search_of(config).space}
