"""The result of one experiment."""

from __future__ import annotations

from dataclasses import dataclass

from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.tracking.names import VersionTag
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.fit import Fit


@dataclass(frozen=True)
class Outcome:
    """The result of a run. `validation` is None without validation images, `test` unless the test set was scored."""

    run_id: str
    model_id: str
    parameters: int
    fit: Fit
    validation: Evaluation | None
    test: Evaluation | None

    def version_tags(self, run: Run, data: FashionMNIST) -> dict[str, object]:
        """Return the tags of a version that is registered from this run."""
        scores = {VersionTag.VAL_ACCURACY: self.validation, VersionTag.TEST_ACCURACY: self.test}
        tags: dict[str, object] = {tag: scored.accuracy for tag, scored in scores.items() if scored}
        return tags | {VersionTag.DATA_DIGEST: data.train.digest, VersionTag.GIT_COMMIT: run.git_commit}
