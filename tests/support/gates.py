"""Versions of small networks, fitted on some thousand real images in seconds, and their way through the gate."""

from pathlib import Path

import pytest

from fmnist_exp import cli
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig, GateConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.registry import champions, gate, pairing, versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.training import fit as fitting

WEAK = {"model.family": "linear", "training.epochs": 1, "training.learning_rate": 2e-3}
STRONG = {"model.family": "mlp", "model.widths": [64], "training.epochs": 2, "training.learning_rate": 3e-3}


def fit_on_few(model, config, data, callbacks):
    few = Split("train", data.train.images[:6000], data.train.labels[:6000])
    return fitting.fit(model, config, FashionMNIST(few, data.validation, data.test, data.source), callbacks)


def new_version(client, fields):
    config = override(ExperimentConfig(), {"training.precision": "float32", **fields})
    data = dataset.load(config.data, config.seed)
    with runs.closing(runs.start_run(client, "train", "version", "version")) as run:
        outcome = experiment_run.run_experiment(config, data, run, score_test=True, fit=fit_on_few)
    return versions.register(client, outcome.model_id, run.id, {"test_accuracy": outcome.test.accuracy})


def again(client, version, run_id=None, **tags):
    """Return another version of the same model."""
    tags["sha256"] = version.tags["sha256"]
    return client.create_model_version(versions.NAME, version.source, run_id or version.run_id, tags=tags)


def logged_split(client, changes):
    """Return a run that says that its model was trained on images that are split in this way."""
    config = override(ExperimentConfig(), changes)
    with runs.closing(runs.start_run(client, "train", "another split", "")) as run:
        runs.log_start(run, config, dataset.load(config.data, config.seed))
    return run


def decide(client, version, data, config=None, **how):
    """Return the verdict on a version, which becomes champion if it passes, and the run that has it."""
    config = config or GateConfig()
    pair = pairing.pair(client, version, config, data, **how)
    with runs.closing(runs.start_run(client, "evaluate", "gate", "")) as run:
        verdict = gate.decide(pair, run, config, **how)
        if verdict.promoted:
            champions.set_champion(client, version, verdict.sentence)
    return verdict, run


def champion(client):
    return versions.aliases(client).get(versions.CHAMPION)


def artifact(client, run, name):
    return Path(client.download_artifacts(run.id, name)).read_text(encoding="utf-8")


def promote(*arguments):
    """Return the exit code of the command `promote`."""
    with pytest.raises(SystemExit) as end:
        cli.run(["promote", *arguments])
    return end.value.code
