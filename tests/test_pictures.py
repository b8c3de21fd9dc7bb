"""References to pictures, and files as people and attackers send them: right, or one sentence."""

import base64
import io
import struct
import subprocess
import sys
import zlib
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tokenlab import limits, pictures
from tokenlab.errors import UserError
from tokenlab.uploads import Uploads

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def file(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def array_file(values, dtype=np.uint8, **options):
    return file(Image.fromarray(np.array(values, dtype)), **options)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width, height, depth, colour, rows=b"", extra=b""):
    """A PNG written by hand: colour is 0 (grey), 2 (RGB); rows hold their filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def webp(kind, data):
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data + bytes(40)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read(data):
    return pictures.load(pictures.register_bytes(data))


def jpeg_bomb():
    """A small JPEG whose header claims 65,535 x 65,535."""
    data = file(Image.new("RGB", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0") + 5  # marker, length, bits per sample; then height and width
    return data[:at] + b"\xff" * 4 + data[at + 4 :]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every test has a memory of its own."""
    monkeypatch.setattr(pictures, "_uploads", Uploads(8, 10**8))


def animated_gif():
    frames = [Image.new("RGB", (4, 3), colour) for colour in (RED, GREEN, BLUE)]
    return file(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


def rotated_jpeg():
    """Left half red, right half blue as stored; orientation 6: shown turned clockwise by 90 degrees."""
    stored = Image.new("RGB", (32, 16), RED)
    stored.paste(BLUE, (16, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(stored, "JPEG", quality=95, exif=exif, subsampling=0)


def palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    return file(image, transparency=1)


ODD = {
    "1x1": (array_file([[[1, 2, 3]]]), [[[1, 2, 3]]]),
    "grey": (array_file([[0, 128, 255]]), [[[0] * 3, [128] * 3, [255] * 3]]),
    "black and white": (file(Image.new("1", (2, 1), 1)), [[WHITE, WHITE]]),
    "16-bit grey": (array_file([[255, 256, 32896, 65535]], np.uint16), [[[v] * 3 for v in (0, 1, 128, 255)]]),
    "16-bit grey, transparent": (
        raw_png(2, 1, 16, 0, b"\0\x12\x34\x12\x35", png_chunk(b"tRNS", b"\x12\x34")),
        [[WHITE, [0x12] * 3]],
    ),
    "16-bit RGB": (
        raw_png(2, 1, 16, 2, b"\0" + bytes.fromhex("ffff00008080 0000ffff0101")),
        [[[255, 0, 128], [0, 255, 1]]],
    ),
    "RGB and alpha": (array_file([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 51]]]), [[WHITE, RED, [204] * 3]]),
    "all transparent": (array_file([[[0, 255, 0, 0]]]), [[WHITE]]),
    "grey and alpha": (file(Image.new("LA", (1, 1), (0, 128))), [[[127] * 3]]),
    "RGB, one colour transparent": (
        raw_png(2, 1, 8, 2, b"\0" + bytes([*RED, *BLUE]), png_chunk(b"tRNS", struct.pack(">HHH", *RED))),
        [[WHITE, BLUE]],
    ),
    "palette, transparent": (palette_with_transparency(), [[RED, WHITE]]),
    "animated GIF": (animated_gif(), [[RED] * 4] * 3),
    "BMP": (file(Image.new("RGB", (3, 2), GREEN), "BMP"), [[GREEN] * 3] * 2),
    "WEBP": (file(Image.new("RGB", (3, 2), BLUE), "WEBP", lossless=True), [[BLUE] * 3] * 2),
    "WEBP, transparent": (file(Image.new("RGBA", (3, 2)), "WEBP", lossless=True), [[WHITE] * 3] * 2),
}


@pytest.mark.parametrize(("data", "expected"), ODD.values(), ids=ODD)
def test_odd_pictures_come_out_right(data, expected):
    pixels = read(data)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_cmyk_is_ink_on_paper():
    colours = [((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), WHITE)]
    for ink, light in colours:
        pixels = read(file(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95))
        np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(light, (16, 16, 3)), atol=6)


def test_a_picture_is_turned_as_its_camera_says():
    pixels = read(rotated_jpeg()).astype(int)
    assert pixels.shape == (32, 16, 3)
    np.testing.assert_allclose(pixels[4, 8], RED, atol=6)  # turned clockwise, the left half comes on top
    np.testing.assert_allclose(pixels[27, 8], BLUE, atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_on_a_large_picture_that_is_scaled_down(orientation):
    """The four quarters, as EXIF 2.3 defines where row 0 and column 0 go."""
    stored = Image.new("RGB", (2400, 1600))
    for colour, corner in ((RED, (0, 0)), (GREEN, (1200, 0)), (BLUE, (0, 800)), (WHITE, (1200, 800))):
        stored.paste(colour, (*corner, corner[0] + 1200, corner[1] + 800))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(file(stored, "JPEG", exif=exif, subsampling=0)).astype(int)
    height, width = pixels.shape[:2]
    assert (height, width) == ((683, 1024) if orientation <= 4 else (1024, 683))
    shown = [pixels[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    r, g, b, w = RED, GREEN, BLUE, WHITE
    quarters = {1: (r, g, b, w), 2: (g, r, w, b), 3: (w, b, g, r), 4: (b, w, r, g)}
    quarters |= {5: (r, b, g, w), 6: (b, r, w, g), 7: (w, g, b, r), 8: (g, w, r, b)}
    np.testing.assert_allclose(shown, quarters[orientation], atol=8)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((1, 5000), (1024, 1)), ((5000, 1), (1, 1024)), ((5000, 3000), (614, 1024)), ((1024, 7), (7, 1024))],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_and_long_pictures_are_scaled_down(size, shape, kind):
    pixels = read(file(Image.new("RGB", size, (40, 80, 120)), kind))
    assert pixels.shape == (*shape, 3)
    assert abs(pixels.astype(int) - (40, 80, 120)).max() <= 2
    assert pictures.square(pixels, 96).shape == (96, 96, 3)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><rect width="9" height="9"/></svg>'
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


KIND = "save it as PNG, JPEG, WEBP, GIF or BMP"
PIXELS = "25 million pixels"
WRONG = {
    "empty": (b"", "empty"),
    "text named .png": (b"Dear reader, this is text.", KIND),
    "SVG": (SVG, KIND),
    "PDF": (b"%PDF-1.7\n", KIND),
    "HEIC": (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", KIND),
    "TIFF": (file(Image.new("RGB", (4, 4)), "TIFF"), KIND),
    "ICO": (file(Image.new("RGB", (16, 16)), "ICO"), KIND),
    "signature alone": (b"\x89PNG\r\n\x1a\n", KIND),
    "huge file": (bytes(limits.PICTURE_BYTES + 1), "larger than 20 MB"),
    "20,000 x 20,000, header": (raw_png(20_000, 20_000, 8, 2), PIXELS),
    "20,000 x 20,000, whole": (file(Image.new("1", (20_000, 20_000))), PIXELS),
    "just too many": (file(Image.new("L", (5001, 5000))), PIXELS),
    "PNG bomb": (raw_png(2**31 - 1, 2**31 - 1, 8, 2), PIXELS),
    "long PNG bomb": (raw_png(2**31 - 1, 1, 16, 2), PIXELS),
    "GIF bomb": (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;", PIXELS),
    "GIF bomb in its frame": (b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;", PIXELS),
    "BMP bomb": (b"BM" + struct.pack("<3I3i2H6I", 99, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0), PIXELS),
    "WEBP bomb": (webp(b"VP8X", bytes(4) + b"\xfe\x3f\0\xfe\x3f\0"), PIXELS),
    "lossless WEBP bomb": (webp(b"VP8L", b"\x2f" + struct.pack("<I", 16382 | 16382 << 14)), PIXELS),
    "lossy WEBP bomb": (webp(b"VP8 ", bytes(3) + b"\x9d\1\x2a\xff\x3f\xff\x3f"), PIXELS),
    "JPEG bomb": (jpeg_bomb(), PIXELS),
    "too few rows": (raw_png(8, 8, 8, 2, b"\0\1\2\3"), "damaged"),
    **{f"truncated {kind}": (file(Image.fromarray(NOISE), kind)[:-200], "damaged") for kind in KINDS},
}


@pytest.mark.parametrize(("data", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_picture_is_one_sentence(data, says):
    with pytest.raises(UserError) as caught:
        pictures.register_bytes(data, "picture.png")
    sentence = str(caught.value)
    assert says in sentence and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 160


def test_a_bomb_is_refused_before_memory_is_taken():
    """In a process that may take 300 MB more: 2**31 pixels, and a WebP whose two canvases would be 1 GB each."""
    code = """if True:
        import resource, sys
        from PIL import Image, WebPImagePlugin
        from tests.test_pictures import file, raw_png, webp
        from tokenlab import pictures
        from tokenlab.errors import UserError
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        bombs = [raw_png(46_340, 46_340, 8, 2), raw_png(9_000, 9_000, 16, 2), file(Image.new("1", (20_000, 20_000)))]
        small = file(Image.new("RGB", (8, 8)), "WEBP", lossless=True)[12:]
        frame = bytes(6) + b"\\7\\0\\0\\7\\0\\0" + bytes(4) + small
        chunks = b"\\2" + bytes(3) + b"\\xfe\\x3f\\0\\xfe\\x3f\\0" + b"ANIM" + b"\\6" + bytes(9) + b"ANMF"
        bombs.append(webp(b"VP8X", chunks + len(frame).to_bytes(4, "little") + frame))
        resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
        for bomb in bombs:
            try:
                pictures.register_bytes(bomb)
            except UserError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("25 million pixels") == 4, done.stderr


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_never_escape_as_another_error(data):
    whole = bytearray(file(Image.fromarray(NOISE[:16, :16]), data.draw(st.sampled_from(KINDS))))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = read(bytes(whole))
    except UserError as error:
        assert "Something went wrong" not in str(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and max(pixels.shape) <= limits.PICTURE_SIDE


def test_a_reference_is_the_hash_of_the_bytes_however_they_come(tmp_path):
    data = array_file([[[9, 8, 7]]])
    ref = f"upload:{sha256(data).hexdigest()[:16]}"
    (tmp_path / "a<b>.png").write_bytes(data)
    assert pictures.register_bytes(data) == ref
    assert pictures.label(ref) == f"Upload {ref[7:15]}"
    assert pictures.register_path(tmp_path / "a<b>.png") == ref
    pictures._uploads.entries.clear()
    assert pictures.register_path(tmp_path / "a<b>.png") == ref
    assert pictures.label(ref) == f"a_b_.png {ref[-4:]}"
    assert pictures.check_ref(f"data:image/jpeg;base64,{base64.b64encode(data).decode()}") == ref  # whatever it claims
    np.testing.assert_array_equal(pictures.load(ref), [[[9, 8, 7]]])


def test_an_upload_that_is_gone_says_so():
    assert pictures.check_ref("upload:0123456789abcdef") == "upload:0123456789abcdef"
    assert pictures.label("upload:0123456789abcdef") == "Upload 01234567"
    with pytest.raises(UserError, match="please upload it again"):
        pictures.load("upload:0123456789abcdef")


@pytest.mark.parametrize(
    ("given", "ref", "label"),
    [
        ("photo:astronaut", "photo:astronaut", "Astronaut"),
        ("Photo:Chelsea", "photo:chelsea", "Cat"),
        ("cat", "photo:chelsea", "Cat"),
        ("rocket", "photo:rocket", "Rocket"),
        ("scene:7", "scene:7", "Scene 7"),
        ("Scene 07", "scene:7", "Scene 7"),
        ("scene:2147483647", "scene:2147483647", "Scene 2147483647"),
    ],
)
def test_references_and_what_people_type_for_them(given, ref, label):
    assert pictures.check_ref(given) == ref and pictures.label(given) == label


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "no picture"),
        ("photo:", "no picture"),
        ("photo:../../../../etc/passwd", "no picture"),
        ("/etc/passwd", "no picture"),
        ("file:///etc/passwd", "no picture"),
        ("https://example.org/a.png", "no picture"),
        ("<img src=x onerror=alert(1)>", "no picture"),
        ("scene:2147483648", "0 to 2147483647"),
        ("scene:-1", "no picture"),
        ("scene:1.5", "no picture"),
        ("scene:" + "9" * 5000, "no picture"),
        ("scene:\u0667", "no picture"),
        ("upload:0123", "no picture"),
        ("upload:0123456789ABCDEF", "no picture"),
        ("data:text/html;base64,PGI+", "no picture"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,A", "cut off"),
        ("data:image/png;base64,é", "cut off"),
        ("data:image/svg+xml;base64," + base64.b64encode(SVG).decode(), "save it as PNG"),
        ("data:image/png;base64," + "A" * 30_000_000, "larger than 20 MB"),
    ],
)
def test_a_bad_reference_is_one_sentence(given, says):
    with pytest.raises(UserError) as caught:
        pictures.check_ref(given)
    sentence = str(caught.value)
    assert says in sentence and "<" not in sentence and "\n" not in sentence and len(sentence) < 250


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match='"none.png" cannot be read'):
        pictures.register_path(tmp_path / "none.png")
    with pytest.raises(UserError, match="cannot be read"):
        pictures.register_path(tmp_path)


def test_a_large_file_is_not_even_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as out:
        out.truncate(10**12)  # a sparse file; reading it would fill the memory
    with pytest.raises(UserError, match="larger than 20 MB"):
        pictures.register_path(path)


@pytest.mark.parametrize("name", pictures.PHOTOS)
def test_every_photograph_is_in_its_package(name):
    pixels = pictures.load(f"photo:{name}")
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and 150 < min(pixels.shape[:2])
    assert max(pixels.shape[:2]) <= limits.PICTURE_SIDE and pixels.std() > 5
    assert pictures.load(f"photo:{name}") is pixels and not pixels.flags.writeable


def test_photographs_are_what_the_packages_themselves_give():
    from skimage import data
    from sklearn.datasets import load_sample_image

    for name in ("astronaut", "chelsea", "coffee"):
        np.testing.assert_array_equal(pictures.load(f"photo:{name}"), getattr(data, name)())
    np.testing.assert_array_equal(pictures.load("photo:moon")[..., 1], data.moon())
    np.testing.assert_array_equal(pictures.load("photo:china"), load_sample_image("china.jpg"))


def test_the_menu_holds_valid_references_with_distinct_labels():
    menu = pictures.offered()
    assert [pictures.check_ref(ref) for _, ref in menu] == [ref for _, ref in menu]
    assert len({label for label, _ in menu}) == len(menu) == len(pictures.PHOTOS) + len(pictures.SCENES)


def test_square_is_the_mean_of_the_area():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :, 0] = [[99, 10, 20, 99], [99, 30, 40, 99]]  # the columns at the ends are cut off
    np.testing.assert_array_equal(pictures.square(image, 2)[:, :, 0], [[10, 20], [30, 40]])
    np.testing.assert_array_equal(pictures.square(image, 1)[:, :, 0], [[25]])
    np.testing.assert_array_equal(pictures.square(image, 4)[:, :, 0], np.kron([[10, 20], [30, 40]], np.ones((2, 2))))
    # Three pixels into two: the middle one counts half in each.
    image = np.repeat(np.array([[0, 90, 30]] * 3, np.uint8)[:, :, None], 3, 2)
    np.testing.assert_array_equal(pictures.square(image, 2)[:, :, 1], [[30, 50]] * 2)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_square_of_one_colour_is_that_colour(height, width, size):
    image = np.broadcast_to(np.array([7, 128, 255], np.uint8), (height, width, 3))
    np.testing.assert_array_equal(pictures.square(image, size), np.broadcast_to(image[0, 0], (size, size, 3)))


@pytest.mark.parametrize("shape", [(3, 5, 3), (3, 5), (1, 1, 3)])
def test_png_comes_back_as_it_was(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    decoded = Image.open(io.BytesIO(base64.b64decode(pictures.png(image))))
    assert decoded.mode == ("RGB" if len(shape) == 3 else "L")
    np.testing.assert_array_equal(np.asarray(decoded), image)
    with pytest.raises(ValueError, match="uint8"):
        pictures.png(image.astype(float))


def test_a_scene_is_drawn_by_its_seed():
    from tokenlab.pruning.scenes import scene

    pixels = pictures.load("scene:7")
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    np.testing.assert_array_equal(pixels, scene(7).pixels)
    assert not np.array_equal(pixels, pictures.load("scene:8"))
