"""Networks made of others: one image seen from several sides, several networks asked for one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmnist_exp.config import ModelConfig
from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    import keras


def averaged(model: keras.Model, config: ModelConfig) -> keras.Model:
    """`model` asked about an image and its mirror image, and with `flip_shift` about both moved by a pixel too.

    The mean of the probabilities, in one network of stock layers around `model`.
    """
    import keras
    from keras import layers

    if config.averaging == "none":
        return model
    image = keras.Input((28, 28), dtype="uint8")
    views: list[Any] = [image]
    if config.averaging == "flip_shift":
        bordered = layers.ZeroPadding2D(1)(layers.Reshape((28, 28, 1))(image))  # (B, 30, 30, 1)
        cuts = [((cut, 2 - cut), (cut, 2 - cut)) for cut in (0, 2)]
        views += [layers.Reshape((28, 28))(layers.Cropping2D(cut)(bordered)) for cut in cuts]
    backwards = list(range(27, -1, -1))
    views += [keras.ops.take(view, backwards, axis=2) for view in views]
    return keras.Model(image, layers.Average()([model(view) for view in views]), name=f"{config.averaging}_averaged")


def ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """The mean of what the members answer, as one network that is not trained any more."""
    import keras
    from keras import layers

    image = keras.Input((28, 28), dtype="uint8")
    for position, member in enumerate(members):
        member.name = f"member_{position}"
    model = keras.Model(image, layers.Average()([member(image) for member in members]), name="ensemble")
    model.trainable = False
    return model


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
