"""An experiment is found by its name or its path, and its file and overrides become the fields that they name."""

import pytest

from fmnist_exp.config import files
from fmnist_exp.config.schema import DataConfig, ExperimentConfig
from fmnist_exp.config.search import Choice, Layers, Range
from fmnist_exp.errors import RequestError

SHIPPED = sorted(path.stem for path in files.EXPERIMENTS.glob("*.yaml"))


def test_a_stored_experiment_without_the_gate_s_images_kept_none_back():
    """Experiments of earlier releases: their runs are repeated and resumed on the images that they were fitted on."""
    old = "{name: old, data: {validation_fraction: 0.2}}"
    assert files.parse_logged(old, "mine").data == DataConfig(validation_fraction=0.2, gate_fraction=0)
    assert files.parse_logged("seed: 3", "mine").data.gate_fraction == 0
    assert files.parse_logged(old, "mine", {"data.gate_fraction": "0.3"}).data.gate_fraction == 0.3
    assert files.parse_logged(ExperimentConfig().to_yaml(), "mine") == ExperimentConfig()
    assert files.parse(old, "mine").data.gate_fraction == DataConfig().gate_fraction


# the experiments that ship


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_experiment_is_found_by_name_and_by_path(name):
    config = files.load(name)
    assert config.name == name
    assert files.load(str(files.EXPERIMENTS / f"{name}.yaml")) == config


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_experiment_reads_back_from_its_yaml(name):
    config = files.load(name)
    assert files.parse(config.to_yaml(), "another name") == config


def test_a_missing_experiment_is_answered_with_those_that_exist():
    for reference in ("cnm", "folder/cnm.yaml"):
        with pytest.raises(RequestError) as raised:
            files.load(reference)
        assert str(raised.value).startswith(f"no experiment {reference!r}")
        assert ", ".join(SHIPPED) in str(raised.value)


def test_a_name_is_refused_where_no_experiments_are_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "EXPERIMENTS", tmp_path / "experiments")
    with pytest.raises(RequestError, match="lacks the shipped experiments"):
        files.load("cnn")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(RequestError, match="picture"):
        files.load(str(tmp_path / "picture.yaml"))


def test_a_file_without_a_name_is_called_after_its_file(tmp_path):
    (tmp_path / "mine.yml").write_text("model: {family: mlp, widths: [8]}\n")
    config = files.load(str(tmp_path / "mine.yml"), {"seed": "3"})
    assert (config.name, config.model.widths, config.seed) == ("mine", (8,), 3)


# overrides


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "7", 7),
        ("name", "b", "b"),
        ("name", "7", "7"),
        ("data.source", "~/images", "~/images"),
        ("data.source", "123", "123"),
        ("data.source", "", None),
        ("training.epochs", "3", 3),
        ("training.learning_rate", "5e-4", 5e-4),
        ("training.learning_rate", "0.01", 0.01),
        ("training.learning_rate", "1", 1.0),
        ("training.optimizer", "sgd", "sgd"),
        ("training.patience", "4", 4),
        ("training.patience", "", None),
        ("training.patience", "null", None),
        ("model.batch_norm", "true", True),
        ("model.widths", "[64, 32]", (64, 32)),
        ("model.widths", "[]", ()),
        ("model.dropout", "0.2", 0.2),
        ("model.dropout", "[0.1, 0.2]", (0.1, 0.2)),
        ("model.convolutions", "[1, 2]", (1, 2)),
        ("search.space", "{seed: {low: 1, high: 9}}", {"seed": Range(low=1, high=9)}),
    ],
)
def test_an_override_as_text(name, text, value):
    config = files.parse("{}", "mine", {name: text})
    section, _, leaf = name.rpartition(".")
    found = getattr(getattr(config, section) if section else config, leaf)
    assert found == value
    assert type(found) is type(value)


def test_an_override_as_a_value():
    config = ExperimentConfig()
    changed = files.override(config, {"model.widths": (7,), "model.dropout": [0.5], "training.epochs": 2})
    assert (changed.model.widths, changed.model.dropout, changed.training.epochs) == ((7,), (0.5,), 2)
    assert config == ExperimentConfig()


def test_overrides_leave_their_neighbours_alone():
    text = "{training: {epochs: 5, batch_size: 64}, search: {space: {seed: {low: 1, high: 3}}, timeout: 4}}"
    config = files.parse(text, "mine", {"training.epochs": "9", "search.n_trials": "2"})
    assert (config.training.epochs, config.training.batch_size) == (9, 64)
    assert (config.search.n_trials, config.search.timeout) == (2, 4)


def test_an_override_wins_over_a_wrong_value_in_the_file():
    assert files.parse("training: {epochs: 0}", "mine", {"training.epochs": "1"}).training.epochs == 1


def test_a_space_in_a_file():
    text = """
    search:
      space:
        model.dropout: {low: 0, high: 0.5}
        model.l2: {low: 1e-6, high: 1e-2, log: true}
        model.widths: {depth: [1, 2], low: 8, high: 32, step: 8}
        training.optimizer: {choices: [adam, sgd]}
    """
    assert files.parse(text, "mine").search.space == {
        "model.dropout": Range(low=0, high=0.5),
        "model.l2": Range(low=1e-6, high=1e-2, log=True),
        "model.widths": Layers(depth=(1, 2), low=8, high=32, step=8),
        "training.optimizer": Choice(choices=("adam", "sgd")),
    }
