"""The view of attention maps in a real browser: drawn from data, read by pointer and by keys.

Most tests draw into an empty page with the app's script and styles; those about looks draw into the app itself.
"""

import csv

import numpy as np
import pytest

from tests.browser.drawing import draw
from tokenlab.cache import attention_maps as am

LAYERS, HEADS, LENGTH = 3, 2, 24
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
TOKENS = ("⟨start⟩", HOSTILE, " \u202eabc", "\n", "👩‍👩‍👧", *(f" w{i}" for i in range(5, LENGTH)))


def random_weights(layers, heads, length):
    logits = np.random.default_rng(1).normal(size=(layers, heads, length, length)) * 1.5
    logits[..., 0] += 5  # a sink
    logits = np.where(np.tril(np.ones((length, length), bool)), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def maps(weights, tokens):
    ids = np.arange(weights.shape[-1])
    return am.maps_view(am.Attended("toy", ids, tokens, weights, {0: 9.0}))


WEIGHTS = random_weights(LAYERS, HEADS, LENGTH)
MAPS = maps(WEIGHTS, TOKENS)
LOWEST = np.unravel_index(am.entropy(WEIGHTS).argmin(), (LAYERS, HEADS))  # large at first


@pytest.fixture
def view(drawn_alone):
    """A page that holds nothing but the view -> (page, the view's element)."""
    page = drawn_alone(MAPS)
    return page, page.locator("#drawn")


def shades(page):
    return np.array(
        page.eval_on_selector_all(
            "#drawn .tl-am-token", "all => all.map(one => Number(one.style.getPropertyValue('--tl-shade')))"
        )
    )


def colours(page, selector):
    """How many pixels of a canvas have which colour."""
    return page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector), found = {};
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            for (let i = 0; i < data.length; i += 4) {
                const colour = data.slice(i, i + 4).join(" ");
                found[colour] = (found[colour] || 0) + 1;
            }
            return found;
        }""",
        selector,
    )


def test_pointing_at_a_token_shades_what_it_looks_at(view):
    page, am_view = view
    layer, head = LOWEST
    assert am_view.locator("h4").inner_text() == f"Layer {layer}, head {head}"
    np.testing.assert_allclose(shades(page) ** 2, WEIGHTS[layer, head, -1], atol=0.006)  # the last token, at first
    am_view.locator(".tl-am-token").nth(9).hover()
    np.testing.assert_allclose(shades(page) ** 2, WEIGHTS[layer, head, 9], atol=0.006)
    assert am_view.locator(".tl-am-token.unseen").count() == LENGTH - 10
    reading = am_view.locator(".tl-am-reading").inner_text()
    assert "w9" in reading and "token 10 of 24 looks at" in reading
    page.get_by_role("button", name="What looks at it").click()
    am_view.locator(".tl-am-token").nth(4).hover()
    np.testing.assert_allclose(shades(page) ** 2, WEIGHTS[layer, head, :, 4], atol=0.006)
    assert "is looked at by" in am_view.locator(".tl-am-reading").inner_text()


def test_a_held_token_is_read_against_others(view):
    page, am_view = view
    layer, head = LOWEST
    am_view.locator(".tl-am-token").nth(12).click()
    am_view.locator(".tl-am-token").nth(6).hover()
    np.testing.assert_allclose(shades(page) ** 2, WEIGHTS[layer, head, 12], atol=0.006)
    shown = float(am_view.locator(".tl-am-reading p").nth(1).locator("b").inner_text())
    assert shown == pytest.approx(WEIGHTS[layer, head, 12, 6], abs=0.005)
    am_view.locator(".tl-am-token").nth(12).click()
    am_view.locator(".tl-am-token").nth(6).hover()
    assert "token 7 of 24" in am_view.locator(".tl-am-reading").inner_text()


def test_pointing_into_the_map_reads_the_weight(view):
    page, am_view = view
    layer, head = LOWEST
    canvas = am_view.locator(".tl-am-map canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # The map fills the canvas but for the labels, left and above, and four pixels.
    gutter = 84
    cell = (box["width"] - gutter - 4) / LENGTH
    page.mouse.move(box["x"] + gutter + 3.5 * cell, box["y"] + gutter + 20.5 * cell)
    shown = float(am_view.locator(".tl-am-reading p").nth(1).locator("b").inner_text())
    assert shown == pytest.approx(WEIGHTS[layer, head, 20, 3], abs=0.005)
    np.testing.assert_allclose(shades(page) ** 2, WEIGHTS[layer, head, 20], atol=0.006)
    before = am_view.locator(".tl-am-reading").inner_text()
    page.mouse.move(box["x"] + gutter + 20.5 * cell, box["y"] + gutter + 3.5 * cell)  # the future
    assert am_view.locator(".tl-am-reading").inner_text() == before


def test_keyboard_alone(view):
    page, am_view = view
    name = am_view.locator("h4")
    chosen = am_view.locator('.tl-am-cell[tabindex="0"]')
    assert chosen.count() == 1
    chosen.focus()
    page.keyboard.press("Home")
    assert name.inner_text() == "Layer 0, head 0"
    page.keyboard.press("ArrowRight")
    assert name.inner_text() == "Layer 0, head 1"
    page.keyboard.press("ArrowDown")
    assert name.inner_text() == "Layer 1, head 1"
    page.keyboard.press("ArrowRight")
    assert name.inner_text() == "Layer 1, mean of its heads"
    np.testing.assert_allclose(shades(page) ** 2, WEIGHTS[1, :, -1].mean(0), atol=0.01)
    page.keyboard.press("End")
    assert name.inner_text() == "Mean of all heads"
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    am_view.locator('.tl-am-token[tabindex="0"]').focus()
    page.keyboard.press("ArrowLeft")
    assert "token 23 of 24" in am_view.locator(".tl-am-reading").inner_text()
    page.keyboard.press("Enter")
    assert "held" in am_view.locator(".tl-am-reading").inner_text()
    page.keyboard.press("Home")
    shown = float(am_view.locator(".tl-am-reading p").nth(1).locator("b").inner_text())
    assert shown == pytest.approx(WEIGHTS[:, :, 22, 0].mean(), abs=0.01)
    page.keyboard.press("Escape")
    assert "token 1 of 24, sink" in am_view.locator(".tl-am-reading").inner_text()
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('.tl-am-strip')"), "Tab leaves the text"


def test_colours_follow_the_theme(drawn_in_app):
    page = drawn_in_app(MAPS)
    pictures = ["#drawn .tl-am-map canvas", "#drawn .tl-am-cell canvas"]
    rgb = lambda name: page.evaluate(  # noqa: E731
        f"getComputedStyle(document.querySelector('.tl-am')).getPropertyValue('--tl-am-{name}').trim()"
    )
    # The first token looks at nothing but itself, so the strongest colour is there.
    light, strong = [colours(page, picture) for picture in pictures], f"{rgb('high')} 255"
    page.get_by_role("button", name="Switch between light and dark").click()
    page.wait_for_timeout(200)
    dark, bright = [colours(page, picture) for picture in pictures], f"{rgb('high')} 255"
    for before, after in zip(light, dark, strict=True):
        assert strong in before and strong not in after
        assert bright in after and bright not in before


def test_heads_in_the_order_of_a_number(view):
    page, am_view = view
    assert not am_view.locator("label", has_text="Order").is_visible()
    am_view.get_by_label("Number").select_option(am.ENTROPY)
    am_view.get_by_label("Order").select_option("highest first")
    order = am_view.locator(".tl-am-caption").all_inner_texts()
    values = am.entropy(WEIGHTS)
    expected = sorted(((values[i, j], f"L{i}H{j}") for i in range(LAYERS) for j in range(HEADS)), reverse=True)
    assert [text.split()[0] for text in order] == [name for _, name in expected]
    assert [float(text.split()[1]) for text in order] == pytest.approx([v for v, _ in expected], rel=0.01)
    am_view.get_by_label("Number").select_option("none")
    assert am_view.locator(".tl-am-cell").count() == LAYERS * (HEADS + 1) + 1


def test_the_weights_to_take_away(view, tmp_path):
    page, am_view = view
    am_view.locator(".tl-am-cell").nth(4).click()  # three a row, the mean included
    with page.expect_download() as download:
        am_view.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "attention-1-1.csv"
    download.value.save_as(tmp_path / "weights.csv")
    rows = list(csv.reader((tmp_path / "weights.csv").open(encoding="utf-8", newline="")))
    assert len(rows) == LENGTH + 1 and rows[0][1] == "1: ⟨start⟩" and rows[4][0] == "4: ↵"
    got = np.array([[float(cell or 0) for cell in row[1:]] for row in rows[1:]])
    np.testing.assert_allclose(got, WEIGHTS[1, 1], atol=0.004)
    assert rows[1][2] == "", "the future is left blank"


def test_hostile_tokens_stay_text(view):
    page, am_view = view
    am_view.locator(".tl-am-token").nth(1).hover()
    page.wait_for_timeout(300)
    assert page.title() == "TokenLab" and am_view.locator("img").count() == 0
    assert am_view.locator(".tl-am-token").nth(1).inner_text() == HOSTILE.replace(" ", "\xa0")
    assert "⟨RLO⟩" in am_view.locator(".tl-am-token").nth(2).inner_text()
    assert am_view.locator(".tl-am-token").nth(4).inner_text() == "👩‍👩‍👧"
    assert am_view.locator(".tl-am-token.marked").count() == 1 and "sink" in am_view.locator(".tl-legend").inner_text()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_accessible_and_no_wider_than_the_screen(drawn_in_app, axe, width, dark):
    page = drawn_in_app(MAPS, width, dark)
    am_view = page.locator("#drawn")
    am_view.get_by_label("Number").select_option(am.ENTROPY)
    page.get_by_role("button", name="Larger cells").click()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_chosen_head_stays_for_the_next_text(view):
    page, am_view = view
    am_view.locator(".tl-am-cell").nth(3).click()
    draw(page, MAPS)
    assert am_view.locator("h4").inner_text() == "Layer 1, head 0"
    draw(page, maps(WEIGHTS[:1], TOKENS))  # a model without that layer
    assert am_view.locator("h4").inner_text().startswith("Layer 0")


def test_many_heads_are_drawn_fast(view):
    page, am_view = view
    text = tuple(f" word{i}" for i in range(160))
    many = maps(random_weights(12, 4, 160), text)

    def took():
        draw(page, many)
        return float(am_view.get_attribute("data-drawn"))

    assert min(took() for _ in range(4)) < 1000  # ms; 120 on a quiet machine
    assert am_view.locator(".tl-am-cell").count() == 12 * 5 + 1
