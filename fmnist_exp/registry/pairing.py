"""The pairing of a challenger with its opponents, and the images on which the gate compares it with each of them."""

from dataclasses import dataclass, replace

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from numpy.typing import NDArray

from fmnist_exp.config.schema import DataConfig, GateConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import RequestError
from fmnist_exp.evaluation.comparison import level_of, seen_by_neither
from fmnist_exp.registry import challenges, lineage, versions
from fmnist_exp.registry.lineage import TrainedModel

SAMPLES = 256  # real images on which the exported model must agree with its Keras model


@dataclass(frozen=True, eq=False)
class Incomparable:
    """A challenger that cannot be compared with the champion, or with the logistic regression if there is none."""

    challenger: ModelVersion
    samples: NDArray[np.uint8]  # (N, 28, 28) any real images
    champion: ModelVersion | None
    reason: str


@dataclass(frozen=True, eq=False)
class Floor:
    """A challenger and the logistic regression, which every champion must beat, also the first one."""

    challenger: ModelVersion
    samples: NDArray[np.uint8]  # (N, 28, 28)
    model: TrainedModel  # that of the challenger that may see the images
    unseen: Split
    indices: NDArray[np.intp]  # (N,) of these images in the challenger's gate split
    train: Split  # images that the challenger was trained on, for the logistic regression
    challenge: int  # number of the challenge, counted from 1 for the logistic regression
    champion: None = None


@dataclass(frozen=True, eq=False)
class Match:
    """A challenger and a champion that can be compared on images that neither was trained or chosen on."""

    challenger: ModelVersion
    samples: NDArray[np.uint8]  # (N, 28, 28)
    champion: ModelVersion
    models: tuple[TrainedModel, TrainedModel]  # those of challenger and champion that may see the images
    unseen: Split
    indices: NDArray[np.intp]  # (N,) of these images in the challenger's gate split
    challenge: int  # number of the challenge, counted from 1 for each champion
    floor: Floor


Pairing = Floor | Incomparable | Match


def pair(
    client: MlflowClient, challenger: ModelVersion, config: GateConfig, data: FashionMNIST, *, force: bool = False
) -> Pairing:
    """Return the challenger with its opponents and the images on which the gate compares them.

    `data` may be split in any way. Raises RequestError if the two cannot be compared; with `force`, Incomparable is
    returned instead.
    """
    samples = data.resplit(DataConfig(), seed=0).validation.images[:SAMPLES]
    champion = versions.version_by_alias(client, versions.CHAMPION)
    try:
        model = lineage.trace(client, challenger).held_out
        own = model.split(data)
        if not len(own.gate.images):
            raise RequestError(
                f"version {challenger.version} was trained with data.gate_fraction=0, so there is no image on which the"
                " gate can judge it; train it again with data.gate_fraction=0.1, or promote with --force"
            )
        unseen = _select(own.gate, seen_by_neither(own.gate, own.train, own.validation))
        challenge = challenges.number(client, challenger, challenges.FLOOR)
        floor = Floor(challenger, samples, model, *unseen, own.train, challenge)
        if champion is None:
            return floor
        opponent = lineage.trace(client, champion).held_out
        indices = _common(own, opponent.split(data))
        if len(indices) < config.min_images:
            raise RequestError(
                f"versions {challenger.version} and {champion.version} share {len(indices):,} images of the gate that"
                f" neither was trained or chosen on, and gate.min_images requires {config.min_images:,}; train both"
                " experiments again with an equal data.gate_fraction, or promote with --force"
            )
    except RequestError as error:
        if not force:
            raise
        return Incomparable(challenger, samples, champion, str(error))
    challenge = challenges.number(client, challenger, str(champion.version))
    return Match(challenger, samples, champion, (model, opponent), *_select(own.gate, indices), challenge, floor)


def claim(client: MlflowClient, pairing: Floor | Match) -> Floor | Match:
    """Return the pairing with the numbers of its challenges, which are from now on those of the challenger."""
    number = challenges.claim(client, pairing.challenger, challenges.FLOOR)
    if isinstance(pairing, Floor):
        return replace(pairing, challenge=number)
    floor = replace(pairing.floor, challenge=number)
    number = challenges.claim(client, pairing.challenger, str(pairing.champion.version))
    return replace(pairing, challenge=number, floor=floor)


def level(pairing: Pairing, config: GateConfig) -> float:
    """Return the level at which the gate tests the challenger against its opponent."""
    return config.level if isinstance(pairing, Incomparable) else level_of(pairing.challenge, config.level)


def _common(own: FashionMNIST, other: FashionMNIST) -> NDArray[np.intp]:
    """Return the indices of the images in the challenger's gate split on which a champion may be judged, too.

    These are the images in the gate splits of both. A champion of an earlier release has no gate split. It is judged on
    images that chose it, those of its validation set, which favours it: such a comparison promotes no more versions.
    """
    chose = [other.validation] if len(other.gate.images) else []
    return seen_by_neither(own.gate, own.train, own.validation, other.train, *chose)


def _select(split: Split, indices: NDArray[np.intp]) -> tuple[Split, NDArray[np.intp]]:
    return Split(split.name, split.images[indices], split.labels[indices]), indices
