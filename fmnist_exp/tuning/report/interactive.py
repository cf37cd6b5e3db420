"""The study as one interactive page that needs no network: Plotly's script is in it, once."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.figures.canvas import VALIDATION, WRONG
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.report.points import Timeline
from fmnist_exp.tuning.report.static import STATES, WORDS

if TYPE_CHECKING:
    from optuna import Study

ACCURACY = WORDS["val_accuracy"]
STYLE = "<style>body { font-family: sans-serif; margin: 1.5rem; max-width: 75rem }</style>"


def compose(study: Study, single: Study, search: SearchConfig, times: Timeline, shares: Mapping[str, float]) -> str:
    """The page as HTML.

    Args:
        study: of which the page tells.
        single: the same with accuracy as its only objective.
        search: that made it.
        times: of its trials.
        shares: importance of each parameter; empty where there are too few trials.
    """
    drawn = _of_optuna(study, single, search)
    drawn += [_learning_curves(single)] if any(trial.intermediate_values for trial in single.trials) else []
    drawn += [_importances(shares)] if shares else []
    drawn += [_timeline(times)] if times.stretches else []
    parts = [figure.to_html(full_html=False, include_plotlyjs=not place) for place, figure in enumerate(drawn)]
    title = f"Study {html.escape(study.study_name)}"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title>{STYLE}<h1>{title}</h1>{''.join(parts)}\n"


def _of_optuna(study: Study, single: Study, search: SearchConfig) -> list[Any]:
    """The figures as Optuna draws them; none without a complete trial."""
    plots = optuna.visualization
    if not single.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    drawn = []
    if len(search.objectives) > 1:
        words = [WORDS.get(name, name) for name in search.objectives]
        drawn.append(plots.plot_pareto_front(study, target_names=words))
    drawn.append(plots.plot_optimization_history(single, target_name=ACCURACY))
    drawn.append(plots.plot_parallel_coordinate(single, target_name=ACCURACY))
    slices = plots.plot_slice(single, target_name=ACCURACY)
    slices.update_layout(width=None)  # as wide as the page
    return [*drawn, slices]


def _learning_curves(single: Study) -> Any:
    """One trace for all curves of a state: Optuna's has one for each trial, which a thousand make slow."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    pruned = single.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    complete = single.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    for trials, state in ((pruned, "PRUNED"), (complete, "COMPLETE")):
        word, color = STATES[state]
        _add_curves(figure, trials, word, {"line": {"color": color}, "marker": {"size": 5}})
    ends = [max(trial.intermediate_values.items()) for trial in pruned if trial.intermediate_values]
    if ends:
        cross = {"mode": "markers", "marker": {"symbol": "x", "color": WRONG, "size": 8}}
        epochs, accuracies = zip(*ends, strict=True)
        figure.add_scatter(x=epochs, y=accuracies, name="stopped here", hoverinfo="skip", **cross)
    for best in studies.ranked(single)[:1]:
        _add_curves(figure, [best], f"best: trial {best.number}", {"line_color": VALIDATION})
    figure.update_layout(title="Learning curves of all trials", xaxis_title="epoch", yaxis_title=ACCURACY)
    figure.update_layout(showlegend=True, xaxis_dtick=1 if max(epoch for epoch, _ in _all(single)) <= 20 else None)
    return figure


def _all(single: Study) -> list[tuple[int, float]]:
    return [point for trial in single.get_trials(deepcopy=False) for point in trial.intermediate_values.items()]


def _add_curves(figure: Any, trials: Sequence[FrozenTrial], name: str, style: Mapping[str, Any]) -> None:
    if not trials:
        return
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for trial in trials:
        x += [*trial.intermediate_values, None]  # None lifts the pen
        y += [*trial.intermediate_values.values(), None]
        texts += [_text(trial)] * (len(trial.intermediate_values) + 1)
    hover = "%{y:.2%}<br>%{text}<extra></extra>"
    figure.add_scatter(x=x, y=y, text=texts, name=name, hovertemplate=hover, mode="lines+markers", **style)


def _importances(shares: Mapping[str, float]) -> Any:
    """As the PNG has them: Optuna's own plot would compute them a second time."""
    from plotly import graph_objects

    names = list(shares)[::-1]
    figure = graph_objects.Figure()
    figure.add_bar(x=[shares[name] for name in names], y=names, orientation="h", marker_color=STATES["COMPLETE"][1])
    figure.update_traces(texttemplate="%{x:.2f}", textposition="outside")
    figure.update_layout(title=f"Importance of each parameter for the {ACCURACY}", xaxis_range=[0, 1.1])
    return figure


def _timeline(times: Timeline) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for state, (word, color) in STATES.items():
        own = [stretch for stretch in times.stretches if stretch.state == state]
        if own:
            figure.add_bar(
                base=[stretch.start / 60 for stretch in own],
                x=[(stretch.end - stretch.start) / 60 for stretch in own],
                y=[stretch.worker for stretch in own],
                text=[str(stretch.number) for stretch in own],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                hovertemplate="trial %{text}, %{x:.2f} minutes<extra></extra>",
                orientation="h",
                name=word,
                marker={"color": color, "line": {"color": "white", "width": 1}},
            )
    for cut in times.cuts:
        figure.add_vline(cut / 60, line_dash="dash", line_color="#555555")
    workers = len({stretch.worker for stretch in times.stretches})
    minutes = "minutes" + (", pauses left out" if times.cuts else "")
    figure.update_layout(title="Trials by worker", xaxis_title=minutes, barmode="overlay", height=220 + 40 * workers)
    figure.update_yaxes(type="category", categoryorder="category descending")
    return figure


def _text(trial: FrozenTrial) -> str:
    settings = "<br>".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    return f"trial {trial.number}<br>{settings}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else html.escape(str(value))
