"""Replay how a tokenizer grew: the cuts of one text, from the alphabet to the finished vocabulary.

BPE (Sennrich et al. 2016, arXiv:1508.07909), exact: encoding with the first k merges is what encoding with all of
them has done by the time that no pair of the first k is left. No merge crosses the edge of a final token, so merging
the bytes of each token alone tells at which merge each cut inside it goes.
WordPiece (as in Devlin et al. 2019, arXiv:1810.04805), exact: the longest match with the first k learned entries.
Unigram (Kudo 2018, arXiv:1804.10959): the cuts at each stage of the pruning (`training.stages`).

Units are the bytes of the text, because BPE starts there. The first byte of a grapheme reads as the whole grapheme
and its other bytes read "", so the units in a row spell the text and none is a broken character.
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict

from tokenlab import guard, limits
from tokenlab.errors import UserError
from tokenlab.text import training
from tokenlab.text.tokenization import Tokenization, Tokenizer, graphemes, utf8_offsets
from tokenlab.views import Replay

GRAPHEMES = 600  # of the text, shown in one replay
BYTES = 4_000  # and no more than this of its UTF-8: one grapheme may carry thousands of combining marks

Merge = tuple[bytes, bytes]
Changes = dict[int, list[tuple[int, int]]]  # number of a merge, entry or stage (0: the start) -> (unit, cut)


def replay(tokenizer: Tokenizer | str, text: str) -> Replay:
    """How the cuts of `text` change while `tokenizer` grows; it may be given as its reference "trained:...".

    The last step is the tokenizer's own encoding. A text of more than GRAPHEMES graphemes or BYTES bytes is cut
    short, and the note says so. UserError for an empty text, and for a tokenizer that is neither BPE nor trained
    here."""
    if isinstance(tokenizer, str):
        tokenizer = training.load(tokenizer)
    units, shown, total = _units(text)
    text = "".join(units)
    merges = tokenizer.merges()
    if merges is not None:
        labels, changes, note = bpe(tokenizer, merges, text)
    elif training.REFERENCE.fullmatch(tokenizer.ref):
        grow = {"WordPiece": wordpiece, "Unigram": unigram}[training.recipe_of(tokenizer.ref).algorithm]
        labels, changes, note = grow(tokenizer.ref, text)
    else:
        raise UserError("Only BPE tokenizers and those trained here can be replayed; please choose one of them.")
    if shown < total:
        note = f"{note} Shown: the first {shown:,} of {total:,} characters."
    numbers = sorted({0, *changes})
    events = ((step, *change) for step, number in enumerate(numbers) for change in sorted(changes.get(number, ())))
    return Replay(
        title="The cuts, step by step",
        note=note,
        units=units,
        steps=tuple(labels[number] for number in numbers),
        events=tuple(events),
    )


def _units(text: str) -> tuple[tuple[str, ...], int, int]:
    """One unit per byte of the text that is shown; the number of graphemes shown; the number there are."""
    limits.check_unicode(text)
    if not text:
        raise UserError("There is no text to replay; please type some.")
    every = graphemes(text)
    units: list[str] = []
    shown = 0
    for grapheme in every[:GRAPHEMES]:
        size = len(grapheme.encode())
        if len(units) + size > BYTES:
            break
        units += [grapheme, *[""] * (size - 1)]
        shown += 1
    if not shown:
        raise UserError("The first character of this text is too long to replay; please begin with another one.")
    return tuple(units), shown, len(every)


def cuts_of(tokenization: Tokenization, length: int) -> set[int]:
    """The places strictly inside a text of `length` bytes at which a token starts or ends."""
    return {*tokenization.starts.tolist(), *tokenization.ends.tolist()} - {0, length}


def bpe(tokenizer: Tokenizer, merges: list[Merge], text: str) -> tuple[dict[int, str], Changes, str]:
    """Labels, changes and a note; number k is the k-th merge.

    At the start everything stands apart but what was never cut: the bytes of a character for tokenizers that begin
    with characters, and text that the tokenizer drops or rewrites. A last step, behind the merges, joins entries
    that no merges lead to and that the tokenizer takes whole (`ignore_merges` in tokenizer.json)."""
    length = len(text.encode())
    numbers = {merge: number for number, merge in reversed([*enumerate(merges, 1)])}
    made = {left + right for left, right in merges}
    from_characters = any(len(part) > 1 and part not in made for merge in merges for part in merge)
    pieces = tokenizer.pieces()
    found = tokenizer.encode(text)
    joined = dict.fromkeys(range(1, length), 0)  # place -> the number at which its cut goes
    for token, start, end in zip(found.ids.tolist(), found.starts.tolist(), found.ends.tolist(), strict=True):
        guard.check_time()
        piece = pieces[token] if token >= 0 else b""
        added = len(piece) - (end - start)  # 1: a space that the tokenizer puts in front of the text
        if added == 0 or (added == 1 and piece.startswith(b" ")):
            symbols = characters(piece) if from_characters else [piece[i : i + 1] for i in range(len(piece))]
            for place, number in merged_at(symbols, numbers, never=len(merges) + 1).items():
                joined[start + place - added] = number
    kept = cuts_of(found, length)
    changes: Changes = defaultdict(list)
    for place in joined.keys() & set(range(1, length)) - kept:
        changes[joined[place]].append((place, 0))
    labels = {0: "start: characters" if from_characters else "start: bytes", len(merges) + 1: "entries taken whole"}
    for number in changes.keys() - labels.keys():
        left, right = merges[number - 1]
        labels[number] = f"merge {number:,}: {readable(left)} + {readable(right)}"
    note = f"Of {len(merges):,} merges, in the order in which they were learned, those that change this text."
    if len(numbers) < len(merges):
        note += " Merges that differ only in a mark for the edge of a word count as the earlier one."
    return labels, changes, note


def merged_at(symbols: list[bytes], numbers: dict[Merge, int], never: int) -> dict[int, int]:
    """Merge `symbols` into one; returns place (bytes from the start) -> the number of merges that it takes.

    0 for places inside a symbol, `never` where no merge applies any more. A merge that waits for a later one counts
    as that later one: with the merges up to its own number alone it would not happen."""
    places, place = [], 0
    for symbol in symbols:
        places.append(place)
        place += len(symbol)
    result = dict.fromkeys(set(range(1, place)).difference(places), 0)
    symbols, latest = list(symbols), 0
    while len(symbols) > 1:
        pairs = zip(symbols, symbols[1:], strict=False)
        number, at = min((numbers.get(pair, never), i) for i, pair in enumerate(pairs))
        if number == never:
            break
        latest = max(latest, number)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        result[places.pop(at + 1)] = latest
    return result | dict.fromkeys(places[1:], never)


def characters(piece: bytes) -> list[bytes]:
    """The bytes of each character; a byte that is no character's first joins the one before."""
    firsts = [i for i, byte in enumerate(piece) if i == 0 or byte & 0xC0 != 0x80]
    return [piece[i:j] for i, j in zip(firsts, [*firsts[1:], len(piece)], strict=True)]


def wordpiece(ref: str, text: str) -> tuple[dict[int, str], Changes, str]:
    """Labels, changes and a note; number k is the k-th entry that was learned behind the alphabet."""
    from tokenizers import pre_tokenizers

    model = json.loads(training.tokenizer_json(ref))["model"]
    vocabulary = model["vocab"]
    learned = [entry for entry in vocabulary if len(entry.removeprefix("##")) > 1 and entry != model["unk_token"]]
    first = vocabulary[learned[0]] if learned else len(vocabulary)
    offsets = utf8_offsets(text).tolist()
    inside = set(range(1, offsets[-1]))
    changes: Changes = defaultdict(list)
    for word, (start, end) in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text):
        guard.check_time()
        inside -= {offsets[start], offsets[end]}
        if len(word) > model["max_input_chars_per_word"]:
            continue
        cuts = longest_match(word, vocabulary, first)
        inside -= {offsets[start + cut] for cut in cuts}
        for number in _entries_in(word, vocabulary, first):
            now = longest_match(word, vocabulary, number + 1)
            changes[number - first + 1] += [(offsets[start + cut], int(cut in now)) for cut in cuts ^ now]
            cuts = now
    changes = {number: change for number, change in changes.items() if change}
    labels = {number: f"entry {number:,}: {readable(learned[number - 1].encode())}" for number in changes}
    labels[0] = "start: characters"
    changes[0] = [(place, 0) for place in inside]
    return labels, changes, f"Of {len(learned):,} entries that were learned, those that change this text."


def longest_match(word: str, vocabulary: dict[str, int], size: int) -> set[int]:
    """Where WordPiece cuts `word` with the first `size` entries alone; nowhere when it cannot write the word."""
    cuts, start = set(), 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if vocabulary.get(prefix + word[start:end], size) < size), None)
        if end is None:
            return set()
        cuts.add(end)
        start = end
    return cuts - {len(word)}


def _entries_in(word: str, vocabulary: dict[str, int], first: int) -> list[int]:
    """The ids from `first` on of all entries that match somewhere in the word."""
    spans = ((i, j) for i in range(len(word)) for j in range(i + 2, len(word) + 1))
    found = {vocabulary.get(("##" if i else "") + word[i:j], -1) for i, j in spans}
    return sorted(number for number in found if number >= first)


def unigram(ref: str, text: str) -> tuple[dict[int, str], Changes, str]:
    """Labels, changes and a note; number k is the k-th stage."""
    from tokenlab.text.tokenizer_json import TokenizerJson

    length = len(text.encode())
    labels: dict[int, str] = {}
    changes: Changes = {}
    cuts = set(range(1, length))
    for number, stage in enumerate(training.stages(ref)):
        guard.check_time()
        tokenizer = TokenizerJson(ref, training.label(ref), json.loads(stage))
        now = cuts_of(tokenizer.encode(text), length)
        changes[number] = [(place, int(place in now)) for place in cuts ^ now]
        cuts = now
        labels[number] = f"{'pruned to' if number else 'start:'} {tokenizer.vocabulary_size:,} pieces"
    if len(labels) == 1:
        return labels, changes, "Nothing was pruned: the training text gives no more pieces than the vocabulary takes."
    return labels, changes, "Pruning takes away the pieces whose loss makes the training text least improbable."


def readable(piece: bytes) -> str:
    """A piece for a label: invisible characters by name, in hex what is no text."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return piece.hex(" ").upper()
    shown = "".join(map(_visible, text))
    return f"◌{shown}" if unicodedata.combining(text[:1] or " ") else shown


def _visible(character: str) -> str:
    code = ord(character)
    if code <= 0x20:
        return "␣" if code == 0x20 else chr(0x2400 + code)
    return character if character.isprintable() else f"U+{code:04X}"
