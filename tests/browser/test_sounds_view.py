"""Versions of a sound that play in step, their blind test and their pictures, in a real browser.

What comes out is recorded by an AnalyserNode behind the player. The toy tracks are noise, so that every recorded
sample tells which one it is of which track.
"""

import base64
import io
import math

import numpy as np
import pytest
import soundfile
from playwright.sync_api import TimeoutError

from components.views import script
from tests.browser.conftest import EMPTY, ROOT
from tests.browser.drawing import draw, png
from tokenlab import views

RATE, SECONDS = 24_000, 2.0
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, int(RATE * SECONDS))
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def flac(wave, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def mel(columns=20, bands=4, level=100, **cells):
    """A grey picture of one level; r1c5=40 sets row 1 (from the top), column 5 to 40."""
    grey = np.full((bands, columns), level)
    for name, grey_value in cells.items():
        row, column = map(int, name[1:].split("c"))
        grey[row, column] = grey_value
    return png(grey)


# 20 frames of 0.1 s; level 1 says 0, 1, 2, ..., level 2 says 7 throughout.
TOKENS = views.SoundTokens(
    name="toy",
    rate=10.0,
    ids=(tuple(range(20)), (7,) * 20),
    sizes=(1024, 8),
    seen=(tuple(range(20)), (500,) * 20),
    counted=1000,
    marks={3: "changed"},
)
PLUS = views.Track(name="plus", flac=flac(NOISE), mel=mel(), facts={"size": "large"})
MINUS = views.Track(name="minus", flac=flac(-NOISE), mel=mel(r1c5=227), tokens=0, heard=(0,), facts={"kbit/s": 6})
QUIET = views.Track(name=HOSTILE, flac=flac(NOISE / 4), mel=mel(r1c5=0), gain=2.0, tokens=0)


def sounds(*tracks, **more):
    return views.Sounds(
        title="Hear it",
        tracks=tracks,
        seconds=SECONDS,
        hertz=(100.0, 1000.0, 4000.0, 8000.0),
        db=(-75.0, 0.0),
        mel_rate=10.0,
        tokens=(TOKENS,),
        **more,
    )


THREE = sounds(PLUS, MINUS, QUIET)
STATE = "document.getElementById('drawn').tlSounds"


@pytest.fixture
def drawn(drawn_alone):
    """drawn(view) -> a page that holds nothing but the view and is as tall as it."""
    return lambda view=THREE: drawn_alone(view, 1000, 1200)


def ask(page, expression):
    return page.evaluate(f"() => {{ const state = {STATE}, player = state.player; return {expression}; }}")


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def track(page, i):
    return page.locator("#drawn .tl-snd-track").nth(i)


def heard(page):
    return [i for i in range(page.locator(".tl-snd-track").count()) if pressed(track(page, i))]


def pressed(button):
    return button.get_attribute("aria-pressed") == "true"


def listen(page):
    """Puts the recorder behind the player, which must have played."""
    page.evaluate(
        f"""() => {{
            const player = {STATE}.player;
            window.ear = new AnalyserNode(player.context, {{ fftSize: 32768 }});
            player.out.connect(window.ear);
        }}"""
    )


def recorded(page, ms, then="null", size=None):
    """What came out in the last `ms` (or the last `size` samples); `then` is evaluated halfway."""
    text = page.evaluate(
        f"""async ([ms, size]) => {{
            const player = {STATE}.player, wait = (time) => new Promise((done) => setTimeout(done, time));
            await wait(ms / 2); {then}; await wait(ms / 2);
            const out = new Float32Array(window.ear.fftSize);
            window.ear.getFloatTimeDomainData(out);
            window.heardUntil = player.context.currentTime;
            return Array.from(out.slice(-(size || Math.round((player.rate * (ms - 60)) / 1000))));
        }}""",
        [ms, size],
    )
    return np.asarray(text)


def place(samples):
    """Where in the noise these samples begin, and the factor that makes it them."""
    length = len(NOISE)
    found = np.fft.irfft(np.fft.rfft(samples, length).conj() * np.fft.rfft(NOISE), length)
    start = int(np.abs(found).argmax())
    part = NOISE[(start + np.arange(len(samples))) % length]
    factor = float(samples @ part / (part @ part))
    assert np.abs(samples - factor * part).max() < 1e-4, "not a piece of any track"
    return start, factor


def playing(page):
    """Plays in a loop and is being recorded."""
    press(page, "Loop")
    press(page, "Play")
    page.wait_for_function(f"{STATE}.player.gains().length > 0")
    listen(page)
    return page


def test_a_switch_has_no_gap_and_is_aligned_to_the_sample(drawn):
    page = playing(drawn())
    out = recorded(page, 700, then="player.choose(1)")
    first, last = place(out[:2400]), place(out[-2400:])
    assert first[1] == pytest.approx(1, abs=1e-3) and last[1] == pytest.approx(-1, abs=1e-3)
    assert (last[0] - first[0]) % len(NOISE) == len(out) - 2400
    # In between, the noise is only scaled, from 1 to -1 within 5 ms (and a block of 128 samples).
    part = NOISE[(first[0] + np.arange(len(out))) % len(NOISE)]
    changing = np.flatnonzero((np.abs(np.abs(out) - np.abs(part)) > 1e-3) & (np.abs(part) > 0.01))
    assert 50 < np.ptp(changing) < 0.005 * RATE + 128
    assert ask(page, "player.gains()") == [0, 1, 0] and heard(page) == [1]


def test_only_the_chosen_gain_is_open_and_the_position_goes_on(drawn):
    page = playing(drawn())
    page.wait_for_timeout(100)
    assert ask(page, "player.gains()") == [1, 0, 0]
    before = ask(page, "player.position()")
    track(page, 2).click()
    page.wait_for_timeout(100)
    assert ask(page, "player.gains()") == [0, 0, 2]
    assert 0.08 < (ask(page, "player.position()") - before) % SECONDS < 1
    assert page.locator("#drawn [role=status]").inner_text() == f"Now: {HOSTILE}"
    press(page, "Pause")
    stopped = ask(page, "player.position()")
    page.wait_for_timeout(100)
    assert ask(page, "player.position()") == stopped and ask(page, "player.gains()") == []


def test_loudness_is_matched_until_it_is_turned_off(drawn):
    page = playing(drawn())
    track(page, 2).click()
    assert place(recorded(page, 400)[-2400:])[1] == pytest.approx(0.5, abs=1e-3)
    press(page, "Loudness matched")
    assert place(recorded(page, 400)[-2400:])[1] == pytest.approx(0.25, abs=1e-3)


def test_nothing_is_clipped_by_matching(drawn):
    loud = views.Track(name="loud", flac=flac(NOISE), mel=mel(), gain=4.0)
    page = playing(drawn(sounds(PLUS, loud)))
    peak = np.abs(NOISE).max()
    assert place(recorded(page, 400)[-2400:])[1] == pytest.approx(1 / (4 * peak), abs=1e-3)
    track(page, 1).click()
    assert np.abs(recorded(page, 400)).max() <= 1.001


def test_a_region_loops_to_the_sample(drawn):
    page = drawn()
    box = page.locator(".tl-snd-stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40, steps=3)
    page.mouse.up()
    start, end = ask(page, "player.region")
    assert (start, end) == (pytest.approx(0.5, abs=0.01), pytest.approx(1.0, abs=0.01))
    assert pressed(page.get_by_role("button", name="Loop", exact=True))
    press(page, "Play")
    page.wait_for_function(f"{STATE}.player.gains().length > 0")
    listen(page)
    out = recorded(page, 1300)
    first, size = round(start * RATE), round(end * RATE) - round(start * RATE)
    begin = next(k for k in range(size) if np.abs(out[:50] - NOISE[first + (k + np.arange(50)) % size]).max() < 1e-4)
    assert np.abs(out - NOISE[first + (begin + np.arange(len(out))) % size]).max() < 1e-4
    assert len(out) > 2 * size
    press(page, "Clear region")
    assert ask(page, "player.region") is None and page.locator(".tl-snd-region").is_hidden()


def test_it_stops_at_the_end_and_begins_again(drawn):
    page = drawn()
    page.locator(".tl-snd-stage").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".tl-snd-time").inner_text() == "1.90 / 2.00 s"
    page.keyboard.press("Space")
    page.wait_for_function(f"!{STATE}.player.playing")
    assert page.locator(".tl-snd-time").inner_text() == "2.00 / 2.00 s"
    page.keyboard.press("Space")
    page.wait_for_timeout(250)
    assert ask(page, "player.playing") and ask(page, "player.position()") < 1.5


def test_keys(drawn):
    page = drawn()
    stage = page.locator(".tl-snd-stage")
    page.keyboard.press("2")
    assert heard(page) == [0]  # the focus is elsewhere
    stage.focus()
    page.keyboard.press("2")
    assert heard(page) == [1]
    page.keyboard.press("9")
    assert heard(page) == [1]
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert stage.get_attribute("aria-valuetext") == "0.31 of 2.00 seconds"
    page.keyboard.press("[")
    page.keyboard.press("PageUp")
    page.keyboard.press("]")
    assert ask(page, "player.region") == [pytest.approx(0.31), pytest.approx(1.31)]
    page.keyboard.press("l")
    assert ask(page, "player.loop") is False
    page.keyboard.press("ArrowUp")  # from the middle band of four, the third one from below
    assert stage.get_attribute("aria-valuetext") == (
        "1.31 of 2.00 seconds, 4,000 Hz · −46 dB · first version −46 dB · difference 0 dB"
    )
    page.keyboard.press("+")
    assert ask(page, "state.zoom") == 2
    page.keyboard.press("-")
    assert ask(page, "state.zoom") == 1
    track(page, 1).focus()
    page.keyboard.press("Space")
    assert ask(page, "player.playing")
    page.get_by_text("Blind test (ABX)").click()
    page.get_by_label("Trials").press("3")
    assert heard(page) == [1] and page.get_by_label("Trials").input_value() != "10"


def test_a_click_seeks_and_one_outside_clears_the_region(drawn):
    page = drawn()
    box = page.locator(".tl-snd-stage").bounding_box()
    page.evaluate(f"{STATE}.player.setRegion(0.5, 1)")
    page.mouse.click(box["x"] + box["width"] * 0.4, box["y"] + 20)
    assert ask(page, "player.position()") == pytest.approx(0.8, abs=0.01)
    assert ask(page, "player.region") == [0.5, 1]
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + 20)
    assert ask(page, "player.position()") == pytest.approx(1.8, abs=0.01) and ask(page, "player.region") is None


def test_one_view_plays_at_a_time_and_none_after_it_has_left(drawn):
    page = playing(drawn())
    page.evaluate("document.getElementById('drawn').id = 'other'")
    draw(page, THREE)
    page.locator("#drawn").get_by_role("button", name="Loop", exact=True).click()
    page.locator("#drawn .tl-snd-play").click()
    page.wait_for_function("!document.getElementById('other').tlSounds.player.playing")
    assert ask(page, "player.playing")
    page.evaluate("() => { window.kept = document.getElementById('drawn'); window.kept.remove(); }")
    page.wait_for_function("!window.kept.tlSounds.player.playing")


def test_drawn_again_it_plays_on_and_new_versions_join_in_step(drawn):
    page = playing(drawn(sounds(PLUS, MINUS)))
    track(page, 1).click()
    press(page, "Zoom in")
    track(page, 1).focus()
    before = place(recorded(page, 300)[-2400:])
    began = page.evaluate("window.heardUntil")
    draw(page, THREE)
    assert heard(page) == [1] and ask(page, "player.playing") and ask(page, "state.zoom") == 2
    assert page.evaluate("document.activeElement.dataset.snd") == "track minus"
    page.wait_for_function(f"{STATE}.player.gains().every((gain) => gain !== null)")
    out = recorded(page, 700, then="player.choose(2)")
    first, last = place(out[:2400]), place(out[-2400:])
    assert before[1] == pytest.approx(-1, abs=1e-3)
    assert (first[1], last[1]) == (pytest.approx(-1, abs=1e-3), pytest.approx(0.5, abs=1e-3))
    assert (last[0] - first[0]) % len(NOISE) == len(out) - 2400
    passed = page.evaluate("window.heardUntil") - began
    assert ((last[0] - before[0]) / RATE - passed + 0.5) % SECONDS == pytest.approx(0.5, abs=0.01)


def test_another_sound_begins_anew_with_the_same_switches(drawn):
    page = drawn()
    track(page, 1).click()
    page.evaluate(f"{STATE}.player.setRegion(0.5, 1)")
    press(page, "Play")
    other = views.Track(name="plus", flac=flac(NOISE[::-1]), mel=mel())
    draw(page, sounds(other, MINUS))
    assert heard(page) == [1]
    assert ask(page, "[player.playing, player.position(), player.region, player.loop]") == [False, 0, None, True]


# ---- the blind test


def begin_test(page, keys, trials):
    page.evaluate(f"(keys) => {{ {STATE}.coin = () => keys.shift(); }}", keys)
    page.get_by_text("Blind test (ABX)").click()
    page.get_by_label("Trials").fill(str(trials))
    page.get_by_role("button", name="Start", exact=True).click()


def test_a_blind_test_counts_and_gives_its_probability(drawn):
    page = drawn()
    track(page, 2).click()
    press(page, "Loudness matched")
    begin_test(page, [0, 1, 1, 0, 1], 5)
    assert page.get_by_text("Trial 1 of 5").is_visible() and not page.get_by_text(HOSTILE).first.is_visible()
    assert pressed(page.get_by_role("button", name="A", exact=True))
    assert page.get_by_role("button", name="Loudness matched").is_disabled() and ask(page, "player.matched")
    for said, x in zip("ABBAA", [0, 2, 2, 0, 2], strict=True):
        page.keyboard.press("b")
        assert ask(page, "player.chosen") == 2
        page.keyboard.press("x")
        assert ask(page, "player.chosen") == x
        page.keyboard.press("2")
        assert ask(page, "player.chosen") == x  # the player is locked
        press(page, f"X is {said}")
    text = page.locator(".tl-snd-test").inner_text()
    assert f"A: plus · B: {HOSTILE}" in text
    assert "4 of 5 right, p = 0.1875." in text  # (5 + 1) / 32
    assert "no evidence that you hear a difference" in text
    rows = page.locator(".tl-snd-answers li").all_inner_texts()
    assert rows[0] == "X was A, you said A ✓ right" and rows[4] == "X was B, you said A ✗ wrong"
    assert heard(page) == [2] and not ask(page, "player.matched") and page.title() == "TokenLab"
    assert page.evaluate("document.activeElement.className") == "tl-snd-outcome"
    press(page, "Another test")
    assert page.get_by_label("Trials").input_value() == "5"


def test_all_right_is_a_difference_and_an_early_end_is_said(drawn):
    page = drawn()
    begin_test(page, [1] * 10, 10)
    for _ in range(9):
        press(page, "X is B")
    press(page, "Stop and show")
    text = page.locator(".tl-snd-test").inner_text()
    assert "9 of 9 right, p = 0.0020." in text and "you very likely hear a difference" in text
    assert "Stopped after 9 of 10" in text


def test_in_a_blind_test_every_switch_sounds_the_same(drawn):
    """Whether X is the version heard or the other one, the same short dip comes before it."""
    page = playing(drawn())
    begin_test(page, [0, 1], 2)
    dips = []
    for _ in range(2):
        out = recorded(page, 500, then="document.querySelector('[data-hears=x]').click()")
        start, _ = place(out[:2400])
        part = NOISE[(start + np.arange(len(out))) % len(NOISE)]
        share = np.abs(out)[np.abs(part) > 0.1] / np.abs(part)[np.abs(part) > 0.1]
        dips.append((share.min() < 0.05, int((share < 0.99).sum())))
        press(page, "X is A")
        if page.locator(".tl-snd-outcome").count() == 0:
            page.wait_for_timeout(500)
    assert dips[0][0] and dips[1][0] and dips[0][1] == pytest.approx(dips[1][1], abs=30)


def test_a_blind_test_outlives_more_versions_but_not_a_changed_one(drawn):
    page = drawn(sounds(PLUS, MINUS))
    begin_test(page, [1, 1, 1], 3)
    press(page, "X is B")
    draw(page, THREE)
    assert page.get_by_text("Trial 2 of 3").is_visible()
    press(page, "X is B")
    press(page, "X is B")
    assert "3 of 3 right, p = 0.1250." in page.locator(".tl-snd-test").inner_text()
    press(page, "Another test")
    page.evaluate(f"{STATE}.coin = () => 0")
    press(page, "Start")
    draw(page, sounds(PLUS, views.Track(name="minus", flac=flac(NOISE / 2), mel=mel())))
    assert page.get_by_text("Trial 1 of 3").count() == 0 and track(page, 0).is_visible()


def test_two_equal_versions_or_no_trials_are_refused(drawn):
    page = drawn()
    begin_test(page, [], 0)
    assert page.get_by_text("Choose 1 to 50 trials.").is_visible()
    page.get_by_label("Trials").fill("5")
    page.locator("#drawn select").nth(1).select_option(index=0)
    press(page, "Start")
    assert page.get_by_text("Choose two different versions.").is_visible()


def test_the_tail_is_exact_and_the_coin_is_fair(drawn):
    page = drawn(sounds(PLUS, blind=False))
    assert page.get_by_text("Blind test (ABX)").count() == 0
    tails = page.evaluate("[[0, 10], [8, 10], [10, 10], [25, 50], [50, 50]].map(([k, n]) => TL.tail(k, n))")
    assert tails == [1, 56 / 1024, 1 / 1024, 0.5 + math.comb(50, 25) / 2**51, 2**-50]
    ones = page.evaluate("Array.from({ length: 4000 }, TL.coin).filter((bit) => bit === 1).length")
    zeros = page.evaluate("Array.from({ length: 4000 }, TL.coin).filter((bit) => bit === 0).length")
    assert 1800 < ones < 2200 and 1800 < zeros < 2200


# ---- the pictures


def colour(page, canvas, x, y):
    """The colour of picture number `canvas` (wave, spectrogram, axis, tokens) at (x, y), shares of its sides."""
    return (
        page.locator(".tl-snd-pane canvas")
        .nth(canvas)
        .evaluate(
            """(canvas, [x, y]) => Array.from(canvas.getContext("2d")
            .getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data).slice(0, 3)""",
            [x, y],
        )
    )


def at_cell(page, level, frame):
    box = page.locator(".tl-snd-tokens").bounding_box()
    return box["x"] + (frame + 0.5) / 20 * box["width"], box["y"] + 7 + 15 * level + 7


def test_the_difference_has_the_right_colour_at_every_pixel(drawn):
    page = drawn()
    track(page, 1).click()
    press(page, "difference")
    there, beside = (5.5 / 20, 1.5 / 4), (6.5 / 20, 1.5 / 4)
    assert colour(page, 1, *there) == [180, 70, 10]  # 127 / 255 * 75 dB, more than the 24 dB where the colours end
    assert colour(page, 1, *beside) == [250, 248, 244]
    track(page, 2).click()
    assert colour(page, 1, *there) == [29, 78, 160] and colour(page, 1, *beside) == [250, 248, 244]
    slight = views.Track(name="slight", flac=PLUS.flac, mel=mel(r1c5=134))  # 10 dB: 10 / 24 of the way
    draw(page, sounds(PLUS, slight))
    track(page, 1).click()
    assert colour(page, 1, *there) == pytest.approx([250 - 70 / 2.4, 248 - 178 / 2.4, 244 - 234 / 2.4], abs=1)


def test_pointing_at_the_spectrogram_reads_it(drawn):
    page = drawn()
    track(page, 1).click()
    box = page.locator(".tl-snd-stage canvas").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5.5 / 20, box["y"] + box["height"] * 1.5 / 4)
    said = page.locator(".tl-snd-said").inner_text()
    assert said == "0.55 s · 4,000 Hz · −8 dB · first version −46 dB · difference +37 dB"


def test_the_wave_is_that_of_the_version_heard(drawn):
    steps = np.repeat([0.0, 0.8], int(RATE * SECONDS / 2))
    page = drawn(sounds(PLUS, views.Track(name="steps", flac=flac(steps), mel=mel())))
    ink = colour(page, 0, 0.25, 0.4)
    assert colour(page, 0, 0.75, 0.4) == ink != [0, 0, 0]
    track(page, 1).click()
    assert colour(page, 0, 0.25, 0.1) == [0, 0, 0] == colour(page, 0, 0.75, 0.9)
    assert colour(page, 0, 0.75, 0.025) != [0, 0, 0]  # 0.8 is the peak of all


def test_a_token_says_what_it_is_and_how_common(drawn):
    page = drawn()
    track(page, 1).click()
    page.mouse.move(*at_cell(page, 0, 3))
    said = page.locator(".tl-snd-said").inner_text()
    assert said.startswith("Code 3 of 1,024 · level 1, frame 4 · 0.300 to 0.400 s")
    assert said.endswith("changed · 10 bits · came up 3 times in 1,000 held-out tokens of this level (0.3 %)")
    page.mouse.move(*at_cell(page, 1, 1))
    said = page.locator(".tl-snd-said").inner_text()
    assert "Code 7 of 8 · level 2, frame 2" in said and "3 bits · came up 500 times" in said
    assert said.endswith("(50 %) · left out of this version")
    page.mouse.move(*at_cell(page, 0, 0))
    assert "never came up in 1,000" in page.locator(".tl-snd-said").inner_text()
    assert page.locator(".tl-snd-y .off").all_inner_texts() == ["2"]
    track(page, 2).click()
    assert page.locator(".tl-snd-y .off").count() == 0
    track(page, 0).click()
    assert "not decoded from tokens" in page.locator(".tl-snd-said").inner_text()


def test_equal_codes_have_equal_colours_and_levels_left_out_are_pale(drawn):
    page = drawn()
    track(page, 2).click()
    row = [colour(page, 3, (frame + 0.5) / 20, 30 / 37) for frame in (0, 7, 19)]
    assert row[0] == row[1] == row[2] == colour(page, 3, 7.5 / 20, 14 / 37)  # code 7, on either level
    first = [tuple(colour(page, 3, (frame + 0.5) / 20, 14 / 37)) for frame in range(20)]
    assert len(set(first)) == 20
    alpha = """canvas => canvas.getContext("2d")
        .getImageData(canvas.width * 0.52, (canvas.height * 30) / 37, 1, 1).data[3]"""
    strip = page.locator(".tl-snd-tokens canvas")
    assert strip.evaluate(alpha) == 255
    track(page, 1).click()
    assert strip.evaluate(alpha) == 50


def test_a_click_on_a_token_plays_its_piece_of_the_version_heard(drawn):
    page = drawn()
    track(page, 1).click()
    page.mouse.click(*at_cell(page, 1, 5))
    assert ask(page, "player.snippet") == {"track": "minus", "from": pytest.approx(0.44), "to": pytest.approx(0.66)}
    page.wait_for_timeout(400)  # until that piece has been heard
    listen(page)
    page.mouse.click(*at_cell(page, 0, 5))
    out = recorded(page, 400, size=32768)
    sounding = np.flatnonzero(np.abs(out) > 1e-3)
    assert np.ptp(sounding) == pytest.approx(0.22 * RATE, abs=5)
    start, factor = place(out[sounding[0] + 400 : sounding[0] + 2800])
    assert start == pytest.approx(0.44 * RATE + 400, abs=5) and factor == pytest.approx(-1, abs=1e-3)
    assert not ask(page, "player.playing")


def test_keys_walk_over_the_tokens(drawn):
    page = drawn()
    track(page, 1).click()
    page.evaluate(f"{STATE}.player.seek(1)")
    page.locator("#drawn .tl-snd-tokens").focus()
    said = page.locator(".tl-snd-said")
    for key, where in [
        ("ArrowRight", "level 1, frame 12"),
        ("ArrowDown", "level 2, frame 12"),
        ("Home", "level 2, frame 1"),
        ("End", "level 2, frame 20"),
    ]:
        page.keyboard.press(key)
        assert where in said.inner_text()
    page.keyboard.press("Enter")
    assert ask(page, "player.snippet.to") == 2
    page.keyboard.press("1")
    assert heard(page) == [0]


def touch(page, *steps):
    """Fingers on the screen: each step is a list of (x, y), the last one lifts them."""
    session = page.context.new_cdp_session(page)
    kinds = ["touchStart"] + ["touchMove"] * (len(steps) - 1)
    for kind, points in zip([*kinds, "touchEnd"], [*steps, []], strict=True):
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def tap_until(page, x, y, done):
    """On a busy machine a tap may last so long that the browser takes it for a long press, which is no click."""
    for _ in range(5):
        page.touchscreen.tap(x, y)
        try:
            return page.wait_for_function(done, timeout=2000)
        except TimeoutError:
            continue
    raise AssertionError("five taps did nothing")


def test_fingers_seek_choose_a_region_zoom_and_play_a_token(new_page):
    page = new_page(10_000, viewport={"width": 390, "height": 1200}, has_touch=True)
    page.set_content(EMPTY)
    page.add_style_tag(path=ROOT / "assets" / "style.css")
    page.add_script_tag(content=script())
    draw(page, THREE)
    track(page, 1).click()
    box = page.locator(".tl-snd-stage").bounding_box()
    left, wide, y = box["x"], box["width"], box["y"] + 40
    touch(page, [(left + 0.3 * wide, y)])
    assert ask(page, "player.position()") == pytest.approx(0.6, abs=0.01)
    touch(page, [(left + 0.2 * wide, y)], [(left + 0.3 * wide, y)], [(left + 0.4 * wide, y + 2)])
    assert ask(page, "player.region") == [pytest.approx(0.4, abs=0.01), pytest.approx(0.8, abs=0.01)]
    x, down = at_cell(page, 0, 5)
    tap_until(page, x, down, f"{STATE}.player.snippet")
    assert ask(page, "player.snippet.from") == pytest.approx(0.44)
    assert "level 1, frame 6" in page.locator(".tl-snd-said").inner_text()
    middle = left + wide / 2
    touch(page, *([(middle - far, y), (middle + far, y)] for far in (50, 70, 100)))
    assert ask(page, "state.zoom") == pytest.approx(2, abs=0.1)
    assert sum(ask(page, "[state.from, 1 / state.zoom]")) == pytest.approx(1, abs=0.05)  # the middle stays
    assert ask(page, "player.region") == [pytest.approx(0.4, abs=0.01), pytest.approx(0.8, abs=0.01)]


def test_zooming_keeps_all_pictures_in_step(drawn):
    page = drawn()
    track(page, 1).click()
    press(page, "Zoom in")
    page.locator(".tl-snd-scroll").evaluate("node => { node.scrollLeft = node.scrollWidth / 2; }")
    page.wait_for_function(f"Math.abs({STATE}.from - 1) < 0.01")
    # Now 1 to 2 s fill the width.
    box = page.locator(".tl-snd-scroll").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.65, at_cell(page, 0, 0)[1])
    assert "frame 17 ·" in page.locator(".tl-snd-said").inner_text()
    lefts = page.locator(".tl-snd-pane canvas").evaluate_all(
        "nodes => nodes.map(node => Math.round(node.getBoundingClientRect().left))"
    )
    assert len(set(lefts)) == 1 and abs(lefts[0] - box["x"]) <= 1
    page.mouse.wheel(0, -200)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"{STATE}.zoom === 4")
    page.keyboard.up("Control")
    press(page, "Zoom out to the whole sound")
    assert ask(page, "[state.zoom, state.from]") == [1, 0]


def test_twenty_seconds_of_eight_levels_are_drawn_quickly(drawn):
    rng = np.random.default_rng(1)
    ids = tuple(tuple(map(int, line)) for line in rng.integers(0, 1024, (8, 1500)))
    long = [flac(rng.uniform(-0.5, 0.5, 20 * RATE)) for _ in range(2)]
    page = drawn(
        views.Sounds(
            title="Long",
            tracks=tuple(
                views.Track(name=str(i), flac=wave, mel=mel(1500, 100), tokens=0) for i, wave in enumerate(long)
            ),
            seconds=20.0,
            hertz=tuple(map(float, range(50, 10050, 100))),
            db=(-80.0, 0.0),
            tokens=(views.SoundTokens(name="rvq", rate=75.0, ids=ids, sizes=(1024,) * 8),),
        )
    )
    took = page.evaluate(
        """() => {
            const tracks = [...document.querySelectorAll(".tl-snd-track")], started = performance.now();
            for (let i = 0; i < 10; i++) tracks[i % 2].click();
            return (performance.now() - started) / 10;
        }"""
    )
    assert took < 100  # ms for all pictures, on a busy core


# ---- without Web Audio, and around it


def test_without_web_audio_there_are_plain_players(drawn_alone, new_page):
    page = drawn_alone(sounds(PLUS), 1000, 1200)
    page.evaluate("() => { delete window.AudioContext; document.getElementById('drawn').remove(); }")
    draw(page, THREE)
    assert page.get_by_text("This browser cannot mix sounds").is_visible()
    assert page.locator("#drawn audio").evaluate_all("nodes => nodes.map(n => n.getAttribute('aria-label'))") == [
        "plus",
        "minus",
        HOSTILE,
    ]
    assert page.locator("#drawn .tl-snd-play").is_hidden() and page.get_by_text("Blind test (ABX)").count() == 0
    track(page, 1).click()
    press(page, "difference")
    assert colour(page, 1, 5.5 / 20, 1.5 / 4) == [180, 70, 10]
    page.wait_for_function("[...document.querySelectorAll('#drawn audio')].every((one) => one.duration === 2)")
    assert page.locator("#drawn img").count() == 0


def test_a_version_that_cannot_be_decoded_is_played_plainly(drawn):
    broken = views.Track(name="broken", flac=base64.b64encode(b"no sound").decode(), mel=mel())
    page = drawn(sounds(PLUS, broken, MINUS))
    assert page.get_by_text("could not be decoded").is_visible()
    assert page.locator("#drawn audio").count() == 1 and track(page, 1).is_disabled()
    page = playing(page)
    track(page, 2).click()
    assert place(recorded(page, 300)[-2400:])[1] == pytest.approx(-1, abs=1e-3)
    assert [gain is None for gain in ask(page, "player.gains()")] == [False, True, False]


def test_no_versions(drawn):
    assert drawn(sounds()).get_by_text("nothing to hear yet").is_visible()


def test_a_version_is_taken_away_as_it_is(drawn):
    page = drawn()
    with page.expect_download() as download:
        press(page, "Download minus as FLAC")
    assert download.value.suggested_filename == "hear-it-minus.flac"
    assert download.value.path().read_bytes() == base64.b64decode(MINUS.flac)


def test_the_facts_are_those_of_the_version_heard(drawn):
    page = drawn()
    assert page.locator(".tl-snd-facts .on").inner_text().split() == ["size", "large"]
    track(page, 1).click()
    assert page.locator(".tl-snd-facts .on").inner_text().split() == ["kbit/s", "6"]
    assert "[object" not in page.locator("#drawn").text_content()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(drawn_in_app, axe, width, dark):
    page = drawn_in_app(THREE, width, dark)
    begin_test(page, [0, 1, 0], 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        assert axe(page) == []
    press(page, "X is A")
    press(page, "Stop and show")
    track(page, 1).click()
    press(page, "Zoom in")
    assert axe(page) == [] and page.evaluate("document.documentElement.scrollWidth") <= width
