"""The search section: settings that contradict each other are refused."""

import pytest
from support.searches import configure

from fmnist_exp.config import files
from fmnist_exp.errors import RequestError


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"search.sampler": "grid"}, "search.sampler='grid': must be one of tpe, random, gp"),
        ({"search.pruner": "median"}, "search.pruner='median': must be one of successive_halving, none"),
        (
            {"search.objectives": ["val_accuracy", "seconds"]},
            "search.objectives='seconds': input should be 'val_accuracy', 'parameters' or 'prediction_seconds'",
        ),
        ({"search.objectives": ["parameters"]}, "search.objectives must begin with val_accuracy"),
        ({"search.objectives": []}, "search.objectives must begin with val_accuracy"),
        ({"search.objectives": ["val_accuracy", "val_accuracy"]}, "search.objectives names one objective twice"),
        (
            {"search.objectives": ["val_accuracy", "parameters"], "search.pruner": "successive_halving"},
            "requires search.pruner=none",
        ),
        ({"search.objectives": ["val_accuracy", "parameters"], "search.refit": 3}, "requires search.refit=0 or 1"),
        ({"search.refit": 21}, "search.refit=21: must be at least 0 and at most 20"),
        ({"search.keep": 0}, "search.keep=0: must be at least 1 and at most 100000"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong, reason):
    with pytest.raises(RequestError) as raised:
        files.override(configure(), wrong)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
