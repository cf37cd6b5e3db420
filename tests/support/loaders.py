"""Every entry point that loads a registered or logged model, as a function that takes a forged one."""

import numpy as np

from fmnist_exp.cli import serve
from fmnist_exp.config import files
from fmnist_exp.config.schema import GateConfig
from fmnist_exp.data.dataset import Split
from fmnist_exp.errors import WorkError
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.resolve import resolve
from fmnist_exp.registry import evaluate, gate, lineage, pairing
from fmnist_exp.tracking import run as runs
from support.forgeries import CONFIG

ALL = "serve, evaluate, promote, promote --force, warm start, ensemble, scoring of a run"


def try_promote(hostile, force=False):
    client = hostile.victim.client
    version, data, few = hostile.fresh(), hostile.victim.data, hostile.victim.few
    model = lineage.TrainedModel(hostile.uri, client.get_run(hostile.run_id), version)
    easy = Split("train", few.train.images[:50], few.train.labels[:50])  # for the logistic regression
    unseen = Split("gate", data.gate.images[:500], data.gate.labels[:500])
    pair = pairing.Floor(version, unseen.images[:20], model, unseen, np.arange(500), easy, challenge=1)
    with runs.closing(runs.start_run(client, "evaluate", "promote", "")) as run:
        verdict = gate.decide(pair, run, GateConfig(), force=force)
    if not verdict.promoted:
        raise WorkError(verdict.sentence)
    return verdict


def try_evaluate(hostile):
    subject = lineage.trace(hostile.victim.client, hostile.fresh())
    evaluate.assess(subject, hostile.victim.few, 0, temperature=False, status=lambda text: None)


def try_warm_start(hostile):
    config = files.override(CONFIG, {"model.warm_start": f"runs:/{hostile.run_id}"})
    resolve(config, hostile.victim.data, hostile.victim.client)


def try_ensemble(hostile):
    config = files.override(CONFIG, {"model.members": [hostile.uri, f"runs:/{hostile.run_id}"]})
    experiment_run._build(config, runs.Run(hostile.victim.client, hostile.run_id))


def try_score(hostile):
    client = hostile.victim.client
    with runs.closing(runs.start_run(client, "tune", "parent", "")) as parent:
        run = runs.Run(client, hostile.run_id)
        experiment_run.score_winner(run, parent, hostile.model_id, hostile.victim.few)


ENTRIES = {
    "serve": lambda hostile: serve.load(hostile.uri),
    "evaluate": try_evaluate,
    "promote": try_promote,
    "force": lambda hostile: try_promote(hostile, force=True),
    "warm start": try_warm_start,
    "ensemble": try_ensemble,
    "score": try_score,
}
