"""Logistic regression on the pixels, with scikit-learn: the baseline that every model must beat."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fmnist_exp.data.dataset import Split
from fmnist_exp.models.blocks import PIXEL_DEVIATION, PIXEL_MEAN

PENALTY = 0.01  # scikit-learn's C, the inverse of the L2 penalty's weight
ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted logistic regression on images that are scaled as the Keras models scale them."""

    weights: NDArray[np.float32]  # (784, 10)
    bias: NDArray[np.float32]  # (10,)
    iterations: int

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.intp]:
        """Return the most probable class of each image, (N,)."""
        return np.asarray((_pixels(images) @ self.weights + self.bias).argmax(axis=1), np.intp)


def fit(train: Split, iterations: int = ITERATIONS) -> Logistic:
    """Fit the logistic regression by L-BFGS, and stop after `iterations` of its steps if it has not converged."""
    estimator = LogisticRegression(C=PENALTY, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # accuracy no longer rises after this many iterations
        estimator.fit(_pixels(train.images), train.labels)
    return Logistic(estimator.coef_.T, estimator.intercept_, int(estimator.n_iter_.max()))


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as rows of scaled pixels, (N, 784)."""
    scaled = images.reshape(len(images), -1).astype(np.float32) / 255
    return np.asarray((scaled - PIXEL_MEAN) / PIXEL_DEVIATION, np.float32)
