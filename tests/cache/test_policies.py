"""The policies side by side, by hand and against the shared interface, on a tiny random Llama over bytes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as hf

from tokenlab import kv, models, stories
from tokenlab.cache import policies
from tokenlab.models import LanguageModel
from tokenlab.text import sources

LAYERS, KV_HEADS = 2, 2


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy() -> LanguageModel:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=256,
        max_position_embeddings=1024,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=KV_HEADS,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:  # as initialized, attention is so flat that evicting would hardly show
                parameter.mul_(12 if "q_proj" in name or "k_proj" in name else 5)
    return LanguageModel("toy", model, sources.load("bytes"), (), frozenset(), 1024)


def text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, length)


def finished(*run) -> policies.Trace:
    *_, made = policies.generate(*run)
    return made.trace()


# ---- the registry


def test_full_and_random_come_with_any_choice():
    assert [p.name for p in policies.chosen(())] == ["full", "random"]
    assert [p.name for p in policies.chosen(["H2O", "local window"])] == ["full", "random", "local window", "H2O"]
    assert set(policies.names()).isdisjoint({"full", "random"})
    assert len({p.name for p in policies.POLICIES}) == len(policies.POLICIES)


@pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda policy: policy.name)
def test_a_generous_budget_is_the_full_cache_and_one_token_is_enough(toy, policy):
    ids = text(20)
    full = finished(toy, ids, policies.FULL, kv.Budget(ratio=1.0), 0, 6)
    generous = finished(toy, ids, policy, kv.Budget(total=64), 0, 6)
    assert generous.new == full.new and generous.held == 25
    least = finished(toy, ids, policy, kv.Budget(ratio=0.01), 0, 6)
    assert len(least.new) == 6 and least.held == (25 if policy is policies.FULL else 1)


def test_sink_and_local_keeps_the_first_four(toy):
    policy = next(p for p in policies.POLICIES if p.name == "sink + local")
    trace = finished(toy, text(20), policy, kv.Budget(total=6), 0, 4)
    stays = [token for token, step in enumerate(trace.left[0][0]) if step == -1]
    assert stays == [0, 1, 2, 3, 21, 22]


def test_the_seed_decides_what_random_keeps(toy):
    same, again, other = (finished(toy, text(20), policies.RANDOM, kv.Budget(total=8), s, 3).left for s in (1, 1, 2))
    assert same == again and same != other


# ---- one prompt


class EarlyOrLate(kv.KVPolicy):
    """Head 0 likes early tokens, head 1 late ones."""

    def score(self, observation):
        positions = observation.kv_pos.float()
        return torch.stack([-positions[:, 0], positions[:, 1] ** 2], 1)


def test_when_each_head_lets_go_of_each_token(toy):
    policy = policies.Policy("toy", "", lambda budget, seed: EarlyOrLate(kv.Budget(total=2, recent=1)))
    trace = finished(toy, text(3), policy, kv.Budget(ratio=1.0), 0, 3)
    # Head 0 holds 0 2, then 0 3, then 0 4; head 1 holds 1 2, then 2 3, then 3 4.
    assert trace.left == (((-1, 0, 1, 2, -1), (0, 1, 2, -1, -1)),) * LAYERS
    assert len(trace.new) == 3 and trace.read.tolist() == [*text(3), *trace.new[:2]]
    assert trace.kv_bytes == (2 * LAYERS * KV_HEADS * 2 * 8 * 4,) * 3  # keys and values, 2 slots of 8 float32
    window = policies.Policy("window", "", lambda budget, seed: kv.LocalWindow(kv.Budget(total=2)))
    assert finished(toy, text(3), window, kv.Budget(ratio=1.0), 0, 3).left[1][0] == (0, 1, 2, -1, -1)


@pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda policy: policy.name)
def test_left_says_what_the_map_of_kept_tokens_says(toy, policy):
    *_, made = policies.generate(toy, text(24), policy, kv.Budget(ratio=0.4), 3, 10)
    left = torch.tensor(made.trace().left).flatten(0, 1)
    arrival = (torch.arange(33) - 24 + 1).clamp(min=0)
    for step, share in enumerate(kv.kept_map(made.session.cache)):
        held = ((left == -1) | (left > step)) & (arrival <= step)
        torch.testing.assert_close(held.float().mean(0), share)


def test_a_run_that_is_left_half_way_can_be_shown_and_goes_on(toy):
    whole = finished(toy, text(12), policies.RANDOM, kv.Budget(total=5), 0, 6)
    running = policies.generate(toy, text(12), policies.RANDOM, kv.Budget(total=5), 0, 6)
    for _ in range(3):
        made = next(running)
    assert made.trace().new == whole.new[:3]
    assert [len(head) for layer in made.trace().left for head in layer] == [14] * 4
    running.close()
    made.session.step(torch.tensor([made.new[-1]]))
    assert len(made.session.seconds) == 4


def test_the_first_difference():
    assert policies.first_difference((1, 2, 3), (1, 5, 3)) == 1
    assert policies.first_difference((1, 2), (1, 2, 3)) is None
    assert policies.first_difference((), ()) is None


def test_agreement_follows_the_reference_whatever_the_policy_would_have_written(toy):
    ids, budget = text(20), kv.Budget(total=4)
    full = finished(toy, ids, policies.FULL, budget, 0, 8).new
    local = next(p for p in policies.POLICIES if p.name == "local window")
    assert policies.agreement(toy, ids, full, policies.FULL, budget, 0) == 1.0
    session = kv.Session(toy.torch, kv.LocalWindow(budget))
    choices = [session.prefill(torch.from_numpy(ids)[None])]
    choices += [session.step(torch.tensor([token])) for token in full[:-1]]
    same = [int(logits.argmax()) == token for logits, token in zip(choices, full, strict=True)]
    assert 0 < sum(same) < 8  # else this test would see nothing
    assert policies.agreement(toy, ids, full, local, budget, 0) == sum(same) / 8


def test_whether_an_output_gives_the_answer():
    assert policies.says(" Fern. And then", "fern") and policies.says("Fern", " Fern ")
    assert not policies.says("Fernwick", "Fern") and not policies.says("So Fern", "Fern")


def test_where_the_answer_is_stated():
    each = np.arange(13)  # a token per byte; é has two
    assert policies.stated_at("é Fern, Fern", "Fern ", each, each + 1) == [6, 12]
    words = np.array([0, 2, 7]), np.array([2, 7, 8])
    assert policies.stated_at("é Fern,", "er", *words) == [1]
    assert policies.stated_at("é Fern,", " ", *words) == []


def test_the_exported_graph_beside_it(toy, monkeypatch):
    """A graph whose cache is simply the ids so far; what ONNX computes is tested with tokenlab.models."""

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

    assert not policies.has_onnx(toy)
    monkeypatch.setattr(models, "onnx_session", lambda name: Graph())
    tokens, milliseconds = policies.by_onnx(toy, text(12), 5)
    assert tuple(tokens) == finished(toy, text(12), policies.FULL, kv.Budget(ratio=1.0), 0, 5).new
    assert milliseconds > 0 and policies.by_onnx(toy, text(12), 1)[1] is None


# ---- many stories


def test_a_case_is_cut_before_the_question_and_ends_with_the_answer(toy):
    story = stories.recall_case(7, "who", "test", 300)
    question = story.questions[0]
    one = policies.case(toy, 7, "who", 300)
    data = story.text.encode()
    assert bytes(one.story) == data[: question.span[0]]
    assert bytes(one.rest) == data[question.span[0] : question.answer_span[1]]
    assert bytes(one.rest[one.answer :]).decode() == question.answer
    assert one.chance == 1 / len(question.candidates)
    kinds = [policies.case(toy, i, stories.KINDS[i], 400) for i in range(2)]
    assert policies.cases(toy, 2, seed=0) == kinds and policies.cases(toy, 2, seed=1) != kinds


def toy_cases() -> list[policies.Case]:
    sizes = [(20, 9, 6), (31, 4, 3), (26, 7, 2)]
    ids = [text(sum(size[:2]), seed).tolist() for seed, size in enumerate(sizes)]
    return [policies.Case(tuple(x[:s]), tuple(x[s:]), a, 0.5) for x, (s, _, a) in zip(ids, sizes, strict=True)]


def test_padding_by_hand():
    ids, real = policies.padded([policies.Case((1, 2), (3, 4, 5), 1, 1.0), policies.Case((6, 7, 8), (9,), 0, 1.0)])
    assert ids.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 0]]
    assert real.tolist() == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize("policy", [p for p in policies.POLICIES if p is not policies.RANDOM], ids=lambda p: p.name)
def test_batched_is_what_each_story_gives_alone(toy, policy):
    some, made = toy_cases(), policy.make(kv.Budget(total=7), 0)
    together = policies.score(toy.torch, some, made)
    alone = [policies.score(toy.torch, [one], made) for one in some]
    np.testing.assert_allclose(together.nll, [one.nll[0] for one in alone], atol=1e-4)
    assert together.right.tolist() == [one.right[0] for one in alone]
    if policy is not policies.FULL:
        assert together.kv_bytes == alone[0].kv_bytes == 2 * LAYERS * KV_HEADS * 7 * 8 * 4


def test_an_answer_counts_when_every_token_of_it_was_the_first_choice(toy):
    story = toy_cases()[0].story
    written = finished(toy, np.array(story), policies.FULL, kv.Budget(ratio=1.0), 0, 6).new
    good = policies.Case(story, written, 4, 0.5)
    late = policies.Case(story, (*written[:5], (written[5] + 1) % 256), 4, 0.5)
    early = policies.Case(story, ((written[0] + 1) % 256, *written[1:2]), 1, 0.5)
    scored = policies.score(toy.torch, [good, late, early], kv.Full())
    assert scored.right.tolist()[:2] == [True, False]
    ids = torch.tensor([[*early.story, *early.rest]])
    with torch.no_grad():
        logits = toy.torch(ids).logits[0, len(story) - 1 : -1]
    assert scored.nll[2] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, ids[0, len(story) :])), abs=1e-4
    )


def test_budgets_are_shares_of_the_longest_story(toy):
    some = toy_cases()
    rows = list(policies.against_budget(toy, some, policies.chosen(["local window"]), (0.01, 0.5), seed=0))
    assert [(p.name, share, slots) for p, share, slots, _ in rows] == [
        ("full", 1.0, 31),
        ("random", 0.01, 1),
        ("local window", 0.01, 1),
        ("random", 0.5, 16),
        ("local window", 0.5, 16),
    ]
    assert all(len(score.nll) == 3 and np.isfinite(score.nll).all() for *_, score in rows)
