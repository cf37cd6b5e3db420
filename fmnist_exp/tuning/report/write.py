"""Write the files that a study logs to its parent run: tables of its trials, its figures and the winner."""

from pathlib import Path

from matplotlib import rc_context
from optuna import Study

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.figures import canvas
from fmnist_exp.tracking import escape
from fmnist_exp.tracking.names import Artifact, Metric, Param, Tag
from fmnist_exp.tracking.run import Run
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.report import interactive, page, points, static
from fmnist_exp.tuning.space import SearchSpace

COLUMNS = ("number", "state", "value", "datetime_start", "duration", "params", "user_attrs")


def log(study: Study, space: SearchSpace, parent: Run, images: int) -> None:
    """Log the experiment, the study's files and the winner on the parent run.

    `images` is the number of validation images that the trials were measured on.
    """
    with parent.artifacts() as folder:
        (folder / Artifact.EXPERIMENT).write_text(space.config.to_yaml(), encoding="utf-8")
        write(study, space.search, folder, images)
    if not (ranked := studies.ranked(study)):
        return
    best, record = ranked[0], TrialRecord.of(ranked[0])
    parent.set_tags({Tag.BEST_TRIAL: best.number, Tag.BEST_RUN: record.run_id})
    if front := objectives.front(study):
        parent.set_tags({Tag.FRONT: " ".join(str(trial.number) for trial in front)})
    parent.log_metrics({Metric.BEST_VAL_ACCURACY: record.val_accuracy, Metric.BEST_TRIAL: best.number})
    settings = space.settings(space.apply(best.params))
    parent.log_params({Param.BEST.format(field=name): value for name, value in settings.items()})


def write(study: Study, search: SearchConfig, folder: Path, images: int) -> None:
    """Write study/trials.csv, study/figures.html and a PNG per figure below `folder`.

    For several objectives there are also study/pareto_front.csv and a column `value_NAME` for each objective. `images`
    is the number of validation images that the trials were measured on.
    """
    target = folder / "study"
    target.mkdir()
    table = study.trials_dataframe(attrs=COLUMNS).drop(columns="user_attrs_val_accuracies", errors="ignore")
    table = table.rename(columns={f"values_{i}": f"value_{name}" for i, name in enumerate(search.objectives)})
    table = table.map(escape.cell).rename(columns=escape.cell)
    table.to_csv(target / "trials.csv", index=False)
    if front := [trial.number for trial in objectives.front(study)]:
        table.set_index("number").loc[front].to_csv(target / "pareto_front.csv")
    contents = points.prepare(study, search.objectives, images)
    with rc_context({"text.parse_math": False}):  # a dollar sign in a name is no formula
        for name, content in contents.items():
            getattr(static, name)(content).savefig(target / f"{name}.png", dpi=canvas.DPI)
    figures = {
        name: getattr(interactive, name)(content).update_layout(title=points.title(name, content))
        for name, content in contents.items()
    }
    history = contents.get("history")
    lead = history.lead if isinstance(history, points.Trials) else "No trial has ended with a model."
    text = page.render(f"Study {study.study_name}", lead, figures, points.notes(contents, study))
    (target / "figures.html").write_text(text, encoding="utf-8")
