"""Two versions are compared on images that neither was trained or chosen on, and a refit by the network of its run."""

import json

import pytest
from support.gates import again, artifact, decide, logged_split, promote

from fmnist_exp import cli
from fmnist_exp.config.schema import DataConfig, GateConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.registry import champions, lineage, pairing, versions

pytestmark = pytest.mark.usefixtures("low_floor", "no_champion")


def test_a_version_without_images_of_the_gate_is_not_judged(client, weak, data):
    other = again(client, weak, run_id=logged_split(client, {"data.gate_fraction": 0}).id)
    with pytest.raises(RequestError, match=r"trained with data\.gate_fraction=0.*promote with --force"):
        pairing.pair(client, other, GateConfig(), data)


def test_an_old_champion_is_judged_on_images_that_chose_it(client, weak, strong, data):
    """A champion of a release without the gate's images: those of its validation set that nobody was trained on."""
    run = logged_split(client, {"data.gate_fraction": 0})
    old = again(client, weak, run_id=run.id)
    champions.set_champion(client, old, "test")
    match = pairing.pair(client, strong, GateConfig(), data)
    assert isinstance(match, pairing.Match)
    chose = {image.tobytes() for image in data.resplit(DataConfig(gate_fraction=0), 0).validation.images}
    assert 500 <= len(match.unseen.images) <= 700
    assert all(image.tobytes() in chose for image in match.unseen.images)


def test_too_few_images_that_neither_was_trained_on(client, weak, answered, data):
    run = logged_split(client, {"seed": 1, "data.gate_fraction": 0.01})
    other = again(client, weak, run_id=run.id)
    champions.set_champion(client, weak, "test")
    with pytest.raises(RequestError, match=r"share 600 images of the gate that neither was trained or chosen on"):
        pairing.pair(client, other, GateConfig(min_images=1000), data)
    match = pairing.pair(client, other, GateConfig(min_images=500), data)
    seen = {image.tobytes() for split in (data.train, data.validation) for image in split.images}
    assert isinstance(match, pairing.Match)
    assert len(match.unseen.images) == 600
    assert not any(image.tobytes() in seen for image in match.unseen.images)
    count = len(client.search_runs(["0"]))
    strict = ["--gate.min_images", "1000"]
    assert promote("--version", str(other.version), *strict) == cli.WRONG_REQUEST
    assert len(client.search_runs(["0"])) == count
    forced, _ = decide(client, other, data, GateConfig(min_images=1000), force=True)
    assert forced.promoted
    assert forced.comparison is None


def test_a_refitted_model_is_gated_through_its_run(client, weak, strong, answered, data):
    champions.set_champion(client, weak, "test")
    refitted = again(client, strong, refit_of=strong.run_id)
    subject = lineage.trace(client, refitted)
    assert subject.refit
    assert subject.held_out.uri == f"runs:/{strong.run_id}"
    verdict, run = decide(client, refitted, data)
    assert verdict.passed
    assert "; the refit answers as the judged network on 100.0% of 6,000 gate images" in verdict.sentence
    assert versions.find(client, str(refitted.version)).tags["gate_agreement"] == "1.0"
    assert json.loads(artifact(client, run, "gate/verdict.json"))["agreement_of_the_refit"]["images"] == 6000
    assert answered == [strong.tags["sha256"]]


@pytest.mark.parametrize("first", [False, True], ids=["champion", "no champion"])
def test_a_refit_that_is_not_the_network_that_was_judged_is_refused(first, client, weak, strong, answered, data):
    """F4: the run that the version names has the strong network, but the weak one would serve."""
    if not first:
        champions.set_champion(client, weak, "test")
    verdict, _ = decide(client, again(client, weak, refit_of=strong.run_id), data)
    assert not verdict.promoted
    assert verdict.sentence.startswith("refused: not the network that was judged: the refit answers as")
    assert answered == []


def test_images_other_than_the_run_s_are_refused(client, weak, small):
    with pytest.raises(RequestError, match=r"trained on other images.*--data\.source"):
        lineage.trace(client, weak).held_out.split(small)
