"""Models as predictors of the next byte: what all of them share, and those that read bytes anyway.

    model = OneTokenPerByte.of(causal_lm("bytelm"))
    state = model.start(b"Once upon a ti")       # reads a prefix
    p = model.next(state)                        # (257,) float64: 256 bytes, and the end of the text
    state = model.advance(state, ord("m"))       # the same prefix and one byte; the old state stays as it was

States are values: two continuations of one state do not disturb each other. The same three methods turn a
token-based model into a byte model in tokenlab.text.byte_probabilities (Phan et al. 2024).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tokenlab import guard
from tokenlab.errors import UserError

if TYPE_CHECKING:
    from tokenlab.models import LanguageModel

END = 256  # the end of the text, behind the 256 bytes
SYMBOLS = 257
GREEDY = 0.1  # temperatures below take the most likely symbol


class ByteModel(Protocol):
    """One model. `name` is what the page shows."""

    name: str

    def start(self, prefix: bytes, room: int = 0) -> Any:
        """The state behind `prefix`, with room for `room` more bytes; of a prefix that is too long, the end is read.

        UserError: the model cannot read this prefix."""

    def next(self, state: Any) -> np.ndarray:
        """(257,) float64, sums to 1: the probability of each byte, and at END that the text ends here."""

    def advance(self, state: Any, byte: int) -> Any:
        """The state one byte further. byte: 0..255. UserError: the model has no room for more."""


# --- what can be done with any of them


def sharpened(p: np.ndarray, temperature: float, top_p: float = 1.0) -> np.ndarray:
    """`p` (n,) with a temperature, then cut to the smallest set of likeliest symbols that holds `top_p` of the mass.

    What had no probability gets none. Below a temperature of 0.1 the most likely symbol takes all."""
    if temperature < GREEDY:
        return np.eye(len(p))[int(p.argmax())]
    hot = (p / p.max()) ** (1 / temperature)
    hot /= hot.sum()
    order = np.argsort(-hot, kind="stable")
    before = np.concatenate(([0.0], np.cumsum(hot[order])[:-1]))
    hot[order[before >= top_p]] = 0.0
    return hot / hot.sum()


def generate(
    model: ByteModel, state: Any, length: int, temperature: float, top_p: float, rng: np.random.Generator
) -> Iterator[int]:
    """Up to `length` sampled bytes, as they come; stops where the text ends. UserError: time is up, no room."""
    for _ in range(length):
        guard.check_time()
        symbol = int(rng.choice(SYMBOLS, p=sharpened(model.next(state), temperature, top_p)))
        if symbol == END:
            return
        yield symbol
        state = model.advance(state, symbol)


def likelihoods(model: ByteModel, state: Any, text: bytes) -> np.ndarray:
    """(len(text),) probability of each byte of `text` behind `state`, given those before it."""
    found = np.zeros(len(text))
    for k, byte in enumerate(text):
        guard.check_time()
        found[k] = model.next(state)[byte]
        if k + 1 < len(text):
            state = model.advance(state, byte)
    return found


# --- the network below


class Network:
    """A causal language model as one function of ids and what was read before, and nothing else.

    Through the ONNX graph when the model ships with one, else through torch. `past` is a value: keys and values per
    layer, (1, H, length, d), None before anything was read; `step` gives a new one."""

    def __init__(self, model: LanguageModel):
        from tokenlab import models
        from tokenlab.models import onnx

        self.context = model.context
        if models.has_onnx(model):
            graph = models.onnx_session(model.name)
            self._run = lambda ids, past: onnx.step(graph, ids, past)
            self._repeat = lambda tensor, rows: np.repeat(tensor, rows, axis=0)
        else:
            self._run = lambda ids, past: _torch_step(model.torch, ids, past)
            self._repeat = lambda tensor, rows: tensor.expand(rows, -1, -1, -1)

    def step(self, ids: np.ndarray, past: Any = None) -> tuple[np.ndarray, Any]:
        """ids (B, n) int64 -> logits (B, n, |V|), and the past of the B rows."""
        if past is not None and len(ids) > 1:
            past = [self._repeat(tensor, len(ids)) for tensor in past]
        return self._run(ids, past)

    def read(self, ids: Sequence[int], past: Any = None) -> tuple[np.ndarray, Any]:
        """ids (n,), n > 0 -> (|V|,) float64 log-probabilities of what follows, and the past behind them."""
        logits, past = self.step(np.array([ids], np.int64), past)
        return log_softmax(logits[0, -1]), past

    def after(self, rows: Sequence[Sequence[int]], past: Any) -> np.ndarray:
        """(B, |V|) float64 log-probabilities of what follows each of the rows of ids, none empty, behind `past`."""
        longest = max(map(len, rows))
        # What stands behind a row does not change what is read before it, so any id will do.
        ids = np.array([[*row, *[0] * (longest - len(row))] for row in rows], np.int64)
        logits, _ = self.step(ids, past)
        return np.stack([log_softmax(logits[k, len(row) - 1]) for k, row in enumerate(rows)])


def _torch_step(network: Any, ids: np.ndarray, past: Any) -> tuple[np.ndarray, Any]:
    import torch
    from transformers import DynamicCache

    # A cache of its own for each call: it grows by concatenation, which leaves the tensors of `past` alone.
    cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True))) if past else DynamicCache()
    with torch.inference_mode():
        out = network(torch.from_numpy(ids), past_key_values=cache, use_cache=True)
    return out.logits.numpy(), [t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, summed in float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


# --- models whose tokens are bytes


@dataclass(frozen=True)
class BytesRead:
    """past: of the network; length: ids read; p: (257,) what follows."""

    past: Any
    length: int
    p: np.ndarray


class OneTokenPerByte:
    """A language model over bytes, such as bytelm, as a ByteModel: its next token is the next byte.

    byte_ids: (256,) the id of each byte; end: ids that end a text. Ids of neither kind are left out and the rest
    is scaled up."""

    def __init__(
        self, name: str, network: Network, byte_ids: Sequence[int], opening: Sequence[int], end: Collection[int]
    ):
        self.name = name
        self._network = network
        self._ids = np.asarray(byte_ids, np.int64)
        self._opening = list(opening)
        self._end = sorted(end)

    @staticmethod
    def fits(model: LanguageModel) -> bool:
        """Whether every byte is one token of the model, and no token is more."""
        lengths = {len(piece) for piece in model.tokenizer.pieces()}
        return lengths <= {0, 1} and len(set(model.tokenizer.pieces()) - {b""}) == 256

    @classmethod
    def of(cls, model: LanguageModel) -> OneTokenPerByte:
        """`model` must fit."""
        id_of = {piece: i for i, piece in enumerate(model.tokenizer.pieces()) if piece}
        byte_ids = [id_of[bytes([byte])] for byte in range(256)]
        return cls(model.name, Network(model), byte_ids, model.opening, model.end)

    def start(self, prefix: bytes, room: int = 0) -> BytesRead:
        space = self._network.context - len(self._opening) - room
        if space < 1:
            raise UserError(f"{self.name} has no room for {room:,} more bytes; please ask for fewer.")
        ids = [*self._opening, *self._ids[list(prefix[-space:])]]
        if not ids:
            raise UserError("The prompt is empty; please write at least one word.")
        logp, past = self._network.read(ids)
        return BytesRead(past, len(ids), self._distribution(logp))

    def next(self, state: BytesRead) -> np.ndarray:
        return state.p

    def advance(self, state: BytesRead, byte: int) -> BytesRead:
        if state.length >= self._network.context:
            raise UserError(f"{self.name} has room for {self._network.context:,} bytes; please shorten the text.")
        logp, past = self._network.read([int(self._ids[byte])], state.past)
        return BytesRead(past, state.length + 1, self._distribution(logp))

    def _distribution(self, logp: np.ndarray) -> np.ndarray:
        p = np.exp(np.append(logp[self._ids], np.logaddexp.reduce(logp[self._end]) if self._end else -np.inf))
        return p / p.sum()
