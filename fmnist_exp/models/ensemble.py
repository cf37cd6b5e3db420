"""Several networks asked for one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


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
