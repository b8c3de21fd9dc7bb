"""WavTokenizer by hand, against brute force and independent libraries, and as a panel, on codecs that know nothing."""

from __future__ import annotations

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes import codec as codec_recipe
from recipes import wavtokenizer as recipe
from tokenlab import guard, sounds, spec, views
from tokenlab.audio import codec, corpus, mel, metrics, wavtokenizer
from tokenlab.audio.codec import Attention, Codec, Config, MelCodec
from tokenlab.codebooks.stats import CodebookStats
from tokenlab.errors import UserError

t = torch.tensor


# ---- the quantiser


def test_the_nearest_entry_by_hand():
    book = t([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    # (2, 2): squared distances 8, 5 and 8.
    assert wavtokenizer.nearest(t([[1.0, 1.0], [2.0, 2.0], [0.0, 2.1]]), book).tolist() == [0, 1, 2]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), width=st.integers(1, 6))
def test_the_nearest_entry_against_brute_force(seed, size, width):
    rng = np.random.default_rng(seed)
    x, book = rng.normal(size=(7, width)), rng.normal(size=(size, width))
    ids = wavtokenizer.nearest(torch.from_numpy(x), torch.from_numpy(book)).numpy()
    distances = np.square(x[:, None] - book).sum(-1)
    assert (distances[np.arange(7), ids] <= distances.min(1) + 1e-9).all()


def test_smoothing_by_hand():
    # With an epsilon of 1: 4, 2 and 1 of 7, times the sum of 4.
    found = wavtokenizer.smoothed(t([3.0, 1.0, 0.0]), epsilon=1.0)
    torch.testing.assert_close(found, t([16 / 7, 8 / 7, 4 / 7]))
    torch.testing.assert_close(wavtokenizer.smoothed(t([3.0, 1.0, 0.0])), t([3.0, 1.0, 1e-5]), rtol=2e-5, atol=1e-8)


def test_averages_by_hand():
    counts, sums = t([2.0, 0.0]), t([[2.0, 2.0], [0.0, 0.0]])
    x = t([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    wavtokenizer.average(counts, sums, x, t([0, 0, 1]), decay=0.5)
    assert counts.tolist() == [2.0, 0.5]  # half of 2 and half of 2 vectors; half of 0 and half of 1
    assert sums.tolist() == [[3.0, 1.0], [0.0, 2.5]]
    torch.testing.assert_close(wavtokenizer.entries(counts, sums), t([[1.5, 0.5], [0.0, 5.0]]), rtol=1e-4, atol=0)


def test_rare_codes_awaken_on_vectors_of_the_batch():
    counts, sums = t([1.0, 0.05, 0.3]), t([[2.0, 2.0], [1.0, 0.0], [0.3, 0.0]])
    moved = wavtokenizer.awaken(counts, sums, t([[7.0, -7.0], [7.0, -7.0]]), below=0.1)
    assert moved.tolist() == [1]
    torch.testing.assert_close(counts, t([1.0, 1.0, 0.3]))
    torch.testing.assert_close(sums, t([[2.0, 2.0], [7.0, -7.0], [0.3, 0.0]]))
    torch.testing.assert_close(wavtokenizer.entries(counts, sums)[1], t([7.0, -7.0]), rtol=1e-4, atol=0)
    assert len(wavtokenizer.awaken(counts, sums, t([[7.0, -7.0]]), below=0.0)) == 0


def test_an_awakened_code_sleeps_again_after_230_steps():
    counts, sums, x = t([5.0, 0.0]).double(), torch.zeros(2, 1).double(), torch.ones(5, 1).double()
    ids = torch.zeros(5, dtype=torch.int64)  # code 1 is never chosen
    steps = [len(wavtokenizer.awaken(counts, sums, x, below=0.5))]
    for _ in range(230):
        wavtokenizer.average(counts, sums, x, ids)
        steps.append(len(wavtokenizer.awaken(counts, sums, x, below=0.5)))
    assert steps == [1] + 229 * [0] + [1]


def test_one_step_is_that_of_an_independent_library():
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    library = VectorQuantize(4, 16, decay=0.99, eps=1e-5, threshold_ema_dead_code=0, rotation_trick=False).train()
    own = library._codebook
    own.embed_avg.data.copy_(own.embed)
    own.cluster_size.data.fill_(1.0)
    book, counts, sums = own.embed[0].clone(), own.cluster_size[0].clone(), own.embed_avg[0].clone()
    x = torch.randn(50, 4)
    _, ids, _ = library(x[None])
    assert torch.equal(wavtokenizer.nearest(x, book), ids[0])
    wavtokenizer.average(counts, sums, x, ids[0])
    torch.testing.assert_close(counts, own.cluster_size[0])
    torch.testing.assert_close(wavtokenizer.entries(counts, sums), own.embed[0])
    assert (own.embed[0] - book).abs().max() > 0.001


@pytest.mark.parametrize("sizes", [(16,), (16, 8, 8)])
def test_the_recipes_quantiser_is_that_of_the_library(sizes):
    torch.manual_seed(0)
    more = {"drop": False} if len(sizes) > 1 else {}
    model = MelCodec(Config(sizes, encoder=0, decoder=0), decay=0.9, dead_below=0, **more).train()
    plan = SimpleNamespace(decay=0.9, dead_below=0.0)
    for layer in codec_recipe.layers(model):
        layer._codebook.cluster_size.data.fill_(2.0)
        layer._codebook.embed_avg.data.copy_(layer._codebook.embed * 2)
    library = copy.deepcopy(model)
    z = torch.randn(2, 30, 100)
    ids = codec_recipe.quantise(model, z, plan)
    assert torch.equal(library.quantizer(z).ids, ids)
    for a, b in zip(codec_recipe.layers(model), codec_recipe.layers(library), strict=True):
        torch.testing.assert_close(a._codebook.embed, b._codebook.embed)


# ---- the decoder's parts


def test_attention_by_hand():
    attention = Attention(2)
    with torch.no_grad():
        for layer in (attention.qkv, attention.out):
            layer.weight.zero_()
            layer.bias.zero_()
        attention.qkv.weight[4:] = torch.eye(2)  # values as they come, after the norm: (1, -1) or (-1, 1)
        attention.out.weight.copy_(torch.eye(2))
    x = t([[[3.0, 1.0], [5.0, 1.0], [0.0, 8.0]]])
    # Queries and keys are zero: every frame gets the mean of the values, (1/3, -1/3).
    torch.testing.assert_close(attention(x), x + t([1 / 3, -1 / 3]), atol=1e-4, rtol=0)
    with torch.no_grad():
        attention.qkv.weight[:4] = 10 * torch.cat((torch.eye(2), torch.eye(2)))
    # Now frames see those like themselves.
    torch.testing.assert_close(attention(x) - x, t([[[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]]), atol=1e-4, rtol=0)


def test_attention_is_one_head_over_all_frames():
    torch.manual_seed(0)
    attention, x = Attention(8).eval(), torch.randn(2, 11, 8)
    with torch.no_grad():
        q, k, v = attention.qkv(attention.norm(x)).chunk(3, -1)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(8), -1)
        torch.testing.assert_close(attention(x), x + attention.out(weights @ v))
        order = torch.randperm(11)
        torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])  # no positions


def test_one_frame_of_the_head_by_hand():
    m, p = np.full((1, 641), -100.0), np.zeros((1, 641))
    m[0, 0] = np.log(50)
    wave = wavtokenizer.istft_head(m, p)
    # A constant of 50 / 1280, times the window, over its square; the window is 1 in the middle of the frame.
    assert wave.shape == (320,) and wave[160] == pytest.approx(50 / 1280)
    assert wave[0] == pytest.approx(50 / 1280 / (0.5 - 0.5 * math.cos(2 * math.pi * 480 / 1280)))
    m[0, 0] = np.log(1e6)
    assert wavtokenizer.istft_head(m, p)[160] == pytest.approx(100 / 1280)
    p[0, 0] = math.pi
    assert wavtokenizer.istft_head(m, p)[160] == pytest.approx(-100 / 1280)


def test_the_head_undoes_an_stft():
    wave = 0.01 * np.random.default_rng(0).normal(size=20 * mel.HOP).astype(np.float32)
    spectrum = mel.stft(wave)
    found = wavtokenizer.istft_head(np.log(np.abs(spectrum)), np.angle(spectrum))
    np.testing.assert_allclose(found, wave, atol=1e-6)


def test_the_head_is_torchs_istft_away_from_the_ends():
    rng = np.random.default_rng(1)
    m, p = rng.normal(-2, 1, (24, 641)).astype(np.float32), rng.uniform(-3, 3, (24, 641)).astype(np.float32)
    p[:, [0, -1]] = 0
    spectrum = torch.polar(t(m).exp(), t(p)).T
    oracle = torch.istft(spectrum, 1280, 320, window=torch.hann_window(1280), center=True).numpy()
    # torch cuts half a window off, "same" 480 samples: its sample 0 is ours 160.
    np.testing.assert_allclose(wavtokenizer.istft_head(m, p)[160:][1280:5000], oracle[1280:5000], atol=1e-5)


def test_the_originals_phases_come_closer_than_invented_ones():
    wave = sounds.load("sample:speech-english")[:30_001]
    frames = mel.log_mel(wave)
    own, found = wavtokenizer.with_phases(frames, wave), mel.MelSynth().wave(frames)[: len(wave)]
    assert own.shape == wave.shape
    assert metrics.si_sdr(wave, own, mel.RATE) > 8 > metrics.si_sdr(wave, found, mel.RATE)


# ---- two frames to a token


def test_two_frames_share_a_token_by_hand():
    model = MelCodec(Config((3,), encoder=0, decoder=0, stride=2)).eval()
    book = torch.zeros(3, 200)
    book[1, 0], book[2, 100] = 1.0, 1.0  # code 1: the first frame is loud in the first band; code 2: the second one
    model.quantizer.books[0]._codebook.embed.data.copy_(book[None])
    frames = torch.zeros(1, 6, 100)
    frames[0, 0, 0] = frames[0, 5, 0] = 0.9
    assert model.encode(frames).tolist() == [[[1, 0, 2]]]
    assert model.decode(t([[[1, 0, 2]]]))[0, :, 0].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    x = torch.randn(2, 6, 100)
    assert torch.equal(model.parted(model.joined(x)), x) and model.joined(x).shape == (2, 3, 200)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A codec of two frames a token with its graphs, and one with attention; random weights."""
    torch.manual_seed(0)
    folder, models = tmp_path_factory.mktemp("pairs"), {}
    for name, config in {
        "pairs": Config((32,), width=16, encoder=1, decoder=1, stride=2),
        "looking": Config((32,), width=16, encoder=1, decoder=2, attention=True),
    }.items():
        models[name] = MelCodec(config)
        for parameter in models[name].parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    codec.save(models, folder)
    return codec.export(folder)


def test_two_frames_share_a_token_in_the_graphs(pairs):
    made = Codec("pairs", pairs)
    assert (made.frame_rate, made.hop) == (37.5, 640)
    for samples in (1, 640, 5000, 24_000):
        wave = 0.1 * np.random.default_rng(samples).normal(size=samples).astype(np.float32)
        ids = made.encode(wave)
        assert ids.shape == (1, math.ceil(samples / 640))
        network = Codec("pairs", pairs, "torch")
        assert (network.encode(wave) == ids).mean() > 0.98
        np.testing.assert_allclose(made.frames(ids), network.frames(ids), atol=1e-3)
        assert made.decode(ids, samples).shape == (samples,)
    whole = np.concatenate(list(made.stream(ids, chunk=5)))
    np.testing.assert_allclose(whole, made.frames(ids), atol=1e-3)


def test_attention_in_the_graphs(pairs):
    made, network = Codec("looking", pairs), Codec("looking", pairs, "torch")
    ids = np.random.default_rng(0).integers(0, 32, (1, 50))
    np.testing.assert_allclose(made.frames(ids), network.frames(ids), atol=1e-3)
    other = ids.copy()
    other[0, 49] = (ids[0, 49] + 1) % 32
    assert np.abs(made.frames(ids)[0] - made.frames(other)[0]).max() > 1e-6  # the first frame sees the last token
    with pytest.raises(ValueError, match="attends"):
        next(made.stream(ids))


# ---- editing


def test_edits_by_hand():
    ids = np.array([[1, 2, 3, 4, 5]])
    changed, marked = wavtokenizer.edited(ids, 1, 2, wavtokenizer.REPEAT, (9,))
    assert changed.tolist() == [[1, 2, 3, 2, 3, 4, 5]] and marked == [3, 4]
    changed, marked = wavtokenizer.edited(ids, 1, 3, wavtokenizer.HOLD, (9,))
    assert changed.tolist() == [[1, 2, 2, 2, 5]] and marked == [1, 2, 3]
    changed, _ = wavtokenizer.edited(ids, 1, 3, wavtokenizer.SHUFFLE, (9,), seed=1)
    assert sorted(changed[0, 1:4]) == [2, 3, 4] and changed[0, [0, 4]].tolist() == [1, 5]
    changed, _ = wavtokenizer.edited(ids, 1, 3, wavtokenizer.DRAW, (9,), seed=1)
    assert changed[0, [0, 4]].tolist() == [1, 5] and changed.max() < 9
    assert ids.tolist() == [[1, 2, 3, 4, 5]]


def test_shuffled_frames_keep_their_levels_together():
    ids = np.stack([np.arange(20), 100 + np.arange(20)])
    changed, _ = wavtokenizer.edited(ids, 0, 20, wavtokenizer.SHUFFLE, (200, 200))
    assert (changed[1] - changed[0] == 100).all() and (changed[0] != ids[0]).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40), st.sampled_from(wavtokenizer.EDITS))
def test_any_span_of_any_sound(frames, start, count, edit):
    ids = np.zeros((2, frames), np.int64)
    changed, marked = wavtokenizer.edited(ids, start, count, edit, (4, 4))
    assert marked and all(0 <= i < changed.shape[1] for i in marked)
    assert changed.shape[1] == frames + (len(marked) if edit == wavtokenizer.REPEAT else 0)


# ---- judging


def test_a_metric_that_is_unavailable_is_no_number(monkeypatch):
    def missing(original, copies, rate):
        return [metrics.Unavailable("the package pesq is not installed") for _ in copies]

    monkeypatch.setattr(metrics, "pesq_wb_each", missing)
    wave = sounds.load("sample:speech-english")[:24_000]
    found = wavtokenizer.judge([wave, wave], {"same": [wave, wave], "soft": [wave, wave / 2]})
    assert np.isnan(found["same"]["pesq"]).all() and found["same"]["mel"].tolist() == [0, 0]
    assert found["same"]["stoi"] == pytest.approx(1)
    # Half the magnitude everywhere above the floor.
    assert found["soft"]["mel"][0] == 0 and found["soft"]["mel"][1] == pytest.approx(math.log(2), abs=0.1)


def arm(distance: float, pesq: float, used: float = 1.0, size: int = 4096) -> wavtokenizer.Arm:
    """A training with these scores on 4 clips, which uses the first codes of a book evenly."""
    stats = CodebookStats((size,))
    stats.update(np.arange(round(used * size))[None])
    scores = {"pesq": np.full(4, pesq), "stoi": np.full(4, 0.5), "mel": np.full(4, distance)}
    return wavtokenizer.Arm(scores, stats, 1.0)


def told() -> dict:
    """facts.json in small."""
    scores = {"pesq": 1.5, "stoi": 0.7, "mel": 0.5}
    arms = {}
    for one in recipe.PLANS:
        sizes = list(one.model.sizes)
        levels = {str(k): scores for k in range(1, len(sizes) + 1)}
        arms[one.name] = {"sizes": sizes, "rate": 75.0, "levels": levels, "used": 0.5, "perplexity": 100.0}
        arms[one.name]["mix"] = {"used": 0.9, "perplexity": 200.0, "tokens": 1000}
    facts = {"date": "2026-01-01", "clips": 20, "real_seconds": 200.0, "seconds": 2000.0, "arms": arms}
    return facts | {"not quantised": scores, "random codes": scores}


def claim(distance: float = 0.55, pesq: float = 1.4, used: float = 0.9):
    arms = {}
    for again in range(wavtokenizer.SEEDS):
        arms |= {
            (wavtokenizer.MAIN, again): arm(distance, pesq, used),
            (wavtokenizer.SMALL, again): arm(0.58, 1.3, size=1024),
            (wavtokenizer.FIRST, again): arm(0.6, 1.3, size=1024),
            (wavtokenizer.ALL, again): arm(0.4, 2.0),
        }
    arms |= {(wavtokenizer.FULL, 0): arm(0.2, 3.0), (wavtokenizer.RANDOM, 0): arm(2.0, 1.0)}
    return wavtokenizer.verdict(arms, arm(0.7, 1.1, size=256).stats, 1500.0, 0, 9.0, told())


def test_the_verdict_follows_the_bars():
    good = claim()
    assert good.holds and good.value == pytest.approx(100 * (1 - 0.55 / 0.6))
    assert good.low == pytest.approx(good.value) == pytest.approx(good.high)
    assert good.full == pytest.approx(100 * (1 - 0.2 / 0.6)) and good.random == pytest.approx(100 * (1 - 2 / 0.6))
    assert "3.3 % nearer" in good.reason and "+0.100, +0.100, +0.100" in good.reason and "holds here" in good.reason
    assert not claim(distance=0.575).holds  # 4.2 %
    assert not claim(pesq=1.3).holds
    narrow = claim(used=0.79)
    assert not narrow.holds and "does not hold here (use of the codes below the bar)" in narrow.reason
    worse = claim(distance=0.65, pesq=1.2)
    assert "8.3 % more" in worse.reason and "not above it" in worse.reason and "does not hold" in worse.reason
    json.dumps(good.to_json())


def test_without_pesq_the_claim_is_not_confirmed():
    found = claim(pesq=float("nan"))
    assert not found.holds and "PESQ-WB could not be computed" in found.reason
    json.dumps(found.to_json())


def test_sentences_of_voices_that_training_has_not_heard():
    assert wavtokenizer.VOICES == codec_recipe.HELD_OUT_VARIANTS
    assert not set(wavtokenizer.VOICES) & set(codec_recipe.VARIANTS)
    assert set(wavtokenizer.VOICES) <= set(corpus.variants())
    assert set(wavtokenizer.SENTENCES) <= set(corpus.voices()) | {"es", "fr-fr", "pt"}
    assert {len(set(lines)) for lines in wavtokenizer.SENTENCES.values()} == {8}


# ---- the recipe


def test_all_trainings_see_as_many_frames_and_have_the_same_trunk():
    assert len({one.name for one in recipe.PLANS}) == len(recipe.PLANS)
    for one in recipe.PLANS:
        assert (one.crop * one.batch, one.steps) == (2560, 1500)
        assert (one.model.width, one.model.encoder, one.model.decoder) == (112, 2, 3)
    assert {(one.crop, one.batch) for one in recipe.PLANS} == {(128, 20), (80, 32), (320, 8)}
    threshold = {one.name: one.dead_below for one in recipe.PLANS}
    assert threshold["vq1-4096"] == 0.0625 and threshold["vq1-256"] == 1.0  # a tenth of 2560 / 4096, of 2560 / 256
    assert threshold["vq1-37.5"] == 0.03125 and threshold["vq1-4096-asleep"] == 0


# ---- the panel


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A folder as the recipe leaves it, of small codecs that were trained for no time, without graphs."""
    torch.manual_seed(0)
    folder, counts = tmp_path_factory.mktemp("wavtokenizer"), {}
    models = {}
    for one in recipe.PLANS:
        if one.name in recipe.SHIPPED:
            config = Config(tuple(one.model.sizes), 16, 1, 1, one.model.attention, one.model.stride)
            models[one.name] = MelCodec(config)
            models[one.name].mean.fill_(-5.0)
            counts[one.name] = [list(range(size)) for size in config.sizes]
    codec.save(models, folder)
    (folder / codec.HELD_OUT).write_text(json.dumps({"seconds": 2000.0, "counts": counts}))
    (folder / "facts.json").write_text(json.dumps(told()))
    return folder


@pytest.fixture
def panel(shipped, monkeypatch):
    monkeypatch.setattr(wavtokenizer, "FOLDER", shipped)
    monkeypatch.setattr(wavtokenizer, "twin", lambda name: Codec(name, shipped, "torch"))
    wavtokenizer.facts.cache_clear()
    yield
    wavtokenizer.facts.cache_clear()


SHORT = {"sound": "say:en-us:one two three"}


def answer(**values) -> dict:
    return guard.last(wavtokenizer, {**SHORT, **values}).result


def test_a_run(panel):
    found = answer(name="twin vq1-4096", levels=2)
    assert list(found) == list(spec.result_views(wavtokenizer.run)) and all(found.values())
    names = [track["name"] for track in found["sounds"]["tracks"]]
    assert names == [
        *("original", "twin vq1-4096", "rvq8, 2 levels", "rvq8, 8 levels"),
        *("twin vq1-4096, the original's phases", "not quantised", "random codes", "edited: shuffled"),
    ]
    strips = {strip["name"]: strip for strip in found["sounds"]["tokens"]}
    assert [len(strip["ids"]) for strip in strips.values()] == [1, 8, 1, 1]
    frames = len(strips["rvq8"]["ids"][0])
    rows = {row[0]: row for row in found["numbers"]["rows"]}
    assert rows["twin vq1-4096"][1:5] == [75.0, frames, 12 * frames, 0.9]
    assert rows["rvq8, 2 levels"][1:5] == [150.0, 2 * frames, 20 * frames, 1.5]
    assert set(found["numbers"]["marks"].values()) == {"full", "random"}
    assert rows["not quantised"][7] < rows["rvq8, 8 levels"][7] < rows["random codes"][7]  # mel distance
    changed = sorted(map(int, strips["edited: shuffled"]["marks"]))
    same = [i for i in range(frames) if i not in changed]
    before, after = strips["twin vq1-4096"]["ids"][0], strips["edited: shuffled"]["ids"][0]
    assert [before[i] for i in same] == [after[i] for i in same]
    curves = {series["name"]: len(series["x"]) for series in found["quality"]["series"]}
    assert list(curves.values()) == [1, 2, 1, 8, 4, 3] and curves["this sound, rvq8"] == 2


def test_half_the_tokens(panel):
    found = answer(name="twin vq1-37.5", edit="played twice", length=0.4)
    strip = found["sounds"]["tokens"][0]
    assert strip["rate"] == 37.5 and len(found["sounds"]["tokens"][-1]["ids"][0]) == len(strip["ids"][0]) + 15
    assert next(row for row in found["numbers"]["rows"] if row[0] == "twin vq1-37.5")[4] == 0.45


def test_rvq8_is_not_shown_twice(panel):
    names = [track["name"] for track in answer(name="rvq8", levels=8)["sounds"]["tracks"]]
    assert len(names) == len(set(names)) and names[:2] == ["original", "rvq8, 8 levels"]


def test_a_run_repeats_itself(panel):
    values = {**SHORT, "edit": "random", "seed": 3}
    one, two = (views.result_to_json(list(wavtokenizer.run(**values))[0])["sounds"] for _ in range(2))
    for track in (*one["tracks"], *two["tracks"]):
        track.pop("facts")
    assert one == two


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "dac"}, "is not one of"),
        ({"name": "<img src=x onerror=alert(1)>"}, "is not one of"),
        ({"levels": 9}, "outside"),
        ({"start": "nan"}, "finite"),
        ({"length": 0}, "outside"),
        ({"edit": "deleted"}, "is not one of"),
        ({"sound": "sample:nothing"}, "no sound"),
        ({"sound": "upload:0123456789abcdef"}, "no longer here"),
    ],
)
def test_hostile_values_are_one_sentence(panel, values, says):
    with pytest.raises(UserError, match=says):
        answer(**values)


def test_missing_files_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(wavtokenizer, "FOLDER", tmp_path)
    wavtokenizer.facts.cache_clear()
    wavtokenizer.twin.cache_clear()
    for missing in (wavtokenizer.facts, lambda: wavtokenizer.twin("vq1-4096")):
        with pytest.raises(UserError, match="recipes/wavtokenizer.py"):
            missing()


# ---- what ships


def test_what_ships_is_what_the_recipe_says():
    found, facts = codec.configs(wavtokenizer.FOLDER), wavtokenizer.facts()
    assert set(found) == recipe.SHIPPED
    assert found == {one.name: one.model for one in recipe.PLANS if one.name in recipe.SHIPPED}
    assert list(facts["arms"]) == [one.name for one in recipe.PLANS]
    for name in recipe.SHIPPED:
        use = wavtokenizer.twin(name).held_out()
        assert [len(counts) for counts in use.counts] == list(found[name].sizes)
        assert use.counted == facts["arms"][name]["tokens"]
        assert (use.counts[0] > 0).mean() == pytest.approx(facts["arms"][name]["used"], abs=1e-4)
    best = facts["not quantised"]["mel"]
    assert all(best < arm["levels"]["1"]["mel"] < facts["random codes"]["mel"] for arm in facts["arms"].values())


@pytest.mark.parametrize("name", ["vq1-4096", "vq1-37.5", "vq1-4096-attention", "rvq8"])
def test_the_graphs_that_ship_are_their_networks(name):
    graph, network = Codec(name, wavtokenizer.FOLDER), Codec(name, wavtokenizer.FOLDER, "torch")
    wave = sounds.load("sample:speech-english")[:40_000]
    ids = graph.encode(wave)
    assert (ids == network.encode(wave)).mean() > 0.99
    np.testing.assert_allclose(graph.frames(ids), network.frames(ids), atol=2e-3)
