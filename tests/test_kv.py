"""tokenlab.kv against the stock models of transformers, at toy size with random weights."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest
import torch
import transformers as hf

from tokenlab import kv
from tokenlab.errors import UserError
from tokenlab.kv.attention import gaps, rotation, visible
from tokenlab.kv.cache import PolicyCache, PolicyLayer

VOCABULARY = 97
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": 128, "eos_token_id": None, "bos_token_id": None}
ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
CONFIGS = {
    "llama": lambda: hf.LlamaConfig(**COMMON, **SIZES, num_key_value_heads=2),
    "qwen2": lambda: hf.Qwen2Config(**COMMON, **SIZES, num_key_value_heads=2),
    "qwen3": lambda: hf.Qwen3Config(**COMMON, **SIZES, num_key_value_heads=1, head_dim=16),
    "mistral-sliding": lambda: hf.MistralConfig(**COMMON, **SIZES, num_key_value_heads=2, sliding_window=5),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCABULARY, n_positions=128, n_embd=32, n_layer=3, n_head=4, eos_token_id=None, bos_token_id=None
    ),
    "pythia": lambda: hf.GPTNeoXConfig(**COMMON, **SIZES, rope_parameters={**ROPE, "partial_rotary_factor": 0.5}),
}


def build(name: str = "llama", seed: int = 0, **changes: object) -> hf.PreTrainedModel:
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:  # as initialized, attention is so flat that a wrong mask would hardly show
                parameter.mul_(12 if any(part in name for part in ("q_proj", "k_proj", "query_key", "c_attn")) else 5)
    return model


def text(length: int, rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def llama() -> hf.PreTrainedModel:
    return build()


class HeavyHitters(kv.KVPolicy):
    """H2O in full: the interface gives the rest."""

    needs_weights = True

    def score(self, observation: kv.Observation) -> torch.Tensor:
        return kv.head_mean(observation.weights.sum(2), observation.group)


def policies(budget: kv.Budget) -> list[kv.KVPolicy]:
    return [HeavyHitters(budget), kv.LocalWindow(budget), kv.RandomRecent(budget, seed=3)]


def run(session: kv.Session, ids: torch.Tensor, prompt: int, real: torch.Tensor | None = None) -> torch.Tensor:
    """Logits (B, T - prompt + 1, V): after the prompt, and after each further token."""
    steps = [session.prefill(ids[:, :prompt], real)]
    return torch.stack(steps + [session.step(ids[:, i]) for i in range(prompt, ids.shape[1])], 1)


@torch.no_grad()
def stock(model: hf.PreTrainedModel, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    return model(ids).logits[:, prompt - 1 :]


# ---- the full cache is the stock model


@pytest.mark.parametrize("name", CONFIGS)
def test_full_and_generous_budgets_are_the_stock_model(name):
    model, ids = build(name), text(24, rows=2)
    expected = stock(model, ids, 14)
    for policy in [None, kv.Full(), *policies(kv.Budget(total=24))]:
        session = kv.Session(model, policy)
        torch.testing.assert_close(run(session, ids, 14), expected, atol=1e-5, rtol=0)
        assert all(layer.keys.shape[2] == 24 for layer in session.cache.layers)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_are_those_of_stock_generate(name):
    model, ids = build(name), text(9, rows=2)
    expected = model.generate(ids, max_new_tokens=12, do_sample=False)[:, 9:]
    for policy in (None, HeavyHitters(kv.Budget(total=64))):
        got = torch.stack(list(kv.greedy(kv.Session(model, policy), ids, 12)), 1)
        assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["llama", "gpt2", "pythia"])
def test_left_padding_gives_what_each_row_gives_alone(name):
    model, ids = build(name), text(20, seed=4)
    short = ids[:, 8:]
    both = torch.cat([ids, torch.cat([torch.zeros(1, 8, dtype=torch.long), short], 1)])
    real = torch.ones(2, 14, dtype=torch.bool)
    real[1, :8] = False
    for policy in [None, *policies(kv.Budget(total=64)), *policies(kv.Budget(total=7, sink=2))]:
        if isinstance(policy, kv.RandomRecent):
            continue  # its draws depend on the row
        batch = run(kv.Session(model, policy), both, 14, real)
        torch.testing.assert_close(batch[:1], run(kv.Session(model, policy), ids, 14), atol=1e-5, rtol=0)
        torch.testing.assert_close(batch[1:], run(kv.Session(model, policy), short, 6), atol=1e-5, rtol=0)


def test_generate_of_transformers_works_on_the_session_with_padding(llama):
    ids = text(10, rows=2)
    ids[1, :4] = 0
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    settings = {"attention_mask": mask, "max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    session = kv.Session(llama)
    got = session.model.generate(ids, past_key_values=session.cache, **settings)
    assert got.tolist() == llama.generate(ids, **settings).tolist()
    small = kv.Session(llama, HeavyHitters(kv.Budget(total=6)))
    ours = kv.Session(llama, HeavyHitters(kv.Budget(total=6)))
    theirs = small.model.generate(ids, past_key_values=small.cache, **settings)[:, 10:]
    assert theirs.tolist() == torch.stack(list(kv.greedy(ours, ids, 10, mask.bool())), 1).tolist()


def test_a_prompt_in_pieces_with_a_full_cache_is_the_prompt(llama):
    ids = text(18)
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=18)))
    pieces = [session.forward(ids[:, a:b]) for a, b in ((0, 7), (7, 12), (12, 18))]
    torch.testing.assert_close(torch.cat(pieces, 1), stock(llama, ids, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.06), (torch.float16, 0.006)])
def test_half_precision_models_score_in_float32(dtype, tolerance):
    model = build().to(dtype)
    ids = text(20)
    session = kv.Session(model, HeavyHitters(kv.Budget(total=20)))
    got = run(session, ids, 12)
    assert got.dtype == dtype
    # The same sums, rounded elsewhere; the logits' standard deviation is 0.5.
    torch.testing.assert_close(got, stock(model, ids, 12), atol=tolerance, rtol=0)
    layer = session.cache.layers[0]
    assert layer.keys.dtype == dtype and layer.scores.dtype == torch.float32
    # Every query spends a weight of one, to float32 accuracy: 20 queries, 2 KV heads.
    torch.testing.assert_close(layer.scores.sum(-1), torch.full((1, 2), 20.0), atol=1e-4, rtol=0)


# ---- eviction


class KeptOnly(kv.AttentionView):
    """The oracle: a full cache under a mask that hides what a recorded session had evicted."""

    def __init__(self, events):
        self.held = {(e.step, e.layer): e.positions for e in events}

    def mask(self, layer, query, key, q_pos, kv_pos):
        if layer.forwards == 0:
            return None
        held = self.held[layer.forwards - 1, layer.index]  # (B, Hkv, n)
        seen = (kv_pos[..., None] == held[:, :, None]).any(-1) | (kv_pos == q_pos[:, :1, None])
        return seen.repeat_interleave(query.shape[1] // key.shape[1], 1)[:, :, None]


@pytest.mark.parametrize("name", CONFIGS)
def test_real_eviction_equals_a_mask_over_the_full_cache(name):
    model, ids = build(name), text(40, rows=2)
    full = stock(model, ids, 20)
    for policy in policies(kv.Budget(total=8, sink=1, recent_share=0.4)):
        evicting = kv.Session(model, policy, record=True)
        evicted = run(evicting, ids, 20)
        masked = run(kv.Session(model, view=KeptOnly(evicting.cache.events)), ids, 20)
        torch.testing.assert_close(evicted, masked, atol=1e-5, rtol=0)
        if name != "mistral-sliding":  # whose own window hides most of what is evicted
            assert (evicted - full).abs()[:, 1:].max() > 0.1


def test_the_prefill_and_its_token_see_everything(llama):
    ids = text(20)
    for policy in policies(kv.Budget(total=1, recent_share=1.0)):
        session = kv.Session(llama, policy)
        torch.testing.assert_close(session.prefill(ids), stock(llama, ids, 20)[:, -1], atol=1e-5, rtol=0)
        assert all(layer.positions.tolist() == [[[19], [19]]] for layer in session.cache.layers)


def test_evicted_memory_is_freed_and_counted(llama):
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=6)))
    run(session, text(40, rows=2), 30)
    for layer in session.cache.layers:
        assert layer.keys.shape == layer.values.shape == (2, 2, 6, 8)
        assert layer.positions.shape == layer.scores.shape == (2, 2, 6)
        for x in (layer.keys, layer.values, layer.positions, layer.scores):
            assert x.untyped_storage().nbytes() == x.nbytes  # no view on a larger tensor
    slot = 2 * 2 * 8 * 4  # keys and values, 2 KV heads, 8 numbers of 4 bytes
    assert session.cache.kv_bytes_per_step == [3 * 2 * 6 * slot] * 11
    assert session.cache.kv_bytes == 3 * 2 * 6 * slot
    assert session.cache.side_bytes == 3 * 2 * 2 * 6 * (8 + 4)
    full = kv.Session(llama)
    run(full, text(40, rows=2), 30)
    assert full.cache.kv_bytes_per_step == [3 * 2 * n * slot for n in range(30, 41)]


def test_sequence_length_counts_tokens_seen(llama):
    session = kv.Session(llama, kv.LocalWindow(kv.Budget(total=4, sink=1)))
    run(session, text(16), 10)
    assert session.cache.get_seq_length() == 16
    assert session.cache.get_mask_sizes(1, 0) == (17, 0)
    assert session.cache.layers[2].positions.tolist() == [[[0, 13, 14, 15]] * 2]


def test_a_new_token_stays_while_it_is_recent(llama):
    ids = text(30)
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=6, recent=3)))
    session.prefill(ids[:, :20])
    for i in range(20, 30):
        session.step(ids[:, i])
        for layer in session.cache.layers:
            assert layer.positions[..., -3:].tolist() == [[[i - 2, i - 1, i]] * 2]
            assert (layer.positions.diff() > 0).all()


def test_heavy_hitters_by_hand():
    # Four tokens, one head; each row is a query's softmax. Column sums: 1.9, 1.2, 0.6, 0.3.
    weights = torch.tensor([[1, 0, 0, 0], [0.2, 0.8, 0, 0], [0.4, 0.1, 0.5, 0], [0.3, 0.3, 0.1, 0.3]])[None, None]
    cache = PolicyCache(1, HeavyHitters(kv.Budget(total=2, recent=1)), record=True)
    layer = cache.layers[0]

    def attend(rows: torch.Tensor) -> None:
        new = rows.shape[2]
        layer.update(torch.zeros(1, 1, new, 2), torch.zeros(1, 1, new, 2))
        layer.arrive(None)
        cache.settle(
            kv.Observation(
                layer, "", rows.new_zeros(1, 1, new, 2), None, rows, layer.positions[:, 0], layer.positions, 1
            )
        )

    attend(weights)
    assert layer.positions.tolist() == [[[0, 3]]]  # the heaviest, and the recent one
    torch.testing.assert_close(layer.scores, torch.tensor([[[1.9, 0.3]]]))
    attend(torch.tensor([[[[0.1, 0.5, 0.4]]]]))
    assert layer.positions.tolist() == [[[0, 4]]]  # 2.0 against 0.8
    attend(torch.tensor([[[[0.0, 0.3, 0.7]]]]))
    assert layer.positions.tolist() == [[[0, 5]]]  # 2.0 against 0.7
    layer.scores = torch.tensor([[[0.5, 0.2]]])
    attend(torch.tensor([[[[0.1, 0.9, 0.0]]]]))
    assert layer.positions.tolist() == [[[5, 6]]]  # 0.6 against 1.1: the first token falls
    assert [e.src.tolist() for e in cache.events] == [
        [[[0, -1, -1, 1]]],
        [[[0, -1, 1]]],
        [[[0, -1, 1]]],
        [[[-1, 0, 1]]],
    ]
    assert kv.kept_map(cache).tolist() == [
        [1, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_keep_best_prefers_protected_then_score_then_age_and_drops_padding():
    scores = torch.tensor([[[5.0, 1.0, 3.0, 3.0, 0.0, 0.0], [-torch.inf, -torch.inf, 0.0, 1.0, 2.0, 0.0]]])
    positions = torch.tensor([[[0, 1, 2, 3, 4, 5], [kv.PADDING, kv.PADDING, 0, 1, 2, 3]]])
    keep = kv.keep_best(scores, positions, kv.Slots(total=3, recent=1, sink=1))
    assert keep.tolist() == [[[0, 2, 5], [2, 4, 5]]]
    # With more room than tokens, padding fills what is left.
    assert kv.keep_best(scores, positions, kv.Slots(5, 5, 0))[0, 1].tolist() == [0, 2, 3, 4, 5]


def test_budgets():
    assert kv.Budget(ratio=0.2).resolve(100) == (20, 10, 0)
    assert kv.Budget(ratio=0.57, recent_share=0.29).resolve(100) == (57, 16, 0)
    assert kv.Budget(total=10, recent=3, sink=4).resolve(999) == (10, 3, 4)
    assert kv.Budget(total=10, recent=9, sink=4).resolve(999) == (10, 6, 4)
    assert kv.Budget(total=1, sink=4, recent_share=1.0).resolve(5) == (1, 1, 0)
    assert kv.Budget(ratio=0.05).resolve(3) == (1, 0, 0)
    for wrong in ({}, {"total": 4, "ratio": 0.5}, {"total": 0}, {"ratio": 0.0}, {"total": 4, "recent_share": 1.5}):
        with pytest.raises(UserError):
            kv.Budget(**wrong)
    with pytest.raises(UserError):
        kv.Budget(total=4, sink=-1)


def test_random_is_uniform_over_age_and_depends_on_the_seed_only(llama):
    budget = kv.Budget(total=8, recent=2)
    ids = text(44, rows=64)
    first = kv.Session(llama, kv.RandomRecent(budget), record=True)
    run(first, ids, 30)
    again = kv.Session(llama, kv.RandomRecent(budget), record=True)
    run(again, ids, 30)
    other = kv.Session(llama, kv.RandomRecent(budget, seed=1), record=True)
    run(other, ids, 30)
    places = [torch.stack([layer.positions for layer in s.cache.layers]) for s in (first, again, other)]
    assert (places[0] == places[1]).all() and not (places[0] == places[2]).all()
    held = torch.bincount(places[0].flatten(), minlength=44) / places[0].shape[:3].numel()
    assert held[42:].tolist() == [1, 1]
    # 384 samples of 6 from 42: each token is held by 1/7, standard deviation 0.018; prompt and output alike.
    assert (held[:42] - 1 / 7).abs().max() < 0.08
    assert abs(held[:30].mean() - held[30:42].mean()) < 0.02
    assert len({tuple(p) for p in places[0].flatten(0, 2).tolist()}) > 300  # layers, rows and heads draw on their own


def test_layers_and_heads_choose_for_themselves(llama):
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=8)))
    run(session, text(40), 30)
    choices = {tuple(p) for layer in session.cache.layers for p in layer.positions.flatten(0, 1).tolist()}
    assert len(choices) >= 4  # of 6 pairs


# ---- what a cache must not do


def test_an_evicting_cache_is_not_cropped_but_rolled_back(llama):
    ids = text(30)
    for policy in policies(kv.Budget(total=7)):
        session = kv.Session(llama, policy, record=True)
        session.prefill(ids[:, :20])
        assert not session.cache.is_croppable
        session.cache.crop(0)
        with pytest.raises(RuntimeError, match="snapshot"):
            session.cache.crop(-1)
        before = session.cache.snapshot()
        runs = []
        for _ in range(3):
            runs.append(torch.stack([session.step(ids[:, i]) for i in range(20, 30)]))
            assert len(session.cache.events) == 33 and len(session.cache.kv_bytes_per_step) == 11
            session.cache.restore(before)
            assert session.cache.get_seq_length() == 20 and len(session.cache.events) == 3
        assert (runs[0] == runs[1]).all() and (runs[0] == runs[2]).all()


def test_rows_move_with_all_that_belongs_to_them(llama):
    class Counting(HeavyHitters):
        def score(self, observation):
            layer = observation.layer
            layer.side["rows"] = layer.positions[..., None].float()
            return super().score(observation)

    ids = text(24, rows=2)
    swapped = ids[[1, 0]]
    sessions = [kv.Session(llama, Counting(kv.Budget(total=6))) for _ in range(2)]
    expected = run(sessions[0], swapped, 16)[:, -4:]
    sessions[1].prefill(ids[:, :16])
    for i in range(16, 20):
        sessions[1].step(ids[:, i])
    sessions[1].cache.reorder_cache(torch.tensor([1, 0]))
    got = torch.stack([sessions[1].step(swapped[:, i]) for i in range(20, 24)], 1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    layer = sessions[1].cache.layers[0]
    assert (layer.side["rows"][..., 0] == layer.positions).all()
    sessions[1].cache.batch_repeat_interleave(3)
    assert layer.side["rows"].shape == (6, 2, 6, 1) and layer.tokens.tolist() == [24] * 6
    sessions[1].cache.batch_select_indices(torch.tensor([5]))
    assert layer.keys.shape[0] == layer.scores.shape[0] == layer.side["rows"].shape[0] == 1


def test_beam_search_of_transformers_works_on_the_session(llama):
    ids = text(10)
    settings = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    session = kv.Session(llama)
    got = session.model.generate(ids, past_key_values=session.cache, **settings)
    assert got.tolist() == llama.generate(ids, **settings).tolist()


def test_a_reset_cache_starts_anew(llama):
    ids = text(20)
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=5)), record=True)
    first = run(session, ids, 12)
    session.cache.reset()
    assert session.cache.kv_bytes == 0 and session.cache.events == []
    assert (run(session, ids, 12) == first).all()


def test_the_model_is_left_as_it_was_whatever_happens(llama):
    class Broken(kv.KVPolicy):
        def score(self, observation):
            raise ZeroDivisionError

    ids = text(12)
    config, modules = llama.config.to_dict(), [(name, id(m), type(m)) for name, m in llama.named_modules()]
    before = stock(llama, ids, 1)
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=4)))
    run(session, ids, 8)
    with pytest.raises(ZeroDivisionError):
        kv.Session(llama, Broken(kv.Budget(total=4))).prefill(ids)
    assert llama.config._attn_implementation == "sdpa" and llama.config.to_dict() == config
    assert [(name, id(m), type(m)) for name, m in llama.named_modules()] == modules
    assert not any(hasattr(m, "kv_cache") or m._forward_hooks or m._forward_pre_hooks for m in llama.modules())
    assert (stock(llama, ids, 1) == before).all()
    assert {id(p) for p in session.model.parameters()} == {id(p) for p in llama.parameters()}


def test_many_users_of_one_model_do_not_mix(llama):
    def work(i: int) -> torch.Tensor:
        ids = text(26, rows=1 + i % 2, seed=i)
        if i == 0:
            return stock(llama, ids, 14)
        policy = [None, *policies(kv.Budget(total=4 + i))][i % 4]
        positions = "compacted" if i % 3 == 0 else "original"
        return run(kv.Session(llama, policy, positions=positions), ids, 14)

    alone = [work(i) for i in range(8)]
    together: list[torch.Tensor | None] = [None] * 8
    start = threading.Barrier(8)

    def user(i: int) -> None:
        start.wait()
        together[i] = work(i)

    threads = [threading.Thread(target=user, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_sessions_may_take_turns_in_one_thread_and_a_generator_may_move_to_another(llama):
    ids = text(12)
    pair = [HeavyHitters(kv.Budget(total=4)), kv.LocalWindow(kv.Budget(total=4))]
    apart = [list(kv.greedy(kv.Session(llama, p), ids, 10)) for p in pair]
    turns = zip(*[kv.greedy(kv.Session(llama, p), ids, 10) for p in pair], strict=True)
    together = [next(turns)]
    thread = threading.Thread(target=lambda: together.extend(turns))
    thread.start()
    thread.join()
    assert [list(tokens) for tokens in zip(*together, strict=True)] == apart


def test_a_session_that_is_let_go_frees_its_cache_at_once(llama):
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=4)), record=True)
    session.prefill(text(12), attention=True)
    cache, keys = weakref.ref(session.cache), weakref.ref(session.cache.layers[0].keys)
    gc.disable()  # no help from the collector of cycles, which may come late
    try:
        del session
        assert cache() is None and keys() is None
    finally:
        gc.enable()


# ---- positions


def test_compacted_positions_of_one_layer_are_those_of_a_text_of_the_kept_tokens_alone():
    # In one layer keys depend on the token and its position only, so the stock model on the kept tokens is the oracle.
    for name in ("llama", "qwen3", "pythia"):
        model, ids = build(name, num_hidden_layers=1), text(30)
        session = kv.Session(model, kv.LocalWindow(kv.Budget(total=6, sink=2)), positions="compacted")
        got = run(session, ids, 20)
        for step in range(1, 11):
            newest = 19 + step
            held = torch.cat([ids[:, :2], ids[:, newest - 4 : newest + 1]], 1)
            torch.testing.assert_close(got[:, step], stock(model, held, 1)[:, -1], atol=1e-5, rtol=0)
        plain = run(kv.Session(model, kv.LocalWindow(kv.Budget(total=6, sink=2))), ids, 20)
        assert (plain - got).abs().max() > 0.01


def test_compacted_with_everything_kept_is_the_stock_model(llama):
    ids = text(20)
    for policy in [None, *policies(kv.Budget(total=64))]:
        got = run(kv.Session(llama, policy, positions="compacted"), ids, 12)
        torch.testing.assert_close(got, stock(llama, ids, 12), atol=1e-5, rtol=0)


def test_gaps_and_visible_by_hand():
    positions = torch.tensor([[[kv.PADDING, 0, 3, 4, 7]]])
    assert gaps(positions).tolist() == [[[0, 4, 2, 2, 0]]]
    q_pos = torch.tensor([[3, kv.PADDING]])
    assert visible(q_pos, positions).int().tolist() == [[[[0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]]]
    assert visible(q_pos, positions, window=3).int().tolist() == [[[[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]]]


@pytest.mark.parametrize("rope", [{}, {"rope_type": "yarn", "factor": 4.0}, {"rope_type": "linear", "factor": 2.0}])
def test_rotation_moves_a_key_to_another_position(rope):
    model = build(num_hidden_layers=1, rope_parameters={**ROPE, **rope})
    ids = text(1).expand(1, 3)
    keys = []
    for places in ([0, 1, 2], [5, 9, 4]):
        session = kv.Session(model)
        session.model(ids, position_ids=torch.tensor([places]), past_key_values=session.cache)
        keys.append(session.cache.layers[0].keys)
    moved = rotation(model)(keys[0], torch.tensor([[[5, 8, 2], [5, 8, 2]]]))
    torch.testing.assert_close(moved, keys[1], atol=1e-5, rtol=0)
    back = rotation(model)(keys[1], torch.tensor([[[-5, -8, -2], [-5, -8, -2]]]))
    torch.testing.assert_close(back, keys[0], atol=1e-5, rtol=0)


def test_compacted_needs_plain_rope_and_goes_beyond_the_context():
    with pytest.raises(UserError, match="original"):
        kv.Session(build("gpt2"), positions="compacted")
    model, ids = build(max_position_embeddings=16), text(40)
    policy = kv.LocalWindow(kv.Budget(total=8, sink=1))
    assert torch.isfinite(run(kv.Session(model, policy, positions="compacted"), ids, 10)).all()
    with pytest.raises(UserError, match="17 tokens, but this model reads at most 16"):
        run(kv.Session(model, policy), ids, 10)


# ---- merging policies and views


def test_a_merging_policy_that_only_keeps_equals_eviction(llama):
    class Keeping(HeavyHitters):
        def reduce(self, layer):
            keep = self.select(layer)
            if keep is None:
                return None
            other = PolicyLayer()
            other.restore(layer.snapshot())
            src = other.gather(keep)
            return kv.Reduced(other.keys, other.values, other.positions, other.scores, src)

    ids, budget = text(30), kv.Budget(total=6)
    merging, evicting = (kv.Session(llama, p, record=True) for p in (Keeping(budget), HeavyHitters(budget)))
    assert (run(merging, ids, 20) == run(evicting, ids, 20)).all()
    for a, b in zip(merging.cache.events, evicting.cache.events, strict=True):
        assert (a.src == b.src).all() and (a.positions == b.positions).all()


def test_a_merging_policy_may_rotate_keys_and_must_merge_its_side_tensors(llama):
    class Pairs(kv.KVPolicy):
        """Every two neighbours become their mean, at the position of the later one."""

        def __init__(self, merge_side):
            super().__init__(kv.Budget(total=4))
            self.merge_side = merge_side

        def score(self, observation):
            layer = observation.layer
            layer.side.setdefault("tag", layer.positions.float())

        def reduce(self, layer):
            length = layer.keys.shape[2]
            if length % 2:
                return None
            later = layer.positions[..., 1::2]
            move = later.repeat_interleave(2, -1) - layer.positions
            keys = layer.rotate(layer.keys, move).unflatten(2, (-1, 2)).mean(3)
            if self.merge_side:
                layer.side["tag"] = layer.side["tag"][..., 1::2]
            src = (torch.arange(length) // 2).expand_as(layer.positions)
            return kv.Reduced(keys, layer.values.unflatten(2, (-1, 2)).mean(3), later, layer.scores[..., 1::2], src)

    session = kv.Session(llama, Pairs(True), record=True)
    assert torch.isfinite(run(session, text(14), 10)).all()
    # 10 -> 5, 6 -> 3, 4 -> 2, 3, 4 -> 2 slots
    assert session.cache.layers[0].positions.tolist() == [[[11, 13]] * 2]
    assert session.cache.layers[0].keys.shape == (1, 2, 2, 8)
    assert session.cache.events[0].src[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(ValueError, match="side tensors"):
        kv.Session(llama, Pairs(False)).prefill(text(10))


def test_side_tensors_follow_their_slots(llama):
    class Tagging(kv.RandomRecent):
        def score(self, observation):
            layer = observation.layer
            tags = layer.side.get("tag", torch.zeros(*layer.scores.shape, 2))
            new = observation.query.shape[2]
            assert (tags[:, :, -new:] == 0).all()  # the new tokens' part is there, and empty
            fresh = layer.positions[:, :, -new:, None].float().expand(-1, -1, -1, 2)
            layer.side["tag"] = torch.cat([tags[:, :, :-new], fresh], 2)
            layer.state["calls"] = layer.state.get("calls", 0) + 1
            return super().score(observation)

    session = kv.Session(llama, Tagging(kv.Budget(total=6)))
    run(session, text(30), 20)
    for layer in session.cache.layers:
        assert (layer.side["tag"] == layer.positions[..., None]).all() and layer.state == {"calls": 11}


class Near(kv.AttentionView):
    """Only the last `width` tokens."""

    def __init__(self, width):
        self.width = width

    def mask(self, layer, query, key, q_pos, kv_pos):
        return (kv_pos[:, :1, None] > q_pos[:, None, :, None] - self.width) & (kv_pos[:, :1, None] >= 0)


@pytest.mark.parametrize("needs_weights", [False, True])
def test_a_view_limits_what_is_seen_like_the_models_own_window(needs_weights):
    own, ids = build("mistral-sliding"), text(30)
    free = build("mistral-sliding", sliding_window=None)
    policy = HeavyHitters(kv.Budget(total=64)) if needs_weights else None
    got = run(kv.Session(free, policy, Near(5)), ids, 20)
    torch.testing.assert_close(got, stock(own, ids, 20), atol=1e-5, rtol=0)


def test_a_view_may_add_pooled_slots(llama):
    class Pooled(kv.AttentionView):
        """The mean of the first four tokens, seen from the fifth on, in place of the four."""

        def keys_for(self, layer, query, key, value, kv_pos):
            if key.shape[2] < 5:
                return key, value, kv_pos
            key, value = (torch.cat([x[:, :, :4].mean(2, keepdim=True), x], 2) for x in (key, value))
            return key, value, torch.cat([torch.full_like(kv_pos[..., :1], 4), kv_pos], 2)

        def mask(self, layer, query, key, q_pos, kv_pos):
            if kv_pos.shape[2] < 6:
                return None
            own, late = torch.arange(kv_pos.shape[2]) > 0, q_pos[:, None, :, None] >= 4
            gone = own & (kv_pos[:, :1, None] < 4)
            return ~(gone & late)

    ids = text(20)
    whole = kv.Session(llama, view=Pooled()).forward(ids)
    torch.testing.assert_close(whole[:, :4], stock(llama, ids, 1)[:, :4], atol=1e-5, rtol=0)
    assert (whole - stock(llama, ids, 1))[:, 4:].abs().max() > 0.01
    stepwise = run(kv.Session(llama, view=Pooled()), ids, 6)
    torch.testing.assert_close(stepwise, whole[:, 5:], atol=1e-5, rtol=0)


def test_without_a_cache_a_view_trains_the_models_own_parameters():
    model, ids = build(), text(16, rows=2)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    session = kv.Session(model, view=Near(4))
    logits = session.model(ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(logits[:1], kv.Session(model, view=Near(4)).forward(ids[:1]), atol=1e-5, rtol=0)
    logits[1, 5:].sum().backward()
    assert model.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0
    assert model.model.embed_tokens.weight.grad[ids[0, 0]].abs().sum() == 0
    with pytest.raises(RuntimeError, match="past_key_values=session.cache"):
        past = session.model(ids, past_key_values=hf.DynamicCache()).past_key_values
        session.model(ids[:, :1], past_key_values=past)


# ---- what the pages show


def test_attention_maps_are_the_models_own(llama):
    ids = text(14)
    eager = build()
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        expected = eager(ids, output_attentions=True).attentions
    session = kv.Session(llama)
    session.prefill(ids, attention=True)
    for ours, theirs in zip(session.attention_maps(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    session.step(ids[:, 0])
    assert session.attention_maps() == []
    evicting = kv.Session(llama, kv.LocalWindow(kv.Budget(total=4, sink=1)))
    evicting.prefill(ids)
    evicting.step(ids[:, 0], attention=True)
    for weights in evicting.attention_maps():
        assert weights.shape == (1, 4, 1, 15)
        assert (weights > 0).nonzero()[:, 3].unique().tolist() == [0, 11, 12, 13, 14]
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, 1))


def test_spread_recall_and_head_mean_by_hand():
    weights = torch.tensor([[[[0.5, 0.2, 0.3]], [[0.0, 0.6, 0.4]]]])
    positions = torch.tensor([[[kv.PADDING, 1, 3]]])
    assert kv.spread(weights, positions, 4)[0, :, 0].tolist() == [
        [0, pytest.approx(0.2), 0, pytest.approx(0.3)],
        [0, pytest.approx(0.6), 0, pytest.approx(0.4)],
    ]
    recall = kv.attention_mass_recall(weights, torch.tensor([True, False, True]))
    torch.testing.assert_close(recall, torch.tensor([[[0.8], [0.4]]]))
    per_head = torch.tensor([[[1.0], [3.0], [10.0], [20.0]]])
    assert kv.head_mean(per_head, 2).tolist() == [[[2.0], [15.0]]]


def test_the_map_of_kept_tokens_averages_pairs_and_leaves_padding_out(llama):
    ids = text(12, rows=2)
    real = torch.ones(2, 8, dtype=torch.bool)
    real[1, :6] = False
    session = kv.Session(llama, kv.LocalWindow(kv.Budget(total=3)), record=True)
    run(session, ids, 8, real)
    assert session.cache.events[0].scores.tolist() == [[[0, 0, 0]] * 2, [[-torch.inf, 0, 0]] * 2]
    assert kv.kept_map(session.cache).shape == (5, 12)
    assert kv.kept_map(session.cache)[0].tolist() == [0] * 5 + [1] * 3 + [0] * 4
    assert kv.kept_map(session.cache, row=1).tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]
    heavy = kv.Session(llama, HeavyHitters(kv.Budget(total=5)), record=True)
    run(heavy, text(30), 20)
    parts = [kv.kept_map(heavy.cache, layer=i, head=j) for i in range(3) for j in range(2)]
    torch.testing.assert_close(torch.stack(parts).mean(0), kv.kept_map(heavy.cache))
    assert all((part.sum(1) == 5).all() for part in parts)


def test_teacher_forcing_scores_each_token_given_what_came_before(llama):
    ids = text(20, rows=2)
    forced = kv.teacher_forced(kv.Session(llama), ids, 12)
    logits = stock(llama, ids, 12)[:, :-1]
    expected = -logits.log_softmax(-1).gather(2, ids[:, 12:, None])[..., 0]
    torch.testing.assert_close(forced.nll, expected, atol=1e-5, rtol=0)
    assert forced.predicted.tolist() == logits.argmax(-1).tolist()
    session = kv.Session(llama, HeavyHitters(kv.Budget(total=4)))
    evicted = kv.teacher_forced(session, ids, 12).nll
    torch.testing.assert_close(evicted[:, 0], expected[:, 0], atol=1e-5, rtol=0)
    assert (evicted - expected)[:, 1:].abs().max() > 0.01
    assert len(session.seconds) == 8
    with pytest.raises(ValueError):
        kv.teacher_forced(kv.Session(llama), ids, 20)


def test_generation_stops_at_stop_tokens_and_can_be_left_half_way(llama):
    ids = text(9, rows=2, seed=9)
    free = torch.stack(list(kv.greedy(kv.Session(llama), ids, 12)), 1)
    stop = frozenset({int(free[0, 5]), int(free[1, 7])})
    got = torch.stack(list(kv.greedy(kv.Session(llama), ids, 12, stop=stop)), 1)
    ends = [next(i for i, t in enumerate(row) if t in stop) for row in free.tolist()]
    assert ends == [5, 7] and free[0, 6] != free[0, 5]  # the first row must wait for the second
    assert got.shape[1] == 8
    for row, end in zip(range(2), ends, strict=True):
        assert got[row, : end + 1].tolist() == free[row, : end + 1].tolist()
        assert set(got[row, end:].tolist()) == {int(free[row, end])}
    session = kv.Session(llama)
    steps = kv.greedy(session, ids, 12)
    tokens = [next(steps) for _ in range(4)]
    steps.close()
    tokens += [session.step(tokens[-1]).argmax(-1)]
    assert torch.stack(tokens, 1).tolist() == free[:, :5].tolist()


def test_what_a_user_can_get_wrong_is_a_sentence(llama):
    with pytest.raises(UserError, match="no text"):
        kv.Session(llama).prefill(torch.empty(1, 0, dtype=torch.long))
    with pytest.raises(UserError, match="token 97, but the model knows only 97"):
        kv.Session(llama).prefill(torch.tensor([[1, 97]]))
    with pytest.raises(UserError, match="129 tokens, but this model reads at most 128"):
        kv.Session(build("gpt2")).prefill(text(129))
    session = kv.Session(llama)
    with pytest.raises(UserError, match="129 tokens"):
        list(kv.greedy(session, text(120), 20))
    assert session.cache.get_seq_length() == 128
    mamba = hf.MambaForCausalLM(hf.MambaConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, state_size=2))
    with pytest.raises(UserError, match="choose"):
        kv.Session(mamba)
    bloom = hf.BloomForCausalLM(hf.BloomConfig(vocab_size=11, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(UserError, match="bloom model cannot be opened"):
        kv.Session(bloom)
    gemma = hf.Gemma2ForCausalLM(
        hf.Gemma2Config(vocab_size=VOCABULARY, **SIZES, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=50.0)
    )
    with pytest.raises(UserError, match="softcap"):
        kv.Session(gemma).prefill(text(4))
    with pytest.raises(ValueError, match="compacted"):
        kv.Session(llama, positions="packed")


def test_policies_are_importable_without_torch():
    code = "import sys, tokenlab.kv; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
