"""Views have a JSON form without NaN, and a text alternative that says what is in them."""

import json
import math
from dataclasses import dataclass

import numpy as np

from tokenlab import views


def test_json_form_of_a_strip():
    row = views.StripRow(name="Toy", starts=(0, 2), ends=(2, 3), ids=(7, 9), pieces={1: "ff"})
    strip = views.TokenStrip(title="Cut", graphemes=("a", "b", "c"), rows=(row,))
    plain = views.to_json(strip)
    assert plain["kind"] == "TokenStrip"
    assert plain["alt"] == "Cut: 3 characters; Toy 2 tokens."
    assert plain["rows"][0]["pieces"] == {"1": "ff"}
    assert json.loads(json.dumps(plain)) == plain


def test_numbers_that_json_lacks_become_null():
    table = views.Table(title="T", columns=("a", "b", "c"), rows=((math.nan, np.float64(1.5), np.int64(2)),))
    assert json.dumps(views.to_json(table)["rows"], allow_nan=False) == "[[null, 1.5, 2]]"


def test_a_result_keeps_its_order_and_its_gaps():
    @dataclass
    class Result:
        first: views.Note
        second: views.Note | None

    plain = views.result_to_json(Result(views.Note(title="t", text="x"), None))
    assert list(plain) == ["first", "second"] and plain["second"] is None


def test_alternatives_name_the_ends():
    bars = views.Bars(title="B", categories=("x", "y"), series={"s": (3.0, 1.0)}, x="thing", y="size [m]")
    assert bars.alt() == "B: size [m] by thing; s from 1 (y) to 3 (x)."
    lines = views.Lines(title="L", series=(views.Series(name="s", x=(0, 1), y=(2.0, 5.0)),), x="t", y="v")
    assert lines.alt() == "L: v against t; s from 2 to 5."
    tree = views.Tree(title="T", root=views.Node(text="ab", children=(views.Node(text="a"), views.Node(text="b"))))
    assert tree.alt() == "T: ab from (a and b)."
    heat = views.HeatMap(title="H", rows=("r",), columns=("c", "d"), values=((0.5, None),), x="col", y="row")
    assert heat.alt() == "H: row by col; lowest 0.5 at r, c; highest 0.5 at r, c."


def test_every_kind_has_its_drawing():
    from pathlib import Path

    from components.views import file_name

    folder = Path(__file__).parent.parent / "components" / "views"
    for kind in set(views.KINDS) - {"Note"}:  # a Note is Markdown
        assert f"TL.views.{kind} =" in (folder / file_name(kind)).read_text("utf-8")
