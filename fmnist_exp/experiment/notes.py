"""The notes that runs carry in MLflow: what a run is, its result, and the commands that use it, in Markdown."""

from __future__ import annotations

import shlex

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.registry.versions import NAME
from fmnist_exp.tracking.names import Artifact


def of_run(config: ExperimentConfig, outcome: Outcome, kind: str) -> str:
    """Return the note of a run that trained a network; a trial's is short, since its search has one of its own."""
    fitted = outcome.fit
    scores = {"validation": outcome.validation, "test": outcome.test}
    shown = [f"{name} accuracy {scored.accuracy:.2%}" for name, scored in scores.items() if scored]
    shown += [f"{outcome.parameters:,} parameters", f"{len(fitted.epochs)} epochs in {fitted.seconds:.0f} s"]
    what = "Trial" if kind == "trial" else "Run"
    blocks = [f"{what} of the experiment **{config.name}**: {', '.join(shown)}."]
    blocks += _commands({"Run it again": f"fmnist-exp train --experiment runs:/{outcome.run_id}/{Artifact.EXPERIMENT}"})
    if kind != "trial":
        uri = f"models:/{outcome.model_id}"
        blocks += _commands(
            {
                "Load its model in Python": f'mlflow.keras.load_model("{uri}")',
                "Serve its model": f"mlflow models serve --env-manager local -m {uri}",
            }
        )
    return "\n\n".join(blocks) + "\n"


def of_search(config: ExperimentConfig, run_id: str, study: str, result: str, version: str | None) -> str:
    """Return the note of a search's parent run.

    Args:
        config: The experiment with its search.
        run_id: The parent run.
        study: The study's name.
        result: The result of the search, in whole sentences.
        version: The number of the version that was registered; None if there is none.
    """
    blocks = [f"Search of the experiment **{config.name}**, study `{study}`. {result}"]
    experiment = f"runs:/{run_id}/{Artifact.EXPERIMENT}"
    blocks += _commands({"Resume the study": f"fmnist-exp tune --experiment {experiment} --study {shlex.quote(study)}"})
    if version is not None:
        uri = f"models:/{NAME}/{version}"
        blocks += _commands(
            {
                "Load its best model in Python": f'mlflow.pyfunc.load_model("{uri}")',
                "Serve its best model": f"fmnist-exp serve --model {uri}",
                "Evaluate its best model": f"fmnist-exp evaluate --model {uri}",
            }
        )
    return "\n\n".join(blocks) + "\n"


def _commands(commands: dict[str, str]) -> list[str]:
    """Return each command as a block of code below its purpose."""
    return [f"{purpose}:\n\n    {command}" for purpose, command in commands.items()]
