"""Image encoders and LLaVA: honest checkpoints load as transformers itself loads them, hostile ones give one sentence.

Every checkpoint here is built from a config of the real class, with random weights, and saved by transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as library
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests import hub_server
from tests.hub_server import as_pages
from tests.test_models import header_with, one_sentence, pickle_only, tensors_with
from tokenlab import controls, models, pictures
from tokenlab.errors import UserError
from tokenlab.models import intake
from tokenlab.models.vision import (
    load_vision_language_model,
    load_vision_transformer,
    vision_language_model,
    vision_transformer,
)

SIZE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=28, patch_size=14)
CLIP_VISION = dict(SIZE, intermediate_size=48, projection_dim=16)
TEXT = dict(
    vocab_size=300, hidden_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=48, max_position_embeddings=64, bos_token_id=None, eos_token_id=257, pad_token_id=None,
)  # fmt: skip
CLIP_TEXT = dict(
    vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
    bos_token_id=0, eos_token_id=1, pad_token_id=1, max_position_embeddings=8,
)  # fmt: skip


def llava_config(text=None, **options):
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**CLIP_VISION),
        text_config=text or LlamaConfig(**TEXT),
        **{"image_token_index": 258, "image_seq_length": 4, **options},
    )


TOYS = {
    "clip": (CLIPModel, CLIPConfig(vision_config=CLIP_VISION, text_config=CLIP_TEXT, projection_dim=16)),
    "clip-vision": (CLIPVisionModel, CLIPVisionConfig(**CLIP_VISION)),
    "clip-projection": (CLIPVisionModelWithProjection, CLIPVisionConfig(**CLIP_VISION)),
    "dinov2": (Dinov2Model, Dinov2Config(**(SIZE | {"image_size": 56}), mlp_ratio=2)),
    "registers": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SIZE, mlp_ratio=2, num_register_tokens=3)),
    "llava": (LlavaForConditionalGeneration, llava_config()),
    "llava-last": (LlavaForConditionalGeneration, llava_config(vision_feature_layer=3)),
    "llava-mistral": (LlavaForConditionalGeneration, llava_config(MistralConfig(**TEXT, sliding_window=40))),
    "llava-qwen2": (LlavaForConditionalGeneration, llava_config(Qwen2Config(**TEXT, tie_word_embeddings=True))),
}
VLMS = [name for name in TOYS if name.startswith("llava")]


def preprocessor(side=28, **changes):
    return json.dumps(
        {
            "crop_size": {"height": side, "width": side},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_processor_type": "CLIPImageProcessor",
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": side},
            **changes,
        }
    ).encode()


def byte_tokenizer():
    """Bytes 0 to 255, <s>, </s>, <image>; a text begins with <s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = Tokenizer(library.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    own.decoder = decoders.ByteLevel()
    own.add_special_tokens([AddedToken(text, normalized=False) for text in ("<s>", "</s>", "<image>")])
    own.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
    return own


def save(folder, model_class, config, **options):
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder, **options)
    (folder / "preprocessor_config.json").write_bytes(preprocessor())
    (folder / "tokenizer.json").write_text(byte_tokenizer().to_str(), "utf-8")
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """One saved checkpoint for each of TOYS."""
    folder = tmp_path_factory.mktemp("vision")
    return {name: save(folder / name, *toy) for name, toy in TOYS.items()}


@pytest.fixture
def copy(toys, tmp_path):
    """A checkpoint that the test may spoil."""
    return lambda name: Path(shutil.copytree(toys[name], tmp_path / name))


def squares(size, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def stock(model_class, folder):
    return model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def picture_ids(model, question=""):
    """The ids of a prompt with a picture, as a system puts them together."""
    text = model.tokenizer.encode(model.before + question + model.after).ids.tolist()
    return [*model.opening, *[model.torch.config.image_token_id] * model.vision.grid**2, *text]


def same_encoder(found, expected):
    """Both give the same states and attention for the same pictures."""
    pixels = found.pixels(squares(found.size))
    with torch.inference_mode():
        ours, theirs = (
            model(pixels, output_hidden_states=True, output_attentions=True) for model in (found.torch, expected)
        )
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)
    assert torch.equal(ours.attentions[0], theirs.attentions[0])
    tokens = found.prefix + found.grid**2
    assert ours.last_hidden_state.shape == (2, tokens, 32)
    assert ours.attentions[0].shape == (2, 4, tokens, tokens)
    assert len(ours.hidden_states) == 4


# --- honest checkpoints


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("clip", 1), ("clip-vision", 1), ("clip-projection", 1), ("dinov2", 1), ("registers", 4)],
)
def test_encoder_is_that_of_the_library(toys, name, prefix):
    found = load_vision_transformer(toys[name])
    model_class, _ = TOYS[name]
    whole = stock(model_class, toys[name])
    same_encoder(found, getattr(whole, "vision_model", whole))
    assert (found.name, found.size, found.patch, found.prefix, found.grid) == (name, 28, 14, prefix, 2)
    assert found.mean == (0.48145466, 0.4578275, 0.40821073)
    assert not found.torch.training
    assert found.torch.config._attn_implementation == "eager"
    tensors = [*found.torch.parameters(), *found.torch.buffers()]
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in tensors)
    assert {tensor.dtype for tensor in found.torch.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["clip", "llava"])
def test_only_the_encoder_of_a_larger_checkpoint_is_loaded(toys, name):
    found = load_vision_transformer(toys[name])
    assert isinstance(found.torch, CLIPVisionModel)
    saved = load_file(toys[name] / "model.safetensors")
    theirs = {key: tensor for key, tensor in saved.items() if key.startswith(("vision_model.", "vision_tower."))}
    assert len(theirs) < len(saved)
    assert sum(map(torch.numel, theirs.values())) == found.torch.num_parameters()


def test_encoder_of_llava_is_that_of_the_whole(toys):
    same_encoder(load_vision_transformer(toys["llava"]), load_vision_language_model(toys["llava"]).vision.torch)


@pytest.mark.parametrize("name", VLMS)
def test_llava_is_that_of_the_library(toys, name):
    model = load_vision_language_model(toys[name])
    expected = stock(LlavaForConditionalGeneration, toys[name])
    ids = torch.tensor([picture_ids(model, "Cat?")] * 2)
    pixels = model.vision.pixels(squares(28))
    with torch.inference_mode():
        ours, theirs = (m(input_ids=ids, pixel_values=pixels, output_attentions=True) for m in (model.torch, expected))
    assert torch.equal(ours.logits, theirs.logits)
    assert ours.logits.shape == (2, ids.shape[1], 300)
    assert [tuple(weights.shape) for weights in ours.attentions] == [(2, 4, ids.shape[1], ids.shape[1])] * 2
    assert sum(weight.numel() for weight in model.torch.parameters()) == expected.num_parameters()
    assert model.vision.torch is model.torch.model.vision_tower
    assert model.end == {257}
    assert not model.torch.training
    assert not any(tensor.is_meta for tensor in (*model.torch.parameters(), *model.torch.buffers()))
    assert model.context == {"llava-mistral": 40}.get(name, 64)


@pytest.mark.parametrize(("name", "layer"), [("llava", 2), ("llava-last", 3)])
def test_feature_layer_is_the_hidden_state_that_the_projector_gets(toys, name, layer):
    model = load_vision_language_model(toys[name])
    assert model.feature_layer == layer  # -2 of 4 is the third
    pixels = model.vision.pixels(squares(28))
    with torch.inference_mode():
        states = model.vision.torch(pixels, output_hidden_states=True).hidden_states[model.feature_layer]
        ours = model.torch.model.multi_modal_projector(states[:, model.vision.prefix :])
        theirs = torch.stack(model.torch.get_image_features(pixel_values=pixels).pooler_output)
    assert torch.equal(ours, theirs)


def test_prompt_is_that_of_the_checkpoints_own_tokenizer(toys):
    model = load_vision_language_model(toys["llava"])
    own = Tokenizer.from_file(str(toys["llava"] / "tokenizer.json"))
    expected = own.encode("USER: <image><image><image><image>\nWhere is it? ASSISTANT:").ids
    assert picture_ids(model, "Where is it?") == expected
    assert expected[0] == 256
    assert expected.count(258) == 4


def test_a_sliding_window_that_no_picture_fits_into(tmp_path):
    text = MistralConfig(**TEXT, sliding_window=8)
    folder = save(tmp_path / "narrow", LlavaForConditionalGeneration, llava_config(text))
    with pytest.raises(UserError) as caught:
        load_vision_language_model(folder)
    assert "A picture fills the 8 tokens that narrow has room for" in one_sentence(caught)


def test_loading_leaves_the_random_numbers_alone(toys):
    before = torch.random.get_rng_state()
    load_vision_language_model(toys["llava"])
    load_vision_transformer(toys["dinov2"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_trusted_tokenizer_is_opened_here(toys):
    ours, theirs = (load_vision_language_model(toys["llava"], trusted) for trusted in (True, False))
    assert type(ours.tokenizer).__name__ == "TokenizerJson"
    assert type(theirs.tokenizer).__name__ == "SandboxedTokenizer"
    assert picture_ids(ours) == picture_ids(theirs)


# --- older names


def renamed(folder, rename, extra=None):
    """The folder with its tensors renamed and others added, as other versions of the library saved them."""
    tensors = {rename(key): tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors | (extra or {}), folder / "model.safetensors")
    return folder


def now(key):
    """Module names of transformers 5, and of 4.52 with "vision_model." in between."""
    if key == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + key.replace("language_model.model.", "language_model.")


OLD = {
    # before 4.52: language_model.model., vision_tower.vision_model.
    "4.40": lambda key: key.replace("vision_tower.", "vision_tower.vision_model."),
    "4.52": lambda key: now(key).replace("vision_tower.", "vision_tower.vision_model."),
    "5": now,
}


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("name", ["llava", "llava-mistral"])
def test_llava_of_other_versions(toys, copy, name, version):
    saved = load_file(toys[name] / "model.safetensors")
    assert "language_model.model.norm.weight" in saved
    positions = {OLD[version]("vision_tower.embeddings.position_ids"): torch.arange(5)[None]}
    folder = renamed(copy(name), OLD[version], positions)
    assert "language_model.model.norm.weight" not in load_file(folder / "model.safetensors") or version == "4.40"
    model, expected = load_vision_language_model(folder), load_vision_language_model(toys[name])
    ids, pixels = torch.tensor([picture_ids(model)]), model.vision.pixels(squares(28, 1))
    logits = [m.torch(input_ids=ids, pixel_values=pixels).logits for m in (model, expected)]
    assert torch.equal(*logits)
    same_encoder(load_vision_transformer(folder), expected.vision.torch)


def test_clip_vision_model_of_other_versions(toys, copy):
    positions = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    folder = renamed(copy("clip-vision"), lambda key: f"vision_model.{key}", positions)
    same_encoder(load_vision_transformer(folder), load_vision_transformer(toys["clip-vision"]).torch)


def test_dinov2_of_this_versions_own_names(toys, copy):
    # save_pretrained writes the names of 2023 (attention.attention.query); the modules have others by now.
    names = {
        "attention.query": "q_proj",
        "attention.key": "k_proj",
        "attention.value": "v_proj",
        "output.dense": "o_proj",
    }

    def rename(key):
        for old, new in names.items():
            key = key.replace(f"attention.{old}.", f"attention.{new}.")
        return key

    folder = renamed(copy("dinov2"), rename)
    assert "encoder.layer.0.attention.q_proj.weight" in load_file(folder / "model.safetensors")
    same_encoder(load_vision_transformer(folder), load_vision_transformer(toys["dinov2"]).torch)


def test_shards(tmp_path, toys):
    folder = save(tmp_path / "shards", *TOYS["clip"], max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    same_encoder(load_vision_transformer(folder), load_vision_transformer(toys["clip"]).torch)


# --- published configs

GENERATION = dict(
    _name_or_path="", add_cross_attention=False, architectures=None, attention_dropout=0.0, bad_words_ids=None,
    chunk_size_feed_forward=0, cross_attention_hidden_size=None, decoder_start_token_id=None, diversity_penalty=0.0,
    do_sample=False, dropout=0.0, early_stopping=False, encoder_no_repeat_ngram_size=0, finetuning_task=None,
    forced_bos_token_id=None, forced_eos_token_id=None, hidden_act="quick_gelu", id2label={"0": "LABEL_0"},
    initializer_factor=1.0, initializer_range=0.02, is_decoder=False, is_encoder_decoder=False,
    label2id={"LABEL_0": 0}, layer_norm_eps=1e-05, length_penalty=1.0, max_length=20, min_length=0,
    no_repeat_ngram_size=0, num_beam_groups=1, num_beams=1, num_return_sequences=1, output_attentions=False,
    output_hidden_states=False, output_scores=False, prefix=None, problem_type=None, pruned_heads={},
    remove_invalid_values=False, repetition_penalty=1.0, return_dict=True, return_dict_in_generate=False,
    sep_token_id=None, task_specific_params=None, temperature=1.0, tie_encoder_decoder=False, tokenizer_class=None,
    top_k=50, top_p=1.0, torch_dtype=None, torchscript=False, transformers_version="4.16.0.dev0", use_bfloat16=False,
)  # fmt: skip
CLIP_B32 = dict(
    architectures=["CLIPModel"], initializer_factor=1.0, logit_scale_init_value=2.6592, model_type="clip",
    projection_dim=512, text_config_dict=None, transformers_version=None, vision_config_dict=None,
    text_config=dict(
        GENERATION, model_type="clip_text_model", hidden_size=512, intermediate_size=2048, num_attention_heads=8,
        num_hidden_layers=12, max_position_embeddings=77, vocab_size=49408, bos_token_id=0, eos_token_id=2,
        pad_token_id=1,
    ),
    vision_config=dict(
        GENERATION, model_type="clip_vision_model", hidden_size=768, intermediate_size=3072, num_attention_heads=12,
        num_hidden_layers=12, image_size=224, patch_size=32,
    ),
)  # fmt: skip
DINOV2_SMALL = dict(
    architectures=["Dinov2Model"], attention_probs_dropout_prob=0.0, drop_path_rate=0.0, hidden_act="gelu",
    hidden_dropout_prob=0.0, hidden_size=384, image_size=518, initializer_range=0.02, layer_norm_eps=1e-06,
    layerscale_value=1.0, mlp_ratio=4, model_type="dinov2", num_attention_heads=6, num_channels=3,
    num_hidden_layers=12, out_features=["stage12"], out_indices=[12], patch_size=14, qkv_bias=True,
    reshape_hidden_states=True, apply_layernorm=True, stage_names=["stem", "stage1"], torch_dtype="float32",
    transformers_version="4.31.0.dev0", use_swiglu_ffn=False,
)  # fmt: skip
LLAVA_7B = dict(
    architectures=["LlavaForConditionalGeneration"], ignore_index=-100, image_token_index=32000, model_type="llava",
    pad_token_id=32001, projector_hidden_act="gelu", tie_word_embeddings=False, torch_dtype="float16",
    transformers_version="4.36.0.dev0", vision_feature_layer=-2, vision_feature_select_strategy="default",
    vocab_size=32064,
    text_config=dict(
        _name_or_path="lmsys/vicuna-7b-v1.5", architectures=["LlamaForCausalLM"], max_position_embeddings=4096,
        model_type="llama", rms_norm_eps=1e-05, torch_dtype="float16", vocab_size=32064,
    ),
    vision_config=dict(
        hidden_size=1024, image_size=336, intermediate_size=4096, model_type="clip_vision_model",
        num_attention_heads=16, num_hidden_layers=24, patch_size=14, projection_dim=768, vocab_size=32000,
    ),
)  # fmt: skip


def built(config, kind):
    return intake.build(intake.check_config(json.dumps(config).encode(), "x", kind), "x", kind)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(CLIP_B32, 87_456_000), (DINOV2_SMALL, 22_056_576)],
    ids=["clip-b32", "dinov2-small"],
)
def test_published_configs_pass_and_give_the_published_number_of_parameters(config, parameters):
    model, context = built(config, "vit")
    assert model.num_parameters() == parameters
    assert context == 0


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            "vlm",
            "x has 7,063 million parameters; please choose a model of at most 200 million, which runs without a GPU.",
        ),
        ("vit", "x has 304 million parameters"),
    ],
)
def test_llava_7b_is_too_large_for_a_cpu(kind, reason):
    with pytest.raises(UserError) as caught:
        built(LLAVA_7B, kind)
    assert reason in one_sentence(caught)


# --- pictures


def test_pixels_are_those_of_clips_processor(toys):
    """A picture of the encoder's own size is not resampled, so both do the same arithmetic."""
    encoder = load_vision_transformer(toys["clip"])
    image = squares(28, 1)[0]
    theirs = CLIPImageProcessorPil.from_pretrained(toys["clip"])(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(encoder.pixels(image[None]), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(84, 140), (140, 84), (84, 84), (91, 133)])
def test_middle_square_is_that_of_clips_processor(toys, height, width):
    """On a smooth picture the mean of areas and the bicubic filter agree; a square elsewhere would be far off."""
    encoder = load_vision_transformer(toys["clip"])
    y, x = np.mgrid[:height, :width]
    waves = (np.sin(x / 25), np.cos(y / 20), np.sin((x + y) / 30))
    image = np.stack([127.5 + 100 * wave for wave in waves], -1).astype(np.uint8)
    theirs = CLIPImageProcessorPil.from_pretrained(toys["clip"])(image, return_tensors="pt")["pixel_values"]
    ours = encoder.pixels(pictures.square(image, encoder.size)[None])
    inner = (..., slice(1, -1), slice(1, -1))  # the bicubic filter is one-sided at the edges
    torch.testing.assert_close(ours[inner], theirs[inner], rtol=0, atol=0.1)  # 0.1 of a standard deviation
    assert (ours - theirs).abs().mean() < 0.03
    if height != width:
        corner = encoder.pixels(pictures.square(image[:84, :84], encoder.size)[None])
        assert (corner - theirs).abs().mean() > 0.1


def test_pixels_by_hand(toys, copy):
    folder = copy("clip")
    data = preprocessor(image_mean=[0.5, 0.25, 0], image_std=[0.5, 0.25, 1])
    (folder / "preprocessor_config.json").write_bytes(data)
    encoder = load_vision_transformer(folder)
    image = np.zeros((1, 28, 28, 3), np.uint8)
    image[0, 1, 2] = (255, 51, 102)
    pixels = encoder.pixels(image)
    assert pixels.shape == (1, 3, 28, 28)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([-1.0, -1.0, 0.0]))
    torch.testing.assert_close(pixels[0, :, 1, 2], torch.tensor([1.0, -0.2, 0.4]))


@pytest.mark.parametrize(
    "data",
    [
        preprocessor(crop_size=28, size=28, feature_extractor_type="CLIPFeatureExtractor"),  # as of 2021
        preprocessor(_valid_processor_keys=["images", "do_resize"], processor_class="LlavaProcessor"),
        preprocessor(size={"shortest_edge": 32}),
        preprocessor(do_center_crop=False, size={"height": 28, "width": 28}),
        preprocessor(do_pad=False, default_to_square=False),
    ],
)
def test_other_forms_of_the_same_preprocessor(copy, data):
    folder = copy("clip")
    (folder / "preprocessor_config.json").write_bytes(data)
    assert load_vision_transformer(folder).size == 28


def test_dinov2_takes_smaller_pictures_than_it_was_trained_on(copy):
    folder = copy("dinov2")
    (folder / "preprocessor_config.json").write_bytes(preprocessor(42, size={"shortest_edge": 48}))
    encoder = load_vision_transformer(folder)
    assert (encoder.size, encoder.grid, encoder.torch.config.image_size) == (42, 3, 56)
    same_encoder(encoder, stock(Dinov2Model, folder))


# --- hostile checkpoints


def config_with(part=None, **changes):
    def spoil(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        (config[part] if part else config).update(changes)
        path.write_text(json.dumps(config))

    return spoil


def first_text_only(folder):
    own = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    own["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [metaspace]}
    (folder / "tokenizer.json").write_text(json.dumps(own))


def without(*keys):
    def spoil(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in keys}))

    return spoil


def pictures_with(**changes):
    return lambda folder: (folder / "preprocessor_config.json").write_bytes(preprocessor(**changes))


def no_mean(folder):
    data = json.loads(preprocessor())
    (folder / "preprocessor_config.json").write_text(json.dumps({k: v for k, v in data.items() if k != "image_mean"}))


def infinite_mean(folder):
    (folder / "preprocessor_config.json").write_bytes(preprocessor().replace(b"0.48145466", b"1e999"))


def bare_nan(folder):
    data = preprocessor().replace(b"0.48145466", b"NaN")
    (folder / "preprocessor_config.json").write_bytes(data)


KERNEL = {"_attn_implementation_internal": "owner/kernel"}
CODE = {"auto_map": {"AutoModel": "m.py--M"}}
PATCH = "vision_tower.embeddings.patch_embedding.weight"
MEAN = '"image_mean" a value that is not supported'
SIDES = '"size" a value that is not supported'
REFUSED = {  # of LLaVA, as an encoder and as a whole
    # code
    "code": (config_with(**CODE), 'run its own code ("auto_map"'),
    "code in the vision part": (config_with("vision_config", **CODE), 'run its own code ("auto_map"'),
    "code in the text part": (config_with("text_config", **CODE), 'run its own code ("auto_map"'),
    "trust": (config_with("vision_config", trust_remote_code=True), "run its own code"),
    "CVE-2026-4372": (config_with(**KERNEL), "private to the library"),
    "CVE-2026-4372 in the vision part": (config_with("vision_config", **KERNEL), "private to the library"),
    "CVE-2026-4372 in the text part": (config_with("text_config", **KERNEL), "private to the library"),
    "attention from elsewhere": (
        config_with("vision_config", attn_implementation="owner/kernel"),
        '"attn_implementation" that clip_vision_model has not',
    ),
    "quantized part": (config_with("text_config", quantization_config={}), "is quantized"),
    "pickle": (pickle_only, "only Python pickles"),
    "code in the preprocessor": (pictures_with(auto_map={"AutoImageProcessor": "p.P"}), "run its own code"),
    # nested configs
    "no vision part": (without("vision_config"), "has no vision_config"),
    "no text part": (without("text_config"), "has no text_config"),
    "a part is a list": (lambda folder: config_with(vision_config=[])(folder), "has no vision_config"),
    "a part is text": (config_with(text_config="llama"), "has no text_config"),
    "nested type": (config_with("text_config", model_type="gpt2"), 'has a text_config of the type "gpt2"'),
    "type is a list": (config_with("vision_config", model_type=["x"]), "has a vision_config of the type"),
    "another encoder": (config_with("vision_config", model_type="<b>"), 'has a vision_config of the type "_b_"'),
    "nested deeper": (config_with("vision_config", vision_config={}), "out of bounds"),
    "unknown key": (config_with("vision_config", surprise=1), 'a key "surprise" that clip_vision_model has not'),
    "unknown key of llava": (config_with(surprise=1), 'a key "surprise" that llava has not'),
    "dictionary for a part twice": (config_with(vision_config_dict={"hidden_size": 32}), "out of bounds"),
    # sizes
    "absurd picture": (config_with("vision_config", image_size=10**6), '"image_size" a value out of bounds'),
    "no patch": (config_with("vision_config", patch_size=0), '"patch_size" a value out of bounds'),
    "patch is a list": (config_with("vision_config", patch_size=[14, 14]), '"patch_size" a value out of bounds'),
    "patch larger than the picture": (
        config_with("vision_config", patch_size=56),
        "Patches of 56 pixels do not tile a picture of 28",
    ),
    "patch that leaves a margin": (config_with("vision_config", patch_size=13), "do not tile"),
    "no picture": (config_with("vision_config", image_size=None), "does not describe a model"),
    "many patches": (
        config_with("vision_config", image_size=1024, patch_size=16),
        "has 4,096 patches and 4 heads; please choose a checkpoint with at most 1,600 and 32",
    ),
    "many heads": (config_with("vision_config", num_attention_heads=64, hidden_size=64), "and 64 heads"),
    "heads": (config_with("vision_config", num_attention_heads=5), "does not describe a model"),
    "channels": (config_with("vision_config", num_channels=4), '"num_channels" a value out of bounds'),
    "activation": (config_with("vision_config", hidden_act="xielu"), '"hidden_act" a value out of bounds'),
    "400 digits": (config_with("vision_config", layer_norm_eps=10**400), '"layer_norm_eps" a value out of bounds'),
    "negative layers": (config_with("vision_config", num_hidden_layers=-1), "out of bounds"),
    # preprocessor_config.json
    "no preprocessor": (lambda f: (f / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
    "large preprocessor": (pictures_with(image_processor_type="x" * 200_000), "is larger than 0.1 MB"),
    "preprocessor is a list": (
        lambda f: (f / "preprocessor_config.json").write_bytes(b"[]"),
        "preprocessor_config.json of llava is not a JSON object",
    ),
    "unknown step": (pictures_with(do_surprise=True), 'an unknown key "do_surprise"'),
    "two means": (pictures_with(image_mean=[0.5, 0.5]), MEAN),
    "one mean": (pictures_with(image_mean=0.5), MEAN),
    "no mean": (no_mean, MEAN),
    "mean is text": (pictures_with(image_mean=["0.5"] * 3), MEAN),
    "mean in 255ths": (pictures_with(image_mean=[123.7, 116.3, 103.5]), MEAN),
    "mean is true": (pictures_with(image_mean=[True, True, True]), MEAN),
    "mean of 400 digits": (pictures_with(image_mean=[10**400] * 3), MEAN),
    "mean is infinite": (infinite_mean, MEAN),
    "perhaps a crop": (pictures_with(do_center_crop="x"), '"do_center_crop" a value'),
    "mean is NaN": (bare_nan, "preprocessor_config.json of llava is not valid JSON"),
    "std of four": (pictures_with(image_std=[0.5] * 4), '"image_std" a value'),
    "std of nothing": (pictures_with(image_std=[0.0, 0.5, 0.5]), '"image_std" a value'),
    "no normalizing": (pictures_with(do_normalize=False), '"do_normalize" a value'),
    "no rescaling": (pictures_with(do_rescale=False), '"do_rescale" a value'),
    "padding": (pictures_with(do_pad=True), '"do_pad" a value'),
    "rescaled to -1 to 1": (pictures_with(rescale_factor=1 / 127.5), '"rescale_factor" a value'),
    "rescaled by text": (pictures_with(rescale_factor="1/255"), '"rescale_factor" a value'),
    "filter": (pictures_with(resample=17), '"resample" a value'),
    "filter is a list": (pictures_with(resample=[3]), '"resample" a value'),
    "no sides": (pictures_with(size={}, do_center_crop=False), SIDES),
    "longest side": (pictures_with(size={"longest_edge": 28}), SIDES),
    "size is true": (pictures_with(size=True), SIDES),
    "size of 10**6": (pictures_with(size={"shortest_edge": 10**6}), SIDES),
    "not a square": (pictures_with(crop_size={"height": 28, "width": 14}), '"crop_size" a value'),
    "crop larger than the picture": (pictures_with(size={"shortest_edge": 20}), '"crop_size" a value'),
    "no crop": (pictures_with(crop_size=None), '"crop_size" a value'),
    "another size": (pictures_with(size={"shortest_edge": 42}, crop_size=42), "makes pictures of 42 pixels"),
    "smaller size": (pictures_with(size=14, crop_size=14), "makes pictures of 14 pixels"),
    # weights
    "wrong shape": (config_with("vision_config", intermediate_size=50), "has another shape or type"),
    "wrong shape in the header": (header_with(lambda h: h[PATCH].update(shape=[32, 3, 7, 28])), "another shape"),
    "another patch": (config_with("vision_config", patch_size=7), "has another shape or type"),
    "more layers": (config_with("vision_config", num_hidden_layers=4), "lacks the tensor"),
    "fewer layers": (config_with("vision_config", num_hidden_layers=2), "has no place for"),
    "missing tensor": (tensors_with(lambda t: t.pop(PATCH)), "lacks the tensor"),
    "one too many": (tensors_with(lambda t: t.update({"<b>": torch.zeros(1)})), 'a tensor "_b_" that its config'),
    "two names": (
        tensors_with(lambda t: t.update({f"model.{PATCH}": t[PATCH].clone()})),
        "has no place for",
    ),
    "NaN": (tensors_with(lambda t: t[PATCH].fill_(torch.nan)), "has weights that are no numbers"),
}
REFUSED_WHOLE = {  # of LLaVA as a whole
    "picture beyond the vocabulary": (
        config_with(image_token_index=300),
        "marks pictures with the id 300, but its vocabulary has 300 entries",
    ),
    "negative picture": (config_with(image_token_index=-1), "marks pictures with the id -1"),
    "several layers": (config_with(vision_feature_layer=[-2, -1]), "from several layers"),
    "layer beyond the last": (config_with(vision_feature_layer=4), "or from one that its encoder has not"),
    "layer before the first": (config_with(vision_feature_layer=-5), "or from one that its encoder has not"),
    "layer is true": (config_with(vision_feature_layer=True), "does not describe a model"),
    "[CLS] in the prompt": (config_with(vision_feature_select_strategy="full"), "[CLS] token to its language model"),
    "another strategy": (config_with(vision_feature_select_strategy="x"), "does not describe a model"),
    "projector": (config_with(projector_hidden_act="xielu"), '"projector_hidden_act" a value out of bounds'),
    "text shapes": (config_with("text_config", hidden_size=48), "has another shape or type"),
    "absurd vocabulary": (config_with("text_config", vocab_size=2**40), '"vocab_size" a value out of bounds'),
    "rope": (config_with("text_config", rope_parameters={"rope_type": "dynamic"}), "is not supported"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "space before the first text only": (first_text_only, "treats the text before a picture in another way"),
    "NaN in the text": (
        tensors_with(lambda t: t["language_model.model.norm.weight"].fill_(torch.nan)),
        "has weights that are no numbers",
    ),
    "a language model": (config_with(model_type="llama"), 'is a model of the type "llama"; please choose one of the'),
    "another class": (config_with(architectures=["LlavaModel"]), "is not saved as LlavaForConditionalGeneration"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(copy, case):
    spoil, reason = REFUSED[case]
    folder = copy("llava")
    spoil(folder)
    for load in (load_vision_transformer, load_vision_language_model):
        with pytest.raises(UserError) as caught:
            load(folder)
        assert reason in one_sentence(caught)


@pytest.mark.parametrize("case", REFUSED_WHOLE)
def test_refused_as_a_whole(copy, case):
    spoil, reason = REFUSED_WHOLE[case]
    folder = copy("llava")
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_vision_language_model(folder)
    assert reason in one_sentence(caught)


REFUSED_ENCODERS = {
    "a text model": ("clip", config_with(model_type="clip_text_model"), 'is a model of the type "clip_text_model"'),
    "code in the text part": ("clip", config_with("text_config", **CODE), 'run its own code ("auto_map"'),
    "private key in the text part": ("clip", config_with("text_config", **KERNEL), "private to the library"),
    "text shapes are not looked at, its keys are": ("clip", config_with("text_config", x=1), "clip_text_model has not"),
    "a classifier": ("dinov2", config_with(architectures=["Dinov2ForImageClassification"]), "not saved as Dinov2Model"),
    "gated feed-forward": ("dinov2", config_with(use_swiglu_ffn=True), '"use_swiglu_ffn" a value out of bounds'),
    "absurd ratio": ("dinov2", config_with(mlp_ratio=10**6), '"mlp_ratio" a value out of bounds'),
    "registers": ("registers", config_with(num_register_tokens=4), "has another shape or type"),
    "absurd registers": ("registers", config_with(num_register_tokens=10**6), "out of bounds"),
    "no registers": ("registers", config_with(num_register_tokens=None), "does not describe a model"),
    "list of sizes": ("dinov2", config_with(image_size=[56, 56]), '"image_size" a value out of bounds'),
    "pictures larger than in training": ("dinov2", pictures_with(size=84, crop_size=84), "makes pictures of 84 pixels"),
    "a margin": ("dinov2", pictures_with(size=32, crop_size=32), "makes pictures of 32 pixels"),
    "NaN on the way": ("dinov2", config_with(layer_norm_eps=-1e9), "gives no numbers"),
}


@pytest.mark.parametrize("case", REFUSED_ENCODERS)
def test_refused_encoders(copy, case):
    name, spoil, reason = REFUSED_ENCODERS[case]
    folder = copy(name)
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_vision_transformer(folder)
    assert reason in one_sentence(caught)


def test_a_language_model_is_no_encoder_and_the_other_way_round(toys):
    for load in (models.load_folder, load_vision_language_model):
        with pytest.raises(UserError) as caught:
            load(toys["dinov2"])
        assert 'dinov2 is a model of the type "dinov2"; please choose one of the types ' in one_sentence(caught)


# --- names


def test_names_of_a_kind():
    for kind in ("vit", "vlm"):
        assert models.OFFERED[kind] == ("shapes-vlm",)
        assert models.check_name("shapes-vlm", kind) == "shapes-vlm"
        assert models.check_name("owner/name", kind) == "hub:owner/name"
        assert controls.Model("Model", kind=kind).check("shapes-vlm") == "shapes-vlm"
        with pytest.raises(UserError, match="please choose one of shapes-vlm or hub:owner/name"):
            models.check_name("tinylm", kind)
    with pytest.raises(UserError, match="please choose one of tinylm, bytelm or hub:owner/name"):
        models.causal_lm("shapes-vlm")


# --- the Hub


@pytest.fixture
def hub(monkeypatch, tmp_path, toys):
    pages = as_pages("owner/dinov2", toys["dinov2"]) | as_pages("owner/llava", toys["llava"])
    pages |= as_pages("owner/large", toys["clip"], model__safetensors=700_000_000)
    pages |= as_pages("owner/seven", toys["llava"], config__json=json.dumps(LLAVA_7B).encode())
    pages |= as_pages("owner/odd", toys["clip"], preprocessor_config__json=preprocessor(image_mean=[0.5]))
    pages |= as_pages("owner/bare", toys["clip"])
    del pages["owner/bare", "preprocessor_config.json"]
    with hub_server.serving(monkeypatch, tmp_path, pages) as served:
        yield served


def got(hub):
    return {name for command, name, _ in hub.seen if command == "GET"}


def test_encoder_from_the_hub(hub, toys):
    encoder = vision_transformer("owner/dinov2")
    assert encoder.name == "hub:owner/dinov2"
    same_encoder(encoder, load_vision_transformer(toys["dinov2"]).torch)
    assert got(hub) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert hub.authorizations == {None}
    assert vision_transformer("hub:owner/dinov2") is encoder


def test_llava_from_the_hub(hub, toys):
    model = vision_language_model("hub:owner/llava")
    ids, pixels = torch.tensor([picture_ids(model)]), model.vision.pixels(squares(28, 1))
    expected = load_vision_language_model(toys["llava"]).torch(input_ids=ids, pixel_values=pixels).logits
    assert torch.equal(model.torch(input_ids=ids, pixel_values=pixels).logits, expected)
    assert got(hub) == {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"}
    encoder = vision_transformer("hub:owner/llava")  # another kind, another slot
    assert encoder.torch is not model.vision.torch
    assert list(models._slots) == ["vlm:hub:owner/llava", "vit:hub:owner/llava"]
    vision_transformer("hub:owner/dinov2")  # limits.MODELS of all kinds together
    assert list(models._slots) == ["vit:hub:owner/llava", "vit:hub:owner/dinov2"]


@pytest.mark.parametrize(
    ("repo", "reason", "read"),
    [
        ("owner/large", "of at most 620 MB, which runs without a GPU", {"config.json"}),
        ("owner/seven", "has 304 million parameters", {"config.json"}),
        ("owner/odd", '"image_mean" a value', {"config.json", "preprocessor_config.json"}),
        ("owner/bare", "has no preprocessor_config.json", {"config.json"}),
        ("owner/missing", "There is no public repository", set()),
    ],
)
def test_hub_trouble_before_any_weights(hub, repo, reason, read):
    with pytest.raises(UserError) as caught:
        vision_transformer(f"hub:{repo}")
    assert reason in one_sentence(caught)
    assert got(hub) == read


def test_bundled_model_is_shared_and_hands_out_its_encoder(toys, monkeypatch):
    whole = load_vision_language_model(toys["llava"])
    calls = []
    monkeypatch.setattr("tokenlab.pruning.vlm.load_bundled", lambda: calls.append(1) or whole, raising=False)
    monkeypatch.setattr(models, "_slots", type(models._slots)())
    assert vision_transformer("shapes-vlm") is whole.vision
    assert vision_language_model("shapes-vlm") is whole
    assert calls == [1]
