"""All that a fit needs to go on another time as if it had never stopped, in one file without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.errors import RequestError, WorkError

if TYPE_CHECKING:
    import keras

FORMAT = 2  # of the file; raise it when the fields of State or the memories of a callback change

# what Keras' callbacks remember from epoch to epoch, beside the best weights
MEMORIES = {
    "EarlyStopping": ("wait", "best", "best_epoch"),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
}


@dataclass(frozen=True)
class State:
    """A fit after some epochs. Without arguments: before the first."""

    epochs: tuple[Mapping[str, float], ...] = ()  # what each measured
    seconds: float = 0.0  # of fitting so far
    step_seconds: float = 0.0  # of these in training steps
    stopped: bool = False  # the last epoch is over and no other is wanted
    stopped_by_callback: bool = False
    memories: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # callback → name → value
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # variables/0, …, optimizer/0, …, best/0, …

    def write(self, file: Path) -> None:
        """Write the state; `read` gets back an equal one."""
        notes = {"format": FORMAT, **vars(self)}
        del notes["arrays"]
        content: dict[str, Any] = {**self.arrays, "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8)}
        np.savez(file, **content)

    def group(self, name: str) -> list[NDArray[Any]]:
        """The arrays whose names begin with `name`/, in order."""
        count = sum(key.startswith(f"{name}/") for key in self.arrays)
        return [self.arrays[f"{name}/{position}"] for position in range(count)]


def read(file: Path) -> State | None:
    """Return the state in a file, or None if the file is incomplete: its writer was killed, or the disk was full.

    Raises:
        RequestError: another version of this package wrote the file, in a format that this one does not read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:  # every array has a checksum
                return None
        with np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        notes = json.loads(arrays.pop("notes").tobytes())
    except Exception:  # zipfile, NumPy and JSON have a dozen ways to say that bytes are wrong
        return None
    if notes.pop("format", 1) != FORMAT:
        raise RequestError(
            "this checkpoint was written by another version of fmnist_exp; resume with that version, or start again"
        )
    return State(**notes | {"epochs": tuple(notes["epochs"]), "arrays": arrays})


def keeper(
    start: State, callbacks: Sequence[Any], recorder: Any, tell: Callable[[bool, Callable[[], State]], None]
) -> Any:
    """The Keras callback that puts a fit where `start` was, and offers a checkpoint after each epoch.

    It stands last: Keras' callbacks forget all when a fit begins, and must have heard of an epoch before it is kept.

    Args:
        start: where to go on from.
        callbacks: those before this one, whose memories are part of the state.
        recorder: what was measured so far.
        tell: is called with whether the epoch is the best, and with what makes its state.
    """
    from keras.callbacks import Callback

    class Keeper(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            if start.epochs:
                _restore(start, self.model, callbacks)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            is_best = any(getattr(callback, "best_epoch", None) == epoch for callback in callbacks)
            tell(is_best, lambda: _capture(self.model, callbacks, recorder))

    return Keeper()


def _capture(model: keras.Model, callbacks: Sequence[Any], recorder: Any) -> State:
    from keras import ops

    trained = [array for callback in callbacks for array in getattr(callback, "trained", [])]
    set_aside = dict(zip(map(id, model.trainable_variables), trained, strict=False))  # while averages stand in
    variables = [
        set_aside[id(variable)] if id(variable) in set_aside else ops.convert_to_numpy(variable)
        for variable in model.variables  # with the states of the random generators
    ]
    optimizer = [ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
    best = [array for callback in callbacks for array in getattr(callback, "best_weights", None) or []]
    groups = {"variables": variables, "optimizer": optimizer, "best": best}
    return State(
        epochs=tuple(dict(epoch.metrics) for epoch in recorder.epochs),
        seconds=recorder.seconds(),
        step_seconds=recorder.step_seconds,
        stopped=bool(model.stop_training),
        stopped_by_callback=recorder.stopped,
        memories={
            name: {key: getattr(callback, key) for key in MEMORIES[name]} for name, callback in _remembering(callbacks)
        },
        arrays={f"{name}/{i}": np.asarray(array) for name, arrays in groups.items() for i, array in enumerate(arrays)},
    )


def _restore(state: State, model: keras.Model, callbacks: Sequence[Any]) -> None:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    _assign(model.variables, state.group("variables"))
    _assign(model.optimizer.variables, state.group("optimizer"))
    for name, callback in _remembering(callbacks):
        for key, value in state.memories[name].items():
            setattr(callback, key, value)
        if hasattr(callback, "best_weights"):
            callback.best_weights = state.group("best")


def _assign(variables: Sequence[Any], arrays: Sequence[NDArray[Any]]) -> None:
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        raise WorkError("the state to go on from is of another network; did fmnist_exp or Keras change since?")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _remembering(callbacks: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(type(callback).__name__, callback) for callback in callbacks if type(callback).__name__ in MEMORIES]
