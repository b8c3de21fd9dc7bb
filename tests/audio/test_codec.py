"""The audio codec: a toy whose tokens can be worked out by hand, tiny random ones through ONNX, and what ships."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenlab import models
from tokenlab.audio import codec, mel
from tokenlab.audio.codec import Codec, Config, MelCodec
from tokenlab.audio.tokenizer import AudioTokenizer, bits_per_second, fit, tokens_per_second
from tokenlab.errors import UserError

CONFIGS = {"rvq8": Config((32, 16, 8), width=16, encoder=1, decoder=2), "vq1": Config((64,), width=16, encoder=0)}


def shaken(config):
    """A model whose context networks do something: as made, their last layer is zero."""
    model = MelCodec(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.mean.normal_()
    model.scale.fill_(2.0)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two random codecs with their graphs, in the layout of assets/models/codec."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec")
    codec.save({name: shaken(config) for name, config in CONFIGS.items()}, folder)
    assert models.export("codec", folder) == folder
    return folder


@pytest.fixture(params=["rvq8", "vq1"])
def pair(request, folder):
    return [Codec(request.param, folder, backend) for backend in ("onnx", "torch")]


def wave(samples, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=samples).astype(np.float32)


def toy():
    """Two levels, no networks: level 1 holds 0 and 10 in the first band, level 2 holds -1 and +1."""
    model = MelCodec(Config((2, 2), encoder=0, decoder=0)).eval()
    for layer, values in zip(model.quantizer.levels.layers, ((0.0, 10.0), (-1.0, 1.0)), strict=True):
        layer._codebook.embed.zero_()
        layer._codebook.embed[0, :, 0] = torch.tensor(values)
    return model


def test_a_residual_quantiser_by_hand():
    frames = torch.zeros(1, 3, 100)
    frames[0, :, 0] = torch.tensor([0.7, 8.8, 11.0])
    ids = toy().encode(frames)
    assert ids.tolist() == [[[0, 1, 1], [1, 0, 1]]]  # 0 + 1, 10 - 1, 10 + 1
    assert toy().decode(ids)[0, :, 0].tolist() == [1.0, 9.0, 11.0]
    ids[:, 1] = -1
    assert toy().decode(ids)[0, :, 0].tolist() == [0.0, 10.0, 10.0]
    assert toy().decode(torch.full((1, 2, 3), -1))[0, :, 0].tolist() == [0.0, 0.0, 0.0]


def test_training_begins_at_the_quantiser_alone():
    torch.manual_seed(0)
    made, bare = MelCodec(Config((16, 16), width=16)).eval(), MelCodec(Config((16, 16), encoder=0, decoder=0)).eval()
    bare.quantizer.load_state_dict(made.quantizer.state_dict())
    frames = torch.randn(1, 20, 100)
    with torch.no_grad():
        assert torch.equal(made.encode(frames), bare.encode(frames))
        torch.testing.assert_close(made(frames)[0], bare(frames)[0])


def test_onnx_gives_the_ids_and_frames_of_torch(pair):
    onnx, network = pair
    assert isinstance(onnx, AudioTokenizer)
    for samples in (1, 320, 5000, 24_000):
        ids = onnx.encode(wave(samples))
        assert ids.shape == (len(onnx.sizes), -(-samples // 320)) and ids.dtype == np.int64
        assert np.array_equal(ids, network.encode(wave(samples)))
        np.testing.assert_allclose(onnx.frames(ids), network.frames(ids), atol=1e-4)
        np.testing.assert_allclose(onnx.frames(ids[:1]), network.frames(ids[:1]), atol=1e-4)


def test_weights_are_stored_once(folder):
    for name in CONFIGS:
        for part in ("encode", "decode"):
            assert (folder / f"{name}.{part}.onnx").stat().st_size < 60_000


def test_fewer_levels_are_levels_left_out(pair):
    ids = pair[0].encode(wave(6400))
    silent = ids.copy()
    silent[1:] = -1
    assert np.array_equal(pair[0].frames(ids[:1]), pair[0].frames(silent))


def test_decoding_in_chunks_gives_the_same_frames(pair):
    ids = pair[1].encode(wave(320 * 100))
    whole = pair[1].frames(ids)
    for chunk in (1, 7, 33, 200):
        np.testing.assert_allclose(np.concatenate(list(pair[1].stream(ids, chunk))), whole, atol=1e-4)


def test_reach_is_exactly_how_far_a_token_is_heard(folder):
    model = Codec("rvq8", folder, "torch")
    ids = np.zeros((3, 60), np.int64)
    other = ids.copy()
    other[:, 30] = 1
    changed = np.flatnonzero(np.abs(model.frames(ids) - model.frames(other)).max(1) > 1e-7)
    assert model.torch.reach == 9 and (changed[0], changed[-1]) == (21, 39)


def test_a_decoder_that_attends_to_all_frames_does_not_stream(tmp_path):
    codec.save({"a": MelCodec(Config((8,), width=8, encoder=0, decoder=2, attention=True))}, tmp_path)
    with pytest.raises(ValueError, match="all frames"):
        next(Codec("a", tmp_path, "torch").stream(np.zeros((1, 10), np.int64)))


def test_decode_gives_as_many_samples_as_asked(pair):
    ids = pair[0].encode(wave(1000))
    assert [len(pair[0].decode(ids, samples)) for samples in (None, 1000, 1500)] == [1280, 1000, 1500]
    assert np.array_equal(pair[0].decode(ids, seed=3), pair[0].decode(ids, seed=3))


def test_rates(pair):
    name, bits = pair[0].name, {"rvq8": 5 + 4 + 3, "vq1": 6}
    assert bits_per_second(pair[0]) == 75 * bits[name]
    assert tokens_per_second(pair[0]) == 75 * len(pair[0].sizes)
    assert bits_per_second(pair[0], 1) == 75 * np.log2(pair[0].sizes[0])


def test_fit_cuts_and_fills():
    assert [fit(np.ones(3), n).tolist() for n in (None, 2, 4)] == [[1, 1, 1], [1, 1], [1, 1, 1, 0]]


def test_a_name_that_is_not_there(folder, tmp_path):
    with pytest.raises(UserError, match="no codec of that name"):
        Codec("opus", folder)
    with pytest.raises(UserError, match="recipes/codec.py"):
        codec.configs(tmp_path)


# --- what ships


@pytest.fixture(scope="module")
def voice():
    from tokenlab import sounds

    return sounds.load("sample:speech-english")


def test_every_level_brings_the_frames_closer(voice):
    shipped = codec.load("rvq8")
    frames, ids = mel.log_mel(voice), shipped.encode(voice)
    errors = [np.abs(shipped.frames(ids[:k]) - frames).mean() for k in range(9)]
    assert all(more < less for less, more in zip(errors, errors[1:], strict=False)), errors
    assert bits_per_second(shipped) == 6000


def test_one_codebook_of_4096_says_more_than_the_first_of_1024(voice):
    frames = mel.log_mel(voice)
    twin, rvq8 = codec.load("vq1"), codec.load("rvq8")
    error = np.abs(twin.frames(twin.encode(voice)) - frames).mean()
    assert error < np.abs(rvq8.frames(rvq8.encode(voice)[:1]) - frames).mean()
    assert bits_per_second(twin) == 900


@pytest.mark.parametrize("name", codec.NAMES)
def test_held_out_counts_belong_to_the_codebooks(name):
    shipped = codec.load(name)
    held_out = shipped.held_out()
    assert [len(counts) for counts in held_out.counts] == list(shipped.sizes)
    assert {int(counts.sum()) for counts in held_out.counts} == {held_out.counted}
    assert held_out.counted == pytest.approx(75 * held_out.seconds, rel=0.01)
