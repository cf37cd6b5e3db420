"""The content of a study's figures, prepared once for the two libraries that draw them."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.evaluation import intervals
from fmnist_exp.figures.canvas import TRAIN, WRONG
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.report import selection, timelines
from fmnist_exp.tuning.report.timelines import Stretch, Timeline

# a trial's state → its name in a legend, and its colour
STATES = {"COMPLETE": ("complete", TRAIN), "PRUNED": ("pruned", "#b9b9b9"), "FAIL": ("failed", WRONG)}
LABELS = {"val_accuracy": "validation accuracy", "prediction_seconds": "seconds per prediction, one image"}
TITLES = {
    "history": "Validation accuracy by trial, and the highest so far",
    "learning_curves": "Learning curves of the trials",
    "slices": "Validation accuracy by parameter (× pruned)",
    "parallel_coordinates": "Trials through their parameters; yellow is the highest accuracy",
    "importances": "Importance of each parameter for the validation accuracy",
    "timeline": "Trials by worker",
    "pareto_front": "Pareto front, with the trials' numbers",
}
GREY = "#555555"  # of the lines that mark a place
# Complete trials that importances need. PED-ANOVA compares the best tenth with all; Optuna's documentation of its
# evaluator recommends at least five trials in that tenth, and of 40 trials it takes four.
ENOUGH = 41


def by_state(rows: Sequence["TrialPoint | Stretch"]) -> Iterator[tuple[str, str, list[int]]]:
    """Yield the name and the colour of each state that occurs, with the positions of its trials in `rows`."""
    for state, (name, color) in STATES.items():
        if found := [position for position, row in enumerate(rows) if row.state == state]:
            yield name, color, found


@dataclass(frozen=True)
class TrialPoint:
    """A trial's state and its validation accuracy: by epoch, and of the network that it logged."""

    number: int
    state: str  # COMPLETE or PRUNED
    accuracies: Mapping[int, float]  # of at least one epoch
    best: float  # of the logged network: the best epoch's, with model.averaging

    @property
    def pruned(self) -> bool:
        """True if the trial was stopped before its end."""
        return self.state == "PRUNED"

    @property
    def color(self) -> str:
        """The colour of the trial's state."""
        return STATES[self.state][1]


@dataclass(frozen=True)
class Parameter:
    """A searched parameter with its value in each trial; a choice is given by its position in `choices`."""

    name: str
    values: Sequence[float]
    logarithmic: bool = False
    choices: Sequence[str] = ()  # none for a number

    @property
    def heights(self) -> NDArray[np.float64]:
        """The values on the parameter's scale, from 0 for the lowest to 1 for the highest; shape (trials,)."""
        scaled = np.log10(self.values) if self.logarithmic else np.array(self.values, dtype=float)
        spread = scaled.max() - scaled.min()
        heights: NDArray[np.float64] = (scaled - scaled.min()) / (spread or 1.0)
        return heights

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        return self.choices[round(value)] if self.choices else f"{value:.3g}"


@dataclass(frozen=True)
class Trials:
    """Content of the history, the learning curves, the slices and the parallel coordinates."""

    points: Sequence[TrialPoint]  # at least one, in order of their numbers
    parameters: Sequence[Parameter]  # in alphabetical order
    images: int = 0  # that the accuracies were measured on; 0 if it is unknown
    accuracies: Sequence[float] = ()  # of all trials, also of those that a long study's figures leave out

    @property
    def total(self) -> int:
        """The number of trials, including those that the figures leave out."""
        return max(len(self.accuracies), len(self.points))

    @property
    def lead(self) -> str:
        """The highest accuracy and how much of its lead may be chance, in whole sentences."""
        highest = f"Trial {self.best.number} has the highest validation accuracy, {self.best_text}."
        if self.total == 1:
            return highest
        others = intervals.lead(self.accuracies or [trial.best for trial in self.points], self.images)
        chosen = "It was chosen by these images, so its accuracy on others is likely to be a little lower."
        return " ".join(filter(None, (highest, others, chosen)))

    @property
    def best_text(self) -> str:
        """The highest accuracy with its 95% interval."""
        return intervals.text(self.best.best, self.images)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bounds of the 95% interval of the highest accuracy; None if the number of images is unknown."""
        return intervals.bounds(self.best.best, self.images) if self.images else None

    @cached_property
    def best(self) -> TrialPoint:
        """The most accurate trial. Pruned trials have a model too, but among equal trials a complete one is chosen."""
        return max(self.points, key=lambda trial: (trial.best, not trial.pruned))

    @property
    def best_so_far(self) -> tuple[list[int], list[float]]:
        """The trials' numbers, and the highest validation accuracy up to each trial."""
        return [trial.number for trial in self.points], list(accumulate((trial.best for trial in self.points), max))

    @property
    def axes(self) -> list[Parameter]:
        """The axes of the parallel coordinates: the parameters, then the validation accuracy."""
        return [*self.parameters, Parameter("val_accuracy", [trial.best for trial in self.points])]


@dataclass(frozen=True)
class ParetoFront:
    """The values of each objective in the complete trials, accuracy first, and the trials on the Pareto front."""

    measured: Mapping[int, Mapping[str, float]]
    front: Sequence[int]
    total: int = 0  # number of complete trials, including those that the figure of a long study leaves out

    @property
    def planes(self) -> dict[str, dict[int, tuple[float, float]]]:
        """Return, by objective except accuracy, its value and the accuracy of each trial, by the trial's number."""
        accuracy, *others = next(iter(self.measured.values()))
        return {name: {key: (row[name], row[accuracy]) for key, row in self.measured.items()} for name in others}


Content = Trials | Timeline | ParetoFront | Mapping[str, float]  # of a figure; the last are the importances


def prepare(study: Study, names: Sequence[str], images: int) -> dict[str, Content]:
    """Return the content of every figure that a study has enough trials for.

    `names` are its objectives in order, and `images` is the number of validation images that its trials were measured
    on.
    """
    figures: dict[str, Content] = {}
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if front := [trial.number for trial in objectives.front(study)]:
        shown = selection.even(range(len(complete)), selection.SHOWN)
        measured = {one.number: dict(zip(names, one.values, strict=True)) for one in (complete[row] for row in shown)}
        measured |= {number: dict(zip(names, trials[number].values, strict=True)) for number in front}
        figures["pareto_front"] = ParetoFront(measured, front, len(complete))
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    if with_curve := [trial for trial in trials if trial.state in ended and objectives.curve(trial)]:
        points = [_point(trial) for trial in with_curve]
        accuracies = [point.best for point in points]
        rows = selection.positions(accuracies)
        chosen = [with_curve[row] for row in rows]
        parameters = [_parameter(name, chosen) for name in sorted(chosen[0].distributions)]
        content = Trials([points[row] for row in rows], parameters, images, accuracies)
        figures |= dict.fromkeys(("history", "parallel_coordinates", "slices"), content)
        if any(len(point.accuracies) > 1 for point in points):
            figures["learning_curves"] = content
    if len(complete) >= ENOUGH:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that lower targets count as better
            figures["importances"] = get_param_importances(study, target=lambda trial: -trial.values[0])
    if (times := timelines.prepare(trials)).stretches:
        figures["timeline"] = times
    return figures


def title(name: str, content: Content) -> str:
    """Return the title of a figure. It says how many trials the figure of a long study shows."""
    if isinstance(content, Trials):
        shown, total = len(content.points), content.total
    elif isinstance(content, Timeline):
        shown, total = len(content.stretches), content.total
    elif isinstance(content, ParetoFront):
        shown, total = len(content.measured), content.total
    else:
        return TITLES[name]
    return TITLES[name] + (f" ({shown:,} of {total:,} trials)" if shown < total else "")


def notes(figures: Mapping[str, Content], study: Study) -> list[str]:
    """Return sentences about the trials that figures leave out, and about figures that a study is too short for."""
    left_out = []
    if any("trials)" in title(name, content) for name, content in figures.items()):
        left_out = [
            f"A figure shows at most about {selection.SHOWN:,} trials: {selection.RULE}. The timeline shows the newest"
            " ones. The sentence on top, the importances and study/trials.csv take all trials into account."
        ]
    return left_out + _missing(figures, study)


def _missing(figures: Mapping[str, Content], study: Study) -> list[str]:
    complete, missing = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))), []
    if "slices" in figures and "learning_curves" not in figures:
        missing.append("There is no figure of learning curves, because every trial has one epoch.")
    if complete and "importances" not in figures:
        missing.append(
            f"There is no figure of the parameters' importances: it needs {ENOUGH} complete trials, and the study has"
            f" {complete}. The importances compare the best tenth of the trials with all of them, and fewer than five"
            " trials in that tenth would say little."
        )
    return missing


def _point(trial: FrozenTrial) -> TrialPoint:
    accuracies = objectives.curve(trial)
    best = TrialRecord.of(trial).val_accuracy or max(accuracies.values())  # a stand-in for training logs no network
    return TrialPoint(trial.number, trial.state.name, accuracies, best)


def _parameter(name: str, trials: Sequence[FrozenTrial]) -> Parameter:
    kind = trials[0].distributions[name]
    values = [kind.to_internal_repr(trial.params[name]) for trial in trials]
    if isinstance(kind, CategoricalDistribution):
        return Parameter(name, values, choices=[str(json.loads(str(choice))) for choice in kind.choices])
    return Parameter(name, values, logarithmic=getattr(kind, "log", False))
