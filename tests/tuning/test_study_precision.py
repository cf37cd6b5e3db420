"""A study computes in one precision: it is chosen once, and later sessions keep it."""

import pytest
from support.searches import configure, search

from fmnist_exp.backend import hardware
from fmnist_exp.backend.hardware import Bfloat16
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import store
from fmnist_exp.training import precision
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.workers.messages import TrialResult

FAST, SLOW = Bfloat16(True, "AMD EPYC has avx512_bf16"), Bfloat16(False, "this processor has none")


class Notices(SearchCallback):
    def __init__(self) -> None:
        self.about_precision: list[str] = []

    def on_notice(self, text: str) -> None:
        if "float" in text:
            self.about_precision.append(text)


def objective(config, data, run, callbacks) -> TrialResult:
    run.log_params({"training.precision": config.training.precision})
    return TrialResult(False, 0.5)


def run(study, small, n_trials, named="auto", **more):
    notices = Notices()
    config = configure(training__precision=named, search__n_trials=n_trials, model__batch_norm=True)
    given = {"data": small, "objective": objective, "trials_only": True, "callback": notices, **more}
    return search(config, study, **given), notices.about_precision


def precisions(found):
    return [run.data.params["training.precision"] for run in found.children()]


def test_a_study_chooses_once_and_keeps_its_precision_on_another_machine(shared_store, small, monkeypatch):
    monkeypatch.setattr(hardware, "bfloat16", lambda: FAST)
    first, notices = run("moved", small, 2)
    assert (precisions(first), notices) == (["bfloat16"] * 2, [])
    tags = first.parent.data.tags
    assert first.study.user_attrs["precision"] == tags["fmnist.precision"] == "bfloat16"
    assert tags["fmnist.precision_reason"] == FAST.reason
    assert first.parent.data.params["training.precision"] == "bfloat16"
    _, notices = run("moved", small, 3)
    assert notices == [], "it is the same machine"

    monkeypatch.setattr(hardware, "bfloat16", lambda: SLOW)
    second, notices = run("moved", small, 4)
    assert notices == [
        "study moved keeps computing in bfloat16; on this machine, auto would choose float32: this processor has none"
    ]
    assert precisions(second) == ["bfloat16"] * 4
    assert second.parent.data.params["training.precision"] == "bfloat16"


def test_a_study_that_named_its_precision_is_resumed_by_auto_and_measure(shared_store, small, monkeypatch):
    """Studies of the shipped experiments, made when these named bfloat16, can be resumed."""
    monkeypatch.setattr(hardware, "bfloat16", lambda: SLOW)
    monkeypatch.setattr(precision, "choose", None)  # nothing is chosen or measured
    run("named", small, 1, "bfloat16")
    run("named", small, 2)
    found, _ = run("named", small, 3, "measure")
    assert precisions(found) == ["bfloat16"] * 3


def test_a_study_that_chose_is_resumed_by_the_experiment_of_its_run(shared_store, small, monkeypatch):
    """The run's experiment.yaml, from which its note tells how to resume, names the precision."""
    monkeypatch.setattr(hardware, "bfloat16", lambda: FAST)
    first, _ = run("chose", small, 1)
    assert "precision: bfloat16" in store.download_text(f"runs:/{first.parent.info.run_id}/experiment.yaml")
    assert precisions(run("chose", small, 2, "bfloat16")[0]) == ["bfloat16"] * 2
    with pytest.raises(RequestError, match=r"training\.precision is 'bfloat16' there and 'float32' here"):
        run("chose", small, 3, "float32")
