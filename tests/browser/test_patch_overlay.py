"""The view of what methods do to the patches of a picture, drawn from data that can be checked by hand."""

import numpy as np
import pytest

from tests.browser.drawing import draw, png
from tokenlab import views

RED = (200, 30, 30)


# Two rows of three patches, all red. 0 1 2 above 3 4 5.
PICTURE = png(np.full((16, 24, 3), RED))
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
SOME = views.PatchRow(
    name="some",
    left=(-1, 0, 2, -1, -1, 2),
    scores=(0.5, None, 0.25, 0.125, 1.0, 0.0),
    unit="attention",
    facts={"answer": HOSTILE, "probability [%]": 61.25},
    mark="wrong",
)
MERGED = views.PatchRow(name="merged", left=(-1, -1, -1, -1, 0, 3), groups=(7, 7, 2, 7, -1, -1))
FULL = views.PatchRow(name="full", left=(-1,) * 6, facts={"answer": "red"}, mark="right")
OVERLAY = views.PatchOverlay(
    title="What is kept",
    png=PICTURE,
    grid=(2, 3),
    layers=4,
    rows=(FULL, SOME, MERGED),
    marked=(4, 5),
    marked_name="what the question is about",
)


def card(page, name):
    return page.locator("#drawn .tl-po-card").filter(has=page.locator(f"figcaption b:text-is('{name}')"))


def patches(page, name):
    """The colours that each patch has, a little inside its edge: patch -> set of (r, g, b)."""
    return (
        card(page, name)
        .locator("canvas")
        .evaluate(
            """canvas => {
            const pen = canvas.getContext("2d"), wide = canvas.width / 3, high = canvas.height / 2;
            return [0, 1, 2, 3, 4, 5].map((p) => {
                const x = Math.round((p % 3 + 0.25) * wide), y = Math.round((Math.floor(p / 3) + 0.25) * high);
                const data = pen.getImageData(x, y, Math.round(wide / 2), Math.round(high / 2)).data, found = new Set();
                for (let i = 0; i < data.length; i += 4) found.add(`${data[i]} ${data[i + 1]} ${data[i + 2]}`);
                return [...found];
            });
        }"""
        )
    )


def untouched(page, name):
    """The patches that show nothing but the picture."""
    return [p for p, colours in enumerate(patches(page, name)) if colours == ["{} {} {}".format(*RED)]]


def slide(page, layer):
    page.get_by_label("Layer of the language model").fill(str(layer))


def test_what_is_removed_is_hatched_layer_by_layer(drawn_alone):
    page = drawn_alone(OVERLAY)
    assert untouched(page, "full") == [0, 1, 2, 3, 4, 5]
    assert untouched(page, "some") == [0, 3, 4]  # before the last layer, at first
    assert len(patches(page, "some")[1]) > 1, "a hatch is more than one colour"
    slide(page, 1)
    assert untouched(page, "some") == [0, 2, 3, 4, 5]
    assert page.get_by_label("Layer of the language model").get_attribute("aria-valuetext") == "before layer 1"
    slide(page, 2)
    assert untouched(page, "some") == [0, 3, 4]
    assert "removed" in page.locator("#drawn .tl-legend").inner_text()


def test_counts_follow_the_slider_and_merged_patches_count_once(drawn_alone):
    page = drawn_alone(OVERLAY)
    counts = page.locator("#drawn .tl-po-count")
    assert counts.all_inner_texts() == ["6 of 6 patches", "3 of 6 patches", "4 of 6 patches as 2 tokens"]
    slide(page, 0)
    assert counts.all_inner_texts() == ["6 of 6 patches", "5 of 6 patches", "5 of 6 patches as 3 tokens"]


def test_merged_patches_share_a_tint(drawn_alone):
    page = drawn_alone(OVERLAY)
    seen = patches(page, "merged")
    assert seen[0] == seen[1] == seen[3] and len(seen[0]) == 1 and seen[0] != [" ".join(map(str, RED))]
    assert untouched(page, "merged") == [2]  # alone in its group: not merged
    assert "merged into one token" in page.locator("#drawn .tl-legend").inner_text()


def test_neighbouring_groups_have_different_colours(drawn_alone):
    groups = views.PatchRow(name="pairs", left=(-1,) * 6, groups=(0, 1, 2, 0, 1, 2))
    page = drawn_alone(views.PatchOverlay(title="T", png=PICTURE, grid=(2, 3), layers=1, rows=(groups,)))
    seen = patches(page, "pairs")
    assert seen[0] == seen[3] and seen[1] == seen[4] and seen[2] == seen[5]
    assert seen[0] != seen[1] != seen[2]


def test_the_slider_is_there_only_where_layers_remove(drawn_alone):
    page = drawn_alone(views.PatchOverlay(title="T", png=PICTURE, grid=(2, 3), layers=4, rows=(FULL,)))
    assert page.locator("#drawn input[type=range]").count() == 0
    assert page.locator("#drawn .tl-legend").inner_text() == ""
    assert page.get_by_role("button", name="Show scores").count() == 0


def test_marked_patches_have_an_outline_of_black_and_white(drawn_alone):
    page = drawn_alone(OVERLAY)
    edge = """canvas => {
        const pen = canvas.getContext("2d"), at = (x) => {
            const data = pen.getImageData(Math.round(x * canvas.width) + 1, Math.round(canvas.height / 2) + 1, 1,
                Math.round(canvas.height / 2) - 2).data, found = new Set();
            for (let i = 0; i < data.length; i += 4) found.add(`${data[i]} ${data[i + 1]} ${data[i + 2]}`);
            return [...found];
        };
        return [at(1 / 3), at(2 / 3)];
    }"""
    outer, inner = card(page, "full").locator("canvas").evaluate(edge)
    assert {"0 0 0", "255 255 255"} <= set(outer) or len(outer) > 2, "the left side of patch 4"
    assert len(set(inner) - {" ".join(map(str, RED))}) <= 6, "patches 4 and 5 share one outline"
    assert "what the question is about" in page.locator("#drawn .tl-legend").inner_text()


def test_pointing_at_a_patch_reads_it_for_every_method(drawn_alone):
    page = drawn_alone(OVERLAY)
    box = card(page, "some").locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.25)
    details = page.locator("#drawn .tl-details")
    assert details.locator("p").inner_text() == "Row 1, column 3"
    assert details.locator("li").all_inner_texts() == [
        "full kept",
        "some removed before layer 2 · score 0.25 attention, rank 3 of 5",
        "merged kept",
    ]
    styles = page.locator("#drawn .tl-rt-cursor").evaluate_all("all => all.map(n => [n.hidden, n.style.cssText])")
    assert len(styles) == 3 and all(style == styles[0] for style in styles) and not styles[0][0]
    slide(page, 1)
    assert "still there, removed before layer 2" in details.inner_text()


def test_keyboard_alone(drawn_alone):
    page = drawn_alone(OVERLAY)
    details = page.locator("#drawn .tl-details")
    assert page.locator('#drawn .tl-po-stage[tabindex="0"]').count() == 1
    page.locator('#drawn .tl-po-stage[tabindex="0"]').focus()
    assert details.locator("p").inner_text() == "Row 1, column 1"
    assert "merged kept · merged with 2 others into token 7" in details.inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "Row 2, column 2" in details.inner_text() and "what the question is about" in details.inner_text()
    assert "merged removed before the language model" in details.inner_text()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert "Row 2, column 3" in details.inner_text()
    page.get_by_role("button", name="Show scores").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Show scores").get_attribute("aria-pressed") == "true"


def test_scores_shade_the_patches(drawn_alone):
    page = drawn_alone(OVERLAY)
    page.get_by_role("button", name="Show scores").click()
    assert untouched(page, "full") == [0, 1, 2, 3, 4, 5], "it has no scores"
    seen = patches(page, "some")
    assert all(len(seen[p]) == 1 for p in (0, 2, 3)) and len(seen[1]) > 1, "no score: still hatched"
    red = [int(seen[p][0].split()[0]) for p in (3, 2, 0, 4)]
    assert red == sorted(red, reverse=True) and len(set(red)) == 4, "darker with a higher score"
    assert "highest" in page.locator("#drawn .tl-legend").inner_text()


def test_facts_and_marks_are_words(drawn_alone):
    page = drawn_alone(OVERLAY)
    assert page.locator("#drawn .tl-po-mark").all_inner_texts() == ["✓ right", "✗ wrong"]
    facts = card(page, "some").locator(".tl-po-facts div").all_inner_texts()
    assert [" ".join(fact.split()) for fact in facts] == [f"answer {HOSTILE}", "probability [%] 61.3"]
    assert page.locator("#drawn img").count() == 0 and page.title() == "TokenLab"


def test_what_was_chosen_stays_when_a_method_joins(drawn_alone):
    page = drawn_alone(OVERLAY)
    slide(page, 1)
    page.locator('#drawn .tl-po-stage[tabindex="0"]').focus()
    page.keyboard.press("ArrowRight")
    more = views.PatchRow(name="more", left=(0, 0, 0, -1, -1, -1))
    joined = views.PatchOverlay(title="What is kept", png=PICTURE, grid=(2, 3), layers=4, rows=(*OVERLAY.rows, more))
    draw(page, joined)
    assert page.get_by_label("Layer of the language model").input_value() == "1"
    assert "Row 1, column 2" in page.locator("#drawn .tl-details").inner_text()
    assert untouched(page, "more") == [3, 4, 5]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(drawn_in_app, axe, width, dark):
    page = drawn_in_app(OVERLAY, width, dark)
    page.locator('#drawn .tl-po-stage[tabindex="0"]').focus()
    page.get_by_role("button", name="Show scores").click()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        tops = page.locator("#drawn .tl-po-card").evaluate_all("all => all.map(n => n.getBoundingClientRect().top)")
        assert tops[0] == tops[1] < tops[2], "two cards a row"


def test_many_methods_are_drawn_quickly(drawn_alone):
    rows = tuple(
        views.PatchRow(
            name=f"m{i}", left=tuple(p % 7 - 1 for p in range(576)), groups=tuple(p // 5 for p in range(576))
        )
        for i in range(14)
    )
    picture = png(np.random.default_rng(0).integers(0, 255, (96, 96, 3)))
    page = drawn_alone(views.PatchOverlay(title="Many", png=picture, grid=(24, 24), layers=8, rows=rows))
    took = page.evaluate(
        """() => {
            const slider = document.querySelector("#drawn input[type=range]"), started = performance.now();
            for (const layer of [3, 6, 1]) { slider.value = layer; slider.dispatchEvent(new Event("input")); }
            return (performance.now() - started) / 3;
        }"""
    )
    assert took < 600  # ms a step


def test_the_text_alternative_counts_what_is_kept():
    assert OVERLAY.alt() == (
        "What is kept: full keeps 6 of 6 patches right; some keeps 3 of 6 patches wrong; merged keeps 4 of 6 patches."
    )
