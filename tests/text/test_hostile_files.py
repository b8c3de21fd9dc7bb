"""Files and names that mean harm: each gets one sentence in time, and the next request works."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from tokenizers import Tokenizer as Library

from tests import hub_server
from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.text import remote, sandbox, sources
from tokenlab.text.uploads import Uploads

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals or limits")


def tokenizer_json(model=None, **parts):
    vocab = {"a": 0, "b": 1, "ab": 2}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]], **(model or {})}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model, **parts}).encode()


def split(pattern):
    part = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return tokenizer_json(pre_tokenizer=part)


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


GOOD = tokenizer_json()
# A prefix longer than the merge's second part: the library cuts it at a negative place.
PANICS = tokenizer_json({"continuing_subword_prefix": "####"})
# The same between two bytes of one character: the error message is no UTF-8, and a panic within a panic aborts.
ABORTS = tokenizer_json(
    {"continuing_subword_prefix": "a", "vocab": {"a": 0, "é": 1, "aé": 2, "ééé": 3}, "merges": [["a", "é"]]}
)
GROWS = tokenizer_json(
    normalizer={
        "type": "Sequence",
        "normalizers": [
            replace({"String": "a"}, "b" * 1_000_000),
            replace({"String": "b"}, "c" * 1_000_000),
        ],
    }
)
HUGE = tokenizer_json({"vocab": {str(i): i for i in range(limits.VOCABULARY + 1)}, "merges": []})
NOISE = random.Random(0).randbytes(20_000)
RANKS = b"".join(base64.b64encode(bytes([b])) + f" {b}\n".encode() for b in range(256))


def one_sentence(caught):
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 300
    assert not set("<>") & set(message)
    return message


def works_again():
    tokens = sources.load(sources.register_file(GOOD, "good.json")).encode("aab")
    assert tokens.ids.tolist() == [0, 2]


REFUSED = {
    "panic": (PANICS, "tokenizer.json", "made its library crash"),
    "abort": (ABORTS, "tokenizer.json", "made its library crash"),
    "nested regex": (split("(a+)+$"), "tokenizer.json", "regular expression"),
    "long regex": (split("a" * 20_000), "tokenizer.json", "regular expression"),
    "30 MB": (b"{" + b" " * 30_000_000 + b"}", "tokenizer.json", "has 30.0 MB"),
    "pickle": (b"\x80\x04\x95\x00\x00", "tokenizer.json", "is a Python pickle"),
    "zip": (b"PK\x03\x04....", "tokenizer.model", "is a zip archive"),
    "gzip": (b"\x1f\x8b....", "tokenizer.tiktoken", "is a gzip archive"),
    "truncated": (GOOD[:70], "tokenizer.json", "is not valid JSON"),
    "deep": (b'{"model": ' + b"[" * 100_000, "tokenizer.json", "is not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', "tokenizer.json", "is not UTF-8"),
    "no model": (b"{}", "tokenizer.json", 'has no "model"'),
    "a list": (b"[1, 2]", "tokenizer.json", 'has no "model"'),
    "model is text": (b'{"model": "BPE"}', "tokenizer.json", 'has no "model"'),
    "absurd vocabulary": (HUGE, "tokenizer.json", "has 300,001 entries"),
    "absurd id": (tokenizer_json({"vocab": {"a": 2**31}, "merges": []}), "tokenizer.json", "has ids outside"),
    "negative id": (tokenizer_json({"vocab": {"a": -1}, "merges": []}), "tokenizer.json", "has ids outside"),
    "id is text": (tokenizer_json({"vocab": {"a": "0"}, "merges": []}), "tokenizer.json", "has ids outside"),
    "unknown type": (tokenizer_json({"type": "<img src=x>"}), "tokenizer.json", "its library can open"),
    "merge of nothing": (tokenizer_json({"merges": [["a", "<b>"]]}), "tokenizer.json", "its library can open"),
    "half a character": (tokenizer_json({"vocab": {"\ud800": 0}, "merges": []}), "tokenizer.json", "its library"),
    "added tokens": (tokenizer_json(added_tokens=[1, {}]), "tokenizer.json", "is not laid out"),
    "merge of three": (tokenizer_json({"merges": ["a b c"]}), "tokenizer.json", "is not laid out"),
    "model noise": (NOISE, "noise.model", "is not a SentencePiece model"),
    "nearly a model": (b"\x0a" + NOISE, "noise.model", "is not a SentencePiece model"),
    "no ranks": (b"YQ== 0\nYg== nought\n", "x.tiktoken", "no token and rank in line 2"),
    "junk ranks": (NOISE, "x.tiktoken", "no token and rank in line 1"),
    "bad base64": (RANKS + b"Y 256\n", "x.tiktoken", "no token and rank in line 257"),
    "rank twice": (RANKS + b"YWI= 255\n", "x.tiktoken", "twice"),
    "token twice": (RANKS + b"YQ== 256\n", "x.tiktoken", "twice"),
    "rank too high": (RANKS + b"YWI= 99999999999\n", "x.tiktoken", "ranks outside"),
    "bytes missing": (b"YQ== 0\nYg== 1\n", "x.tiktoken", "lacks some of the 256 bytes"),
    "empty": (b" \n", "tokenizer.json", "is empty"),
    "a text": (b"hello", "hello.txt", "is of an unknown kind"),
    "markup as a name": (b"hello", "<img src=x onerror=alert(1)>", "is of an unknown kind"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_file_is_refused_in_one_sentence(case):
    data, filename, reason = REFUSED[case]
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        sources.register_file(data, filename)
    assert reason in one_sentence(caught)
    assert time.monotonic() - started < limits.CHILD_SECONDS + 1
    works_again()


def test_the_library_does_panic():
    # Otherwise the test above would show nothing: in this process it is a BaseException, and no Exception.
    with pytest.raises(BaseException) as caught:  # noqa: B017, PT011
        Library.from_str(PANICS.decode())
    assert not isinstance(caught.value, Exception)


FAILING = {
    "panic on the text": (tokenizer_json(pre_tokenizer={"type": "FixedLength", "length": 0}), "ab", "crash"),
    # Oniguruma gives up after ten million steps, and the library panics.
    "regex the check misses": (split("(a|a)*$"), "a" * 40 + "b", "crash"),
    # Cubic, so each place stays below that number of steps, but there are many places.
    "slow regex": (tokenizer_json(normalizer=replace({"Regex": r"a*a*a*\d"}, "x")), ("a" * 250 + " ") * 80, "longer"),
    "unknown without <unk>": (tokenizer_json({"unk_token": "[UNK]"}), "z", "cannot do this"),
}


@pytest.mark.parametrize("case", FAILING)
def test_file_that_opens_but_fails_on_a_text(monkeypatch, case):
    monkeypatch.setattr(limits, "CHILD_SECONDS", 2.0)
    data, text, reason = FAILING[case]
    tokenizer = sources.load(sources.register_file(data, "tokenizer.json"))
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        tokenizer.encode(text)
    assert reason in one_sentence(caught)
    assert time.monotonic() - started < 3.0
    assert tokenizer.encode("").ids.tolist() == []  # a fresh child
    works_again()


@posix
def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(limits, "CHILD_MEMORY_BYTES", 800_000_000)  # less to fill
    tokenizer = sources.load(sources.register_file(GROWS, "tokenizer.json"))
    assert len(tokenizer.encode("")) == 0
    with pytest.raises(UserError) as caught:
        tokenizer.encode("a")
    assert "crash" in one_sentence(caught)
    works_again()


@posix
def test_child_killed_from_outside():
    ref = sources.register_file(GOOD, "good.json")
    tokenizer = sources.load(ref)
    process = sandbox._children.slots[ref].child.process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert tokenizer.encode("ab").ids.tolist() == [2]  # nothing was lost


@posix
def test_child_killed_at_work():
    data = tokenizer_json(normalizer=replace({"Regex": r"a*a*a*\d"}, "x"))
    ref = sources.register_file(data, "tokenizer.json")
    tokenizer = sources.load(ref)
    process = sandbox._children.slots[ref].child.process
    threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
    with pytest.raises(UserError, match="made its library crash"):
        tokenizer.encode(("a" * 250 + " ") * 80)
    assert process.poll() is not None
    works_again()


def test_busy_file_does_not_hold_up_another(monkeypatch):
    monkeypatch.setattr(limits, "CHILD_SECONDS", 3.0)
    slow = sources.load(
        sources.register_file(tokenizer_json(normalizer=replace({"Regex": r"a*a*a*\d"}, "y")), "slow.json")
    )
    failed = []

    def occupy():
        with pytest.raises(UserError):
            slow.encode(("a" * 250 + " ") * 80)
        failed.append(True)

    thread = threading.Thread(target=occupy)
    thread.start()
    started = time.monotonic()
    works_again()
    assert time.monotonic() - started < 2.0
    thread.join()
    assert failed


@pytest.mark.parametrize(
    "arrays",
    [
        ([0, 1], [0, 1], [1]),
        ([7], [0], [1]),
        ([-1], [0], [1]),
        ([0], [0], [3]),
        ([0], [-1], [1]),
        ([0], [2], [1]),
        ([0, 0], [1, 0], [1, 2]),
        ([0, 0], [0, 0], [2, 1]),
    ],
)
def test_answers_of_the_child_are_not_trusted(arrays):
    parts = [np.array(array, dtype=np.int64).tobytes() for array in arrays]
    with pytest.raises(ValueError):
        sandbox._tokenization(parts, size=2, entries=7)


# --- the Hub and tiktoken

PAGES = {
    ("owner/good", "tokenizer.json"): GOOD,
    ("owner/old", "tokenizer.model"): RANKS + b"YWI= 256\n",
    ("owner/large", "tokenizer.json"): 33_000_000,  # says so
    ("owner/panics", "tokenizer.json"): PANICS,
    ("owner/empty", "README.md"): b"",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server.serving(monkeypatch, tmp_path, PAGES) as served:
        yield served


@pytest.fixture
def offline(monkeypatch, tmp_path):
    hub_server.point_at(monkeypatch, tmp_path)


def test_hub_file(hub):
    tokenizer = sources.load("hub:owner/good")
    assert tokenizer.name == "owner/good"
    assert tokenizer.encode("aab").ids.tolist() == [0, 2]
    assert isinstance(tokenizer, sandbox.SandboxedTokenizer)
    assert hub.authorizations == {None}
    requests = len(hub.seen)
    assert sources.load("hub:owner/good") is tokenizer
    assert len(hub.seen) == requests


def test_hub_tokenizer_model_when_there_is_no_tokenizer_json(hub):
    assert sources.load("hub:owner/old").encode("ab").ids.tolist() == [256]


@pytest.mark.parametrize(
    ("repo", "reason"),
    [
        ("owner/missing", "There is no public repository owner/missing"),
        ("owner/gated", "owner/gated is gated"),
        ("owner/empty", "owner/empty has neither tokenizer.json nor tokenizer.model"),
        ("owner/large", "is larger than 20 MB"),
        ("owner/broken", "cannot send owner/broken now"),
        ("owner/panics", "owner/panics made its library crash"),
    ],
)
def test_hub_trouble(hub, repo, reason):
    with pytest.raises(UserError) as caught:
        sources.load(f"hub:{repo}")
    assert reason in one_sentence(caught)
    works_again()


def test_hub_file_that_is_too_large_is_not_downloaded(hub):
    with pytest.raises(UserError):
        sources.load("hub:owner/large")
    assert {command for command, _, _ in hub.seen} == {"HEAD"}


def test_hub_offline(offline):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        sources.load("hub:openai-community/gpt2")
    assert "cannot be reached" in one_sentence(caught)
    assert time.monotonic() - started < limits.CONNECT_SECONDS
    works_again()


def test_hub_offline_with_a_copy_in_the_cache(offline, tmp_path):
    folder = tmp_path / "cache" / "models--owner--good"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("0" * 40) / "tokenizer.json").write_bytes(GOOD)
    assert sources.load("hub:owner/good").encode("ab").ids.tolist() == [2]


def test_hub_that_never_ends(hub, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(limits, "HUB_SECONDS", 0.2)
    monkeypatch.setattr(remote, "_hub_file", lambda repo: release.wait() and (GOOD, "tokenizer.json"))
    with pytest.raises(UserError) as caught:
        sources.load("hub:owner/slow")
    assert "took too long" in one_sentence(caught)
    release.set()


def test_tiktoken_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    sources._slots.pop("tiktoken:cl100k_base", None)
    with pytest.raises(UserError) as caught:
        sources.load("tiktoken:cl100k_base")
    assert "needs the internet the first time" in one_sentence(caught)
    works_again()


def test_tiktoken_download_goes_on_in_the_background(monkeypatch):
    release = threading.Event()
    toy = tiktoken.Encoding("toy", pat_str=".", mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={})
    monkeypatch.setattr(limits, "TIKTOKEN_SECONDS", 0.2)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: release.wait() and toy)
    sources._slots.pop("tiktoken:gpt2", None)
    with pytest.raises(UserError, match="still being downloaded"):
        sources.load("tiktoken:gpt2")
    release.set()
    tokenizer = sources.load("tiktoken:gpt2")
    sources._slots.pop("tiktoken:gpt2")
    assert tokenizer.encode("é").ids.tolist() == [0xC3, 0xA9]


def test_encoding_with_special_tokens_and_a_gap_in_the_ranks():
    from tokenlab.text.adapters import ByteBPE
    from tokenlab.text.tokenization import Kind

    ranks = {bytes([b]): b for b in range(256)} | {b"ab": 257}
    encoding = tiktoken.Encoding("toy", pat_str=".+", mergeable_ranks=ranks, special_tokens={"<|end|>": 258})
    tokenizer = ByteBPE("toy", "toy", encoding)
    assert tokenizer.encode("ab<|end|>").ids.tolist() == [257, *b"<|end|>"]
    assert tokenizer.vocabulary_size == 259
    assert tokenizer.pieces()[255:] == [b"\xff", b"", b"ab", b""]
    assert tokenizer.kinds()[255:].tolist() == [Kind.BYTE, Kind.SPECIAL, Kind.NORMAL, Kind.SPECIAL]


def test_files_are_private():
    uploads = Uploads()
    uploads.put("x", sandbox.File(b"1", "json", "x"))
    assert sys.platform == "win32" or Path(uploads.folder.name).stat().st_mode & 0o077 == 0
