"""The view of a picture as codes in a real browser, drawn from data that can be checked by hand.

Most tests draw into an empty page with the app's script and styles; those about looks draw into the app itself.
"""

import numpy as np
import pytest

from tests.browser.drawing import png
from tokenlab import views


def tiles(colours, across, size=2):
    """Squares of one colour each, `across` in a row."""
    rows = np.asarray(colours).reshape(-1, across, 3)
    return png(rows.repeat(size, 0).repeat(size, 1))


# Two rows of three tokens, of 2 x 2 pixels; code 2 of the first level is dead, no code of the second one is.
PICTURE = [(10 * token, 0, 200) for token in range(6)]
FIRST = views.CodeLevel(
    name="coarse",
    ids=(0, 1, 1, 3, 0, 1),
    size=5,
    counts=(4, 2, 0, 1, 1),  # entropy (1/2 + 2/4 + 2 * 3/8) ln 2, so perplexity 2 ** 1.75 = 3.36
    counted=8,
    x=(0.0, 1.0, 0.0, 1.0, 0.5),
    y=(0.0, 0.0, 1.0, 1.0, 0.5),
    decoded=(0, 1, 2, 3, -1),
    nearest={0: (4, 5), 1: (6,)},
    facts={"bits per token": 2.32},
)
SECOND = views.CodeLevel(
    name="fine",
    ids=(3, 3, 2, 2, 1, 1),
    size=4,
    counts=(20, 20, 20, 20),
    counted=80,
    x=(0.0, 1.0, 0.0, 1.0),
    y=(0.0, 0.0, 1.0, 1.0),
)
CODES = views.Codes(
    title="Codes",
    png=tiles(PICTURE, 3),
    grid=(2, 3),
    levels=(FIRST, SECOND),
    sheet=tiles([(0, 30 * i, 0) for i in range(8)], 4),
    tile=2,
    across=4,
)
ONE = views.Codes(title="Plain", png=tiles(PICTURE, 3), grid=(2, 3), levels=(SECOND,))


@pytest.fixture
def drawn(drawn_alone):
    """drawn(view) -> a page that holds nothing but the view and is as tall as it."""
    return lambda view: drawn_alone(view, 1000, 1200)


def pixel(page, stage, layer, x, y):
    """The colour of a canvas of a stage at (x, y), shares of its width and height; transparent is (0, 0, 0, 0)."""
    return tuple(
        page.locator(f".tl-cb-stage.{stage} canvas")
        .nth(layer)
        .evaluate(
            """(canvas, [x, y]) => Array.from(canvas.getContext("2d")
                .getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data)""",
            [x, y],
        )
    )


def outlined(page):
    """Which tokens have an outline: is there ink just inside the left edge, halfway down?"""
    at = [(column / 3 + 0.003, (row + 0.5) / 2) for row in range(2) for column in range(3)]
    return [token for token, (x, y) in enumerate(at) if pixel(page, "tokens", 0, x, y)[3] > 200]


def dimmed(page):
    at = [((column + 0.5) / 3, (row + 0.5) / 2) for row in range(2) for column in range(3)]
    return [token for token, (x, y) in enumerate(at) if pixel(page, "tokens", 0, x, y)[3] > 100]


def point(page, stage, x, y, click=False):
    box = page.locator(f".tl-cb-stage.{stage}").bounding_box()
    (page.mouse.click if click else page.mouse.move)(box["x"] + x * box["width"], box["y"] + y * box["height"])


def on_map(page, x, y):
    """Where the map draws (x, y) of the unit square: 14 px of margin all around."""
    side = page.locator(".tl-cb-stage.map canvas").first.bounding_box()["width"]
    return (14 + x * (side - 28)) / side, 1 - (14 + y * (side - 28)) / side


def said(page):
    return page.locator(".tl-cb-details p").inner_text()


def tile_colours(page):
    """Caption -> the colour in the middle of each of its tiles."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".tl-cb-tiles figure")].map((figure) => [
            figure.querySelector("figcaption").textContent,
            [...figure.querySelectorAll("canvas")].map((canvas) => Array.from(canvas.getContext("2d")
                .getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data).slice(0, 3)),
        ]))"""
    )


def test_the_badges_count(drawn):
    page = drawn(CODES)
    assert page.locator(".tl-cb-badges .tl-cb-badge").all_inner_texts() == [
        "3.36 perplexity, of 8 tokens counted",
        "1 dead of 5 codes",
        "80 % of the codebook used",
        "3 codes in this picture",
        "2.32 bits per token",
    ]
    assert "Only 1.6 tokens were counted per code" in page.locator("#drawn").inner_text()


def test_pointing_at_a_token_shows_its_code_and_outlines_its_like(drawn):
    page = drawn(CODES)
    assert outlined(page) == []
    point(page, "tokens", 0.9, 0.2)
    assert outlined(page) == [1, 2, 5] and dimmed(page) == []
    assert said(page).startswith("coarse, code 1 at row 1, column 3")
    assert "came up 2 times in 8 tokens, rank 2 of 5" in said(page)
    assert "3 of the 6 tokens of this picture" in said(page)
    assert tile_colours(page) == {
        "in the picture": [[20, 0, 200]],
        "code alone": [[0, 30, 0]],
        "nearest training patches": [[0, 180, 0]],
    }
    point(page, "tokens", 0.1, 0.9)
    assert outlined(page) == [3] and "came up once in 8 tokens" in said(page)
    assert list(tile_colours(page)) == ["in the picture", "code alone"]


def test_keys_walk_over_the_tokens(drawn):
    page = drawn(CODES)
    page.locator(".tl-cb-stage.tokens").focus()
    assert "code 0 at row 1, column 1" in said(page) and outlined(page) == [0, 4]
    for key, expected in [
        ("ArrowRight", "code 1 at row 1, column 2"),
        ("ArrowDown", "code 0 at row 2, column 2"),
        ("ArrowDown", "code 0 at row 2, column 2"),
        ("End", "code 1 at row 2, column 3"),
        ("PageUp", "code 1 at row 1, column 3"),
        ("Home", "code 0 at row 1, column 1"),
    ]:
        page.keyboard.press(key)
        assert expected in said(page)


def test_pointing_at_a_dot_shows_its_tokens(drawn):
    page = drawn(CODES)
    point(page, "map", *on_map(page, 1, 0))
    assert said(page).startswith("coarse, code 1\ncame up 2 times") and outlined(page) == [1, 2, 5]
    assert dimmed(page) == [0, 3, 4]
    assert tile_colours(page)["in the picture"] == [[10, 0, 200]]
    point(page, "map", *on_map(page, 0.02, 0.98))  # near the cross of the dead code
    assert "code 2" in said(page) and "dead: never came up in 8 tokens · not in this picture" in said(page)
    assert dimmed(page) == [0, 1, 2, 3, 4, 5] and list(tile_colours(page)) == ["code alone"]
    point(page, "map", 0.5, 0.1)  # on nothing: the choice stays
    assert "code 2" in said(page)


def test_keys_walk_over_the_map_to_the_closest_code(drawn):
    page = drawn(CODES)
    page.locator(".tl-cb-stage.map").focus()
    assert "code 0" in said(page)
    for key, code in [("ArrowRight", 4), ("ArrowRight", 1), ("ArrowUp", 4), ("ArrowUp", 2), ("ArrowUp", 2)]:
        page.keyboard.press(key)
        assert page.locator("#drawn").get_attribute("data-code") == str(code)


def test_dots_grow_with_use_and_dead_codes_are_crosses(drawn):
    page = drawn(CODES)
    side = page.locator(".tl-cb-stage.map canvas").first.bounding_box()["width"]

    def inked(x, y, right):
        left, top = on_map(page, x, y)
        return pixel(page, "map", 0, left + right / side, top)[3] > 0

    assert inked(0, 0, 7) and not inked(1, 1, 7)  # 4 times: 8.5 px; once: 5 px
    assert inked(1, 1, 3) and not inked(0, 1, 3)  # a cross has no ink beside its middle
    assert inked(0, 1, 0)
    elsewhere, here = pixel(page, "map", 0, *on_map(page, 0.5, 0.5)), pixel(page, "map", 0, *on_map(page, 0, 0))
    assert here[1] > here[0] and elsewhere[3] < here[3]  # the accent, and stronger


def test_bars_are_sorted_and_logarithmic(drawn):
    page = drawn(CODES)
    tall = page.locator(".tl-cb-stage.use canvas").first.evaluate(
        """canvas => [0, 1, 2, 3, 4].map((i) => {
            const x = Math.floor(canvas.width * (i + 0.5) / 5), pen = canvas.getContext("2d");
            const data = pen.getImageData(x, 0, 1, canvas.height - 8).data;
            let top = 0;
            while (top < canvas.height - 8 && data[4 * top + 3] < 100) top += 1;
            return (canvas.height - 8 - top) / (canvas.height - 8);
        })"""
    )
    # log(2 n) / log(2 * 4) for n = 4, 2, 1, 1; the dead code has none. The line of the tick "1" lies on the third.
    assert tall == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3, 1 / 3], abs=0.02)
    ticks = page.locator(".tl-cb-y span").all_inner_texts()
    assert ticks == ["1"] and "1 dead at the end" in page.locator(".tl-cb-use").inner_text()
    page.locator(".tl-cb-stage.use").focus()
    for key, code in [("End", 2), ("ArrowLeft", 4), ("Home", 0), ("ArrowRight", 1), ("PageDown", 2)]:
        page.keyboard.press(key)
        assert page.locator("#drawn").get_attribute("data-code") == str(code)
    point(page, "use", 0.5, 0.5)
    assert "code 3" in said(page) and dimmed(page) == [0, 1, 2, 4, 5]


def test_a_click_holds_the_choice(drawn):
    page = drawn(CODES)
    point(page, "tokens", 0.1, 0.2, click=True)
    point(page, "tokens", 0.9, 0.9)
    assert "code 0 at row 1, column 1" in said(page) and said(page).endswith("held")
    point(page, "tokens", 0.9, 0.9, click=True)
    assert "code 1 at row 2, column 3" in said(page) and said(page).endswith("held")
    page.keyboard.press("Escape")
    assert not said(page).endswith("held")
    point(page, "tokens", 0.1, 0.9)
    assert "code 3 at row 2, column 1" in said(page)
    point(page, "tokens", 0.1, 0.9, click=True)
    point(page, "tokens", 0.1, 0.9, click=True)
    assert not said(page).endswith("held")


def test_the_level_menu_keeps_the_token(drawn):
    page = drawn(CODES)
    point(page, "tokens", 0.9, 0.2, click=True)
    page.get_by_label("Level").select_option("fine")
    assert "fine, code 2 at row 1, column 3" in said(page) and outlined(page) == [2, 3]
    badges = page.locator(".tl-cb-badges .tl-cb-badge").all_inner_texts()
    assert badges[:3] == ["4 perplexity, of 80 tokens counted", "0 dead of 4 codes", "100 % of the codebook used"]
    assert "Only" not in page.locator("#drawn").inner_text()
    page.keyboard.press("Escape")
    page.get_by_label("Level").select_option("coarse")
    point(page, "map", *on_map(page, 1, 0), click=True)
    page.get_by_label("Level").select_option("fine")
    assert "Point at a token" in said(page) and outlined(page) == []


def test_one_level_needs_no_menu_and_no_name(drawn):
    page = drawn(ONE)
    assert page.locator("#drawn select").count() == 0
    point(page, "tokens", 0.1, 0.2)
    assert said(page).startswith("Code 3 at row 1, column 1")
    assert list(tile_colours(page)) == ["in the picture"]


def test_all_codes_as_a_table_and_as_a_file(drawn):
    page = drawn(CODES)
    page.get_by_role("button", name="As a table").click()
    cells = [row.split("\t") for row in page.locator("#drawn tbody tr").all_inner_texts()]
    assert cells[0] == ["0", "4", "2", "0", "0"] and cells[4] == ["2", "0", "0", "0", "1"]
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[:2] == ["code,times in 8 tokens,tokens of this picture,map x,map y", "0,4,2,0,0"] and len(lines) == 6


def test_grid_lines_can_be_taken_away(drawn):
    page = drawn(CODES)
    between = (1 / 3, 0.25)
    assert pixel(page, "tokens", 0, *between)[3] > 0
    page.get_by_role("button", name="Grid lines").click()
    assert pixel(page, "tokens", 0, *between)[3] == 0


def large(size=4096, side=32):
    rng = np.random.default_rng(0)
    counts = np.where(rng.random(size) < 0.1, 0, rng.zipf(1.5, size).clip(max=5000))
    return views.Codes(
        title="Large",
        png=png(rng.integers(0, 256, (8 * side, 8 * side, 3))),
        grid=(side, side),
        levels=(
            views.CodeLevel(
                name="vq",
                ids=tuple(rng.integers(0, size, side * side).tolist()),
                size=size,
                counts=tuple(counts.tolist()),
                counted=int(counts.sum()),
                x=tuple(rng.normal(size=size).tolist()),
                y=tuple(rng.normal(size=size).tolist()),
                decoded=tuple(range(size)),
                nearest={code: (code, code, code) for code in range(size)},
            ),
        ),
        sheet=png(rng.integers(0, 256, (size // 32 * 8, 256, 3))),
    )


def test_thousands_of_codes_follow_the_pointer(drawn):
    page = drawn(large())
    took = page.evaluate(
        """() => {
            const node = document.querySelector(".tl-cb-stage.tokens"), box = node.getBoundingClientRect();
            const started = performance.now();
            for (let i = 0; i < 10; i++) {
                const at = { clientX: box.left + 5 + 30 * i, clientY: box.top + 9 };
                node.dispatchEvent(new PointerEvent("pointermove", at));
            }
            return (performance.now() - started) / 10;
        }"""
    )
    assert took < 100  # ms per choice; some 5 on a quiet machine


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(drawn_in_app, axe, width, dark):
    page = drawn_in_app(large(1024), width, dark)
    point(page, "tokens", 0.5, 0.5)
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
