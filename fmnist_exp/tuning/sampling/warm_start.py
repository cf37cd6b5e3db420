"""The best settings of an earlier study, run first in a new one.

They are run again, not copied: the new search may train longer, on other images or with other fixed fields, and a
result from elsewhere would mislead its sampler.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import CategoricalChoiceType
from optuna.trial import TrialState

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import objectives, space

TAKEN = "warm_start"  # user attribute of the new study: how many settings it took, and of how many


@dataclass(frozen=True)
class EarlierSettings:
    """Optuna's parameters of the trials to run first, the best first, and the number of trials they come from."""

    settings: tuple[Mapping[str, CategoricalChoiceType], ...]
    complete: int

    def enqueue(self, study: Study) -> None:
        """Queue the settings in a new study, and note their number in it."""
        for setting in self.settings:
            study.enqueue_trial(dict(setting), skip_if_exists=True)
        study.set_user_attr(TAKEN, f"{len(self.settings)} of {self.complete} complete trials")


def find(config: ExperimentConfig, storage: str) -> EarlierSettings | None:
    """Return the settings to begin with, or None without `search.warm_start`.

    They are those of the best complete trials, at most `search.startup_trials`, in place of random ones. A setting has
    the fields that the new search varies, whether the earlier one varied them or not; it is taken if all of them lie
    in the new space.

    Raises:
        RequestError: the storage has no such study, another program made it, or no trial lies in the space.
    """
    search = space.search_of(config)
    if search.warm_start is None:
        return None
    earlier = _load(search.warm_start, storage)
    complete = earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    made_by = _experiment(earlier)
    found = []
    for trial in sorted(complete, key=objectives.order):
        values = flatten(space.suggest(optuna.trial.FixedTrial(trial.params), made_by))  # type: ignore[arg-type]
        if space.holds(config, values):
            found.append(space.parameters(config, values))
    if not found:
        raise RequestError(
            f"search.warm_start={search.warm_start!r}: none of its {len(complete)} complete trials lies in this"
            " search's space; widen search.space, or leave search.warm_start out"
        )
    return EarlierSettings(tuple(found[: search.startup_trials]), len(complete))


def _load(name: str, storage: str) -> Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        names = optuna.get_all_study_names(storage)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        known = f"did you mean {near[0]!r}?" if near else "it has none"
        raise RequestError(f"search.warm_start={name!r}: the storage has no such study; {known}") from error


def _experiment(study: Study) -> ExperimentConfig:
    """Return the experiment with the search that made the study."""
    known = study.user_attrs.get("search")
    if not known:
        raise RequestError(f"search.warm_start={study.study_name!r}: that study was not made by fmnist-exp tune")
    own = {name: value for name, value in known.items() if not name.startswith("search.")}
    searched: dict[str, dict[str, Any]] = {}
    for name in [name for name in known if name.startswith("search.space.")]:
        field, _, limit = name.removeprefix("search.space.").rpartition(".")
        searched.setdefault(field, {})[limit] = known[name]
    return files.override(ExperimentConfig(), {**own, "search.space": searched})
