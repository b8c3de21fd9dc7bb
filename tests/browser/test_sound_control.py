"""The control for sounds in a real browser, with a microphone that plays a file: choose, type, upload, record."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.browser import chromium
from tokenlab import sounds

ROOT = Path(__file__).parents[2]
MICROPHONE = ["--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """(address, folder of uploads) of sound_panel.py in a process of its own."""
    folder = tmp_path_factory.mktemp("uploads")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {**os.environ, "GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "tests.browser.sound_panel", str(port)], cwd=ROOT, env=env)
    try:
        for _ in range(450):
            assert process.poll() is None, "the panel ended at its start"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5).read()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def opened(browser, panel):
    """opened(options of Chromium, width, dark) -> a page with the control; it writes no error to the console."""
    browsers, problems = [], []

    def open_page(options=(), width=900, dark=False):
        program = os.environ.get("CHROMIUM") or chromium.find()
        args = ["--no-sandbox", "--disable-background-networking", *options]
        browsers.append(browser.browser_type.launch(executable_path=program, args=args))
        settings = {"viewport": {"width": width, "height": 700}, "color_scheme": "dark" if dark else "light"}
        page = browsers[-1].new_context(**settings).new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.goto(panel[0])
        page.get_by_role("button", name="Record").wait_for()
        return page

    yield open_page
    for each in browsers:
        each.close()
    assert problems == []


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    """A file of a tone of 700 Hz, at half of full scale, for the microphone to play."""
    path = tmp_path_factory.mktemp("microphone") / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 700 * np.arange(5 * 48_000) / 48_000), 48_000)
    return path


def about(page, pattern):
    """Wait until the page has something to say of the sound, and give it as the groups of `pattern`."""
    box = page.locator("#about textarea")
    for _ in range(300):
        if found := re.fullmatch(pattern, box.input_value()):
            return found.groups()
        page.wait_for_timeout(100)
    raise AssertionError(box.input_value())


def shown(page):
    return page.get_by_label("Sound", exact=True).input_value()


def files_left(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def test_what_the_microphone_hears_arrives_as_it_is(opened, panel, tone):
    page = opened([*MICROPHONE, "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={tone}"])
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop (1 s)").click()
    seconds, hertz = about(page, r"recording\.wav \w{4} \| (\S+) \| (\d+)")
    assert 0.8 < float(seconds) < 2.9 and abs(int(hertz) - 700) <= 2
    assert shown(page).startswith("recording.wav") and files_left(panel[1]) == []
    page.get_by_role("button", name="Record").click()  # ends by itself
    page.get_by_role("button", name="Stop (2 s)").wait_for()
    page.get_by_role("button", name="Record").wait_for()
    page.wait_for_function(f"() => document.querySelector('#control-toy--sound input').value != '{shown(page)}'")
    (seconds,) = about(page, r"recording\.wav \w{4} \| (2\.[4-9]\d|3\.[0-4]\d) \| \d+")
    assert files_left(panel[1]) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([*MICROPHONE, "--deny-permission-prompts"], "does not allow this page to use the microphone"),
        ([], "There is no microphone"),
    ],
    ids=["denied", "none"],
)
def test_without_a_microphone_there_is_one_sentence_and_the_rest_works(opened, options, says):
    page = opened(options)
    page.get_by_role("button", name="Record").click()
    page.locator(".tl-recorder-said", has_text=says).wait_for()
    page.locator("input[type=file]").set_input_files(sounds.FOLDER / "bell.flac")
    assert about(page, r"bell\.flac \w{4} \| (\S+) \| \d+") == ("4.00",)


def test_a_sentence_is_typed_and_spoken(opened):
    pytest.importorskip("espeakng_loader")
    page = opened()
    box = page.get_by_label("Sound", exact=True)
    box.fill("say:de:Guten Tag <b>")
    page.keyboard.press("Enter")
    about(page, r"Guten Tag <b> \| (\S+) \| \d+")
    box.fill("say:nowhere:Guten Tag")
    page.keyboard.press("Enter")
    about(page, "espeak-ng has no voice of that name(.+)")


def test_a_sound_is_chosen_by_its_name(opened):
    page = opened()
    page.get_by_label("Sound", exact=True).click()
    page.get_by_role("option", name="Bell").click()
    about(page, r"Bell \| (\S+) \| \d+")


def test_text_named_wav_is_one_sentence_until_a_sound_comes(opened, panel, tmp_path):
    page = opened()
    (tmp_path / "a.wav").write_text("Dear reader, this is text.")
    page.locator("input[type=file]").set_input_files(tmp_path / "a.wav")
    page.locator(".tl-problem", has_text="save it as WAV, FLAC, OGG (Vorbis or Opus) or MP3").wait_for()
    assert shown(page) == "Pure tones" and files_left(panel[1]) == []
    page.locator("input[type=file]").set_input_files(sounds.FOLDER / "bell.flac")
    about(page, r"bell\.flac \w{4} \| (4\.00) \| \d+")
    assert page.locator(".tl-problem").count() == 0


@pytest.mark.parametrize(("width", "dark"), [(900, False), (900, True), (390, False)])
def test_accessible_and_no_wider_than_the_screen(opened, axe, width, dark):
    page = opened([*MICROPHONE, "--deny-permission-prompts"], width, dark)
    page.get_by_role("button", name="Record").click()
    page.locator(".tl-recorder-said:not(:empty)").wait_for()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
