"""What a view sends to the page survives Gradio's streaming of differences."""

import copy
import json

from gradio import utils

from components.views import Drawn


def applied(old, changes):
    """The client's side of gradio.utils.diff: replace, add and delete at a path, one after the other."""
    new = copy.deepcopy(old)
    for action, path, value in changes:
        if not path:
            return value
        *way, last = path
        place = new
        for step in way:
            place = place[step]
        if action == "delete":
            del place[last]
        elif action == "add" and isinstance(place, list):
            place.insert(last, value)
        else:
            place[last] = value
    return new


def test_a_list_that_gets_shorter_arrives_as_it_is():
    drawn = Drawn("Lines", render=False)
    before = {"series": [{"x": [5, 100], "y": [1, 2]}]}
    after = {"series": [{"x": [5], "y": [1]}]}
    sent = [drawn.postprocess(value) for value in (before, after)]
    got = applied(sent[0], utils.diff(*sent))
    assert got["kind"] == "Lines" and json.loads(got["data"]) == after


def test_nothing_draws_nothing():
    assert Drawn("Lines", render=False).postprocess(None) is None
