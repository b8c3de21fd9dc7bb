"""See a picture rebuilt from a learned list of small building blocks, and which entries of the list it uses.

An encoder turns every patch of 8 × 8 pixels into a vector; a *quantiser* replaces the vector by an entry of a list,
the *codebook*; a decoder paints the picture again from the entries. What travels is the number of the entry, the
*token*: with $K$ entries it costs $\\log_2 K$ bits, so 1,024 entries give $10 / 64 = 0.16$ bits per pixel.

- **vq** has one codebook of learned entries (VQ-VAE, van den Oord et al. 2017).
- **fsq** rounds each of a few numbers to a few levels, so that its codebook is a grid (Mentzer et al. 2023).
- **rvq** has two codebooks one behind the other: the second says what the first left over (as in SoundStream, Zeghidour
  et al. 2021).

**Side by side.** All methods get the same number of bits. A codebook cannot spend less than one code per patch, so
the budget decides how large the picture is when it is encoded (it is scaled back after decoding), and for rvq also how
many levels are kept: of all choices that fit, the one with the highest PSNR is shown. *JPEG* and *WebP* get the same
bytes, the best quality and size that fit; their headers count, and the table says what they could do if headers were
free. Two rows belong to every comparison: *no rounding* decodes the vectors themselves, and *random codes* decodes
nonsense. PSNR is $10 \\log_{10}(255^2 / \\mathrm{MSE})$ over all pixels and colours; SSIM compares brightness, contrast
and structure of small windows (Wang et al. 2004).

**Codes.** The picture's token grid beside the codebook: which tokens have the same code, how often it comes up in
photographs that training has not seen, what it looks like.

**Swap a code.** Exchange one token for another entry, and see what changes and how far the change reaches: the
receptive field of the decoder.

**Residual levels.** Leave out the later levels of rvq; and make the codebook of vq smaller after training, where every
code that is dropped becomes its nearest neighbour among those that are kept.
"""

from __future__ import annotations

import io
import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from tokenlab import guard, pictures
from tokenlab.codebooks.metrics import psnr, ssim
from tokenlab.codebooks.stats import entropy, plane
from tokenlab.controls import Choice, Choices, Picture, Seed, Slider, Text
from tokenlab.errors import UserError
from tokenlab.views import CodeLevel, Codes, Lines, Pictures, Series, Table
from tokenlab.views import Picture as Shown

if TYPE_CHECKING:
    from tokenlab.codebooks.vq_image import PictureTokenizer

SIDE, CODES, SWAP, LEVELS = PARTS = ("Side by side", "Codes", "Swap a code", "Residual levels")
TOKENIZERS = ("vq", "fsq", "rvq")
FILES = ("JPEG", "WebP")
BOOKS = ("vq", "fsq", "rvq, level 1", "rvq, level 2")
NEAREST, OPPOSITE, RANDOM = OTHERS = ("nearest", "opposite", "random")
PATCH = 8  # pixels of a token's side
LEAST = 32  # pixels of a picture's shorter side
LARGEST = 2.0  # times its own size, at which a picture is encoded
SHRUNK = (1.0, 0.75, 0.5, 0.375, 0.25)  # sizes that JPEG and WebP may choose from
FREE = ", headers free"
AMPLIFY = 4  # differences are too small to be seen as they are
AROUND = 3  # tokens on each side of the one that is swapped, in the close-up
DRAWS = 3  # random choices of the codes that are kept
PATCHES = 3  # nearest training patches shown for each code


@dataclass(frozen=True)
class Result:
    """Each part fills the views that it has."""

    compared: Pictures | None = None
    numbers: Table | None = None
    differences: Pictures | None = None
    codes: Codes | None = None
    swapped: Pictures | None = None
    close: Pictures | None = None
    change: Table | None = None
    reach: Lines | None = None
    levels: Pictures | None = None
    by_level: Table | None = None
    merging: Lines | None = None
    by_size: Table | None = None
    merged: Pictures | None = None


def run(
    part: Annotated[str, Choice("Show", options=PARTS, style="parts")] = SIDE,
    picture: Annotated[str, Picture("Picture", shared="picture")] = "photo:coffee",
    size: Annotated[int, Slider("Longest side", info="pixels", minimum=64, maximum=512, step=8)] = 256,
    compared: Annotated[
        tuple[str, ...],
        Choices(
            "Compared",
            info="No rounding and random codes are always shown beside them.",
            options=(*TOKENIZERS, *FILES),
            when=("part", SIDE),
        ),
    ] = (*TOKENIZERS, *FILES),
    budget: Annotated[
        float,
        Slider(
            "Bit budget",
            info="bits per pixel; a token of 10 bits for every 8 × 8 pixels takes 0.156",
            minimum=0.02,
            maximum=0.6,
            step=0.01,
            when=("part", SIDE),
        ),
    ] = 0.16,
    tokenizer: Annotated[str, Choice("Tokenizer", options=TOKENIZERS, when=("part", CODES))] = "vq",
    book: Annotated[str, Choice("Codebook", options=BOOKS, when=("part", SWAP))] = "vq",
    row: Annotated[int, Slider("Row of tokens", minimum=1, maximum=64, step=1, when=("part", SWAP))] = 12,
    column: Annotated[int, Slider("Column of tokens", minimum=1, maximum=64, step=1, when=("part", SWAP))] = 12,
    code: Annotated[
        str,
        Text("New code", info=f"a number, or {', '.join(OTHERS)}", lines=1, characters=20, when=("part", SWAP)),
    ] = OPPOSITE,
    seed: Annotated[int, Seed(when=("part", SIDE, SWAP, LEVELS))] = 0,
) -> Iterator[Result]:
    """A picture through several tokenizers at one bit budget; its codes; one code exchanged; fewer levels or codes."""
    from tokenlab.codebooks import vq_image

    image = prepared(picture, size)
    origin = origin_of(picture)
    if part == SIDE:
        yield from side_by_side(image, [vq_image.load(name) for name in TOKENIZERS], compared, budget, origin, seed)
    elif part == CODES:
        yield Result(codes=codes_view(vq_image.load(tokenizer), image))
    elif part == SWAP:
        name, _, level = book.partition(", level ")
        yield swap(vq_image.load(name), image, (row - 1, column - 1), int(level or 1) - 1, code, seed)
    else:
        yield from fewer(vq_image.load("vq"), vq_image.load("rvq"), image, origin, seed)


# --- pictures


def prepared(ref: str, size: int) -> np.ndarray:
    """The picture with its longest side at most `size`, its middle cut to whole patches: (H, W, 3) uint8.

    UserError: less than LEAST pixels on a side would be left."""
    image = pictures.load(ref)
    height, width = image.shape[:2]
    scale = min(1.0, size / max(height, width))
    scaled = round(height * scale), round(width * scale)
    if min(scaled) < LEAST:
        raise UserError(
            f"Of this picture of {width} × {height} pixels, {scaled[1]} × {scaled[0]} would be left; please choose one "
            f"that leaves at least {LEAST} on each side, or a larger longest side."
        )
    image = resized(image, scaled)
    top, left = (side % PATCH // 2 for side in scaled)
    return np.ascontiguousarray(image[top : top + scaled[0] // PATCH * PATCH, left : left + scaled[1] // PATCH * PATCH])


def resized(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The picture at another (height, width), by Lanczos' filter; itself when it has that size already."""
    from PIL import Image

    height, width = shape[:2]
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def origin_of(ref: str) -> str:
    """A sentence: whether the tokenizers were trained on this picture; "" where that is not known."""
    from tokenlab.codebooks import vq_image

    _, _, name = ref.partition("photo:")
    if name in vq_image.UNSEEN:
        return "The tokenizers have not seen this photograph in training."
    return "The tokenizers were trained on this photograph, too." if name in vq_image.SEEN else ""


def difference(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(H, W) uint8: AMPLIFY times the mean absolute difference of the three colours."""
    apart = np.abs(image.astype(np.float32) - other).mean(-1)
    return (AMPLIFY * apart).clip(0, 255).astype(np.uint8)


# --- side by side


@dataclass(frozen=True)
class Coded:
    """A picture after coding. bits: all that must be stored; headers: bits of these that say what a decoder of tokens
    knows anyway; seconds: encoding and decoding; how: what was chosen so that it fits."""

    image: np.ndarray
    bits: float
    seconds: tuple[float, float]
    how: str
    headers: int = 0


def side_by_side(
    image: np.ndarray,
    tokenizers: Sequence[PictureTokenizer],
    compared: Sequence[str],
    budget: float,
    origin: str,
    seed: int,
) -> Iterator[Result]:
    """Method after method; the differences come last."""
    bits = budget * image.shape[0] * image.shape[1]
    known = {tokenizer.name: tokenizer for tokenizer in tokenizers}
    first = known[next((name for name in compared if name in known), "vq")]
    done: dict[str, Coded | None] = {}
    for name in compared:
        guard.check_time()
        if name in known:
            done[name] = through_codes(known[name], image, bits)
        else:
            done[name] = as_file(name, image, bits)
            done[name + FREE] = as_file(name, image, bits, free=True)
        yield compared_views(image, done, budget, origin, first.name, seed)
    rows, columns = largest_grid(image.shape, bits, first.bits_per_token) or (1, 1)
    done[f"{first.name}, no rounding"] = unrounded(first, image, (rows, columns))
    done[f"{first.name}, random codes"] = random_codes(first, image, (rows, columns), seed)
    result = compared_views(image, done, budget, origin, first.name, seed)
    yield Result(result.compared, result.numbers, differences_view(image, done))


def largest_grid(shape: Sequence[int], bits: float, per_token: float) -> tuple[int, int] | None:
    """(rows, columns) of the finest grid of tokens in the picture's shape that costs at most `bits`; None: none does.

    At most LARGEST times the tokens on each side that the picture has of its own."""
    height, width = shape[0] // PATCH, shape[1] // PATCH
    for longest in range(int(LARGEST * max(height, width)), 0, -1):
        scale = longest / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        if rows * columns * per_token <= bits:
            return rows, columns
    return None


def through_codes(tokenizer: PictureTokenizer, image: np.ndarray, bits: float) -> Coded | None:
    """The best of all numbers of levels, each at the largest size that fits into `bits`; None: nothing fits."""
    found = []
    for keep in range(1, len(tokenizer.sizes) + 1):
        grid = largest_grid(image.shape, bits, bits_of(tokenizer, keep))
        if grid:
            found.append(coded(tokenizer, image, grid, keep))
    return max(found, key=lambda one: psnr(image, one.image), default=None)


def bits_of(tokenizer: PictureTokenizer, keep: int) -> float:
    """Bits of a token of which only the first levels are kept."""
    return float(np.log2(tokenizer.sizes[:keep]).sum())


def coded(tokenizer: PictureTokenizer, image: np.ndarray, grid: tuple[int, int], keep: int) -> Coded:
    """The picture encoded at grid (rows, columns) of tokens with `keep` levels, and decoded to its own size."""
    open_graphs(tokenizer)
    small = at_grid(image, grid)
    started = time.perf_counter()
    ids = tokenizer.encode(small)
    encoded = time.perf_counter()
    painted = tokenizer.decode(ids, keep=keep)
    ended = time.perf_counter()
    levels = f", {keep} of {len(tokenizer.sizes)} levels" if len(tokenizer.sizes) > 1 else ""
    how = f"{grid[0]} × {grid[1]} tokens{levels}"
    bits = grid[0] * grid[1] * bits_of(tokenizer, keep)
    return Coded(resized(painted, image.shape), bits, (encoded - started, ended - encoded), how)


def open_graphs(tokenizer: PictureTokenizer) -> None:
    """Run once on a single patch, so that opening the graphs does not count as time."""
    tokenizer.decode(tokenizer.encode(np.zeros((PATCH, PATCH, 3), np.uint8)))


def at_grid(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    return resized(image, (PATCH * grid[0], PATCH * grid[1]))


def unrounded(tokenizer: PictureTokenizer, image: np.ndarray, grid: tuple[int, int]) -> Coded:
    """The decoder on the vectors as they were before they were rounded to codes, as 32-bit numbers."""
    open_graphs(tokenizer)
    small = at_grid(image, grid)
    started = time.perf_counter()
    _, z = tokenizer.vectors(small)
    encoded = time.perf_counter()
    painted = paint_vectors(tokenizer, z)
    seconds = (encoded - started, time.perf_counter() - encoded)
    how = f"{grid[0]} × {grid[1]} vectors of {z.shape[-1]} numbers"
    return Coded(resized(painted, image.shape), 32 * z.size, seconds, how)


def paint_vectors(tokenizer: PictureTokenizer, z: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) uint8 that the network's decoder makes of vectors (h, w, d)."""
    import torch

    network = tokenizer.torch
    with torch.inference_mode():
        up = network.quantizer.up(torch.from_numpy(z).flatten(0, 1)[None])
        pixels = network.decode(up, shape=z.shape[:2])[0].permute(1, 2, 0).numpy()
    return to_uint8(pixels)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    return np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)


def random_codes(tokenizer: PictureTokenizer, image: np.ndarray, grid: tuple[int, int], seed: int) -> Coded:
    """What the decoder paints from codes that say nothing about the picture."""
    ids = np.random.default_rng(seed).integers(0, tokenizer.sizes, (*grid, len(tokenizer.sizes)))
    started = time.perf_counter()
    painted = tokenizer.decode(ids)
    seconds = (0.0, time.perf_counter() - started)
    bits = grid[0] * grid[1] * tokenizer.bits_per_token
    return Coded(resized(painted, image.shape), bits, seconds, f"{grid[0]} × {grid[1]} tokens")


def as_file(kind: str, image: np.ndarray, bits: float, free: bool = False) -> Coded | None:
    """The best JPEG or WebP file within `bits`, over sizes and qualities; None: even the smallest is too large.

    free: the headers do not count."""
    found = []
    for scale in SHRUNK:
        small = resized(image, [max(1, round(scale * side)) for side in image.shape[:2]])

        def cost(quality: int, small: np.ndarray = small) -> int:
            data = file_of(kind, small, quality)
            return 8 * (len(data) - (header_bytes(kind, data) if free else 0))

        quality = bisect_right(range(1, 96), bits, key=cost)  # a file grows with its quality
        if quality:
            found.append(decoded_file(kind, image, small, quality, free))
    return max(found, key=lambda one: psnr(image, one.image), default=None)


def decoded_file(kind: str, image: np.ndarray, small: np.ndarray, quality: int, free: bool) -> Coded:
    from PIL import Image

    started = time.perf_counter()
    data = file_of(kind, small, quality)
    encoded = time.perf_counter()
    painted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    seconds = (encoded - started, time.perf_counter() - encoded)
    headers = 8 * header_bytes(kind, data)
    bits, headers = (8 * len(data) - headers, 0) if free else (8 * len(data), headers)
    how = f"quality {quality} at {small.shape[1]} × {small.shape[0]}"
    return Coded(resized(painted, image.shape), bits, seconds, how, headers)


def file_of(kind: str, image: np.ndarray, quality: int) -> bytes:
    """A JPEG with Huffman tables of its own, or a lossy WebP."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=quality, **({"optimize": True} if kind == "JPEG" else {}))
    return file.getvalue()


def header_bytes(kind: str, data: bytes) -> int:
    """Bytes of a file that hold no picture: tables and sizes (JPEG, ITU-T T.81, Annex B), container and frame header
    (lossy WebP, RFC 9649 section 2.5 and RFC 6386 section 9.1)."""
    if kind == "WebP":
        return 12 + 8 + 10
    at = 2
    while True:  # segments: a marker of two bytes, a length that counts itself
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        at += 2 + length
        if marker == 0xDA:  # the scan begins; the end marker takes two bytes more
            return at + 2


def compared_views(
    image: np.ndarray, done: dict[str, Coded | None], budget: float, origin: str, first: str, seed: int
) -> Result:
    """The pictures with the slider, and all numbers."""
    pixels = image.shape[0] * image.shape[1]
    allowed = budget * pixels / 8
    rows, shown = [], [Shown(name="original", png=pictures.png(image), facts={"bytes, not compressed": 3 * pixels})]
    for name, one in done.items():
        if one is None:
            rows.append((name, *[None] * 7, f"does not fit into {allowed:,.0f} bytes"))
            continue
        quality = psnr(image, one.image)
        size = math.ceil(one.bits / 8)
        times = [1000 * seconds for seconds in one.seconds]
        numbers = (quality, ssim(image, one.image), size, one.headers // 8, one.bits / pixels, *times)
        rows.append((name, *numbers, one.how))
        if not name.endswith(FREE):
            facts = {"PSNR [dB]": round(quality, 2), "bytes": size, "how": one.how}
            shown.append(Shown(name=name, png=pictures.png(one.image), facts=facts, mark=role(name)))
    where = (
        f"{image.shape[1]} × {image.shape[0]} pixels; the budget of {budget:g} bits per pixel is {allowed:,.0f} bytes."
    )
    return Result(
        compared=Pictures(title="The picture again", note=f"{where} {origin}".strip(), items=tuple(shown), slide=True),
        numbers=Table(
            title="In numbers",
            note=f"{where} Time is the wall clock of this run. Random codes: seed {seed}.",
            columns=(
                "Method",
                "PSNR [dB]",
                "SSIM",
                "Size [bytes]",
                "Headers [bytes]",
                "Bits per pixel",
                "Encoding [ms]",
                "Decoding [ms]",
                "Chosen",
            ),
            rows=tuple(rows),
            marks={i: role(row[0]) for i, row in enumerate(rows) if role(row[0])},
            help={
                "PSNR [dB]": "10 log10(255² / mean squared error), against the picture above; more is better.",
                "SSIM": "Structural similarity, 1 for the same picture.",
                "Size [bytes]": "Tokens: log2 of the codebook's size for each code, not compressed any further, and "
                "without the codebook and the decoder, which both ends must have.",
                "Headers [bytes]": "The part of the size with which a file describes itself; tokens have none.",
                "Chosen": "The settings with the highest PSNR of those that fit into the budget. Time is that of "
                "these settings alone, without the search.",
                f"{first}, no rounding": "The same encoder and decoder, but the vectors are not rounded to codes. It "
                "does not keep to the budget; its decoder runs in PyTorch, the others' in ONNX Runtime.",
                f"{first}, random codes": f"Every code drawn at random from the codebook of {first}.",
            },
        ),
    )


def role(name: str) -> str:
    """What a row is for, in a word."""
    return {"no rounding": "full", "random codes": "random"}.get(name.partition(", ")[2], "")


def differences_view(image: np.ndarray, done: dict[str, Coded | None]) -> Pictures:
    items = tuple(
        Shown(name=name, png=pictures.png(difference(image, one.image)), mark=role(name))
        for name, one in done.items()
        if one is not None and not name.endswith(FREE)
    )
    note = f"{AMPLIFY} times the mean absolute difference of red, green and blue; white from {255 / AMPLIFY:.0f} on."
    return Pictures(title="What is lost", note=note, items=items)


# --- codes


def codes_view(tokenizer: PictureTokenizer, image: np.ndarray) -> Codes:
    """The picture as codes of all levels."""
    ids = tokenizer.encode(image)
    sheet: list[np.ndarray] = []
    levels = tuple(code_level(tokenizer, ids, level, sheet) for level in range(len(tokenizer.sizes)))
    where = ", ".join(tokenizer.held_out().pictures)
    many = f" of {len(levels)} levels" if len(levels) > 1 else ""
    return Codes(
        title=f"{tokenizer.name}: the picture and its codes",
        note=f"Tokens of {tokenizer.bits_per_token:.3g} bits{many}. Use is counted on held-out photographs: {where}.",
        png=pictures.png(tokenizer.decode(ids)),
        grid=ids.shape[:2],
        levels=levels,
        sheet=pictures.png(sheet_of(np.concatenate(sheet))),
        tile=PATCH,
        across=32,
    )


def code_level(tokenizer: PictureTokenizer, ids: np.ndarray, level: int, sheet: list[np.ndarray]) -> CodeLevel:
    """One level; its tiles are added to the sheet, a list of (n, 8, 8, 3)."""
    guard.check_time()
    counts = tokenizer.held_out().counts[level]
    points, shares = plane(tokenizer.codebook(level))
    first = sum(map(len, sheet))
    tiles = tokenizer.tiles(level)
    patches, nearest = tokenizer.nearest(level, PATCHES)
    sheet += [tiles, patches]
    return CodeLevel(
        name=f"level {level + 1}" if len(tokenizer.sizes) > 1 else tokenizer.name,
        ids=tuple(ids[..., level].ravel().tolist()),
        size=len(tiles),
        counts=tuple(counts.tolist()),
        counted=int(counts.sum()),
        x=tuple(points[:, 0].round(4).tolist()),
        y=tuple(points[:, 1].round(4).tolist()),
        decoded=tuple(range(first, first + len(tiles))),
        nearest={code: tuple(first + len(tiles) + i for i in places) for code, places in nearest.items()},
        facts={"% of the codebook's variance on the map": round(100 * sum(shares))},
    )


def sheet_of(tiles: np.ndarray, across: int = 32) -> np.ndarray:
    """Tiles (n, 8, 8, 3) uint8 side by side, `across` in a row: (H, 8 across, 3)."""
    empty = -len(tiles) % across
    tiles = np.concatenate((tiles, np.zeros((empty, *tiles.shape[1:]), np.uint8)))
    rows = tiles.reshape(-1, across, PATCH, PATCH, 3)
    return rows.swapaxes(1, 2).reshape(-1, across * PATCH, 3)


# --- swap a code


def swap(
    tokenizer: PictureTokenizer, image: np.ndarray, place: tuple[int, int], level: int, wanted: str, seed: int
) -> Result:
    """The picture before and after one code of the token at `place` (row, column) was exchanged."""
    ids = tokenizer.encode(image)
    if place[0] >= ids.shape[0] or place[1] >= ids.shape[1]:
        raise UserError(
            f"This picture has {ids.shape[0]} rows and {ids.shape[1]} columns of tokens; please choose one of them."
        )
    if level >= len(tokenizer.sizes):
        raise UserError(f"{tokenizer.name} has only {len(tokenizer.sizes)} levels; please choose another codebook.")
    book = tokenizer.codebook(level)
    old = int(ids[(*place, level)])
    new = other_code(wanted, book, old, seed)
    changed = ids.copy()
    changed[(*place, level)] = new
    pixels = [paint_codes(tokenizer, one) for one in (ids, changed)]
    before, after = map(to_uint8, pixels)
    change = 255 * np.abs(pixels[1] - pixels[0]).max(-1)
    distance = steps_from(place, change.shape)
    where = f"Row {place[0] + 1}, column {place[1] + 1}: code {old} becomes {new}."
    names = (f"before: {old}", f"after: {new}", f"difference, {AMPLIFY} times")
    drawn = (before, after, np.repeat(difference(before, after)[..., None], 3, -1))
    near = close_up(place, before.shape)
    return Result(
        swapped=Pictures(title="One code exchanged", note=where, items=named(names, drawn), slide=True),
        close=Pictures(
            title="Close up",
            note=f"{AROUND} tokens on each side of the exchanged one.",
            items=named(names, [one[near] for one in drawn]),
            slide=True,
        ),
        change=change_table(change, distance, before, after, float(np.linalg.norm(book[old] - book[new])), where),
        reach=reach_view(change, distance, where),
    )


def paint_codes(tokenizer: PictureTokenizer, ids: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) float32 of ids (h, w, L) by the network itself, neither clipped nor rounded, so that even the
    smallest change can be measured."""
    import torch

    from tokenlab.codebooks.quantizers import TokenBatch

    with torch.inference_mode():
        tokens = TokenBatch(torch.from_numpy(ids).flatten(0, 1)[None], "grid", ids.shape[:2])
        return tokenizer.torch.decode(tokens)[0].permute(1, 2, 0).numpy()


def named(names: Sequence[str], drawn: Sequence[np.ndarray]) -> tuple[Shown, ...]:
    return tuple(Shown(name=name, png=pictures.png(one)) for name, one in zip(names, drawn, strict=True))


def other_code(wanted: str, book: np.ndarray, own: int, seed: int) -> int:
    """The code that `wanted` means: a number, or the nearest entry, the farthest one, a random one, never `own`.

    book: (K, d). UserError: none of these, or a number that the codebook does not have."""
    wanted = wanted.strip().lower()
    if wanted == RANDOM:
        return int((own + np.random.default_rng(seed).integers(1, len(book))) % len(book))
    if wanted in (NEAREST, OPPOSITE):
        apart = ((book - book[own]) ** 2).sum(-1)
        apart[own] = np.inf if wanted == NEAREST else -np.inf
        return int(apart.argmin() if wanted == NEAREST else apart.argmax())
    if not (wanted.isascii() and wanted.isdigit() and int(wanted) < len(book)):
        raise UserError(f"New code: please give a number from 0 to {len(book) - 1}, or {', '.join(OTHERS)}.")
    return int(wanted)


def steps_from(place: tuple[int, int], shape: Sequence[int]) -> np.ndarray:
    """(H, W): how many pixels each one lies outside of the token's own patch, along rows or columns, whichever is
    more; 0 inside."""
    rows, columns = (
        np.maximum(np.maximum(PATCH * at - np.arange(side), np.arange(side) - (PATCH * at + PATCH - 1)), 0)
        for at, side in zip(place, shape[:2], strict=True)
    )
    return np.maximum(rows[:, None], columns[None])


def close_up(place: tuple[int, int], shape: Sequence[int]) -> tuple[slice, slice]:
    """The pixels of up to AROUND tokens on each side."""
    return tuple(
        slice(PATCH * max(0, at - AROUND), min(side, PATCH * (at + AROUND + 1)))
        for at, side in zip(place, shape[:2], strict=True)
    )


def change_table(
    change: np.ndarray, distance: np.ndarray, before: np.ndarray, after: np.ndarray, apart: float, where: str
) -> Table:
    visible = change >= 1
    energy = change**2
    inside = 100 * float(energy[distance == 0].sum() / energy.sum()) if energy.any() else None
    rows = (
        ("pixels that change by 1 of 255 or more", int(visible.sum())),
        ("of these the farthest from the patch [pixels]", farthest(visible, distance)),
        ("the farthest pixel that changes at all [pixels]", farthest(change > 0, distance)),
        ("share of the squared change inside the patch [%]", inside),
        ("PSNR of before and after [dB]", psnr(before, after) if (before != after).any() else None),
        ("distance of the two entries in the codebook", apart),
    )
    return Table(title="How much changes", note=where, columns=("What", "Value"), rows=rows)


def farthest(changed: np.ndarray, distance: np.ndarray) -> int | None:
    return int(distance[changed].max()) if changed.any() else None


def reach_view(change: np.ndarray, distance: np.ndarray, where: str) -> Lines:
    """The change ring by ring around the patch."""
    steps = range(int(distance[change > 0].max(initial=0)) + 2)
    rings = [change[distance == step] for step in steps]
    rings = [ring for ring in rings if ring.size]
    x = tuple(range(len(rings)))

    def curve(name: str, values: Sequence[float]) -> Series:
        return Series(name=name, x=x, y=tuple(value if value > 0 else None for value in values))

    return Lines(
        title="How far the change reaches",
        note=f"{where} The curves end where nothing changes any more, because the decoder no longer sees this token, "
        "or at the picture's edge.",
        series=(
            curve("largest", [float(ring.max()) for ring in rings]),
            curve("mean", [float(ring.mean()) for ring in rings]),
        ),
        x="distance from the patch [pixels]",
        y="change [of 255]",
        log_y=True,
    )


# --- fewer levels, fewer codes


def fewer(vq: PictureTokenizer, rvq: PictureTokenizer, image: np.ndarray, origin: str, seed: int) -> Iterator[Result]:
    """rvq with its levels cut off one by one; then vq with fewer and fewer codes."""
    levels, by_level = level_views(rvq, image, origin, seed)
    yield Result(levels=levels, by_level=by_level)
    for views in merged_views(vq, image, seed):
        yield Result(levels=levels, by_level=by_level, **views)


def level_views(tokenizer: PictureTokenizer, image: np.ndarray, origin: str, seed: int) -> tuple[Pictures, Table]:
    grid = image.shape[0] // PATCH, image.shape[1] // PATCH
    count = len(tokenizer.sizes)
    done = {f"{keep} of {count} levels": coded(tokenizer, image, grid, keep) for keep in range(1, count + 1)}
    done["all levels, no rounding"] = unrounded(tokenizer, image, grid)
    done["all levels, random codes"] = random_codes(tokenizer, image, grid, seed)
    pixels = image.shape[0] * image.shape[1]
    rows, shown = [], [Shown(name="original", png=pictures.png(image))]
    for name, one in done.items():
        quality = psnr(image, one.image)
        rows.append((name, one.bits / (grid[0] * grid[1]), one.bits / pixels, quality, ssim(image, one.image)))
        facts = {"PSNR [dB]": round(quality, 2), "bits per pixel": round(one.bits / pixels, 3)}
        shown.append(Shown(name=name, png=pictures.png(one.image), facts=facts, mark=role(name)))
    return (
        Pictures(title=f"{tokenizer.name}, level by level", note=origin, items=tuple(shown), slide=True),
        Table(
            title="What each level adds",
            columns=("Kept", "Bits per token", "Bits per pixel", "PSNR [dB]", "SSIM"),
            rows=tuple(rows),
            marks={i: role(row[0]) for i, row in enumerate(rows) if role(row[0])},
            note=f"{grid[0]} × {grid[1]} tokens; random codes: seed {seed}.",
        ),
    )


def merged_views(
    tokenizer: PictureTokenizer, image: np.ndarray, seed: int
) -> Iterator[dict[str, Lines | Table | Pictures]]:
    """The views of the merging, after every size of the codebook: all codes, then half of them, and so on to 2."""
    ids, book, counts = tokenizer.encode(image)[..., 0], tokenizer.codebook(), tokenizer.held_out().counts[0]
    by_use = np.argsort(-counts, kind="stable")
    rng = np.random.default_rng(seed)
    sizes, best, chance, rows = [], [], [], []
    shown = [Shown(name="original", png=pictures.png(image))]
    size = len(book)
    while size >= 2:
        guard.check_time()
        target = merging(book, by_use[:size])
        mapped = target[ids]
        painted = tokenizer.decode(mapped[..., None])
        draws = [rng.permutation(len(book))[:size] for _ in range(DRAWS if size < len(book) else 1)]
        drawn = [tokenizer.decode(merging(book, kept)[ids][..., None]) for kept in draws]
        sizes.append(size)
        best.append(psnr(image, painted))
        chance.append([psnr(image, one) for one in drawn])
        used = len(np.unique(mapped))
        share = 100 * float(counts[by_use[:size]].sum() / counts.sum())
        perplexity = float(np.exp(entropy(np.bincount(target, counts))))
        rows.append((size, math.log2(size), share, perplexity, used, best[-1], float(np.mean(chance[-1]))))
        if len(sizes) % 2:
            facts = {"PSNR [dB]": round(best[-1], 2), "codes used here": used}
            shown.append(Shown(name=f"{size:,} codes", png=pictures.png(painted), facts=facts))
        yield {
            "merging": merging_lines(tokenizer.name, sizes, best, chance, seed),
            "by_size": merging_table(rows),
            "merged": Pictures(title="With fewer codes", items=tuple(shown), slide=True),
        }
        size //= 2


def merging(book: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(K,) the code that each code becomes: the nearest of the `kept` ones, itself if it is one. book: (K, d)."""
    entries = book[kept]
    apart = (entries**2).sum(-1) - 2 * book @ entries.T
    target = kept[apart.argmin(-1)]
    target[kept] = kept  # also where two entries are the same
    return target


def merging_lines(
    name: str, sizes: Sequence[int], best: Sequence[float], chance: Sequence[Sequence[float]], seed: int
) -> Lines:
    x = tuple(sizes)
    random = Series(
        name="a random choice is kept",
        x=x,
        y=tuple(float(np.mean(one)) for one in chance),
        low=tuple(map(min, chance)),
        high=tuple(map(max, chance)),
    )
    return Lines(
        title="How many codes does the picture need?",
        note=f"{name}: a code that is dropped becomes the nearest one that is kept. Random choice: mean and range of "
        f"{DRAWS} draws, seed {seed}. Nothing is trained again.",
        series=(Series(name="the most used codes are kept", x=x, y=tuple(best)), random),
        x="codes in the codebook",
        y="PSNR [dB]",
        log_x=True,
    )


def merging_table(rows: Sequence[tuple]) -> Table:
    return Table(
        title="Smaller codebooks in numbers",
        columns=(
            "Codes",
            "Bits per token",
            "Use [%]",
            "Perplexity",
            "Codes in this picture",
            "PSNR [dB]",
            "PSNR, random choice [dB]",
        ),
        rows=tuple(rows),
        help={
            "Use [%]": "Share of all use on held-out photographs that falls on the kept codes, before the others join.",
            "Perplexity": "Of the use on held-out photographs, after the others have joined.",
            "Codes in this picture": "Different codes that the picture still uses.",
        },
    )
