"""Test-time augmentation: one network asked about several views of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmnist_exp.config.schema import ModelConfig

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
