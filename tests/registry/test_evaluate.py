"""`evaluate` on a real version in a real store."""

import csv
import json
from pathlib import Path

import pytest

from fmnist_exp import cli
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation import calibration, intervals, robustness
from fmnist_exp.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.figures import run as run_figures
from fmnist_exp.registry import evaluate as evaluations
from fmnist_exp.registry import lineage, versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store

ARTIFACTS = {
    "evaluation/confusion_matrix.png",
    "evaluation/mistakes.png",
    "evaluation/reliability.png",
    "evaluation/report.json",
    "model_card.html",
    "model_card.md",
    "robustness/curves.png",
    "robustness/samples.png",
    "robustness/table.csv",
}


@pytest.fixture(scope="module")
def client(shared_store):
    return store.connect()


@pytest.fixture(scope="module")
def version(client):
    fields = {"model.family": "linear", "training.epochs": 1, "training.batch_size": 500}
    fields["training.precision"] = "float32"
    config = override(ExperimentConfig(), fields)
    with runs.closing(runs.start_run(client, "train", "linear", "linear")) as run:
        outcome = experiment_run.run_experiment(config, dataset.load(config.data, config.seed), run, score_test=True)
    return versions.register(client, outcome.model_id, run.id, {"test_accuracy": outcome.test.accuracy})


def evaluate(client, version, small, *, temperature):
    subject = lineage.trace(client, versions.find(client, str(version.version)))
    with runs.closing(runs.start_run(client, "evaluate", "evaluate", "")) as run:
        found = evaluations.assess(subject, small, 0, temperature=temperature, status=print)
        evaluations.write(client, found, small, run)
    return found, run


@pytest.fixture(scope="module")
def evaluated(client, version, small):
    return evaluate(client, version, small, temperature=True)


def text(client, run, name):
    return Path(client.download_artifacts(run.id, name)).read_text(encoding="utf-8")


def test_the_run_has_everything(client, evaluated):
    _, run = evaluated
    found = {item.path for folder in ("", "evaluation", "robustness") for item in client.list_artifacts(run.id, folder)}
    assert {path for path in found if "." in path} == ARTIFACTS
    info = client.get_run(run.id)
    assert info.info.status == "FINISHED"
    assert info.data.tags["fmnist.kind"] == "evaluate"


def test_it_is_linked_with_model_and_data(client, version, evaluated, small):
    _, run = evaluated
    info = client.get_run(run.id)
    assert [item.model_id for item in info.inputs.model_inputs] == [version.source.removeprefix("models:/")]
    assert [item.dataset.digest for item in info.inputs.dataset_inputs] == [small.test.digest]
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    mine = {metric.key: metric.dataset_digest for metric in logged.metrics if metric.run_id == run.id}
    assert mine["test_accuracy"] == small.test.digest
    assert {"noise_accuracy", "corrupted_ece", "temperature"} <= mine.keys()


def test_each_scoring_is_recorded_and_counted(client, version, evaluated):
    """Finding F3: the version says when, by whom and in which run the test set was looked at."""
    tags = client.get_model_version("fashion-mnist", version.version).tags
    *_, last = scorings = tags["test_scored"].split("; ")
    assert last == client.get_run(evaluated[1].id).data.tags["fmnist.test_scored"]
    assert last.endswith(f", run {evaluated[1].id}")
    # this version was registered with a test accuracy, but without a record, as earlier releases did
    assert int(tags["test_scorings"]) == len(scorings) + 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_has_its_numbers_by_severity(name, client, evaluated):
    found, run = evaluated
    for quantity in ("accuracy", "ece"):
        history = client.get_metric_history(run.id, f"{name}_{quantity}")
        assert [metric.step for metric in history] == [0, *SEVERITIES]
        levels = [getattr(level, quantity) for level in (found.clean, *found.corrupted[name])]
        assert [metric.value for metric in history] == pytest.approx(levels)
        assert all(0 <= level <= 1 for level in levels)
    rows = list(csv.DictReader(text(client, run, "robustness/table.csv").splitlines()))
    assert [row["severity"] for row in rows if row["corruption"] == name] == [str(severity) for severity in SEVERITIES]


def test_temperature_is_reported_before_and_after(client, version, evaluated, small):
    found, run = evaluated
    before, after = found.temperature.validation
    own = lineage.find(client, versions.uri(version)).load_predictor().probabilities(small.validation.images)
    assert found.temperature.value == calibration.fit_temperature(own, small.validation.labels)
    metrics = client.get_run(run.id).data.metrics
    assert metrics["temperature"] == pytest.approx(found.temperature.value)
    assert (metrics["val_ece"], metrics["val_ece_scaled"]) == pytest.approx((before, after))
    assert metrics["test_ece_scaled"] == pytest.approx(found.temperature.test[1])
    assert json.loads(text(client, run, "evaluation/report.json"))["temperature"]["value"] == found.temperature.value
    assert "A temperature was fitted to this version" in text(client, run, "model_card.md")


def test_the_card_says_what_a_card_must(client, version, evaluated, small):
    found, run = evaluated
    card = text(client, run, "model_card.md")
    assert f"| test accuracy | {found.test.text} |" in card
    assert found.test.images == 200
    recorded = client.get_run(version.run_id).data.metrics
    accuracy = intervals.text(recorded["best_val_accuracy"], 6000)  # of the version's own run, on real images
    assert f"| validation accuracy | {accuracy} |" in card
    for heading in (
        "Load and serve",
        "Use",
        "Data",
        "Training",
        "Numbers per class, test set",
        "Robustness",
        "Limits",
        "Lineage",
    ):
        assert f"## {heading}\n" in card
    assert all(f"| {name} | 20 | {found.test.per_class[name]['recall']:.1%} |" in card for name in CLASS_NAMES)
    assert all(f"\n| {name} | " in card for name in CORRUPTIONS)
    weakest = min(row["recall"] for row in found.test.per_class.values())
    assert f"it classifies {intervals.text(weakest, 20)} of these test images correctly" in card
    hardest = min(levels[-1].accuracy for levels in found.corrupted.values())
    assert f"at severity 5 the model is correct on {intervals.text(hardest, 200)} of the images" in card
    for fact in (version.run_id, run.id, version.source.removeprefix("models:/"), small.train.digest, "linear"):
        assert fact in card
    page = text(client, run, "model_card.html")
    assert page.count("data:image/png;base64,") == card.count(".png)") == 4
    assert "src=" not in page.replace('src="data:', "")
    assert "<script" not in page


def test_the_version_names_its_card(client, version, evaluated):
    found, run = evaluated
    known = versions.find(client, str(version.version))
    assert known.tags["model_card"] == f"runs:/{run.id}/model_card.html"
    assert known.tags["evaluated_by"] == run.id
    assert float(known.tags["corrupted_accuracy"]) == pytest.approx(found.mean.accuracy, abs=1e-6)
    assert found.mean_text in known.description
    assert found.test.text in known.description
    assert run.id in known.description


def test_a_description_by_a_person_stays(client, version, small):
    mine = again(client, version, description="mine")
    found, run = evaluate(client, mine, small, temperature=False)
    known = versions.find(client, str(mine.version))
    assert known.description == "mine"
    assert "temperature" not in known.tags
    assert found.temperature is None
    assert "emperature" not in text(client, run, "model_card.md")


def again(client, version, **fields):
    """Another version of the same model."""
    checked = {"sha256": version.tags["sha256"]}
    return client.create_model_version(versions.NAME, version.source, version.run_id, checked, **fields)


def test_the_same_seed_gives_the_same_numbers(client, version, small, evaluated):
    subject = lineage.trace(client, version)
    again = evaluations.assess(subject, small, 0, temperature=False, status=print)
    accuracies = [[[level.accuracy for level in row] for row in x.corrupted.values()] for x in (again, evaluated[0])]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "fashion-mnist has no alias 'champion'; versions: 1"),
        (["--model", "models:/fashion-mnist/99"], "fashion-mnist has no version 99; versions: 1"),
        (["--model", "models:/other/1"], "must be models:/fashion-mnist@ALIAS or models:/fashion-mnist/VERSION"),
        (["--seed", "-1"], "seed=-1: must be at least 0"),
        (["--data.source", "nowhere"], "data.source: "),
    ],
)
def test_wrong_requests_write_nothing(arguments, sentence, client, version, capsys):
    arguments = arguments if "--data.source" not in arguments else [*arguments, "--model", "models:/fashion-mnist/1"]
    count = len(client.search_runs(["0"]))
    with pytest.raises(SystemExit) as end:
        cli.run(["evaluate", *arguments])
    assert end.value.code == cli.WRONG_REQUEST
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert len(client.search_runs(["0"])) == count


def test_a_failed_run_says_why_and_leaves_the_version_alone(client, version, monkeypatch, capsys):
    def broken(evaluation):
        raise OSError("disk full")

    monkeypatch.setattr(run_figures, "confusion_matrix", broken)
    monkeypatch.setattr(robustness, "CORRUPTIONS", {"inversion": CORRUPTIONS["inversion"]})
    before = versions.find(client, "1").tags
    with pytest.raises(SystemExit) as end:
        cli.run(["evaluate", "--model", "models:/fashion-mnist/1"])
    assert end.value.code == cli.WORK_FAILED
    assert "a file or a device failed: disk full; " in capsys.readouterr().err
    run = client.search_runs(["0"], order_by=["attribute.start_time DESC"])[0]
    assert run.info.status == "FAILED"
    assert "disk full" in run.data.tags["fmnist.error"]
    assert client.list_artifacts(run.info.run_id) == []
    assert run.data.metrics == {}
    assert versions.find(client, "1").tags == before


@pytest.mark.slow
def test_the_whole_command(client, version, capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(["evaluate", "--model", "models:/fashion-mnist/1", "--temperature", "true"])
    assert end.value.code == cli.DONE
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in CORRUPTIONS)
    assert "temperature " in shown
