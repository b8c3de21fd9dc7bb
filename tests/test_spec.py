"""A signature says everything: names, controls, defaults and the views of the Result."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import pytest

from tokenlab import spec
from tokenlab.controls import Choice, Slider, Text
from tokenlab.errors import UserError
from tokenlab.views import Note, Table


@dataclass(frozen=True)
class Result:
    note: Note
    table: Table | None = None


def run(
    text: Annotated[str, Text("Text")] = "hi",
    n: Annotated[int, Slider("N", minimum=1, maximum=3, step=1)] = 2,
) -> Iterator[Result]:
    yield Result(Note(title="t", text=text * n))


def bare(text="hi") -> Result: ...


def no_default(text: Annotated[str, Text("Text")]) -> Result: ...


def test_fields_in_order():
    assert [(f.name, f.control.label, f.default) for f in spec.fields(run)] == [("text", "Text", "hi"), ("n", "N", 2)]


def test_check_fills_in_defaults_and_converts():
    assert spec.check(run, {"n": "3"}) == {"text": "hi", "n": 3}


def test_check_names_what_is_unknown():
    with pytest.raises(UserError, match="no setting 'm' here; the settings are text, n"):
        spec.check(run, {"m": 1})


def test_views_of_a_generator_and_of_an_optional_field():
    assert spec.result_views(run) == {"note": Note, "table": Table}


def test_a_control_is_shown_only_while_the_one_that_it_hangs_on_is():
    def parts(
        part: Annotated[str, Choice("Part", options=("a", "b"))] = "a",
        source: Annotated[str, Choice("Source", options=("x", "y"), when=("part", "b"))] = "x",
        text: Annotated[str, Text("Text", when=("source", "y"))] = "",
    ) -> Result: ...

    fields = spec.fields(parts)
    shown = {(p, s): spec.shown(fields, {"part": p, "source": s, "text": ""}, "text") for p in "ab" for s in "xy"}
    assert shown == {("a", "x"): False, ("a", "y"): False, ("b", "x"): False, ("b", "y"): True}
    assert spec.shown(fields, {}, "part")


@pytest.mark.parametrize("function", [bare, no_default])
def test_a_parameter_without_control_or_default_is_our_bug(function):
    with pytest.raises(TypeError, match="Annotated"):
        spec.fields(function)


def shares(
    part: Annotated[str, Choice("Part", options=("a", "b"), style="parts")] = "a",
    corpus: Annotated[str, Choice("Corpus", options=("ours", "yours"))] = "ours",
    text: Annotated[str, Text("Text", when=("corpus", "yours"), shortest=3, characters=8, shared="text")] = "",
    prompt: Annotated[str, Text("Prompt", shared="prompt.text")] = "Who?",
    answer: Annotated[str, Text("Answer", when=("part", "b"), shared="prompt.answer")] = "me",
    n: Annotated[int, Slider("N", minimum=1, maximum=3, step=1)] = 2,
) -> Result: ...


def test_a_panel_hands_over_what_was_changed_and_is_shown():
    values = spec.check(shares, {})
    assert spec.shared(shares, values) == {}
    assert spec.shared(shares, {**values, "text": "hidden", "n": 3}) == {}
    assert spec.shared(shares, {**values, "corpus": "yours", "text": "mine"}) == {"text": "mine"}


def test_what_stands_before_a_dot_is_handed_over_together():
    values = spec.check(shares, {"prompt": "Where?", "part": "b"})
    assert spec.shared(shares, values) == {"prompt.text": "Where?", "prompt.answer": "me"}
    assert spec.shared(shares, {**values, "part": "a"}) == {"prompt.text": "Where?"}


def test_a_panel_takes_over_what_it_can_use_and_shows_it():
    values = spec.check(shares, {"n": 3})
    taken, labels = spec.take_over(shares, values, {"text": "mine", "prompt.answer": "you", "model": "x"})
    assert taken == {**values, "corpus": "yours", "text": "mine", "answer": "you"}  # the part "a" stays open
    assert labels == ("Text", "Answer")
    for useless in ("ab", "far too long", 7, None):
        assert spec.take_over(shares, values, {"text": useless}) == (values, ())
    assert spec.take_over(shares, taken, {"text": "mine"}) == (taken, ())
