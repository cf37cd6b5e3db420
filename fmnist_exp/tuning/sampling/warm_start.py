"""Try the best settings of an earlier study first in a new one.

They are run again, not copied: the new search may train longer, on other images or with other fixed fields, and a
result of another search would mislead its sampler.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna import Study
from optuna.distributions import CategoricalChoiceType
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import objectives, record
from fmnist_exp.tuning.space import SearchSpace

TAKEN = "warm_start"  # user attribute of the new study: how many settings it took, and of how many


@dataclass(frozen=True)
class EarlierSettings:
    """The settings to try first, as Optuna's parameters, and the number of complete trials that the study had."""

    settings: tuple[Mapping[str, CategoricalChoiceType], ...]
    complete: int

    def enqueue(self, study: Study) -> None:
        """Queue the settings in a new study, and store their number in the study."""
        for setting in self.settings:
            study.enqueue_trial(dict(setting), skip_if_exists=True)
        study.set_user_attr(TAKEN, f"{len(self.settings)} of {self.complete} complete trials")


def find(config: ExperimentConfig, storage: str | BaseStorage) -> EarlierSettings | None:
    """Return the settings that the search tries first, or None without `search.warm_start`.

    These are the settings of the earlier study's best complete trials that lie in the new space, at most
    `search.startup_trials`. They replace random settings. A field that only the new search varies has the value of the
    earlier experiment.

    Raises:
        RequestError: the storage has no such study, another program made it, or no trial lies in the space.
    """
    space = SearchSpace(config)
    search = space.search
    if search.warm_start is None:
        return None
    earlier = _load(search.warm_start, storage)
    complete = earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    made_by = record.experiment_of(earlier)
    if made_by is None:
        raise RequestError(f"search.warm_start={search.warm_start!r}: that study was not made by fmnist-exp tune")
    found = []
    for trial in sorted(complete, key=objectives.order):
        values = flatten(SearchSpace(made_by).apply(trial.params))
        if space.contains(values):
            found.append(space.parameters(values))
    if not found:
        raise RequestError(
            f"search.warm_start={search.warm_start!r}: none of its {len(complete)} complete trials lies in this"
            " search's space; widen search.space, or leave search.warm_start out"
        )
    return EarlierSettings(tuple(found[: search.startup_trials]), len(complete))


def _load(name: str, storage: str | BaseStorage) -> Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        names = optuna.get_all_study_names(storage)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        known = f"did you mean {near[0]!r}?" if near else "it has none"
        raise RequestError(f"search.warm_start={name!r}: the storage has no such study; {known}") from error
