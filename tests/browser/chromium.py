"""Prints the path of a Chromium: one on the PATH, Playwright's own, or Debian's package (installed when missing)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def on_path() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def playwrights_own(install: bool) -> str | None:
    from playwright.sync_api import sync_playwright

    if install:
        # Off-line this fails at once or hangs: then Debian's package is the next to try.
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        try:
            subprocess.run(command, stdout=sys.stderr, check=False, timeout=180)
        except subprocess.TimeoutExpired:
            return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if path and Path(path).exists() else None


def debians() -> str | None:
    if not shutil.which("apt-get"):
        return None
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, "apt-get", "update", "-q"], stdout=sys.stderr, check=False)
    subprocess.run([*sudo, "apt-get", "install", "-y", "-q", "chromium"], stdout=sys.stderr, check=False)
    return on_path()


def find() -> str:
    path = (
        os.environ.get("CHROMIUM")
        or on_path()
        or playwrights_own(install=False)
        or playwrights_own(install=True)
        or debians()
    )
    if not path:
        sys.exit("No Chromium was found or could be installed; put one on the PATH or set CHROMIUM=/path/to/it.")
    return path


if __name__ == "__main__":
    print(find())
