"""Names, errors and settings that hold HTML, Markdown, formulas or control characters are shown as text.

The pages are the real ones: a study's page, and the model card of a version whose run and tags are hostile. They are
opened in a real browser.
"""

import csv
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from markdown_it import MarkdownIt
from optuna.distributions import CategoricalDistribution, FloatDistribution
from playwright.sync_api import Browser, Page
from support.browsers import chromium, needs_chromium
from support.searches import NOON, ended

from fmnist_exp import cli
from fmnist_exp.cli import display, search_display
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import SearchConfig
from fmnist_exp.data import dataset
from fmnist_exp.experiment import outcome
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.registry import evaluate, lineage, versions
from fmnist_exp.tracking import escape, store
from fmnist_exp.tracking import run as runs
from fmnist_exp.tuning.report import write as report

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "end of a script": "</script><script>alert(1)</script>",
    "end of an attribute": "\"><img src=x onerror=alert(1)>'",
    "link": '<a href="javascript:alert(1)">gift</a><a href="http://127.0.0.1:9/">gift</a>',
    "style": "</style><style>body { display: none }</style><b style=color:red>loud</b>",
    "Markdown": "[gift](javascript:alert(1)) ![](http://127.0.0.1:9/x.png) `code` **loud** | cell\n# heading\n\n<b>",
    "formula": "=HYPERLINK(1)",
    "mathematics": "$\\frac{1$ %{x} {0} &lt;b&gt;",
}
MARKUP = "[red]markup[/red] [link=http://127.0.0.1:9/]gift[/link] :smile:"
TERMINAL = f"\x1b]0;title\x07\x1b[31mred\x9b2J\r\u202e\x00 {MARKUP}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def opened(browser: Browser, file: Path) -> Iterator[Page]:
    """Open a page, which must run no code of others, ask for nothing and respect its policy."""
    trouble: list[str] = []
    page = browser.new_page()
    page.on("dialog", lambda dialog: trouble.append(dialog.message) or dialog.dismiss())
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
    page.on("popup", lambda popup: trouble.append(popup.url))
    page.goto(f"file://{file}")
    yield page
    page.wait_for_timeout(100)  # milliseconds
    page.close()
    assert trouble == []


def study() -> optuna.Study:
    """A study in which the name of a parameter, its choices, the workers and the errors are hostile."""
    texts = list(HOSTILE.values())
    choices = CategoricalDistribution([json.dumps(text) for text in texts])
    kinds = {"training.learning_rate": FloatDistribution(0, 1), HOSTILE["script"]: choices}
    made = optuna.create_study(study_name="".join(texts), direction="maximize")
    for number, text in enumerate(texts):
        made.add_trial(
            ended(
                number,
                {"training.learning_rate": number / 10, HOSTILE["script"]: choices.choices[number]},
                kinds,
                [number / 10],
                curve={1: number / 20, 2: number / 10},
                attrs={"worker": text, "error": text},
                start=NOON,
                end=NOON,
            )
        )
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    search = SearchConfig.model_validate({"space": {"model.dropout": {"low": 0, "high": 1}}, "pruner": "none"})
    report.write(study(), search, folder, images=1000)
    return folder / "study"


def shown(text: str) -> str:
    return " ".join(text.split())


@needs_chromium
@pytest.mark.attack("HTML in the names of a study", entry="tune (study/figures.html)", result="shown as text")
def test_the_page_of_a_study_shows_hostile_names_as_text(browser, written):
    with opened(browser, written / "figures.html") as page:
        page.wait_for_selector(".js-plotly-plot .main-svg")
        assert shown(page.text_content("h1")) == shown("Study " + "".join(HOSTILE.values()))
        drawn = shown(" ".join(page.locator("svg text").all_text_contents()))
        for name, text in HOSTILE.items():
            assert drawn.count(shown(text)) >= 2, name  # as a worker and as a parameter
        assert page.locator("svg a, svg [style*=red], iframe, img").count() == 0
        for point in range(3):
            page.evaluate("i => Plotly.Fx.hover('slices', [{curveNumber: 0, pointNumber: i}])", point)
            assert shown(HOSTILE["script"]) in page.locator("#slices .hoverlayer").text_content()
            assert page.locator("#slices .hoverlayer a").count() == 0


@pytest.fixture(scope="module")
def card(shared_store, small) -> dict[str, str]:
    """The model card, the note of the training run and the description of a version with hostile params and tags."""
    client = store.connect()
    fields = {"model.family": "linear", "training.epochs": 1, "training.batch_size": 500, "name": HOSTILE["script"]}
    fields["training.precision"] = "float32"
    config = override(ExperimentConfig(), fields)
    with runs.closing(runs.start_run(client, "train", config.name, config.name)) as run:
        data = dataset.load(config.data, config.seed)
        result = experiment_run.run_experiment(config, data, run, score_test=True)
        texts = {f"attack {number}": text for number, text in enumerate(HOSTILE.values())}
        run.log_params(texts)
    tags = {
        "study": HOSTILE["Markdown"],
        "gate_verdict": HOSTILE["link"],
        "champion_why": HOSTILE["end of an attribute"],
    }
    version = versions.register(client, result.model_id, run.id, tags | {"test_accuracy": 0.5})
    subject = lineage.trace(client, versions.find(client, str(version.version)))
    with runs.closing(runs.start_run(client, "evaluate", "evaluate", "")) as evaluation:
        found = evaluate.assess(subject, small, 0, temperature=False, status=print)
        evaluate.write(client, found, small, evaluation)
    return {
        "file": client.download_artifacts(evaluation.id, "model_card.html"),
        "card": Path(client.download_artifacts(evaluation.id, "model_card.md")).read_text(encoding="utf-8"),
        "note": client.get_run(run.id).data.tags["mlflow.note.content"],
        "description": client.get_model_version(versions.NAME, version.version).description,
        "search": outcome.search_note(config, HOSTILE["Markdown"], "", "fmnist-exp tune --study 'a\n\n<b>'", "1"),
    }


@needs_chromium
@pytest.mark.attack("HTML in params and tags of a run", entry="evaluate (model_card.html)", result="shown as text")
def test_the_model_card_shows_hostile_params_as_text(browser, card):
    with opened(browser, Path(card["file"])) as page:
        words = shown(page.text_content("body"))
        for name, text in HOSTILE.items():
            assert shown(text) in words, name
        assert page.locator("script, iframe, a, b, img:not([src^='data:image/png;base64,'])").count() == 0
        assert page.locator("body").is_visible()
        assert page.evaluate("getComputedStyle(document.body).maxWidth") == "960px"  # its style is applied


@pytest.mark.attack(
    "Markdown and HTML in the names of experiments, studies and settings",
    entry="train, tune, evaluate (notes of runs, descriptions of versions, model_card.md)",
    result="shown as text",
)
@pytest.mark.parametrize("name", ["card", "note", "description", "search"])
def test_markdown_shows_hostile_names_as_text(card, name):
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card[name])
    inline = [child for token in tokens for child in token.children or []]
    links = [child.attrs for child in inline if child.type in ("link_open", "image")]
    assert [attrs for attrs in links if not str(attrs.get("src", "")).startswith(("evaluation/", "robustness/"))] == []
    assert [token.content for token in [*tokens, *inline] if token.type.startswith("html")] == []
    words = shown(" ".join(child.content for child in inline if child.type == "text"))
    hostile = {"card": HOSTILE, "description": {}, "note": ["script"], "search": ["script", "Markdown"]}[name]
    for one in hostile:
        assert shown(HOSTILE[one]) in words, one
    titles = [token.content for before, token in itertools.pairwise(tokens) if before.type == "heading_open"]
    assert "heading" not in titles


@pytest.mark.attack("formulas in names of workers and errors", entry="tune (study/trials.csv)", result="kept as text")
def test_a_table_holds_no_formula(written):
    rows = csv.reader((written / "trials.csv").read_text(encoding="utf-8").splitlines(keepends=True))
    cells = [cell for row in rows for cell in row]
    assert "'=HYPERLINK(1)" in cells
    assert [cell for cell in cells if isinstance(escape.cell(cell), str) and escape.cell(cell) != cell] == []


@pytest.mark.attack("control characters in names and errors", entry="all commands (terminal)", result="shown as text")
@pytest.mark.parametrize("terminal", [False, True], ids=["log", "terminal"])
def test_no_control_character_of_others_reaches_the_terminal(terminal, monkeypatch):
    monkeypatch.setattr(display.console, "_force_terminal", terminal)
    trial = search_display.TrialSummary(1, "FAIL", {"training.optimizer": TERMINAL}, "run", reason=TERMINAL)
    with display.console.capture() as caught:
        shown = search_display.SearchDisplay()
        shown.on_notice(TERMINAL)
        shown.on_search(0, 2, 0.0)
        shown.on_trial(1, {"training.optimizer": TERMINAL}, 2)
        display.console.print(shown.bar.get_renderable())
        shown.on_trial_end(trial)
        display.show_run("1", TERMINAL)
        display.show_outcomes({})
        table = display.Table(title=TERMINAL)
        table.add_row(TERMINAL)
        display.console.print(table)
    printed = caught.get()
    for part in ("\x1b]0", "\x1b[31m", "\x9b", "\u202e", "\x00", "\x07", "\r"):
        assert part not in printed, repr(part)
    assert printed.count(MARKUP) >= 6
    assert r"\x1b]0;title\x07\x1b[31mred\x9b2J" in printed


@pytest.mark.attack("control characters in an error", entry="train (standard error)", result="shown as text")
def test_an_error_shows_control_characters_as_text(tmp_path, monkeypatch, capsys):
    file = tmp_path / "a.yaml"
    file.write_text(f"name: {json.dumps(TERMINAL)}\nmodel: {{family: {json.dumps(TERMINAL)}}}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        cli.run(["train", "--experiment", str(file)])
    assert end.value.code == cli.WRONG_REQUEST
    error = capsys.readouterr().err
    assert error.isprintable() or error.rstrip("\n").isprintable()
    assert r"\x1b[31mred" in error


@pytest.mark.parametrize("text", ["plain", "größer – 3 × 4", "a_b c.d", "名前", "1e-3"])
def test_honest_texts_stay_as_they_are(text):
    assert escape.line(text) == escape.terminal(text) == escape.markdown(text) == escape.cell(text) == text


def test_numbers_stay_numbers_in_a_table():
    assert [escape.cell(value) for value in ("-1", "+2e3", "-inf", -1, None)] == ["-1", "+2e3", "-inf", -1, None]
