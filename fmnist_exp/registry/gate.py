"""The gate from challenger to champion: shown to be better, exported faithfully, answering when served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.backend import setup
from fmnist_exp.config.schema import DataConfig, ExperimentConfig, GateConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import Split
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.evaluation.comparison import Comparison, seen_by_neither
from fmnist_exp.export import packaging
from fmnist_exp.figures import canvas
from fmnist_exp.figures import comparison as comparison_figures
from fmnist_exp.registry import champions, lineage, smoke, versions
from fmnist_exp.registry.versions import Registration
from fmnist_exp.tracking import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from fmnist_exp.registry.lineage import Lineage
    from fmnist_exp.tracking.run import Run

SAMPLES = 256  # real images on which the exported model must agree with its Keras model


@dataclass(frozen=True, eq=False)
class Match:
    """What the gate will look at. The first version has no `champion` to meet; `obstacle` says why `unseen` is None."""

    version: ModelVersion
    samples: NDArray[np.uint8]  # (N, 28, 28) any real images
    champion: ModelVersion | None = None
    lineages: tuple[Lineage, Lineage] | None = None  # of challenger and champion
    unseen: Split | None = None  # validation images that neither of them was trained on
    places: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))  # of them, in the validation set
    obstacle: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the gate found. `reasons` are against the challenger."""

    version: str
    champion: str | None  # that it was compared with
    passed: bool
    crowned: bool
    sentence: str
    reasons: tuple[str, ...]
    comparison: Comparison | None
    difference: float  # largest of a probability, between the Keras model and its export; NaN if it was not found
    smoke: str
    test: Mapping[str, str]  # version → accuracy on the test set, where known; shown, never used


def plan(
    client: MlflowClient, version: ModelVersion, config: GateConfig, source: str | None, *, anyhow: bool = False
) -> Match:
    """Find the champion and the images that neither model was trained on.

    Args:
        client: of the store.
        version: the challenger.
        config: how many images it takes.
        source: folder of the images; None: find them.
        anyhow: return a match with an `obstacle` where the two cannot be compared.

    Raises:
        RequestError: the two cannot be compared, and why.
    """
    samples = dataset.load(DataConfig(source=source), seed=0).validation.images[:SAMPLES]
    champion = versions.version_by_alias(client, versions.CHAMPION)
    if champion is None:
        return Match(version, samples)
    try:
        challenger, holder = lineage.trace(client, version), lineage.trace(client, champion)
        unseen, places = _unseen(challenger, holder, config, source)
    except RequestError as error:
        if not anyhow:
            raise
        return Match(version, samples, champion, obstacle=str(error))
    return Match(version, samples, champion, (challenger, holder), unseen, places)


def decide(client: MlflowClient, match: Match, run: Run, config: GateConfig, *, force: bool = False) -> Verdict:
    """Judge the challenger; write numbers and verdict on the version and to `run`; make it champion if it passed.

    With `force` it becomes champion whatever the verdict, which is written down.
    """
    verdict = _judge(match, config, force)
    with run.artifacts() as folder:
        (folder / "gate").mkdir()
        text = json.dumps(_report(verdict, config), indent=2)
        (folder / "gate" / "verdict.json").write_text(text + "\n", encoding="utf-8")
        if verdict.comparison:
            verdict.comparison.write_images(folder / "gate" / "images.csv")
            title = f"Version {verdict.version} against version {verdict.champion}"
            figure = comparison_figures.comparison(verdict.comparison, title)
            canvas.save(folder, "gate/comparison.png", figure)
    versions.tag(client, match.version, {**_tags(verdict, config), "gate_run": run.id}, "gate_")
    run.set_tags({"fmnist.version": verdict.version, "fmnist.gate": verdict.sentence})
    if verdict.crowned:
        champions.crown(client, match.version, verdict.sentence)
    return verdict


def enter(model_id: str, run_id: str, tags: Mapping[str, object], run: Run, config: ExperimentConfig) -> Registration:
    """Register the logged model of `run_id`, and let it try the gate; `run` gets the comparison."""
    version = versions.register(run.client, model_id, run_id, {"run_id": run_id, **tags})
    run.set_tags({"fmnist.version": version.version})
    return challenge(run.client, version, run, config)


def challenge(client: MlflowClient, version: ModelVersion, run: Run, config: ExperimentConfig) -> Registration:
    """Let a version that was just registered try the gate. That it does not pass is no failure."""
    number = str(version.version)
    if versions.aliases(client).get(versions.CHAMPION) == number:
        return Registration(number, True, "it was the champion before")
    match = plan(client, version, config.gate, config.data.source, anyhow=True)
    verdict = decide(client, match, run, config.gate)
    return Registration(number, verdict.crowned, verdict.sentence)


def _unseen(
    challenger: Lineage, champion: Lineage, config: GateConfig, source: str | None
) -> tuple[Split, NDArray[np.intp]]:
    own = lineage.load_images(challenger, source)
    places = seen_by_neither(own.validation, own.train, lineage.load_images(champion, source).train)
    if len(places) < config.min_images:
        raise RequestError(
            f"versions {challenger.number} and {champion.number} have {len(places):,} validation images that neither"
            f" was trained on, and gate.min_images asks for {config.min_images:,}; train with the same seed and"
            " data.validation_fraction, or promote with --force"
        )
    return Split("validation", own.validation.images[places], own.validation.labels[places]), places


def _judge(match: Match, config: GateConfig, force: bool) -> Verdict:
    reasons = [match.obstacle] if match.obstacle else []
    comparison, difference, served = None, float("nan"), "not sent: refused before"
    try:
        comparison = _compare(match)
        if comparison and not comparison.p_value < config.level:
            reasons.append(f"not shown to be better: {_numbers(comparison, config)}")
        difference = _difference(match)
        if not difference <= packaging.TOLERANCE:
            reasons.append(f"the exported model differs from its Keras model by {difference:.2g} in a probability")
        if not reasons or force:
            served = _smoke(match)
    except WorkError as error:
        reasons.append(str(error))
        served = "failed" if difference <= packaging.TOLERANCE else served
    passed, champion = not reasons, str(match.champion.version) if match.champion else None
    return Verdict(
        version=str(match.version.version),
        champion=champion,
        passed=passed,
        crowned=passed or force,
        sentence=_sentence(champion, comparison, reasons, config, force),
        reasons=tuple(reasons),
        comparison=comparison,
        difference=difference,
        smoke=served,
        test={str(v.version): v.tags.get("test_accuracy", "unknown") for v in (match.version, match.champion) if v},
    )


def _compare(match: Match) -> Comparison | None:
    """Raises WorkError if one of the two cannot be asked."""
    if match.unseen is None or match.lineages is None:
        return None
    asked = [lineage.open_held_out(one)(match.unseen.images).argmax(axis=1) for one in match.lineages]
    return Comparison(match.unseen, match.places, *asked)


def _difference(match: Match) -> float:
    """Between the version's two faces. Raises WorkError."""
    served = lineage.open_version(match.version)(match.samples)
    setup.start()
    import mlflow

    try:
        model = mlflow.keras.load_model(str(versions.files(match.version)))
        return float(np.abs(served - np.asarray(model(match.samples))).max())
    except Exception as error:  # whatever is wrong with a model's files
        raise WorkError(f"the Keras model cannot be used: {redact.first_line(error)}") from error


def _smoke(match: Match) -> str:
    """Ask MLflow's scoring server, and compare with the predictor in this process. Raises WorkError."""
    row = smoke.request(versions.files(match.version), match.samples[0])
    expected = lineage.open_version(match.version)(match.samples[:1])[0]
    try:
        found = np.array([float(row[f"p{label}"]) for label in range(len(expected))])
    except (KeyError, TypeError, ValueError) as error:
        raise WorkError(f"the scoring server's answer lacks probabilities: {str(dict(row))[:200]}") from error
    if not np.abs(found - expected).max() <= packaging.TOLERANCE:
        raise WorkError("the scoring server's probabilities differ from the model's")
    return "answered"


def _sentence(
    champion: str | None, comparison: Comparison | None, reasons: list[str], config: GateConfig, force: bool
) -> str:
    if reasons:
        return ("forced, although " if force else "refused: ") + "; ".join(reasons)
    if comparison is None:
        return "passed: there was no champion"
    return f"passed: better than version {champion}, {_numbers(comparison, config)}"


def _numbers(comparison: Comparison, config: GateConfig) -> str:
    won, lost, count = int(comparison.won.sum()), int(comparison.lost.sum()), len(comparison.split.labels)
    p_value = f"p = {comparison.p_value:.2g} (level {config.level:g})"
    return f"{won} won and {lost} lost of {count:,} validation images, {p_value}"


def _tags(verdict: Verdict, config: GateConfig) -> dict[str, object]:
    tags: dict[str, object] = {
        "gate_verdict": verdict.sentence,
        "gate_champion": verdict.champion or "none",
        "gate_level": config.level,
        "gate_export_difference": f"{verdict.difference:.2g}",
        "gate_smoke": verdict.smoke,
    }
    if verdict.comparison:
        numbers = verdict.comparison.numbers()
        tags |= {f"gate_{name}": value for name, value in numbers.items() if name != "classes"}
    tags["gate_challenger_test_accuracy"] = verdict.test[verdict.version]
    return tags | ({"gate_champion_test_accuracy": verdict.test[verdict.champion]} if verdict.champion else {})


def _report(verdict: Verdict, config: GateConfig) -> dict[str, Any]:
    return {
        "version": verdict.version,
        "champion": verdict.champion,
        "verdict": verdict.sentence,
        "passed": verdict.passed,
        "crowned": verdict.crowned,
        "reasons": verdict.reasons,
        "level": config.level,
        "export_difference": verdict.difference if np.isfinite(verdict.difference) else None,
        "smoke_request": verdict.smoke,
        "comparison": verdict.comparison.numbers() if verdict.comparison else None,
        "test_accuracy_shown_but_not_used": verdict.test,
    }
