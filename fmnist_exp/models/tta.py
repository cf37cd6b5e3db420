"""Test-time augmentation: a network that averages its predictions over several views of an image."""

import keras
from keras import KerasTensor, layers

from fmnist_exp.config.schema import ModelConfig


def with_tta(model: keras.Model, config: ModelConfig) -> keras.Model:
    """Return a network of stock layers around `model` that averages its probabilities as `config.averaging` says.

    With `flip` the views are the image and its mirror image. With `flip_shift` there are four more: the image moved one
    pixel down and right, moved one pixel up and left, and the mirror images of both. With `none` it is `model` itself.
    """
    if config.averaging == "none":
        return model
    image = keras.Input((28, 28), dtype="uint8")
    views: list[KerasTensor] = [image]
    if config.averaging == "flip_shift":
        bordered = layers.ZeroPadding2D(1)(layers.Reshape((28, 28, 1))(image))  # (B, 30, 30, 1)
        cuts = [((cut, 2 - cut), (cut, 2 - cut)) for cut in (0, 2)]
        views += [layers.Reshape((28, 28))(layers.Cropping2D(cut)(bordered)) for cut in cuts]  # 2 × (B, 28, 28)
    backwards = list(range(27, -1, -1))
    views += [keras.ops.take(view, backwards, axis=2) for view in views]
    return keras.Model(image, layers.Average()([model(view) for view in views]), name=f"{config.averaging}_averaged")
