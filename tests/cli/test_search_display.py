"""What the console shows at the end of a search."""

from fmnist_exp.cli import search_display
from fmnist_exp.tuning.callback import TrialSummary
from fmnist_exp.tuning.result import SearchResult


def shown(capsys, **more) -> str:
    trials = [
        TrialSummary(number, "COMPLETE", {"model.dropout": 0.1}, f"run{number}", 5, accuracy, 6000, 1000, 12.0)
        for number, accuracy in ((3, 0.93), (0, 0.92))
    ]
    states = {"COMPLETE": 2, "PRUNED": 7, "FAIL": 0}
    search_display.show_search(SearchResult("completed", "spring", "parent", tuple(trials), states, (), **more))
    return capsys.readouterr().out


def test_the_final_fit_stands_below_the_trials(capsys):
    text = shown(capsys, final_accuracy=0.945)
    assert "final fit of the winner: 94.50% (93.89 to 95.05) on the validation images" in text.splitlines()
    assert text.index("2 complete  7 pruned  0 fail") < text.index("final fit")


def test_nothing_is_said_of_a_final_fit_that_was_not_registered(capsys):
    assert "final" not in shown(capsys)
