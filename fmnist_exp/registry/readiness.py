"""The readiness of a version: its files are verified, its two models agree, and a server with it answers a request."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from mlflow.entities.model_registry import ModelVersion
from numpy.typing import NDArray

from fmnist_exp.backend import inference, setup
from fmnist_exp.errors import WorkError
from fmnist_exp.export import layout, packaging
from fmnist_exp.registry import smoke, versions
from fmnist_exp.registry.private_copy import PrivateCopy
from fmnist_exp.tracking import store
from fmnist_exp.tracking.redact import first_line


@dataclass
class Readiness:
    """The state of a version's files.

    Attributes:
        reasons: the sentences that speak against the version.
        usable: True if the files are verified, and both models in them load and predict.
        difference: largest difference of a probability between the Keras model and its export; NaN if it is unknown.
        smoke: result of the request to MLflow's scoring server.
    """

    reasons: list[str]
    usable: bool = False
    difference: float = float("nan")
    smoke: str = "not sent: refused before"


def examine(version: ModelVersion, samples: NDArray[np.uint8], known: list[str], *, force: bool) -> Readiness:
    """Return the readiness of a version, judged by its probabilities for real images (N, 28, 28).

    No request is sent to a version that reasons speak against, unless `force` is set. `known` are the reasons that are
    known already; they come first among those of the result.
    """
    found = Readiness(list(known))
    try:
        with versions.opened(store.client(), version) as copy:
            served = _compare(found, copy, samples)
            if foreign := layout.foreign_code(copy.folder):
                found.reasons.append(
                    f"no release of fmnist-exp wrote its {', '.join(foreign)}, which runs where MLflow loads the model"
                )
            if force or not found.reasons:
                found.smoke = "failed"
                _check_answer(smoke.request(copy.folder, samples[0]), served[0])
                found.smoke = "answered"
    except WorkError as error:
        if str(error) not in found.reasons:  # the comparison with the champion may have met it before
            found.reasons.append(str(error))
    return found


def _compare(found: Readiness, copy: PrivateCopy, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compare the two models, and return the predictor's probabilities. Raises WorkError if one of them fails."""
    served = copy.predictor().probabilities(images)
    setup.start()
    model = copy.keras()
    try:
        found.difference = float(np.abs(served - inference.predict(model, images)).max())
    except Exception as error:  # a network of another shape fails in ways of its own
        raise WorkError(f"{copy.name} cannot predict: {first_line(error)}") from error
    found.usable = True
    if not found.difference <= packaging.TOLERANCE:
        found.reasons.append(
            f"the exported model differs from its Keras model by {found.difference:.2g} in a probability"
        )
    return served


def _check_answer(row: Mapping[str, object], expected: NDArray[np.float32]) -> None:
    """Raise WorkError if the scoring server's probabilities are not the expected ones, (10,)."""
    try:
        found = np.array([row[f"p{label}"] for label in range(len(expected))], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise WorkError(f"the scoring server's answer lacks probabilities: {str(dict(row))[:200]}") from error
    if not np.abs(found - expected).max() <= packaging.TOLERANCE:
        raise WorkError("the scoring server's probabilities differ from the model's")
