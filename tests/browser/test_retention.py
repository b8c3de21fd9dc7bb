"""The view of what stays in a cache, and large matrices, drawn from data that can be checked by hand."""

import pytest

from tokenlab import views

# Prompt: three tokens; then two that were read after it. Two layers of two heads.
KEEPS = ((0, 1, -1, -1, -1), (-1, -1, -1, -1, -1))
LOSES = ((0, 1, 2, -1, -1), (0, 0, 2, -1, -1))
RETENTION = views.Retention(
    title="What stays",
    prompt=3,
    steps=2,
    rows=(
        views.RetentionRow(name="full", tokens=("<s>", " a", "\n", " b", " c"), left=(((-1,) * 5,) * 2,) * 2),
        views.RetentionRow(
            name="some",
            tokens=("<s>", " a", "\n", "<img src=x onerror=\"document.title='owned'\">", "\u202e c"),
            left=(KEEPS, LOSES),
            marks={3: "first difference"},
        ),
    ),
)
WIDE = views.HeatMap(
    title="Large",
    rows=tuple(f"layer {i}" for i in range(10)),
    columns=tuple(f"t{i}" for i in range(70)),
    values=tuple(tuple(None if c > 60 else float(r * c) for c in range(70)) for r in range(10)),
    x="token",
    y="layer",
    unit="bits",
)


def shades(page, row):
    tokens = page.locator("#drawn .tl-rt-row").nth(row).locator(".tl-rt-token")
    return tokens.evaluate_all("nodes => nodes.map(n => Number(n.style.getPropertyValue('--tl-shade')))")


def states(page, row):
    tokens = page.locator("#drawn .tl-rt-row").nth(row).locator(".tl-rt-token")
    return tokens.evaluate_all(
        "nodes => nodes.map(n => n.classList.contains('later') ? 'later' : n.classList.contains('gone') ? 'gone' : '')"
    )


def test_the_slider_shows_who_holds_what_after_each_step(drawn_in_app):
    page = drawn_in_app(RETENTION)
    assert shades(page, 1) == [0.25, 0.25, 0.5, 1, 1]  # the last step, first
    assert states(page, 1) == ["", "", "", "", ""]
    slider = page.get_by_label("Step", exact=True)
    slider.focus()
    page.keyboard.press("Home")
    assert shades(page, 1) == [0.25, 0.75, 1, 0, 0]
    assert states(page, 1) == ["", "", "", "later", "later"]
    assert "holds 2 of 3 tokens" in page.locator("#drawn .tl-rt-row").nth(1).inner_text()
    assert "the prompt was read" in slider.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "1 of 2 tokens after the prompt"
    assert "here the prompt ends" in page.locator("#drawn .tl-legend").inner_text()
    assert shades(page, 1) == [0.25, 0.25, 1, 1, 0] and shades(page, 0) == [1, 1, 1, 1, 0]
    fills = page.locator("#drawn .tl-rt-row").nth(1).locator(".tl-rt-token")
    colours = fills.evaluate_all("nodes => nodes.slice(0, 3).map(n => getComputedStyle(n).backgroundColor)")
    assert colours[0] == colours[1] != colours[2], "shares look different"


def test_one_layer_or_one_head(drawn_in_app):
    page = drawn_in_app(RETENTION)
    layer, head = page.locator("#drawn select").nth(0), page.locator("#drawn select").nth(1)
    assert head.is_disabled()
    layer.select_option("1")
    assert shades(page, 1) == [0, 0, 0, 1, 1] and states(page, 1)[:3] == ["gone"] * 3
    page.get_by_label("Step", exact=True).fill("0")
    assert shades(page, 1)[:3] == [0, 0.5, 1]
    head.select_option("0")
    assert shades(page, 1)[:3] == [0, 1, 1]
    layer.select_option("-1")
    assert head.is_disabled() and shades(page, 1)[:3] == [0.25, 0.75, 1]


def test_play_runs_to_the_end(drawn_in_app):
    page = drawn_in_app(RETENTION)
    page.locator("#drawn").get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('#drawn').dataset.step === '1'")
    page.wait_for_function("document.querySelector('#drawn').dataset.step === '2'")
    page.locator("#drawn").get_by_role("button", name="Play").wait_for()


def test_keys_walk_over_the_tokens_and_read_them(drawn_in_app):
    page = drawn_in_app(RETENTION)
    details = page.locator("#drawn .tl-details")
    page.locator('#drawn .tl-rt-grid [tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    said = details.inner_text()
    assert said.startswith("some token 2 of 5 ·a") and "held by 25 % of all heads" in said and "full 100 %" in said
    page.keyboard.press("End")
    assert "⟨RLO⟩" in details.inner_text() and "after the prompt" in details.inner_text()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert "token 1 of 5" in details.inner_text()
    page.locator("#drawn select").first.select_option("1")
    assert "gone as soon as it was read" in details.inner_text()
    assert page.locator('#drawn .tl-rt-grid [tabindex="0"]').count() == 1


def test_marks_are_words_and_tokens_stay_text(drawn_in_app):
    page = drawn_in_app(RETENTION)
    assert page.locator("#drawn .tl-rt-mark").all_inner_texts() == ["first difference"]
    shown = page.locator("#drawn .tl-rt-strip").nth(1).inner_text()
    assert "<img src=x" in shown and "↵" in shown and "⟨RLO⟩" in shown
    assert page.locator("#drawn img").count() == 0 and page.title() == "TokenLab"


def test_the_map_of_the_whole_run_is_read_by_pointer_and_keys(drawn_in_app):
    page = drawn_in_app(RETENTION)
    details, cells = page.locator("#drawn .tl-details"), page.locator("#drawn .tl-rt-cells").nth(1)
    cells.focus()
    page.keyboard.press("ArrowRight")
    assert "token 2 of 5" in details.inner_text() and "step 0: held by 75 % of all heads" in details.inner_text()
    page.keyboard.press("ArrowDown")
    assert "step 1: held by 25 % of all heads" in details.inner_text()
    page.keyboard.press("End")
    assert "step 1: not read yet" in details.inner_text()
    box = cells.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.9)
    assert "token 3 of 5" in details.inner_text() and "step 2: held by 50 %" in details.inner_text()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 2)
    assert page.locator("#drawn").get_attribute("data-step") == "0"
    pixel = """canvas => [0.3, 0.9].map(x => canvas.getContext("2d")
        .getImageData(Math.floor(canvas.width * x), 2, 1, 1).data[3])"""
    assert cells.locator("canvas").evaluate(pixel) == [round(255 * (0.06 + 0.94 * 0.75)), 0]  # held by 3 of 4; not yet


def test_a_large_matrix_is_a_picture_to_point_at(drawn_in_app):
    page = drawn_in_app(WIDE)
    assert page.locator("#drawn table").count() == 0
    cells, readout = page.locator("#drawn .tl-rt-cells"), page.locator("#drawn .tl-rt-readout")
    box = cells.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 20.5 / 70, box["y"] + box["height"] * 3.5 / 10)
    assert readout.inner_text() == "layer 3, token t20: 60 bits"
    cells.focus()
    page.keyboard.press("ArrowDown")
    assert readout.inner_text() == "layer 4, token t20: 80 bits"
    page.keyboard.press("End")
    assert readout.inner_text() == "layer 4, token t69: nothing"
    labels = page.locator("#drawn .tl-rt-x span").all_inner_texts()
    assert labels[0] == "t0" and 5 < len(labels) < 40
    assert len(page.locator("#drawn .tl-rt-y span").all_inner_texts()) == 10
    with page.expect_download() as download:
        page.locator("#drawn").get_by_role("button", name="CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 11


def test_a_small_matrix_stays_a_table(drawn_in_app):
    small = views.HeatMap(title="Small", rows=("r",), columns=("c", "d"), values=((1.0, None),), x="x", y="y")
    page = drawn_in_app(small)
    assert page.locator("#drawn td").all_inner_texts() == ["1", "–"] and page.locator("#drawn canvas").count() == 0


@pytest.mark.parametrize("view", [RETENTION, WIDE], ids=["retention", "matrix"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(drawn_in_app, axe, view, width, dark):
    page = drawn_in_app(view, width, dark)
    page.wait_for_timeout(300)
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_many_policies_and_tokens_are_drawn_quickly(drawn_in_app):
    left = tuple(tuple(tuple(k % 40 for k in range(300)) for _ in range(4)) for _ in range(12))
    tokens = tuple(f" w{k}" for k in range(300))
    rows = tuple(views.RetentionRow(name=f"policy {i}", tokens=tokens, left=left) for i in range(8))
    page = drawn_in_app(views.Retention(title="Many", prompt=260, steps=40, rows=rows))
    assert page.locator("#drawn .tl-rt-row .tl-rt-token").count() == 2400
    took = page.evaluate(
        """() => {
            const slider = document.querySelector("#drawn input[type=range]"), started = performance.now();
            for (const step of [3, 17, 29]) {
                slider.value = step; slider.dispatchEvent(new Event("input")); document.body.offsetHeight;
            }
            return (performance.now() - started) / 3;
        }"""
    )
    assert took < 500  # ms per step; some 30 on a quiet machine


def test_policies_side_by_side_in_the_workbench_on_a_phone(open_page, axe):
    page = open_page("?v=1&sys=attention-and-cache", width=390)
    page.get_by_label("Cache policies").check()
    page.locator("[id$=--kept] .tl-rt-row").first.wait_for(timeout=90_000)
    page.locator(".tl-badge.now").wait_for(timeout=90_000)
    names = page.locator("[id$=--kept] .tl-rt-name b").all_inner_texts()
    assert names[:2] == ["full", "random"] and "H2O" in names
    assert page.locator("[id$=--outcome] tbody tr").count() >= len(names)
    assert page.locator("[id$=--kept] .tl-rt-mark", has_text="states the answer").count() == len(names)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert axe(page) == []
