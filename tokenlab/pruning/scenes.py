"""Drawn scenes whose truth is known: small things of a shape and a colour, a digit, clutter, and questions about them.

    one = scene(7)                      # the same picture for the same seed, everywhere
    one.pixels                          # (96, 96, 3) uint8
    [(q.text, q.answer) for q in questions(one)]

A picture is 12 x 12 patches of 8 pixels. A small thing covers two to four of them and the digit one or two, so that
losing patches can hurt. A question is asked only if it has one answer, and it knows the patches that it is about.
`large` scenes have twice the side and are read as a thumbnail and four crops; a `clip` is eight frames.
Training uses seeds from TRAIN on, everything that is measured or shown uses smaller ones.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIDE = 96  # pixels of a picture
PATCH = 8
GRID = SIDE // PATCH
TRAIN = 1 << 32  # the first seed that training may use

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = {
    "red": (212, 38, 42),
    "green": (38, 158, 66),
    "blue": (40, 88, 222),
    "yellow": (242, 208, 40),
    "purple": (142, 58, 190),
    "orange": (242, 128, 28),
}
CELLS = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")
KINDS = ("exist", "color", "shape", "count", "total", "where", "digit", "size", "relation")
BACKGROUNDS = ("drawn", "photograph")
RADII = {"small": (5.5, 7.0), "big": (9.5, 12.0)}  # pixels
MOST = 6  # things in a picture

_DIGITS = (  # five columns by seven rows, a row per number
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)
_TAG = (9, 11)  # width and height of the white tag around a digit


@dataclass(frozen=True)
class Thing:
    """An object. x, y: its middle, in pixels from the upper left; radius: in pixels."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """left, top, right, bottom in whole pixels, right and bottom outside."""
        reach = self.radius + 1
        return (
            math.floor(self.x - reach),
            math.floor(self.y - reach),
            math.ceil(self.x + reach),
            math.ceil(self.y + reach),
        )


@dataclass(frozen=True)
class Digit:
    """A digit on a white tag; x, y: the tag's middle."""

    value: int
    x: float
    y: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        left, top = round(self.x - _TAG[0] / 2), round(self.y - _TAG[1] / 2)
        return left, top, left + _TAG[0], top + _TAG[1]


@dataclass(frozen=True)
class Scene:
    """pixels: (side, side, 3) uint8; things in no particular order; digit: None where there is none."""

    seed: int
    pixels: np.ndarray
    things: tuple[Thing, ...]
    digit: Digit | None

    @property
    def side(self) -> int:
        return len(self.pixels)

    def cover(self, index: int) -> np.ndarray:
        """The share of each patch that thing `index` covers, (side / 8, side / 8)."""
        return _by_patch(mask(self.things[index], self.side))

    def patches(self, things: tuple[int, ...], digit: bool = False) -> tuple[int, ...]:
        """Patches, counted row by row, of which these things cover more than 6 %, or that hold the digit's tag."""
        grid = self.side // PATCH
        found = np.zeros((grid, grid), bool)
        for index in things:
            found |= self.cover(index) > 0.06
        if digit and self.digit is not None:
            left, top, right, bottom = self.digit.box
            tag = np.zeros((self.side, self.side))
            tag[max(0, top) : bottom, max(0, left) : right] = 1
            found |= _by_patch(tag) > 0.06
        return tuple(np.flatnonzero(found).tolist())


@dataclass(frozen=True)
class Question:
    """kind: one of KINDS; about: the things of the scene that decide the answer."""

    kind: str
    text: str
    answer: str
    about: tuple[int, ...]
    scene: Scene

    @property
    def patches(self) -> tuple[int, ...]:
        """The patches that show what the question is about."""
        return self.scene.patches(self.about, digit=self.kind == "digit")


# --- drawing


def scene(
    seed: int,
    things: tuple[int, int] = (2, MOST),
    clutter: int = 3,
    background: str | None = None,
    digit: float = 0.7,
    side: int = SIDE,
) -> Scene:
    """The scene of this seed. things: fewest and most; clutter: most thin lines that mean nothing; background: one of
    BACKGROUNDS, by default one of six is a photograph; digit: how often there is one."""
    rng = np.random.default_rng(seed)
    if background is None:
        background = "photograph" if rng.random() < 1 / 6 else "drawn"
    canvas = _background(rng, background, side, clutter)
    placed = _place(rng, int(rng.integers(things[0], things[1] + 1)), rng.random() < digit, side)
    return Scene(seed, paint(canvas, *placed, rng), *placed)


def paint(canvas: np.ndarray, things: tuple[Thing, ...], digit: Digit | None, rng: np.random.Generator) -> np.ndarray:
    """Things and digit on a background (side, side, 3) of floats, with a little noise, as uint8."""
    canvas = canvas.copy()
    for thing in things:
        color = np.array(COLORS[thing.color]) + rng.normal(0, 7, 3)
        left, top, right, bottom = _inside(thing.box, len(canvas))
        alpha = _alpha(thing, left, top, right, bottom)[..., None]
        part = canvas[top:bottom, left:right]
        canvas[top:bottom, left:right] = part + alpha * (color - part)
    if digit is not None:
        left, top, right, bottom = digit.box
        canvas[top:bottom, left:right] = 250
        for row, bits in enumerate(_DIGITS[digit.value]):
            for column in range(5):
                if bits >> (4 - column) & 1:
                    canvas[top + 2 + row, left + 2 + column] = 15
    canvas += rng.normal(0, 5, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def mask(thing: Thing, side: int = SIDE) -> np.ndarray:
    """How much of each pixel the thing covers, (side, side), 0 to 1."""
    found = np.zeros((side, side))
    left, top, right, bottom = _inside(thing.box, side)
    found[top:bottom, left:right] = _alpha(thing, left, top, right, bottom)
    return found


def _inside(box: tuple[int, int, int, int], side: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    return max(0, left), max(0, top), min(side, right), min(side, bottom)


def _alpha(thing: Thing, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    dx = np.arange(left, right)[None] + 0.5 - thing.x
    dy = np.arange(top, bottom)[:, None] + 0.5 - thing.y
    return np.clip(0.5 - _DISTANCE[thing.shape](dx, dy, thing.radius), 0, 1)


def _star(dx: np.ndarray, dy: np.ndarray, r: float) -> np.ndarray:
    # all ten half edges are one edge, once the angle is folded into a tenth of the turn
    angle = np.abs((np.arctan2(dx, -dy) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    away = np.hypot(dx, dy)
    x, y = away * np.cos(angle), away * np.sin(angle)
    inner = 0.45 * r * np.array((math.cos(math.pi / 5), math.sin(math.pi / 5)))
    edge = inner - (r, 0)
    normal = np.array((edge[1], -edge[0])) / np.hypot(*edge)
    return (x - r) * normal[0] + y * normal[1]


def _triangle(dx: np.ndarray, dy: np.ndarray, r: float) -> np.ndarray:
    slant = (np.abs(dx) * 3**0.5 - (dy + r)) / 2
    return np.maximum(slant, dy - r / 2)


# signed distance from the outline, in pixels, negative inside; (dx, dy) from the middle
_DISTANCE = {
    "circle": lambda dx, dy, r: np.hypot(dx, dy) - 0.92 * r,
    "square": lambda dx, dy, r: np.maximum(np.abs(dx), np.abs(dy)) - 0.82 * r,
    "triangle": _triangle,
    "star": _star,
    "cross": lambda dx, dy, r: np.minimum(
        np.maximum(np.abs(dx) - r, np.abs(dy) - 0.32 * r), np.maximum(np.abs(dx) - 0.32 * r, np.abs(dy) - r)
    ),
}


def _background(rng: np.random.Generator, kind: str, side: int, clutter: int) -> np.ndarray:
    if kind == "photograph":
        canvas = _photograph(rng, side)
    else:
        ends = rng.uniform(90, 215, (2, 1, 1, 1)) + rng.normal(0, 14, (2, 1, 1, 3))
        y, x = np.mgrid[0:side, 0:side] / side
        turn = rng.uniform(0, 2 * np.pi)
        along = ((x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn) + 0.5)[..., None]
        canvas = ends[0] + (ends[1] - ends[0]) * along
        waves = np.sin(2 * np.pi * (rng.uniform(1, 5) * x + rng.uniform(1, 5) * y) + rng.uniform(0, 6))
        canvas = canvas + rng.uniform(0, 14) * waves[..., None]
    for _ in range(int(rng.integers(0, clutter + 1))):
        _line(rng, canvas)
    return canvas


def _line(rng: np.random.Generator, canvas: np.ndarray) -> None:
    side = len(canvas)
    (x0, y0), (x1, y1) = rng.uniform(0, side, (2, 2))
    steps = np.linspace(0, 1, 2 * side)
    x, y = (x0 + (x1 - x0) * steps).astype(int), (y0 + (y1 - y0) * steps).astype(int)
    canvas[np.clip(y, 0, side - 1), np.clip(x, 0, side - 1)] += rng.uniform(-70, 70)


@cache
def _photographs() -> tuple[Image.Image, ...]:
    from PIL import Image
    from skimage import data

    return tuple(Image.fromarray(photo()) for photo in (data.astronaut, data.coffee, data.chelsea, data.rocket))


def _photograph(rng: np.random.Generator, side: int) -> np.ndarray:
    """A crop of a photograph at a random scale, with less contrast and colour, so that things stand out."""
    from PIL import Image

    photo = _photographs()[rng.integers(len(_photographs()))]
    cut = int(rng.integers(side, min(photo.size) + 1))
    left, top = (int(rng.integers(0, n - cut + 1)) for n in photo.size)
    box = left, top, left + cut, top + cut
    part = np.asarray(photo.resize((side, side), Image.Resampling.BOX, box), np.float32)
    grey = part.mean(-1, keepdims=True)
    return 128 + 0.55 * (grey + 0.5 * (part - grey) - 128)


def _place(rng: np.random.Generator, count: int, digit: bool, side: int) -> tuple[tuple[Thing, ...], Digit | None]:
    """Things and perhaps a digit, none of them over another. Who finds no place in 40 tries is left out."""
    taken: list[tuple[float, float, float]] = []

    def free(reach: float) -> tuple[float, float] | None:
        for _ in range(40):
            x, y = rng.uniform(reach + 1, side - reach - 1, 2)
            if all(math.hypot(x - a, y - b) > reach + other + 1.5 for a, b, other in taken):
                taken.append((x, y, reach))
                return float(x), float(y)
        return None

    tag = free(7.2) if digit else None
    # in some scenes only two shapes, so that there are several of one to count
    shapes = rng.choice(SHAPES, 2, replace=False) if rng.random() < 0.3 else SHAPES
    things = []
    for _ in range(count):
        size = str(rng.choice(("small", "big")))
        radius = float(rng.uniform(*RADII[size]))
        at = free(radius)
        if at is not None:
            things.append(Thing(str(rng.choice(shapes)), str(rng.choice(list(COLORS))), size, *at, radius))
    return tuple(things), None if tag is None else Digit(int(rng.integers(10)), *tag)


def _by_patch(pixels: np.ndarray) -> np.ndarray:
    grid = len(pixels) // PATCH
    return pixels.reshape(grid, PATCH, grid, PATCH).mean((1, 3))


# --- questions


def cell(thing: Thing, side: int = SIDE) -> str:
    """Which of nine cells the middle of a thing lies in."""
    return CELLS[3 * int(3 * thing.y / side) + int(3 * thing.x / side)]


def questions(one: Scene, kinds: tuple[str, ...] = KINDS) -> list[Question]:
    """Up to one question of each kind, drawn with the scene's seed; a kind that has no clear answer is left out."""
    rng = np.random.default_rng((one.seed, 1))
    found = (ask(one, kind, rng) for kind in kinds)
    return [question for question in found if question is not None]


def ask(one: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """A question of this kind with one clear answer, or None if the scene allows none."""
    made = _ASK[kind](one, rng)
    if made is None:
        return None
    text, answer, about = made
    return Question(kind, text, answer, about, one)


_Made = tuple[str, str, tuple[int, ...]] | None


def _only(one: Scene, **wanted: str) -> int | None:
    """The one thing with these properties."""
    found = [i for i, t in enumerate(one.things) if all(getattr(t, k) == v for k, v in wanted.items())]
    return found[0] if len(found) == 1 else None


def _pick(rng: np.random.Generator, options: list) -> int | None:
    return options[rng.integers(len(options))] if options else None


def _named(one: Scene, index: int, rng: np.random.Generator) -> str | None:
    """Words that mean thing `index` alone: its shape, or colour and shape."""
    thing = one.things[index]
    if _only(one, shape=thing.shape) is not None and rng.random() < 0.5:
        return thing.shape
    return thing.name if _only(one, shape=thing.shape, color=thing.color) is not None else None


def _exist(one: Scene, rng: np.random.Generator) -> _Made:
    shapes, colors = {t.shape for t in one.things}, {t.color for t in one.things}
    there = {(t.color, t.shape) for t in one.things}
    if rng.random() < 0.5 and one.things:
        i = int(rng.integers(len(one.things)))
        return f"is there {_a(one.things[i].name)} ?", "yes", (i,)
    # what is not there is put together from what is, so that colour or shape alone does not give it away
    near = sorted((c, s) for c in colors for s in shapes if (c, s) not in there)
    if not near:
        near = sorted((c, s) for c in COLORS for s in SHAPES if (c in colors) != (s in shapes))
    color, shape = near[rng.integers(len(near))] if near else ("red", "circle")
    about = tuple(i for i, t in enumerate(one.things) if t.color == color or t.shape == shape)
    return f"is there {_a(f'{color} {shape}')} ?", "no", about


def _a(name: str) -> str:
    return f"an {name}" if name[0] == "o" else f"a {name}"


def _color(one: Scene, rng: np.random.Generator) -> _Made:
    i = _pick(rng, [i for i, t in enumerate(one.things) if _only(one, shape=t.shape) == i])
    return None if i is None else (f"what color is the {one.things[i].shape} ?", one.things[i].color, (i,))


def _shape(one: Scene, rng: np.random.Generator) -> _Made:
    i = _pick(rng, [i for i, t in enumerate(one.things) if _only(one, color=t.color) == i])
    return None if i is None else (f"what shape is the {one.things[i].color} thing ?", one.things[i].shape, (i,))


def _count(one: Scene, rng: np.random.Generator) -> _Made:
    if not one.things:
        return None
    counts = Counter(t.shape for t in one.things)
    # most scenes have one of each shape: prefer what there are more of
    often = [counts.most_common(1)[0][0]]
    shape = str(rng.choice(often if rng.random() < 0.5 else SHAPES))
    about = tuple(i for i, t in enumerate(one.things) if t.shape == shape)
    plural = "crosses" if shape == "cross" else f"{shape}s"
    return f"how many {plural} are there ?", str(len(about)), about or tuple(range(len(one.things)))


def _total(one: Scene, rng: np.random.Generator) -> _Made:
    return "how many things are there ?", str(len(one.things)), tuple(range(len(one.things)))


def _where(one: Scene, rng: np.random.Generator) -> _Made:
    third = one.side / 3
    clear = [
        i
        for i, t in enumerate(one.things)
        if min(abs(v - edge) for v in (t.x, t.y) for edge in (third, 2 * third)) > one.side / 32
    ]
    i = _pick(rng, clear)
    name = None if i is None else _named(one, i, rng)
    return None if name is None else (f"where is the {name} ?", cell(one.things[i], one.side), (i,))


def _digit(one: Scene, rng: np.random.Generator) -> _Made:
    return None if one.digit is None else ("which digit is shown ?", str(one.digit.value), ())


def _size(one: Scene, rng: np.random.Generator) -> _Made:
    if not one.things:
        return None
    i = int(rng.integers(len(one.things)))
    name = _named(one, i, rng)
    return None if name is None else (f"is the {name} big or small ?", one.things[i].size, (i,))


def _relation(one: Scene, rng: np.random.Generator) -> _Made:
    if len(one.things) < 2:
        return None
    a, b = (int(i) for i in rng.choice(len(one.things), 2, replace=False))
    first, second = one.things[a], one.things[b]
    word, distance = ("left of", second.x - first.x) if rng.random() < 0.5 else ("above", second.y - first.y)
    names = _named(one, a, rng), _named(one, b, rng)
    if abs(distance) < one.side / 10 or None in names:
        return None
    return f"is the {names[0]} {word} the {names[1]} ?", "yes" if distance > 0 else "no", (a, b)


_ASK = {
    "exist": _exist,
    "color": _color,
    "shape": _shape,
    "count": _count,
    "total": _total,
    "where": _where,
    "digit": _digit,
    "size": _size,
    "relation": _relation,
}


def caption(one: Scene) -> str:
    """All things in reading order: "red star top-left ; blue circle center"."""
    ordered = sorted(one.things, key=lambda t: (int(3 * t.y / one.side), t.x))
    return " ; ".join(f"{t.name} {cell(t, one.side)}" for t in ordered) or "nothing"


def words() -> tuple[str, ...]:
    """Every word that a question, an answer or a caption may hold."""
    plurals = [f"{shape}s" for shape in SHAPES[:-1]] + ["crosses", "things"]
    numbers = [str(n) for n in range(10)]
    plain = (
        "is there a an the what color shape how many are where which digit shown big small or left of above thing "
        "? ; yes no nothing describe"
    ).split()
    return tuple(dict.fromkeys([*plain, *SHAPES, *plurals, *COLORS, *CELLS, *numbers]))


# --- pictures of several parts


def large(seed: int, things: tuple[int, int] = (4, 9)) -> Scene:
    """A scene of twice the side with things of the usual size: small ones are lost in its thumbnail."""
    return scene(seed, things, side=2 * SIDE)


def crops(one: Scene) -> np.ndarray:
    """A large scene as the model reads it: (5, 96, 96, 3), the thumbnail and then the quarters row by row."""
    half = one.side // 2
    thumbnail = one.pixels.reshape(half, 2, half, 2, 3).mean((1, 3)).astype(np.uint8)
    quarters = [one.pixels[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    return np.stack([thumbnail, *quarters])


@dataclass(frozen=True)
class Clip:
    """frames: eight scenes in which the things move; what happens besides: "appears", "vanishes" or "turns", to which
    thing of the frame where it is seen, at which frame; the question is about it."""

    frames: tuple[Scene, ...]
    event: str
    name: str
    at: int

    @property
    def question(self) -> tuple[str, str]:
        """ "what appears ?" or "what vanishes ?" or "what turns red ?", and the shape that does."""
        shape = self.name.split()[1]
        color = f" {self.name.split()[0]}" if self.event == "turns" else ""
        return f"what {self.event}{color} ?", shape


def clip(seed: int, frames: int = 8) -> Clip:
    """A clip of `frames` pictures: two to four things of different shapes move slowly, and one event happens."""
    rng = np.random.default_rng(seed)
    canvas = _background(rng, "drawn", SIDE, 2)
    things: tuple[Thing, ...] = ()
    while len({t.shape for t in things}) < len(things) or len(things) < 2:
        things, _ = _place(rng, int(rng.integers(2, 5)), False, SIDE)
    speed = rng.uniform(-2.2, 2.2, (len(things), 2))
    event, who, at = str(rng.choice(("appears", "vanishes", "turns"))), int(rng.integers(len(things))), None
    at = int(rng.integers(2, frames - 1))
    new = str(rng.choice([c for c in COLORS if c != things[who].color]))
    made = []
    for t in range(frames):
        now = []
        for i, thing in enumerate(things):
            x, y = np.clip((thing.x, thing.y) + t * speed[i], thing.radius + 1, SIDE - thing.radius - 1)
            after = t >= at
            if i == who and (event == "appears" and not after or event == "vanishes" and after):
                continue
            color = new if i == who and event == "turns" and after else thing.color
            now.append(replace(thing, x=float(x), y=float(y), color=color))
        made.append(Scene(seed, paint(canvas, tuple(now), None, rng), tuple(now), None))
    name = f"{new if event == 'turns' else things[who].color} {things[who].shape}"
    return Clip(tuple(made), event, name, at)
