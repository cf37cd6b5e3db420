"""The story of `evaluate`: a version on the test set and on corrupted copies of it, written to one run and its card."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.evaluation import calibration, robustness
from fmnist_exp.evaluation import metrics as scoring
from fmnist_exp.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fmnist_exp.evaluation.robustness import Temperature
from fmnist_exp.figures import canvas
from fmnist_exp.figures import robustness as robustness_figures
from fmnist_exp.figures import run as run_figures
from fmnist_exp.registry import lineage, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from fmnist_exp.data.dataset import FashionMNIST
    from fmnist_exp.registry.lineage import Lineage
    from fmnist_exp.tracking.run import Run

from fmnist_exp.registry.assessment import Assessment


def assess(
    subject: Lineage, data: FashionMNIST, seed: int, *, temperature: bool, tell: Callable[[str], None]
) -> Assessment:
    """Put every test image, clean and corrupted, to the version's predictor.

    Args:
        subject: the version.
        data: its images.
        seed: of the corruptions.
        temperature: fit one on validation images that the model was not trained on.
        tell: hears what is being done.

    Raises:
        WorkError: the model cannot be loaded or does not answer.
    """
    tell("clean test images")
    ask = lineage.open_version(subject.version)
    probabilities = ask(data.test.images)
    labels = data.test.labels
    test = scoring.evaluate(probabilities, labels, "test")
    fitted = _fit_temperature(subject, data, probabilities) if temperature else None
    value = fitted.value if fitted else None
    corrupted = robustness.score_corrupted(ask, data.test.images, labels, seed, value, tell)
    clean = robustness.level(probabilities, labels, value)
    return Assessment(subject, seed, test, probabilities, clean, corrupted, fitted)


def write(client: MlflowClient, found: Assessment, data: FashionMNIST, run: Run) -> None:
    """Write numbers, figures and model card to `run`, and where they are on the version."""
    from fmnist_exp.registry import model_card

    version = found.lineage.version
    run.log_params(
        {"model": f"models:/{versions.NAME}/{version.version}", "version": version.version, "seed": found.seed}
    )
    run.set_tags({"fmnist.version": version.version})
    run.log_inputs(data, {"test": data.test})
    if found.lineage.model_id:
        run.log_input_model(found.lineage.model_id)
    with run.artifacts() as folder:
        _write_numbers(folder, found)
        _write_figures(folder, found, data)
        model_card.write(folder, model_card.compose(found, data, versions.aliases(client), run.id))
    _log_metrics(run, found, data)
    summary: dict[str, object] = {"evaluated_by": run.id, "model_card": f"runs:/{run.id}/model_card.html"}
    summary |= {"corrupted_accuracy": round(found.mean.accuracy, 6), "test_ece": round(found.test.ece, 6)}
    summary |= {"temperature": round(found.temperature.value, 6)} if found.temperature else {}
    versions.tag(client, version, summary)
    if not version.description or version.description.startswith(model_card.TITLE):  # a person's text stays
        versions.describe(client, version, model_card.summary(found, run.id))


def _fit_temperature(subject: Lineage, data: FashionMNIST, test: NDArray[np.float32]) -> Temperature:
    """Of a model fitted again on all images: from the model of the run that it was fitted again from."""
    held_out = lineage.open_held_out(subject)(data.validation.images)
    return robustness.fit_temperature((held_out, data.validation.labels), (test, data.test.labels))


def _log_metrics(run: Run, found: Assessment, data: FashionMNIST) -> None:
    """A corruption's metrics have its severity as step, so that the UI draws them as curves."""
    model_id = found.lineage.model_id
    run.log_metrics(found.test.metrics(), 0, model_id, data.test)
    for name, levels in found.corrupted.items():
        for severity, level in zip((0, *SEVERITIES), (found.clean, *levels), strict=True):
            values = {f"{name}_accuracy": level.accuracy, f"{name}_ece": level.ece}
            run.log_metrics(values, severity, model_id)
    run.log_metrics({"corrupted_accuracy": found.mean.accuracy, "corrupted_ece": found.mean.ece}, 0, model_id)
    if fitted := found.temperature:
        values = {"temperature": fitted.value, "val_ece": fitted.validation[0], "val_ece_scaled": fitted.validation[1]}
        run.log_metrics({**values, "test_ece_scaled": fitted.test[1]}, 0, model_id)


def _write_numbers(folder: Path, found: Assessment) -> None:
    (folder / "evaluation").mkdir()
    report = {"test": found.test.report(), "temperature": vars(found.temperature) if found.temperature else None}
    (folder / "evaluation" / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "robustness").mkdir()
    with (folder / "robustness" / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("corruption", "severity", "accuracy", "confidence", "ece", "scaled_ece"))
        for name, levels in {"clean": (found.clean,), **found.corrupted}.items():
            for severity, level in enumerate(levels, 0 if name == "clean" else 1):
                table.writerow((name, severity, level.accuracy, level.confidence, level.ece, level.scaled_ece))


def _write_figures(folder: Path, found: Assessment, data: FashionMNIST) -> None:
    images, labels = data.test.images, data.test.labels
    one = images[:1]
    samples = {name: [one[0], *(corrupt(name, one, s, found.seed)[0] for s in SEVERITIES)] for name in CORRUPTIONS}
    panels = {"as trained": (calibration.reliability(found.probabilities, labels), found.test.ece)}
    if fitted := found.temperature:
        scaled = calibration.scale(found.probabilities, fitted.value)
        panels[f"at temperature {fitted.value:.2f}"] = (calibration.reliability(scaled, labels), fitted.test[1])
    drawn = {
        "evaluation/confusion_matrix.png": run_figures.confusion_matrix(found.test),
        "evaluation/mistakes.png": run_figures.mistakes(images, labels, found.probabilities),
        "evaluation/reliability.png": robustness_figures.reliability(panels),
        "robustness/curves.png": robustness_figures.robustness(found.clean, found.corrupted),
        "robustness/samples.png": robustness_figures.corrupted_samples(samples),
    }
    for name, figure in drawn.items():
        canvas.save(folder, name, figure)
