"""The result of a search, as the library call returns it and as people read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fmnist_exp.evaluation import intervals
from fmnist_exp.registry.versions import Registration
from fmnist_exp.tuning.callback import TrialSummary
from fmnist_exp.tuning.retention import Retention

Status = Literal["completed", "interrupted"]


@dataclass(frozen=True)
class SearchResult:
    """A search that ended. `status` is "interrupted" after Ctrl-C; the same request resumes the search then."""

    status: Status
    study: str
    run_id: str  # of the parent run
    ranked: tuple[TrialSummary, ...]  # trials with a model, the best one first
    states: Mapping[str, int]  # number of trials for each of COMPLETE, PRUNED and FAIL
    front: tuple[int, ...]  # numbers of the trials on the Pareto front; empty with a single objective
    test_accuracy: float | None = None  # of the winner; None if it was not registered, or not scored
    test_images: int = 0  # of the data set
    final_accuracy: float | None = None  # on the validation images, of the final fit that was registered
    gain: str = ""  # what the search gained over the experiment's own setting, in a sentence
    registration: Registration | None = None
    retention: Retention | None = None  # None without `search.keep`

    @property
    def tested(self) -> str:
        """The test accuracy of the winner with its 95% interval; empty if it was not scored."""
        return "" if self.test_accuracy is None else intervals.text(self.test_accuracy, self.test_images)

    @property
    def final(self) -> str:
        """The validation accuracy of the final fit with its 95% interval; empty if no final fit was registered."""
        return "" if self.final_accuracy is None else intervals.text(self.final_accuracy, self.ranked[0].images)

    @property
    def lead(self) -> str:
        """A sentence on how many trials may be as good as the most accurate one; empty if there is no other."""
        images = max((trial.images for trial in self.ranked), default=0)
        return intervals.lead([trial.val_accuracy for trial in self.ranked], images)

    @property
    def text(self) -> str:
        """The result in whole sentences, for the note of the search's run."""
        states = ", ".join(f"{count} {state.lower()}" for state, count in self.states.items())
        found = [f"Trials: {states}"]
        if self.ranked:
            found.append(f"highest validation accuracy {self.ranked[0].accuracy}, {intervals.EXPLANATION}")
        if self.final:
            found.append(f"validation accuracy of the final fit {self.final}")
        if self.tested:
            found.append(f"test accuracy of the winner {self.tested}")
        ended = "It was interrupted. " if self.status == "interrupted" else ""
        return " ".join(filter(None, [f"{ended}{'; '.join(found)}.", self.lead, self.gain]))
