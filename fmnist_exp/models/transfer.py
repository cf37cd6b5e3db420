"""Transfer: the weights that a network takes from another one, and the layers that are not trained."""

import keras

from fmnist_exp.errors import RequestError


def copy_weights(model: keras.Model, origin: keras.Model, uri: str) -> int:
    """Copy the weights of `origin` to `model`, layer by layer from the first, until their shapes differ.

    Return the number of layers whose weights were copied. Raises RequestError, which names the URI of `origin`, if the
    first layers already differ.
    """
    copied = 0
    for layer, other in zip(_weighted(model), _weighted(origin), strict=False):
        if [weight.shape for weight in layer.weights] != [weight.shape for weight in other.weights]:
            break
        layer.set_weights(other.get_weights())
        copied += 1
    if not copied:
        raise RequestError(
            f"model.warm_start={uri!r}: the weights of its first layer have other shapes than this model's"
        )
    return copied


def freeze(model: keras.Model, layers: int) -> None:
    """Exclude the first `layers` layers that have weights from training. Raises RequestError if none would be left."""
    weighted = _weighted(model)
    if layers and layers >= len(weighted):
        raise RequestError(f"model.frozen={layers}: must be below {len(weighted)}, the model's layers with weights")
    for layer in weighted[:layers]:
        layer.trainable = False


def _weighted(model: keras.Model) -> list[keras.Layer]:
    """Return the layers that have weights, in order. A nested network is replaced by its layers."""
    found: list[keras.Layer] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _weighted(layer)
        elif layer.weights:
            found.append(layer)
    return found
