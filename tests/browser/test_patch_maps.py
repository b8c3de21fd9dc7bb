"""The view of heat maps over a picture, drawn from data that can be checked by hand."""

import csv

import numpy as np
import pytest

from tests.browser.drawing import draw, png
from tokenlab import views

RED = (200, 30, 30)


def toy(name, weights, **facts):
    """A map of 2 x 3 patches from its weights."""
    weights = np.array(weights, float).reshape(2, 3)
    return views.PatchMap(
        name=name, png=png(np.round(255 * np.sqrt(weights / weights.max()))), most=float(weights.max()), facts=facts
    )


FIRST = toy("head 0", (0, 0.04, 0.16, 0.36, 0.64, 1), entropy=2.5)
MAPS = views.PatchMaps(
    title="Where [CLS] looks",
    png=png(np.full((16, 24, 3), RED)),
    grid=(2, 3),
    lines=("layer 0", "layer 1", "all"),
    maps=(
        (FIRST, toy("head 1", (1, 1, 1, 1, 1, 1))),
        (toy("head 0", (0, 0, 0, 0, 0, 0.5), entropy=0.0), toy("head 1", (0.5, 0, 0, 0, 0, 0))),
        (toy("<b>rollout</b>", (0.25, 0, 0, 0, 0, 0.25)),),
    ),
    chosen=(1, 0),
    unit="of the attention",
)


@pytest.fixture
def page(drawn_alone):
    """A page that holds nothing but the view."""
    return drawn_alone(MAPS)


def colours(page, selector):
    """The colour in the middle of each patch."""
    return page.locator(selector).evaluate(
        """canvas => [0, 1, 2, 3, 4, 5].map((p) => {
            const x = Math.floor((p % 3 + 0.5) * canvas.width / 3);
            const y = Math.floor((p < 3 ? 0.25 : 0.75) * canvas.height);
            return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)].join(" ");
        })"""
    )


LARGE = "#drawn .tl-pm-one canvas"


def ramp(page, name):
    return page.evaluate(
        f"getComputedStyle(document.querySelector('.tl-pm')).getPropertyValue('--tl-am-{name}').trim()"
    )


def test_the_chosen_map_is_large_and_read_by_pointer(page):
    assert page.locator("#drawn h4").inner_text() == "layer 1, head 0"
    box = page.locator(LARGE).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.9)
    readout = page.locator("#drawn .tl-rt-readout")
    assert readout.inner_text() == "Row 2, column 3: 0.5 of the attention, 100 % of the largest"
    page.locator("#drawn .tl-pm-cell").first.click()
    assert page.locator("#drawn h4").inner_text() == "layer 0, head 0"
    assert " ".join(page.locator("#drawn .tl-pm-one dl").inner_text().split()) == "entropy 2.5"
    assert readout.inner_text() == "Row 2, column 3: 1 of the attention, 100 % of the largest"
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.1)
    assert readout.inner_text() == "Row 1, column 2: 0.04 of the attention, 4 % of the largest"


def test_from_the_picture_alone_to_the_weights_alone(page):
    mix = page.get_by_label("From the picture alone to the weights alone")
    mix.fill("0")
    assert set(colours(page, LARGE)) == {" ".join(map(str, RED))}
    mix.fill("100")
    seen = colours(page, LARGE)
    assert seen[5] == ramp(page, "high") and set(seen[:5]) == {ramp(page, "low")}
    page.locator("#drawn .tl-pm-cell").first.click()
    seen = [int(colour.split()[0]) for colour in colours(page, LARGE)]
    assert seen == sorted(seen, reverse=True) and len(set(seen)) == 6, "the more weight, the darker"
    assert colours(page, "#drawn .tl-pm-cell >> nth=0 >> canvas")[5] == ramp(page, "high"), "and small"
    mix.fill("50")
    assert colours(page, LARGE)[5] not in (ramp(page, "high"), " ".join(map(str, RED)))


def test_keyboard_alone(page):
    title = page.locator("#drawn h4")
    page.locator('#drawn .tl-pm-cell[tabindex="0"]').focus()
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == "layer 1, head 1"
    page.keyboard.press("ArrowUp")
    assert title.inner_text() == "layer 0, head 1"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert title.inner_text() == "all, <b>rollout</b>"
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("Tab")
    readout = page.locator("#drawn .tl-rt-readout")
    assert "Row 1, column 1: 0.25" in readout.inner_text()
    page.keyboard.press("ArrowRight")
    assert "Row 1, column 2: 0 " in readout.inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "Row 2, column 3: 0.25" in readout.inner_text()


def test_names_stand_above_and_where_they_differ_below(page):
    assert page.locator("#drawn .tl-am-axis").all_inner_texts()[:3] == ["", "head 0", "head 1"]
    assert page.locator("#drawn .tl-pm-caption").all_inner_texts() == ["<b>rollout</b>"]
    assert page.locator("#drawn .tl-pm-cell").count() == 5 and page.locator("#drawn .tl-pm-caption b").count() == 0


def test_the_weights_to_take_away(page, tmp_path):
    page.locator("#drawn .tl-pm-cell").first.click()
    with page.expect_download() as download:
        page.locator("#drawn").get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "layer-0-head-0.csv"
    download.value.save_as(tmp_path / "map.csv")
    rows = list(csv.reader((tmp_path / "map.csv").open(encoding="utf-8", newline="")))
    assert rows[0] == ["row", "column 1", "column 2", "column 3"] and [row[0] for row in rows[1:]] == ["1", "2"]
    assert [float(v) for row in rows[1:] for v in row[1:]] == pytest.approx([0, 0.04, 0.16, 0.36, 0.64, 1], abs=0.004)


def test_the_chosen_map_stays_for_the_next_picture(page):
    page.locator("#drawn .tl-pm-cell").nth(3).click()
    draw(page, MAPS)
    assert page.locator("#drawn h4").inner_text() == "layer 1, head 1"
    fewer = views.PatchMaps(title="T", png=MAPS.png, grid=(2, 3), lines=("layer 0",), maps=((FIRST,),))
    draw(page, fewer)
    assert page.locator("#drawn h4").inner_text() == "layer 0, head 0"


def test_colours_follow_the_theme(drawn_in_app):
    page = drawn_in_app(MAPS)
    page.get_by_label("From the picture alone to the weights alone").fill("100")
    light = colours(page, LARGE)[5]
    assert light == ramp(page, "high")
    page.get_by_role("button", name="Switch between light and dark").click()
    page.wait_for_timeout(200)
    assert light != colours(page, LARGE)[5] == ramp(page, "high")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(drawn_in_app, axe, width, dark):
    page = drawn_in_app(MAPS, width, dark)
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
