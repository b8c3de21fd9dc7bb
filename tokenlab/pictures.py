"""References to pictures: strings that travel in links, in the API and on the command line.

    photo:astronaut            a photograph that comes with scikit-image or scikit-learn
    scene:7                    a drawn scene, by its seed (tokenlab.pruning.scenes)
    upload:0123456789abcdef    an upload, by the SHA-256 of its bytes; lives as long as the server
    data:image/png;base64,...  the bytes themselves; check_ref keeps them and gives their upload:HASH

Every picture becomes 8-bit RGB with its longest side at most limits.PICTURE_SIDE: the first frame, turned as EXIF
says, on white where it is transparent. Colour profiles are not applied, and CMYK is converted without one.
"""

from __future__ import annotations

import base64
import io
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.uploads import UPLOAD, Uploads, quoted, read_base64, read_path, reference

if TYPE_CHECKING:  # importing NumPy and Pillow costs more than most uses of this module
    import numpy as np
    from PIL import Image

_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")

# name -> (label, folder of the package, file). All of them are inside the wheels; nothing is downloaded.
_PHOTOS = {
    "astronaut": ("Astronaut", _SKIMAGE, "astronaut.png"),
    "chelsea": ("Cat", _SKIMAGE, "chelsea.png"),
    "coffee": ("Cup of coffee", _SKIMAGE, "coffee.png"),
    "rocket": ("Rocket", _SKIMAGE, "rocket.jpg"),
    "motorcycle": ("Motorcycle", _SKIMAGE, "motorcycle_left.png"),
    "china": ("Temple in China", _SKLEARN, "china.jpg"),
    "flower": ("Flower", _SKLEARN, "flower.jpg"),
    "hubble_deep_field": ("Galaxies", _SKIMAGE, "hubble_deep_field.jpg"),
    "retina": ("Retina of an eye", _SKIMAGE, "retina.jpg"),
    "ihc": ("Stained tissue", _SKIMAGE, "ihc.png"),
    "camera": ("Cameraman (grey)", _SKIMAGE, "camera.png"),
    "coins": ("Coins (grey)", _SKIMAGE, "coins.png"),
    "moon": ("Moon (grey)", _SKIMAGE, "moon.png"),
    "brick": ("Brick wall (grey)", _SKIMAGE, "brick.png"),
    "grass": ("Grass (grey)", _SKIMAGE, "grass.png"),
    "gravel": ("Gravel (grey)", _SKIMAGE, "gravel.png"),
    "page": ("Printed page (grey)", _SKIMAGE, "page.png"),
    "text": ("Handwriting (grey)", _SKIMAGE, "text.png"),
}
PHOTOS: dict[str, str] = {name: label for name, (label, _, _) in _PHOTOS.items()}
SCENES = (1, 2, 3, 4, 5, 6)  # the seeds that a menu offers

# What browsers and cameras write. Not TIFF: the size of its tiles is not held to the size of the picture.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_NAMED = "PNG, JPEG, WEBP, GIF or BMP"
_SCENE = re.compile(r"scene[: ](\d{1,10})", re.ASCII | re.IGNORECASE)
_DATA = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII | re.IGNORECASE)


def offered() -> list[tuple[str, str]]:
    """(label, reference) of what a menu shows: the photographs and a few drawn scenes."""
    refs = [*(f"photo:{name}" for name in PHOTOS), *(f"scene:{seed}" for seed in SCENES)]
    return [(label(ref), ref) for ref in refs]


def check_ref(ref: str) -> str:
    """The reference that `ref` means: itself, a name or label of the menu, or data:image/...;base64,... kept as upload.

    UserError: none of these, or the data is no picture that can be read."""
    if match := _DATA.match(ref):
        return register_bytes(read_base64(ref[match.end() :], _check_size, "picture"))
    if match := _SCENE.fullmatch(ref):
        if int(match[1]) < 2**31:
            return f"scene:{int(match[1])}"
        raise UserError("The seed of a scene is a whole number from 0 to 2147483647, such as scene:7.")
    if UPLOAD.fullmatch(ref):
        return ref
    known = {text.lower(): name for name, label in PHOTOS.items() for text in (name, label, f"photo:{name}")}
    if ref.lower() in known:
        return f"photo:{known[ref.lower()]}"
    raise UserError(
        f"There is no picture {quoted(ref)}; please choose one from the list, photo:NAME, scene:NUMBER or an upload."
    )


def label(ref: str) -> str:
    """A short name to show. UserError: the reference is not well formed."""
    ref = check_ref(ref)
    kind, _, rest = ref.partition(":")
    if kind == "upload":
        return _uploads.label(ref) or f"Upload {rest[:8]}"
    return PHOTOS[rest] if kind == "photo" else f"Scene {rest}"


def load(ref: str) -> np.ndarray:
    """The picture that `ref` names: (H, W, 3) uint8 RGB, longest side at most limits.PICTURE_SIDE.

    Photographs and uploads are shared and cannot be written to. UserError: malformed, or an upload that is gone."""
    ref = check_ref(ref)
    kind, _, rest = ref.partition(":")
    if kind == "photo":
        return _photo(rest)
    if kind == "scene":
        from tokenlab.pruning.scenes import scene  # late: the scenes belong to the pruning family

        return scene(int(rest)).pixels
    pixels = _uploads.get(ref)
    if pixels is None:
        raise UserError("This picture is no longer here: uploads do not travel with links; please upload it again.")
    return pixels


def register_bytes(data: bytes, name: str = "") -> str:
    """Keep an uploaded picture and give its reference, "upload:" and 16 hex digits of the SHA-256 of `data`.

    data: a file in one of FORMATS, at most limits.PICTURE_BYTES and limits.PICTURE_PIXELS; name: of the file.
    UserError: empty, too large, of another kind, damaged."""
    _check_size(len(data))
    ref = reference(data)
    if _uploads.get(ref) is None:
        pixels = _read(data)
        _uploads.put(ref, pixels, pixels.nbytes, name)
    return ref


def register_path(path: str | Path) -> str:
    """register_bytes for a file on this machine, which no link or endpoint can name. UserError: it cannot be read."""
    return register_bytes(*read_path(path, _check_size))


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a picture at another size; every new pixel is the mean of the area that it covers.

    image: (H, W, 3) uint8 -> (size, size, 3) uint8. A picture that is too small is enlarged the same way."""
    import numpy as np

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[top : top + side, left : left + side].astype(np.float64)
    mean = _area_mean(side, size)
    rows = np.tensordot(mean, middle, axes=1)  # (size, side, 3)
    return np.rint(np.einsum("jw,iwc->ijc", mean, rows, optimize=True)).astype(np.uint8)


def _area_mean(side: int, size: int) -> np.ndarray:
    """(size, side): row i holds how much of the i-th of `size` equal parts each of `side` pixels makes up."""
    import numpy as np

    edges = np.arange(size + 1) * (side / size)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(side)[None]
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) * (size / side)


def png(image: np.ndarray) -> str:
    """A picture as base64 of a PNG. image: (H, W, 3) or (H, W) uint8."""
    from PIL import Image

    if image.dtype != "uint8" or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"a PNG is made of (H, W, 3) or (H, W) uint8, not {image.shape} {image.dtype}")
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@lru_cache
def _photo(name: str) -> np.ndarray:
    # find_spec of the package alone: importing it costs more than reading the file.
    _, (package, folder), filename = _PHOTOS[name]
    return _read((Path(find_spec(package).origin).parent / folder / filename).read_bytes())


def _read(data: bytes) -> np.ndarray:
    """The bytes of a file as (H, W, 3) uint8, not writable. Size is refused by the header, before any pixel."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    _check_pixels(*_webp_size(data))
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(*image.size)
        image = _small(image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"This file is not a picture that can be read; please save it as {_NAMED}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels() from None
    except MemoryError:
        raise
    except Exception as error:  # a broken file reaches every corner of a decoder, whose errors have no common class
        raise UserError("This picture is damaged or cut off; please save it again and load the new file.") from error
    pixels = np.asarray(image).copy()
    pixels.flags.writeable = False
    return pixels


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) that the header of a WebP file claims, (0, 0) for other files: Pillow allocates these on opening.

    Source: RFC 9649, sections 2.5 to 2.7."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _small(image: Image.Image) -> Image.Image:
    """An opened image decoded: RGB, on white, the right way up, longest side at most limits.PICTURE_SIDE."""
    from PIL import Image, ImageOps

    size = _fitting(*image.size)
    image.draft(None, size)  # JPEG alone: decodes at 1/2, 1/4 or 1/8, but never below `size`
    image.load()
    image = _grey_8_bit(image) if image.mode.startswith("I") else image
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _grey_8_bit(image: Image.Image) -> Image.Image:
    """16 bits of grey as their upper 8, as Pillow does in colour; grey it would clip. A transparent value is white."""
    import numpy as np
    from PIL import Image

    grey = np.asarray(image)
    white = grey == image.info.get("transparency", -1)
    small = Image.fromarray(np.where(white, 255, grey >> 8).astype(np.uint8))
    small.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return small


def _fitting(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, limits.PICTURE_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _check_size(count: int) -> None:
    if count == 0:
        raise UserError("This file is empty; please load a picture.")
    if count > limits.PICTURE_BYTES:
        raise UserError(f"This file is larger than {limits.PICTURE_BYTES // 1_000_000} MB; please shrink the picture.")


def _check_pixels(width: int, height: int) -> None:
    if width * height > limits.PICTURE_PIXELS:
        raise _too_many_pixels()


def _too_many_pixels() -> UserError:
    most = limits.PICTURE_PIXELS // 1_000_000
    return UserError(f"This picture has more than {most} million pixels; please scale it down and load it again.")


_uploads = Uploads(limits.UPLOADED_PICTURES, limits.UPLOADED_PICTURE_BYTES)
