"""The gate: a challenger must be better than the champion, be exported correctly, and answer a request."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from numpy.typing import NDArray

from fmnist_exp.config.schema import DataConfig, GateConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.evaluation.comparison import Comparison, seen_by_neither
from fmnist_exp.figures import canvas
from fmnist_exp.figures import comparison as comparison_figures
from fmnist_exp.registry import lineage, readiness, versions
from fmnist_exp.registry.lineage import TrainedModel
from fmnist_exp.tracking.names import Artifact, Tag, VersionTag
from fmnist_exp.tracking.run import Run

SAMPLES = 256  # real images on which the exported model must agree with its Keras model


@dataclass(frozen=True, eq=False)
class NoChampion:
    """A challenger at a time when there is no champion yet."""

    challenger: ModelVersion
    samples: NDArray[np.uint8]  # (N, 28, 28) any real images


@dataclass(frozen=True, eq=False)
class Incomparable:
    """A challenger that cannot be compared with the champion."""

    challenger: ModelVersion
    samples: NDArray[np.uint8]  # (N, 28, 28)
    champion: ModelVersion
    reason: str


@dataclass(frozen=True, eq=False)
class Match:
    """A challenger and a champion that can be compared on images that neither was trained on."""

    challenger: ModelVersion
    samples: NDArray[np.uint8]  # (N, 28, 28)
    champion: ModelVersion
    models: tuple[TrainedModel, TrainedModel]  # those of challenger and champion that may see the images
    unseen: Split
    indices: NDArray[np.intp]  # (N,) of these images in the challenger's validation set


Pairing = NoChampion | Incomparable | Match


@dataclass(frozen=True)
class Verdict:
    """The gate's decision on a challenger and the numbers behind it."""

    version: str
    champion: str | None  # the version that it was compared with
    passed: bool
    promoted: bool  # it passed, or it is forced and its files are usable
    sentence: str
    reasons: tuple[str, ...]  # against the challenger
    comparison: Comparison | None
    difference: float  # largest of a probability between the Keras model and its export; NaN if it is unknown
    smoke: str  # result of the request to MLflow's scoring server
    test_accuracy: Mapping[str, str]  # by version, where known; shown, but no part of the decision

    def tags(self, config: GateConfig) -> dict[str, object]:
        """Return the tags of the challenger's version."""
        tags: dict[str, object] = {
            VersionTag.GATE_VERDICT: self.sentence,
            VersionTag.GATE_CHAMPION: self.champion or "none",
            VersionTag.GATE_LEVEL: config.level,
            VersionTag.GATE_EXPORT_DIFFERENCE: f"{self.difference:.2g}",
            VersionTag.GATE_SMOKE: self.smoke,
            VersionTag.GATE_CHALLENGER_TEST_ACCURACY: self.test_accuracy[self.version],
        }
        if self.champion:
            tags[VersionTag.GATE_CHAMPION_TEST_ACCURACY] = self.test_accuracy[self.champion]
        if self.comparison:
            numbers = self.comparison.numbers()
            tags |= {f"gate_{name}": value for name, value in numbers.items() if name != "classes"}
        return tags

    def report(self, config: GateConfig) -> dict[str, object]:
        """Return the content of the verdict's JSON file."""
        report: dict[str, object] = {"version": self.version, "champion": self.champion, "verdict": self.sentence}
        report |= {"passed": self.passed, "promoted": self.promoted, "reasons": self.reasons, "level": config.level}
        return report | {
            "export_difference": self.difference if np.isfinite(self.difference) else None,
            "smoke_request": self.smoke,
            "comparison": self.comparison.numbers() if self.comparison else None,
            "test_accuracy_shown_but_not_used": self.test_accuracy,
        }


def pair(
    client: MlflowClient, challenger: ModelVersion, config: GateConfig, data: FashionMNIST, *, force: bool = False
) -> Pairing:
    """Return the challenger with the champion and the images on which the gate compares them.

    These are the challenger's validation images that neither model was trained on; `data` may be split in any way.
    Raises RequestError if the two cannot be compared; with `force`, Incomparable is returned instead.
    """
    default = data.resplit(DataConfig(), seed=0)
    samples = default.validation.images[:SAMPLES]
    champion = versions.version_by_alias(client, versions.CHAMPION)
    if champion is None:
        return NoChampion(challenger, samples)
    try:
        models = lineage.trace(client, challenger).held_out, lineage.trace(client, champion).held_out
        own, other = (model.split(data) for model in models)
        indices = seen_by_neither(own.validation, own.train, other.train)
        if len(indices) < config.min_images:
            raise RequestError(
                f"versions {challenger.version} and {champion.version} share {len(indices):,} validation images that"
                f" neither was trained on, and gate.min_images requires {config.min_images:,}; train with the same seed"
                " and data.validation_fraction, or promote with --force"
            )
    except RequestError as error:
        if not force:
            raise
        return Incomparable(challenger, samples, champion, str(error))
    unseen = Split("validation", own.validation.images[indices], own.validation.labels[indices])
    return Match(challenger, samples, champion, models, unseen, indices)


def decide(pairing: Pairing, run: Run, config: GateConfig, *, force: bool = False) -> Verdict:
    """Judge the challenger, and write the numbers and the verdict to its version and to `run`. The caller promotes it.

    With `force` the verdict is to promote the challenger, unless its files cannot be verified, or a model in them
    cannot be loaded. The reasons against it are still recorded.
    """
    verdict = _judge(pairing, config, force)
    with run.artifacts() as folder:
        (folder / "gate").mkdir()
        (folder / Artifact.VERDICT).write_text(json.dumps(verdict.report(config), indent=2) + "\n", encoding="utf-8")
        if verdict.comparison:
            verdict.comparison.write_images(folder / Artifact.GATE_IMAGES)
            title = f"Version {verdict.version} against version {verdict.champion}"
            canvas.save(folder, Artifact.GATE_COMPARISON, comparison_figures.comparison(verdict.comparison, title))
    tags = verdict.tags(config) | {VersionTag.GATE_RUN: run.id}
    versions.tag(run.client, pairing.challenger, tags, replacing="gate_")
    run.set_tags({Tag.VERSION: verdict.version, Tag.GATE: verdict.sentence})
    return verdict


def _judge(pairing: Pairing, config: GateConfig, force: bool) -> Verdict:
    reasons = [pairing.reason] if isinstance(pairing, Incomparable) else []
    comparison = None
    if isinstance(pairing, Match):
        try:
            comparison = _compare(pairing)
            if not comparison.p_value < config.level:
                reasons.append(f"not shown to be better: {_numbers(comparison, config)}")
        except WorkError as error:  # the champion may be the damaged one
            reasons.append(str(error))
    found = readiness.examine(pairing.challenger, pairing.samples, reasons, force=force)
    reasons = found.reasons
    opponents = [] if isinstance(pairing, NoChampion) else [pairing.champion]
    champion = str(opponents[0].version) if opponents else None
    promoted = not reasons or (force and found.usable)
    return Verdict(
        version=str(pairing.challenger.version),
        champion=champion,
        passed=not reasons,
        promoted=promoted,
        sentence=_sentence(champion, comparison, reasons, config, promoted),
        reasons=tuple(reasons),
        comparison=comparison,
        difference=found.difference,
        smoke=found.smoke,
        test_accuracy={
            str(one.version): one.tags.get(VersionTag.TEST_ACCURACY, "unknown")
            for one in (pairing.challenger, *opponents)
        },
    )


def _compare(match: Match) -> Comparison:
    """Let both models predict the images that they have not seen. Raises WorkError."""
    probabilities = (model.load_predictor().probabilities(match.unseen.images) for model in match.models)
    return Comparison(match.unseen, match.indices, *(one.argmax(axis=1) for one in probabilities))


def _sentence(
    champion: str | None, comparison: Comparison | None, reasons: list[str], config: GateConfig, promoted: bool
) -> str:
    if reasons:
        return ("forced, although " if promoted else "refused: ") + "; ".join(reasons)
    if comparison is None:
        return "passed: there was no champion"
    return f"passed: better than version {champion}, {_numbers(comparison, config)}"


def _numbers(comparison: Comparison, config: GateConfig) -> str:
    won, lost, count = int(comparison.won.sum()), int(comparison.lost.sum()), len(comparison.split.labels)
    p_value = f"p = {comparison.p_value:.2g} (level {config.level:g})"
    return f"{won} won and {lost} lost of {count:,} validation images, {p_value}"
