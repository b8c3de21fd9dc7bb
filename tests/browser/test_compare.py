"""The tokenizer workbench as a visitor uses it: type, point, keys, train, replay, upload, attack."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

TOY = Path(__file__).parent.parent / "text" / "toy_tokenizer.json"
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"> \u202eabc\u202c a\u200bb 👩‍👩‍👧 "
    "<script>document.title='owned'</script>"
)


def run_with(page, text):
    page.get_by_label("Your text").first.fill(text)
    count = len(text.encode())
    page.wait_for_function(
        "n => [...document.querySelectorAll('.tl-totals span')]"
        ".some(s => s.innerText.replace(/,/g, '') === n + ' Bytes')",
        arg=str(count),
    )


def test_typing_redraws_the_strip(open_page):
    page = open_page()
    run_with(page, "tea")
    assert page.locator(".tl-line").count() == 1
    run_with(page, "tea\ntime")
    assert page.locator(".tl-line").count() == 2


def test_pointing_at_a_token_reads_it_in_all_rows(open_page):
    page = open_page()
    run_with(page, "é tea")
    page.locator(".tl-tok.spread").last.hover()
    details = page.locator(".tl-details").inner_text()
    assert "Bytes" in details and "c3" in details and "bytes 0–1" in details
    assert "Mistral v3" in details and "Tekken" in details and "�" not in details
    assert page.locator(".tl-tok.peer").count() >= 2


def test_a_spread_character_is_drawn_whole_with_its_pieces(open_page):
    page = open_page()
    run_with(page, "👩‍👩‍👧")
    cell = page.locator(".tl-row", has_text="Bytes").locator(".tl-tok.spread")
    assert cell.count() == 1 and cell.locator(".tl-piece").count() == 18
    assert "👩‍👩‍👧" in cell.inner_text() and "�" not in page.locator(".tl-strip").inner_text()


def test_keyboard_alone(open_page):
    page = open_page()
    run_with(page, "one two")
    page.locator('.tl-strip [tabindex="0"]').focus()
    assert page.locator(".tl-details b").first.inner_text() == "Mistral v3"
    page.keyboard.press("ArrowRight")
    assert "token 2 of" in page.locator(".tl-details-main").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.locator(".tl-details b").first.inner_text().startswith("Tekken")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    assert "token 1 of" in page.locator(".tl-details-main").inner_text()
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('.tl-strip')"), "Tab leaves the strip"


def test_hostile_text_stays_text(open_page):
    page = open_page()
    run_with(page, HOSTILE)
    page.get_by_label("Attack the text").check()
    page.locator("[id$=--attack] table").wait_for()
    page.get_by_role("button", name="Spaces and controls").click()
    page.locator(".tl-tok").first.hover()
    page.wait_for_timeout(500)
    assert page.title() == "TokenLab"
    assert page.locator(".tl-view img, .tl-view script").count() == 0
    shown = page.locator(".tl-strip").inner_text()
    assert "ZWSP" in shown and "RLO" in shown


def test_hostile_text_in_the_vocabulary_and_its_charts(open_page):
    page = open_page()
    page.get_by_label("Vocabulary", exact=True).check()
    page.get_by_label("Find in the vocabularies").fill("<img src=x onerror=document.title='owned'>")
    page.locator("h3", has_text="<img").first.wait_for()
    page.locator(".tl-plot .main-svg").first.wait_for()
    assert page.title() == "TokenLab" and page.locator(".tl-view img").count() == 0


def test_whitespace_is_visible_on_demand(open_page):
    page = open_page()
    run_with(page, "a b\tc")
    toggle = page.get_by_role("button", name="Spaces and controls")
    assert "·" not in page.locator(".tl-strip").inner_text()
    toggle.click()
    strip = page.locator(".tl-strip")
    expect(strip).to_contain_text("·")
    expect(strip).to_contain_text("⇥")
    run_with(page, "a b\tc d")
    expect(strip).to_contain_text("·d")  # typing on leaves it as it is
    expect(toggle).to_have_attribute("aria-pressed", "true")


def test_right_to_left_lines_run_right_to_left(open_page):
    page = open_page()
    run_with(page, "שלום עולם 123 abc")
    lines = page.locator(".tl-line")
    assert [lines.nth(i).get_attribute("dir") for i in range(lines.count())] == ["rtl", "ltr"]
    assert "123" in lines.nth(1).inner_text().replace("\n", "")


def test_long_text_is_paged_and_drawn_fast(open_page):
    page = open_page()
    text = " ".join(f"word{i}" for i in range(1500))
    run_with(page, text)
    assert "Page 1 of" in page.locator(".tl-pager").inner_text()
    first = page.locator(".tl-strip").inner_text()[:40]
    page.get_by_role("button", name="Next page").click()
    assert page.locator(".tl-strip").inner_text()[:40] != first
    assert (
        float(page.locator("[data-kind=TokenStrip]").get_attribute("data-drawn")) < 1000
    )  # ms; 300 on a quiet machine


def test_empty_text_says_so(open_page):
    page = open_page()
    page.get_by_label("Your text").first.fill("")
    page.get_by_text("The text is empty, so there is nothing to cut.").wait_for()
    assert page.locator(".tl-problem:visible").count() == 0


def test_a_problem_is_one_sentence_and_loses_nothing(open_page):
    page = open_page()
    run_with(page, "kept")
    page.get_by_label("Your text").first.fill("x" * 30_000)
    page.locator(".tl-problem", has_text="without a space").wait_for()
    assert "kept" in page.locator(".tl-strip").inner_text()
    assert page.locator(".tl-badge").inner_text() == "still the run before"
    run_with(page, "and on")


def test_train_replay_compare_and_download(open_page, tmp_path):
    page = open_page()
    page.get_by_label("Train your own").check()
    page.locator("[data-kind=Replay] .tl-unit").first.wait_for()
    slider = page.get_by_label("Step", exact=True)
    tokens = lambda: int(page.locator("[data-kind=Replay]").get_attribute("data-tokens"))  # noqa: E731
    end = tokens()
    slider.focus()
    page.keyboard.press("Home")
    start = tokens()
    assert start > end
    page.keyboard.press("ArrowRight")
    assert tokens() < start and page.locator(".tl-unit.changed").count() > 0
    page.keyboard.press("End")
    assert tokens() == end
    with page.expect_download() as download:
        page.get_by_role("button", name="Download tokenizer.json").click()
    download.value.save_as(tmp_path / "tokenizer.json")
    from tokenizers import Tokenizer

    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() > 256
    page.get_by_label("Side by side").check()
    page.locator(".tl-totals", has_text="yours").wait_for()
    assert page.locator(".tl-row-name", has_text="yours").count() > 0
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    other = open_page("?" + link.split("?")[1])
    other.locator(".tl-totals", has_text="yours").wait_for()
    assert other.locator(".tl-totals").inner_text() == page.locator(".tl-totals").inner_text()


def test_stop_ends_a_training(open_page):
    page = open_page()
    page.get_by_label("Train your own").check()
    page.locator("[data-kind=Replay] .tl-unit").first.wait_for()
    page.get_by_label("Train on").click()
    page.get_by_role("option", name="your training text").click()
    words = " ".join(f"{a}{b}{c}" for a in "bcdfghjklm" for b in "aeiouy" for c in range(150))
    page.get_by_role("textbox", name="Your training text").fill(" ".join([words] * 28))
    page.get_by_label("number input for Vocabulary size").fill("20000")
    page.get_by_label("Algorithm").click()
    page.get_by_role("option", name="Unigram").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".tl-badge.running").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator(".tl-problem", has_text="stopped").wait_for()


def test_an_uploaded_tokenizer_joins_and_its_link_says_that_it_stays(open_page, tmp_path):
    page = open_page()
    run_with(page, "ab abc")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload tokenizer.json").click()
    chooser.value.set_files(str(TOY))
    page.locator(".tl-totals", has_text="toy_tokenizer.json").wait_for()
    assert page.locator(".tl-totals span", has_text="toy_tokenizer").inner_text().split()[0] == "3"
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Not in the link: the uploaded file").wait_for()


def test_an_upload_beside_a_mistyped_name(open_page):
    page = open_page()
    box = page.locator("#control-compare-tokenizers--tokenizers input")
    box.fill("no such tokenizer")
    page.keyboard.press("Enter")
    page.locator(".tl-problem", has_text="There is no tokenizer").wait_for()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload tokenizer.json").click()
    chooser.value.set_files(str(TOY))
    page.locator("#control-compare-tokenizers--tokenizers", has_text="toy_tokenizer").wait_for()


def test_a_bad_upload_is_one_sentence(open_page, tmp_path):
    page = open_page()
    bad = tmp_path / "tokenizer.json"
    bad.write_bytes(b"\x80\x04\x95" + b"\x00" * 50)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload tokenizer.json").click()
    chooser.value.set_files(str(bad))
    page.locator(".tl-problem:visible").first.wait_for()
    assert "Something went wrong" not in page.locator(".tl-problem:visible").first.inner_text()
    run_with(page, "still here")


def test_an_upload_of_30_mb_is_turned_away(open_page, tmp_path):
    page = open_page()
    (tmp_path / "tokenizer.json").write_bytes(b"{" * 30_000_000)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload tokenizer.json").click()
    chooser.value.set_files(str(tmp_path / "tokenizer.json"))
    page.get_by_text("exceed the maximum allowed size of 20").first.wait_for()
    run_with(page, "still here")


def test_a_stored_file_of_text_fills_the_box(open_page, tmp_path):
    page = open_page()
    (tmp_path / "t.txt").write_text("from a file", "utf-8")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load a text file").first.click()
    chooser.value.set_files(str(tmp_path / "t.txt"))
    page.wait_for_function("document.querySelector('.tl-totals').innerText.includes('11 Bytes')")
    assert page.get_by_label("Your text").first.input_value() == "from a file"


def test_languages_and_charts_in_both_themes(open_page):
    page = open_page()
    page.get_by_label("Languages").check()
    page.locator(".tl-plot .main-svg").first.wait_for()
    assert page.locator("[id$=--costs] tbody tr").count() == 46
    before = page.locator(".tl-plot .bars path").first.evaluate("p => getComputedStyle(p).stroke + p.style.fill")
    page.get_by_role("button", name="Switch between light and dark").click()
    page.wait_for_timeout(800)
    assert (
        page.locator(".tl-plot .bars path").first.evaluate("p => getComputedStyle(p).stroke + p.style.fill") != before
    )
    page.locator("[id$=--premium]").get_by_role("button", name="As a table").click()
    assert page.locator("[id$=--premium] tbody tr").count() == 46
    json.dumps(before)


@pytest.mark.parametrize("part", ["Languages", "Vocabulary", "Train your own"])
@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_every_part_is_accessible_and_fits(open_page, axe, part, width, dark):
    page = open_page(width=width, dark=dark)
    page.get_by_label(part, exact=True).check()
    page.locator(".tl-badge.now").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)  # charts
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
