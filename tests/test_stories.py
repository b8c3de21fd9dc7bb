"""Story worlds: the answer is stated before the question, nothing of the test split leaks, seeds, distances."""

import re
import string

import pytest

from tokenlab import stories

SEEDS = range(150)


def cases(split):
    for seed in SEEDS:
        yield stories.story(seed, split, chars=700, facts=7, ask="along")
        yield stories.recall_case(seed, stories.KINDS[seed % len(stories.KINDS)], split, distance=300)


def words(text):
    return set(re.findall(r"[A-Za-z]+", text))


@pytest.mark.parametrize("split", stories.SPLITS)
def test_every_span_holds_what_it_says_and_the_fact_comes_first(split):
    for story in cases(split):
        for question in story.questions:
            text = story.text
            assert text[slice(*question.span)] == f"Question: {question.text}"
            assert text[slice(*question.answer_span)] == question.answer
            assert text[slice(*question.source_span)] == question.answer
            assert question.fact_span[0] <= question.source_span[0] < question.source_span[1] <= question.fact_span[1]
            assert question.fact_span[1] < question.span[0] < question.span[1] < question.answer_span[0]
            assert story.prompt(question) + " " + question.answer == text[: question.answer_span[1]]
            assert story.prompt(question).endswith(" Answer:")
            assert question.answer in question.candidates
            assert question.distance == len(text[question.source_span[1] : question.answer_span[0]])


def test_each_question_has_one_answer_in_its_story():
    for story in cases("train"):
        asked = [question.text for question in story.questions]
        assert len(set(asked)) == len(asked)
        for question in story.questions:
            if question.kind == "code":
                assert re.fullmatch(r"[1-9]\d\d", question.answer)


def test_nothing_of_the_test_split_is_in_train():
    train = set().union(*(words(story.text) for story in cases("train")))
    test = set().union(*(words(story.text) for story in cases("test")))
    held_names = set(stories.NAMES["test"].split()) | set(stories.TOWNS["test"].split())
    assert not train & held_names
    assert len(test & held_names) > 30
    assert not test & (set(stories.NAMES["train"].split()) | set(stories.TOWNS["train"].split()))


def test_names_and_facts_of_the_splits_are_disjoint():
    for lists in (stories.NAMES, stories.TOWNS):
        assert not set(lists["train"].split()) & set(lists["test"].split())
    for group in stories.FACTS.values():
        assert not set(group["train"]) & set(group["test"])


def test_combinations_of_thing_and_colour_are_held_out():
    for split in stories.SPLITS:
        for story in cases(split):
            for question in story.questions:
                if question.kind in ("color", "where") and question.text.endswith("?"):
                    thing = re.search(r"the (\w+)\?", question.text)[1]
                    assert stories.held_out(thing, question.answer) == (split == "test")


def test_invented_names_of_the_splits_never_meet():
    import random

    rng = random.Random(0)
    train = {stories.invented(rng, "train") for _ in range(2000)}
    test = {stories.invented(rng, "test") for _ in range(2000)}
    assert len(train) > 900 and len(test) > 200 and not train & test


def test_same_seed_same_story_other_seed_another():
    assert stories.story(5) == stories.story(5)
    assert stories.recall_case(5, "who") == stories.recall_case(5, "who")
    texts = {stories.story(seed).text for seed in range(2000)}
    assert len(texts) == 2000


@pytest.mark.parametrize("kind", stories.KINDS)
@pytest.mark.parametrize("distance", (200, 500, 2000))
def test_a_recall_case_asks_its_kind_at_its_distance(kind, distance):
    found = [stories.recall_case(seed, kind, "test", distance).questions for seed in range(20)]
    assert all(len(questions) == 1 and questions[0].kind == kind for questions in found)
    mean = sum(questions[0].distance for questions in found) / 20
    assert abs(mean - distance) < 60
    assert all(abs(questions[0].distance - distance) < 120 for questions in found)


def test_token_distance_by_hand():
    # one token per word with the blank before it: "a red kite" ... "red"
    text = "Mia has a red kite. Question: What colour is the kite? Answer: red."
    offsets = [match.span() for match in re.finditer(r" ?\w+| ?[^\w\s]", text)]
    question = stories.Question("color", "", "red", (20, 54), (63, 66), (0, 19), (10, 13), ("red",))
    assert text[slice(*question.answer_span)] == text[slice(*question.source_span)] == "red"
    assert question.distance == 50
    # tokens: Mia has a red(3) kite . Question : What colour is the kite ? Answer : red(16) .
    assert stories.token_span(offsets, question.source_span) == (3, 4)
    assert stories.token_span(offsets, question.answer_span) == (16, 17)
    assert question.token_distance(offsets) == 13


def test_length_and_facts_are_as_asked():
    for seed in range(30):
        story = stories.story(seed, chars=2000, facts=8)
        assert len(story.questions) == 8
        assert 1800 < len(story.text) < 2300
        ends = [question.span[0] for question in story.questions]
        assert min(ends) > max(question.fact_span[1] for question in story.questions)


def test_most_facts_in_both_splits_and_too_many_is_refused():
    for split in stories.SPLITS:
        for seed in range(200):
            kinds = (None, 1, 2)[seed % 3]
            assert len(stories.story(seed, split, facts=stories.MAX_FACTS, kinds=kinds).questions) == stories.MAX_FACTS
    with pytest.raises(ValueError, match="1 to 16 facts"):
        stories.story(0, facts=17)
    with pytest.raises(ValueError, match="split"):
        stories.story(0, "dev")


def test_facts_of_one_kind_only():
    for seed in range(50):
        kinds = {question.kind for question in stories.story(seed, facts=5, kinds=1).questions}
        assert len({stories.QUESTIONS[kind][0] for kind in kinds}) == 1


def test_plain_ascii_and_no_open_slots():
    for story in cases("train"):
        assert set(story.text) <= set(string.ascii_letters + string.digits + " .,:?!\"'")
