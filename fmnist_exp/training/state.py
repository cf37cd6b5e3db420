"""The state of a fit, from which it can be resumed exactly, in one file without pickle."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.data import formats
from fmnist_exp.errors import RequestError

FORMAT = 2  # of the file; raise it when the fields below or the memory of a callback change

NOTES_BYTES = 4 * 2**20  # of the metrics, as JSON; 1,000 epochs have 0.5 MiB

Array = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Memory:
    """The values that a Keras callback remembers from one epoch to the next."""

    numbers: Mapping[str, float | None] = field(default_factory=dict)
    arrays: Sequence[Array] = ()


@dataclass(frozen=True, eq=False)
class State:
    """The state of a fit after some epochs; without arguments, before the first epoch."""

    epochs: tuple[Mapping[str, float], ...] = ()  # the metrics of each
    seconds: float = 0.0  # of fitting so far
    step_seconds: float = 0.0  # the part of them that went into training steps
    stopped: bool = False  # early, because validation did not improve any more
    stopped_by_callback: bool = False
    variables: Sequence[Array] = ()  # of the model, with the states of its random generators
    optimizer: Sequence[Array] = ()
    callbacks: Mapping[str, Memory] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the last epoch is over and no other will follow."""
        return self.stopped or self.stopped_by_callback

    def write(self, file: Path) -> None:
        """Write the state; `read` returns an equal one."""
        groups = {"variables": self.variables, "optimizer": self.optimizer}
        groups |= {f"callbacks/{name}": memory.arrays for name, memory in self.callbacks.items()}
        notes = {name: value for name, value in vars(self).items() if name not in groups}
        notes |= {"format": FORMAT, "callbacks": {name: memory.numbers for name, memory in self.callbacks.items()}}
        content: dict[str, Any] = {"notes": np.frombuffer(json.dumps(notes).encode(), np.uint8)}
        content |= {f"{name}/{i}": array for name, arrays in groups.items() for i, array in enumerate(arrays)}
        np.savez(file, **content)


def read(file: Path) -> State | None:
    """Return the state in a file, or None if it is incomplete or damaged. Raise RequestError for another format."""
    try:
        return _state(formats.read_arrays(file))
    except RequestError:
        raise
    except (OSError, formats.DamagedFileError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _state(arrays: dict[str, Array]) -> State:
    """Return the state that these arrays describe. What it raises if they describe none depends on what is wrong."""
    text = arrays.pop("notes").tobytes()
    if len(text) > NOTES_BYTES:
        raise ValueError("its notes are too long")
    notes = json.loads(text)
    if notes.pop("format", 1) != FORMAT:
        hint = "resume with that version, or start again"
        raise RequestError(f"this checkpoint was written by another version of fmnist_exp; {hint}")
    numbers = notes.pop("callbacks")
    return State(
        **notes | {"epochs": tuple(notes["epochs"])},
        variables=_group(arrays, "variables"),
        optimizer=_group(arrays, "optimizer"),
        callbacks={name: Memory(found, _group(arrays, f"callbacks/{name}")) for name, found in numbers.items()},
    )


def _group(arrays: Mapping[str, Array], name: str) -> list[Array]:
    """Return the arrays `name`/0, `name`/1 and so on."""
    keys = (f"{name}/{position}" for position in itertools.count())
    return [arrays[key] for key in itertools.takewhile(arrays.__contains__, keys)]
