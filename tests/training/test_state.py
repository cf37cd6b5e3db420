"""A fit that is interrupted and resumed comes to the same end as one that never stopped, to the last bit."""

import hashlib
import itertools
import json
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.experiments import fit

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.training import state as training_state
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback
from fmnist_exp.training.fit import Fit
from fmnist_exp.training.state import Memory, State

TINY = {
    "training.precision": "float32",
    "model.family": "mlp",
    "model.widths": [16],
    "training.epochs": 4,
    "training.batch_size": 50,  # 12 steps an epoch
    "training.learning_rate": 3e-3,
    "training.steps_per_execution": 1,
}
BUSY = {"model.batch_norm": True, "model.dropout": 0.3, "augmentation.horizontal_flip": True, "augmentation.shift": 2}
FITS: dict[str, dict[str, typing.Any]] = {
    "sgd and one cycle": {
        "training.optimizer": "sgd",
        "training.learning_rate": 0.05,
        "training.schedule": "one_cycle",
        "training.epochs": 3,
    },
    "adam, plateau and patience, with all that is random": {
        **BUSY,
        "training.schedule": "plateau",
        "training.plateau_patience": 1,
        "training.patience": 2,
        "training.learning_rate": 0.03,
        "training.epochs": 9,
    },
    "averaged": {**BUSY, "training.ema": 0.9, "training.monitor": "val_loss"},
    "averaged adamw in bfloat16": {
        "training.optimizer": "adamw",
        "training.weight_decay": 0.01,
        "training.ema": 0.8,
        "training.precision": "bfloat16",
        "training.epochs": 3,
    },
}


class InterruptedFitError(Exception):
    """Raised to interrupt a fit."""


class StateWriter(FitCallback):
    """Write the state after each epoch, and interrupt the fit after epoch `last`."""

    def __init__(self, folder: Path, last: int = 0) -> None:
        self.folder = folder
        self.last = last
        self.epochs: list[Epoch] = []
        self.best: list[int] = []

    def on_epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        return False

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        number = len(self.epochs)
        checkpoint.state().write(self.folder / f"{number}.npz")
        self.best += [number] if checkpoint.is_best else []
        if number == self.last:
            raise InterruptedFitError


def configure(changes: dict[str, typing.Any]) -> ExperimentConfig:
    return files.override(ExperimentConfig(), TINY | changes)


def numbers(epochs: Sequence[Epoch]) -> list[dict[str, float]]:
    return [{k: v for k, v in epoch.metrics.items() if k != "epoch_seconds"} for epoch in epochs]


def fingerprint(model: typing.Any) -> str:
    return hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()


def resume(config: ExperimentConfig, data: FashionMNIST, folder: Path, *cuts: int) -> tuple[typing.Any, Fit]:
    """Resume from the state after the first of `cuts`, interrupt the fit after the others, and fit to the end."""
    for before, after in itertools.pairwise(cuts):
        with pytest.raises(InterruptedFitError):
            fit(config, data, [StateWriter(folder, after)], training_state.read(folder / f"{before}.npz"))
    return fit(config, data, [], training_state.read(folder / f"{cuts[-1]}.npz"))


@pytest.mark.parametrize(("name", "cuts"), [*((name, (2,)) for name in FITS), (next(iter(FITS)), (1, 2))])
def test_a_resumed_fit_equals_an_unbroken_one(small, tmp_path, name, cuts):
    config = configure(FITS[name])
    model, unbroken = fit(config, small, [writer := StateWriter(tmp_path)])
    assert len(unbroken.epochs) > max(cuts)
    assert writer.best[-1] == unbroken.best.number
    again, result = resume(config, small, tmp_path, *cuts)
    assert numbers(result.epochs) == numbers(unbroken.epochs)
    assert result.best.number == unbroken.best.number
    assert fingerprint(again) == fingerprint(model)


def test_the_best_weights_from_before_the_cut_are_restored(small, tmp_path):
    """At this rate the weights change, but no answer does: of equally good epochs, the first one is the best."""
    config = configure({"training.optimizer": "sgd", "training.learning_rate": 1e-6})
    model, unbroken = fit(config, small, [StateWriter(tmp_path)])
    assert unbroken.best.number == 1
    assert len({numbers([epoch])[0]["val_loss"] for epoch in unbroken.epochs}) > 1
    for cut in (2, 4):  # in the middle, and after the last epoch
        writer = StateWriter(tmp_path / "again")
        writer.folder.mkdir(exist_ok=True)
        state = training_state.read(tmp_path / f"{cut}.npz")
        again, result = fit(config, small, [writer], state)
        assert fingerprint(again) == fingerprint(model)
        assert result.best == unbroken.best
        assert list(writer.epochs) == list(result.epochs)  # callbacks receive the earlier ones too
        assert result.seconds > state.seconds > sum(e["epoch_seconds"] for e in state.epochs)


def test_a_fit_that_stopped_early_is_not_trained_further(small, tmp_path):
    config = configure({"training.patience": 1, "training.learning_rate": 0.03, "training.epochs": 20})
    model, unbroken = fit(config, small, [StateWriter(tmp_path)])
    assert len(unbroken.epochs) < 20
    again, result = resume(config, small, tmp_path, len(unbroken.epochs))
    assert [e.metrics for e in result.epochs] == [e.metrics for e in unbroken.epochs]
    assert fingerprint(again) == fingerprint(model)


def test_keeping_states_changes_no_number(small, tmp_path):
    config = configure(BUSY | {"training.epochs": 2})
    (kept, first), (plain, second) = fit(config, small, [StateWriter(tmp_path)]), fit(config, small, [])
    assert numbers(first.epochs) == numbers(second.epochs)
    assert fingerprint(kept) == fingerprint(plain)


STATE = State(
    epochs=({"val_loss": 0.1}, {"val_loss": 1 / 3}),
    seconds=1.5,
    stopped=True,
    variables=[np.arange(12, dtype=np.float32) + i for i in range(11)],
    optimizer=[np.array(7, np.int64)],
    callbacks={"early_stopping": Memory({"wait": 1, "best": None}, [np.eye(2)]), "plateau": Memory({"wait": 2})},
)


def test_a_state_is_read_as_it_was_written(tmp_path):
    STATE.write(tmp_path / "state.npz")
    found = training_state.read(tmp_path / "state.npz")
    assert found is not None
    for name in ("epochs", "seconds", "step_seconds", "stopped", "stopped_by_callback"):
        assert getattr(found, name) == getattr(STATE, name)
    assert found.callbacks.keys() == STATE.callbacks.keys()
    pairs = [(found.variables, STATE.variables), (found.optimizer, STATE.optimizer)]
    for name, memory in STATE.callbacks.items():
        assert found.callbacks[name].numbers == memory.numbers
        pairs.append((found.callbacks[name].arrays, memory.arrays))
    for read, written in pairs:
        assert [array.dtype for array in read] == [array.dtype for array in written]
        assert all(np.array_equal(array, other) for array, other in zip(read, written, strict=True))


def test_a_state_that_is_not_whole_is_none(tmp_path):
    file = tmp_path / "state.npz"
    STATE.write(file)
    content = file.read_bytes()
    for end in range(0, len(content), 7):
        file.write_bytes(content[:end])
        assert training_state.read(file) is None
    array = content.index(STATE.variables[0].tobytes())
    file.write_bytes(content[:array] + b"?" + content[array + 1 :])
    assert training_state.read(file) is None
    assert training_state.read(tmp_path / "nothing.npz") is None


def test_a_state_of_another_format_is_refused(tmp_path):
    """The first format had no number, and one name that is no longer in use."""
    notes = {"epochs": [], "seconds": 0.0, "stopped": False, "stopped_by_listener": False}
    np.savez(tmp_path / "state.npz", notes=np.frombuffer(json.dumps(notes).encode(), np.uint8))
    with pytest.raises(RequestError, match="another version of fmnist_exp"):
        training_state.read(tmp_path / "state.npz")


def test_a_state_holds_no_pickle(tmp_path):
    np.savez(tmp_path / "state.npz", notes=np.array([{}], object))
    assert training_state.read(tmp_path / "state.npz") is None


def test_the_state_of_another_network_is_refused(small, tmp_path):
    fit(configure({"training.epochs": 1}), small, [StateWriter(tmp_path)])
    with pytest.raises(WorkError, match="another network"):
        fit(configure({"model.widths": [17]}), small, [], training_state.read(tmp_path / "1.npz"))
