"""Checkpoints: honest ones load as transformers itself loads them, hostile ones give one sentence; ONNX is torch.

Every checkpoint here is built from a config of the real class, with random weights, and saved by transformers.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from tokenizers import models as library
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests import hub_server
from tests.hub_server import as_pages
from tokenlab import limits, models
from tokenlab.errors import UserError
from tokenlab.models import intake, onnx
from tokenlab.text.sandbox import SandboxedTokenizer

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX links or pipes")

SIZE = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
WIDE = dict(SIZE, intermediate_size=48)
IDS = dict(bos_token_id=None, eos_token_id=59, pad_token_id=None)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
CONFIGS = {
    "llama": LlamaConfig(**WIDE, **IDS, num_key_value_heads=2),
    "llama3": LlamaConfig(**WIDE, **IDS, rope_parameters=LLAMA3),
    "yarn": LlamaConfig(**WIDE, **IDS, rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0)),
    "mistral": MistralConfig(**WIDE, **IDS, num_key_value_heads=2, sliding_window=16),
    "qwen2": Qwen2Config(**WIDE, **IDS, num_key_value_heads=2),
    "qwen3": Qwen3Config(**WIDE, **IDS, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=59, eos_token_id=59),
    "gpt_neox": GPTNeoXConfig(**WIDE, **IDS),
}


def tokenizer_json(entries=40, **parts):
    """a, b, ab, then filler entries up to `entries`."""
    vocab = {"a": 0, "b": 1, "ab": 2} | {f"<{i}>": i for i in range(3, entries)}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model, **parts}).encode()


def save(folder, config, tokenizer=None, **options):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).half().save_pretrained(folder, **options)
    (folder / "tokenizer.json").write_bytes(tokenizer or tokenizer_json())
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """One saved checkpoint for each of CONFIGS."""
    folder = tmp_path_factory.mktemp("toys")
    return {name: save(folder / name, config) for name, config in CONFIGS.items()}


@pytest.fixture
def toy(toys, tmp_path):
    """A Llama checkpoint that the test may spoil."""
    return Path(shutil.copytree(toys["llama"], tmp_path / "toy"))


def one_sentence(caught):
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 300
    assert not set("<>") & set(message)
    return message


# --- honest checkpoints


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_the_library(toys, name):
    model = models.load_folder(toys[name])
    stock = AutoModelForCausalLM.from_pretrained(toys[name], dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(0, 60, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        out = model.torch(ids, output_attentions=True)
        torch.testing.assert_close(out.logits, stock(ids).logits, rtol=0, atol=0)
    assert model.parameters == stock.num_parameters()
    assert [tuple(weights.shape) for weights in out.attentions] == [(2, 4, 12, 12)] * 2
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, 4, 12))
    assert model.end == {59}
    assert not model.torch.training
    assert not any(weight.requires_grad for weight in model.torch.parameters())
    assert not any(tensor.is_meta for tensor in (*model.torch.parameters(), *model.torch.buffers()))


def test_a_sliding_window_bounds_the_context(toys):
    # So the window never bites, and full attention over the context is the model itself.
    model = models.load_folder(toys["mistral"])
    assert model.context == 16
    assert model.torch(torch.zeros(1, 20, dtype=torch.int64)).past_key_values.layers[0].keys.shape == (1, 2, 20, 8)
    assert models.load_folder(toys["llama"]).context == 64


def test_loading_leaves_the_random_numbers_alone(toys):
    before = torch.random.get_rng_state()
    models.load_folder(toys["llama"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tied_weights_are_one_tensor(toys):
    model = models.load_folder(toys["gpt2"]).torch
    assert model.lm_head.weight is model.transformer.wte.weight


def renamed(folder, rename, extra):
    """The folder with its tensors renamed and others added, as older versions of the library saved them."""
    tensors = {rename(key): tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors | extra, folder / "model.safetensors")
    return folder


def test_gpt2_as_on_the_hub(toys, tmp_path):
    folder = shutil.copytree(toys["gpt2"], tmp_path / "old")
    mask = {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    renamed(folder, lambda key: key.removeprefix("transformer."), mask)
    ids = torch.arange(5)[None]
    assert torch.equal(models.load_folder(folder).torch(ids).logits, models.load_folder(toys["gpt2"]).torch(ids).logits)


def test_pythia_as_on_the_hub(toys, tmp_path):
    folder = shutil.copytree(toys["gpt_neox"], tmp_path / "old")
    mask = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool)}
    mask["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(1)
    renamed(folder, lambda key: key.replace("lm_head.", "embed_out."), mask)
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    old = {"rotary_emb_base": rope["rope_theta"], "rotary_pct": rope["partial_rotary_factor"], "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config | old | {"_name_or_path": "x"}))
    ids = torch.arange(5)[None]
    expected = models.load_folder(toys["gpt_neox"]).torch(ids).logits
    assert torch.equal(models.load_folder(folder).torch(ids).logits, expected)


def test_shards(toys, tmp_path):
    folder = save(tmp_path / "shards", CONFIGS["llama"], max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    ids = torch.arange(5)[None]
    logits = models.load_folder(folder).torch(ids).logits
    assert torch.equal(logits, models.load_folder(toys["llama"]).torch(ids).logits)


GPT2 = dict(
    activation_function="gelu_new", architectures=["GPT2LMHeadModel"], attn_pdrop=0.1, bos_token_id=50256,
    embd_pdrop=0.1, eos_token_id=50256, initializer_range=0.02, layer_norm_epsilon=1e-05, model_type="gpt2",
    n_ctx=1024, n_embd=768, n_head=12, n_layer=12, n_positions=1024, resid_pdrop=0.1, summary_activation=None,
    summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index", summary_use_proj=True,
    task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}}, vocab_size=50257,
)  # fmt: skip
PYTHIA_70M = dict(
    architectures=["GPTNeoXForCausalLM"], bos_token_id=0, eos_token_id=0, hidden_act="gelu", hidden_size=512,
    initializer_range=0.02, intermediate_size=2048, layer_norm_eps=1e-05, max_position_embeddings=2048,
    model_type="gpt_neox", num_attention_heads=8, num_hidden_layers=6, rotary_emb_base=10000, rotary_pct=0.25,
    tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.24.0", use_cache=True,
    use_parallel_residual=True, vocab_size=50304,
)  # fmt: skip
SMOLLM2_135M = dict(
    architectures=["LlamaForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=0, eos_token_id=0,
    hidden_act="silu", hidden_size=576, initializer_range=0.041666666666666664, intermediate_size=1536,
    is_llama_config=True, max_position_embeddings=8192, model_type="llama", num_attention_heads=9,
    num_hidden_layers=30, num_key_value_heads=3, pretraining_tp=1, rms_norm_eps=1e-05, rope_interleaved=False,
    rope_scaling=None, rope_theta=100000, tie_word_embeddings=True, torch_dtype="bfloat16",
    transformers_version="4.40.1", use_cache=True, vocab_size=49152,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "parameters", "context"),
    [(GPT2, 124_439_808, 1024), (PYTHIA_70M, 70_426_624, 2048), (SMOLLM2_135M, 134_515_008, 2048)],
    ids=["gpt2", "pythia-70m", "smollm2-135m"],
)
def test_published_configs_pass_and_give_the_published_number_of_parameters(config, parameters, context):
    model, found = intake.build(intake.check_config(json.dumps(config).encode(), "x"), "x")
    assert model.num_parameters() == parameters
    assert found == context


# --- prompts


def test_prompt(toys):
    model = models.load_folder(toys["llama"])
    prompt = model.prompt("aab")
    assert prompt.ids.tolist() == [0, 2]
    assert prompt.tokens.starts.tolist() == [0, 1]
    assert (prompt.dropped, prompt.note) == (0, None)


def test_special_tokens_in_a_prompt_stay_text(toys, tmp_path):
    special = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    data = tokenizer_json(5, added_tokens=[{"id": 5, "content": "abb", **special}])
    folder = save(tmp_path / "special", CONFIGS["llama"], data)
    assert models.load_folder(folder).prompt("abb").ids.tolist() == [2, 1]


def test_long_prompt_says_what_is_left_out(toys):
    model = models.load_folder(toys["llama"])
    prompt = model.prompt("b" * 10 + "a" * 60, new_tokens=10)
    assert prompt.ids.tolist() == [0] * 54
    assert prompt.tokens.starts[0] == 16
    assert prompt.dropped == 16
    assert prompt.note == (
        "The prompt has 70 tokens, and llama has room for 54 of them here: the first 16 are left out."
    )


def test_opening_is_what_the_checkpoints_own_tokenizer_puts_first(tmp_path):
    own = Tokenizer(library.BPE(vocab={"a": 0, "b": 1, "ab": 2, "[S]": 3, "[E]": 4}, merges=[("a", "b")]))
    own.add_special_tokens(["[S]", "[E]"])
    own.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing("[S] $A [E]", special_tokens=[("[S]", 3), ("[E]", 4)]),
        ]
    )
    model = models.load_folder(save(tmp_path / "bos", CONFIGS["llama"], own.to_str().encode()))
    assert own.encode("aab").ids == [3, 0, 2, 4]
    assert model.prompt("aab").ids.tolist() == [3, 0, 2]
    assert model.prompt("").ids.tolist() == [3]
    assert len(model.prompt("a" * 100).ids) == model.context


@pytest.mark.parametrize(
    ("text", "new_tokens", "reason"),
    [("", 0, "is empty"), ("a", 64, "ask for fewer than 64 new ones"), ("\ud800", 0, "half a character")],
)
def test_bad_prompts(toys, text, new_tokens, reason):
    with pytest.raises(UserError) as caught:
        models.load_folder(toys["llama"]).prompt(text, new_tokens)
    assert reason in one_sentence(caught)


# --- hostile checkpoints


def config_with(**changes):
    def spoil(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def file_with(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def tensors_with(change):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return spoil


def header_with(change):
    """Rewrite the header; the data stay."""

    def spoil(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        change(header)
        new = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :])

    return spoil


def pickle_only(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")


def weights_cut(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])


def link(name):
    def spoil(folder):
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return spoil


def overlap(header):
    entries = [entry for key, entry in header.items() if key.endswith("q_proj.weight")]
    entries[1]["data_offsets"] = entries[0]["data_offsets"]


def index(**weight_map):
    def spoil(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def bpe(**parts):
    return file_with("tokenizer.json", tokenizer_json(**parts))


NORM = "model.norm.weight"
ATTN = "_attn_implementation_internal"
REFUSED = {
    # code
    "auto_map": (config_with(auto_map={"AutoModelForCausalLM": "m.py--M"}), 'run its own code ("auto_map"'),
    "trust_remote_code": (config_with(trust_remote_code=True), "run its own code"),
    "CVE-2026-4372": (config_with(**{ATTN: "owner/kernel"}), "private to the library"),
    "experts": (config_with(_experts_implementation_internal="x/y"), "private to the library"),
    "attention from elsewhere": (config_with(attn_implementation="owner/kernel"), "that llama has not"),
    "quantized": (config_with(quantization_config={"quant_method": "x"}), "is quantized"),
    "per layer": (config_with(per_layer_config={}), "out of bounds"),
    "pickle": (pickle_only, "only Python pickles"),
    # config.json
    "type": (config_with(model_type="<img src=x>"), 'is a model of the type "_img_src_x_"'),
    "type is a list": (config_with(model_type=["llama"]), "is a model of the type"),
    "no type": (file_with("config.json", b"{}"), "is a model of the type"),
    "a list": (file_with("config.json", b"[]"), "is not a JSON object"),
    "not UTF-8": (file_with("config.json", b'{"\xff": 1}'), "is not UTF-8"),
    "cut": (file_with("config.json", b'{"model_type": "lla'), "is not valid JSON"),
    "deep": (file_with("config.json", b"[" * 90_000), "is not valid JSON"),
    "twice": (file_with("config.json", b'{"model_type": "llama", "model_type": "gpt2"}'), "names something twice"),
    "NaN": (file_with("config.json", b'{"model_type": "llama", "rms_norm_eps": NaN}'), "is not valid JSON"),
    "digits": (file_with("config.json", b'{"model_type": "llama", "vocab_size": ' + b"9" * 9000 + b"}"), "valid JSON"),
    "large config": (file_with("config.json", b" " * 200_000), "is larger than 0.1 MB"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "unknown key": (config_with(surprise=1), 'a key "surprise" that llama has not'),
    "key of another type": (config_with(n_embd=32), 'a key "n_embd" that llama has not'),
    "a classifier": (config_with(architectures=["LlamaForSequenceClassification"]), "is not saved as LlamaForCausalLM"),
    "negative": (config_with(num_hidden_layers=-1), '"num_hidden_layers" a value out of bounds'),
    "text for a number": (config_with(hidden_size="32"), '"hidden_size" a value out of bounds'),
    "true for a number": (config_with(vocab_size=True), '"vocab_size" a value out of bounds'),
    "absurd vocabulary": (config_with(vocab_size=2**40), '"vocab_size" a value out of bounds'),
    "absurd layers": (config_with(num_hidden_layers=10**6), '"num_hidden_layers" a value out of bounds'),
    "7 billion": (
        config_with(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, vocab_size=32000),
        "million parameters; please choose a model of at most 200 million",
    ),
    "activation": (config_with(hidden_act="xielu"), '"hidden_act" a value out of bounds'),
    "activation is a list": (config_with(hidden_act=["silu"]), '"hidden_act" a value out of bounds'),
    "heads": (config_with(num_attention_heads=5), "does not describe a model"),
    "key and value heads": (config_with(num_key_value_heads=3), "does not describe a model"),
    "null": (config_with(hidden_size=None), "does not describe a model"),
    "rope": (config_with(rope_parameters={"rope_type": "dynamic", "factor": 2.0}), "is not supported"),
    "rope type is a list": (config_with(rope_parameters={"rope_type": []}), "out of bounds"),
    "rope is a number": (config_with(rope_parameters=1), "out of bounds"),
    "rope of a million": (config_with(rope_parameters={"partial_rotary_factor": 1e9}), "out of bounds"),
    "rope key": (config_with(rope_parameters={"rope_type": "default", "surprise": 1}), "out of bounds"),
    "half a rope": (config_with(rope_parameters={"rope_type": "llama3"}), "does not describe a model"),
    # weights
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
    "cut short": (weights_cut, "is cut short"),
    "no bytes": (file_with("model.safetensors", b""), "is cut short"),
    "1 GB header": (file_with("model.safetensors", struct.pack("<Q", 10**9) + b"{}"), "is cut short"),
    "header of 2**63": (file_with("model.safetensors", b"\xff" * 100), "is cut short"),
    "pickle by another name": (file_with("model.safetensors", b"\x80\x04K\x01." + b" " * 99), "is cut short"),
    "header is a list": (file_with("model.safetensors", struct.pack("<Q", 2) + b"[]"), "is not a JSON object"),
    "offsets": (header_with(lambda h: h[NORM].update(data_offsets=[0, 2**62])), "is cut short"),
    "overlap": (header_with(overlap), "is cut short"),
    "negative shape": (header_with(lambda h: h[NORM].update(shape=[-32])), "is cut short"),
    "absurd shape": (header_with(lambda h: h[NORM].update(shape=[2**50])), "is cut short"),
    "deep shape": (header_with(lambda h: h[NORM].update(shape=[1] * 100 + [32])), "is cut short"),
    "dtype": (header_with(lambda h: h[NORM].update(dtype="F8_E4M3")), "is cut short"),
    "dtype is a list": (header_with(lambda h: h[NORM].update(dtype=[])), "is cut short"),
    "bare entry": (header_with(lambda h: h.update({NORM: 1})), "is cut short"),
    "integers": (header_with(lambda h: h[NORM].update(dtype="I16")), "has another shape or type"),
    "wrong shape": (config_with(intermediate_size=50), "has another shape or type"),
    "fewer layers": (config_with(num_hidden_layers=1), "has no place for"),
    "more layers": (config_with(num_hidden_layers=3), 'lacks the tensor "model.layers.2.'),
    "missing tensor": (tensors_with(lambda t: t.pop(NORM)), 'lacks the tensor "model.norm.weight"'),
    "one too many": (tensors_with(lambda t: t.update({"<b>": torch.zeros(1)})), 'a tensor "_b_" that its config'),
    "two names": (tensors_with(lambda t: t.update({"norm.weight": torch.zeros(32)})), "has no place for"),
    "NaN weights": (tensors_with(lambda t: t[NORM].fill_(torch.nan)), "has weights that are no numbers"),
    "one infinity": (tensors_with(lambda t: t[NORM][3:4].fill_(torch.inf)), "has weights that are no numbers"),
    "not tied": (config_with(tie_word_embeddings=True), "holds two different ones"),
    "NaN on the way": (config_with(rms_norm_eps=-1e9), "gives no numbers"),
    "shard elsewhere": (index(x="../../etc/passwd"), "files that are no shards"),
    "shard is a list": (index(x=["model-00001-of-00001.safetensors"]), "files that are no shards"),
    "17 shards": (index(**{str(i): f"model-{i:05}-of-00017.safetensors" for i in range(17)}), "more than 16 files"),
    "no such shard": (index(x="model-00001-of-00001.safetensors"), "has no model-00001-of-00001.safetensors"),
    "empty index": (index(), "has no weight_map"),
    # tokenizer.json
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "more tokens than the model": (bpe(entries=61), "has ids up to 60, but the model only has 60 entries"),
    "tokenizer not UTF-8": (file_with("tokenizer.json", b'{"\xff": 1}'), "is not UTF-8"),
    "tokenizer deep": (file_with("tokenizer.json", b"[" * 10**6), "is not valid JSON"),
    "tokenizer of nothing": (file_with("tokenizer.json", b"{}"), 'has no "model"'),
    "tokenizer that panics": (
        file_with(
            "tokenizer.json",
            tokenizer_json().replace(b'"type": "BPE"', b'"type": "BPE", "continuing_subword_prefix": "####"'),
        ),
        "made its library crash",
    ),
    "post-processor": (bpe(post_processor={"type": "TemplateProcessing", "single": [{}]}), "makes no sense"),
    "post-processor is text": (bpe(post_processor="x"), "makes no sense"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(toy, case):
    spoil, reason = REFUSED[case]
    spoil(toy)
    with pytest.raises(UserError) as caught:
        models.load_folder(toy)
    assert reason in one_sentence(caught)


@posix
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_links_are_refused(toy, name):
    link(name)(toy)
    with pytest.raises(UserError) as caught:
        models.load_folder(toy)
    assert f"{name} of toy is a link or no plain file" in one_sentence(caught)


@posix
def test_a_pipe_does_not_hold_us_up(toy):
    (toy / "tokenizer.json").unlink()
    os.mkfifo(toy / "tokenizer.json")
    with pytest.raises(UserError, match="is a link or no plain file"):
        models.load_folder(toy)


def test_sizes_are_added_up_before_anything_is_read(toy, monkeypatch):
    monkeypatch.setattr(limits, "WEIGHT_BYTES", 1_000)
    with pytest.raises(UserError) as caught:
        models.load_folder(toy)
    assert "have 0 MB" in one_sentence(caught)


def test_old_library_is_refused(toy, monkeypatch):
    monkeypatch.setattr(intake, "version", lambda package: "5.2.4")
    with pytest.raises(UserError, match="need transformers 5.3 or newer, not 5.2.4"):
        models.load_folder(toy)


def test_kernels_is_refused(toy, monkeypatch):
    monkeypatch.setattr(intake, "find_spec", lambda package: package)
    with pytest.raises(UserError, match="please uninstall it"):
        models.load_folder(toy)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_library_opens_every_header_that_passes(toys, tmp_path_factory, data):
    """Spoil up to three bytes of the header; safetensors' own parser is the oracle."""
    content = bytearray((toys["llama"] / "model.safetensors").read_bytes())
    end = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.sampled_from(b'019,:[]{}"FB \xff'))
    path = tmp_path_factory.getbasetemp() / "spoilt.safetensors"
    path.write_bytes(content)
    try:
        tensors = intake.read_header(path, "toy")
    except UserError:
        return
    with safe_open(path, framework="np") as file:
        assert {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()} == {
            key: stored.shape for key, stored in tensors.items()
        }


# --- the Hub


@pytest.fixture
def hub(monkeypatch, tmp_path, toys):
    llama = toys["llama"]
    code = json.dumps(json.loads((llama / "config.json").read_text()) | {"auto_map": {}}).encode()
    pages = as_pages("owner/slow", llama)
    for repo in ("good", "second", "third", "cached"):
        pages |= as_pages(f"owner/{repo}", toys["gpt2"])
    pages |= as_pages("owner/shards", save(tmp_path / "shards", CONFIGS["llama"], max_shard_size="20KB"))
    pages |= as_pages("owner/large", llama, model__safetensors=700_000_000)
    pages |= as_pages("owner/long", llama, tokenizer__json=30_000_000)
    pages |= as_pages("owner/code", llama, config__json=code)
    pages |= {("owner/pickle", "config.json"): pages["owner/slow", "config.json"]}
    pages |= {("owner/pickle", "pytorch_model.bin"): b"\x80"}
    pages |= {("owner/empty", "README.md"): b""}
    with hub_server.serving(monkeypatch, tmp_path, pages) as served:
        yield served


@pytest.fixture
def offline(monkeypatch, tmp_path):
    hub_server.point_at(monkeypatch, tmp_path)


def test_hub_checkpoint(hub, toys):
    model = models.causal_lm("hub:owner/good")
    assert model.name == "hub:owner/good"
    assert isinstance(model.tokenizer, SandboxedTokenizer)
    assert model.prompt("aab").ids.tolist() == [0, 2]
    ids = torch.arange(5)[None]
    assert torch.equal(model.torch(ids).logits, models.load_folder(toys["gpt2"]).torch(ids).logits)
    assert hub.authorizations == {None}
    assert [revision for _, _, revision in hub.seen] == ["main"] + ["0" * 40] * (len(hub.seen) - 1)
    assert {name for _, name, _ in hub.seen} == {"config.json", "model.safetensors", "tokenizer.json"}
    requests = len(hub.seen)
    assert models.causal_lm("owner/good") is model
    assert len(hub.seen) == requests


@pytest.mark.parametrize(
    ("repo", "reason"),
    [
        ("owner/missing", "There is no public repository owner/missing"),
        ("owner/gated", "owner/gated is gated"),
        ("owner/broken", "cannot send owner/broken now"),
        ("owner/empty", "owner/empty has no config.json"),
        ("owner/pickle", "has only Python pickles"),
        ("owner/large", "The weights of owner/large have 700 MB"),
        ("owner/long", "tokenizer.json of owner/long is larger than 20 MB"),
        ("owner/code", "owner/code wants to run its own code"),
    ],
)
def test_hub_trouble(hub, repo, reason):
    with pytest.raises(UserError) as caught:
        models.causal_lm(f"hub:{repo}")
    assert reason in one_sentence(caught)
    # Nothing was downloaded but config.json.
    assert {name for command, name, _ in hub.seen if command == "GET"} <= {"config.json"}


@pytest.mark.parametrize(
    "name", ["hub:owner", "hub:../x", "hub:a/b/c", "owner/..", "hub:owner/<b>", "bytes", "", "file:x"]
)
def test_malformed_names(hub, name):
    with pytest.raises(UserError) as caught:
        models.causal_lm(name)
    one_sentence(caught)
    assert not hub.seen


def test_hub_shards(hub, toys):
    ids = torch.arange(5)[None]
    logits = models.causal_lm("hub:owner/shards").torch(ids).logits
    assert torch.equal(logits, models.load_folder(toys["llama"]).torch(ids).logits)


def fill_cache(tmp_path, repo, folder):
    """A copy in the Hub cache, laid out as the client library does: links to blobs."""
    cache = tmp_path / "cache" / f"models--{repo.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, cache / "blobs")
    (cache / "snapshots" / ("0" * 40)).mkdir(parents=True)
    for path in (cache / "blobs").iterdir():
        (cache / "snapshots" / ("0" * 40) / path.name).symlink_to(path)


@posix
def test_hub_copy_in_the_cache_is_not_downloaded(hub, tmp_path, toys):
    fill_cache(tmp_path, "owner/cached", toys["gpt2"])
    assert models.causal_lm("hub:owner/cached").prompt("ab").ids.tolist() == [2]
    assert {command for command, _, _ in hub.seen} == {"HEAD"}


def test_hub_offline(offline):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        models.causal_lm("hub:owner/good")
    assert "cannot be reached, so owner/good cannot be loaded" in one_sentence(caught)
    assert time.monotonic() - started < limits.CONNECT_SECONDS


@posix
def test_hub_offline_with_a_copy_in_the_cache(offline, tmp_path, toys):
    fill_cache(tmp_path, "owner/cached", toys["gpt2"])
    assert models.causal_lm("hub:owner/cached").prompt("ab").ids.tolist() == [2]


def test_two_hub_models_stay_and_bundled_ones_always(hub, toys, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    shutil.copytree(toys["llama"], tmp_path / "tinylm")
    tiny = models.causal_lm("tinylm")
    first = models.causal_lm("hub:owner/good")
    for repo in ("owner/second", "owner/third"):
        models.causal_lm(f"hub:{repo}")
    assert list(models._slots) == ["tinylm", "hub:owner/second", "hub:owner/third"]
    assert models.causal_lm("tinylm") is tiny
    assert models.causal_lm("hub:owner/good") is not first


def test_threads_share_one_download(hub):
    found = []
    threads = [threading.Thread(target=lambda: found.append(models.causal_lm("hub:owner/good"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(model) for model in found}) == 1
    assert [name for command, name, _ in hub.seen if command == "GET"].count("model.safetensors") == 1


def test_slow_download_goes_on_in_the_background(hub, monkeypatch):
    monkeypatch.setattr(limits, "MODEL_SECONDS", 0.2)
    with pytest.raises(UserError, match="owner/slow is still being downloaded"):
        models.causal_lm("hub:owner/slow")
    hub.wait.set()
    deadline = time.monotonic() + 10
    while "hub:owner/slow" not in models._slots and time.monotonic() < deadline:
        time.sleep(0.05)
    requests = len(hub.seen)
    assert models.causal_lm("hub:owner/slow").vocabulary_size == 60
    assert len(hub.seen) == requests


# --- bundled models and ONNX


def test_listing(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    assert models.listing() == []
    shutil.copytree(toys["gpt2"], tmp_path / "toy")
    (row,) = models.listing()
    stock = sum(tensor.numel() for tensor in load_file(toys["gpt2"] / "model.safetensors").values())
    assert (row["name"], row["type"], row["parameters"], row["onnx"]) == ("toy", "gpt2", stock, False)
    assert row["bytes"] == sum(path.stat().st_size for path in toys["gpt2"].iterdir())
    json.dumps(row)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, toys):
    """The Llama toy (two query heads to a key-value head) as a bundled model with its graph."""
    folder = tmp_path_factory.mktemp("assets") / "toy"
    shutil.copytree(toys["llama"], folder)
    onnx.export(models.load_folder(folder), folder)
    return folder


def logits_of(folder, ids):
    with torch.inference_mode():
        return models.load_folder(folder).torch(torch.from_numpy(ids)).logits.numpy()


@pytest.mark.parametrize(("batch", "cuts"), [(1, [9]), (1, [1] * 9), (3, [4, 5]), (2, [1, 7, 1]), (1, [64])])
def test_graph_gives_the_logits_of_torch(exported, batch, cuts):
    ids = np.random.default_rng(0).integers(0, 60, (batch, sum(cuts)))
    graph, past, parts = onnx.session(exported), None, []
    for part in np.split(ids, np.cumsum(cuts)[:-1], axis=1):
        logits, past = onnx.step(graph, part, past)
        parts.append(logits)
    assert past[0].shape == (batch, 2, sum(cuts), 8)
    np.testing.assert_allclose(np.concatenate(parts, 1), logits_of(exported, ids), atol=1e-5)


def test_greedy_generation_is_that_of_torch(exported):
    ids = np.array([0, 2, 1])
    model = models.load_folder(exported).torch
    expected = model.generate(torch.from_numpy(ids)[None], max_new_tokens=20, do_sample=False, eos_token_id=None)
    found = list(onnx.generate(onnx.session(exported), ids, 20))
    assert found == expected[0, 3:].tolist()
    assert len(set(found)) > 1
    stop = found[-1]
    cut = found[: found.index(stop) + 1]
    assert list(onnx.generate(onnx.session(exported), ids, 20, end={stop})) == cut


def test_generation_stays_within_the_context(exported):
    with pytest.raises(UserError, match="3 tokens and 62 new ones do not fit into 64"):
        next(onnx.generate(onnx.session(exported), np.array([0, 2, 1]), 62))


def test_generate_takes_the_graph_when_there_is_one(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    shutil.copytree(exported, tmp_path / "tinylm")
    ids, asked = np.array([0, 2, 1]), []
    session = models.onnx_session
    monkeypatch.setattr(models, "onnx_session", lambda name: asked.append(name) or session(name))
    bundled = models.load_folder(tmp_path / "tinylm", trusted=True)
    found = list(models.generate(bundled, ids, 12))
    assert asked == ["tinylm"]
    (tmp_path / "tinylm" / "model.onnx").unlink()
    assert list(models.generate(bundled, ids, 12)) == found  # the same through torch
    assert asked == ["tinylm"]
    assert found == list(onnx.generate(onnx.session(exported), ids, 12, bundled.end))
    with pytest.raises(UserError, match="3 tokens and 62 new ones do not fit into 64"):
        next(models.generate(bundled, ids, 62))


def test_graph_holds_no_weights_and_no_paths(exported):
    data = (exported / "model.onnx").read_bytes()
    assert len(data) < (exported / "model.safetensors").stat().st_size
    assert b"model.safetensors" in data
    assert str(Path(torch.__file__).parent.parent).encode() not in data
    assert str(Path.cwd()).encode() not in data


def test_graph_of_other_weights_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "toy")
    tensors_with(lambda tensors: tensors[NORM].mul_(2))(folder)
    with pytest.raises(UserError) as caught:
        onnx.session(folder)
    assert "was made for other weights" in one_sentence(caught)
    with pytest.raises(UserError, match="toy holds other weights"):
        onnx.export(models.load_folder(exported), folder)


def test_session_of_a_bundled_model(exported, monkeypatch):
    monkeypatch.setattr(models, "FOLDER", exported.parent)
    graph = models.onnx_session("toy")
    assert graph is models.onnx_session("toy")
    assert graph.get_providers()[-1] == "CPUExecutionProvider"
    with pytest.raises(UserError) as caught:
        models.onnx_session("tinylm")
    assert "has no model.onnx" in one_sentence(caught)


def test_cuda_comes_first_where_there_is_a_driver(monkeypatch):
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnx, "_has_cuda_driver", lambda: True)
    assert onnx.providers() == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnx, "_has_cuda_driver", lambda: False)
    assert onnx.providers() == ["CPUExecutionProvider"]


def test_saved_weights_are_float16_only_if_nothing_is_lost(toys, tmp_path):
    model = models.load_folder(toys["qwen3"])
    onnx._save(model, tmp_path / "half.safetensors")
    stored = intake.check_weights((tmp_path / "half.safetensors",), model.torch, "toy")
    assert {place.dtype for place in stored.values()} == {"F16"}
    assert "lm_head.weight" not in stored
    model.torch.model.norm.weight[0] = 1 / 3
    onnx._save(model, tmp_path / "full.safetensors")
    stored = intake.check_weights((tmp_path / "full.safetensors",), model.torch, "toy")
    assert {place.dtype for place in stored.values()} == {"F32"}
