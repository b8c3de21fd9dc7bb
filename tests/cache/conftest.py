"""A tiny random Llama over bytes, for what holds for any model."""

import pytest
import torch
import transformers as hf

from tokenlab.models import LanguageModel
from tokenlab.text import sources


@pytest.fixture(autouse=True, scope="module")
def with_one_thread(one_thread):
    """All tests of the family."""


@pytest.fixture(scope="session")
def build():
    """build(vocabulary, context) -> a model of two layers with two KV heads of size 8; a token is a byte."""

    def make(vocabulary: int = 256, context: int = 1024) -> LanguageModel:
        torch.manual_seed(0)
        config = hf.LlamaConfig(
            vocab_size=vocabulary,
            max_position_embeddings=context,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=None,
        )
        model = hf.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2:  # as initialized, attention is so flat that evicting would hardly show
                    parameter.mul_(12 if "q_proj" in name or "k_proj" in name else 5)
        return LanguageModel("toy", model, sources.load("bytes"), (), frozenset(), context)

    return make


@pytest.fixture(scope="module")
def toy(build) -> LanguageModel:
    return build()
