"""The view of pictures side by side, drawn from pixels that can be counted by hand."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.browser.drawing import draw, png
from tokenlab import views

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def picture(name, colour, size=(20, 10), **more):
    return views.Picture(name=name, png=png(np.full((size[1], size[0], 3), colour)), **more)


BESIDE = views.Pictures(
    title="Side by side",
    items=(
        picture("original", (255, 0, 0), facts={"PSNR [dB]": 23.456, "code": "a\u202eb", "none": None}),
        picture("decoded", (0, 0, 255), mark="right"),
        picture(HOSTILE, (0, 255, 0), mark="wrong", facts={HOSTILE: HOSTILE}),
        picture("large", (9, 9, 9), size=(576, 288), mark="unsure"),
    ),
)
SLIDE = views.Pictures(
    title="Original & copy",
    slide=True,
    items=(picture("original", (255, 0, 0)), picture("copy", (0, 0, 255)), picture("other", (0, 255, 0))),
)


def cards(page):
    return page.locator("#drawn .tl-pic-card")


def shown(page):
    """Colours of the stage, 11 columns from left to right."""
    stage = page.locator("#drawn .tl-pic-stage")
    stage.scroll_into_view_if_needed()
    pixels = np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB"))
    row = pixels[pixels.shape[0] // 8]
    names = {(255, 0, 0): "r", (0, 0, 255): "b", (0, 255, 0): "g"}
    return "".join(names.get(tuple(row[int((i + 0.5) / 11 * len(row))]), "?") for i in range(11))


def test_every_picture_has_its_name_its_mark_and_its_facts(drawn_in_app):
    page = drawn_in_app(BESIDE)
    assert cards(page).locator("b").all_inner_texts() == ["original", "decoded", HOSTILE, "large"]
    assert cards(page).locator(".tl-pic-mark").all_inner_texts() == ["✓ right", "✗ wrong", "unsure"]
    alts = cards(page).locator("img").evaluate_all("nodes => nodes.map(n => n.alt)")
    assert alts == ["original", "decoded, right", f"{HOSTILE}, wrong", "large, unsure"]
    first = cards(page).nth(0)
    assert first.locator("dt").all_inner_texts() == ["PSNR [dB]", "code", "none"]
    assert first.locator("dd").all_inner_texts() == ["23.5", "a⟨RLO⟩b", "–"]
    assert cards(page).nth(2).locator("dd").inner_text() == HOSTILE
    assert page.locator("#drawn img").count() == 4 and page.title() == "TokenLab"
    assert page.locator("#drawn .tl-pic-row").get_attribute("aria-label") == BESIDE.alt()


def test_small_pictures_grow_by_whole_pixels_and_large_ones_shrink_smoothly(drawn_in_app):
    page = drawn_in_app(BESIDE)
    boxes = [cards(page).nth(i).locator("img").bounding_box() for i in (0, 3)]
    assert [(box["width"], box["height"]) for box in boxes] == [(280, 140), (288, 144)]  # 14 times; half
    style = "nodes => nodes.map(n => getComputedStyle(n).imageRendering)"
    assert cards(page).locator("img").evaluate_all(style) == ["pixelated"] * 3 + ["auto"]


def test_a_picture_is_taken_away_as_it_is(drawn_in_app):
    page = drawn_in_app(BESIDE)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download decoded as PNG").click()
    assert download.value.suggested_filename == "side-by-side-decoded.png"
    assert download.value.path().read_bytes() == base64.b64decode(BESIDE.items[1].png)


def test_without_slide_there_is_no_edge(drawn_in_app):
    page = drawn_in_app(BESIDE)
    assert page.locator("#drawn input").count() == 0


def test_the_edge_moves_by_keys_and_by_dragging(drawn_in_app):
    page = drawn_in_app(SLIDE)
    edge = page.get_by_label("Where the edge stands")
    assert edge.get_attribute("aria-valuetext") == "50 % original, then copy"
    assert shown(page)[:5] == "rrrrr" and shown(page)[6:] == "bbbbb"
    edge.focus()
    page.keyboard.press("Home")
    assert shown(page)[1:] == "b" * 10
    page.keyboard.press("End")
    assert shown(page)[:10] == "r" * 10 and edge.get_attribute("aria-valuetext") == "100 % original, then copy"
    page.keyboard.press("ArrowLeft")
    assert edge.input_value() == "99"
    box = page.locator("#drawn .tl-pic-stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 20, steps=4)
    assert edge.input_value() == "20" and shown(page)[:2] == "rr" and shown(page)[3:] == "b" * 8
    page.mouse.move(box["x"] - 300, box["y"] + 20)
    assert edge.input_value() == "0"
    page.mouse.up()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    assert edge.input_value() == "0"
    page.keyboard.press("ArrowRight")  # dragging has put the focus on the edge
    assert edge.input_value() == "1"


def test_another_picture_under_the_first_and_the_choice_stays(drawn_in_app):
    page = drawn_in_app(SLIDE)
    menu = page.get_by_label("right of the edge")
    assert menu.locator("option").all_inner_texts() == ["copy", "other"]
    menu.select_option(label="other")
    assert shown(page)[6:] == "ggggg"
    page.get_by_label("Where the edge stands").fill("30")
    draw(page, SLIDE)
    assert page.get_by_label("Where the edge stands").get_attribute("aria-valuetext") == "30 % original, then other"
    assert shown(page)[4:] == "ggggggg" and cards(page).count() == 3


@pytest.mark.parametrize("items", [0, 1])
def test_one_picture_has_nothing_to_be_laid_over(drawn_in_app, items):
    page = drawn_in_app(views.Pictures(title="Few", slide=True, items=SLIDE.items[:items]))
    assert cards(page).count() == items and page.locator("#drawn .tl-pic-stage").count() == 0


@pytest.mark.parametrize("view", [BESIDE, SLIDE], ids=["beside", "slide"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(drawn_in_app, axe, view, width, dark):
    page = drawn_in_app(view, width, dark)
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = page.locator("#drawn img").evaluate_all(
        "nodes => Math.max(...nodes.map(n => n.getBoundingClientRect().right))"
    )
    assert right <= width
