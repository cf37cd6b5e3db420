"""The gate: a challenger must beat champion and logistic regression, be exported correctly, and answer a request.

The first champion has only the logistic regression to beat. A later challenger is compared with it at the end, since a
champion that was promoted with force, or by an earlier release, may be worse than the logistic regression.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from fmnist_exp.config.schema import GateConfig
from fmnist_exp.errors import WorkError
from fmnist_exp.evaluation.comparison import Comparison
from fmnist_exp.figures import canvas
from fmnist_exp.figures import comparison as comparison_figures
from fmnist_exp.registry import agreement, lineage, pairing, readiness, versions
from fmnist_exp.registry.agreement import Agreement
from fmnist_exp.registry.pairing import Floor, Match, Pairing
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Artifact, Tag, VersionTag
from fmnist_exp.tracking.run import Run
from fmnist_exp.training import logistic_regression

FLOOR_ITERATIONS = 50  # of the logistic regression: half of the baseline's, to save time


@dataclass(frozen=True)
class Verdict:
    """The gate's decision on a challenger and the numbers behind it."""

    version: str
    champion: str | None  # the version that it was compared with
    passed: bool
    promoted: bool  # it passed, or it is forced and its files are usable
    sentence: str
    reasons: tuple[str, ...]  # against the challenger
    level: float  # of the test
    challenge: int | None  # number of the challenge, counted from 1 for each champion
    comparison: Comparison | None  # with the champion, or with the logistic regression if there is none
    floor: Comparison | None  # of a challenger that beats the champion, with the logistic regression
    agreement: Agreement | None  # of a refit with the network that was judged in its place
    difference: float  # largest of a probability between the Keras model and its export; NaN if it is unknown
    smoke: str  # result of the request to MLflow's scoring server
    test_accuracy: Mapping[str, str]  # by version, or "unknown"; shown, but no part of the decision
    test_accuracy_texts: Mapping[str, str]  # by version, with intervals; empty where unknown

    def tags(self) -> dict[str, object]:
        """Return the tags of the challenger's version."""
        tags: dict[str, object] = {
            VersionTag.GATE_VERDICT: self.sentence,
            VersionTag.GATE_CHAMPION: self.champion or "none",
            VersionTag.GATE_LEVEL: f"{self.level:.4g}",
            VersionTag.GATE_EXPORT_DIFFERENCE: f"{self.difference:.2g}",
            VersionTag.GATE_SMOKE: self.smoke,
            VersionTag.GATE_CHALLENGER_TEST_ACCURACY: self.test_accuracy[self.version],
        }
        if self.challenge:
            tags[VersionTag.GATE_CHALLENGE] = self.challenge
        if self.champion:
            tags[VersionTag.GATE_CHAMPION_TEST_ACCURACY] = self.test_accuracy[self.champion]
        if self.agreement:
            tags[VersionTag.GATE_AGREEMENT] = round(self.agreement.share, 6)
        if self.comparison:
            numbers = self.comparison.numbers()
            tags |= {f"gate_{name}": value for name, value in numbers.items() if name != "classes"}
        return tags

    def report(self) -> dict[str, object]:
        """Return the content of the verdict's JSON file."""
        report: dict[str, object] = {"version": self.version, "champion": self.champion, "verdict": self.sentence}
        report |= {"passed": self.passed, "promoted": self.promoted, "reasons": self.reasons}
        report |= {"level": self.level, "challenge": self.challenge}
        return report | {
            "export_difference": self.difference if np.isfinite(self.difference) else None,
            "smoke_request": self.smoke,
            "comparison": self.comparison.numbers() if self.comparison else None,
            "comparison_with_the_logistic_regression": self.floor.numbers() if self.floor else None,
            "agreement_of_the_refit": asdict(self.agreement) if self.agreement else None,
            "test_accuracy_shown_but_not_used": self.test_accuracy,
        }


def decide(pair: Pairing, run: Run, config: GateConfig, *, force: bool = False) -> Verdict:
    """Judge the challenger, and write the numbers and the verdict to its version and to `run`. The caller promotes it.

    With `force` the verdict is to promote the challenger, unless its files cannot be verified, or a model in them
    cannot be loaded. The reasons against it are still recorded.
    """
    if not isinstance(pair, pairing.Incomparable):
        pair = pairing.claim(run.client, pair)
    verdict = _judge(pair, config, force)
    with run.artifacts() as folder:
        (folder / "gate").mkdir()
        (folder / Artifact.VERDICT).write_text(json.dumps(verdict.report(), indent=2) + "\n", encoding="utf-8")
        if verdict.comparison:
            verdict.comparison.write_images(folder / Artifact.GATE_IMAGES)
            title = f"Version {verdict.version} against {_opponent(verdict.champion)}"
            canvas.save(folder, Artifact.GATE_COMPARISON, comparison_figures.comparison(verdict.comparison, title))
    tags = verdict.tags() | {VersionTag.GATE_RUN: run.id}
    versions.tag(run.client, pair.challenger, tags, replacing="gate_")
    run.set_tags({Tag.VERSION: verdict.version, Tag.GATE: verdict.sentence})
    return verdict


def _agreement(pair: Pairing, reasons: list[str]) -> Agreement | None:
    """Measure how far a refit agrees with the network that is judged in its place; add what speaks against it."""
    if isinstance(pair, pairing.Incomparable):
        return None  # there are no images on which to compare the two
    try:
        found = agreement.measure(lineage.trace(store.client(), pair.challenger), pair.unseen)
    except WorkError as error:
        if str(error) not in reasons:
            reasons.append(str(error))
        return None
    if found and found.reason:
        reasons.append(found.reason)
    return found


def _judge(pair: Pairing, config: GateConfig, force: bool) -> Verdict:
    opponents = [pair.champion] if pair.champion else []
    reasons, clauses = list[str](), list[str]()
    comparison = _against(pair, config, reasons, clauses)
    agreed = _agreement(pair, reasons)
    floor = _against(pair.floor, config, reasons, clauses) if isinstance(pair, Match) and not reasons else None
    found = readiness.examine(pair.challenger, pair.samples, reasons, force=force)
    promoted = not found.reasons or (force and found.usable)
    sentence = "passed: " + "; ".join([*clauses, *([agreed.sentence] if agreed else [])])
    if found.reasons:
        sentence = ("forced, although " if promoted else "refused: ") + "; ".join(found.reasons)
    return Verdict(
        version=str(pair.challenger.version),
        champion=str(pair.champion.version) if pair.champion else None,
        passed=not found.reasons,
        promoted=promoted,
        sentence=sentence,
        reasons=tuple(found.reasons),
        level=pairing.level(pair, config),
        challenge=None if isinstance(pair, pairing.Incomparable) else pair.challenge,
        comparison=comparison,
        floor=floor,
        agreement=agreed,
        difference=found.difference,
        smoke=found.smoke,
        test_accuracy={
            str(one.version): one.tags.get(VersionTag.TEST_ACCURACY, "unknown") for one in (pair.challenger, *opponents)
        },
        test_accuracy_texts={
            str(one.version): versions.test_accuracy(store.client(), one) for one in (pair.challenger, *opponents)
        },
    )


def _against(pair: Pairing, config: GateConfig, reasons: list[str], clauses: list[str]) -> Comparison | None:
    """Compare the challenger with one opponent; add a clause about what it has shown, or a reason against it."""
    if isinstance(pair, pairing.Incomparable):
        reasons.append(pair.reason)
        return None
    level = pairing.level(pair, config)
    try:
        comparison = _compare(pair)
    except WorkError as error:  # the champion may be the damaged one
        reasons.append(str(error))
        return None
    opponent = _opponent(str(pair.champion.version) if pair.champion else None)
    numbers = _numbers(comparison, level, pair)
    if comparison.p_value < level:
        clauses.append(f"better than {opponent}, {numbers}")
    else:
        reasons.append(f"not shown to be better than {opponent}: {numbers}")
    return comparison


def _compare(pair: Match | Floor) -> Comparison:
    """Let challenger and opponent predict the images that they have not seen. Raises WorkError."""
    model, *others = pair.models if isinstance(pair, Match) else (pair.model,)
    images = pair.unseen.images
    challenger = model.load_predictor().probabilities(images).argmax(axis=1)
    if isinstance(pair, Match):
        opponent = others[0].load_predictor().probabilities(images).argmax(axis=1)
    else:
        opponent = logistic_regression.fit(pair.train, FLOOR_ITERATIONS).predict(images)
    return Comparison(pair.unseen, pair.indices, challenger, opponent)


def _opponent(champion: str | None) -> str:
    return f"version {champion}" if champion else "the logistic regression, which every champion must beat"


def _numbers(comparison: Comparison, level: float, pair: Match | Floor) -> str:
    won, lost, count = int(comparison.won.sum()), int(comparison.lost.sum()), len(comparison.split.labels)
    opponent = "this champion" if isinstance(pair, Match) else "the logistic regression"
    p_value = f"p = {comparison.p_value:.2g} (level {level:.2g}, challenge {pair.challenge} of {opponent})"
    return f"{won} won and {lost} lost of {count:,} images of the gate, {p_value}"
