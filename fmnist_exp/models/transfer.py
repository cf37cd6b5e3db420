"""Networks made of others: one image seen from several sides, several networks asked for one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    import keras


def start_warm(model: keras.Model, origin: keras.Model, uri: str) -> int:
    """Give `model` the weights of `origin`, layer by layer from the first, as far as their shapes agree.

    Returns:
        The number of layers with weights that were taken over.

    Raises:
        RequestError: not even the first layers agree.
    """
    pairs = zip(_weighted(model), _weighted(origin), strict=False)
    taken = 0
    for layer, other in pairs:
        if [weight.shape for weight in layer.weights] != [weight.shape for weight in other.weights]:
            break
        layer.set_weights(other.get_weights())
        taken += 1
    if not taken:
        raise RequestError(f"model.warm_start={uri!r}: its first layer has other weights than this model's")
    return taken


def freeze(model: keras.Model, layers: int) -> None:
    """Keep the first so many layers that have weights from being trained. Raises RequestError if none would be left."""
    weighted = _weighted(model)
    if layers and layers >= len(weighted):
        raise RequestError(f"model.frozen={layers}: must be below {len(weighted)}, the model's layers with weights")
    for layer in weighted[:layers]:
        layer.trainable = False


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers with weights, in order, those of networks inside of it in their place."""
    import keras

    found: list[keras.layers.Layer] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _weighted(layer)
        elif layer.weights:
            found.append(layer)
    return found
