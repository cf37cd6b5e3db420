"""The course of a search against time, read from a tracking store."""

import pytest

from benchmarks.tuning import course
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store


@pytest.fixture
def search(shared_store) -> str:
    """The id of a search with two trials."""
    client = store.connect()
    with runs.closing(runs.start_run(client, "tune", "search", "tiny_search")) as parent:
        for number, curve in enumerate(([0.6, 0.7], [0.8])):
            with runs.closing(runs.start_run(client, "trial", f"trial {number}", "tiny_search", parent)) as trial:
                for epoch, accuracy in enumerate(curve, 1):
                    trial.log_metrics({"val_accuracy": accuracy}, step=epoch)
    return parent.id


def test_it_has_the_epochs_of_all_trials(search, shared_store):
    for text in (f"now={shared_store}#{search}", f"now={shared_store}"):  # the newest search
        found = course.read(text, 3)
        assert (found.contestant, found.repeat) == ("now", 3)
        assert sorted(accuracy for _, _, accuracy in found.points) == [0.6, 0.7, 0.8]
        assert all(0 <= seconds <= found.seconds for seconds, _, _ in found.points)
        assert found.best == 0.8


def test_the_figure_has_one_label_for_several_searches(search, shared_store, tmp_path):
    text = f"now={shared_store}#{search}"
    figure = course.draw([course.read(text, 0), course.read(text, 1)], 50.0)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["now"]
    assert len({line.get_color() for line in axes.lines}) == 1
    course.main([text, "--figure", str(tmp_path / "course.png")])
    assert (tmp_path / "course.png").stat().st_size > 5000


def test_a_store_without_a_label_is_refused(capsys):
    with pytest.raises(SystemExit):
        course.main(["sqlite:///mlflow.db"])
    assert "'sqlite:///mlflow.db' is not of the form LABEL=STORE" in capsys.readouterr().err
