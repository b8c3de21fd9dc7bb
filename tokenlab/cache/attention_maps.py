"""Where every head looks: one reading of a prompt, numbers for each head, and the views of both.

    seen = attend(model, prompt)             # Attended: weights (layers, heads, T, T), token texts, sinks
    maps_view(seen)                          # AttentionMaps: all heads as small images, one of them large
    heads_view(seen)                         # Table: the same numbers, one row per head

Query t looks at the keys 0..t; w[t, k] is its weight on key k, and its weights add up to one. The numbers are means
over the queries that have a choice: the first token can only look at itself and is left out.

- *Sinks*: tokens that draw attention from everywhere whatever they say, often the first ones (G. Xiao et al.,
  "Efficient Streaming Language Models with Attention Sinks", 2023, section 3.1). The paper gives no threshold;
  `find_sinks` has ours.
- *Entropy*: K. Clark et al., "What Does BERT Look At?", 2019, section 3.3; here in bits.
- *Mean distance*: J. Vig and Y. Belinkov, "Analyzing the Structure of Attention in a Transformer Language Model", 2019.
- *Induction score*: prefix matching of C. Olsson et al., "In-context Learning and Induction Heads", 2022. They read
  random tokens twice over; here it is read off the prompt, so it is only as telling as the prompt repeats itself.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokenlab import guard, limits
from tokenlab.errors import UserError
from tokenlab.views import AttentionMaps, Table

if TYPE_CHECKING:
    from tokenlab.models import LanguageModel, Prompt

SINK = 4.0  # times an even spread of attention
FAR = 8  # tokens: attention to what was just read is no sign of a sink
QUERIES = 8  # that must be that far away, or a token is not judged

ENTROPY, DISTANCE = "entropy [bits]", "mean distance [tokens]"
SINKS, PREVIOUS, INDUCTION = "sink share", "previous-token share", "induction score"
HELP = {
    ENTROPY: "How widely a head spreads its attention: 0 looks at one token, log2(n) at n tokens alike. "
    "Mean over the queries.",
    DISTANCE: "How many tokens back a head looks, weighted by its attention. Mean over the queries.",
    SINKS: "The share of the attention that falls on the marked sinks. Mean over the queries that see another token.",
    PREVIOUS: "The share of the attention that falls on the token just before. Mean over the queries.",
    INDUCTION: "When a token has occurred before: the share of the attention that falls on what followed it then. "
    "Mean over the queries for which there is such a place.",
    "sink": f"A token that gets more than {SINK:g} times the attention of an even spread, from the tokens at least "
    f"{FAR} later, over all heads and layers. Tokens with fewer than {QUERIES} such tokens are not judged.",
}


@dataclass(frozen=True)
class Attended:
    """One reading of a prompt by all heads.

    ids: int64 (T,); tokens: their T texts; weights: float32 (layers, heads, T, T), [query, key], rows add up to one.
    sinks: token number -> how many times an even spread it gets. note: what was left out, or "".
    """

    name: str
    ids: np.ndarray
    tokens: tuple[str, ...]
    weights: np.ndarray
    sinks: dict[int, float]
    note: str = ""


def attend(model: LanguageModel, prompt: Prompt) -> Attended:
    """Read `prompt` once and keep all weights. Of a long prompt, only the last limits.ATTENTION_TOKENS are read.

    UserError: fewer than two tokens; the model's attention cannot be opened."""
    import torch

    from tokenlab.kv import Session

    ids, note = shortened(prompt.ids, len(model.opening)), prompt.note or ""
    if len(ids) < len(prompt.ids):
        length = len(prompt.ids) + prompt.dropped
        note = f"The prompt has {length:,} tokens; for these maps {model.name} reads only the last {len(ids):,}."
    if len(ids) < 2:
        raise UserError("One token has nothing to look at but itself; please write a few words.")
    session = Session(model.torch)
    session.forward(torch.from_numpy(ids)[None], attention=True)
    guard.check_time()
    weights = torch.stack([layer[0] for layer in session.attention_maps()]).numpy()
    return Attended(model.name, ids, texts(model, ids), weights, find_sinks(weights), note)


def shortened(ids: np.ndarray, opening: int, most: int = limits.ATTENTION_TOKENS) -> np.ndarray:
    """The opening and the last of the other ids, `most` together."""
    return ids if len(ids) <= most else np.concatenate((ids[:opening], ids[len(ids) - most + opening :]))


def texts(model: LanguageModel, ids: np.ndarray) -> tuple[str, ...]:
    """Each id as text from its own bytes. A fragment of a character is written as its bytes, \\xe2\\x82.

    Special entries have no bytes: the model's opening is ⟨start⟩, others are ⟨their number⟩."""
    pieces = model.tokenizer.pieces()
    opening = set(model.opening)
    return tuple(
        "⟨start⟩" if i in opening else _readable(pieces[i]) if i < len(pieces) and pieces[i] else f"⟨{i}⟩"
        for i in ids.tolist()
    )


def _readable(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}" for byte in data)


# ---- numbers: weights are float (..., T, T), [query, key], causal, rows add up to one; results are (...)


def entropy(weights: np.ndarray) -> np.ndarray:
    """Mean over the queries 1.. of -sum w log2 w, in bits."""
    asked = weights[..., 1:, :]
    logs = np.log2(asked, where=asked > 0, out=np.zeros_like(asked))
    return -(asked * logs).sum(-1).mean(-1)


def mean_distance(weights: np.ndarray) -> np.ndarray:
    """Mean over the queries 1.. of sum w (query - key), in tokens."""
    place = np.arange(weights.shape[-1])
    back = np.maximum(place[1:, None] - place, 0)
    return (weights[..., 1:, :] * back).sum(-1).mean(-1)


def sink_share(weights: np.ndarray, sinks: list[int]) -> np.ndarray | None:
    """Share of the attention on `sinks`, mean over the queries that see a token which is none; None without sinks."""
    is_sink = np.isin(np.arange(weights.shape[-1]), sinks)
    choice = np.cumsum(~is_sink) > 0
    if not is_sink.any() or not choice.any():
        return None
    return weights[..., choice, :][..., is_sink].sum(-1).mean(-1)


def previous_share(weights: np.ndarray) -> np.ndarray:
    """Mean over the queries t = 1.. of w[t, t - 1]."""
    return np.diagonal(weights, -1, -2, -1).mean(-1)


def induction(weights: np.ndarray, ids: np.ndarray) -> np.ndarray | None:
    """Attention of query t to the keys j + 1 < t with ids[j] == ids[t], mean over the t that have any; None if none."""
    same = np.tril(ids[:, None] == ids, -2)  # j < t - 1, so that what followed is not t itself
    follows = np.roll(same, 1, axis=1)
    repeats = follows.any(1)
    if not repeats.any():
        return None
    return np.einsum("...qk,qk->...q", weights, follows)[..., repeats].mean(-1)


def received(weights: np.ndarray) -> np.ndarray:
    """What each token gets from the queries at least FAR later, in times an even spread: (layers, heads, T, T) -> (T,).

    Summed over heads, layers and those queries, and divided by the same sum of 1 / (tokens that the query sees), so
    that early tokens, which more queries see, have no advantage. NaN where fewer than QUERIES queries are that far."""
    length = weights.shape[-1]
    place = np.arange(length)
    far = place[:, None] - place >= FAR
    even = (far / (place[:, None] + 1)).sum(0)
    got = (weights.mean((0, 1), dtype=np.float64) * far).sum(0)
    enough = far.sum(0) >= QUERIES
    return np.divide(got, even, where=enough, out=np.full(length, np.nan))


def find_sinks(weights: np.ndarray) -> dict[int, float]:
    """Token number -> times an even spread, for those above SINK. weights: (layers, heads, T, T)."""
    times = received(weights)
    return {int(k): float(times[k]) for k in np.flatnonzero(np.nan_to_num(times) > SINK)}


def measure_heads(seen: Attended) -> dict[str, np.ndarray]:
    """Name of a number -> (layers, heads). Sink share and induction score only where the prompt has such tokens."""
    found = {
        ENTROPY: entropy(seen.weights),
        DISTANCE: mean_distance(seen.weights),
        SINKS: sink_share(seen.weights, list(seen.sinks)),
        PREVIOUS: previous_share(seen.weights),
        INDUCTION: induction(seen.weights, seen.ids),
    }
    return {name: values for name, values in found.items() if values is not None}


# ---- views


def png(weights: np.ndarray) -> str:
    """Weights (q, T) in 0..1 as a grey 8-bit PNG of 255 * sqrt(weight), in base64. The root shows small weights.

    Back from the picture, a weight is off by less than 0.004."""
    height, width = weights.shape
    grey = np.rint(255 * np.sqrt(weights)).astype(np.uint8)
    lines = np.concatenate((np.zeros((height, 1), np.uint8), grey), 1)  # each line begins with its filter: none

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey, no interlace
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


def maps_view(seen: Attended, title: str = "Attention, head by head") -> AttentionMaps:
    """All heads of one reading, with their numbers; sinks are marked."""
    numbers = measure_heads(seen)
    told = []
    if SINKS not in numbers:
        told.append(f"No token gets over {SINK:g} times an even share from all heads together, so no sink is marked.")
    if INDUCTION not in numbers:
        told.append("No token comes back, so there is no induction score.")
    return AttentionMaps(
        title=title,
        note=" ".join(filter(None, (seen.note, *told))),
        tokens=seen.tokens,
        queries=len(seen.tokens),
        maps=tuple(tuple(png(head) for head in layer) for layer in seen.weights.clip(0, 1)),
        marks={k: "sink" for k in seen.sinks},
        numbers={name: tuple(map(tuple, values.tolist())) for name, values in numbers.items()},
        help={name: text for name, text in HELP.items() if name in numbers or name == "sink" and seen.sinks},
        chosen=_telling(numbers),
    )


def _telling(numbers: dict[str, np.ndarray]) -> tuple[int, int]:
    """The head to begin with: the highest induction score, or else the lowest entropy."""
    values = numbers.get(INDUCTION, -numbers[ENTROPY])
    layer, head = np.unravel_index(values.argmax(), values.shape)
    return int(layer), int(head)


def heads_view(seen: Attended, title: str = "The heads in numbers") -> Table:
    """One row per head, counted from 0 as in the model."""
    numbers = measure_heads(seen)
    rows = [
        (layer, head, *(float(values[layer, head]) for values in numbers.values()))
        for layer in range(seen.weights.shape[0])
        for head in range(seen.weights.shape[1])
    ]
    names = [name[0].upper() + name[1:] for name in numbers]
    return Table(
        title=title,
        columns=("Layer", "Head", *names),
        rows=tuple(rows),
        help={heading: HELP[name] for heading, name in zip(names, numbers, strict=True)},
    )
