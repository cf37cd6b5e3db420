"""Every field has its dotted name, its description and its range, and an experiment its values."""

import pytest

from fmnist_exp.config import files
from fmnist_exp.config.fields import allowed, describe, fields, flatten
from fmnist_exp.config.schema import ExperimentConfig, ModelConfig
from fmnist_exp.config.search import Layers, SearchConfig

SPACE = {"model.widths": {"depth": [1, 3], "low": 16, "high": 64, "step": 16}}


@pytest.mark.parametrize("field", describe(ExperimentConfig()), ids=fields())
def test_every_field_is_described_in_sentences(field):
    assert field.description[0].isupper()
    assert field.description.endswith((".", ")."))


def test_names_are_complete_and_in_order():
    names = list(fields())
    assert names[:4] == ["name", "seed", "data.source", "data.validation_fraction"]
    for section in ("data", "model", "training", "augmentation", "search", "gate"):
        schema = SearchConfig if section == "search" else ExperimentConfig.model_fields[section].annotation
        below = [name.partition(".")[2] for name in names if name.startswith(f"{section}.")]
        assert below == list(schema.model_fields)


def test_flatten_gives_every_field_by_its_name():
    flat = flatten(ExperimentConfig(seed=4, model=ModelConfig(widths=(8, 9))))
    assert list(flat) == [name for name in fields() if not name.startswith(("search.", "final"))]
    assert (flat["seed"], flat["model.widths"], flat["data.source"]) == (4, (8, 9), None)


def test_flatten_with_a_search():
    flat = flatten(ExperimentConfig(search=SearchConfig(space=SPACE, n_trials=7)))
    assert list(flat) == list(fields())
    assert flat["search.n_trials"] == 7
    assert isinstance(flat["search.space"]["model.widths"], Layers)


def test_the_help_of_a_field_has_its_value_in_the_experiment():
    helps = {field.name: field for field in describe(files.load("tune_mlp", {"training.epochs": "3"}))}
    assert list(helps) == list(fields())
    epochs = helps["training.epochs"]
    assert (epochs.section, epochs.value, epochs.allowed) == ("training", 3, "at least 1 and at most 1000")
    assert (helps["seed"].section, helps["search.n_trials"].value) == ("", 20)
    assert not any("\n" in field.description for field in helps.values())


def test_the_help_of_an_experiment_without_a_search_has_the_defaults_of_one():
    assert {field.name: field.value for field in describe(ExperimentConfig())}["search.timeout"] == 60


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.batch_norm", "true or false"),
        ("training.schedule", "one of constant, one_cycle, plateau"),
        ("model.dropout", "at least 0 and at most 0.95"),
        ("data.source", ""),
    ],
)
def test_the_allowed_values_in_words(name, words):
    assert allowed(name) == words
