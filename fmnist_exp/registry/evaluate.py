"""The evaluation of a version as one library call: one run with numbers, figures and model card, and tags."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.errors import RequestError
from fmnist_exp.evaluation import calibration, intervals, metrics, robustness
from fmnist_exp.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fmnist_exp.export import signing
from fmnist_exp.figures import canvas
from fmnist_exp.figures import robustness as robustness_figures
from fmnist_exp.figures import run as run_figures
from fmnist_exp.registry import lineage, model_card, versions
from fmnist_exp.tracking import access, scorings, store
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Artifact, Metric, Param, Tag, VersionTag


def evaluate(
    model: str,
    config: ExperimentConfig,
    *,
    temperature: bool = False,
    run_id: str | None = None,
    status: Callable[[str], None] = lambda text: None,
) -> tuple[model_card.Assessment, str]:
    """Score a version on the test set and on corrupted copies, write its model card, and return scores and run id.

    Only the data source and the seed of `config` are used; the seed is that of the corruptions. With `temperature`, a
    temperature is fitted on validation images. The results go to a new run, or to `run_id`. `status` is called with the
    name of each step before it begins.

    Raises:
        RequestError: there is no such version, it was trained on other images, or no image is left to fit the
            temperature on.
        WorkError: the model cannot be loaded or fails.
    """
    signing.check()
    client = access.connect()
    subject = lineage.trace(client, versions.find_uri(client, model))
    data = subject.served.split(dataset.load(config.data, config.seed))
    if temperature and not len(data.validation.images):
        raise RequestError(
            f"--temperature: version {subject.number} was trained on all images, and the temperature of another network"
            " does not fit it; leave the option out"
        )
    name = f"evaluate version {subject.number}"
    with runs.closing(runs.start_run(client, "evaluate", name, "", run_id=run_id)) as run:
        found = assess(subject, data, config.seed, temperature=temperature, status=status)
        write(client, found, data, run)
    return found, run.id


def assess(
    subject: lineage.Lineage, data: dataset.FashionMNIST, seed: int, *, temperature: bool, status: Callable[[str], None]
) -> model_card.Assessment:
    """Score a version on every test image, clean and corrupted; `seed` is the random seed of the corruptions.

    With `temperature`, the version's own temperature is fitted on the validation images, which it must not have seen.
    `status` is called with the name of each step before it begins. Raises WorkError if the model cannot be loaded or
    fails.
    """
    status("clean test images")
    with versions.opened(store.client(), subject.version) as copy:
        predictor = copy.predictor()
    probabilities, labels = predictor.probabilities(data.test.images), data.test.labels
    fitted = None
    if temperature:
        held_out = predictor.probabilities(data.validation.images)
        fitted = robustness.fit_temperature((held_out, data.validation.labels), (probabilities, labels))
    value = fitted.value if fitted else None
    return model_card.Assessment(
        lineage=subject,
        seed=seed,
        test=metrics.evaluate(probabilities, labels, "test"),
        probabilities=probabilities,
        clean=robustness.level(probabilities, labels, value),
        corrupted=robustness.score_corrupted(predictor.probabilities, data.test.images, labels, seed, value, status),
        temperature=fitted,
    )


def write(client: MlflowClient, found: model_card.Assessment, data: dataset.FashionMNIST, run: runs.Run) -> None:
    """Write numbers, figures and model card to `run`, and a summary to the version."""
    version = found.lineage.version
    run.log_params({Param.MODEL: versions.uri(version), Param.VERSION: version.version, Param.SEED: found.seed})
    note = (
        f"Evaluation of version {version.version}: {found.test.text} of the test images and"
        f" {found.mean_text} of their corrupted copies are classified correctly; {intervals.EXPLANATION}."
        f" `{Artifact.MODEL_CARD}` has the details.\n"
    )
    scored = scorings.entry(run)
    run.set_tags({Tag.VERSION: version.version, Tag.NOTE: note, Tag.TEST_SCORED: scored})
    run.log_inputs(data, {"test": data.test})
    if found.lineage.model_id:
        run.log_input_model(found.lineage.model_id)
    with run.artifacts() as folder:
        _write_numbers(folder, found)
        _write_figures(folder, found, data)
        model_card.write(folder, found, data, versions.aliases(client), run.id)
    _log_metrics(run, found, data)
    summary: dict[str, object] = {
        VersionTag.EVALUATED_BY: run.id,
        VersionTag.MODEL_CARD: f"runs:/{run.id}/{Artifact.MODEL_CARD}",
        VersionTag.CORRUPTED_ACCURACY: round(found.mean.accuracy, 6),
        VersionTag.TEST_ECE: round(found.test.ece, 6),
        **scorings.of_version(scored, versions.find(client, str(version.version)).tags),
    }
    if VersionTag.TEST_ACCURACY not in version.tags:
        summary[VersionTag.TEST_ACCURACY] = found.test.accuracy
    if found.temperature:
        summary[VersionTag.TEMPERATURE] = round(found.temperature.value, 6)
    versions.tag(client, version, summary)
    accuracies = {"test accuracy": found.test.text, "on corrupted copies of the test images": found.mean_text}
    versions.describe(client, version, accuracies, run.id)


def _log_metrics(run: runs.Run, found: model_card.Assessment, data: dataset.FashionMNIST) -> None:
    """Log the metrics of each corruption with the severity as step: the MLflow UI draws them as curves."""
    model_id = found.lineage.model_id
    run.log_metrics(found.test.metrics(), 0, model_id, data.test)
    for name, levels in found.corrupted.items():
        accuracy = Metric.CORRUPTION_ACCURACY.format(corruption=name)
        ece = Metric.CORRUPTION_ECE.format(corruption=name)
        for severity, level in zip((0, *SEVERITIES), (found.clean, *levels), strict=True):
            run.log_metrics({accuracy: level.accuracy, ece: level.ece}, severity, model_id)
    summary: dict[str, float] = {Metric.CORRUPTED_ACCURACY: found.mean.accuracy, Metric.CORRUPTED_ECE: found.mean.ece}
    if fitted := found.temperature:
        summary |= {Metric.TEMPERATURE: fitted.value, Metric.TEST_ECE_SCALED: fitted.test[1]}
        summary |= {Metric.VAL_ECE: fitted.validation[0], Metric.VAL_ECE_SCALED: fitted.validation[1]}
    run.log_metrics(summary, 0, model_id)


def _write_numbers(folder: Path, found: model_card.Assessment) -> None:
    (folder / "evaluation").mkdir()
    report = {"test": found.test.report(), "temperature": vars(found.temperature) if found.temperature else None}
    (folder / Artifact.REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "robustness").mkdir()
    with (folder / Artifact.ROBUSTNESS_TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("corruption", "severity", "accuracy", "confidence", "ece", "scaled_ece"))
        for name, levels in {"clean": (found.clean,), **found.corrupted}.items():
            for severity, level in enumerate(levels, 0 if name == "clean" else 1):
                table.writerow((name, severity, level.accuracy, level.confidence, level.ece, level.scaled_ece))


def _write_figures(folder: Path, found: model_card.Assessment, data: dataset.FashionMNIST) -> None:
    images, labels = data.test.images, data.test.labels
    one = images[:1]
    samples = {name: [one[0], *(corrupt(name, one, s, found.seed)[0] for s in SEVERITIES)] for name in CORRUPTIONS}
    panels = {"as trained": (calibration.reliability(found.probabilities, labels), found.test.ece)}
    if fitted := found.temperature:
        scaled = calibration.scale(found.probabilities, fitted.value)
        panels[f"at temperature {fitted.value:.2f}"] = (calibration.reliability(scaled, labels), fitted.test[1])
    figures = {
        Artifact.CONFUSION_MATRIX: run_figures.confusion_matrix(found.test),
        Artifact.MISTAKES: run_figures.mistakes(images, labels, found.probabilities),
        Artifact.RELIABILITY: robustness_figures.reliability(panels),
        Artifact.ROBUSTNESS_CURVES: robustness_figures.robustness(found.clean, found.corrupted),
        Artifact.ROBUSTNESS_SAMPLES: robustness_figures.corrupted_samples(samples),
    }
    for name, figure in figures.items():
        canvas.save(folder, name, figure)
