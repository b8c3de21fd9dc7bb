"""A vision-language model small enough to be checked by hand or against transformers."""

import copy

import pytest
import torch

from tokenlab.pruning import vlm


def tiny(**text):
    """Random weights, three layers on each side; keyword arguments change the language model."""
    config = copy.deepcopy(vlm.CONFIG)
    config["vision_config"] |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    config["text_config"] |= {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        **text,
    }
    torch.manual_seed(0)
    model = vlm.new(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight *= 3  # so that attention is far from uniform
    return vlm.wrapped(model, vlm.tokenizer(), "shapes-vlm")


@pytest.fixture(scope="session")
def model():
    return tiny()
