"""The workbench on a tiny random Llama over bytes: its parts, what streams, and what users get wrong."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tokenlab import guard, models, spec, views
from tokenlab.cache import compare, trials
from tokenlab.cache.compare import ATTENTION, BUDGETS, POLICIES, run
from tokenlab.errors import UserError

PROMPT = "In Hexby lives Conrad. A purple ring was given to Eva."
ALONE = {"prompt": PROMPT, "later": ""}


@pytest.fixture(autouse=True)
def known(monkeypatch, build):
    known = {"tinylm": build(), "bytelm": build(vocabulary=100), "hub:o/short": build(context=48)}
    monkeypatch.setattr(models, "causal_lm", known.__getitem__)
    monkeypatch.setattr(models, "has_onnx", lambda model: False)


def filled(result: compare.Result) -> list[str]:
    return [f.name for f in dataclasses.fields(result) if getattr(result, f.name) is not None]


def test_every_part_fills_its_own_views():
    *_, result = run(prompt=PROMPT, later="Who?")
    assert filled(result) == ["maps", "heads"] and "".join(result.maps.tokens) == f"{PROMPT} Who?"
    *_, result = run(POLICIES, **ALONE, new_tokens=3)
    assert filled(result) == ["outcome", "kept", "costs", "memory"]
    *_, result = run(BUDGETS, n=4, compared=())
    assert filled(result) == ["recall", "nll", "scores"]
    assert all(view.alt() for view in vars(result).values() if view)


def test_policies_join_one_by_one_with_full_first_and_random_always():
    results = list(run(POLICIES, **ALONE, compared=("H2O",), new_tokens=3))
    assert [[row.name for row in r.kept.rows] for r in results] == [
        ["full"],
        ["full", "random"],
        ["full", "random", "H2O"],
    ]
    for result in results:
        names = [row.name for row in result.kept.rows]
        assert [row[0] for row in result.outcome.rows] == names == [row[0] for row in result.costs.rows]
        assert [series.name for series in result.memory.series] == names


def sizes(value, path=()):
    """Path of every list -> its length."""
    if isinstance(value, dict):
        return {k: v for key, x in value.items() for k, v in sizes(x, (*path, key)).items()}
    if isinstance(value, list):
        inside = {k: v for i, x in enumerate(value) for k, v in sizes(x, (*path, i)).items()}
        return {path: len(value), **inside}
    return {}


@pytest.mark.parametrize("part", [POLICIES, BUDGETS])
def test_partial_results_only_grow(part, monkeypatch):
    """Gradio sends what has changed since the partial result before, and lists that become shorter arrive damaged."""
    monkeypatch.setattr(trials, "EVERY", 0.0)
    monkeypatch.setattr(compare, "SHARES", (0.05, 0.2))
    parts = [sizes(views.result_to_json(result)) for result in run(part, PROMPT, "Who?", new_tokens=4, n=4)]
    assert len(parts) >= 9
    for earlier, later in zip(parts, parts[1:], strict=False):
        assert all(later[path] >= length for path, length in earlier.items())


def test_the_first_difference_is_in_the_table_and_on_the_strip():
    *_, result = run(POLICIES, **ALONE, budget=0.05, new_tokens=12)
    prompt, at = len(PROMPT), {}
    full = result.kept.rows[0].tokens
    for row in result.kept.rows:
        found = [k for k, mark in row.marks.items() if mark == "first difference"]
        assert all(row.tokens[k] != full[k] and row.tokens[prompt:k] == full[prompt:k] for k in found)
        if found:
            at[row.name] = found[0] - prompt
    assert "full" not in at and len(at) >= 2  # random weights hardly agree
    for r, row in enumerate(result.outcome.rows):
        if row[0] in at:
            k = at[row[0]]
            ours = result.kept.rows[r].tokens[prompt + k]
            assert row[2] == f"token {k + 1}: “{ours}”, not “{full[prompt + k]}”"
            assert result.outcome.marks[r] == "differs"
            assert row[3] < 100
    assert result.outcome.rows[0][2] is None and result.outcome.rows[0][3] == 100 and 0 not in result.outcome.marks


def test_numbers_of_a_run_by_hand():
    *_, result = run(POLICIES, "x" * 50, "", budget=0.2, new_tokens=6, compared=("local window",))
    full, random, window = result.costs.rows
    assert [full[1], random[1], window[1]] == [55, 10, 10]  # the last token was not read
    slot = 2 * 2 * 2 * 8 * 4 / 1000  # key and value, 2 layers, 2 KV heads, 8 numbers of 4 bytes
    assert full[2] == pytest.approx(55 * slot) and window[2] == pytest.approx(10 * slot)
    assert all(row[4] > 0 for row in result.costs.rows)
    assert result.memory.series[0].x == (0, 1, 2, 3, 4, 5)
    assert result.memory.series[0].y == pytest.approx([n * slot for n in range(50, 56)])
    assert result.kept.prompt == 50 and result.kept.steps == 5
    assert "50 tokens are read at once; the budget is 10 tokens per head" in result.outcome.note


def test_what_follows_is_read_when_the_cache_is_cut():
    *_, result = run(POLICIES, "x" * 50, "Who?", budget=0.2, new_tokens=6, compared=("local window",))
    assert (result.kept.prompt, result.kept.steps) == (50, 10)
    assert {row.marks[50] for row in result.kept.rows} == {"what follows"}
    assert "".join(result.kept.rows[0].tokens[:55]) == "x" * 50 + " Who?"
    window = np.array(result.kept.rows[2].left)
    assert (window[..., :40] == 0).all() and (window[..., 40:50] == range(1, 11)).all()
    *_, joined = run(POLICIES, "x" * 50 + " Who?", "", budget=0.2, new_tokens=6, compared=())
    assert joined.outcome.rows[0][1] == result.outcome.rows[0][1]  # the full cache does not care


def test_the_answer_is_judged_where_it_is_known():
    def last(**values) -> compare.Result:
        return list(run(POLICIES, new_tokens=2, compared=(), **values))[-1]

    example = compare.EXAMPLE
    assert "Answer" not in last(**ALONE).outcome.columns and "Answer" not in last(later="Why?").outcome.columns
    assert "Answer" in last(**ALONE, answer=" Hexby ").outcome.columns
    result = last()
    assert f"The answer should be “{example.answer}”" in result.outcome.note
    assert {row[2] for row in result.outcome.rows} == {"wrong"}
    end = example.prompt.index(example.answer) + len(example.answer) - 1
    assert all(row.marks[end] == "states the answer" for row in result.kept.rows)
    assert result.kept.rows[0].tokens[end] == example.answer[-1]


def test_an_exported_graph_is_one_more_row(monkeypatch):
    monkeypatch.setattr(models, "has_onnx", lambda model: True)
    monkeypatch.setattr(compare, "by_onnx", lambda model, ids, n: ([10, 65], 1.5))
    *_, result = run(POLICIES, **ALONE, new_tokens=2, compared=())
    name, output, differs, agreement = result.outcome.rows[-1]
    assert (name, output, agreement) == ("full, ONNX", "\nA", None)
    assert differs.startswith("token 1: “\n”, not") and result.outcome.marks[2] == "differs"
    assert result.costs.rows[-1] == ("full, ONNX", None, None, None, 1.5)


def test_what_the_exported_graph_writes(build, monkeypatch):
    """A graph whose cache is simply the ids so far; what ONNX computes is tested with tokenlab.models."""
    toy = build()

    class Graph:
        def get_modelmeta(self):
            return SimpleNamespace(custom_metadata_map={"context": "1024"})

        def get_inputs(self):
            return SimpleNamespace(name="ids"), SimpleNamespace(name="past", shape=(1, 1, 0, 1))

        def run(self, _, feed):
            seen = np.concatenate([feed["past"].reshape(1, -1).astype(np.int64), feed["ids"]], 1)
            with torch.no_grad():
                logits = toy.torch(torch.from_numpy(seen)).logits.numpy()
            return logits[:, -feed["ids"].shape[1] :], seen.reshape(1, 1, -1, 1).astype(np.float32)

    monkeypatch.undo()
    assert not models.has_onnx(toy)
    monkeypatch.setattr(models, "onnx_session", lambda name: Graph())
    told = trials.task(toy, PROMPT, "", 5)
    tokens, milliseconds = compare.by_onnx(toy, told.ids, 5)
    *_, made = trials.generate(toy, trials.FULL.make(None, 0), told, 5)
    assert tokens == made.new and milliseconds > 0
    assert compare.by_onnx(toy, told.ids, 1)[1] is None


def test_recall_at_all_budgets(monkeypatch):
    monkeypatch.setattr(compare, "SHARES", (0.05, 0.2, 1.0))
    *partial, result = run(BUDGETS, n=4, compared=("H2O",), seed=5)
    assert len(partial) == 6 and len(result.scores.rows) == 7
    assert "1 of 7 runs" in partial[0].scores.note and "n = 4 new stories, seed 5" in result.scores.note
    assert [s.name for s in result.recall.series] == ["full", "random", "H2O", "guess"]
    full, random, _, guess = result.recall.series
    assert guess.x == full.x == random.x == (5, 20, 100) and len(set(full.y)) == 1 and 0 < guess.y[0] <= 50
    assert partial[1].nll.series[1].y == (result.nll.series[1].y[0], None, None)
    assert result.scores.rows[0][:3] == ("full", None, None)
    assert result.nll.series[0].y[0] == result.scores.rows[0][5]


def test_a_prompt_that_is_too_long_is_said_to_be_shortened():
    *_, result = run(POLICIES, "a b " * 30, "", model="hub:o/short", new_tokens=8, compared=())
    assert "has 120 tokens; toy reads only the last 40" in result.shortened.text
    assert result.kept.prompt == 40


def test_what_follows_may_not_take_all_the_room():
    with pytest.raises(UserError, match="room for 40 tokens here, and what follows fills it all"):
        next(run(POLICIES, "Eva", "Who? " * 30, model="hub:o/short", new_tokens=8))
    *_, maps = run(ATTENTION, "Eva", "Who? " * 30, model="hub:o/short")
    assert len(maps.maps.tokens) == 48 and "left out" in maps.maps.note


@pytest.mark.parametrize("part", [ATTENTION, POLICIES])
def test_an_empty_prompt_is_a_sentence(part):
    with pytest.raises(UserError, match="empty"):
        next(run(part, " \n", "Who?"))


def test_a_tokenizer_that_does_not_belong_to_the_model_is_a_sentence():
    with pytest.raises(UserError, match="knows only 100 tokens"):
        list(run(POLICIES, **ALONE, model="bytelm"))


def test_a_budget_of_one_token_works():
    *_, result = run(POLICIES, **ALONE, budget=0.01, new_tokens=4)
    assert [row[1] for row in result.costs.rows] == [len(PROMPT) + 3, 1, 1, 1, 1]


def test_a_stopped_run_keeps_what_it_had(monkeypatch):
    monkeypatch.setattr(trials, "EVERY", 0.0)
    running = run(POLICIES, **ALONE, new_tokens=8)
    shown = [next(running) for _ in range(3)]
    running.close()
    assert shown[-1].kept.steps == 2
    *_, whole = run(POLICIES, **ALONE, new_tokens=8)
    assert whole.kept.rows[0].tokens[: len(PROMPT) + 2] == shown[-1].kept.rows[0].tokens


def test_a_user_may_choose_no_policy_at_all():
    values = spec.check(run, {"part": POLICIES, **ALONE, "compared": [], "new_tokens": 1})
    finished = guard.last(compare, values)
    assert [row["name"] for row in finished.result["kept"]["rows"]] == ["full", "random"]
    assert finished.result["kept"]["steps"] == 0
