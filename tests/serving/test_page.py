"""The page in a real browser: it draws, drops, pastes and picks as a person would."""

import base64
import io
import re

import numpy as np
import pytest
import requests
from matplotlib import image as pictures
from playwright.sync_api import Page, expect
from support.browsers import chromium, needs_chromium

from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.serving import page

pytestmark = needs_chromium
expect.set_options(timeout=30_000)  # milliseconds; a cold browser on a busy machine


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser, running):
    """Open the page; afterwards nothing may have gone wrong, and nothing may have been asked of another server."""
    trouble: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(**options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(running.url)
        expect(page.locator("#samples button")).to_have_count(20)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in trouble if "status of 503" not in text] == []
    assert [url for url in asked if not url.startswith((running.url, "data:", "blob:"))] == []


def seen(page: Page) -> np.ndarray:
    """The 28 × 28 pixels that the page shows as the model's input."""
    data = page.locator("#seen").evaluate("seen => [...seen.getContext('2d').getImageData(0, 0, 28, 28).data]")
    return np.asarray(data).reshape(28, 28, 4)[..., 0]


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    pictures.imsave(content, pixels, format="png", cmap="gray", vmin=0, vmax=255)
    return content.getvalue()


def photo() -> np.ndarray:
    """A dark grey upright box left of the middle of a bright picture."""
    pixels = np.full((300, 400), 240, np.uint8)
    pixels[50:250, 60:160] = 90
    return pixels


def check_photo(page: Page) -> None:
    expect(page.locator("#answer")).to_have_text(re.compile("%"))
    found = seen(page)
    columns = np.flatnonzero(found.max(axis=0) > 60)
    assert (found.max(axis=1) > 60).all()  # as high as the picture
    assert list(columns) == list(range(7, 21))  # half as wide, in the middle
    assert 140 <= np.median(found[:, 7:21]) <= 180  # grey on black: (240 - 90) of 240


def check_bars(page: Page, served) -> None:
    """The bars and the answer are what the model says of the pixels shown."""
    row = served.predictor.predict(seen(page)[None].astype(np.uint8)).iloc[0]
    expect(page.locator("#answer")).to_have_text(f"{row['name']}, {round(100 * row['probability'])}\u00a0%")
    expect(page.locator("#bars li")).to_have_text(
        [f"{name}{100 * row[f'p{i}']:.1f} %" for i, name in enumerate(CLASS_NAMES)]
    )
    assert page.locator("#bars .best span").inner_text() == row["name"]


DROP = """async ([text, kind]) => {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], "photo.png", {type: "image/png"}));
  const options = {bubbles: true, cancelable: true};
  dispatchEvent(kind === "drop" ? new DragEvent(kind, {...options, dataTransfer: data})
    : new ClipboardEvent(kind, {...options, clipboardData: data}));
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_drop_and_paste(open_page, served, kind):
    page = open_page()
    page.evaluate(DROP, [base64.b64encode(png(photo())).decode(), kind])
    check_photo(page)
    check_bars(page, served)


def test_choose_a_file(open_page, served):
    page = open_page()
    page.set_input_files("#file", {"name": "photo.png", "mimeType": "image/png", "buffer": png(photo())})
    check_photo(page)
    check_bars(page, served)


def test_a_bright_item_on_dark_ground_is_not_inverted(open_page):
    page = open_page()
    page.set_input_files("#file", {"name": "photo.png", "mimeType": "image/png", "buffer": png(255 - photo())})
    check_photo(page)


def test_a_file_that_is_no_picture(open_page):
    page = open_page()
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#answer")).to_have_text(re.compile("not a picture"))


def test_draw_with_the_mouse(open_page, served):
    page = open_page()
    page.get_by_text("broad").click()
    area = page.locator("#paper").bounding_box()
    page.mouse.move(area["x"] + 100, area["y"] + 80)
    page.mouse.down()
    page.mouse.move(area["x"] + 100, area["y"] + 320, steps=5)
    page.mouse.up()
    expect(page.locator("#empty")).to_be_hidden()
    check_bars(page, served)
    found = seen(page)
    assert found[14, 14] > 150
    assert found[14, 0] == found[14, 27] == 0
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#answer")).to_have_text("nothing yet")
    assert not seen(page).any()


def test_draw_with_the_keyboard(open_page, served):
    page = open_page()
    page.locator("#paper").focus()
    page.keyboard.press("Space")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    check_bars(page, served)
    found = seen(page)
    assert found[14].min() > 0
    assert found[0].max() == found[27].max() == 0
    page.keyboard.press("Delete")
    expect(page.locator("#answer")).to_have_text("nothing yet")


def test_pick_test_images_with_the_keyboard(open_page, served, data):
    page = open_page()
    expected = [data.test.images[np.flatnonzero(data.test.labels == label)[0]] for label in range(10)]
    buttons = page.locator("#samples button")
    for label in (0, 5, 9):
        buttons.nth(label).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#detail")).to_contain_text(f"The test set says: {CLASS_NAMES[label]}.")
        assert np.array_equal(seen(page), expected[label])
        check_bars(page, served)
    expect(buttons.nth(9)).to_have_attribute("aria-pressed", "true")


def test_everything_has_a_name_and_can_be_reached_by_tab(open_page):
    page = open_page()
    names = []
    for _ in range(26):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate("(e => e.ariaLabel ?? e.labels?.[0]?.textContent ?? e.textContent)(document.activeElement)")
        )
    assert names[:5] == ["Drawing area", "medium", "medium", "Clear", "Choose a picture…"]
    assert names[5:25] == [f"Test image {i + 1}: {CLASS_NAMES[i % 10]}" for i in range(20)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(open_page, served, scheme):
    phone = {"width": 390, "height": 844}
    page = open_page(viewport=phone, has_touch=True, is_mobile=True, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= phone["width"]
    page.locator("#samples button").nth(1).tap()
    check_bars(page, served)
    top = page.locator("#answer").bounding_box()["y"]
    assert top < phone["height"], "the answer is out of sight"


def test_what_the_server_refuses_is_shown(open_page):
    page = open_page()
    page.route("**/invocations", lambda route: route.fulfill(status=503, json={"message": "The server is busy."}))
    page.locator("#samples button").first.click()
    expect(page.locator("#answer")).to_have_text("The server is busy.")


def test_the_browser_runs_nothing_but_the_page(browser, running):
    policy = requests.get(running.url).headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    page = browser.new_page()
    page.goto(running.url)
    page.evaluate(
        "window.stopped = []; document.addEventListener('securitypolicyviolation', event => stopped.push(event.type))"
    )
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x:y onerror=\"window.ran = true\">')")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = true'}))")
    page.wait_for_function("window.stopped?.length >= 3")
    assert not page.evaluate("window.ran")
    page.close()


def test_the_document_holds_everything():
    text = page.html().decode()
    assert not re.findall(r"""(?:src|href)="(?!data:|metrics"|health")""", text)
    assert "url(" not in text
    assert "/* page" not in text
