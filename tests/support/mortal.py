"""A trial that really trains, and whose worker is killed once: workers find it here by its name."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback
from fmnist_exp.tuning.workers import trial
from fmnist_exp.tuning.workers.messages import TrialResult

KEPT = 2  # states, when the worker is killed at the end of the next epoch
FITTED = "fitted"  # a file of all epochs that were computed, by any process


class _KillsOnce(FitCallback):
    """Notes the epochs, and kills its process before the third state, if none of this folder was killed before."""

    def __init__(self) -> None:
        self.epoch = 0

    def on_epoch(self, epoch: Epoch) -> bool:
        self.epoch = epoch.number
        return False

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        with open(FITTED, "a") as file:  # `on_epoch` also gets the epochs of the state from which a fit continues
            file.write(f"{self.epoch} ")
        if self.epoch == KEPT + 1 and not Path("killed").exists():
            Path("killed").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


def objective(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    return trial.train(config, data, run, [*callbacks, _KillsOnce()])
