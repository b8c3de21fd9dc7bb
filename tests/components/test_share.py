"""Links carry the state, are checked like any input, and never raise."""

import base64
import inspect
import json
import zlib
from types import SimpleNamespace
from typing import Annotated

import pytest

from components import share
from tokenlab import catalog, limits, spec
from tokenlab.controls import Picture, Seed, Sound

LIVE = [entry.slug for entry in catalog.live()]


def defaults(slug):
    return spec.check(catalog.find(slug).module().run, {})


def opened(query):
    return share.read(dict(pair.split("=", 1) for pair in query.split("&")))


def packed(state):
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(state).encode())).decode().rstrip("=")


@pytest.mark.parametrize("slug", LIVE)
def test_the_default_link_is_short_and_comes_back(slug):
    link = share.write(slug, defaults(slug))
    assert link == share.Link(f"v=1&sys={slug}")
    assert opened(link.query) == share.Opened(slug, defaults(slug))


def test_changed_values_travel():
    values = defaults("compare-tokenizers") | {
        "text": "<img onerror=alert(1)> שלום 👩‍👩‍👧",
        "tokenizers": ("bytes", "words"),
        "attack": True,
    }
    link = share.write("compare-tokenizers", values)
    assert link.left_out == "" and opened(link.query).values == values


def test_long_text_is_left_out_and_said():
    noise = base64.b64encode(
        bytes(range(256)) * 12 + b"".join(bytes([i * j % 251]) for i in range(99) for j in range(60))
    ).decode()
    text = " ".join(noise[i : i + 50] for i in range(0, len(noise), 50))
    values = defaults("compare-tokenizers") | {"text": text, "attack": True}
    link = share.write("compare-tokenizers", values)
    assert "Your text is longer than a link can carry" in link.left_out
    assert opened(link.query).values == defaults("compare-tokenizers") | {"attack": True}
    assert len(link.query) <= limits.LINK_STATE_BYTES + 40


def test_uploads_stay_behind_and_that_is_said():
    values = defaults("compare-tokenizers") | {"tokenizers": ("bytes", "words", "file:0123456789abcdef")}
    link = share.write("compare-tokenizers", values)
    assert "uploaded file" in link.left_out
    assert opened(link.query).values["tokenizers"] == ("bytes", "words")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("v=1&sys=nonsense", "no system called 'nonsense'"),
        ("v=1&sys=keyformer", "not built yet"),
        ("v=9&sys=compare-tokenizers", "another version"),
        ("sys=compare-tokenizers", "another version"),
        ("v=1&sys=compare-tokenizers&s=%%%", "damaged"),
        ("v=1&sys=compare-tokenizers&s=" + "A" * 10_000, "longer than"),
        ("v=1&sys=compare-tokenizers&s=" + packed([1, 2]), "damaged"),
        ("v=1&sys=compare-tokenizers&s=" + packed({"text": "x"})[:-6], "damaged"),
        ("v=1&sys=compare-tokenizers&s=" + packed({"price": -5}), "outside"),
        ("v=1&sys=compare-tokenizers&s=" + packed({"colour": "red"}), "no setting 'colour'"),
        ("v=1&sys=compare-tokenizers&s=" + packed({"tokenizers": ["bytes"]}), "2 to 6"),
        ("v=1&sys=compare-tokenizers&s=" + packed({"text": "a\ud800"}), "surrogate"),
        ("v=1&sys=compare-tokenizers&s=" + packed({"made": [1]}), "recipes"),
        (
            "v=1&sys=compare-tokenizers&s=" + packed({"made": {"trained:0": {"algorithm": "magic"}}}),
            "settings in this link",
        ),
        ("v=1&sys=compare-tokenizers&s=" + packed({"text": "a" * 70_000}), "damaged"),
        ("v=1&sys=<script>alert(1)</script>", "no system called"),
    ],
)
def test_a_bad_link_opens_with_one_sentence(query, says):
    result = opened(query)
    assert says in result.problem and result.values == {} and "\n" not in result.problem


def test_no_link_is_no_problem():
    assert share.read({}) is None and share.read({"__theme": "dark"}) is None


@pytest.mark.parametrize("slug", LIVE)
def test_the_python_snippet_runs_the_same_call(slug):
    entry = catalog.find(slug)
    snippet = share.as_python(slug, defaults(slug))
    compile(snippet, "snippet", "exec")
    package, module = entry.module_name.rsplit(".", 1)
    result = "*_, result" if inspect.isgeneratorfunction(entry.module().run) else "result"
    assert snippet == f"from {package} import {module}\n\n{result} = {module}.run()\n"


def test_the_python_snippet_holds_what_changed():
    snippet = share.as_python(
        "compare-tokenizers", defaults("compare-tokenizers") | {"text": 'say "hi"\n', "attack": True}
    )
    assert snippet.count("\n    ") == 2 and "attack=True" in snippet and repr('say "hi"\n') in snippet


def as_toy(monkeypatch, run):
    entry = SimpleNamespace(module=lambda: SimpleNamespace(run=run), module_name="tokenlab.toys.toy", live=True)
    entry.slug = "toy"
    monkeypatch.setattr(catalog, "find", lambda slug: entry)
    return entry


@pytest.fixture
def toy(monkeypatch):
    """A system with a picture under the slug "toy"."""

    def run(picture: Annotated[str, Picture("Picture")] = "photo:astronaut", seed: Annotated[int, Seed()] = 0): ...

    return as_toy(monkeypatch, run)


def test_a_picture_travels_by_its_name_and_an_upload_stays_behind(toy):
    link = share.write("toy", {"picture": "scene:7", "seed": 3})
    assert link.left_out == "" and opened(link.query).values == {"picture": "scene:7", "seed": 3}
    link = share.write("toy", {"picture": "upload:0123456789abcdef", "seed": 3})
    tokenizer_file = "Not in the link: the uploaded file (uploads stay on the server that they were sent to)."
    assert link.left_out == tokenizer_file
    assert opened(link.query).values == {"picture": "photo:astronaut", "seed": 3}


def test_a_path_in_a_link_is_not_read(toy, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    result = opened("v=1&sys=toy&s=" + packed({"picture": str(tmp_path / "a.png")}))
    assert "There is no picture" in result.problem and result.values == {}


def test_the_python_snippet_says_what_an_upload_needs(toy, monkeypatch):
    snippet = share.as_python("toy", {"picture": "upload:0123456789abcdef", "seed": 0})
    assert snippet.splitlines()[2:] == [
        "# upload:0123456789abcdef is a file of yours: first call tokenlab.pictures.register_path with its path.",
        "result = toy.run(",
        "    picture='upload:0123456789abcdef',",
        ")",
    ]
    assert "#" not in share.as_python("toy", {"picture": "scene:7", "seed": 0})
    monkeypatch.undo()
    values = defaults("compare-tokenizers") | {"tokenizers": ("bytes", "file:0123456789abcdef")}
    snippet = share.as_python("compare-tokenizers", values)
    assert "# file:0123456789abcdef is a file of yours: first call tokenlab.text.sources.register_path" in snippet


def test_a_spoken_sentence_travels_and_a_recording_stays_behind(monkeypatch):
    def run(sound: Annotated[str, Sound("Sound")] = "sample:chord"): ...

    as_toy(monkeypatch, run)
    link = share.write("toy", {"sound": "say:cmn:你好 <b>"})
    assert link.left_out == "" and opened(link.query).values == {"sound": "say:cmn:你好 <b>"}
    link = share.write("toy", {"sound": "upload:0123456789abcdef"})
    assert link.left_out.startswith("Not in the link: the uploaded or recorded sound (uploads stay")
    assert opened(link.query).values == {"sound": "sample:chord"}
    snippet = share.as_python("toy", {"sound": "upload:0123456789abcdef"})
    assert "# upload:0123456789abcdef is a file of yours: first call tokenlab.sounds.register_path" in snippet
