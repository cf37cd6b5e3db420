"""The surrogate of LCBench: the learning curve of any setting on any task. Its README is beside the model.

Only NumPy and ONNX Runtime are imported, since searches of other packages use this module in their own environment.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

EPOCHS = 51  # of a full trial: the surrogate's epochs 2 to 52; its epoch 1 is the state before training
DEVELOP = (
    *("126025", "126029", "167083", "167149", "167161", "167181", "167185", "167200", "168329", "168331"),
    *("168868", "168910", "189862", "189866", "189905", "189909", "3945"),
)
FOLDER = Path(os.environ.get("LCBENCH") or Path(__file__).resolve().parents[2].parent / "shared" / "lcbench")
SAMPLE = 4000  # random settings, whose worst and best accuracies are the ends of a task's scale
ACCURACY = 1  # column of the model's outputs
Array = NDArray[np.float64]
Setting = Mapping[str, float]


@dataclass(frozen=True)
class Parameter:
    """A searched number; `log` says that it is searched on a logarithmic scale."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def value(self, unit: float) -> float:
        """Return the value at a position from 0 to 1."""
        if self.log:
            value = float(np.exp(np.log(self.low) + unit * np.log(self.high / self.low)))
        else:
            value = self.low + unit * (self.high - self.low)
        return float(round(value)) if self.whole else min(max(value, self.low), self.high)


SPACE = {  # in the order of the model's input, after the epoch
    "batch_size": Parameter(16, 512, log=True, whole=True),
    "learning_rate": Parameter(1e-4, 1e-1, log=True),
    "momentum": Parameter(0.1, 0.99),
    "weight_decay": Parameter(1e-5, 1e-1),
    "num_layers": Parameter(1, 5, whole=True),
    "max_units": Parameter(64, 1024, log=True, whole=True),
    "max_dropout": Parameter(0.0, 1.0),
}


class MissingSurrogate(Exception):  # noqa: N818 — it is a message to the user
    """The folder of the surrogate lacks a file."""


class Surrogate:
    """The surrogate of one task.

    Args:
        task: number of the task at OpenML.
        folder: the folder with model.onnx and encoding.json.

    Raises:
        MissingSurrogate: the folder lacks them.
    """

    def __init__(self, task: str, folder: Path = FOLDER) -> None:
        self.task = task
        self._session, codes = _load(folder)
        self._code = codes[task]

    def curve(self, setting: Setting) -> Array:
        """Return the validation accuracies of a full trial, as fractions; shape (EPOCHS,)."""
        rows = np.tile([0.0, *(setting[name] for name in SPACE)], (EPOCHS, 1))
        rows[:, 0] = np.arange(2, EPOCHS + 2)
        return self._accuracies(rows)

    def scale(self) -> tuple[float, float]:
        """Return the worst and the best final accuracy of SAMPLE random settings, as fractions."""
        generator = np.random.default_rng(0)
        settings = [random_setting(generator) for _ in range(SAMPLE)]
        rows = np.array([[EPOCHS + 1, *(setting[name] for name in SPACE)] for setting in settings])
        final = self._accuracies(rows)
        return float(final.min()), float(final.max())

    def _accuracies(self, rows: Array) -> Array:
        inputs = {"x_cat": np.full((len(rows), 1), self._code, np.int32), "x_cont": rows.astype(np.float32)}
        return np.asarray(self._session.run(None, inputs)[0])[:, ACCURACY].astype(float) / 100


def random_setting(generator: np.random.Generator) -> dict[str, float]:
    """Return a random setting."""
    return {
        name: parameter.value(unit) for (name, parameter), unit in zip(SPACE.items(), generator.random(7), strict=True)
    }


def tasks(kind: str, folder: Path = FOLDER) -> list[str]:
    """Return the tasks of a kind, develop or report; any other kind is the number of a task.

    Raises:
        MissingSurrogate: the folder lacks a file of the surrogate, or the surrogate lacks the task.
    """
    known = set(_load(folder)[1]) - {"#na#"}
    kinds = {"develop": list(DEVELOP), "report": sorted(known - set(DEVELOP))}
    if kind not in kinds and kind not in known:
        raise MissingSurrogate(f"the surrogate has no task {kind}; take develop, report, or one of {sorted(known)}")
    return kinds.get(kind, [kind])


@functools.cache
def _load(folder: Path) -> tuple[onnxruntime.InferenceSession, dict[str, int]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        codes = json.loads((folder / "encoding.json").read_text(encoding="utf-8"))["OpenML_task_id"]
        model = (folder / "model.onnx").read_bytes()
    except OSError as error:
        raise MissingSurrogate(
            f"{folder} has no {Path(error.filename).name}; name the folder of LCBench's model.onnx and encoding.json"
            " with --surrogate or the variable LCBENCH"
        ) from error
    return onnxruntime.InferenceSession(model, options), codes
