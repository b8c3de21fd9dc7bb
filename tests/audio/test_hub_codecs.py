"""Audio codecs: honest checkpoints code as transformers itself does, hostile ones give one sentence.

Every checkpoint here is built from a config of the real class, with random weights, and saved by transformers.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    DacConfig,
    DacFeatureExtractor,
    DacModel,
    EncodecConfig,
    EncodecModel,
    HubertConfig,
    MimiConfig,
    MimiModel,
    WavLMConfig,
    XcodecConfig,
    XcodecModel,
)

from tests import hub_server
from tests.hub_server import as_pages
from tests.test_models import header_with, one_sentence, pickle_only, tensors_with
from tokenlab import controls, guard, models
from tokenlab.audio.tokenizer import AudioTokenizer, bits_per_second, tokens_per_second
from tokenlab.errors import UserError
from tokenlab.models import intake
from tokenlab.models.audio import codec, load_codec

ENCODEC = dict(
    num_filters=4, hidden_size=8, codebook_size=16, upsampling_ratios=[8, 4, 2], target_bandwidths=[1.5, 3.0, 6.0]
)
DAC = dict(
    encoder_hidden_size=4, downsampling_ratios=[2, 4, 5, 8], decoder_hidden_size=32, n_codebooks=5, codebook_size=16,
    codebook_dim=3,
)  # fmt: skip
MIMI = dict(
    hidden_size=16, num_filters=4, upsampling_ratios=[16, 8], codebook_size=16, codebook_dim=8,
    vector_quantization_hidden_dimension=8, num_quantizers=5, num_semantic_quantizers=2, upsample_groups=16,
    num_hidden_layers=2, intermediate_size=16, num_attention_heads=2, num_key_value_heads=2, sliding_window=3,
    sampling_rate=8_000, layer_scale_initial_scale=0.5,
)  # fmt: skip
ACOUSTIC = dict(
    encoder_hidden_size=4, downsampling_ratios=[8, 5, 4, 2], upsampling_ratios=[8, 5, 4, 2], decoder_hidden_size=32,
    hidden_size=8,
)  # fmt: skip
SPEECH = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=[8] * 7,
    num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
)  # fmt: skip


def xcodec(semantic, **options):
    return XcodecConfig(
        target_bandwidths=[0.2, 0.4, 0.8], codebook_size=16, acoustic_model_config=DacConfig(**ACOUSTIC),
        semantic_model_config=semantic, **options,
    )  # fmt: skip


# name: class, config, hop, levels, frames a second
TOYS = {
    "encodec": (EncodecModel, EncodecConfig(**ENCODEC), 64, 4, 375.0),
    "dac": (DacModel, DacConfig(**DAC), 320, 5, 50.0),
    "mimi": (MimiModel, MimiConfig(**MIMI), 256, 5, 31.25),
    "hubert": (XcodecModel, xcodec(HubertConfig(**SPEECH)), 320, 4, 50.0),
    "wavlm": (XcodecModel, xcodec(WavLMConfig(**SPEECH, num_buckets=8)), 320, 4, 50.0),
}


UNREAD = ("inited", "initialized", "cluster_size", "embed_avg", "masked_spec_embed")  # but in training


def save(folder, model_class, config):
    """A model whose codebooks are random too: the classes fill them with zeros, and all ids would be 0."""
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("codebook.embed", "codebook.embed_sum")):
                tensor.normal_()
            elif name.endswith("cluster_usage"):
                tensor.uniform_(0.5, 2)
        if model_class is EncodecModel:  # its frames are all near one point, so its codebooks must be there too
            frames = model.encoder(torch.randn(1, 1, 3_000))[0].T
            for layer in model.quantizer.layers:
                layer.codebook.embed.copy_(frames[torch.randperm(len(frames))[:16]])
                frames = frames - layer.codebook.decode(layer.codebook.encode(frames))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """One saved checkpoint for each of TOYS."""
    folder = tmp_path_factory.mktemp("codecs")
    return {name: save(folder / name, *toy[:2]) for name, toy in TOYS.items()}


@pytest.fixture(scope="module")
def pairs(toys):
    """Each toy as an AudioTokenizer, and as transformers loads it."""
    return {
        name: (load_codec(toys[name]), toy[0].from_pretrained(toys[name], attn_implementation="eager").eval())
        for name, toy in TOYS.items()
    }


@pytest.fixture
def copy(toys, tmp_path):
    """A checkpoint that the test may spoil."""
    return lambda name: Path(shutil.copytree(toys[name], tmp_path / name))


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, samples).astype(np.float32)


def processed(name, wave):
    """(1, 1, T) as the checkpoint's own processor gives it: DAC's and X-Codec's fills up the last frame."""
    if name in ("encodec", "mimi"):
        return torch.from_numpy(wave)[None, None]
    extractor = DacFeatureExtractor(sampling_rate=16_000, hop_length=320)
    return extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]


def encode(name, model, samples, levels=None):
    """transformers' own ids (L, F), of the first levels only if it is asked for those."""
    with torch.inference_mode():
        if name == "encodec":
            rate = model.config.target_bandwidths[-1] if levels is None else 1.5 * levels
            return model.encode(samples, bandwidth=rate).audio_codes[0, 0].numpy()
        if name == "dac":
            return model.encode(samples, n_quantizers=levels).audio_codes[0].numpy()
        if name == "mimi":
            return model.encode(samples, num_quantizers=levels).audio_codes[0].numpy()
        return model.encode(samples, bandwidth=None if levels is None else 0.2 * levels).audio_codes[0].numpy()


def decode(name, model, ids):
    """transformers' own wave (T,) of the ids (L', F)."""
    codes = torch.from_numpy(ids)[None]
    with torch.inference_mode():
        if name == "encodec":
            return model.decode(codes[None], [None]).audio_values.flatten().numpy()
        return model.decode(audio_codes=codes).audio_values.flatten().numpy()


def same(ours, theirs):
    """Equal to the last bits, which depend on how tensors lie in memory, and cut off at -1 and 1."""
    np.testing.assert_allclose(ours, np.clip(theirs, -1, 1), rtol=1e-5, atol=1e-6)


# --- honest checkpoints


@pytest.mark.parametrize("name", TOYS)
def test_what_a_codec_says_of_itself(pairs, name):
    ours, _ = pairs[name]
    _, config, hop, levels, rate = TOYS[name]
    assert isinstance(ours, AudioTokenizer)
    assert (ours.name, ours.hop, ours.sizes, ours.frame_rate) == (name, hop, (16,) * levels, rate)
    assert ours.sample_rate == getattr(config, "sampling_rate", None) or config.sample_rate
    assert tokens_per_second(ours) == rate * levels
    assert bits_per_second(ours, 2) == rate * 2 * 4
    assert not ours.torch.training
    tensors = [*ours.torch.parameters(), *ours.torch.buffers()]
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("name", TOYS)
def test_weights_are_those_of_the_library(pairs, name):
    ours, theirs = (model.state_dict() for model in (pairs[name][0].torch, pairs[name][1]))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.endswith(UNREAD))


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 319, 320, 321, 1_000, 4_001])
@pytest.mark.parametrize("name", TOYS)
def test_ids_and_waves_are_those_of_the_library(pairs, name, samples):
    ours, theirs = pairs[name]
    wave = noise(samples)
    ids = ours.encode(wave)
    levels, frames = TOYS[name][3], -(-samples // ours.hop)
    assert ids.shape == (levels, frames)
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, encode(name, theirs, processed(name, wave)))
    sound, expected = ours.decode(ids), decode(name, theirs, ids)
    assert sound.dtype == np.float32
    same(sound, expected)
    assert abs(len(sound) - frames * ours.hop) < ours.hop
    whole = ours.decode(ids, samples)
    assert whole.shape == (samples,)
    common = min(len(sound), samples)
    np.testing.assert_array_equal(whole[:common], sound[:common])


@pytest.mark.parametrize("name", TOYS)
def test_different_sounds_have_different_ids(pairs, name):
    """Or the comparisons above would hold for a codec that gives the same ids to all."""
    ours, _ = pairs[name]
    ids = [ours.encode(noise(4_000, seed)) for seed in range(2)]
    assert len(np.unique(ids[0])) > 4
    assert (ids[0] != ids[1]).mean() > 0.3
    sounds = [ours.decode(one) for one in ids]
    assert not np.allclose(*sounds, atol=1e-4 * np.abs(sounds).max())


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("name", TOYS)
def test_the_first_levels_are_those_of_a_smaller_bandwidth(pairs, name, levels):
    ours, theirs = pairs[name]
    wave = noise(2_000)
    ids = ours.encode(wave)[:levels]
    np.testing.assert_array_equal(ids, encode(name, theirs, processed(name, wave), levels))
    same(ours.decode(ids), decode(name, theirs, ids))


@pytest.mark.parametrize("name", TOYS)
def test_levels_left_out_at_the_end_are_levels_cut_off(pairs, name):
    ours, theirs = pairs[name]
    ids = ours.encode(noise(2_000))
    for levels in range(1, len(ids)):
        without = ids.copy()
        without[levels:] = -1
        same(ours.decode(without), decode(name, theirs, ids[:levels]))


def vectors(name, model, ids):
    """The sum of the vectors of all levels, by the library's own quantizer: (1, D, F)."""
    codes = torch.from_numpy(ids)
    with torch.inference_mode():
        if name == "dac":
            return model.quantizer.from_codes(codes[None])[0]
        return model.quantizer.decode(codes[None] if name == "mimi" else codes[:, None])


@pytest.mark.parametrize("name", TOYS)
def test_a_level_adds_the_same_whatever_the_others_are(pairs, name):
    """The library cannot leave out the first level, but the sum without it is the difference of two sums."""
    ours, theirs = pairs[name]
    ids = ours.encode(noise(2_000))
    for level in range(len(ids)):
        other = ids.copy()
        other[level] = (ids[level] + 1) % 16
        without = ids.copy()
        without[level] = -1
        with torch.inference_mode():
            bare, changed, alone, alone_changed = (
                ours._vectors(torch.from_numpy(some)[:, None])
                for some in (
                    without,
                    other,
                    *(np.where(np.arange(len(ids))[:, None] == level, x, -1) for x in (ids, other)),
                )
            )
        torch.testing.assert_close(bare + alone, vectors(name, theirs, ids), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(changed, bare + alone_changed, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(alone, alone_changed)


@pytest.mark.parametrize("name", TOYS)
def test_a_level_left_out_in_some_frames_only(pairs, name):
    ours, _ = pairs[name]
    ids = ours.encode(noise(2_000))
    holes = ids.copy()
    holes[1, ::2] = -1
    gone = ids.copy()
    gone[1] = -1
    with torch.inference_mode():
        some, whole, none = (ours._vectors(torch.from_numpy(x)[:, None]) for x in (holes, ids, gone))
    torch.testing.assert_close(some[..., ::2], none[..., ::2])
    torch.testing.assert_close(some[..., 1::2], whole[..., 1::2])
    assert not torch.allclose(none, whole)


@pytest.mark.parametrize("name", TOYS)
def test_no_level_at_all_is_the_same_sound_in_every_clip(pairs, name):
    ours, _ = pairs[name]
    levels = TOYS[name][3]
    nothing = ours.decode(np.full((levels, 7), -1))
    np.testing.assert_array_equal(nothing, ours.decode(np.full((1, 7), -1)))
    assert np.isfinite(nothing).all()


@pytest.mark.parametrize("name", TOYS)
def test_empty_and_malformed(pairs, name):
    ours, _ = pairs[name]
    levels = TOYS[name][3]
    assert ours.encode(noise(0)).shape == (levels, 0)
    assert ours.decode(np.zeros((levels, 0), np.int64)).shape == (0,)
    np.testing.assert_array_equal(ours.decode(np.zeros((levels, 0), np.int64), 5), np.zeros(5))
    for shape in ((0, 3), (levels + 1, 3), (3,), (1, levels, 3)):
        with pytest.raises(ValueError, match="have the shape"):
            ours.decode(np.zeros(shape, np.int64))
    for bad in (-2, 16):
        with pytest.raises(ValueError, match="go from -1 to 15"):
            ours.decode(np.array([[0, bad]]))
    with pytest.raises(ValueError, match="has the shape"):
        ours.encode(np.zeros((2, 100), np.float32))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(TOYS)), st.integers(1, 5_000))
def test_any_length(pairs, name, samples):
    ours, _ = pairs[name]
    ids = ours.encode(noise(samples))
    assert ids.shape == (TOYS[name][3], -(-samples // ours.hop))
    assert ours.decode(ids, samples).shape == (samples,)


def test_what_is_too_loud_is_cut_off(copy):
    folder = copy("mimi")
    tensors_with(lambda t: t["decoder.layers.8.conv.bias"].fill_(3.0))(folder)
    sound = load_codec(folder).decode(np.zeros((5, 4), np.int64))
    assert sound.max() == 1
    assert sound.min() >= -1


def test_time_is_checked_between_the_layers(pairs):
    for ours, _ in pairs.values():
        budget = guard.Budget(60.0)
        token = guard._budget.set(budget)
        try:
            ids = ours.encode(noise(1_000))
            budget.stopped.set()
            for run in (lambda ours=ours: ours.encode(noise(1_000)), lambda ours=ours, ids=ids: ours.decode(ids)):
                with pytest.raises(guard.TimeUp):
                    run()
        finally:
            guard._budget.reset(token)


def test_loading_leaves_the_random_numbers_alone(toys):
    before = torch.random.get_rng_state()
    for folder in toys.values():
        load_codec(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", TOYS)
def test_a_codec_that_nobody_has_is_freed(toys, name):
    ours = load_codec(toys[name])
    ours.encode(noise(1_000))
    gone = weakref.ref(ours.torch)
    del ours
    gc.collect()
    assert gone() is None


# --- older names


def renamed(folder, rename):
    tensors = {rename(key): tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def classic(key):
    return key.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


def current(key):
    """Names of Mimi's modules in transformers 5; its files have those of before."""
    for half in ("encoder", "decoder"):
        key = key.replace(f"{half}.layers.", f"{half}.{half}_seanet.layers.")
        key = key.replace(f"{half}_transformer.", f"{half}.{half}_transformer.")
    return key.replace("downsample.", "encoder.downsample.").replace("upsample.", "decoder.upsample.")


@pytest.mark.parametrize(
    ("name", "rename", "old", "new"),
    [
        ("encodec", classic, "encoder.layers.0.conv.weight_g", "encoder.layers.0.conv.parametrizations"),
        ("hubert", classic, "semantic_model.encoder.pos_conv_embed.conv.weight_v", "original1"),
        ("wavlm", classic, "semantic_model.encoder.pos_conv_embed.conv.weight_v", "original1"),
        ("mimi", current, "encoder.encoder_seanet.layers.0.conv.weight", "encoder.layers.0.conv.weight"),
    ],
)
def test_names_of_other_versions(pairs, copy, name, rename, old, new):
    folder = renamed(copy(name), rename)
    names = set(load_file(folder / "model.safetensors"))
    assert old in names
    assert not any(new in key for key in names)
    found, expected = (model.state_dict() for model in (load_codec(folder).torch, pairs[name][0].torch))
    assert all(torch.equal(found[key], expected[key]) for key in expected if not key.endswith(UNREAD))


@pytest.mark.parametrize("name", ["encodec", "mimi", "hubert", "wavlm"])
def test_what_only_training_reads_may_be_missing(pairs, copy, name):
    folder = copy(name)
    before = load_file(folder / "model.safetensors")
    after = {key: tensor for key, tensor in before.items() if not key.endswith(UNREAD)}
    assert len(after) < len(before)
    save_file(after, folder / "model.safetensors", {"format": "pt"})
    wave = noise(3_000)
    ids = pairs[name][0].encode(wave)
    bare = load_codec(folder)
    np.testing.assert_array_equal(bare.encode(wave), ids)
    np.testing.assert_array_equal(bare.decode(ids), pairs[name][0].decode(ids))


def test_a_mask_that_the_config_does_not_ask_for(pairs, copy):
    folder = copy("hubert")
    config_with("semantic_model_config", mask_time_prob=0.0)(folder)
    assert "semantic_model.masked_spec_embed" in load_file(folder / "model.safetensors")
    wave = noise(3_000)
    np.testing.assert_array_equal(load_codec(folder).encode(wave), pairs["hubert"][0].encode(wave))


def test_defaults_that_the_file_leaves_out(copy):
    """XcodecConfig puts its own ratios into an acoustic part that has none; DacConfig's own are others."""
    folder = copy("hubert")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in ("downsampling_ratios", "upsampling_ratios", "hop_length"):
        del config["acoustic_model_config"][key]
    path.write_text(json.dumps(config))
    theirs = XcodecModel.from_pretrained(folder, attn_implementation="eager").eval()
    wave = noise(3_000)
    np.testing.assert_array_equal(load_codec(folder).encode(wave), encode("hubert", theirs, processed("hubert", wave)))


@pytest.mark.parametrize("key", ["frame_rate", "_frame_rate"])
def test_frame_rate_of_older_mimi_files(copy, key):
    folder = copy("mimi")
    config_with(**{key: 20.0})(folder)
    without(*({"frame_rate", "_frame_rate"} - {key}))(folder)
    # Frames of three positions would need other weights than those of two.
    with pytest.raises(UserError, match="another shape"):
        load_codec(folder)
    config_with(**{key: 31.25})(folder)
    assert load_codec(folder).frame_rate == 31.25


# --- published configs

ENCODEC_24 = dict(
    architectures=["EncodecModel"], audio_channels=1, chunk_length_s=None, codebook_dim=128, codebook_size=1024,
    compress=2, dilation_growth_rate=2, hidden_size=128, kernel_size=7, last_kernel_size=7, model_type="encodec",
    norm_type="weight_norm", normalize=False, num_filters=32, num_lstm_layers=2, num_residual_layers=1, overlap=None,
    pad_mode="reflect", residual_kernel_size=3, sampling_rate=24000, target_bandwidths=[1.5, 3.0, 6.0, 12.0, 24.0],
    torch_dtype="float32", transformers_version="4.31.0.dev0", trim_right_ratio=1.0, upsampling_ratios=[8, 5, 4, 2],
    use_causal_conv=True,
)  # fmt: skip
ENCODEC_32 = ENCODEC_24 | dict(
    sampling_rate=32000, num_filters=64, codebook_size=2048, target_bandwidths=[2.2], upsampling_ratios=[8, 5, 4, 4],
    use_causal_conv=False, use_conv_shortcut=False,
)  # fmt: skip
ENCODEC_48 = ENCODEC_24 | dict(
    audio_channels=2, chunk_length_s=1.0, normalize=True, norm_type="time_group_norm", overlap=0.01,
    sampling_rate=48000, target_bandwidths=[3.0, 6.0, 12.0, 24.0], use_causal_conv=False,
)  # fmt: skip
DAC_44 = dict(
    architectures=["DacModel"], codebook_dim=8, codebook_loss_weight=1.0, codebook_size=1024,
    commitment_loss_weight=0.25, decoder_hidden_size=1536, downsampling_ratios=[2, 4, 8, 8], encoder_hidden_size=64,
    hidden_size=1024, hop_length=512, model_type="dac", n_codebooks=9, quantizer_dropout=0.0, sampling_rate=44100,
    torch_dtype="float32", transformers_version="4.45.0.dev0", upsampling_ratios=[8, 8, 4, 2],
)  # fmt: skip
DAC_16 = DAC_44 | dict(
    downsampling_ratios=[2, 4, 5, 8], upsampling_ratios=[8, 5, 4, 2], hop_length=320, n_codebooks=12,
    sampling_rate=16000, quantizer_dropout=0.5,
)  # fmt: skip
MIMI_24 = dict(
    architectures=["MimiModel"], attention_bias=False, attention_dropout=0.0, audio_channels=1, codebook_dim=256,
    codebook_size=2048, compress=2, dilation_growth_rate=2, frame_rate=12.5, head_dim=64, hidden_act="gelu",
    hidden_size=512, initializer_range=0.02, intermediate_size=2048, kernel_size=7, last_kernel_size=3,
    layer_scale_initial_scale=0.01, max_position_embeddings=8000, model_type="mimi", norm_eps=1e-05,
    normalize=False, num_attention_heads=8, num_filters=64, num_hidden_layers=8, num_key_value_heads=8,
    num_quantizers=32, num_residual_layers=1, num_semantic_quantizers=1, pad_mode="constant", residual_kernel_size=3,
    rope_theta=10000.0, sampling_rate=24000, sliding_window=250, torch_dtype="float32",
    transformers_version="4.45.0.dev0", trim_right_ratio=1.0, upsample_groups=512, upsampling_ratios=[8, 6, 5, 4],
    use_cache=False, use_causal_conv=True, use_conv_shortcut=False, vector_quantization_hidden_dimension=256,
)  # fmt: skip
HUBERT = dict(
    _name_or_path="facebook/hubert-base-ls960", activation_dropout=0.1, apply_spec_augment=True,
    architectures=["HubertModel"], attention_dropout=0.1, bos_token_id=1, classifier_proj_size=256, conv_bias=False,
    conv_dim=[512] * 7, conv_kernel=[10, 3, 3, 3, 3, 2, 2], conv_pos_batch_norm=False,
    conv_stride=[5, 2, 2, 2, 2, 2, 2], ctc_loss_reduction="sum", ctc_zero_infinity=False, do_stable_layer_norm=False,
    eos_token_id=2, feat_extract_activation="gelu", feat_extract_dropout=0.0, feat_extract_norm="group",
    feat_proj_dropout=0.1, feat_proj_layer_norm=True, final_dropout=0.1, gradient_checkpointing=False,
    hidden_act="gelu", hidden_dropout=0.1, hidden_dropout_prob=0.1, hidden_size=768, initializer_range=0.02,
    intermediate_size=3072, layer_norm_eps=1e-05, layerdrop=0.1, mask_channel_length=10, mask_channel_min_space=1,
    mask_channel_other=0.0, mask_channel_prob=0.0, mask_channel_selection="static", mask_feature_length=10,
    mask_feature_min_masks=0, mask_feature_prob=0.0, mask_time_length=10, mask_time_min_masks=2,
    mask_time_min_space=1, mask_time_other=0.0, mask_time_prob=0.05, mask_time_selection="static",
    model_type="hubert", num_attention_heads=12, num_conv_pos_embedding_groups=16, num_conv_pos_embeddings=128,
    num_feat_extract_layers=7, num_hidden_layers=12, pad_token_id=0, tokenizer_class="Wav2Vec2CTCTokenizer",
    torch_dtype="float32", use_weighted_layer_sum=False, vocab_size=32,
)  # fmt: skip
XCODEC = dict(
    acoustic_model_config=DAC_16 | dict(
        decoder_hidden_size=1024, downsampling_ratios=[8, 5, 4, 2], hidden_size=256, n_codebooks=9, quantizer_dropout=0
    ),
    architectures=["XcodecModel"], block_dilations=[1, 1], channel_ratios=[1, 1], codebook_dim=1024,
    codebook_size=1024, dtype="float32", initializer_range=0.02, kernel_size=3, model_type="xcodec",
    sample_rate=16000, semantic_model_config=HUBERT, strides=[1, 1], target_bandwidths=[0.5, 1, 1.5, 2, 4],
    transformers_version="4.56.0.dev0", unit_kernel_size=3,
)  # fmt: skip


def built(config):
    return intake.build(intake.check_config(json.dumps(config).encode(), "x", "audio-codec"), "x", "audio-codec")


@pytest.mark.parametrize(
    ("config", "parameters", "rate", "hop", "levels"),
    [
        (ENCODEC_24, 14_851_810, 24_000, 320, 32),
        (ENCODEC_32, 56_884_674, 32_000, 640, 4),
        (DAC_44, 76_620_777, 44_100, 512, 9),
        (DAC_16, 74_141_697, 16_000, 320, 12),
        (MIMI_24, 79_308_609, 24_000, 1_920, 32),
        (XCODEC, 160_698_625, 16_000, 320, 8),
    ],
    ids=["encodec-24", "encodec-32", "dac-44", "dac-16", "mimi", "xcodec"],
)
def test_published_configs_pass_with_the_number_of_parameters_of_the_library(config, parameters, rate, hop, levels):
    model, context = built(config)
    shape = intake.codec_shape(model.config)
    assert (shape.rate, shape.hop, shape.levels, context) == (rate, hop, levels, 0)
    assert model.num_parameters() == parameters


def test_stereo_is_refused():
    with pytest.raises(UserError) as caught:
        built(ENCODEC_48)
    assert "x codes more than one channel, or a loudness beside its tokens" in one_sentence(caught)


# --- hostile checkpoints


def config_with(part=None, **changes):
    def spoil(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        (config[part] if part else config).update(changes)
        path.write_text(json.dumps(config))

    return spoil


def without(*keys):
    def spoil(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in keys}))

    return spoil


KERNEL = {"_attn_implementation_internal": "owner/kernel"}
CODE = {"auto_map": {"AutoModel": "m.py--M"}}
OUT = "a value out of bounds"
BESIDE = "codes more than one channel, or a loudness"
UNFIT = "does not describe a model"
CANNOT = "cannot run: its settings do not fit together"
GAIN = "encoder.layers.0.conv.parametrizations.weight.original0"
REFUSED = {
    # code
    "code": ("encodec", config_with(**CODE), 'run its own code ("auto_map"'),
    "code in the speech model": ("hubert", config_with("semantic_model_config", **CODE), "run its own code"),
    "CVE-2026-4372": ("dac", config_with(**KERNEL), "private to the library"),
    "CVE-2026-4372 in the speech model": ("hubert", config_with("semantic_model_config", **KERNEL), "private to"),
    "quantized": ("mimi", config_with(quantization_config={}), "is quantized"),
    "pickle": ("encodec", pickle_only, "only Python pickles"),
    # types
    "a language model": ("dac", config_with(model_type="llama"), "one of the types encodec, dac, mimi, xcodec"),
    "another codec": ("dac", config_with(model_type="<b>"), 'is a model of the type "_b_"'),
    "half of Mimi": ("mimi", config_with(decoder_config=None), 'a key "decoder_config" that mimi has not'),
    "a class of that type from elsewhere": ("dac", config_with(architectures=["DACModel"]), "is not saved as DacModel"),
    "another speech model": ("hubert", config_with("semantic_model_config", model_type="bert"), 'of the type "bert"'),
    "another acoustic model": ("hubert", config_with("acoustic_model_config", model_type="encodec"), "of the type"),
    "no speech model": ("hubert", without("semantic_model_config"), "has no semantic_model_config"),
    "acoustic model is a list": ("hubert", config_with(acoustic_model_config=[1]), "has no acoustic_model_config"),
    "unknown key": ("encodec", config_with(surprise=1), 'a key "surprise" that encodec has not'),
    "unknown key of the speech model": ("hubert", config_with("semantic_model_config", x=1), "that hubert has not"),
    "two frame rates": ("mimi", config_with(_frame_rate=31.25, frame_rate=20), f'"frame_rate" {OUT}'),
    # what no token says
    "stereo": ("encodec", config_with(audio_channels=2), BESIDE),
    "stereo Mimi": ("mimi", config_with(audio_channels=2), BESIDE),
    "no channel": ("encodec", config_with(audio_channels=0), BESIDE),
    "loudness": ("encodec", config_with(normalize=True), BESIDE),
    "chunks": ("encodec", config_with(chunk_length_s=1.0), BESIDE),
    # sizes
    "one level too many": ("dac", config_with(n_codebooks=65), f'"n_codebooks" {OUT}'),
    "no level": ("dac", config_with(n_codebooks=0), f'"n_codebooks" {OUT}'),
    "bits for no level": ("encodec", config_with(target_bandwidths=[0.1]), "has 0 codebooks and frames of 64"),
    "bits for too many levels": ("encodec", config_with(target_bandwidths=[1_000.0]), "has 666 codebooks"),
    "no bits": ("encodec", config_with(target_bandwidths=[]), f'"target_bandwidths" {OUT}'),
    "bits are text": ("encodec", config_with(target_bandwidths=["6"]), f'"target_bandwidths" {OUT}'),
    "bits are no list": ("encodec", config_with(target_bandwidths=6.0), f'"target_bandwidths" {OUT}'),
    "short frames": ("encodec", config_with(upsampling_ratios=[4, 4, 2]), "frames of 32 samples; please choose"),
    "ratios of nothing": ("encodec", config_with(upsampling_ratios=[]), f'"upsampling_ratios" {OUT}'),
    "ratio of 1": ("dac", config_with(downsampling_ratios=[1, 64]), f'"downsampling_ratios" {OUT}'),
    "ratio is true": ("dac", config_with(downsampling_ratios=[True, 64]), f'"downsampling_ratios" {OUT}'),
    "17 ratios": ("mimi", config_with(upsampling_ratios=[2] * 17), f'"upsampling_ratios" {OUT}'),
    "ratio is a list": ("mimi", config_with(upsampling_ratios=[[8], 6]), f'"upsampling_ratios" {OUT}'),
    "ratios are text": ("mimi", config_with(upsampling_ratios="86"), f'"upsampling_ratios" {OUT}'),
    "no ratios": ("encodec", config_with(upsampling_ratios=None), UNFIT),
    "other ratios up than down": ("dac", config_with(upsampling_ratios=[8, 5, 4]), UNFIT),
    "other frames in the speech model": ("hubert", config_with(strides=[1, 2]), UNFIT),
    "fewer strides than ratios": ("hubert", config_with(strides=[1]), UNFIT),
    "3,999 samples a second": ("dac", config_with(sampling_rate=3_999), "a codec of 3,999 samples a second"),
    "192,001 samples a second": ("dac", config_with(sampling_rate=192_001), f'"sampling_rate" {OUT}'),
    "rate is true": ("dac", config_with(sampling_rate=True), f'"sampling_rate" {OUT}'),
    "wide at full rate": ("encodec", config_with(num_filters=1_024), "holds 24.6 million numbers for a second"),
    "wide decoder": ("dac", config_with(decoder_hidden_size=8_192), "holds 8.2 million numbers"),
    "wide padding": (
        "encodec",
        config_with(num_residual_layers=8, dilation_growth_rate=8),
        "holds 100.7 million numbers",
    ),
    "wide speech model": (
        "hubert",
        config_with("semantic_model_config", conv_dim=[2_048] * 7, conv_stride=[2, 5, 2, 2, 2, 2, 2]),
        "holds 16.4 million numbers",
    ),
    "positions": ("mimi", config_with(upsampling_ratios=[8, 8]), "2,500 positions with 2 heads"),
    "heads": ("hubert", config_with("semantic_model_config", num_attention_heads=64, hidden_size=64), "with 64 heads"),
    "absurd codebook": ("encodec", config_with(codebook_size=2**20), f'"codebook_size" {OUT}'),
    "large codebooks": ("encodec", config_with(codebook_size=2**16, codebook_dim=8_192), "million parameters"),
    "codebook of 15": ("dac", config_with(codebook_size=15), UNFIT),
    "many parameters": ("dac", config_with(encoder_hidden_size=96, downsampling_ratios=[2] * 8), UNFIT),
    "parameters": ("hubert", config_with("semantic_model_config", intermediate_size=65_536, hidden_size=1_024), "has"),
    "kernel": ("encodec", config_with(kernel_size=65), f'"kernel_size" {OUT}'),
    "kernels are a list": ("mimi", config_with(residual_kernel_size=[3, 3]), f'"residual_kernel_size" {OUT}'),
    "absurd frame rate": ("mimi", config_with(_frame_rate=1e-9), "has"),
    "no frame rate": ("mimi", config_with(_frame_rate=0), UNFIT),
    "frame rate is text": ("mimi", config_with(_frame_rate="fast"), UNFIT),
    "as many frames as positions": ("mimi", config_with(_frame_rate=63), "has no place for"),
    "all levels semantic": ("mimi", config_with(num_semantic_quantizers=5), UNFIT),
    "groups": ("mimi", config_with(upsample_groups=7), UNFIT),
    "streaming": ("mimi", config_with(use_streaming=True), f'"use_streaming" {OUT}'),
    "rope": ("mimi", config_with(rope_parameters={"rope_type": "dynamic"}), "is not supported"),
    "activation": ("mimi", config_with(hidden_act="xielu"), f'"hidden_act" {OUT}'),
    "activation of the speech model": (
        "hubert",
        config_with("semantic_model_config", feat_extract_activation="xielu"),
        f'"feat_extract_activation" {OUT}',
    ),
    "adapter": ("wavlm", config_with("semantic_model_config", add_adapter=True), f'"add_adapter" {OUT}'),
    "padding": ("encodec", config_with(pad_mode="surprise"), CANNOT),
    "norm": ("encodec", config_with(norm_type="surprise"), UNFIT),
    "400 digits": ("mimi", config_with(norm_eps=10**400), f'"norm_eps" {OUT}'),
    # weights
    "wrong shape": ("encodec", config_with(hidden_size=9), "has another shape or type"),
    "wrong shape in the header": ("encodec", header_with(lambda h: h[GAIN].update(shape=[1, 4, 1])), "another shape"),
    "fewer levels": ("dac", config_with(n_codebooks=4), "has no place for"),
    "more levels": ("dac", config_with(n_codebooks=6), 'lacks the tensor "quantizer.quantizers.5.'),
    "missing": ("encodec", tensors_with(lambda t: t.pop(GAIN)), "lacks the tensor"),
    "missing codebook": ("encodec", tensors_with(lambda t: t.pop("quantizer.layers.3.codebook.embed")), "lacks the"),
    "one too many": ("encodec", tensors_with(lambda t: t.update({"<b>": torch.zeros(1)})), 'a tensor "_b_" that its'),
    "two names": (
        "encodec",
        tensors_with(lambda t: t.update({"encoder.layers.0.conv.weight_g": t[GAIN].clone()})),
        "has no place for",
    ),
    "weights of a normalised DAC": (
        "dac",
        tensors_with(lambda t: t.update({"encoder.conv1.weight_g": torch.zeros(4, 1, 1)})),
        "has no place for",
    ),
    "NaN": ("mimi", tensors_with(lambda t: t["decoder.layers.0.conv.bias"].fill_(torch.nan)), "that are no numbers"),
    "NaN on the way": (
        "encodec",
        tensors_with(lambda t: [t[key].zero_() for key in t if key.startswith("decoder.") and key.endswith("1")]),
        "gives no numbers",
    ),
    "infinity on the way": (
        "mimi",
        tensors_with(lambda t: t["decoder.layers.8.conv.weight"].fill_(3e38)),
        "gives no numbers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(copy, case):
    name, spoil, reason = REFUSED[case]
    folder = copy(name)
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_codec(folder)
    assert reason in one_sentence(caught)


def test_other_kinds_do_not_open_codecs(toys):
    config = (toys["encodec"] / "config.json").read_bytes()
    for kind in ("causal-lm", "vit", "vlm"):
        with pytest.raises(UserError, match='is a model of the type "encodec"'):
            intake.check_config(config, "x", kind)


# --- names and the Hub


def test_names_of_the_kind():
    assert models.OFFERED["audio-codec"] == ("rvq8", "vq1")
    assert models.check_name("rvq8", "audio-codec") == "rvq8"
    assert models.check_name("kyutai/mimi", "audio-codec") == "hub:kyutai/mimi"
    assert controls.Model("Codec", kind="audio-codec").check(" vq1 ") == "vq1"
    for name in ("tinylm", "rvq9", "hub:", "../x"):
        with pytest.raises(UserError):
            models.check_name(name, "audio-codec")
    with pytest.raises(UserError, match="please choose one of rvq8, vq1 or hub:owner/name"):
        codec("shapes-vlm")


def test_bundled_codecs_come_from_their_own_module(monkeypatch):
    calls = []
    monkeypatch.setitem(
        sys.modules, "tokenlab.audio.codec", SimpleNamespace(load=lambda name: calls.append(name) or name)
    )
    monkeypatch.setattr(models, "_slots", type(models._slots)())
    assert [codec("rvq8"), codec("vq1"), codec("rvq8")] == ["rvq8", "vq1", "rvq8"]
    assert calls == ["rvq8", "vq1"]


@pytest.fixture
def hub(monkeypatch, tmp_path, toys):
    pages = {}
    for name in ("encodec", "dac", "mimi", "hubert"):
        pages |= as_pages(f"owner/{name}", toys[name])
    pages |= as_pages("owner/stereo", toys["encodec"], config__json=json.dumps(ENCODEC_48).encode())
    pages |= as_pages("owner/large", toys["encodec"], model__safetensors=810_000_000)
    pages |= as_pages("owner/mono", toys["encodec"], model__safetensors=710_000_000)
    with hub_server.serving(monkeypatch, tmp_path, pages) as served:
        yield served


def got(hub):
    return {name for command, name, _ in hub.seen if command == "GET"}


def test_codecs_from_the_hub(hub, pairs):
    wave = noise(2_000)
    for name in ("encodec", "dac", "mimi", "hubert"):
        ours = codec(f"owner/{name}")
        assert ours.name == f"hub:owner/{name}"
        np.testing.assert_array_equal(ours.encode(wave), pairs[name][0].encode(wave))
    assert got(hub) == {"config.json", "model.safetensors"}
    assert hub.authorizations == {None}
    assert codec("hub:owner/hubert") is ours
    assert list(models._slots) == ["audio-codec:hub:owner/mimi", "audio-codec:hub:owner/hubert"]


@pytest.mark.parametrize(
    ("repo", "reason", "read"),
    [
        ("owner/stereo", BESIDE, {"config.json"}),
        ("owner/large", "have 810 MB; please choose a checkpoint of at most 800 MB", {"config.json"}),
        ("owner/missing", "There is no public repository owner/missing", set()),
    ],
)
def test_hub_trouble_before_any_weights(hub, repo, reason, read):
    with pytest.raises(UserError) as caught:
        codec(f"hub:{repo}")
    assert reason in one_sentence(caught)
    assert got(hub) == read


def test_offline_is_one_sentence(monkeypatch, tmp_path):
    hub_server.point_at(monkeypatch, tmp_path)
    with pytest.raises(UserError) as caught:
        codec("hub:kyutai/mimi")
    assert "The Hugging Face Hub cannot be reached, so kyutai/mimi cannot be loaded" in one_sentence(caught)
