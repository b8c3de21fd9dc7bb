"""vq-image: the tokenizers for photographs that ship with TokenLab, made by recipes/vq_image.py.

    tokenizer = load("vq")                       # or "fsq", "rvq": the same trunk, other codes, about as many bits
    ids = tokenizer.encode(image)                # (H, W, 3) uint8 -> (h, w, L) int64, a token for each 8 x 8 patch
    image = tokenizer.decode(ids, image.shape)   # and back

`PictureTokenizer` takes pictures and runs the ONNX graphs. Its `torch` is the network itself, a `VQImage`, for
whatever must reach inside. In assets/models/vq-image stand config.json, <name>.safetensors (float16), and
<name>.encode.onnx and <name>.decode.onnx, whose weights are those of the safetensors file:

    encode: pixels (B, 3, H, W) float32 in [0, 1], H and W multiples of 8 -> ids (B, h, w, L) int64, z (B, h, w, d)
    decode: ids (B, h, w, L) int64, -1 for a level that is left out -> pixels (B, 3, 8 h, 8 w) float32
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tokenlab.codebooks.blocks import ConvDecoder, ConvEncoder, VisualTokenizer
from tokenlab.codebooks.quantizers import QuantOut, TokenBatch, make_quantizer
from tokenlab.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

NAMES = ("vq", "fsq", "rvq")
FOLDER = Path(__file__).parents[2] / "assets" / "models" / "vq-image"
CONFIG, HELD_OUT = "config.json", "held_out.json"
TILE = 8  # pixels of a patch's side

# Photographs of scikit-image and scikit-learn by their names in tokenlab.pictures. recipes/vq_image.py trains on the
# former (and on some that are not in that list), and never on the latter.
SEEN = ("astronaut", "chelsea", "rocket", "motorcycle", "flower", "hubble_deep_field", "retina", "ihc")
UNSEEN = ("coffee", "china")


@dataclass(frozen=True)
class Config:
    """A tokenizer's shape. kind, sizes, code_dim, cosine: of its quantiser; z: channels between the trunk and it."""

    kind: str = "vq"
    sizes: tuple[int, ...] = (1024,)
    code_dim: int | None = 8
    cosine: bool = True
    base: int = 32
    mults: tuple[int, ...] = (1, 4, 8)
    z: int = 64
    blocks: tuple[int, ...] = (1, 1, 1)


class VQImage(VisualTokenizer):
    """Convolutional autoencoder with a quantiser in the middle, for pixels (B, 3, H, W) in [0, 1].

    No normalisation layers: they would make each token depend on the whole picture's contrast, and a picture of
    another size than the crops of training would look different to the network."""

    def __init__(self, config: Config, **settings):
        """settings: of the quantiser, for training."""
        super().__init__()
        self.config = config
        shape = dict(base=config.base, mults=config.mults, z=config.z, blocks=config.blocks, norm=False)
        self.encoder, self.decoder = ConvEncoder(3, **shape), ConvDecoder(3, **shape)
        if config.kind not in ("fsq", "lfq"):
            settings["code_dim"] = config.code_dim
        if config.kind in ("vq", "product"):
            settings["cosine"] = config.cosine
        self.quantizer = make_quantizer(config.kind, config.z, config.sizes, **settings)

    def vectors(self, x: Tensor) -> Tensor:
        """(B, h, w, z) of pixels (B, 3, H, W): what the quantiser gets."""
        return self.encoder(2 * x - 1).permute(0, 2, 3, 1)

    def encode(self, x: Tensor) -> tuple[TokenBatch, QuantOut]:
        """A grid of tokens, row by row, and what the quantiser gave."""
        z = self.vectors(x)
        out = self.quantizer(z.flatten(1, 2))
        return TokenBatch(out.ids, "grid", tuple(z.shape[1:3])), out

    def decode(
        self, tokens: Tensor | TokenBatch, keep: int | Tensor | None = None, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Pixels (B, 3, 8 h, 8 w), not clipped, of tokens or of vectors (B, N, z) with their grid's shape (h, w).

        keep: how many levels of a residual quantiser count."""
        if isinstance(tokens, TokenBatch):
            ids, shape = tokens.ids, tokens.shape
            if keep is not None:
                level = torch.arange(ids.shape[-1], device=ids.device)
                keep = torch.as_tensor(keep, device=ids.device).reshape(-1, 1, 1)
                ids = ids.masked_fill(level >= keep, -1)
            tokens = self.quantizer.lookup(ids)
        elif keep is not None:
            raise ValueError("levels can only be left out of tokens, not of vectors")
        return (self.decoder(tokens.unflatten(1, shape).permute(0, 3, 1, 2)) + 1) / 2

    def bits(self, tokens: TokenBatch) -> Tensor:
        per_book = torch.tensor([np.log2(size) for size in self.quantizer.sizes])
        return ((tokens.ids >= 0) * per_book).sum((1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, QuantOut]:
        """Pixels again, and what the quantiser gave: for training."""
        tokens, out = self.encode(x)
        return self.decode(out.zq, shape=tokens.shape), out


# --- pictures in, pictures out


class PictureTokenizer:
    """A tokenizer of this file on pictures (H, W, 3) uint8 of any size. Threads may share it.

    folder: where its files lie; backend "onnx" runs the graphs, "torch" the network."""

    def __init__(self, name: str, folder: Path = FOLDER, backend: str = "onnx"):
        self.name, self.folder, self.backend = name, Path(folder), backend
        found = configs(self.folder)
        if name not in found:
            raise UserError(f"vq-image has no such tokenizer; please choose one of {', '.join(found)}.")
        self.config = found[name]

    @cached_property
    def torch(self) -> VQImage:
        """The network, float32, evaluation mode, on the CPU."""
        from safetensors.torch import load_file

        model = VQImage(self.config)
        stored = load_file(self.folder / f"{self.name}.safetensors")
        model.load_state_dict({**model.state_dict(), **{key: tensor.float() for key, tensor in stored.items()}})
        return model.eval().requires_grad_(False)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each codebook, one for each level."""
        return self.torch.quantizer.sizes

    @property
    def bits_per_token(self) -> float:
        return self.torch.quantizer.bits_per_token

    def codebook(self, level: int = 0) -> np.ndarray:
        """(K, d) float32 entries of a level's codebook."""
        return self.torch.quantizer.codebook(level).numpy()

    def encode(self, image: np.ndarray) -> np.ndarray:
        """ids (h, w, L) int64 of a picture (H, W, 3) uint8, h = H / 8 rounded up; its edges are repeated to fill."""
        return self.vectors(image)[0]

    def vectors(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ids (h, w, L), and (h, w, d) what each token was before it was quantised: of the kind that `codebook`
        holds, so that the nearest entry is the first level's id."""
        pixels = padded(image)
        if self.backend == "onnx":
            ids, z = self._graph("encode").run(None, {"pixels": pixels})
            return ids[0], z[0]
        with torch.inference_mode():
            ids, z = Encode(self.torch)(torch.from_numpy(pixels))
        return ids[0].numpy(), z[0].numpy()

    def decode(self, ids: np.ndarray, shape: tuple[int, ...] | None = None, keep: int | None = None) -> np.ndarray:
        """The picture (H, W, 3) uint8 of ids (h, w, L). shape: (H, W, ...) of the original, to which it is cut;
        keep: how many levels count, None: all."""
        ids = np.asarray(ids, np.int64)
        if keep is not None:
            ids = np.where(np.arange(ids.shape[-1]) < keep, ids, -1)
        image = to_uint8(self._pixels(ids[None]))[0]
        return image if shape is None else image[: shape[0], : shape[1]]

    def _pixels(self, ids: np.ndarray) -> np.ndarray:
        """(B, h, w, L) -> (B, 3, 8 h, 8 w) float32."""
        if self.backend == "onnx":
            return self._graph("decode").run(None, {"ids": ids})[0]
        with torch.inference_mode():
            return Decode(self.torch)(torch.from_numpy(ids)).numpy()

    def _graph(self, part: str) -> onnxruntime.InferenceSession:
        from tokenlab.models import onnx

        return onnx.session(self.folder, f"{self.name}.{part}.onnx", f"{self.name}.safetensors")

    @lru_cache(maxsize=8)  # noqa: B019, tokenizers live as long as the process
    def tiles(self, level: int = 0) -> np.ndarray:
        """(K, 8, 8, 3) uint8: what each code of a level paints where all its neighbours are the same code and, in a
        residual quantiser, the other levels are left out."""
        ids = np.full((self.sizes[level], 3, 3, len(self.sizes)), -1, np.int64)
        ids[..., level] = np.arange(self.sizes[level])[:, None, None]
        parts = [self._pixels(part) for part in np.array_split(ids, max(1, len(ids) // 128))]
        return to_uint8(np.concatenate(parts)[:, :, TILE : 2 * TILE, TILE : 2 * TILE])

    @lru_cache(maxsize=1)  # noqa: B019
    def held_out(self) -> HeldOut:
        """How the codes are used on photographs that training has not seen; measured when the model was made."""
        stored = json.loads((self.folder / HELD_OUT).read_text("utf-8"))
        return HeldOut(tuple(stored["pictures"]), tuple(np.array(counts) for counts in stored["counts"][self.name]))

    def nearest(self, level: int = 0, codes: int = 4) -> tuple[np.ndarray, dict[int, tuple[int, ...]]]:
        """Patches of photographs whose vectors lie closest to each code among those that got this code.

        Gives patches (n, 8, 8, 3) uint8 and, for each code that came up, up to `codes` indices into them, closest
        first. The photographs are those of scikit-image and scikit-learn that training has seen; they are encoded
        at the first call, which takes a few seconds."""
        return _nearest(self, level, codes)


@dataclass(frozen=True)
class HeldOut:
    """pictures: their names; counts: for each level (K,) how often each code came up in all of them."""

    pictures: tuple[str, ...]
    counts: tuple[np.ndarray, ...]

    @property
    def counted(self) -> int:
        """Tokens in all pictures."""
        return int(self.counts[0].sum())


@lru_cache(maxsize=8)
def load(name: str, backend: str = "onnx") -> PictureTokenizer:
    """The tokenizer that ships under this name, one of NAMES; shared. UserError: no such name, or not there."""
    return PictureTokenizer(name, backend=backend)


def configs(folder: Path = FOLDER) -> dict[str, Config]:
    """The tokenizers in `folder` by name. UserError: there are none."""
    try:
        stored = json.loads((folder / CONFIG).read_text("utf-8"))["models"]
    except FileNotFoundError:
        raise UserError("vq-image is not there; please make it with recipes/vq_image.py.") from None
    tuples = ("sizes", "mults", "blocks")
    return {name: Config(**values | {key: tuple(values[key]) for key in tuples}) for name, values in stored.items()}


def padded(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (1, 3, H', W') float32 in [0, 1], sides rounded up to whole patches, edges repeated."""
    down, right = -image.shape[0] % TILE, -image.shape[1] % TILE
    filled = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
    return np.ascontiguousarray(filled.transpose(2, 0, 1)[None], np.float32) / 255


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """(B, 3, H, W) in [0, 1], clipped -> (B, H, W, 3) uint8."""
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


# --- patches of photographs


def photographs() -> dict[str, np.ndarray]:
    """name -> (H, W, 3) uint8: the photographs of scikit-image and scikit-learn that the models were trained on."""
    from tokenlab import pictures

    return {name: pictures.load(f"photo:{name}") for name in SEEN}


@lru_cache(maxsize=len(NAMES))
def _photograph_tokens(tokenizer: PictureTokenizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tokens of `photographs`: ids (n, L), vectors (n, d), patches (n, 8, 8, 3) uint8."""
    ids, vectors, patches = [], [], []
    for image in photographs().values():
        image = image[: len(image) // TILE * TILE, : image.shape[1] // TILE * TILE]  # no repeated edges
        code, z = tokenizer.vectors(image)
        ids.append(code.reshape(-1, code.shape[-1]))
        vectors.append(z.reshape(-1, z.shape[-1]))
        h, w = code.shape[:2]
        patches.append(image.reshape(h, TILE, w, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3))
    return np.concatenate(ids), np.concatenate(vectors), np.concatenate(patches)


@lru_cache(maxsize=8)
def _nearest(tokenizer: PictureTokenizer, level: int, codes: int) -> tuple[np.ndarray, dict[int, tuple[int, ...]]]:
    ids, rest, patches = _photograph_tokens(tokenizer)
    for before in range(level):  # what the earlier levels left over
        rest = rest - tokenizer.codebook(before)[ids[:, before]]
    distance = ((rest - tokenizer.codebook(level)[ids[:, level]]) ** 2).sum(-1)
    order = np.lexsort((distance, ids[:, level]))
    firsts = np.flatnonzero(np.diff(ids[order, level], prepend=-1))
    chosen, found = [], {}
    for start, end in zip(firsts, [*firsts[1:], len(order)], strict=True):
        members = order[start : min(end, start + codes)]
        found[int(ids[order[start], level])] = tuple(range(len(chosen), len(chosen) + len(members)))
        chosen += members.tolist()
    return patches[chosen], found


# --- export


class Encode(torch.nn.Module):
    """The graph "encode" of this file's docstring."""

    def __init__(self, model: VQImage):
        super().__init__()
        self.model, self.frozen = model, model.quantizer.frozen()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        z = self.model.vectors(pixels)
        ids = self.frozen.assign(self.frozen.down(z.flatten(1, 2)))
        return ids.unflatten(1, z.shape[1:3]), self.model.quantizer.compared(z)


class Decode(torch.nn.Module):
    """The graph "decode"."""

    def __init__(self, model: VQImage):
        super().__init__()
        self.decoder, self.frozen = model.decoder, model.quantizer.frozen()

    def forward(self, ids: Tensor) -> Tensor:
        return (self.decoder(self.frozen.lookup(ids).permute(0, 3, 1, 2)) + 1) / 2


def save(models: dict[str, VQImage], folder: Path = FOLDER) -> None:
    """Write config.json and <name>.safetensors (float16) of trained models."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: asdict(model.config) for name, model in models.items()}
    (folder / CONFIG).write_text(json.dumps({"model_type": "vq-image", "models": shapes}, indent=1) + "\n", "utf-8")
    for name, model in models.items():
        state = {key: t.half().contiguous() for key, t in model.state_dict().items() if not key.endswith(_TRAINING)}
        save_file(state, folder / f"{name}.safetensors", metadata={"format": "pt"})


_TRAINING = ("embed_avg", "cluster_size", "initted")  # averages that only training needs


def export(folder: Path = FOLDER) -> Path:
    """Write the two graphs of every tokenizer in `folder` beside its weights; gives the folder."""
    from tokenlab.models import onnx

    for name in configs(folder):
        model = PictureTokenizer(name, folder).torch
        # Sizes above 1 and unlike each other, because torch.export takes 0 and 1 for constants.
        batch, height, width = (torch.export.Dim(side, min=1, max=4096) for side in ("batch", "height", "width"))
        pixels, ids = torch.zeros(2, 3, 24, 40), torch.zeros(2, 3, 5, len(model.quantizer.sizes), dtype=torch.int64)
        for part, module, example, dims, outputs in (
            ("encode", Encode(model), {"pixels": pixels}, {0: batch, 2: TILE * height, 3: TILE * width}, ["ids", "z"]),
            ("decode", Decode(model), {"ids": ids}, {0: batch, 1: height, 2: width}, ["pixels"]),
        ):
            onnx.export_module(
                module.eval(), example, outputs, (dims,), folder / f"{name}.{part}.onnx", folder / f"{name}.safetensors"
            )
    return folder
