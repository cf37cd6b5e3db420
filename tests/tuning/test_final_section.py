"""The section `final:` of an experiment: how it is written, and what of it contradicts the search."""

from pathlib import Path

import pytest
from support.searches import configure

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import checks
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.search import SearchRequest

DROPOUT = {"model.dropout": {"low": 0.0, "high": 0.3}}


@pytest.mark.parametrize(
    ("values", "changes", "reason"),
    [
        ({"model.dropout": 0.1}, {}, "final: model.dropout is searched, so that the winner decides it"),
        ({"training.epochz": 3}, {}, "unknown field 'training.epochz'; did you mean 'training.epochs'"),
        ({"data.gate_fraction": 0}, {}, "final: data.gate_fraction must be the same in all fits of a search"),
        ({"training.precision": "float32"}, {}, "final: training.precision must be the same in all fits"),
        ({"model.warm_start": "models:/m"}, {}, "final: model.warm_start must be the same in all fits of a search"),
        ({"model.family": "cnn"}, {}, "final: model.family must be the same in all fits of a search"),
        ({"training.epochs": 1}, {}, "final: training.epochs=1 is less than the 2 of a trial"),
        (
            {"model.averaging": "flip"},
            {"search__objectives": ["val_accuracy", "prediction_seconds"]},
            "final: model.averaging may change prediction_seconds, by which the winner is chosen; take it out",
        ),
        ({"training.epochs": 0}, {}, "final: training.epochs=0: must be at least 1"),
        ({"training.label_smoothing": 0.1}, {}, "final: training.label_smoothing requires training.labels"),
        ({"training.batch_size": 5000}, {}, "training.batch_size=5000: must be at most 640"),
        ({"training.epochs": 3}, {"search__refit": 1}, "final and search.refit both say which network is registered"),
    ],
)
def test_what_contradicts_the_search_is_refused_before_anything_starts(values, changes, reason, folder, store):
    config = configure(data__source=folder, final=values, **changes)
    with pytest.raises(RequestError) as raised:
        searching.run(SearchRequest(config=config, study="refused", workers=1))
    assert reason in str(raised.value)
    assert not Path("studies.db").exists()


@pytest.mark.parametrize("given", [7, [1], {}, "{training.epochs: 3", "{training: 3}", "{training: {epochs: {a: 1}}}"])
def test_it_gives_values_to_fields(given):
    with pytest.raises(RequestError, match=r"final takes values of|final=.* not a value|unknown field|epochs={'a': 1}"):
        checks.check(configure(final=given))


def test_it_is_written_like_the_sections_or_by_dotted_name():
    nested = {"training": {"epochs": 3, "patience": None}, "model": {"averaging": "flip"}}
    dotted = {"training.epochs": 3, "training.patience": None, "model.averaging": "flip"}
    assert configure(final=nested) == configure(final=dotted)
    assert configure(final=nested).final == dotted


def test_it_needs_a_search():
    with pytest.raises(RequestError, match="final requires an experiment with a search"):
        files.override(ExperimentConfig(), {"final": {"training.epochs": 3}})


def test_a_final_fit_without_a_layer_to_train_is_refused_before_anything_starts(folder, store):
    config = configure(data__source=folder, model__widths=[8, 8], search__space=DROPOUT, final={"model.frozen": 3})
    with pytest.raises(RequestError, match=r"model\.frozen=3: must be below 3"):
        searching.run(SearchRequest(config=config, study="refused", workers=1))
    assert not Path("studies.db").exists()
