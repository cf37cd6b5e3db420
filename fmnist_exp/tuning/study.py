"""Open, resume and query studies. A study stores the experiment that created it and refuses any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress

import optuna
from optuna import Study, Trial
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import resolve
from fmnist_exp.tracking import first_use
from fmnist_exp.tracking.run import Run
from fmnist_exp.training import precision
from fmnist_exp.training.precision import Choice
from fmnist_exp.tuning import database, objectives, record
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.sampling import build as samplers
from fmnist_exp.tuning.sampling import warm_start
from fmnist_exp.tuning.sampling.warm_start import EarlierSettings
from fmnist_exp.tuning.space import SearchSpace
from fmnist_exp.tuning.workers import study_lock

PRECISION = "precision"  # the choice for a study whose experiment leaves training.precision open
PRECISION_FIELD = "training.precision"
EPOCHS = "epochs"  # of a whole trial, by the plan of the first session
RUNGS = "rungs"  # of successive halving by the newest plan: epochs before the first one, and the factor between them
CUT_OFF = "cut_off"  # numbers of the trials that a kill or Ctrl-C ended; they do not count
# fields that may differ when a study is resumed, like those of the gate
BUDGET = ("search.n_trials", "search.timeout", "search.refit", "search.keep")


def open_study(config: ExperimentConfig, name: str, storage: str | BaseStorage) -> Study:
    """Create the study, or load it if the same search made it. Its first trial is the experiment's own setting.

    Args:
        config: the experiment, with its `search`.
        name: name of the study.
        storage: address of the database, or a storage of Optuna.

    Raises:
        RequestError: the database cannot be used, another search made the study, or search.warm_start yields no
            setting.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = SearchSpace(config)
    try:
        with first_use.alone(storage) if isinstance(storage, str) else nullcontext():
            earlier = warm_start.find(config, storage) if _is_new(name, storage) else None
            used = database.patient(storage) if isinstance(storage, str) else storage
            directions = samplers.directions(space.search)
            study = optuna.create_study(storage=used, study_name=name, directions=directions, load_if_exists=True)
    except study_lock.STUDY_ERRORS as error:
        raise study_lock.unusable(str(storage), error) from error
    _claim(study, space, earlier)
    samplers.configure(study, config)
    return study


def left_by_a_kill(config: ExperimentConfig, storage: str) -> str | None:
    """Return the newest study of the same search whose driver was killed, or None."""
    for name in study_lock.abandoned(storage):
        with suppress(KeyError, RequestError, RuntimeError):  # killed before it was made; or of another release
            study = optuna.load_study(study_name=name, storage=storage)
            theirs = record.experiment_of(study)
            if theirs is not None and not _differences(study, theirs, config):
                return name
    return None


def with_precision(
    study: Study, config: ExperimentConfig, data: FashionMNIST, parent: Run, notify: Callable[[str], None]
) -> ExperimentConfig:
    """Return the experiment with a fixed precision, which is chosen once per study, before its first trial.

    All trials and the refit of the winner compute in it, on every worker and in every later session, so that their
    results can be compared. `notify` gets a sentence if this machine would choose another one.
    """
    known = _precision(study)
    remembered = Choice(known, f"study {study.study_name} has computed in it so far") if known else None
    resolved, choice = resolve.choose_precision(config, data, remembered)
    if choice is not None:
        study.set_user_attr(PRECISION, choice.precision)
        here = precision.by_hardware(config.model)
        if remembered and here.precision != choice.precision:
            notify(
                f"study {study.study_name} keeps computing in {choice.precision}; on this machine, auto would choose"
                f" {here.precision}: {here.reason}"
            )
    resolve.log_choice(parent, choice)
    return resolved


def _precision(study: Study) -> str | None:
    """Return the precision of a study's trials, or None if it has not been chosen yet."""
    if chosen := study.user_attrs.get(PRECISION):
        return str(chosen)
    theirs = record.experiment_of(study)
    return theirs.training.precision if theirs and theirs.training.precision not in precision.OPEN else None


def _is_new(name: str, storage: str | BaseStorage) -> bool:
    """Return True if the study does not exist, or a kill left it without its experiment."""
    if name not in optuna.get_all_study_names(storage):
        return True
    return record.EXPERIMENT not in optuna.load_study(study_name=name, storage=storage).user_attrs


def _claim(study: Study, space: SearchSpace, earlier: EarlierSettings | None) -> None:
    """Write the experiment into a new study, or compare it with that of an existing one."""
    theirs = record.experiment_of(study)
    if theirs is None:
        study.enqueue_trial(space.defaults(), skip_if_exists=True)
        if earlier:
            earlier.enqueue(study)
        study.set_user_attr(record.EXPERIMENT, space.config.to_yaml())
    elif different := _differences(study, theirs, space.config):
        key, (there, here) = min(different.items())
        raise RequestError(
            f"study {study.study_name!r} belongs to another search: {key} is {there!r} there and {here!r} here; choose"
            " another study name"
        )


def _differences(study: Study, theirs: ExperimentConfig, mine: ExperimentConfig) -> dict[str, tuple[object, object]]:
    """Return the values of the fields in which a study's search and mine differ, except for budgets and gates.

    A search that leaves the precision open takes the study's.
    """
    known, wanted = _precision(study), mine.training.precision
    if known or wanted in precision.OPEN:
        theirs = override(theirs, {PRECISION_FIELD: wanted if wanted in precision.OPEN else known})
    there, here = (_leaves(config.model_dump(mode="json", exclude_none=True)) for config in (theirs, mine))
    compared = [key for key in {*there, *here} if key not in BUDGET and not key.startswith("gate.")]
    return {key: (there.get(key), here.get(key)) for key in compared if there.get(key) != here.get(key)}


def _leaves(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    leaves: dict[str, object] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that count against the budget: complete, pruned or failed, but not cut off."""
    cut = study.user_attrs.get(CUT_OFF, [])
    return [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and trial.number not in cut
    ]


def epochs(study: Study, config: ExperimentConfig) -> int | None:
    """Return the epochs of a study's whole trials, which do not change any more, or None if no trial has begun."""
    if EPOCHS in study.user_attrs:
        return int(study.user_attrs[EPOCHS])
    begun = any(TrialRecord.of(trial).run_id for trial in study.get_trials(deepcopy=False))  # without a plan
    return config.training.epochs if begun else None


def rungs(study: Study) -> tuple[int, int] | None:
    """Return the epochs before the first rung and the factor between rungs, by the newest plan; None without a plan."""
    first, factor = study.user_attrs.get(RUNGS, (0, 0))
    return (int(first), int(factor)) if first else None


def running(study: Study) -> list[FrozenTrial]:
    """Return the trials in progress. Before a driver has started a trial, they are those that a killed driver left."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def cut_off(study: Study, trial: FrozenTrial | Trial) -> None:
    """End a running trial that nobody will finish, and put its setting back in the queue, to be continued in its run.

    The trial is ended last. After a kill before that, it still counts as running, and the next call does the rest.
    """
    cut = study.user_attrs.get(CUT_OFF, [])
    if trial.number not in cut:
        study.set_user_attr(CUT_OFF, [*cut, trial.number])
    frozen = study.get_trials(deepcopy=False)[trial.number]
    # a kill may have left only a part of a queued setting in the trial's parameters
    setting = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if setting not in [other.system_attrs.get("fixed_params") for other in waiting]:
        study.add_trial(_continuation(frozen, setting))
    study.tell(trial.number, state=TrialState.FAIL)


def _continuation(trial: FrozenTrial, setting: Mapping[str, object]) -> FrozenTrial:
    """Return a queued trial that continues one that was cut off, if that had begun, and knows its curve."""
    known, record = {}, TrialRecord.of(trial)
    curve = trial.intermediate_values
    if run_id := record.run_id or record.resumes:
        known = {"resumes": run_id, "passed": max([record.passed, *curve])}
        known |= {"stopped": record.stopped, "paused": record.paused}
    fixed = {"fixed_params": setting}
    return create_trial(
        state=TrialState.WAITING, system_attrs=fixed, user_attrs=known, intermediate_values=curve if known else {}
    )


def ranked(study: Study) -> list[FrozenTrial]:
    """Return the trials with a logged model, complete or stopped early; the best trial comes first."""
    return sorted((trial for trial in finished(study) if TrialRecord.of(trial).model_id), key=objectives.order)
