"""A study with `training.precision: auto` measures once and remembers the choice."""

from support.searches import configure, search

from fmnist_exp.training import precision


def test_a_study_remembers_the_precision(shared_store, small, monkeypatch):
    """All trials use the choice, also those of a later session, which would have measured on another machine."""
    chosen, choose = [], precision.choose

    def watched(config, data):
        chosen.append(choose(config, data))
        return chosen[-1]

    monkeypatch.setattr(precision, "choose", watched)
    first = search(configure(training__precision="auto", search__n_trials=2), "precision", data=small)
    assert len(chosen) == 1
    used = chosen[0].precision
    assert first.study.user_attrs["precision"] == first.parent.data.tags["fmnist.precision"] == used
    other = ({"float32", "bfloat16"} - {used}).pop()
    first.study.set_user_attr("precision", other)
    second = search(configure(training__precision="auto", search__n_trials=3), "precision", data=small)
    assert len(chosen) == 1
    precisions = [run.data.params["training.precision"] for run in second.children()]
    assert precisions == [used, used, other]
    assert second.parent.data.params["training.precision"] == other
