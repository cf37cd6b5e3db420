"""What a study leaves on its parent run: a table of all trials, and figures as PNG and as one interactive page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.figures import canvas
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning.report import interactive, points, static
from fmnist_exp.tuning.report.points import TrialPoints

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from optuna import Study

COLUMNS = ("number", "state", "value", "datetime_start", "duration", "params", "user_attrs")
ENOUGH = 3  # complete trials from which on importances say anything


def write(study: Study, search: SearchConfig, folder: Path) -> None:
    """Write below `folder`: study/trials.csv, study/figures.html, a PNG per figure, and study/pareto_front.csv.

    The last of these only where the search has several objectives.
    """
    target = folder / "study"
    target.mkdir()
    table = _table(study, search)
    table.to_csv(target / "trials.csv", index=False)
    if front := [trial.number for trial in objectives.front(study)]:
        table.set_index("number").loc[front].to_csv(target / "pareto_front.csv")
    single = objectives.by_accuracy(study)
    shares = _importances(single)
    times = points.timeline(study.get_trials(deepcopy=False))
    drawn = _figures(single, shares) | ({"timeline": static.timeline(times)} if times.stretches else {})
    if front:
        drawn["pareto_front"] = static.pareto_front(_measured(study, search), front)
    for name, figure in drawn.items():
        figure.savefig(target / f"{name}.png", dpi=canvas.DPI)
    (target / "figures.html").write_text(interactive.compose(study, single, search, times, shares), encoding="utf-8")


def _table(study: Study, search: SearchConfig) -> pd.DataFrame:
    """A row per trial. With several objectives, a column `value_NAME` for each."""
    table = study.trials_dataframe(attrs=COLUMNS).drop(columns=f"user_attrs_{objectives.CURVE}", errors="ignore")
    return table.rename(columns={f"values_{i}": f"value_{name}" for i, name in enumerate(search.objectives)})


def _figures(single: Study, shares: Mapping[str, float]) -> dict[str, Figure]:
    """The figures of accuracy that this many trials allow."""
    ended = single.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    trials = [trial for trial in ended if trial.intermediate_values]
    if not trials:
        return {}
    points = [_points(trial) for trial in trials]
    kinds = {name: kind for trial in trials for name, kind in trial.distributions.items()}
    logarithmic = frozenset(name for name, kind in kinds.items() if getattr(kind, "log", False))
    choices = {
        name: [str(json.loads(str(choice))) for choice in kind.choices]
        for name, kind in kinds.items()
        if isinstance(kind, CategoricalDistribution)
    }
    drawn = {
        "history": static.history(points),
        "learning_curves": static.learning_curves(points),
        "slices": static.slices(points, logarithmic, choices),
        "parallel_coordinates": static.parallel_coordinates(points, logarithmic, choices),
    }
    return drawn | ({"importances": static.importances(shares)} if shares else {})


def _importances(single: Study) -> Mapping[str, float]:
    """Of each parameter for the accuracy; empty where there are too few trials."""
    if len(single.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < ENOUGH:
        return {}
    return optuna.importance.get_param_importances(single)


def _points(trial: FrozenTrial) -> TrialPoints:
    """The trial as the figures want it; a choice stands by its place in the list of choices."""
    parameters = {name: kind.to_internal_repr(trial.params[name]) for name, kind in trial.distributions.items()}
    return TrialPoints(trial.number, trial.state == TrialState.PRUNED, trial.intermediate_values, parameters)


def _measured(study: Study, search: SearchConfig) -> dict[int, dict[str, float]]:
    """The objectives of each complete trial, by its number."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {trial.number: dict(zip(search.objectives, trial.values, strict=True)) for trial in complete}
