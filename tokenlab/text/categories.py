"""Sample text in eight categories, for attacks on a tokenizer's training data.

Nothing is downloaded and nothing is stored: five categories are cut from files that every
installation of TokenLab has (the Python standard library and the packages in requirements.txt),
three are invented languages, drawn from random letter chains. The same Python and the same package
versions give the same bytes.

Every category has a *home* source and an *away* source: the same kind of text by other authors, for
attacks whose samples do not come from where the tokenizer was trained. The home source is dealt,
piece by piece, into two halves that share no piece.
"""

from __future__ import annotations

import importlib.util
import random
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from tokenlab.errors import UserError

PARTS = ("first half", "second half", "away")
PIECE = 32_768  # characters: longer files are cut, so that one file cannot fill a half
MOST_BYTES = 1_000_000  # of one part; every source holds at least this much

NAMES = (
    "English prose",
    "Python",
    "C and C++",
    "JavaScript",
    "JSON",
    "Invented, Latin",
    "Invented, Cyrillic",
    "Invented, Greek",
)
SOURCES = {
    "English prose": "paragraphs in the docstrings of scientific packages; away: of machine-learning packages",
    "Python": "the standard library; away: networkx and scikit-learn",
    "C and C++": "PyTorch's own headers; away: the protobuf, fmt, pybind11 and oneDNN headers shipped with it",
    "JavaScript": "Gradio's page, mostly minified; away: Plotly's",
    "JSON": "Plotly's validators and PyTorch's registries; away: ISO code lists in pycountry",
    "Invented, Latin": "words from a letter chain of order 1; away: other words from the same chain",
    "Invented, Cyrillic": "words from a letter chain of order 2; away: other words from the same chain",
    "Invented, Greek": "words from a letter chain of order 3; away: other words from the same chain",
}

# name: (home, away); each a list of (package, "" for the standard library; folder or file; ending).
_PROSE = {
    "home": ["numpy", "scipy", "sklearn", "pandas", "networkx", "torch"],
    "away": ["sympy", "transformers", "skimage", "huggingface_hub", "mistral_common", "gradio", "pydantic"],
}
_CODE = {
    ("Python", "home"): [("", "", ".py")],
    ("Python", "away"): [("networkx", "", ".py"), ("sklearn", "", ".py")],
    ("C and C++", "home"): [("torch", f"include/{folder}", ".h") for folder in ("ATen", "c10", "torch")],
    ("C and C++", "away"): [("torch", f"include/{name}", ".h") for name in ("google", "fmt", "pybind11")]
    + [("torch", "include/oneapi", ".hpp")],
    ("JavaScript", "home"): [("gradio", "templates/node/build/server/chunks", ".js")],
    ("JavaScript", "away"): [("plotly", "package_data", "plotly.min.js")],
    ("JSON", "home"): [("plotly", "validators", ".json"), ("torch", "_dynamo", ".json")],
    ("JSON", "away"): [("pycountry", "databases", ".json")],
}
# Folders of tests and bundled extras, and PyTorch's generated operator headers: thousands of near copies.
_SKIP = {"test", "tests", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages", "ops", "__pycache__"}

_LANGUAGES = {  # name: (alphabet, order of the chain)
    "Invented, Latin": ("abcdefghijklmnoprstuvy", 1),
    "Invented, Cyrillic": ("абвгдежзиклмнопрстуфхцчшы", 2),
    "Invented, Greek": ("αβγδεζηθικλμνξοπρστυφχψω", 3),
}


@lru_cache(maxsize=64)
def sample(name: str, part: str, size: int) -> str:
    """About `size` bytes of UTF-8 text of category `name` (at most `size`); part: one of PARTS.

    A smaller sample is the beginning of a larger one. UserError when a source is not installed."""
    if name not in NAMES or part not in PARTS or not 0 < size <= MOST_BYTES:
        raise ValueError(f"no sample of {size} bytes of {name!r}, {part!r}")
    pieces = _dealt(name, part)
    text = "".join(_until(pieces, size))
    cut = text.encode()[:size].decode("utf-8", "ignore")  # ignores only a character cut by `size`
    if len(cut.encode()) < 0.9 * size:
        raise UserError(f"This installation holds too little {name} for {size / 1e6:g} MB; please choose less text.")
    return cut


def _dealt(name: str, part: str) -> Iterator[str]:
    if part == "away":
        return _pieces(name, "away")
    return islice(_pieces(name, "home"), PARTS.index(part), None, 2)


def _until(pieces: Iterable[str], size: int) -> Iterator[str]:
    for piece in pieces:
        yield piece
        size -= len(piece.encode())
        if size <= 0:
            return


def _pieces(name: str, source: str) -> Iterator[str]:
    """The pieces of a source in a shuffled order that depends on nothing but the files' names."""
    if name in _LANGUAGES:
        yield from _language(name, source)
    elif name == "English prose":
        files = [file for package in _PROSE[source] for file in _files(package, "", ".py")]
        yield from _shuffled(files, lambda file: _paragraphs(file.read_text("utf-8")))
    else:
        files = [file for place in _CODE[name, source] for file in _files(*place)]
        yield from _shuffled(files, lambda file: _cut(file.read_text("utf-8")))


def _files(package: str, folder: str, ending: str) -> list[Path]:
    root = _root(package)
    found = (p for p in (root / folder).rglob(f"*{ending}") if not _SKIP & set(p.relative_to(root).parts))
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def _root(package: str) -> Path:
    if not package:
        return Path(sysconfig.get_paths()["stdlib"])
    spec = importlib.util.find_spec(package)  # finds without importing
    if spec is None:
        raise UserError(f"The sample texts are cut from installed packages, and {package} is not installed.")
    return Path(spec.submodule_search_locations[0])


def _shuffled(files: list[Path], read: Callable[[Path], Iterable[str]]) -> Iterator[str]:
    """Pieces of the files in a seeded order. With few files their pieces are shuffled, not the files."""
    order = random.Random(0)
    if len(files) > 50:
        order.shuffle(files)
        for file in files:
            yield from read(file)
    else:
        pieces = [piece for file in files for piece in read(file)]
        order.shuffle(pieces)
        yield from pieces


def _cut(text: str) -> Iterator[str]:
    """Pieces of at most PIECE characters, at line ends where there are any; none of a foreign-language file."""
    if len(text.encode()) > 1.05 * len(text):
        return
    start = 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_BREAK = re.compile(r"\n\s*\n")
_NOT_PROSE = re.compile(r"[^\w ,.']|[\d_]")


def _paragraphs(source: str) -> list[str]:
    """The prose in a Python file, one piece per file: paragraphs of docstrings that are sentences."""
    kept = []
    for doc in _DOCSTRING.findall(source):
        for paragraph in _BREAK.split(doc):
            line = " ".join(paragraph.split())
            if len(line) >= 60 and line[0].isupper() and line[-1] == "." and _is_prose(line):
                kept.append(line + "\n\n")
    return ["".join(dict.fromkeys(kept))] if kept else []


def _is_prose(line: str) -> bool:
    return len(_NOT_PROSE.findall(line)) < 0.04 * len(line) and "`" not in line and " : " not in line


LEXICON = 4_000  # words of an invented language


def _language(name: str, source: str) -> Iterator[str]:
    """Endless text of an invented language: sentences of 4 to 15 words, of Zipf-Mandelbrot frequencies."""
    alphabet, order = _LANGUAGES[name]
    rng = np.random.default_rng([order, source == "away"])
    lexicon = np.array(_lexicon(_chain(len(alphabet), order), alphabet, order, rng))
    frequency = 1 / (np.arange(len(lexicon)) + 2.7)
    while True:
        words = iter(rng.choice(lexicon, size=4_000, p=frequency / frequency.sum()).tolist())
        sentences = []
        while sentence := list(islice(words, int(rng.integers(4, 16)))):
            sentences.append(" ".join(sentence).capitalize() + ". ")
        yield "".join(sentences) + "\n"


def _chain(letters: int, order: int) -> np.ndarray:
    """(letters + 1) ** order x (letters + 1): the chance of the next letter after the last `order` ones.

    Symbol 0 is the edge of a word. Every row is a Dirichlet draw around one common letter frequency, so
    that letters are unequal and each context has favorites."""
    rng = np.random.default_rng(order)
    common = rng.dirichlet(np.full(letters, 3.0))
    chain = rng.dirichlet(15 * np.concatenate([[0.2], 0.8 * common]), size=(letters + 1) ** order)
    chain[0] = np.concatenate([[0.0], common])  # a word has at least one letter
    return chain


def _lexicon(chain: np.ndarray, alphabet: str, order: int, rng: np.random.Generator) -> list[str]:
    """Distinct words of at most 12 letters, all grown side by side; the first is the most frequent one."""
    symbols = len(alphabet) + 1
    cumulative = np.cumsum(chain, axis=1)
    context = np.zeros(2 * LEXICON, dtype=np.int64)
    grown = np.zeros((len(context), 12), dtype=np.int64)
    alive = np.ones(len(context), dtype=bool)
    for place in range(grown.shape[1]):
        drawn = (rng.random((len(context), 1)) > cumulative[context]).sum(axis=1).clip(max=symbols - 1)
        alive &= drawn > 0
        grown[alive, place] = drawn[alive]
        context = (context * symbols + drawn) % symbols**order
    letters = np.array(["", *alphabet])  # one code point each, "" is 0: rows of 12 are strings that end at the 0s
    words = letters[grown].view("<U12")[:, 0].tolist()
    return list(dict.fromkeys(words))[:LEXICON]
