"""The figures of a study as Plotly draws them.

Plotly reads links and other HTML in every text. Texts from a study, such as the names of workers,
go through `plain`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from fmnist_exp.figures.canvas import TRAIN, VALIDATION, WRONG
from fmnist_exp.tracking.escape import plotly as plain
from fmnist_exp.tuning.report.points import GREY, LABELS, ParetoFront, Trials, by_state
from fmnist_exp.tuning.report.selection import MARKED
from fmnist_exp.tuning.report.timelines import Timeline

ACCURACY = LABELS["val_accuracy"]
SHADES = 20  # colours of the parallel coordinates; one trace for each keeps a long study's page quick
HOVER = "%{y:.2%}<br>%{text}<extra></extra>"


def history(trials: Trials) -> Figure:
    """Draw the validation accuracy of each trial in order, and the highest so far."""
    figure = Figure()
    numbers, best = trials.best_so_far
    _add_markers(figure, trials, numbers)
    line = {"color": VALIDATION, "shape": "hv"}
    figure.add_scatter(x=numbers, y=best, name="highest so far", mode="lines", line=line)
    _add_interval(figure, trials)
    return figure.update_layout(xaxis_title="trial", yaxis_title=ACCURACY)


def _add_interval(figure: Figure, trials: Trials) -> None:
    """Add the 95% interval of the highest accuracy as a band."""
    if trials.interval:
        low, high = trials.interval
        band = {"fillcolor": VALIDATION, "opacity": 0.12, "line_width": 0, "layer": "below"}
        label = {"text": f"95% interval of trial {trials.best.number}", "font_size": 11}
        figure.add_hrect(low, high, annotation=label, annotation_position="top left", **band)


def slices(trials: Trials) -> Figure:
    """Draw the validation accuracy against each searched parameter."""
    figure = make_subplots(1, len(trials.parameters), shared_yaxes=True)
    for column, parameter in enumerate(trials.parameters, start=1):
        choices = [*map(plain, parameter.choices)]
        values = [choices[int(value)] if choices else value for value in parameter.values]
        _add_markers(figure, trials, values, row=1, col=column, showlegend=column == 1)
        kind = "log" if parameter.logarithmic else "category" if parameter.choices else "linear"
        figure.update_xaxes(title_text=plain(parameter.name), type=kind, row=1, col=column)
    return figure.update_yaxes(title_text=ACCURACY, col=1)


def _add_markers(figure: Figure, trials: Trials, x: Sequence[object], **cell: object) -> None:
    """Add each trial as a point at its value of `x` and its accuracy."""
    for name, color, rows in by_state(trials.points):
        marker = {"color": color, "symbol": "x" if name == "pruned" else "circle"}
        style = {"name": name, "legendgroup": name, "mode": "markers", "marker": marker, "hovertemplate": HOVER}
        accuracies, texts = zip(*((trials.points[row].best, _text(trials, row)) for row in rows), strict=True)
        figure.add_scatter(x=[x[row] for row in rows], y=accuracies, text=texts, **style, **cell)


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
        figure.add_vline(position, line={"color": GREY, "width": 1})
        for height, anchor, value in ((0, "top", min(axis.values)), (1, "bottom", max(axis.values))):
            figure.add_annotation(x=position, y=height, text=plain(axis.text(value)), yanchor=anchor, showarrow=False)
    figure.update_traces(hovertemplate="%{text}<extra></extra>")
    figure.update_xaxes(tickvals=list(range(len(axes))), ticktext=[plain(axis.name) for axis in axes], showgrid=False)
    figure.update_yaxes(visible=False)
    return figure.update_layout(showlegend=False, plot_bgcolor="white")


def learning_curves(trials: Trials) -> Figure:
    """Draw the validation accuracy of all trials by epoch."""
    curves = [trial.accuracies for trial in trials.points]
    figure = Figure()
    # thousands of points take long to open, and hundreds of thick lines are a blot
    style = {"marker_size": 5} if len(curves) <= MARKED else {"mode": "lines", "line_width": 1, "opacity": 0.5}
    for name, color, rows in reversed([*by_state(trials.points)]):
        _add_lines(figure, trials, rows, [curves[row] for row in rows], name=name, line_color=color, **style)
    if ends := [max(trial.accuracies.items()) for trial in trials.points if trial.pruned]:
        cross = {"symbol": "x", "color": WRONG, "size": 8}
        epochs, accuracies = zip(*ends, strict=True)
        figure.add_scatter(x=epochs, y=accuracies, name="stopped here", mode="markers", marker=cross, hoverinfo="skip")
    best = trials.points.index(trials.best)
    name = f"highest: trial {trials.best.number}"
    _add_lines(figure, trials, [best], [curves[best]], name=name, line_color=VALIDATION)
    _add_interval(figure, trials)
    step = 1 if max(map(max, curves)) <= 20 else None
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
    """Draw the importance of each parameter for being among the best trials."""
    names = list(shares)[::-1]
    figure = Figure().add_bar(
        x=[shares[name] for name in names], y=[*map(plain, names)], orientation="h", marker_color=TRAIN
    )
    figure.update_traces(texttemplate="%{x:.2f}", textposition="outside")
    return figure.update_layout(xaxis_range=[0, 1.1])


def timeline(times: Timeline) -> Figure:
    """Draw a bar for each trial: when it ran and on which worker."""
    figure = Figure()
    for name, color, rows in by_state(times.stretches):
        bars = [times.stretches[row] for row in rows]
        place = {
            "base": [bar.start for bar in bars],
            "x": [bar.length for bar in bars],
            "y": [plain(b.worker) for b in bars],
        }
        edge = {"color": "white", "width": 1 if len(times.stretches) <= MARKED else 0}
        texts = [str(bar.number) for bar in bars]
        figure.add_bar(**place, customdata=texts, name=name, orientation="h", marker={"color": color, "line": edge})
    figure.update_traces(hovertemplate="trial %{customdata}, %{x:.2f} minutes<extra></extra>")
    if len(times.stretches) <= MARKED:
        numbered = {"texttemplate": "%{customdata}", "textposition": "inside", "insidetextanchor": "middle"}
        figure.update_traces(**numbered, textangle=0)
    for cut in times.cuts:
        figure.add_vline(cut, line_dash="dash", line_color=GREY)
    figure.update_yaxes(type="category", categoryorder="category descending")
    height = 220 + 40 * len({stretch.worker for stretch in times.stretches})
    return figure.update_layout(xaxis_title=times.label, barmode="overlay", height=height)


def pareto_front(pareto: ParetoFront) -> Figure:
    """Draw the accuracy against every further objective, with the Pareto front in a darker colour."""
    dominated = [number for number in pareto.measured if number not in pareto.front]
    figure = make_subplots(1, len(pareto.planes), shared_yaxes=True)
    for column, (name, points) in enumerate(pareto.planes.items(), start=1):
        cell = {"row": 1, "col": column, "showlegend": column == 1, "textposition": "top right"}
        for word, color, numbers in (("dominated", TRAIN, dominated), ("Pareto front", VALIDATION, pareto.front)):
            x, y = [points[number][0] for number in numbers], [points[number][1] for number in numbers]
            mode = "markers+text" if numbers is pareto.front else "markers"
            marker = {"color": color, "size": 8}
            figure.add_scatter(x=x, y=y, text=[*map(str, numbers)], mode=mode, marker=marker, name=word, **cell)
        figure.update_xaxes(title_text=plain(LABELS.get(name, name)), row=1, col=column)
    figure.update_traces(hovertemplate="trial %{text}: %{y:.2%}, %{x:,.4g}<extra></extra>")
    return figure.update_yaxes(title_text=ACCURACY, col=1)


def _text(trials: Trials, row: int) -> str:
    """Return a trial's number and setting, for the box that opens when the pointer is on the trial."""
    settings = [f"{parameter.name} {parameter.text(parameter.values[row])}" for parameter in trials.parameters]
    return "<br>".join([f"trial {trials.points[row].number}", *map(plain, settings)])
