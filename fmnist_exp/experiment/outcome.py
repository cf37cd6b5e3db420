"""The result of one experiment, and the Markdown notes that explain a run and the use of its model in MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.evaluation import intervals
from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.registry.versions import NAME
from fmnist_exp.tracking import escape, scorings
from fmnist_exp.tracking.names import Artifact, Tag, VersionTag
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.fit import Fit


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    run_id: str
    model_id: str
    parameters: int
    fit: Fit
    validation: Evaluation | None  # None without validation images
    test: Evaluation | None  # None unless the test set was scored

    def version_tags(self, run: Run, data: FashionMNIST) -> dict[str, object]:
        """Return the tags of a version that is registered from this run."""
        scores = {VersionTag.VAL_ACCURACY: self.validation, VersionTag.TEST_ACCURACY: self.test}
        tags: dict[str, object] = {tag: scored.accuracy for tag, scored in scores.items() if scored}
        if self.test:
            tags |= scorings.of_version(run.tag(Tag.TEST_SCORED), {})
        return tags | {VersionTag.DATA_DIGEST: data.train.digest, VersionTag.GIT_COMMIT: run.git_commit}

    def note(self, config: ExperimentConfig, kind: str) -> str:
        """Return the note of the run. The note of a trial is short, since its search has a note too."""
        scores = {"validation": self.validation, "test": self.test}
        shown = [f"{name} accuracy {scored.text}" for name, scored in scores.items() if scored]
        epochs = "1 epoch" if len(self.fit.epochs) == 1 else f"{len(self.fit.epochs)} epochs"
        shown += [f"{self.parameters:,} parameters", f"{epochs} in {self.fit.seconds:.0f} s"]
        what = "Trial" if kind == "trial" else "Run"
        again = f"fmnist-exp train --experiment runs:/{self.run_id}/{Artifact.EXPERIMENT}"
        commands = {"Run it again": again}
        if kind != "trial":
            if not self.test:
                commands["Score its recipe on the test set, once it is finished"] = f"{again} --score_test true"
            uri = f"models:/{self.model_id}"
            commands["Load its model in Python"] = f'mlflow.keras.load_model("{uri}")'
            commands["Serve its model"] = f"mlflow models serve --env-manager local -m {uri}"
        explained = f"; {intervals.EXPLANATION}" if self.validation or self.test else ""
        first = f"{what} of the experiment **{escape.markdown(config.name)}**: {', '.join(shown)}{explained}."
        return _note(first, commands)


def search_note(config: ExperimentConfig, study: str, result: str, resume: str, version: str | None) -> str:
    """Return the note of a search's parent run, from its result in whole sentences and the command that resumes it."""
    commands = {"Resume the study": resume}
    if version is not None:
        uri = f"models:/{NAME}/{version}"
        commands["Load its best model in Python"] = f'mlflow.pyfunc.load_model("{uri}")'
        commands["Serve its best model"] = f"fmnist-exp serve --model {uri}"
        commands["Evaluate its best model"] = f"fmnist-exp evaluate --model {uri}"
    name = escape.markdown(config.name)
    return _note(f"Search of the experiment **{name}**, study **{escape.markdown(study)}**. {result}", commands)


def baselines_note(config: ExperimentConfig, outcomes: Mapping[str, Outcome]) -> str:
    """Return the note of the baselines' parent run."""
    what, name = "validation", escape.markdown(config.name)
    scored = {each: outcome.validation for each, outcome in outcomes.items()}
    if any(outcome.test for outcome in outcomes.values()):
        what, scored = "test", {each: outcome.test for each, outcome in outcomes.items()}
    scores = [f"{each} {found.text}" for each, found in scored.items() if found]
    result = f"Their {what} accuracies, {intervals.EXPLANATION}: {', '.join(scores)}."
    first = f"Baselines of the experiment **{name}**. {result}"
    return _note(first, {"Run them again": "fmnist-exp baseline"})


def _note(first: str, commands: Mapping[str, str]) -> str:
    """Return a paragraph, and each command as a block of code below its purpose."""
    blocks = [f"{purpose}:\n\n    {escape.line(command)}" for purpose, command in commands.items()]
    return "\n\n".join([first, *blocks]) + "\n"
