"""Files and overrides that are wrong are refused in one sentence that says what is right."""

import typing

import pytest

from fmnist_exp.config import files
from fmnist_exp.config.fields import fields
from fmnist_exp.errors import RequestError


def refusal(text: str = "{}", overrides: dict[str, typing.Any] | None = None) -> str:
    with pytest.raises(RequestError) as raised:
        files.parse(text, "mine", overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("training.epoch", "training.epochs"),
        ("epochs", "training.epochs"),
        ("trianing.epochs", "training.epochs"),
        ("model.dropot", "model.dropout"),
        ("learning_rate", "training.learning_rate"),
        ("sede", "seed"),
        ("data.fraction", "data.gate_fraction"),
        ("search.trials", "search.n_trials"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(unknown, nearest):
    expected = f"unknown field {unknown!r}; did you mean {nearest!r}?"
    assert refusal(overrides={unknown: "1"}) == expected
    section, _, leaf = unknown.rpartition(".")
    if section in ("training", "model", "data", ""):
        assert refusal(f"{section}: {{{leaf}: 1}}" if section else f"{leaf}: 1") == expected


def outside() -> list[typing.Any]:
    """Every field with a range: the name, a value beyond either end, the words for the range."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    cases = []
    for name, field in fields().items():
        limits = {key: getattr(m, key) for m in field.metadata for key in words if hasattr(m, key)}
        said = " and ".join(f"{words[key]} {limit}" for key, limit in limits.items())
        for key, limit in limits.items():
            value = limit if key in ("gt", "lt") else limit - 1 if key == "ge" else limit + 1
            cases.append(pytest.param(name, value, said, id=f"{name}={value}"))
    return cases


@pytest.mark.parametrize(("name", "value", "said"), outside())
def test_a_value_out_of_range_is_answered_with_the_range(name, value, said):
    text = "{search: {space: {seed: {low: 1, high: 3}}}}"
    assert refusal(text, {name: str(value)}) == f"{name}={value}: must be {said}"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("model.widths", "[64, 0]", "model.widths=0: must be at least 1 and at most 4096"),
        ("model.dropout", "1.5", "model.dropout=1.5: must be at least 0 and at most 0.95"),
        ("model.convolutions", "5", "model.convolutions=5: must be at least 1 and at most 4"),
        ("training.optimizer", "adagrad", "training.optimizer='adagrad': must be one of adam, adamw, sgd, muon"),
        ("training.schedule", "cosine", "training.schedule='cosine': must be one of constant, one_cycle, plateau"),
        ("training.learning_rate", ".nan", "training.learning_rate=nan: must be above 0 and at most 10"),
        ("data.gate_fraction", "0.001", "data.gate_fraction must be 0 or at least 0.01 and at most 0.5"),
        ("model.dropout", "[0.1]", "model.dropout lists 1 values for 2 model.widths"),
        ("model.convolutions", "[1, 2, 3]", "model.convolutions lists 3 values for 2 model.widths"),
        ("training.label_smoothing", "0.1", "training.label_smoothing requires training.labels=one_hot"),
        ("training.weight_decay", "0.1", "training.weight_decay requires training.optimizer=adamw, sgd or muon"),
        ("training.epochs", "[1", "training.epochs='[1' is not a value that YAML can read"),
        ("search.n_trials", "3", "search.n_trials requires an experiment with a search, e.g. tune_cnn"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_right(name, text, sentence):
    assert refusal(overrides={name: text}) == sentence


def test_validation_and_gate_leave_images_for_training():
    answer = refusal(overrides={"data.validation_fraction": "0.5", "data.gate_fraction": "0.45"})
    assert answer.startswith("data.validation_fraction=0.5 and data.gate_fraction=0.45 leave too few images")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("training.epochs", "many", ["training.epochs='many'", "integer", "at least 1 and at most 1000"]),
        ("training.epochs", "3.5", ["training.epochs=3.5", "integer"]),
        ("training.epochs", "", ["training.epochs", "integer"]),
        ("training.learning_rate", "fast", ["training.learning_rate='fast'", "number", "above 0 and at most 10"]),
        ("model.batch_norm", "maybe", ["model.batch_norm='maybe'", "boolean", "true or false"]),
        ("model.widths", "64", ["model.widths=64", "[64]"]),
        ("model.widths", "32,64", ["model.widths='32,64'", "[32, 64]"]),
        ("model.widths", "", ["model.widths=None", "[32, 64]"]),
        ("model.dropout", "0.1, 0.2", ["model.dropout='0.1, 0.2'", "[0.1, 0.2]"]),
        ("model.widths", "[64, x]", ["model.widths='x'", "integer", "at least 1 and at most 4096"]),
        ("model.widths", "[1, 2, 3, 4, 5, 6, 7, 8, 9]", ["model.widths", "at most 8"]),
    ],
)
def test_a_wrong_type_is_answered_with_the_right_one(name, text, said):
    sentence = refusal(overrides={name: text})
    assert [part for part in said if part not in sentence] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "experiment 'mine' must be a mapping of fields"),
        ("- a", "experiment 'mine' must be a mapping of fields"),
        ("model: 3", "model: must be a mapping of fields, got 3"),
        ("training: {epochs: 0}", "training.epochs=0: must be at least 1 and at most 1000"),
        ("model: {witdhs: [1]}", "unknown field 'model.witdhs'; did you mean 'model.widths'?"),
    ],
)
def test_a_wrong_file_is_refused(text, sentence):
    assert refusal(text) == sentence


@pytest.mark.parametrize("text", ["a: [", "\t- x", "a: \0", "{[1]: 2}", "*x"])
def test_what_is_not_yaml_is_refused(text):
    assert refusal(text).startswith("experiment 'mine' is not YAML: ")


FORMS = "{low, high[, log][, step]}, {choices} or {depth, low, high[, step]}"


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ("{}", "search.space is empty: name at least one field, as experiments/tune_mlp.yaml does"),
        ("{seed: [1, 2]}", f"search.space: each field takes {FORMS}; got [1, 2]"),
        ("{seed: {lo: 1, high: 2}}", f"search.space: each field takes {FORMS}; got {{'lo': 1, 'high': 2}}"),
        ("{seed: {choices: [1]}}", f"search.space: each field takes {FORMS}; got {{'choices': [1]}}"),
        ("{seed: {low: 3, high: 2}}", "search.space: low (3) must be below high (2)"),
        ("{model.l2: {low: 0, high: 1, log: true}}", "search.space: log requires low above 0 and no step"),
        (
            "{model.widths: {depth: [2, 1], low: 1, high: 2}}",
            "search.space: the first depth (2) must not be above the second (1)",
        ),
    ],
)
def test_a_wrong_space_is_refused(space, sentence):
    assert refusal(f"search: {{space: {space}}}") == sentence


@pytest.mark.parametrize("name", ["training.epochs", "training.learning_rate"])
@pytest.mark.parametrize("value", ["1:30", "1:30.5"])
def test_a_time_of_day_is_no_number(name, value):
    with pytest.raises(RequestError, match=f"{name}='{value}'"):
        files.load("cnn", {name: value})
