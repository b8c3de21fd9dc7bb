"""Audio codecs of the Hub as an AudioTokenizer, one small adapter for each architecture of transformers.

    tokenizer = codec("hub:facebook/encodec_24khz")      # or "rvq8", "vq1", which ship with TokenLab
    ids = tokenizer.encode(wave)                         # (T,) float32 -> (32, F) int64
    wave = tokenizer.decode(ids[:8], samples=len(wave))  # sound again, of its first 8 levels

Checkpoints load from the Hub with the checks of intake.py, as causal language models do:

| model_type | published checkpoints | levels, frames a second |
| --- | --- | --- |
| encodec (Défossez et al. 2022) | facebook/encodec_24khz | 32, 75 |
| dac (Kumar et al. 2023) | descript/dac_16khz, dac_24khz, dac_44khz | 12, 50; 32, 75; 9, 86.1 |
| mimi (Défossez et al. 2024) | kyutai/mimi | 32, 12.5 |
| xcodec (Ye et al. 2024) | hf-audio/xcodec-hubert-librispeech and its sisters | 8, 50 |

facebook/encodec_48khz is refused: it codes stereo in chunks of a second, each with a loudness that is no token.

Every one of them adds up vectors, one of each level (residual vector quantization), so a level that is left out adds
nothing. A clip has ceil(T / hop) frames; what a codec gives beyond -1 and 1 is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tokenlab import guard, models
from tokenlab.audio.tokenizer import AudioTokenizer, fit
from tokenlab.errors import UserError
from tokenlab.models import intake

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

KIND = "audio-codec"


def codec(name: str) -> AudioTokenizer:
    """The codec that `name` means: "rvq8", "vq1" or "hub:owner/name".

    Kept and shared as by models.causal_lm. UserError: malformed, off-line, not found, refused (intake), still being
    downloaded."""
    name = models.check_name(name, KIND)
    key = f"{KIND}:{name}"
    if name in models.AUDIO_CODECS:
        from tokenlab.audio.codec import load

        return models.shared(key, lambda: load(name))
    return models.shared(key, lambda: models.from_hub(key, name, KIND, _open))


def load_codec(folder: str | Path) -> HubCodec:
    """A checkpoint on this machine, with the checks of intake.py; named after its folder. UserError: one failed."""
    folder = Path(folder)
    return _open(folder.name, intake.read_folder(folder, folder.name, KIND))


class HubCodec:
    """An AudioTokenizer around a codec of transformers, float32 on the CPU; many threads may share it.

    torch: EncodecModel, DacModel, MimiModel or XcodecModel. hop: samples that a frame stands for. Its subclasses say
    how their class goes from samples to ids, from ids to the sum of their vectors, and from there to samples."""

    def __init__(self, name: str, model: PreTrainedModel):
        shape = intake.codec_shape(model.config)
        self.name, self.torch, self.hop = name, model, shape.hop
        self.sample_rate = shape.rate
        self.frame_rate = shape.rate / shape.hop
        self.sizes = (shape.size,) * shape.levels

    def encode(self, wave: np.ndarray) -> np.ndarray:
        """ids (L, ceil(T / hop)) int64 of a wave (T,). ValueError: it is not one channel."""
        import torch

        if wave.ndim != 1:
            raise ValueError(f"a wave has the shape (T,), not {wave.shape}")
        if not len(wave):
            return np.zeros((len(self.sizes), 0), np.int64)
        samples = torch.from_numpy(np.array(wave, np.float32))
        with torch.inference_mode():
            return self._codes(samples[None, None])[0].numpy()

    def decode(self, ids: np.ndarray, samples: int | None = None) -> np.ndarray:
        """The wave (T,) float32 of ids (L', F), -1 where a level is left out; cut or filled with silence to `samples`.

        ValueError: no levels or too many, or ids that no codebook has."""
        import torch

        if ids.ndim != 2 or not 1 <= len(ids) <= len(self.sizes):
            raise ValueError(f"ids of {self.name} have the shape (1 to {len(self.sizes)}, F), not {ids.shape}")
        if not ids.shape[1]:
            return fit(np.zeros(0, np.float32), samples)
        if ids.min() < -1 or ids.max() >= self.sizes[0]:
            raise ValueError(f"ids of {self.name} go from -1 to {self.sizes[0] - 1}, not {ids.min()} to {ids.max()}")
        with torch.inference_mode():
            wave = self._wave(self._vectors(torch.from_numpy(np.array(ids, np.int64))[:, None]))
        return fit(wave.flatten().clamp(-1, 1).numpy(), samples)

    def _codes(self, samples: torch.Tensor) -> torch.Tensor:
        """(1, 1, T) -> (1, L, F)."""
        raise NotImplementedError

    def _vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """(L', 1, F) -> (1, D, F)."""
        raise NotImplementedError

    def _wave(self, vectors: torch.Tensor) -> torch.Tensor:
        """(1, D, F) -> T samples in any shape."""
        raise NotImplementedError

    def _whole_frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Silence at the end, as the checkpoint's own processor adds it where the model leaves out what is over."""
        import torch

        return torch.nn.functional.pad(samples, (0, -samples.shape[-1] % self.hop))


def _sum(lookups: Iterable[Callable[[torch.Tensor], torch.Tensor]], ids: torch.Tensor) -> torch.Tensor:
    """The vectors (1, D, F) of ids (L', 1, F), added up; where an id is -1 its level adds nothing.

    lookups: ids (1, F) -> vectors (1, D, F), one for each level, or more of them than there are levels."""
    total = 0.0
    for lookup, level in zip(lookups, ids, strict=False):
        total = total + lookup(level.clamp(min=0)) * (level >= 0)[:, None]
    return total


class Encodec(HubCodec):
    def _codes(self, samples: torch.Tensor) -> torch.Tensor:
        return self.torch.encode(samples, bandwidth=self.torch.config.target_bandwidths[-1]).audio_codes[0]

    def _vectors(self, ids: torch.Tensor) -> torch.Tensor:
        return _sum([layer.decode for layer in self.torch.quantizer.layers], ids)

    def _wave(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.torch.decoder(vectors)


class Dac(HubCodec):
    def _codes(self, samples: torch.Tensor) -> torch.Tensor:
        return self.torch.encode(self._whole_frames(samples)).audio_codes

    def _vectors(self, ids: torch.Tensor) -> torch.Tensor:
        def lookup(level: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda ids: level.out_proj(level.codebook(ids).transpose(1, 2))

        return _sum([lookup(level) for level in self.torch.quantizer.quantizers], ids)

    def _wave(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.torch.decoder(vectors)


class Mimi(HubCodec):
    def _codes(self, samples: torch.Tensor) -> torch.Tensor:
        return self.torch.encode(samples).audio_codes

    def _vectors(self, ids: torch.Tensor) -> torch.Tensor:
        quantizer = self.torch.quantizer
        semantic, acoustic = quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer
        split = quantizer.num_semantic_quantizers
        vectors = self._half(semantic, ids[:split])
        return vectors + self._half(acoustic, ids[split:]) if len(ids) > split else vectors

    @staticmethod
    def _half(quantizer: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """The levels of one half, projected together; the projection has no bias, so nothing stays nothing."""
        vectors = _sum([layer.decode for layer in quantizer.layers], ids)
        return vectors if quantizer.output_proj is None else quantizer.output_proj(vectors)

    def _wave(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.torch.decoder(vectors).audio_values


class Xcodec(HubCodec):
    def _codes(self, samples: torch.Tensor) -> torch.Tensor:
        try:
            return self.torch.encode(self._whole_frames(samples)).audio_codes
        finally:  # a cache of the class, which would keep the model in memory for ever
            type(self.torch)._get_conv1d_layers.cache_clear()

    def _vectors(self, ids: torch.Tensor) -> torch.Tensor:
        return _sum([level.decode for level in self.torch.quantizer.quantizers], ids)

    def _wave(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.torch.acoustic_decoder(self.torch.fc2(vectors.transpose(1, 2)).transpose(1, 2))


ADAPTERS = {"encodec": Encodec, "dac": Dac, "mimi": Mimi, "xcodec": Xcodec}


def _open(name: str, found: intake.Files) -> HubCodec:
    label = name.removeprefix("hub:")
    settings = intake.check_config(found.config, label, KIND)
    kind = settings["model_type"]
    model, _ = intake.build(settings, label, KIND)
    located = intake.check_weights(found.weights, model, label, intake.ARCHITECTURES[KIND][kind])
    tokenizer = ADAPTERS[kind](name, intake.load_codec(model, located, label))
    _try(tokenizer, label)
    for module in tokenizer.torch.modules():
        if not any(module.children()):
            module.register_forward_pre_hook(lambda *_: guard.check_time())
    return tokenizer


def _try(tokenizer: HubCodec, name: str) -> None:
    """UserError: the codec cannot code a little noise and decode it again."""
    import torch

    wave = np.random.default_rng(0).normal(0, 0.1, 12 * tokenizer.hop - 1).astype(np.float32)
    try:
        ids = tokenizer.encode(wave)
        with torch.inference_mode():
            decoded = tokenizer._wave(tokenizer._vectors(torch.from_numpy(ids)[:, None]))
    except Exception as error:  # whatever the library raises on settings that do not fit together
        raise UserError(f"{name} cannot run: its settings do not fit together; please choose another.") from error
    if ids.shape != (len(tokenizer.sizes), 12):
        raise UserError(
            f"{name} has {ids.shape[1]:,} frames of {ids.shape[0]:,} levels where its settings say 12 of "
            f"{len(tokenizer.sizes):,}; please choose another."
        )
    if not bool(torch.isfinite(decoded).all()):
        raise UserError(f"{name} gives no numbers (NaN or infinity) when it is tried; please choose another.")
