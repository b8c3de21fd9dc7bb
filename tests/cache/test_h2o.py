"""H2O by hand, against a brute-force oracle, and as a panel, on models with random weights."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

from tokenlab import kv, models, spec, views
from tokenlab.cache import h2o, trials
from tokenlab.cache.h2o import H2O
from tokenlab.errors import UserError
from tokenlab.kv.cache import PolicyCache

LAYERS, HEADS, KV_HEADS, HEAD = 3, 4, 2, 8


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> models.LanguageModel:
    """A Llama with random weights, grouped queries and peaked attention, that reads bytes after <s>."""
    folder = tmp_path_factory.mktemp("toy")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {c: i + 2 for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=258,
            hidden_size=HEADS * HEAD,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=1200,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=None,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:  # as initialized, attention is so flat that all tokens weigh the same
                parameter.mul_(12 if any(part in name for part in ("q_proj", "k_proj")) else 5)
        model.lm_head.weight[1] = 0  # or the model ends its texts at once
    model.save_pretrained(folder)
    return models.load_folder(folder, trusted=True)


def text(length: int, rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 258, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(session: kv.Session, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    """(B, T - prompt + 1, V): after the prompt, and after each further token."""
    steps = [session.prefill(ids[:, :prompt])]
    return torch.stack(steps + [session.step(ids[:, i]) for i in range(prompt, ids.shape[1])], 1)


# ---- by hand


def attend(cache: PolicyCache, weights: list) -> None:
    """One forward of a layer without a model. weights: (Hq, q, L); each key holds its token's position."""
    rows = torch.tensor(weights, dtype=torch.float32)[None]
    layer, new = cache.layers[0], rows.shape[2]
    kv_heads = rows.shape[1] if layer.keys is None else layer.keys.shape[1]
    first = layer.cumulative_length
    keys = torch.arange(first, first + new, dtype=torch.float32)[None, None, :, None].expand(1, kv_heads, new, 1)
    layer.update(keys, -keys)
    layer.arrive(None)
    cache.settle(
        kv.Observation(
            layer,
            "decode" if layer.forwards else "prefill",
            rows.new_zeros(1, rows.shape[1], new, 1),
            None,
            rows,
            layer.positions[:, 0, -new:],
            layer.positions,
            rows.shape[1] // kv_heads,
        )
    )


# A query's weights per row; the columns sum to 2.0, 1.8, 0.7, 0.3, 0.2.
PROMPT = [
    [1.0, 0.0, 0.0, 0.0, 0.0],
    [0.6, 0.4, 0.0, 0.0, 0.0],
    [0.1, 0.7, 0.2, 0.0, 0.0],
    [0.2, 0.5, 0.1, 0.2, 0.0],
    [0.1, 0.2, 0.4, 0.1, 0.2],
]


def test_five_tokens_by_hand():
    cache = PolicyCache(1, H2O(kv.Budget(total=3, recent=1)))
    layer = cache.layers[0]

    def holds(places: list[int], scores: list[float]) -> None:
        assert layer.positions.tolist() == [[places]]
        torch.testing.assert_close(layer.scores, torch.tensor([[scores]]))
        # Keys, values, positions and scores leave together.
        assert layer.keys.flatten().tolist() == places
        assert layer.values.flatten().tolist() == [-place for place in places]

    attend(cache, [PROMPT])
    holds([0, 1, 4], [2.0, 1.8, 0.2])  # the two heaviest, and the newest
    attend(cache, [[[0.05, 0.05, 0.8, 0.1]]])
    holds([0, 1, 5], [2.05, 1.85, 0.1])  # token 4 is recent no more; 1.0 is not enough
    attend(cache, [[[0.0, 0.0, 0.9, 0.1]]])
    holds([0, 1, 6], [2.05, 1.85, 0.1])  # token 5 has 1.0, too
    attend(cache, [[[0.0, 0.0, 1.0, 0.0]]])
    holds([0, 1, 7], [2.05, 1.85, 0.0])  # token 6: 1.1
    layer.scores = torch.tensor([[[2.05, 0.5, 0.0]]])
    attend(cache, [[[0.0, 0.0, 0.7, 0.3]]])
    holds([0, 7, 8], [2.05, 0.7, 0.3])  # 0.7 against 0.5: a heavy hitter falls


def test_divided_by_age_by_hand():
    # Per query that could see them: 2.0 / 5 = 0.4, 1.8 / 4 = 0.45, 0.7 / 3, 0.3 / 2.
    budget = kv.Budget(total=2, recent=1)
    plain, aged = PolicyCache(1, H2O(budget)), PolicyCache(1, H2O(budget, per_age=True))
    attend(plain, [PROMPT])
    attend(aged, [PROMPT])
    assert plain.layers[0].positions.tolist() == [[[0, 4]]]
    assert aged.layers[0].positions.tolist() == [[[1, 4]]]
    torch.testing.assert_close(aged.layers[0].scores, torch.tensor([[[1.8, 0.2]]]))  # the sum itself is kept
    # Token 1: 1.8 / 5 = 0.36, token 4: (0.2 + 0.6) / 2 = 0.4.
    attend(aged, [[[0.0, 0.6, 0.4]]])
    assert aged.layers[0].positions.tolist() == [[[4, 5]]]


def test_query_heads_that_share_a_kv_head_are_averaged():
    cache = PolicyCache(1, H2O(kv.Budget(total=2, recent=1)))
    layer = cache.layers[0]
    layer.update(torch.zeros(1, 1, 0, 1), torch.zeros(1, 1, 0, 1))  # one KV head
    first = [[1, 0, 0], [0.9, 0.1, 0], [0.8, 0.1, 0.1]]  # columns: 2.7, 0.2, 0.1
    second = [[1, 0, 0], [0, 1, 0], [0, 1, 0]]  # columns: 1, 2, 0
    attend(cache, [first, second])
    assert layer.positions.tolist() == [[[0, 2]]]
    torch.testing.assert_close(layer.scores, torch.tensor([[[1.85, 0.05]]]))


def test_every_head_evicts_for_itself():
    cache = PolicyCache(1, H2O(kv.Budget(total=2, recent=1)))
    attend(cache, [[[1, 0, 0], [0.9, 0.1, 0], [0.8, 0.1, 0.1]], [[1, 0, 0], [0, 1, 0], [0, 1, 0]]])
    assert cache.layers[0].positions.tolist() == [[[0, 2], [1, 2]]]


def test_heavy_removed_by_hand():
    cache = PolicyCache(1, h2o.Removed(2))
    attend(cache, [PROMPT])
    assert cache.layers[0].positions.tolist() == [[[2, 3, 4]]]  # without the two heaviest
    attend(cache, [[[0.9, 0.0, 0.0, 0.1]]])
    assert cache.layers[0].positions.tolist() == [[[2, 3, 4, 5]]]  # nothing leaves later
    everything = PolicyCache(1, h2o.Removed(99))
    attend(everything, [PROMPT])
    assert everything.layers[0].positions.tolist() == [[[4]]]


def test_budgets_by_hand():
    assert h2o.shares(20) == kv.Budget(total=20, recent=10)
    assert h2o.shares(19) == kv.Budget(total=19, recent=10)
    assert h2o.shares(20, 0.25, sinks=4) == kv.Budget(total=20, recent=12, sink=4)
    assert h2o.shares(20, 1.0) == kv.Budget(total=20, recent=0)
    assert h2o.shares(20, 0.0) == kv.Budget(total=20, recent=20)
    assert h2o.shares(1, 0.5, sinks=4) == kv.Budget(total=1, recent=1)
    assert h2o.shares(100, 0.29).recent == 71


def test_variants_by_hand():
    made = {name: policy.make(h2o.shares(20, 0.3, sinks=2), 5) for name, policy in h2o.variants(True).items()}
    assert set(made) == {*h2o.POLICIES, "random removed"} and set(h2o.ALWAYS) < set(made)
    assert made["H2O"].budget == made["random"].budget == kv.Budget(total=20, recent=13, sink=2)
    assert made["heavy only"].budget == kv.Budget(total=20, recent=0, sink=2)
    assert made["H2O"].per_age and made["heavy only"].per_age and made["random"].seed == 5
    assert (made["heavy removed"].count, made["heavy removed"].needs_weights) == (5, True)
    assert (made["random removed"].count, made["random removed"].needs_weights) == (5, False)
    assert made["local window"].budget.sink == 0 and made["sink + local"].budget.sink == 2
    assert not h2o.POLICY.make(kv.Budget(ratio=0.2), 0).per_age


def test_counts_by_hand():
    # a b a c, two places to either side. a: at 0 sees b (a is its own kind), at 2 sees b, c; b: at 1 sees a, a, c.
    frequency, together = h2o.counts([[7, 8, 7, 9]], window=2)
    assert frequency == {7: 2, 8: 1, 9: 1}
    assert together == {7: 3, 8: 3, 9: 2}
    twice, _ = h2o.counts([[7, 8], [8, 8]])
    assert twice == {7: 1, 8: 3}


def test_attention_per_query_by_hand():
    # One layer, two heads, three tokens: means 2.4, 0.5, 0.1, seen by 3, 2 and 1 queries.
    scores = torch.tensor([[[2.8, 0.2, 0.0], [2.0, 0.8, 0.2]]])
    np.testing.assert_allclose(h2o.per_query(scores), [0.8, 0.25, 0.1], atol=1e-6)


def test_rank_correlation_is_that_of_scipy():
    from scipy.stats import spearmanr

    assert h2o.spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    x, y = np.random.default_rng(0).integers(0, 5, (2, 40))
    assert h2o.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(h2o.spearman([1, 1, 1], [1, 2, 3]))


# ---- against an oracle


class BruteForce(kv.AttentionView):
    """H2O as a mask over a full cache, with lists and loops, from queries and keys alone."""

    def __init__(self, heavy: int, recent: int, per_age: bool = False):
        self.heavy, self.recent, self.per_age = heavy, recent, per_age
        self.sums: dict[tuple[int, int], list[float]] = {}
        self.alive: dict[tuple[int, int], set[int]] = {}

    def mask(self, layer, query, key, q_pos, kv_pos):
        total, new = key.shape[2], query.shape[2]
        group = query.shape[1] // key.shape[1]
        allowed = torch.zeros(1, query.shape[1], new, total, dtype=torch.bool)
        for head in range(key.shape[1]):
            sums = self.sums.setdefault((layer.index, head), [])
            alive = self.alive.setdefault((layer.index, head), set())
            alive |= set(range(total - new, total))
            sums += [0.0] * new
            for q in range(new):
                place = total - new + q
                seen = [j for j in sorted(alive) if j <= place]
                for member in range(group):
                    asking = query[0, head * group + member, q]
                    dots = torch.stack([asking @ key[0, head, j] for j in seen]) / HEAD**0.5
                    allowed[0, head * group + member, q, seen] = True
                    for j, weight in zip(seen, dots.softmax(0).tolist(), strict=True):
                        sums[j] += weight / group
            if len(alive) > self.heavy + self.recent:
                newest = set(sorted(alive)[len(alive) - self.recent :])
                value = {j: sums[j] / (total - j if self.per_age else 1) for j in alive - newest}
                best = sorted(value, key=value.get, reverse=True)[: self.heavy]
                self.alive[layer.index, head] = newest | set(best)
        return allowed


@pytest.mark.parametrize("per_age", [False, True])
@pytest.mark.parametrize(("heavy", "recent"), [(4, 4), (6, 1), (0, 5), (5, 0), (0, 1)])
def test_equals_the_brute_force_rule(toy, heavy, recent, per_age):
    ids = text(40)
    oracle = BruteForce(heavy, recent, per_age)
    expected = logits(kv.Session(toy.torch, view=oracle), ids, 24)
    session = kv.Session(toy.torch, H2O(kv.Budget(total=heavy + recent, recent=recent), per_age))
    torch.testing.assert_close(logits(session, ids, 24), expected, atol=1e-4, rtol=0)
    for layer in session.cache.layers:
        for head in range(KV_HEADS):
            alive = sorted(oracle.alive[layer.index, head])
            assert layer.positions[0, head].tolist() == alive
            sums = torch.tensor([oracle.sums[layer.index, head][j] for j in alive])
            torch.testing.assert_close(layer.scores[0, head], sums, atol=1e-4, rtol=0)
    full = logits(kv.Session(toy.torch), ids, 24)
    assert (full - expected).abs()[:, 1:].max() > 0.1  # the budget does matter in this model


def test_a_budget_with_room_for_all_is_the_full_cache(toy):
    ids = text(40)
    full = logits(kv.Session(toy.torch), ids, 24)
    for made in (H2O(kv.Budget(total=40)), H2O(kv.Budget(total=40), per_age=True), h2o.Watched(), h2o.Removed(0)):
        torch.testing.assert_close(logits(kv.Session(toy.torch, made), ids, 24), full, atol=1e-5, rtol=0)


def test_a_budget_of_one_token_keeps_the_newest(toy):
    ids = text(30)
    session = kv.Session(toy.torch, H2O(kv.Budget(total=1)))
    assert torch.isfinite(logits(session, ids, 20)).all()
    assert all(layer.positions.tolist() == [[[29]] * KV_HEADS] for layer in session.cache.layers)
    small = kv.Session(toy.torch, H2O(kv.Budget(ratio=0.05)))
    small.prefill(ids[:, :20])
    assert small.cache.layers[0].slots == (1, 1, 0)
    heavy = kv.Session(toy.torch, H2O(kv.Budget(total=1, recent_share=0.0)))
    heavy.prefill(ids[:, :20])
    assert heavy.cache.layers[0].slots == (1, 0, 0)


def test_padded_rows_get_what_they_get_alone(toy):
    ids, short = text(30, seed=1), text(24, seed=2)
    both = torch.cat([ids, torch.cat([torch.zeros(1, 6, dtype=torch.long), short], 1)])
    real = torch.ones(2, 20, dtype=torch.bool)
    real[1, :6] = False
    for made in (H2O(kv.Budget(total=6)), H2O(kv.Budget(total=6), per_age=True), h2o.Removed(3)):
        batch = kv.teacher_forced(kv.Session(toy.torch, made), both, 20, real).nll
        torch.testing.assert_close(batch[:1], kv.teacher_forced(kv.Session(toy.torch, made), ids, 20).nll)
        torch.testing.assert_close(batch[1:], kv.teacher_forced(kv.Session(toy.torch, made), short, 14).nll)


def test_two_sessions_share_nothing(toy):
    made = H2O(kv.Budget(total=6))
    texts = text(30, seed=1), text(30, seed=2)
    alone = [logits(kv.Session(toy.torch, made), ids, 20) for ids in texts]
    sessions = [kv.Session(toy.torch, made) for _ in texts]
    turns = [[session.prefill(ids[:, :20])] for session, ids in zip(sessions, texts, strict=True)]
    for i in range(20, 30):
        for session, ids, out in zip(sessions, texts, turns, strict=True):
            out.append(session.step(ids[:, i]))
    for out, expected in zip(turns, alone, strict=True):
        torch.testing.assert_close(torch.stack(out, 1), expected, atol=0, rtol=0)


def test_random_choices_follow_the_seed(toy):
    ids = text(30)

    def places(name: str, seed: int) -> list:
        session = kv.Session(toy.torch, h2o.variants()[name].make(h2o.shares(8), seed))
        logits(session, ids, 24)
        return [layer.positions.tolist() for layer in session.cache.layers]

    for name in ("random", "random removed"):
        assert places(name, 1) == places(name, 1) != places(name, 2)
        assert places(name, 1)[0] != places(name, 1)[1]  # layers draw on their own
    held = np.array(places("random removed", 1))
    assert held.shape == (LAYERS, 1, KV_HEADS, 30 - 4)  # four heavy slots' worth of the prompt
    assert (held[..., -6:] == np.arange(24, 30)).all()


def test_accumulated_scores_are_those_of_the_stock_model(toy):
    ids = text(20)
    stock = toy.torch(ids, output_attentions=True).attentions
    expected = torch.stack([a[0].sum(1).reshape(KV_HEADS, 2, 20).mean(1) for a in stock])
    torch.testing.assert_close(h2o.accumulated(toy, ids), expected, atol=1e-4, rtol=0)


# ---- the panel


@pytest.fixture
def panel(toy, monkeypatch):
    """The whole run on the toy model, as JSON."""
    monkeypatch.setattr(models, "causal_lm", lambda name: toy)

    def run(**values) -> dict:
        *_, last = h2o.run(**spec.check(h2o.run, values))
        return json.loads(json.dumps(views.result_to_json(last), allow_nan=False))

    return run


STORY = {"prompt": "Mia has a kite. Otto has a drum.", "later": "Who has the kite?", "answer": "Mia", "new_tokens": 6}


def test_the_panel(panel):
    found = panel(**STORY, budget=0.25)
    prompt, follows = 1 + len(STORY["prompt"]), 1 + len(STORY["later"])
    kept = found["kept"]
    assert (kept["prompt"], kept["steps"]) == (prompt, follows + 5) == (33, 23)
    assert [row["name"] for row in kept["rows"]] == ["full", "H2O", "local window", "random"]
    for row in kept["rows"]:
        assert row["tokens"][0] == "⟨start⟩"
        assert "".join(row["tokens"][1 : prompt + follows]) == f"{STORY['prompt']} {STORY['later']}"
        assert len(row["tokens"]) == prompt + follows + 5
        assert row["marks"][str(prompt)] == "what follows"
        assert row["marks"]["3"] == "states the answer"
        left = np.array(row["left"])
        assert left.shape == (LAYERS, KV_HEADS, len(row["tokens"]))
        assert ((left == -1).sum(-1) == (len(row["tokens"]) if row["name"] == "full" else 8)).all()
    assert found["about"]["text"] == (
        "The prompt's 33 tokens are read at once, then 18 one by one. Each of the 6 KV heads may keep 8 slots: "
        "4 heavy, 4 recent. One prompt, one run; the random choice has seed 0."
    )
    for name, slots, kilobytes, bookkeeping, milliseconds in found["costs"]["rows"]:
        assert slots == (56 if name == "full" else 8)
        assert kilobytes == slots * LAYERS * KV_HEADS * HEAD * 2 * 4 / 1000
        assert bookkeeping == slots * LAYERS * KV_HEADS * (8 + 4) / 1000 and milliseconds > 0
    assert [row[0] for row in found["outcome"]["rows"]] == [row[0] for row in found["costs"]["rows"]]
    assert {row[2] for row in found["outcome"]["rows"]} == {"wrong"}
    assert "H2O" in found["outcome"]["help"]
    sizes = {series["name"]: series["y"] for series in found["memory"]["series"]}
    assert sizes["H2O"] == [8 * 384 / 1000] * 24
    assert sizes["full"] == [slots * 384 / 1000 for slots in range(33, 57)]
    assert found["scores"]["rows"] == ["layer 0", "layer 1", "layer 2"]
    assert [series["name"] for series in found["together"]["series"]] == ["occurrences", "co-occurrences"]
    assert sorted(found["together"]["series"][0]["y"]) == list(range(1, 34))


def test_the_first_difference_is_marked(panel):
    found = panel(**STORY, slots=1)
    rows = {row["name"]: row for row in found["kept"]["rows"]}
    differs = [k for k, v in rows["local window"]["marks"].items() if v == "first difference"]
    assert len(differs) == 1
    at = int(differs[0])
    assert rows["local window"]["tokens"][:at] == rows["full"]["tokens"][:at]
    assert rows["local window"]["tokens"][at] != rows["full"]["tokens"][at]
    index = [row[0] for row in found["outcome"]["rows"]].index("local window")
    assert found["outcome"]["marks"][str(index)] == "differs"
    assert found["outcome"]["rows"][index][3].startswith(f"token {at - 51 + 1}: ")


def test_generous_budgets_write_what_the_full_cache_writes(panel):
    found = panel(**STORY, slots=200, positions="compacted")
    assert found["outcome"]["marks"] == {}
    assert len({row[1] for row in found["outcome"]["rows"]}) == 1
    assert "room for the whole prompt" in found["about"]["text"]


def test_the_answer_is_known_for_the_first_story_only(panel):
    found = panel(new_tokens=1)
    assert f"should be “{h2o.EXAMPLE.answer}”" in found["outcome"]["note"]
    assert "Answer" in found["outcome"]["columns"]
    assert "Answer" not in panel(later="", new_tokens=1)["outcome"]["columns"]
    assert "Answer" not in panel(**{**STORY, "answer": " "})["outcome"]["columns"]


@pytest.mark.parametrize("chosen", h2o.POLICIES)
def test_every_policy_can_be_shown(panel, toy, chosen):
    found = panel(**STORY, budget=0.2, chosen=chosen, step=0)
    names = ["full", "H2O", "local window", "random"]
    names += [chosen] * (chosen not in names) + ["random removed"] * (chosen == "heavy removed")
    assert [row["name"] for row in found["kept"]["rows"]] == names
    mapped = chosen if chosen in ("full", "heavy only", "heavy removed") else "H2O"
    assert found["scores"]["note"].startswith(f"{mapped}, after step 0")
    sums = h2o.accumulated(toy, torch.tensor([[*toy.prompt(STORY["prompt"]).ids]]))
    if chosen == "full":
        np.testing.assert_allclose(found["scores"]["values"], sums.mean(1), atol=6e-4)
    held = {row["name"]: row["left"] for row in found["kept"]["rows"]}[mapped]
    assert [v is not None for v in found["scores"]["values"][1]] == [
        any(head[int(name.split()[0]) - 1] != 0 for head in held[1]) for name in found["scores"]["columns"]
    ]
    if chosen == "heavy removed":  # half of six slots
        for layer in range(LAYERS):
            for head in range(KV_HEADS):
                gone = {i for i, step in enumerate(held[layer][head]) if step == 0}
                assert gone == set(sums[layer, head].topk(3).indices.tolist())


def test_the_map_shows_a_layer_or_a_head(panel):
    one = panel(**STORY, chosen="full", step=2, layer=1)["scores"]
    assert one["rows"] == ["head 0", "head 1"] and len(one["columns"]) == 35
    across = panel(**STORY, chosen="full", step=2, head=1)["scores"]
    assert across["values"][1] == one["values"][1]
    # Grouped queries are averaged, so each of the 35 queries gives away a weight of one in each KV head.
    assert sum(one["values"][0]) == pytest.approx(35, abs=0.05)
    late = panel(**STORY, step=200)["scores"]
    assert "after step 23," in late["note"]


def test_a_wide_map_shows_the_heaviest_and_says_so(panel):
    found = panel(prompt="abc " * 90, later="", chosen="full", new_tokens=1)["scores"]
    assert len(found["columns"]) == h2o.MAP_TOKENS
    assert "361 of 361 tokens are held somewhere, and the 240 with the largest scores are shown" in found["note"]


def test_a_prompt_without_anything_after_it(panel):
    found = panel(prompt="Once", later=" ", new_tokens=1, slots=1)
    assert found["kept"]["steps"] == 0 and found["kept"]["prompt"] == 5
    assert found["costs"]["rows"][1][-1] is None  # no token was read after the prompt: no time per token
    assert "then the model writes" in found["about"]["text"]
    assert found["together"]["log_x"]


def test_a_token_without_company(toy):
    found = h2o.together_chart(toy, np.array([5, 5, 5]))
    assert [series.x for series in found.series] == [(3.0, 3.0, 3.0), (0.0, 0.0, 0.0)]
    assert not found.log_x and "undefined with occurrences, undefined with co-occurrences" in found.note


def test_a_long_prompt_says_what_is_left_out(panel, toy):
    found = panel(prompt="word " * 300, later="?", new_tokens=20)
    assert found["about"]["text"].startswith(
        f"The prompt and what follows have 1,502 tokens; {toy.name} reads only the last 1,179 of them here."
    )
    assert found["kept"]["prompt"] + 2 == 1200 - 20


def test_a_question_that_fills_the_context(panel):
    with pytest.raises(UserError, match="what follows fills it all, so that nothing of the prompt is left"):
        panel(prompt="Hello.", later="why " * 400, new_tokens=2)


def test_generation_ends_with_the_text(toy, monkeypatch, panel):
    *_, made = trials.generate(toy, kv.Full(), trials.task(toy, "Mia", "", 1), 1)
    token = made.new[0]
    ended = dataclasses.replace(toy, end=frozenset({token}))
    monkeypatch.setattr(models, "causal_lm", lambda name: ended)
    assert panel(prompt="Mia", later="", new_tokens=50)["kept"]["steps"] == 0


def test_hostile_text_is_data_and_never_markdown(panel):
    evil = "<img src=x onerror=alert(1)> \u202e\u0000 👩‍👩‍👧"
    found = panel(prompt=evil, later=evil, answer="(", new_tokens=2)
    assert found["kept"]["rows"][0]["tokens"][1] == "<"
    assert "<" not in found["about"]["text"] and "alert" not in found["about"]["text"]


def test_parts_stream(toy, monkeypatch):
    monkeypatch.setattr(models, "causal_lm", lambda name: toy)
    parts = list(h2o.run(**spec.check(h2o.run, STORY)))
    assert [len(part.kept.rows) for part in parts] == [1, 2, 3, 4, 4]
    assert [part.scores is None for part in parts] == [True] * 4 + [False]


def test_the_seed_changes_the_random_row_only(panel):
    first, again, other = (panel(**STORY, seed=seed)["kept"]["rows"] for seed in (1, 1, 2))
    assert first == again
    assert first[:3] == other[:3]
    assert first[3]["left"] != other[3]["left"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"layer": 3}, "layers 0 to 2"),
        ({"head": 2}, "KV heads 0 to 1"),
        ({"budget": 0.0}, "outside"),
        ({"slots": -1}, "outside"),
        ({"new_tokens": 10**6}, "outside"),
        ({"chosen": "lru"}, "not one of"),
        ({"positions": "none"}, "not one of"),
        ({"seed": -1}, "whole number"),
        ({"prompt": "\ud800"}, "lone surrogate"),
    ],
)
def test_bad_input_is_one_sentence(panel, values, words):
    with pytest.raises(UserError, match=words) as caught:
        panel(**{**STORY, **values})
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


# ---- the experiment


def test_a_small_experiment(toy):
    found = h2o.experiment(
        toy,
        documents=6,
        length=60,
        budgets=(0.5, 0.2),
        recall_budgets=(0.2,),
        distances=(200,),
        questions=8,
    )
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [figure["kind"] for figure in plain["figures"]] == ["Lines"] * 4 + ["Bars", "Table"]
    table = {(row[0], row[1]): row for row in plain["figures"][-1]["rows"]}
    assert len(table) == 1 + 2 * 4
    full, own, local = (table[key][3] for key in (("full", 100), ("H2O", 20), ("local window", 20)))
    assert found.value == pytest.approx((local - own) / (local - full), abs=0.02)
    assert (found.n, found.baseline, found.full, found.bar) == (6, 0.0, 1.0, 0.5)
    assert table["full", 100][4:7] == [1.0, 100.0, 100.0]
    assert table["H2O", 20][2] == 6 and table["H2O", 20][6] == pytest.approx(100 * 6 / 59, abs=0.1)
    # Random weights recall nothing, so nothing may be claimed.
    assert not found.holds and "is not shown here" in found.reason
    assert len(found.reason.split("\n")) == 6
