"""The best settings of an earlier study, run again first in a new one.

They are run, not copied: the new search may train longer, on other images or with other fixed fields, and a number
from elsewhere would mislead its sampler.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import objectives, space

if TYPE_CHECKING:
    from optuna import Study

TAKEN = "warm_start"  # user attribute of the new study: how many settings it took, and of how many


@dataclass(frozen=True)
class WarmStart:
    """Optuna's parameters of the trials to run first, the best first; `of` so many complete trials."""

    settings: tuple[dict[str, Any], ...]
    of: int

    def enqueue(self, study: Study) -> None:
        """Queue them in a new study, which remembers how many there were."""
        for setting in self.settings:
            study.enqueue_trial(setting, skip_if_exists=True)
        study.set_user_attr(TAKEN, f"{len(self.settings)} of {self.of} complete trials")


def find(config: ExperimentConfig, storage: str) -> WarmStart | None:
    """The settings to begin with; None without `search.warm_start`.

    The best complete trials, at most `search.startup_trials`: they stand in for the random ones. Of each the fields
    that are searched now are taken, whether they were searched then or not, if all of them lie in the space of now.

    Raises:
        RequestError: there is no such study in the storage, another program made it, or none of its trials lies in
            the space.
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
    return WarmStart(tuple(found[: search.startup_trials]), len(complete))


def _load(name: str, storage: str) -> Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        names = optuna.get_all_study_names(storage)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        known = f"did you mean {near[0]!r}?" if near else "it has none"
        raise RequestError(f"search.warm_start={name!r}: the storage has no such study; {known}") from error


def _experiment(study: Study) -> ExperimentConfig:
    """The experiment with the search that made the study."""
    known = study.user_attrs.get("search")
    if not known:
        raise RequestError(f"search.warm_start={study.study_name!r}: that study was not made by fmnist-exp tune")
    own = {name: value for name, value in known.items() if not name.startswith("search.")}
    searched: dict[str, dict[str, Any]] = {}
    for name in [name for name in known if name.startswith("search.space.")]:
        field, _, limit = name.removeprefix("search.space.").rpartition(".")
        searched.setdefault(field, {})[limit] = known[name]
    return files.override(ExperimentConfig(), {**own, "search.space": searched})
