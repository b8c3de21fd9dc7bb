"""Scenes: the same for the same seed, and questions whose answers a second look at the things confirms."""

from collections import Counter

import numpy as np
import pytest

from tokenlab.pruning import scenes
from tokenlab.pruning.scenes import Scene, Thing


def made(*things):
    return Scene(0, np.zeros((96, 96, 3), np.uint8), things, None)


RED_STAR = Thing("star", "red", "big", 20.0, 20.0, 10.0)
BLUE_CIRCLE = Thing("circle", "blue", "small", 70.0, 48.0, 6.0)
RED_CIRCLE = Thing("circle", "red", "small", 50.0, 80.0, 6.0)


def test_a_seed_is_a_picture():
    one, again, other = scenes.scene(5), scenes.scene(5), scenes.scene(6)
    assert (one.pixels == again.pixels).all() and one.things == again.things
    assert one.pixels.shape == (96, 96, 3) and (one.pixels != other.pixels).any()
    assert [q.text for q in scenes.questions(one)] == [q.text for q in scenes.questions(again)]


def test_a_thing_is_drawn_where_it_is_said_to_be():
    canvas = np.full((96, 96, 3), 128.0)
    pixels = scenes.paint(canvas, (RED_STAR, BLUE_CIRCLE), None, np.random.default_rng(0)).astype(int)
    assert pixels[20, 20, 0] > 180 > 100 > pixels[20, 20, 2]
    assert pixels[48, 70, 2] > 180 > 100 > pixels[48, 70, 0]
    assert abs(pixels[90, 5] - 128).max() < 30


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_shapes_differ_and_fill_their_box(shape):
    cover = scenes.mask(Thing(shape, "red", "big", 48.0, 48.0, 20.0))
    rows, columns = (np.flatnonzero((cover > 0.5).any(axis)) for axis in (1, 0))
    assert 28 <= np.ptp(rows) <= 42 and 28 <= np.ptp(columns) <= 42
    areas = [scenes.mask(Thing(s, "red", "big", 48.0, 48.0, 20.0)).sum() for s in scenes.SHAPES]
    assert len({round(area) for area in areas}) == 5


def test_area_of_a_circle():
    assert scenes.mask(Thing("circle", "red", "big", 48.0, 48.0, 20.0)).sum() == pytest.approx(
        np.pi * 18.4**2, rel=0.01
    )


def test_patches_of_a_thing_hold_it():
    one = made(Thing("square", "red", "small", 12.0, 12.0, 4.0))
    assert one.patches((0,)) == (13,)  # pixels 9 to 15 lie in the second patch of the second row


def test_things_do_not_overlap():
    for seed in range(40):
        one = scenes.scene(seed)
        total = sum(scenes.mask(thing) for thing in one.things)
        assert total.max() <= 1.01


def test_answers_by_hand():
    one = made(RED_STAR, BLUE_CIRCLE, RED_CIRCLE)
    rng = np.random.default_rng(0)
    found = {}
    for _ in range(200):
        for kind in scenes.KINDS:
            question = scenes.ask(one, kind, rng)
            if question:
                found[question.text] = question.answer
    assert found["what color is the star ?"] == "red"
    assert found["what shape is the blue thing ?"] == "circle"
    assert found["how many circles are there ?"] == "2"
    assert found["how many things are there ?"] == "3"
    assert found["where is the red star ?"] == "top-left"
    assert found["where is the blue circle ?"] == "right"
    assert found["is there a blue star ?"] == "no" and found["is there a red circle ?"] == "yes"
    assert found["is the star big or small ?"] == "big"
    assert found["is the star left of the blue circle ?"] == "yes"
    assert found["is the red circle above the star ?"] == "no"
    assert not any("what color is the circle" in text for text in found), "there are two circles"
    assert not any("digit" in text for text in found)


def test_every_word_is_known():
    known = set(scenes.words())
    for seed in range(300):
        one = scenes.scene(seed)
        for question in scenes.questions(one):
            assert set(question.text.split()) <= known and question.answer in known
        assert set(scenes.caption(one).split()) <= known


def test_no_answer_gives_itself_away():
    answers = {kind: Counter() for kind in scenes.KINDS}
    for seed in range(600):
        for question in scenes.questions(scenes.scene(seed, background="drawn")):
            answers[question.kind][question.answer] += 1
    for kind, counts in answers.items():
        assert max(counts.values()) / sum(counts.values()) < 0.6, kind


def test_a_large_scene_is_its_crops():
    one = scenes.large(4)
    parts = scenes.crops(one)
    assert parts.shape == (5, 96, 96, 3)
    whole = np.concatenate((np.concatenate(parts[1:3], 1), np.concatenate(parts[3:], 1)))
    assert (whole == one.pixels).all()
    assert abs(parts[0].astype(float).mean() - one.pixels.mean()) < 1


def test_a_clip_does_what_it_says():
    for seed in range(40):
        film = scenes.clip(seed)
        before, after = film.frames[film.at - 1], film.frames[film.at]
        color, shape = film.name.split()
        there = [any(t.shape == shape for t in frame.things) for frame in (before, after)]
        assert there == {"appears": [False, True], "vanishes": [True, False], "turns": [True, True]}[film.event]
        if film.event == "turns":
            assert next(t.color for t in after.things if t.shape == shape) == color
            assert next(t.color for t in before.things if t.shape == shape) != color
        assert film.question[1] == shape
