"""Every live panel in the browser: default run, light, dark and narrow, accessible, linkable."""

import pytest

from tokenlab import catalog, measurement

LIVE = [entry.slug for entry in catalog.live()]


def drawn(page):
    return page.eval_on_selector_all(
        ".tl-panel .tl-view", "views => views.filter(v => v.children.length).map(v => v.dataset.kind)"
    )


def stored_kinds(page, slug):
    """Wait until the views of the stored run are drawn; a busy machine takes a moment."""
    entry = catalog.find(slug)
    kinds = {view["kind"] for view in entry.stored_default()["result"].values() if view and view["kind"] != "Note"}
    for _ in range(50):
        if kinds <= set(drawn(page)):
            break
        page.wait_for_timeout(100)
    return kinds


@pytest.mark.parametrize("slug", LIVE)
def test_the_stored_run_is_there_at_once(open_page, slug):
    page = open_page(f"?v=1&sys={slug}")
    entry = catalog.find(slug)
    assert page.locator(".tl-title h2").inner_text() == entry.name
    assert page.locator(".tl-badge").inner_text() == "stored run"
    assert stored_kinds(page, slug) <= set(drawn(page)), "a view of the stored run is missing"
    assert page.locator(".tl-problem:visible").count() == 0


@pytest.mark.parametrize("slug", [s for s in LIVE if hasattr(catalog.find(s).module(), "LIVE")])
def test_a_panel_that_answers_while_one_types_waits_for_typing(open_page, slug):
    page = open_page(f"?v=1&sys={slug}")
    page.wait_for_timeout(2500)  # text boxes report a change when they appear
    assert page.locator(".tl-badge").inner_text() == "stored run"


@pytest.mark.parametrize("slug", LIVE)
def test_run_gives_the_same_kinds_of_views(open_page, slug):
    page = open_page(f"?v=1&sys={slug}")
    stored_kinds(page, slug)
    if catalog.find(slug).kind == "system":  # the claim and its figures come last
        figures = len(measurement.stored(slug)["figures"])
        page.wait_for_function(
            "n => { const kinds = [...document.querySelectorAll('.tl-panel .tl-view')].filter(v => v.children.length)"
            ".map(v => v.dataset.kind); return kinds.includes('claim') && kinds.length - kinds.indexOf('claim') > n; }",
            arg=figures,
        )
    before = drawn(page)
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".tl-badge.now").wait_for(timeout=90_000)
    assert drawn(page) == before


@pytest.mark.parametrize("slug", LIVE)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(open_page, axe, slug, width, dark):
    page = open_page(f"?v=1&sys={slug}", width=width, dark=dark)
    page.wait_for_timeout(800)
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("slug", [s for s in LIVE if catalog.find(s).kind == "system"])
def test_the_claim_is_shown_as_it_is(open_page, slug):
    page = open_page(f"?v=1&sys={slug}")
    holds = measurement.stored(slug)["holds"]
    assert ("holds" if holds else "does not hold") in page.locator(".tl-claim b").inner_text()
    assert page.locator(".tl-claim").inner_text().count(measurement.stored(slug)["paper"]) == 1


def test_a_control_that_hangs_on_another_comes_and_goes(open_page):
    page = open_page("?v=1&sys=less-is-better")
    page.get_by_label("pasted text").check()
    box = page.get_by_role("textbox", name="Your text")
    box.wait_for()
    assert box.input_value() == ""
    page.get_by_label("stories", exact=True).check()
    box.wait_for(state="detached")


def test_a_chart_names_its_axes(open_page):
    page = open_page("?v=1&sys=h2o")
    chart = page.locator('.tl-view[data-kind="Lines"]').first
    chart.locator(".xtitle").wait_for()
    lines = next(v for v in catalog.find("h2o").stored_default()["result"].values() if v and v["kind"] == "Lines")
    assert [chart.locator(place).text_content() for place in (".xtitle", ".ytitle")] == [lines["x"], lines["y"]]
