"""Trains one tokenizer; tokenlab.text.training starts this as a process of its own, which it can kill.

stdin: one JSON object {algorithm, text, sizes, forecast}. stdout: one JSON object per line, each with
- alphabet: how many entries there are before anything is learned, the least vocabulary size;
- forecast_seconds, forecast_bytes: what the whole training will take, measured on slices of the text;
- read: the share of the text that was read;
- tokenizer: a finished tokenizer.json, one per size, in order; peak_bytes: this process's memory so far.
stderr, on the same pipe, carries what the libraries themselves report while they train.

The same text and size give the same tokenizer.json, byte for byte:
- BPE: the trainer of `tokenizers` breaks ties by the ids of the pair; all ids are fixed before it starts.
- WordPiece: `tokenizers` numbers "##" characters as it meets them in a hash map, so equal counts fall differently in
  every process (huggingface/tokenizers#1794). Its WordPieceTrainer is a BpeTrainer with that prefix, so we call that
  one and number the alphabet ourselves, in code point order, as "special tokens" that the result does not keep.
- Unigram: the trainer of `tokenizers` sums and sorts in hash-map order throughout, so near-ties fall either way, and
  no setting prevents that. We train with SentencePiece, the algorithm's first implementation (Kudo 2018,
  arXiv:1804.10959), one thread, and write its pieces and scores as a tokenizer.json.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from tokenlab import limits

Tell = Callable[..., None] | None  # told of progress; None: keep silent

CHUNK = 1_000  # characters: what the trainers are fed at a time
SLICES = (0.02, 0.08)  # shares of the text that the forecast is measured on
WINDOWS = 20  # places that each share is taken from
# Cost against length on slices is a power law whose exponent the smallest slices blur: distinct words grow more
# slowly than the text (Heaps' law), so it is never above 1, and reading is linear, so it is never far below.
EXPONENTS = (0.75, 1.0)
WORD = re.compile(r"(?<=\S)(?=[ \n]\S)")  # here every pre-tokenizer below cuts
# The three characters that SentencePiece reserves or treats as the end of a line, and the line's end itself.
UNWRITABLE = re.compile("[\n\t\0\u2585]")
# Vocabulary entries such as <0x41> must not match when a user writes those six characters: cut behind the "<".
LITERAL_ENTRY = "(?=0x[0-9A-F]{2}>|unk>)"
SENTENCE = re.compile(f"{UNWRITABLE.pattern}|(?<=<){LITERAL_ENTRY}")


def main() -> None:
    job = json.load(sys.stdin)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limits.CHILD_MEMORY_BYTES, resource.RLIM_INFINITY))
    learn, text = ALGORITHMS[job["algorithm"]], job["text"]
    chunks = split(text)
    alphabet = alphabet_of(job["algorithm"], chunks)
    _send(alphabet=len(alphabet))
    if job["forecast"]:
        _send(**forecast(lambda part: learn(part, alphabet, job["sizes"][0]), text))
    for size in job["sizes"]:
        _send(tokenizer=learn(chunks, alphabet, size, _send), peak_bytes=peak_bytes())


def alphabet_of(algorithm: str, chunks: list[str]) -> list[str]:
    """The entries that a vocabulary has before anything is learned: bytes, characters, the unknown token."""
    if algorithm == "WordPiece":
        splitter = _words()
        words = {word for chunk in chunks for word, _ in splitter.pre_tokenize_str(chunk)}
        first, behind = {c for word in words for c in word}, {c for word in words for c in word[1:]}
        return ["[UNK]", *sorted(first), *(f"##{c}" for c in sorted(behind))]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    if algorithm == "BPE":
        return fallback
    characters = {" "}.union(*chunks)
    return ["<unk>", *fallback, *sorted(c for c in characters if not UNWRITABLE.match(c))]


def split(text: str) -> list[str]:
    """Chunks of about CHUNK characters whose concatenation is `text`, cut only where all pre-tokenizers cut."""
    chunks, start = [], 0
    while start < len(text):
        found = WORD.search(text, start + CHUNK)
        end = found.start() if found else len(text)
        chunks.append(text[start:end])
        start = end
    return chunks


def forecast(learn: Callable[[list[str]], str], text: str) -> dict[str, float | int]:
    """Seconds and peak bytes of learning from `text`, from learning from SLICES of it.

    Both quantities, less what the process held before, are taken as a power law of the number of characters. What is
    extrapolated is processor time, because a pause of the machine would be multiplied by fifty; how much of a core
    this process gets is measured over all slices together."""
    learn(slice_of(text, SLICES[0] / 10))  # what is loaded on first use does not belong to the slices
    base = peak_bytes()
    points = []
    clock, work = time.perf_counter(), time.process_time()
    for part in (slice_of(text, share) for share in SLICES):
        started = time.process_time()
        learn(part)
        points.append((sum(map(len, part)), time.process_time() - started, peak_bytes() - base))
    waiting = (time.perf_counter() - clock) / (time.process_time() - work)
    (n1, seconds1, bytes1), (n2, seconds2, bytes2) = points
    return {
        "forecast_seconds": waiting * extrapolate(n1, seconds1, n2, seconds2, len(text)),
        "forecast_bytes": round(base + extrapolate(n1, bytes1, n2, bytes2, len(text))),
    }


def slice_of(text: str, share: float) -> list[str]:
    """`share` of the text, in WINDOWS pieces that lie evenly over it."""
    step = len(text) / WINDOWS
    starts = (round(i * step) for i in range(WINDOWS))
    return [text[start : start + max(1, round(share * step))] for start in starts]


def extrapolate(x1: float, y1: float, x2: float, y2: float, x: float) -> float:
    """The value at x of the power law through (x1, y1) and (x2, y2), its exponent held within EXPONENTS."""
    if y1 <= 0 or y2 <= 0:
        return y2 * x / x2
    low, high = EXPONENTS
    exponent = min(max(math.log(y2 / y1) / math.log(x2 / x1), low), high)
    return y2 * (x / x2) ** exponent


def peak_bytes() -> int:
    """The most memory that this process has held."""
    if sys.platform == "linux":
        # Not getrusage: there the peak of the parent survives fork and exec.
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0


def bpe(chunks: list[str], alphabet: list[str], size: int, tell: Tell = None) -> str:
    """Byte-level BPE with the pre-tokenizer of GPT-2: 256 bytes, then merges of pairs that occur at least twice."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = _bpe_trainer(size, tell, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(_told(chunks, tell), trainer)
    return tokenizer.to_str()


def wordpiece(chunks: list[str], alphabet: list[str], size: int, tell: Tell = None) -> str:
    """WordPiece as `tokenizers` trains it: the alphabet ("##e": an e behind a first character), then merges of the
    most frequent pairs; encoding takes the longest entry that matches."""
    from tokenizers import Tokenizer, decoders, models

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _words()
    trainer = _bpe_trainer(size, tell, special_tokens=alphabet, continuing_subword_prefix="##")
    learner.train_from_iterator(_told(chunks, tell), trainer)
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer.to_str()


def _words() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.BertPreTokenizer()


def _bpe_trainer(size: int, tell: Tell, **settings: Any) -> Any:
    from tokenizers import trainers

    report = "json" if tell else "silent"
    return trainers.BpeTrainer(vocab_size=size, min_frequency=2, progress_format=report, **settings)


def unigram(chunks: list[str], alphabet: list[str], size: int, tell: Tell = None) -> str:
    """Unigram with byte fallback: unknown, 256 bytes, then the pieces that survive the pruning, best first.

    Line breaks and tabs are written in bytes. No space is put in front of the text, so decoding gives it back."""
    return unigram_json(unigram_model(chunks, size, tell))


def unigram_model(chunks: list[str], size: int, tell: Tell = None) -> bytes:
    """The serialized SentencePiece model."""
    import sentencepiece

    model = io.BytesIO()
    sentences = (sentence for chunk in _told(chunks, tell) for sentence in SENTENCE.split(chunk))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=chain([" "], sentences),  # one space, for texts that have none
        model_writer=model,
        model_type="unigram",
        vocab_size=size,
        hard_vocab_limit=False,  # a short text gives fewer entries instead of an error
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        max_sentence_length=2**30,  # longer lines would be left out
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,
        minloglevel=0 if tell else 2,
    )
    return model.getvalue()


def unigram_json(model: bytes) -> str:
    """A SentencePiece model as tokenizer.json: the same pieces, ids and scores, and so the same cuts but for ties."""
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    learned = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [(learned.id_to_piece(i), learned.get_score(i)) for i in range(len(learned))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"<{LITERAL_ENTRY}"), "merged_with_previous"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")])
    return tokenizer.to_str()


def _told(chunks: list[str], tell: Tell) -> Iterator[str]:
    for number, chunk in enumerate(chunks, 1):
        yield chunk
        if tell and number % 50 == 0:
            tell(read=number / len(chunks))


def _send(**message: Any) -> None:
    print(json.dumps(message), flush=True)


ALGORITHMS = {"BPE": bpe, "WordPiece": wordpiece, "Unigram": unigram}

if __name__ == "__main__":
    main()
