"""What a study leaves on its parent run: a table of all trials, and figures as PNG and as one interactive page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp import figures, study_figures
from fmnist_exp.study_figures import TrialPoints

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study

PAGE = (
    "plot_optimization_history",
    "plot_intermediate_values",
    "plot_parallel_coordinate",
    "plot_slice",
)


def write(study: Study, folder: Path) -> None:
    """Write study/trials.csv, study/figures.html and a PNG per figure below `folder`."""
    target = folder / "study"
    target.mkdir()
    table = study.trials_dataframe(attrs=("number", "state", "value", "duration", "params", "user_attrs"))
    table.to_csv(target / "trials.csv", index=False)
    for name, figure in _figures(study).items():
        figure.savefig(target / f"{name}.png", dpi=figures.DPI)
    (target / "figures.html").write_text(_page(study), encoding="utf-8")


def _figures(study: Study) -> dict[str, Figure]:
    """The figures that this many trials allow."""
    measured = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values and _ended(trial)]
    points = [_points(trial) for trial in measured]
    if not points:
        return {}
    logarithmic = frozenset(n for t in measured for n, d in t.distributions.items() if getattr(d, "log", False))
    drawn = {
        "history": study_figures.history(points),
        "learning_curves": study_figures.learning_curves(points),
        "slices": study_figures.slices(points, logarithmic),
        "parallel_coordinates": study_figures.parallel_coordinates(points, logarithmic),
    }
    if _complete(study) > 2:
        drawn["importances"] = study_figures.importances(optuna.importance.get_param_importances(study))
    return drawn


def _ended(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _complete(study: Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _points(trial: FrozenTrial) -> TrialPoints:
    """The trial as the figures want it; a choice stands by its place in the list of choices."""
    numeric = (FloatDistribution, IntDistribution)
    parameters = {
        name: float(trial.params[name] if isinstance(kind, numeric) else kind.to_internal_repr(trial.params[name]))
        for name, kind in trial.distributions.items()
    }
    return TrialPoints(trial.number, trial.state == TrialState.PRUNED, trial.intermediate_values, parameters)


def _page(study: Study) -> str:
    """Optuna's interactive figures on one page that needs no network: Plotly's script is in it, once."""
    names = [*PAGE, *(["plot_param_importances"] if _complete(study) > 2 else [])]
    parts: list[str] = []
    for name in names if _complete(study) else []:
        named = {} if name == "plot_intermediate_values" else {"target_name": "validation accuracy"}
        figure = getattr(optuna.visualization, name)(study, **named)
        parts.append(figure.to_html(full_html=False, include_plotlyjs=not parts))
    title = f"Study {html.escape(study.study_name)}"
    style = "<style>body { font-family: sans-serif; margin: 1.5rem }</style>"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title>{style}<h1>{title}</h1>{''.join(parts)}\n"
