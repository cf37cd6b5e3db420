"""Ensembles: one network that averages the predictions of several trained networks."""

from collections.abc import Sequence

import keras


def average(members: Sequence[keras.Model]) -> keras.Model:
    """Return one network that computes the mean of the members' probabilities (B, 10) and is not trained further.

    The members are renamed `member_0`, `member_1`, …, since the layers of a network must have different names.
    """
    image = keras.Input((28, 28), dtype="uint8")
    for position, member in enumerate(members):
        member.name = f"member_{position}"
    mean = keras.layers.Average()([member(image) for member in members])
    model = keras.Model(image, mean, name="ensemble")
    model.trainable = False
    return model
