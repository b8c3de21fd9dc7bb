"""codec: the audio codecs that ship with TokenLab, made by recipes/codec.py.

    codec = load("rvq8")                          # or its single-codebook twin "vq1"
    ids = codec.encode(wave)                      # (T,) float32 at 24 kHz -> (8, F) int64, 75 frames a second
    wave = codec.decode(ids[:3], samples=len(wave))   # sound again, of its first three levels

Tokens stand for log-mel frames: a context encoder adds to each frame what its neighbours say of it, a residual
quantiser (Zeghidour et al. 2021, SoundStream) turns it into `levels` ids, and a context decoder makes frames of the
entries. Sound comes from the frames by Griffin-Lim, so the phase is invented, not sent. `Codec` runs the ONNX graphs;
its `torch` is the network itself, a `MelCodec`. In assets/models/codec stand config.json, <name>.safetensors
(float16), and <name>.encode.onnx and <name>.decode.onnx, whose weights are those of the safetensors file:

    encode: frames (B, F, 100) float32 -> ids (B, L, F) int64, z (B, F, 100): the vectors before they are quantised
    decode: ids (B, L, F) int64, -1 for a level that is left out -> frames (B, F, 100) float32
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenlab.audio import mel
from tokenlab.audio.tokenizer import fit
from tokenlab.codebooks.quantizers import QuantOut, make_quantizer
from tokenlab.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

NAMES = ("rvq8", "vq1")
FOLDER = Path(__file__).parents[2] / "assets" / "models" / "codec"
CONFIG, HELD_OUT = "config.json", "held_out.json"
REACH = 3  # frames to each side that one convolution sees


@dataclass(frozen=True)
class Config:
    """sizes: entries of each codebook. width: of the two context networks; encoder, decoder: their ConvNeXt blocks,
    0: no network at all. attention: one head over all frames in the middle of the decoder (Ji et al. 2024).
    stride: frames that share a token, side by side."""

    sizes: tuple[int, ...] = (1024,) * 8
    width: int = 192
    encoder: int = 3
    decoder: int = 5
    attention: bool = False
    stride: int = 1


class MelCodec(nn.Module):
    """The network on frames. B: batch, F: frames, L: levels.

    `settings` are the quantiser's, for training."""

    def __init__(self, config: Config, **settings):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(mel.BANDS))  # of a band
        self.register_buffer("scale", torch.ones(()))  # of all of them
        self.encoder = Context(config.width, config.encoder) if config.encoder else None
        self.decoder = Context(config.width, config.decoder, config.attention) if config.decoder else None
        kind, dim = "vq" if len(config.sizes) == 1 else "rvq", mel.BANDS * config.stride
        if kind == "vq":
            settings = {"code_dim": dim, "cosine": False, **settings}
        self.quantizer = make_quantizer(kind, dim, config.sizes, **settings)

    @property
    def reach(self) -> int | None:
        """Frames to each side that matter for one decoded frame; None: all of them."""
        if self.config.attention:
            return None
        return REACH * (1 + self.config.decoder) if self.config.decoder else 0

    def vectors(self, frames: Tensor) -> Tensor:
        """(B, F / stride, 100 * stride) of log-mel frames (B, F, 100): what the quantiser gets."""
        x = (frames - self.mean) / self.scale
        return self.joined(x if self.encoder is None else x + self.encoder(x))

    def frames(self, zq: Tensor) -> Tensor:
        """Log-mel frames (B, F, 100) of quantised vectors (B, F / stride, 100 * stride)."""
        x = self.parted(zq)
        x = x if self.decoder is None else x + self.decoder(x)
        return x * self.scale + self.mean

    def joined(self, x: Tensor) -> Tensor:
        """(B, F, 100) -> (B, F / stride, 100 * stride): the frames of a token side by side."""
        return x if self.config.stride == 1 else x.unflatten(1, (-1, self.config.stride)).flatten(2)

    def parted(self, x: Tensor) -> Tensor:
        """What `joined` was given."""
        return x if self.config.stride == 1 else x.unflatten(2, (self.config.stride, -1)).flatten(1, 2)

    def forward(self, frames: Tensor) -> tuple[Tensor, QuantOut]:
        """Frames again, and what the quantiser gave: for training."""
        out = self.quantizer(self.vectors(frames))
        return self.frames(out.zq), out

    def encode(self, frames: Tensor) -> Tensor:
        """ids (B, L, F / stride) of frames (B, F, 100)."""
        return self.quantizer(self.vectors(frames)).ids.transpose(1, 2)

    def decode(self, ids: Tensor) -> Tensor:
        """Frames (B, F, 100) of ids (B, L, F / stride); -1: the level is left out."""
        return self.frames(self.quantizer.lookup(ids.transpose(1, 2)))


class Context(nn.Module):
    """What neighbouring frames say of each frame: ConvNeXt blocks between two projections, (B, F, 100) both ways.

    The last projection begins at zero, so that training begins with nothing but the quantiser."""

    def __init__(self, width: int, blocks: int, attention: bool = False):
        super().__init__()
        self.first = nn.Conv1d(mel.BANDS, width, 2 * REACH + 1, padding=REACH)
        made: list[nn.Module] = [Block(width) for _ in range(blocks)]
        if attention:
            made.insert(blocks // 2, Attention(width))
        self.blocks = nn.Sequential(*made)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, mel.BANDS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.transpose(1, 2)).transpose(1, 2)
        return self.last(self.norm(self.blocks(h)))


class Block(nn.Module):
    """ConvNeXt (Liu et al. 2022) over time: a depthwise convolution, then an MLP of three times the width."""

    def __init__(self, width: int):
        super().__init__()
        self.near = nn.Conv1d(width, width, 2 * REACH + 1, padding=REACH, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x.transpose(1, 2)).transpose(1, 2)
        return x + self.down(F.gelu(self.up(self.norm(near))))


class Attention(nn.Module):
    """One head over all frames, without positions (Ji et al. 2024, WavTokenizer, decoder)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x))[:, None].chunk(3, -1)  # (B, 1, F, width), as ONNX wants it
        return x + self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])


# --- sound in, sound out


class Codec:
    """A codec of this file on waves at 24 kHz. Threads may share it.

    folder: where its files lie; backend "onnx" runs the graphs, "torch" the network. steps: of Griffin-Lim."""

    sample_rate = mel.RATE

    def __init__(self, name: str, folder: Path = FOLDER, backend: str = "onnx", steps: int = 32):
        self.name, self.folder, self.backend, self.steps = name, Path(folder), backend, steps
        found = configs(self.folder)
        if name not in found:
            raise UserError(f"There is no codec of that name here; please choose one of {', '.join(found)}.")
        self.config = found[name]
        self.sizes = self.config.sizes
        self.frame_rate, self.hop = mel.FRAME_RATE / self.config.stride, mel.HOP * self.config.stride

    @cached_property
    def torch(self) -> MelCodec:
        """The network, float32, evaluation mode, on the CPU."""
        from safetensors.torch import load_file

        model = MelCodec(self.config)
        stored = load_file(self.folder / f"{self.name}.safetensors")
        model.load_state_dict({**model.state_dict(), **{key: tensor.float() for key, tensor in stored.items()}})
        return model.eval().requires_grad_(False)

    def codebook(self, level: int = 0) -> np.ndarray:
        """(K, 100 * stride) float32 entries of a level's codebook."""
        return self.torch.quantizer.codebook(level).numpy()

    def encode(self, wave: np.ndarray) -> np.ndarray:
        """ids (L, F) int64 of a wave (T,), F = T / hop rounded up."""
        return self.encode_frames(mel.log_mel(wave))

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        """ids (L, F / stride) of log-mel frames (F, 100); a last token that is not full repeats the last frame."""
        if missing := -len(frames) % self.config.stride:
            frames = np.pad(frames, ((0, missing), (0, 0)), mode="edge")
        if self.backend == "onnx":
            return self._graph("encode").run(["ids"], {"frames": frames[None]})[0][0]
        with torch.inference_mode():
            return self.torch.encode(torch.from_numpy(frames)[None])[0].numpy()

    def frames(self, ids: np.ndarray) -> np.ndarray:
        """Log-mel frames (F * stride, 100) of ids (L', F), L' <= L; -1: a level that is left out in that frame."""
        ids = self._filled(ids)
        if self.backend == "onnx":
            return self._graph("decode").run(None, {"ids": ids[None]})[0][0]
        with torch.inference_mode():
            return self.torch.decode(torch.from_numpy(ids)[None])[0].numpy()

    def stream(self, ids: np.ndarray, chunk: int = 75) -> Iterator[np.ndarray]:
        """The same frames as `frames`, `chunk` at a time, each from its own ids and the few around them that it can
        see: what a receiver does while tokens still come in. ValueError: the decoder looks at all frames."""
        stride = self.config.stride
        if self.torch.reach is None:
            raise ValueError("this decoder attends to all frames")
        reach = -(-self.torch.reach // stride)
        for start in range(0, ids.shape[1], chunk):
            before = max(0, start - reach)
            frames = self.frames(ids[:, before : start + chunk + reach])
            yield frames[stride * (start - before) : stride * (start - before + chunk)]

    def decode(self, ids: np.ndarray, samples: int | None = None, seed: int = 0) -> np.ndarray:
        """The wave (T,) of ids (L', F); the same seed gives the same phases."""
        return fit(mel.MelSynth(self.steps, seed).wave(self.frames(ids)), samples)

    def _filled(self, ids: np.ndarray) -> np.ndarray:
        ids = np.asarray(ids, np.int64)
        return np.pad(ids, ((0, len(self.sizes) - len(ids)), (0, 0)), constant_values=-1)

    def _graph(self, part: str) -> onnxruntime.InferenceSession:
        from tokenlab.models import onnx

        return onnx.session(self.folder, f"{self.name}.{part}.onnx", f"{self.name}.safetensors")

    @lru_cache(maxsize=1)  # noqa: B019, codecs live as long as the process
    def held_out(self) -> HeldOut:
        """How the codes are used by speakers that training has not heard; measured when the codec was made."""
        stored = json.loads((self.folder / HELD_OUT).read_text("utf-8"))
        return HeldOut(stored["seconds"], tuple(np.array(counts) for counts in stored["counts"][self.name]))


@dataclass(frozen=True)
class HeldOut:
    """seconds: of sound; counts: for each level (K,) how often each code came up."""

    seconds: float
    counts: tuple[np.ndarray, ...]

    @property
    def counted(self) -> int:
        """Tokens of one level."""
        return int(self.counts[0].sum())


@lru_cache(maxsize=8)
def load(name: str, backend: str = "onnx") -> Codec:
    """The codec that ships under this name, one of NAMES; shared. UserError: no such name, or not there."""
    return Codec(name, backend=backend)


def configs(folder: Path = FOLDER) -> dict[str, Config]:
    """The codecs in `folder` by name. UserError: there are none."""
    try:
        stored = json.loads((folder / CONFIG).read_text("utf-8"))["models"]
    except FileNotFoundError:
        raise UserError("The codec is not there; please make it with recipes/codec.py.") from None
    return {name: Config(**values | {"sizes": tuple(values["sizes"])}) for name, values in stored.items()}


def save(models: dict[str, MelCodec], folder: Path = FOLDER) -> None:
    """Write config.json and <name>.safetensors (float16) of trained models; other models in config.json stay."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    known = configs(folder) if (folder / CONFIG).exists() else {}
    shapes = {name: asdict(config) for name, config in {**known, **{n: m.config for n, m in models.items()}}.items()}
    (folder / CONFIG).write_text(json.dumps({"model_type": "mel-codec", "models": shapes}, indent=1) + "\n", "utf-8")
    for name, model in models.items():
        state = {key: t.half().contiguous() for key, t in model.state_dict().items() if not key.endswith(_TRAINING)}
        save_file(state, folder / f"{name}.safetensors", metadata={"format": "pt"})


_TRAINING = ("embed_avg", "cluster_size", "initted")  # averages that only training needs


def export(folder: Path = FOLDER) -> Path:
    """Write the two graphs of every codec in `folder` beside its weights; gives the folder."""
    from tokenlab.models import onnx

    for name in configs(folder):
        model = Codec(name, folder, "torch").torch
        # Sizes above 1 and unlike each other, because torch.export takes 0 and 1 for constants.
        batch, length = (torch.export.Dim(side, min=1, max=65_536) for side in ("batch", "frames"))
        stride = model.config.stride
        frames = torch.zeros(2, 40 * stride, mel.BANDS)
        ids = torch.zeros(2, len(model.config.sizes), 40, dtype=torch.int64)
        for part, module, example, dims, outputs in (
            ("encode", Encode(model), {"frames": frames}, {0: batch, 1: stride * length}, ["ids", "z"]),
            ("decode", Decode(model), {"ids": ids}, {0: batch, 2: length}, ["frames"]),
        ):
            onnx.export_module(
                module.eval(), example, outputs, (dims,), folder / f"{name}.{part}.onnx", folder / f"{name}.safetensors"
            )
    return folder


class Encode(nn.Module):
    """The graph "encode"."""

    def __init__(self, model: MelCodec):
        super().__init__()
        self.model, self.frozen = model, model.quantizer.frozen()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        z = self.model.vectors(frames)
        return self.frozen.assign(self.frozen.down(z)).transpose(1, 2), z


class Decode(nn.Module):
    """The graph "decode"."""

    def __init__(self, model: MelCodec):
        super().__init__()
        self.model, self.frozen = model, model.quantizer.frozen()

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.frames(self.frozen.lookup(ids.transpose(1, 2)))
