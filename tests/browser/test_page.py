"""The page around the panels: tabs, picker, catalogue, theme, links."""

import json

import pytest
from playwright.sync_api import expect

from components import share
from tokenlab import catalog, measurement, spec


def values(slug, **changed):
    return spec.check(catalog.find(slug).module().run, changed)


def test_the_first_page_is_the_workbench_of_tokenizers(open_page):
    page = open_page()
    assert page.locator("h1").inner_text() == "TokenLab"
    assert page.locator(".tl-title h2").inner_text() == "Compare tokenizers"
    names = page.get_by_role("tab").all_inner_texts()
    assert [f.name for f in catalog.families()] == names[:8] and names[8] == "Catalogue"


def test_the_picker_shows_what_is_not_built_with_its_sentence(open_page):
    page = open_page()
    entry = next(e for e in catalog.of_family("text") if not e.live)
    item = page.locator(".tl-picker li.later").first
    assert entry.name in item.inner_text() and entry.sentence in item.inner_text()
    assert item.locator("a").count() == 0


def test_choosing_a_system_opens_it_and_its_address(open_page):
    page = open_page()
    page.get_by_role("link", name="Data mixture inference").click()
    page.locator(".tl-title h2", has_text="Data mixture inference").wait_for()
    assert page.url.endswith("?v=1&sys=data-mixture")
    page.reload()
    page.locator(".tl-title h2", has_text="Data mixture inference").wait_for()


def test_a_family_without_live_systems_says_what_is_coming(open_page):
    empty = [f for f in catalog.families() if not any(e.live for e in catalog.of_family(f.slug))]
    if not empty:
        pytest.skip("every family has live systems")
    entries = catalog.of_family(empty[0].slug)
    systems = sum(e.kind == "system" for e in entries)
    page = open_page()
    page.get_by_role("tab", name=empty[0].name).click()
    page.get_by_text(f"None of the {systems} systems of this tab is built yet.").wait_for()
    assert page.locator(".tl-picker:visible li.later").count() == len(entries)


def test_the_catalogue_searches_and_filters(open_page):
    page = open_page()
    page.get_by_role("tab", name="Catalogue").click()
    cards = page.locator(".tl-cards li")
    cards.first.wait_for()
    assert cards.count() == 72
    page.get_by_label("Search").fill("heavy memory tokens")
    assert 0 < cards.count() < 72
    page.get_by_label("Search").fill("H2O")
    assert cards.first.locator("h3").inner_text() == "H2O" and cards.first.locator("h3 a").count() == 1
    page.get_by_label("Search").fill("Keyformer")
    assert cards.first.locator("h3").inner_text() == "Keyformer" and cards.first.locator("h3 a").count() == 0
    page.get_by_label("Search").fill("")
    page.get_by_label("Family").select_option("text")
    assert cards.count() == len(catalog.of_family("text"))
    live = page.locator(".tl-cards li.live").count()
    assert live == sum(e.live for e in catalog.of_family("text"))
    page.get_by_label("Claim").select_option("none")
    assert cards.count() == sum(measurement.stored(e.slug) is None for e in catalog.of_family("text"))
    page.get_by_label("Claim").select_option("")
    page.get_by_role("link", name="Data mixture inference").click()
    page.locator(".tl-title h2", has_text="Data mixture inference").wait_for()


def test_the_catalogue_is_accessible(open_page, axe):
    page = open_page()
    page.get_by_role("tab", name="Catalogue").click()
    page.locator(".tl-cards li").first.wait_for()
    assert axe(page) == []


def test_the_theme_switches_and_follows_the_system(open_page):
    page = open_page(dark=True)
    assert page.evaluate("document.body.classList.contains('dark')")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert not page.evaluate("document.body.classList.contains('dark')")


def test_a_link_opens_with_its_values_and_runs_them_even_after_a_restart(open_page, app):
    wanted = values("compare-tokenizers", text="Tee & <b>Kuchen</b>", tokenizers=["words", "characters"])
    query = "?" + share.write("compare-tokenizers", wanted).query
    page = open_page(query)
    page.locator(".tl-badge.now").wait_for()
    assert page.get_by_label("Your text").first.input_value() == "Tee & <b>Kuchen</b>"
    assert page.locator(".tl-totals").inner_text().split() == ["12", "Words", "19", "Characters"]
    before = page.locator(".tl-totals").inner_text()
    page.context.close()  # an open page would complain about the server that went away
    app.restart()
    again = open_page(query)
    again.locator(".tl-badge.now").wait_for()
    assert again.locator(".tl-totals").inner_text() == before


def test_bad_links_open_the_page_with_one_sentence(open_page):
    for query, says in [
        ("?v=1&sys=nonsense", "no system called"),
        ("?v=7&sys=data-mixture", "another version"),
        ("?v=1&sys=keyformer", "not built yet"),
        ("?v=1&sys=compare-tokenizers&s=" + "A" * 10_000, "longer than"),
        ("?v=1&sys=%3Cimg%20src=x%20onerror=alert(1)%3E", "no system called"),
    ]:
        page = open_page(query, ready=f".tl-problem:has-text('{says}')")
        assert page.locator("img[onerror]").count() == 0


def test_copy_link_and_copy_as_python(open_page):
    page = open_page("?v=1&sys=compare-tokenizers")
    page.get_by_label("Your text").first.fill("one two")
    page.locator(".tl-badge.now").wait_for()
    page.wait_for_function("document.querySelector('.tl-totals').innerText.includes('7')")
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    pairs = dict(pair.split("=", 1) for pair in link.split("?")[1].split("&"))
    assert share.read(pairs).values["text"] == "one two"
    page.get_by_role("button", name="Copy as Python").click()
    assert "text='one two'" in page.evaluate("navigator.clipboard.readText()")


def test_download_of_the_result_and_of_a_table(open_page, tmp_path):
    page = open_page("?v=1&sys=compare-tokenizers")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    download.value.save_as(tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text("utf-8"))
    stored = catalog.find("compare-tokenizers").stored_default()
    assert saved["system"] == "compare-tokenizers" and saved["values"] == stored["values"]
    assert saved["result"]["strip"] == stored["result"]["strip"]
    with page.expect_download() as download:
        page.locator("[id$=--numbers]").get_by_role("button", name="CSV").click()
    download.value.save_as(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("Measure,") and lines[1].startswith("Tokens,")


def test_a_panel_comes_back_with_what_it_last_ran(open_page):
    page = open_page()
    page.get_by_label("Your text").first.fill("kept in mind")
    page.wait_for_function("document.querySelector('.tl-totals').innerText.includes('12 Bytes')")
    page.get_by_role("link", name="Data mixture inference").click()
    page.locator(".tl-title h2", has_text="Data mixture inference").wait_for()
    page.get_by_role("link", name="Compare tokenizers").click()
    page.wait_for_function("document.querySelector('.tl-totals')?.innerText.includes('12 Bytes')")
    assert page.get_by_label("Your text").first.input_value() == "kept in mind"


def test_panels_of_a_family_hand_over_the_text_and_the_tokenizers(open_page):
    page = open_page()
    text = "The ferry left. Nobody waved. " * 15
    page.get_by_label("Your text").first.fill(text)
    page.wait_for_function("document.querySelector('.tl-totals').innerText.includes('450 Bytes')")
    page.get_by_role("button", name="Remove Bytes").or_(page.locator(".token-remove").nth(2)).first.click()
    page.wait_for_function("!document.querySelector('.tl-totals').innerText.includes('Bytes')")
    page.get_by_role("link", name="LiB").click()
    page.locator(".tl-said", has_text="Taken over from the panel before: Your text.").wait_for()
    assert page.get_by_label("Your text").first.input_value() == text
    assert page.get_by_role("radio", name="pasted text").is_checked()
    page.get_by_label("Your text").first.fill("It rained. They sang. " * 20)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function("document.querySelector('[data-kind=run_bar]').dataset.state === 'now'")
    page.get_by_role("link", name="Compare tokenizers").click()
    page.wait_for_function("document.querySelector('.tl-totals')?.innerText.includes('Mistral')")
    assert page.get_by_label("Your text").first.input_value() == "It rained. They sang. " * 20
    assert "Bytes" not in page.locator(".tl-totals").inner_text()  # its own choice of tokenizers has stayed


def test_the_title_and_the_outline_lead_to_the_claim_and_the_views(open_page):
    page = open_page("?v=1&sys=h2o")
    in_sight = (
        "s => { const top = document.querySelector(s).getBoundingClientRect().top; return 0 <= top && top < 900; }"
    )
    assert not page.evaluate(in_sight, ".tl-claim")
    page.get_by_role("button", name="claim holds at our scale").click()
    page.wait_for_function(in_sight, arg=".tl-claim")
    page.evaluate("scrollTo(0, 0)")
    page.get_by_text("On this page").click()
    heads = page.locator(".tl-panel .tl-frame-head h3:visible").all_inner_texts()
    assert set(heads) <= set(page.locator(".tl-outline li").all_inner_texts())
    page.locator(".tl-outline").get_by_role("button", name=heads[-1], exact=True).last.click()
    page.wait_for_function("() => scrollY > 500")
    assert not page.locator(".tl-outline li").first.is_visible()
    assert "#" not in page.url


def test_back_returns_to_the_panel_before(open_page):
    page = open_page()
    page.get_by_label("Your text").first.fill("kept in mind")
    page.wait_for_function("document.querySelector('.tl-totals').innerText.includes('12 Bytes')")
    page.get_by_role("link", name="DAHSF").click()
    page.locator(".tl-title h2", has_text="DAHSF").wait_for()
    page.wait_for_function("location.search.includes('sys=dahsf')")
    page.go_back()
    page.locator(".tl-title h2", has_text="Compare tokenizers").wait_for()
    page.wait_for_function("document.querySelector('.tl-totals')?.innerText.includes('12 Bytes')")
    page.go_forward()
    page.locator(".tl-title h2", has_text="DAHSF").wait_for()
    page.get_by_role("tab", name="Attention & cache").click()
    page.wait_for_function("location.search.includes('sys=attention-and-cache')")
    page.go_back()  # to another tab
    page.locator(".tl-title h2", has_text="DAHSF").wait_for()


def test_a_run_that_must_wait_says_so(open_page):
    page = open_page("?v=1&sys=dahsf")
    badge = page.locator(".tl-badge")
    held = []
    page.route("**/queue/join*", lambda route: route.continue_() if held else held.append(route))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(badge).to_have_text("waiting for other visitors' runs")
    held[0].continue_()
    expect(badge).to_have_text("run now", timeout=60_000)


def test_a_reload_keeps_a_text_that_no_link_can_carry(open_page):
    page = open_page()
    text = " ".join(format(number * 7919 % 100_003, "x") for number in range(1500))
    page.get_by_label("Your text").first.fill(text)
    shown = f"document.querySelector('.tl-totals')?.innerText.replaceAll(',', '').includes('{len(text)} Bytes')"
    page.wait_for_function(shown)
    page.wait_for_function("document.querySelector('[data-kind=run_bar]').dataset.state === 'now'")
    page.wait_for_load_state("networkidle")
    page.reload()
    page.wait_for_function(shown)
    assert page.get_by_label("Your text").first.input_value() == text
    page.goto(page.url.split("?")[0] + "?v=1&sys=compare-tokenizers")  # another link opens as it says
    page.locator(".tl-badge", has_text="stored run").wait_for()
