"""Where an image encoder looks: [CLS] to patches in every head and layer, attention rollout, and the patches' norms.

seen = look(vision, pictures.square(image, vision.size))
attention_view(seen, image), norm_view(seen, image)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenlab import pictures
from tokenlab.views import PatchMap, PatchMaps

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionTransformer


@dataclass(frozen=True)
class Seen:
    """What one picture gave in an encoder of L layers, H heads and N patches.

    cls: (L, H, N), softmax of the [CLS] query on the patches; what is left to 1 falls on [CLS] and registers.
    rolled: (L, N), rollout from [CLS] through the layers 0 to l. norms: (L + 1, N), Euclidean length of the patch
    features, of the embedding first, then behind each layer."""

    cls: np.ndarray
    rolled: np.ndarray
    norms: np.ndarray
    grid: int


def look(vision: VisionTransformer, image: np.ndarray) -> Seen:
    """One forward. image: (size, size, 3) uint8, the encoder's own size."""
    import torch

    with torch.no_grad():
        out = vision.torch(vision.pixels(image[None]), output_attentions=True, output_hidden_states=True)
    attention = torch.stack([layer[0] for layer in out.attentions]).numpy()  # (L, H, 1 + N, 1 + N)
    hidden = torch.stack([layer[0] for layer in out.hidden_states]).numpy()  # (L + 1, 1 + N, d)
    patches = slice(vision.prefix, None)
    return Seen(
        attention[:, :, 0, patches],
        rollout(attention)[:, 0, patches],
        np.linalg.norm(hidden[:, patches], axis=-1),
        vision.grid,
    )


def rollout(attention: np.ndarray) -> np.ndarray:
    """Attention rollout (Abnar and Zuidema 2020, section 3): A_l ... A_0 with A = (mean of the heads + identity) / 2.

    attention: (L, H, T, T), rows sum to 1 -> (L, T, T), the product up to each layer; rows sum to 1."""
    rolled, found = np.eye(attention.shape[-1]), []
    for layer in attention.astype(np.float64).mean(1):
        rolled = (layer + np.eye(len(layer))) / 2 @ rolled
        found.append(rolled)
    return np.stack(found)


def attention_view(seen: Seen, image: np.ndarray, note: str = "", things: Sequence[int] = ()) -> PatchMaps:
    """A line per layer: its heads, their mean, the rollout up to it. things: patches that show something, if known.

    The last layer but one is large at first, by its mean: its output is what LLaVA-type models project."""
    layers, heads = seen.cls.shape[:2]
    maps = tuple(
        (
            *(
                patch_map(f"head {h}", seen.cls[k, h], seen.grid, attention_facts(seen.cls[k, h], things))
                for h in range(heads)
            ),
            patch_map("mean", seen.cls[k].mean(0), seen.grid, attention_facts(seen.cls[k].mean(0), things)),
            patch_map("rollout", seen.rolled[k], seen.grid, attention_facts(seen.rolled[k], things)),
        )
        for k in range(layers)
    )
    return PatchMaps(
        title="Where [CLS] looks",
        note=note,
        png=pictures.png(image),
        grid=(seen.grid, seen.grid),
        lines=tuple(f"layer {k}" for k in range(layers)),
        maps=maps,
        chosen=(max(0, layers - 2), heads),
        unit="of the attention",
    )


def norm_view(seen: Seen, image: np.ndarray, note: str = "") -> PatchMaps:
    """How much longer every patch's feature is than the shortest, of the input and behind each layer.

    The difference, because all are far from 0: as lengths, the maps of an encoder without outliers would be plain."""
    names = ("input", *(f"layer {k}" for k in range(len(seen.norms) - 1)))
    maps = tuple(
        patch_map(
            name,
            norms - norms.min(),
            seen.grid,
            {
                "shortest": float(norms.min()),
                "median": float(np.median(norms)),
                "longest": float(norms.max()),
                "longest / median": float(norms.max() / np.median(norms)),
            },
        )
        for name, norms in zip(names, seen.norms, strict=True)
    )
    return PatchMaps(
        title="How long the patch features are",
        note=note,
        png=pictures.png(image),
        grid=(seen.grid, seen.grid),
        lines=("norm",),
        maps=(maps,),
        chosen=(0, len(names) - 1),
        unit="above the shortest",
    )


def patch_map(name: str, weights: np.ndarray, grid: int, facts: dict[str, Any]) -> PatchMap:
    """weights: (grid * grid,), none negative -> a map with its grey picture."""
    most = float(weights.max())
    grey = np.sqrt(weights / most) if most > 0 else np.zeros(len(weights))
    return PatchMap(
        name=name,
        png=pictures.png(np.rint(255 * grey).astype(np.uint8).reshape(grid, grid)),
        most=most,
        facts=facts,
    )


def attention_facts(weights: np.ndarray, things: Sequence[int] = ()) -> dict[str, Any]:
    """weights: (N,) of [CLS] on the patches -> how much there is, how spread it is, how much falls on `things`."""
    total = float(weights.sum())
    share = weights / total
    known = share[share > 0]
    top = max(1, len(share) // 10)
    facts = {
        "on patches [%]": round(100 * total, 1),
        "entropy [bits]": round(float(-(known * np.log2(known)).sum()), 2),
        "strongest tenth [%]": round(100 * float(np.sort(share)[-top:].sum()), 1),
    }
    if things:
        facts["drawn things [%]"] = round(100 * float(share[list(things)].sum()), 1)
    return facts
