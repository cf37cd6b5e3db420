"""The files that a study leaves on its parent run: tables of its trials, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.figures import canvas
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning.report import interactive, points, static

if TYPE_CHECKING:
    from optuna import Study

COLUMNS = ("number", "state", "value", "datetime_start", "duration", "params", "user_attrs")


def write(study: Study, search: SearchConfig, folder: Path) -> None:
    """Write study/trials.csv, study/figures.html and a PNG per figure below `folder`.

    A search with several objectives also leaves study/pareto_front.csv, and a column `value_NAME` for each objective.
    """
    target = folder / "study"
    target.mkdir()
    table = study.trials_dataframe(attrs=COLUMNS).drop(columns="user_attrs_val_accuracies", errors="ignore")
    table = table.rename(columns={f"values_{i}": f"value_{name}" for i, name in enumerate(search.objectives)})
    table.to_csv(target / "trials.csv", index=False)
    if front := [trial.number for trial in objectives.front(study)]:
        table.set_index("number").loc[front].to_csv(target / "pareto_front.csv")
    contents = points.prepare(study, search.objectives)
    for name, content in contents.items():
        static.FIGURES[name](content).savefig(target / f"{name}.png", dpi=canvas.DPI)
    (target / "figures.html").write_text(interactive.compose(study.study_name, contents), encoding="utf-8")
