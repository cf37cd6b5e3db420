"""The figures of a study as Plotly draws them, on one page that needs no network: the page holds Plotly's script."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from fmnist_exp.figures.canvas import TRAIN, VALIDATION, WRONG
from fmnist_exp.tuning.report.points import LABELS, STATES, TITLES, Content, ParetoFront, Timeline, Trials

ACCURACY = LABELS["val_accuracy"]
STYLE = "<style>body { font-family: sans-serif; margin: 1.5rem; max-width: 75rem }</style>"
SHADES = 20  # colours of the parallel coordinates; one trace for each keeps a long study's page quick
HOVER = "%{y:.2%}<br>%{text}<extra></extra>"


def history(trials: Trials) -> Figure:
    """Draw the best validation accuracy of each trial in order, and the best so far."""
    figure = Figure()
    for state, rows in trials.by_state():
        _add_markers(figure, trials, state, rows, [trials.points[row].number for row in rows])
    numbers = [trial.number for trial in trials.points]
    line = {"color": VALIDATION, "shape": "hv"}
    figure.add_scatter(x=numbers, y=trials.best_so_far, name="best so far", mode="lines", line=line)
    return figure.update_layout(xaxis_title="trial", yaxis_title=ACCURACY)


def slices(trials: Trials) -> Figure:
    """Draw the validation accuracy against each searched parameter."""
    figure = make_subplots(1, len(trials.parameters), shared_yaxes=True)
    for column, parameter in enumerate(trials.parameters, start=1):
        values = [parameter.choices[int(value)] if parameter.choices else value for value in parameter.values]
        for state, rows in trials.by_state():
            cell = {"row": 1, "col": column, "showlegend": column == 1, "legendgroup": state}
            _add_markers(figure, trials, state, rows, [values[row] for row in rows], **cell)
        kind = "log" if parameter.logarithmic else "category" if parameter.choices else "linear"
        figure.update_xaxes(title_text=parameter.name, type=kind, row=1, col=column)
    figure.update_yaxes(title_text=ACCURACY, col=1)
    return figure


def _add_markers(
    figure: Figure, trials: Trials, state: str, rows: Sequence[int], x: Sequence[object], **more: object
) -> None:
    """Add the trials of a state as points at `x` and their accuracy."""
    word, color = STATES[state]
    marker = {"color": color, "symbol": "x" if state == "PRUNED" else "circle"}
    accuracies = [trials.points[row].best for row in rows]
    texts = [_text(trials, row) for row in rows]
    figure.add_scatter(
        x=x, y=accuracies, text=texts, name=word, mode="markers", marker=marker, hovertemplate=HOVER, **more
    )


def parallel_coordinates(trials: Trials) -> Figure:
    """Draw each trial as a line through its parameters to its validation accuracy."""
    axes = trials.axes
    heights = np.stack([axis.heights for axis in axes], axis=1)  # (trials, axes)
    shades = np.ceil(heights[:, -1] * SHADES)
    figure = Figure()
    for shade in np.unique(shades):  # the best on top
        rows = np.flatnonzero(shades == shade).tolist()
        line = {"color": to_hex(colormaps["viridis"](shade / SHADES)), "width": 1.2}
        _add_lines(figure, trials, rows, [dict(enumerate(heights[row])) for row in rows], mode="lines", line=line)
    for position, axis in enumerate(axes):
        figure.add_vline(position, line={"color": "#555555", "width": 1})
        for height, anchor, value in ((0, "top", min(axis.values)), (1, "bottom", max(axis.values))):
            figure.add_annotation(x=position, y=height, text=axis.text(value), yanchor=anchor, showarrow=False)
    figure.update_traces(hovertemplate="%{text}<extra></extra>")
    figure.update_xaxes(tickvals=list(range(len(axes))), ticktext=[axis.name for axis in axes], showgrid=False)
    figure.update_yaxes(visible=False)
    return figure.update_layout(showlegend=False, plot_bgcolor="white")


def learning_curves(trials: Trials) -> Figure:
    """Draw the validation accuracy of all trials by epoch."""
    curves = [trial.accuracies for trial in trials.points]
    figure = Figure()
    for state, rows in reversed([*trials.by_state()]):
        word, color = STATES[state]
        _add_lines(figure, trials, rows, [curves[row] for row in rows], name=word, line_color=color, marker_size=5)
    ends = [max(trial.accuracies.items()) for trial in trials.points if trial.state == "PRUNED"]
    if ends:
        cross = {"symbol": "x", "color": WRONG, "size": 8}
        epochs, accuracies = zip(*ends, strict=True)
        figure.add_scatter(x=epochs, y=accuracies, name="stopped here", mode="markers", marker=cross, hoverinfo="skip")
    best = trials.points.index(trials.best)
    name = f"best: trial {trials.best.number}"
    _add_lines(figure, trials, [best], [curves[best]], name=name, line_color=VALIDATION)
    last = max(max(curve) for curve in curves)
    step = 1 if last <= 20 else None
    return figure.update_layout(xaxis_title="epoch", xaxis_dtick=step, yaxis_title=ACCURACY, showlegend=True)


def _add_lines(
    figure: Figure, trials: Trials, rows: Sequence[int], lines: Sequence[Mapping[int, float]], **style: object
) -> None:
    """Add a line per trial, all in one trace: a trace for each would make the page of a long study slow."""
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for row, line in zip(rows, lines, strict=True):
        x += [*line, None]  # None lifts the pen
        y += [*line.values(), None]
        texts += [_text(trials, row)] * (len(line) + 1)
    figure.add_scatter(**{"x": x, "y": y, "text": texts, "hovertemplate": HOVER, "mode": "lines+markers", **style})


def importances(shares: Mapping[str, float]) -> Figure:
    """Draw the share of each parameter in what the best trials have in common."""
    names = list(shares)[::-1]
    figure = Figure()
    figure.add_bar(x=[shares[name] for name in names], y=names, orientation="h", marker_color=TRAIN)
    figure.update_traces(texttemplate="%{x:.2f}", textposition="outside")
    return figure.update_layout(xaxis_range=[0, 1.1])


def timeline(times: Timeline) -> Figure:
    """Draw which worker ran which trial when."""
    figure = Figure()
    for state, (word, color) in STATES.items():
        bars = [stretch for stretch in times.stretches if stretch.state == state]
        if bars:
            figure.add_bar(
                base=[bar.start / 60 for bar in bars],
                x=[(bar.end - bar.start) / 60 for bar in bars],
                y=[bar.worker for bar in bars],
                text=[str(bar.number) for bar in bars],
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
    figure.update_yaxes(type="category", categoryorder="category descending")
    layout = {"xaxis_title": minutes, "barmode": "overlay", "height": 220 + 40 * workers}
    return figure.update_layout(**layout)


def pareto_front(pareto: ParetoFront) -> Figure:
    """Draw the accuracy against each other objective, with the front in a darker colour."""
    accuracy, *others = next(iter(pareto.measured.values()))
    dominated = [number for number in pareto.measured if number not in pareto.front]
    figure = make_subplots(1, len(others), shared_yaxes=True)
    for column, name in enumerate(others, start=1):
        for word, color, numbers in (("dominated", TRAIN, dominated), ("Pareto front", VALIDATION, pareto.front)):
            figure.add_scatter(
                x=[pareto.measured[number][name] for number in numbers],
                y=[pareto.measured[number][accuracy] for number in numbers],
                text=[str(number) for number in numbers],
                textposition="top right",
                hovertemplate="trial %{text}: %{y:.2%}, %{x:,.4g}<extra></extra>",
                mode="markers+text" if numbers is pareto.front else "markers",
                marker={"color": color, "size": 8},
                name=word,
                showlegend=column == 1,
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text=LABELS.get(name, name), row=1, col=column)
    figure.update_yaxes(title_text=ACCURACY, col=1)
    return figure


def _text(trials: Trials, row: int) -> str:
    """Return a trial's number and setting, for the box that opens under the pointer."""
    settings = [f"{parameter.name} {parameter.text(parameter.values[row])}" for parameter in trials.parameters]
    return "<br>".join([f"trial {trials.points[row].number}", *map(html.escape, settings)])


FIGURES: dict[str, Callable[..., Figure]] = {
    draw.__name__: draw
    for draw in (history, learning_curves, slices, parallel_coordinates, importances, timeline, pareto_front)
}


def compose(study_name: str, contents: Mapping[str, Content]) -> str:
    """Return the page of a study as HTML, with a figure for each of `contents`."""
    figures = [FIGURES[name](content).update_layout(title=TITLES[name]) for name, content in contents.items()]
    parts = [figure.to_html(full_html=False, include_plotlyjs=index == 0) for index, figure in enumerate(figures)]
    title = f"Study {html.escape(study_name)}"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title>{STYLE}<h1>{title}</h1>{''.join(parts)}\n"
