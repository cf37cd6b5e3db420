"""Questions that the tests of several folders ask of a figure."""

import io

from matplotlib.figure import Figure


def words(figure: Figure) -> str:
    """Draw the figure to a PNG, as a run does, and return all text in it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        texts += [axes.get_title(), axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()]
        texts += [label.get_text() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]]
        texts += [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    return "\n".join([*texts, figure.get_suptitle()])
