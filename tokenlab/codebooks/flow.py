"""Flow matching on straight paths (Liu et al. 2022): for decoders that paint by turning noise into a picture.

x_t = (1 - t) x + t eps: t = 0 is the picture, t = 1 is noise. A network learns the velocity v = eps - x, and
`euler` walks from t = 1 back to 0. FlexTok and FlowAR share this convention.

net(x_t, t, cond) -> v: x_t (B, ...), t (B,), cond whatever the network takes, or None for "unconditional".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenlab import guard

Net = Callable[[Tensor, Tensor, Any], Tensor]


def flow_loss(net: Net, x: Tensor, cond: Any = None, t: Tensor | None = None, eps: Tensor | None = None) -> Tensor:
    """Mean squared error of the velocity at a random time per element, uniform in [0, 1]; t (B,) and eps like x may
    be given instead."""
    t = torch.rand(len(x), device=x.device) if t is None else t
    eps = torch.randn_like(x) if eps is None else eps
    return F.mse_loss(net(mix(x, eps, t), t, cond), eps - x)


def mix(x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """x_t for t (B,), one time for each element of x (B, ...)."""
    t = t.view(-1, *[1] * (x.ndim - 1))
    return (1 - t) * x + t * eps


@torch.no_grad()
def euler(
    net: Net,
    shape: tuple[int, ...],
    cond: Any = None,
    steps: int = 25,
    cfg: float = 1.0,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """x (shape) from noise in equal steps. cfg: 1 takes the conditional velocity, more goes beyond it, away from the
    unconditional one (classifier-free guidance; two calls a step). noise: the start, else drawn with `generator`."""
    x = torch.randn(shape, generator=generator) if noise is None else noise
    for i in range(steps):
        guard.check_time()
        t = torch.full((len(x),), 1 - i / steps, device=x.device)
        v = net(x, t, cond)
        if cfg != 1.0:
            without = net(x, t, None)
            v = without + cfg * (v - without)
        x = x - v / steps
    return x
