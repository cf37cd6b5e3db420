"""Exchange a network's layers for faster ones, where the backend has them."""

import keras

from fmnist_exp.backend.setup import on_tensorflow


def accelerate(model: keras.Model) -> keras.Model:
    """Return the same network with fresh weights and with TensorFlow's own layers where those are faster than Keras'.

    The weights have the same order and shapes in both, so `set_weights` can copy them. If Keras runs on JAX, or no
    layer of the network has a faster one, `model` itself is returned.
    """
    if not on_tensorflow():
        return model
    from fmnist_exp.backend.tensorflow_layers import FASTER  # late: it imports TensorFlow

    if not any(type(layer) in FASTER for layer in model.layers):
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return FASTER.get(type(layer), type(layer)).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)
