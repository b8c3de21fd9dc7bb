"""The registry of token reduction: what the workbench compares. To add a method, add one line to METHODS.

Tokens are really removed (tokenlab.pruning.reduction); nothing is masked or simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenlab.pruning.reduction import TokenReduction


@dataclass(frozen=True)
class Method:
    """A row of a comparison. sentence: what it keeps; unit: of the scores it ranks by, if it does;
    source: module and class in this folder, imported when it is first made, because that brings torch."""

    name: str
    sentence: str
    source: str
    unit: str = ""

    def make(self) -> TokenReduction:
        """The method itself, with its own defaults."""
        module, _, made = self.source.partition(":")
        return getattr(import_module(f"tokenlab.pruning.{module}"), made)()


FULL = Method("full", "keeps every patch; what all others are compared with", "reduction:TokenReduction")
RANDOM = Method("random", "a random choice of patches", "baselines:Random")
UNIFORM = Method("uniform grid", "patches evenly spread over the picture", "baselines:UniformGrid")
FASTV = Method(
    "FastV",
    "what the question's last token looks at in layer 1 of the language model, kept from layer 2 on",
    "baselines:FastV",
    "of the attention",
)
FASTERVLM = Method(
    "FasterVLM",
    "what the image encoder's [CLS] looks at, kept before the language model",
    "cls_attention:FasterVLM",
    "of the attention",
)
# Bounds, for measurements where the truth is known.
NO_PICTURE = Method("no picture", "the question alone: what can be guessed without looking", "baselines:NoPicture")
ORACLE = Method("oracle", "the patches that the question is about first, which no method can know", "baselines:Oracle")

METHODS = (
    FULL,
    RANDOM,
    UNIFORM,
    FASTV,
    FASTERVLM,
)
ALWAYS = (FULL.name, RANDOM.name)  # in every comparison, whatever is chosen


def names() -> tuple[str, ...]:
    """What a user can choose; full and random come with any choice."""
    return tuple(method.name for method in METHODS if method.name not in ALWAYS)


def chosen(some: Sequence[str]) -> tuple[Method, ...]:
    """The methods called so, and those of ALWAYS, in the order of the registry."""
    return tuple(method for method in METHODS if method.name in (*ALWAYS, *some))
