"""Natural English for the small language models: public domain novels and short plain sentences.

    --data FOLDER   holds english/*.txt (Project Gutenberg texts without their boilerplate, public domain in the US)
                    and tatoeba/*-eng.eng (Tatoeba sentences by way of the LASER test set, CC BY 2.0 FR)

The split is by book and by line: two whole books and the sentences whose checksum is divisible by 50 are held out.
"""

import re
import zlib
from pathlib import Path

HELD_OUT_BOOKS = ("five-children-and-it.txt", "sleepy-hollow.txt")
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "-", "–": "-", "\ufeff": None, "_": None})


def paragraphs(text: str) -> list[str]:
    """Paragraphs of a book on one line each, typographic quotes and dashes made plain, headings left out."""
    lines = (" ".join(block.translate(PLAIN).split()) for block in re.split(r"\n\s*\n", text))
    return [line for line in lines if len(line) > 40 and not line.startswith("[")]


def sentences(folder: Path) -> list[str]:
    """The English side of all Tatoeba pairs, each sentence once, in sorted order."""
    lines = {line.strip().translate(PLAIN) for path in folder.glob("*-eng.eng") for line in path.open(encoding="utf-8")}
    return sorted(line for line in lines if len(line) > 10)


def natural_text(data: Path, split: str) -> list[str]:
    """Documents of "train" or "test": books as one string each, and the short sentences in groups of 20."""
    books = [path for path in sorted((data / "english").glob("*.txt"))]
    if not books:
        raise SystemExit(f"{data} holds no english/*.txt; give the folder of texts with --data")
    test = split == "test"
    documents = ["\n".join(paragraphs(p.read_text("utf-8"))) for p in books if (p.name in HELD_OUT_BOOKS) == test]
    short = [line for line in sentences(data / "tatoeba") if (zlib.crc32(line.encode()) % 50 == 0) == test]
    short.sort(key=lambda line: zlib.crc32(line.encode()[::-1]))
    return documents + [" ".join(short[i : i + 20]) for i in range(0, len(short), 20)]
