"""The app: start, weight, panel switch, drawing. Prints ratios and times measured in one run.

python -m benchmarks.app      (needs requirements-dev.txt and a Chromium)
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
ROUNDS = 3
EMPTY = """
import os
import gradio as gr
with gr.Blocks() as demo:
    text, out = gr.Textbox(), gr.Textbox()
    text.change(lambda t: t, text, out, api_name="echo")
demo.launch(server_port=int(os.environ["GRADIO_SERVER_PORT"]), quiet=True)
"""
SWITCHES = ("less-is-better", "compare-tokenizers", "data-mixture", "compare-tokenizers")


class Server:
    """A Gradio process; `seconds` from its start to the first answered page."""

    def __init__(self, command: list[str]):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "GRADIO_SERVER_PORT": str(port)}, stdout=subprocess.DEVNULL
        )
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=10).read()
                break
            except OSError:
                time.sleep(0.02)
        self.seconds = time.perf_counter() - started

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def starts() -> tuple[float, float]:
    """Median seconds to the first page: (ours, an empty Gradio app), taking turns."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as empty:
        empty.write(EMPTY)
        empty.flush()
        ours, theirs = [], []
        for _ in range(ROUNDS):
            for command, seconds in (([sys.executable, "app.py"], ours), ([sys.executable, empty.name], theirs)):
                server = Server(command)
                seconds.append(server.seconds)
                server.stop()
    return statistics.median(ours), statistics.median(theirs)


def ready(page: Page, url: str) -> tuple[float, int]:
    """Seconds until the first strip is drawn, and bytes that came over the wire."""
    weight = [0]
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on(
        "Network.loadingFinished", lambda event: weight.__setitem__(0, weight[0] + int(event["encodedDataLength"]))
    )
    started = time.perf_counter()
    page.goto(url)
    page.locator(".tl-strip .tl-tok").first.wait_for()
    seconds = time.perf_counter() - started
    page.wait_for_timeout(500)
    return seconds, weight[0]


def switch(page: Page) -> float:
    """Median seconds from a click in the picker to the other panel's last view."""
    seconds = []
    for slug in SWITCHES:
        started = time.perf_counter()
        page.locator(f".tl-picker a[href$={slug}]").click()
        page.locator(f"#panel-{slug} .tl-badge").wait_for()
        seconds.append(time.perf_counter() - started)
        page.wait_for_timeout(300)
    return statistics.median(seconds)


def draw(page: Page) -> float:
    """Milliseconds to build a page of 5,000 tokens, as the strip itself measures it."""
    page.get_by_label("Your text").first.fill(" ".join(f"word{i}" for i in range(1500)))
    page.locator(".tl-pager button").first.wait_for()
    return float(page.locator("[data-kind=TokenStrip]").get_attribute("data-drawn"))


def main() -> None:
    ours, empty = starts()
    print(f"start to first page: {ours:.2f} s, an empty Gradio app {empty:.2f} s: {ours / empty:.2f} x (goal 1.3)")
    server = Server([sys.executable, "app.py"])
    try:
        with sync_playwright() as playwright:
            path = subprocess.check_output([sys.executable, str(ROOT / "tests/browser/chromium.py")], text=True).strip()
            browser: Browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page()
            cold, weight = ready(page, server.url)
            warm, again = ready(page, server.url)
            print(f"first visit: ready in {cold:.2f} s, {weight / 1e6:.2f} MB")
            print(f"warm visit: ready in {warm:.2f} s, {again / 1e6:.2f} MB (goal 1.5 s)")
            print(f"panel switch: {switch(page):.2f} s (goal 0.5 s)")
            print(f"drawing 5,000 tokens: {draw(page):.0f} ms (goal 300 ms)")
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
