"""A learned parser to compare with: bytes of a sentence to bytes of its standard commands, trained on given pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tokenlab import guard

Pair = tuple[str, tuple[str, ...]]  # a sentence and its standard commands; none: not a command

PAD, BEGIN, FINISH = 0, 1, 2  # symbols of the learned parser; a byte b is 3 + b
LONGEST = 110  # bytes that the learned parser writes at most
NOTHING = "?"  # what it writes for a sentence that is no command


@cache
def _network() -> type:
    import torch
    from torch import nn

    class Seq2Seq(nn.Module):
        """Bytes to bytes: a bidirectional GRU of 2 x 128 reads, a GRU with attention (Luong et al. 2015) writes."""

        def __init__(self, width: int = 128, inner: int = 64):
            super().__init__()
            self.embed = nn.Embedding(259, inner, padding_idx=PAD)
            self.reader = nn.GRU(inner, width, batch_first=True, bidirectional=True)
            self.bridge = nn.Linear(2 * width, width)
            self.writer = nn.GRU(inner, width, batch_first=True)
            self.query = nn.Linear(width, 2 * width)
            self.mix = nn.Linear(3 * width, width)
            self.out = nn.Linear(width, 259)

        def read(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            """(B, S) -> states (B, S, 256), first state of the writer (1, B, 128), mask (B, S)."""
            lengths = (source != PAD).sum(1)
            packed = nn.utils.rnn.pack_padded_sequence(
                self.embed(source), lengths, batch_first=True, enforce_sorted=False
            )
            states, last = self.reader(packed)
            states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
            return states, torch.tanh(self.bridge(torch.cat([last[0], last[1]], -1)))[None], source != PAD

        def write(self, read: tuple, state: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """target (B, T) -> scores of the next symbols (B, T, 259), and the writer's state."""
            states, _, mask = read
            hidden, state = self.writer(self.embed(target), state)
            scores = self.query(hidden) @ states.transpose(1, 2)
            weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
            return self.out(torch.tanh(self.mix(torch.cat([hidden, weights @ states], -1)))), state

    return Seq2Seq


class Learned:
    """A byte-level sequence-to-sequence network. seconds: how long it was trained, fine-tuning left out."""

    def __init__(self, seed: int):
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _network()()
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self.rng = np.random.default_rng(seed)
        self.seconds = 0.0

    @classmethod
    def load(cls, path: Path, name: str) -> Learned:
        """The parser `name` of a file that `save_all` wrote."""
        from safetensors import safe_open

        made = cls(0)
        with safe_open(path, "pt") as file:
            weights = {key: file.get_tensor(f"{name}.{key}").float() for key in made.network.state_dict()}
            made.seconds = float(file.metadata()[f"{name}.seconds"])
        made.network.load_state_dict(weights)
        return made

    def train(self, pairs: Sequence[Pair], steps: int, batch: int, rate: float, decay: bool = True) -> float:
        """Adam, gradients clipped at 1, the rate falling to 0 linearly (`decay`) or constant. Returns the last loss.

        A batch holds sentences of similar length, so that little of it is padding."""
        import torch

        start = time.perf_counter()
        coded = sorted(((_coded(said), _coded(_target(commands))) for said, commands in pairs), key=lambda p: len(p[0]))
        optimizer = torch.optim.Adam(self.network.parameters(), lr=rate)
        self.network.train()
        for step in range(steps):
            guard.check_time()
            if decay:
                optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            # The window may stick out at either end, or the shortest and longest sentences would be drawn less often.
            first = int(self.rng.integers(-batch + 1, len(coded)))
            chosen = coded[max(0, first) : first + batch]
            source = _padded([[*s, FINISH] for s, _ in chosen])
            target = _padded([[BEGIN, *t, FINISH] for _, t in chosen])
            read = self.network.read(source)
            scores, _ = self.network.write(read, read[1], target[:, :-1])
            loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
        self.seconds += (time.perf_counter() - start) if decay else 0.0
        return float(loss.detach())

    def answers(self, sentences: Sequence[str]) -> list[tuple[str, ...]]:
        """Standard commands of each sentence, written greedily, all sentences at once."""
        import torch

        self.network.eval()
        with torch.no_grad():
            read = self.network.read(_padded([[*_coded(said), FINISH] for said in sentences]))
            state, symbol = read[1], torch.full((len(sentences), 1), BEGIN)
            written, open_ = [], torch.ones(len(sentences), dtype=torch.bool)
            for _ in range(LONGEST):
                scores, state = self.network.write(read, state, symbol)
                symbol = scores[:, -1:].argmax(-1)
                open_ &= symbol[:, 0] != FINISH
                written.append(torch.where(open_, symbol[:, 0], PAD))
                if not open_.any():
                    break
        rows = torch.stack(written, 1).tolist()
        return [_commands(bytes(s - 3 for s in row if s > FINISH).decode("utf-8", "replace")) for row in rows]


def _coded(text: str) -> list[int]:
    return [byte + 3 for byte in text.encode()]


def _target(commands: Sequence[str]) -> str:
    return " ; ".join(commands) or NOTHING


def _commands(written: str) -> tuple[str, ...]:
    return () if written == NOTHING else tuple(part for part in written.split(" ; ") if part)


def _padded(rows: Sequence[Sequence[int]]) -> Any:
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def save_all(path: Path, parsers: dict[str, Learned]) -> None:
    """Write parsers into one safetensors file: weights as float16, the seconds of training as metadata."""
    from safetensors.torch import save_file

    weights = {f"{n}.{key}": w.half() for n, p in parsers.items() for key, w in p.network.state_dict().items()}
    save_file(weights, path, {f"{n}.seconds": f"{p.seconds:.1f}" for n, p in parsers.items()})
