"""A version becomes champion if the gate passes it: by a search or `promote`, on real versions in a real store."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.gates import again, artifact, champion, decide, promote

from fmnist_exp import cli
from fmnist_exp.config.schema import GateConfig
from fmnist_exp.errors import WorkError
from fmnist_exp.evaluation.comparison import level_of
from fmnist_exp.export import checksums
from fmnist_exp.registry import challenges, champions, gate, smoke, versions
from fmnist_exp.tracking import run as runs

pytestmark = pytest.mark.usefixtures("low_floor", "no_champion")


def test_the_first_version_must_beat_the_logistic_regression_and_answer_a_real_request(client, weak, data):
    verdict, run = decide(client, weak, data)
    assert verdict.passed
    assert verdict.smoke == "answered"
    assert champion(client) == "1"
    found = versions.find(client, "champion")
    assert found.tags["gate_verdict"].startswith("passed: better than the logistic regression, which every")
    assert (found.tags["gate_images"], found.tags["gate_level"]) == ("6000", f"{level_of(1, 0.05):.4g}")
    assert found.tags["champion_after"] == "none"
    assert (found.tags["gate_challenge"], found.tags["challenges"]) == ("1", "floor:1")
    assert json.loads(artifact(client, run, "gate/verdict.json"))["comparison"]["won"] > 0
    listed = subprocess.run(["ps", "-o", "args", "--ppid", str(os.getpid())], capture_output=True, text=True)
    assert "scoring_server" not in listed.stdout  # the code that the server runs is among its arguments


def test_a_better_challenger_passes_and_it_is_written_down(client, weak, strong, answered, data):
    champions.set_champion(client, weak, "test")
    verdict, run = decide(client, strong, data)
    assert verdict.promoted
    assert answered == [strong.tags["sha256"]]
    assert champion(client) == "2"
    tags = versions.find(client, "2").tags
    assert tags["gate_verdict"] == verdict.sentence
    assert (tags["gate_champion"], tags["gate_images"], tags["gate_run"]) == ("1", "6000", run.id)
    assert float(tags["gate_p_value"]) < 0.05
    assert int(tags["gate_won"]) > int(tags["gate_lost"])
    for who, version in (("challenger", strong), ("champion", weak)):
        assert float(tags[f"gate_{who}_test_accuracy"]) == pytest.approx(float(version.tags["test_accuracy"]))
        assert verdict.test_accuracy_texts[str(version.version)].endswith(")")  # with its interval
    assert tags["champion_after"] == "1"
    assert versions.find(client, "1").tags["champion_followed_by"] == "2"
    report = json.loads(artifact(client, run, "gate/verdict.json"))
    table = artifact(client, run, "gate/images.csv").splitlines()
    assert len(table) == 1 + report["comparison"]["won"] + report["comparison"]["lost"]
    assert report["comparison_with_the_logistic_regression"]["won"] > 0
    assert "; better than the logistic regression, which every champion must beat, " in verdict.sentence
    assert {item.path for item in client.list_artifacts(run.id, "gate")} >= {"gate/comparison.png"}


def test_a_first_version_below_the_floor_is_crowned_by_force_only(client, weak, answered, data, monkeypatch):
    monkeypatch.setattr(gate, "FLOOR_ITERATIONS", 50)
    verdict, _ = decide(client, weak, data)
    assert not verdict.promoted
    assert verdict.sentence.startswith("refused: not shown to be better than the logistic regression")
    assert champion(client) is None
    forced, _ = decide(client, weak, data, force=True)
    assert forced.promoted
    assert versions.find(client, "champion").tags["champion_why"].startswith("forced, although not shown to be better")


def test_a_challenger_below_the_floor_is_refused_whoever_the_champion_is(
    client, weak, strong, answered, data, monkeypatch
):
    """A champion that was promoted with force, or by an earlier release, may be worse than the logistic regression."""
    monkeypatch.setattr(gate, "FLOOR_ITERATIONS", 20)
    champions.set_champion(client, weak, "force")
    verdict, _ = decide(client, strong, data)
    assert verdict.comparison.p_value < verdict.level  # it beats the champion
    assert not verdict.promoted
    assert verdict.sentence.startswith("refused: not shown to be better than the logistic regression")
    assert champion(client) == str(weak.version)
    assert answered == []


def test_every_attempt_counts_as_a_challenge_of_the_floor(client, weak, strong, answered, data, monkeypatch):
    """Else each of many versions no better than the floor would have the whole level, and most searches a champion."""
    monkeypatch.setattr(gate, "FLOOR_ITERATIONS", 20)
    first, second = again(client, weak), again(client, weak)
    alone = [decide(client, version, data)[0] for version in (first, second, first)]
    numbers = [verdict.challenge for verdict in alone]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0]]
    assert [verdict.level for verdict in alone] == [level_of(number, 0.05) for number in numbers]
    assert f"challenge {numbers[1]} of the logistic regression" in alone[1].sentence
    champions.set_champion(client, strong, "force")
    third = again(client, weak)
    decide(client, third, data)  # it loses against the champion, so the floor need not be tested
    assert f"floor:{numbers[1] + 1}" in versions.find(client, str(third.version)).tags["challenges"].split()


def test_the_level_falls_with_each_challenge_of_a_champion(client, weak, strong, answered, data):
    """The same version keeps its number, whatever it challenged meanwhile, and a new champion counts from one."""
    champions.set_champion(client, strong, "test")
    first, second = again(client, weak), again(client, weak)
    found = [decide(client, version, data)[0] for version in (first, second, first)]
    numbers = [verdict.challenge for verdict in found]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0]]
    assert [verdict.level for verdict in found] == [level_of(number, 0.05) for number in numbers]
    assert f"challenge {numbers[1]} of this champion" in found[1].sentence
    tags = versions.find(client, str(second.version)).tags
    assert tags["gate_challenge"] == str(numbers[1])
    assert f"{strong.version}:{numbers[1]}" in tags["challenges"].split()
    champions.set_champion(client, first, "another champion")
    assert decide(client, second, data)[0].challenge == 1
    assert versions.find(client, str(second.version)).tags["challenges"].split()[-1] == f"{first.version}:1"
    champions.set_champion(client, strong, "back again")
    third = again(client, weak)
    assert decide(client, third, data)[0].challenge == numbers[1] + 1


def test_two_challenges_at_the_same_moment_never_count_as_the_same_one(client, weak, strong):
    """Each number is a level of its own: two versions that read the same count must not both use it."""
    first, second = again(client, weak), again(client, weak)
    counted = challenges.number(client, first, str(strong.version))
    for version in (first, second):  # both have read the count before either wrote it
        versions.tag(client, version, {"challenges": f"{strong.version}:{counted}"})
    claimed = [challenges.claim(client, version, str(strong.version)) for version in (first, second)]
    assert set(claimed) == {counted, counted + 1}
    tags = [versions.find(client, str(version.version)).tags["challenges"] for version in (first, second)]
    assert tags == [f"{strong.version}:{number}" for number in claimed]


def test_the_number_of_a_deleted_version_stays_spent(client, weak, strong):
    """Whoever deletes a refused version in the UI must not get its level back."""
    for opponent in (str(strong.version), challenges.FLOOR):
        refused = again(client, weak)
        spent = challenges.claim(client, refused, opponent)
        client.delete_model_version(versions.NAME, refused.version)
        assert challenges.claim(client, again(client, weak), opponent) == spent + 1


@pytest.mark.parametrize("case", ["equal", "worse"])
def test_an_equal_or_worse_challenger_stays_challenger(case, client, weak, strong, answered, data):
    holder, challenger = (strong, weak) if case == "worse" else (weak, again(client, weak))
    champions.set_champion(client, holder, "test")
    verdict, _ = decide(client, challenger, data)
    assert not verdict.promoted
    assert verdict.sentence.startswith("refused: not shown to be better")
    assert champion(client) == str(holder.version)
    assert versions.find(client, str(challenger.version)).tags["gate_verdict"] == verdict.sentence
    assert answered == []  # it was refused before


def test_force_is_written_down(client, weak, strong, answered, data):
    champions.set_champion(client, strong, "test")
    verdict, _ = decide(client, weak, data, force=True)
    assert (verdict.passed, verdict.promoted) == (False, True)
    found = versions.find(client, "champion")
    assert str(found.version) == str(weak.version)
    assert found.tags["champion_why"].startswith("forced, although not shown to be better")
    assert verdict.smoke == "answered"


def test_a_strict_level_refuses_a_small_lead(client, weak, strong, answered, data):
    champions.set_champion(client, weak, "test")
    verdict, _ = decide(client, strong, data, GateConfig(level=1e-300))
    assert not verdict.promoted


def test_a_model_whose_export_was_swapped_is_refused(client, weak, strong, answered, tmp_path, data):
    champions.set_champion(client, weak, "test")
    file, other = (folder_of(client, version) / "data" / "model.onnx" for version in (strong, weak))
    shutil.copy(file, tmp_path)
    try:
        shutil.copy(other, file)
        changed, _ = decide(client, strong, data)
        swapped_before = again(client, strong)
        listed = json.dumps(checksums.checksums(folder_of(client, strong)))  # as releases before wrote it
        client.set_model_version_tag(versions.NAME, swapped_before.version, "sha256", listed)
        differs, _ = decide(client, versions.find(client, str(swapped_before.version)), data)
    finally:
        shutil.copy(tmp_path / file.name, file)
    assert (changed.promoted, differs.promoted) == (False, False)
    assert "files of the model are not those that were registered: data/model.onnx" in changed.sentence
    assert "the exported model differs from its Keras model by" in differs.sentence
    assert champion(client) == "1"


def folder_of(client, version):
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    return Path(logged.artifact_location.removeprefix("file://"))


def test_a_server_that_does_not_answer_refuses(client, weak, monkeypatch, data):
    def broken(folder, image):
        raise WorkError("the scoring server did not answer: ConnectionError")

    monkeypatch.setattr(smoke, "request", broken)
    verdict, _ = decide(client, weak, data)
    assert not verdict.promoted
    assert verdict.reasons == ("the scoring server did not answer: ConnectionError",)
    assert champion(client) is None


def test_a_server_with_another_answer_refuses(client, weak, monkeypatch, data):
    monkeypatch.setattr(smoke, "request", lambda folder, image: {f"p{label}": 0.1 for label in range(10)})
    assert "probabilities differ" in decide(client, weak, data)[0].sentence


def test_challenge_at_the_end_of_a_search(client, weak, strong, answered, data):
    with runs.closing(runs.start_run(client, "tune", "search", "")) as run:
        first = champions.challenge(weak, run, GateConfig(), data)
        assert champions.challenge(weak, run, GateConfig(), data).reason == "it was the champion before"
        second = champions.challenge(strong, run, GateConfig(), data)
        third = champions.challenge(weak, run, GateConfig(), data)
    assert [first.champion, second.champion, third.champion] == [True, True, False]
    assert third.reason.startswith("refused")


def test_back(client, weak, strong):
    for version, why in ((weak, "one"), (strong, "two")):
        champions.set_champion(client, version, why)
    assert promote("--back") == cli.DONE
    assert champion(client) == str(weak.version)
    run = client.search_runs(["0"], order_by=["attribute.start_time DESC"])[0]
    assert run.data.tags["fmnist.gate"] == "back from version 2"
    assert promote("--back") == cli.WRONG_REQUEST


def test_promote(client, weak, strong, answered, capsys):
    assert promote("--version", "1") == cli.DONE
    assert promote("--version", "1") == cli.DONE
    assert "champion already" in capsys.readouterr().out
    assert promote("--version", "2", "--gate.level", "1e-300") == cli.WORK_FAILED
    assert champion(client) == "1"
    run = client.search_runs(["0"], order_by=["attribute.start_time DESC"])[0]
    assert run.info.status == "FAILED"
    assert "does not become champion" in run.data.tags["fmnist.error"]
    assert promote("--version", "2") == cli.DONE
    assert "version 2 is the champion now" in capsys.readouterr().out
    assert promote("--version", "1", "--force", "true") == cli.DONE  # as `mlflow run` spells it
    assert champion(client) == "1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--version", "99"], "has no version 99; versions: 1"),
        (["--version", "nobody"], "has no alias 'nobody'; versions: 1"),
        (["--gate.level", "2"], "gate.level=2: must be above 0 and at most 0.5"),
        (["--back", "--force"], "--back restores the previous champion"),
        (["--back"], "fashion-mnist has no alias 'champion'"),
    ],
)
def test_wrong_requests_write_nothing(arguments, sentence, client, weak, capsys):
    count = len(client.search_runs(["0"]))
    assert promote(*arguments) == cli.WRONG_REQUEST
    assert sentence in capsys.readouterr().err
    assert len(client.search_runs(["0"])) == count
