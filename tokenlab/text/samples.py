"""Texts of the project's own to try tokenizers on; files in assets/text/samples, one per name.

showcase: a few lines that show something in any comparison (contractions, a long word, code, numbers, a German
compound, Japanese, emoji with joiners, a URL); story: an English children's story that repeats itself; stories: some
100 KB of such stories, generated (story_corpus); python: a Python module; german: a column with many compounds; mixed:
everyday sentences in fifteen languages, emoji, JSON, SQL.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenlab.errors import UserError

FOLDER = Path(__file__).parents[2] / "assets" / "text" / "samples"
NAMES = ("showcase", "story", "stories", "python", "german", "mixed")
STORIES = 150  # how many are in "stories"


def names() -> tuple[str, ...]:
    """The names that `text` knows, the best one to begin with first."""
    return NAMES


@cache
def text(name: str) -> str:
    """The sample called `name`, without the file's last line break; UserError for an unknown name."""
    if name not in NAMES:
        raise UserError(f"There is no sample of that name; please choose one of {', '.join(NAMES)}.")
    if name == "stories":
        from tokenlab.text import story_corpus

        return story_corpus.stories(STORIES)
    return (FOLDER / f"{name}.txt").read_text("utf-8").removesuffix("\n")
