"""The schema is frozen and closed, and a random experiment reads back from its own YAML and its own fields."""

import typing

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_exp.config import files
from fmnist_exp.config.fields import fields, flatten
from fmnist_exp.config.schema import AugmentationConfig, ExperimentConfig, ModelConfig, TrainingConfig
from fmnist_exp.config.search import SearchConfig

SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
    "training.optimizer": {"choices": ["adam", None]},
    "model.widths": {"depth": [1, 3], "low": 16, "high": 64, "step": 16},
}


def test_an_experiment_cannot_be_changed():
    config = ExperimentConfig()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.model.widths = (1,)
    assert config == ExperimentConfig()


def test_one_dropout_and_number_of_convolutions_per_width():
    several = ModelConfig(widths=(4, 5), dropout=(0.1, 0.2), convolutions=(1, 2))
    assert (several.dropouts(), several.convolutions_per_block()) == ((0.1, 0.2), (1, 2))
    one = ModelConfig(widths=(4, 5, 6), dropout=0.3, convolutions=4)
    assert (one.dropouts(), one.convolutions_per_block()) == ((0.3,) * 3, (4,) * 3)


@pytest.mark.parametrize("others", [{}, {"mixup": 0.2, "cutmix": 1.0}])
def test_copies_need_something_that_changes_them(others):
    with pytest.raises(pydantic.ValidationError, match=r"augmentation\.copies requires a transform"):
        AugmentationConfig(copies=1, **others)
    assert AugmentationConfig(copies=1, shear=3).transforms() == {"shear": 3}


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_needs_one_hot_labels(name):
    mixing = AugmentationConfig(**{name: 0.2})
    with pytest.raises(pydantic.ValidationError, match=rf"augmentation\.{name} requires training\.labels=one_hot"):
        ExperimentConfig(augmentation=mixing)
    ExperimentConfig(augmentation=mixing, training=TrainingConfig(labels="one_hot"))


# random valid experiments, drawn from the schema's own types and limits


def values(annotation: typing.Any, metadata: typing.Sequence[typing.Any] = ()) -> st.SearchStrategy[typing.Any]:
    """Values of a field's type within its limits, the limits themselves among them."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *more = typing.get_args(annotation)
        return values(inner, [m for part in more for m in (*getattr(part, "metadata", ()), part)])
    limits = {key: getattr(m, key) for m in metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    if annotation is int:
        return st.integers(limits["ge"], limits["le"])
    if annotation is float:
        low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
        return st.floats(low, high, exclude_min="gt" in limits, exclude_max="lt" in limits)
    if annotation is bool:
        return st.booleans()
    if annotation is str:
        return st.text(st.characters(codec="utf-8"), min_size=1)
    if annotation is type(None):
        return st.none()
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return st.lists(values(typing.get_args(annotation)[0]), min_size=1, max_size=4).map(tuple)
    return st.one_of([values(part, metadata) for part in typing.get_args(annotation)])  # a union


@st.composite
def experiments(draw: st.DrawFn) -> ExperimentConfig:
    tree: dict[str, typing.Any] = {}
    for name, field in fields().items():
        section, _, leaf = name.rpartition(".")
        if section != "search" and name != "final":
            target = tree.setdefault(section, {}) if section else tree
            target[leaf] = draw(values(field.annotation, field.metadata))
    for leaf in ("dropout", "convolutions"):  # what the schema asks of several fields together
        if isinstance(tree["model"][leaf], tuple):
            tree["model"][leaf] = (tree["model"][leaf] * 4)[: len(tree["model"]["widths"])]
    if not any(value for name, value in tree["augmentation"].items() if name not in ("mixup", "cutmix", "copies")):
        tree["augmentation"]["copies"] = 0
    if any((tree["training"]["label_smoothing"], tree["augmentation"]["mixup"], tree["augmentation"]["cutmix"])):
        tree["training"]["labels"] = "one_hot"
    if tree["training"]["optimizer"] == "adam":
        tree["training"]["weight_decay"] = 0.0
    if tree["model"]["members"]:
        tree["model"] |= {"warm_start": None, "frozen": 0}
    if tree["model"]["padding"] == "valid":
        tree["model"]["residual"] = False
    search = draw(st.sampled_from([None, {"space": SPACE, "n_trials": 3, "timeout": 0.5}]))
    for leaf in ("validation_fraction", "gate_fraction"):
        if 0 < tree["data"][leaf] < 0.01:
            tree["data"][leaf] = 0.01
    if tree["data"]["validation_fraction"] + tree["data"]["gate_fraction"] > 0.9:
        tree["data"]["gate_fraction"] = 0.0
    if tree["data"]["validation_fraction"] == 0:
        tree["training"] |= {"patience": None, "checkpoint": False, "schedule": "constant"}
        search = None
    final = draw(st.sampled_from([None, {"training.epochs": 20, "training.patience": None}])) if search else None
    return ExperimentConfig(**tree, search=search, final=final)


@given(experiments())
def test_an_experiment_reads_back_from_its_yaml(config):
    back = files.parse(config.to_yaml(), "another name")
    assert back == config
    assert back.to_yaml() == config.to_yaml()


@given(experiments())
def test_every_field_of_an_experiment_can_be_set_alone(config):
    flat = {name: value for name, value in flatten(config).items() if name != "search.space"}
    start = ExperimentConfig(search=SearchConfig(space=SPACE)) if config.search else ExperimentConfig()
    assert files.override(start, flat) == config
