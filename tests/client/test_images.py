"""What an image means: by its type, whatever holds it, and never by the numbers that are in it."""

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from heinfer.errors import ImageError, SettingError
from heinfer.formats.manifest import Preprocessing
from heinfer_client.images import kept, read_image

GREY, COLOUR = (1, 4, 5), (3, 4, 5)
RANDOM = np.random.default_rng(0)
DIGIT = RANDOM.integers(0, 256, (4, 5), dtype=np.uint8)
PHOTO = RANDOM.integers(0, 256, (4, 5, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (4, 5), dtype=np.uint8)


def plain(channels: int = 1, **changed: Any) -> Preprocessing:
    unit = {"divisor": 255.0, "mean": (0.0,) * channels, "std": (1.0,) * channels, "low": -1e9, "high": 1e9}
    return Preprocessing(**unit | changed)


def read(image: object, shape: tuple[int, ...] = GREY, maximum: Any = None, **changed: Any) -> np.ndarray:
    return read_image(image, shape, plain(3 if shape == COLOUR else 1, **changed), maximum)


def saved(image: Image.Image, file_format: str = "PNG", **options: Any) -> Image.Image:
    """As a file of it is opened."""
    file = BytesIO()
    image.save(file, file_format, **options)
    return Image.open(BytesIO(file.getvalue()))


def png(pixels: np.ndarray, depth: int, colour_type: int, *chunks: tuple[bytes, bytes]) -> Image.Image:
    """A PNG file as the standard has it, which PIL does not write: big-endian 16 bits, or packed below 8."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = pixels.astype(">u2").reshape(len(pixels), -1).view(np.uint8) if depth == 16 else pixels
    if depth < 8:
        bits = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(len(pixels), -1), axis=1)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", size), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return Image.open(BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)))


def tiff(data: bytes, bits: int, photometric: int = 1, sample_format: int = 1) -> Image.Image:
    """An uncompressed little-endian TIFF file of one grey channel, 4 rows of 5."""
    tags = {256: 5, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1, 278: 4, 279: len(data)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (tags | {339: sample_format}).items()]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return Image.open(BytesIO(head.ljust(200, b"\0") + data))


# One picture, however it is held ---------------------------------------------------------------


class Rows(np.ndarray):
    """As np.matrix, which warns: of two axes for ever."""

    def reshape(self, *_: object, **__: object) -> Any:
        raise NotImplementedError


pixels8 = arrays(np.uint8, (4, 5))


@settings(max_examples=50, deadline=None)
@given(pixels=pixels8, divisor=st.sampled_from([1.0, 127.5, 255.0, 256.0, 65535.0]), mean=st.floats(-1, 1))
def test_the_same_picture_is_the_same_input_whatever_the_divisor(pixels, divisor, mean):
    as_bytes = read(pixels, divisor=divisor, mean=(mean,), std=(0.3,))
    assert as_bytes.ravel() == pytest.approx((pixels.ravel() / divisor - mean) / 0.3)
    wide = pixels.astype(np.uint16) * 257
    forms = [
        (pixels / 255, None),
        ((pixels / 255).astype(">f8"), None),
        ((pixels / 255).astype(np.longdouble), None),
        (pixels, 255),
        (wide, 65535),
        (wide.astype(">u2"), 65535),
        (pixels.astype(np.int64), 255),
        (np.asfortranarray(pixels), None),
        (np.repeat(pixels, 2, axis=0)[::2], None),
        (pixels.view(Rows), None),
        (Image.fromarray(pixels), None),
        (Image.fromarray(pixels), 255),
        (Image.fromarray(pixels).convert("RGB"), None),
        (Image.fromarray(wide), 65535),
        (png(wide, 16, 0), None),
    ]
    for form, maximum in forms:
        given_form = read(form, maximum=maximum, divisor=divisor, mean=(mean,), std=(0.3,))
        assert np.array_equal(given_form, as_bytes), form
    halves = read(Image.fromarray((pixels / 255).astype(np.float32)), divisor=divisor, mean=(mean,), std=(0.3,))
    assert halves == pytest.approx(as_bytes, rel=1e-6, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), maximum=st.integers(1, 2**64 - 1), dtype=st.sampled_from(list("bBhHiIlLqQ?")))
def test_an_integer_is_its_fraction_of_the_maximum_or_refused(data, maximum, dtype):
    pixels = data.draw(arrays(np.dtype(dtype), (4, 5)))
    if int(pixels.min()) >= 0 and int(pixels.max()) <= maximum:
        assert np.array_equal(read(pixels, maximum=maximum)[0], pixels.astype(np.float64) / maximum)
    else:
        with pytest.raises(ImageError, match=rf"pixels in 0..{maximum} are expected"):
            read(pixels, maximum=maximum)


@pytest.mark.parametrize("maximum", [0, -1, True, 255.0, "255", float("nan"), 2**64, np.uint16(0)])
def test_what_is_no_maximum_is_refused(maximum):
    with pytest.raises(SettingError, match="maximum must be an integer above 0, such as 65535"):
        read(DIGIT, maximum=maximum)


@pytest.mark.parametrize(
    ("dtype", "say"),
    [("u2", 65535), ("u4", 65535), ("u8", 65535), ("i1", 255), ("i2", 255), ("i8", 255), ("?", 1)],
)
def test_integers_whose_white_is_not_certain_are_refused(dtype, say):
    pixels = np.ones((4, 5), dtype)
    with pytest.raises(ImageError, match=rf"got {pixels.dtype}: say which number is white, such as maximum={say}$"):
        read(pixels)
    assert read(pixels, maximum=say) == pytest.approx(1 / say)


@pytest.mark.parametrize("scale", [1, 0.5, 1 / 255, 0])
def test_nothing_is_stretched(scale):
    dark = np.full((4, 5), 0.01)
    dark[0, 0] = scale
    assert np.array_equal(read(dark)[0], dark)


@pytest.mark.parametrize(
    "unknown",
    [
        np.full((4, 5), 0.5 + 0j),
        np.full((4, 5), 1, object),
        np.full((4, 5), "1"),
        np.full((4, 5), np.datetime64("2020-01-01")),
        np.zeros((4, 5), [("grey", "u1")]),
    ],
)
def test_other_dtypes_are_refused(unknown):
    with pytest.raises(ImageError, match=r"uint8 \(0..255\) or float \(0..1\) are expected, got "):
        read(unknown)
    with pytest.raises(ImageError, match="an integer or float dtype are expected, got "):
        read_image(unknown, (4, 5), plain(kind="values"))


def test_floats_have_no_maximum():
    for floats in (DIGIT / 255, Image.fromarray((DIGIT / 255).astype(np.float32))):
        with pytest.raises(ImageError, match=r"floats are in 0..1: leave maximum= out"):
            read(floats, maximum=255)
    with pytest.raises(ImageError, match=r"float pixels in 0..1 are expected, got 0..255: divide"):
        read(Image.fromarray(np.uint8([[0, 255]])).convert("F"), (1, 2))


# The right way up ------------------------------------------------------------------------------

UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "WEBP", None])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_orientation_that_the_camera_noted_is_applied(orientation, file_format):
    smooth = np.add.outer(np.arange(8) * 20, np.arange(16) * 7).astype(np.uint8)
    image, exif = Image.fromarray(smooth), Image.Exif()
    exif[0x0112] = orientation
    if file_format:
        image = saved(image.convert("RGB") if file_format == "WEBP" else image, file_format, exif=exif)
    else:
        image.info["exif"] = exif.tobytes()
    upright = UPRIGHT[orientation](smooth)
    tolerance = 0.05 if file_format in ("JPEG", "WEBP") else 1e-12
    if file_format == "WEBP":  # whose colours are near grey only
        read_rgb = read_image(image, (3, *upright.shape), plain(3))
        assert read_rgb[1] == pytest.approx(upright / 255, abs=tolerance)
    else:
        assert read(image, (1, *upright.shape))[0] == pytest.approx(upright / 255, abs=tolerance)
        assert read(image.copy(), (1, *upright.shape))[0] == pytest.approx(upright / 255, abs=tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16", "F"])
def test_every_mode_is_turned(mode):
    image = Image.fromarray(DIGIT // 128 * 255).convert(mode if mode not in ("F", "I;16") else "L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    if mode == "F":
        image = Image.fromarray(np.asarray(image).astype(np.float32) / 255)
    image.getexif()[0x0112] = 6
    white = 65535 if mode == "I;16" else None
    assert np.array_equal(read(image, (1, 5, 4), white)[0], np.rot90(DIGIT // 128, -1))


# Transparency ----------------------------------------------------------------------------------


def transparent_forms() -> dict[str, Image.Image]:
    """A white digit on nothing: colours without their transparency are white all over."""
    white = Image.new("L", (5, 4), 255)
    shown = Image.fromarray((DIGIT > 127).astype(np.uint8) * 255)
    colour = Image.merge("RGBA", [white, white, white, shown])
    palette = Image.fromarray((DIGIT > 127).astype(np.uint8)).convert("P")
    palette.putpalette([255, 255, 255, 255, 255, 255])
    grey = Image.merge("LA", [white, shown])
    coloured = palette.copy()
    coloured.putpalette([255, 255, 255, 0, 255, 255, 255, 255], "RGBA")
    return {
        "RGBA": colour,
        "LA": grey,
        "La": grey.convert("La"),
        "RGBa": colour.convert("RGBa"),
        "PA": palette.convert("PA"),
        "palette of RGBA": coloured,
        "RGBA in PNG": saved(colour),
        "LA in PNG": saved(grey),
        "P in PNG": saved(palette, transparency=0),
        "P of bytes in PNG": saved(palette, transparency=b"\0\xff"),
        "P in GIF": saved(palette, "GIF", transparency=0),
        "RGBA in WEBP": saved(colour, "WEBP", lossless=True),
        "RGBA in TIFF": saved(colour, "TIFF"),
        "LA of 16 bits": png(np.stack([np.full((4, 5), 65535), np.int32(shown) * 257], -1), 16, 4),
        "RGBA of 16 bits": png(np.stack([np.full((4, 5), 65535)] * 3 + [np.int32(shown) * 257], -1), 16, 6),
    }


FORMS = transparent_forms()
FORMS["PA"].putalpha(FORMS["RGBA"].getchannel("A"))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_transparent_is_refused_or_composited_on_the_ground_that_the_model_names(form):
    image = FORMS[form]
    for shape in (GREY, COLOUR):
        with pytest.raises(ImageError, match=r"an opaque image is expected, .*: composite it on a ground"):
            read(image, shape)
    shown = (DIGIT > 127).astype(float)
    assert np.array_equal(read(image, ground=(0.0,))[0], shown)
    assert read(image, ground=(0.25,))[0] == pytest.approx(np.where(shown, 1, 0.25))
    reddish = read(image, COLOUR, ground=(0.5, 0.25, 0.0))
    for channel, behind in zip(reddish, (0.5, 0.25, 0.0), strict=True):
        assert channel == pytest.approx(np.where(shown, 1, behind))


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "I;16", "2 bits", "4 bits", "RGB of 16 bits"])
def test_a_transparent_colour_is_transparency(mode, is_loaded):
    steps = DIGIT // 64
    if mode == "L":
        image = saved(Image.fromarray(steps * 80), transparency=160)
    elif mode == "RGB":
        image = saved(Image.fromarray(np.stack([steps * 80] * 3, -1)), transparency=(160, 160, 160))
    elif mode == "1":
        image = png((steps == 2).astype(np.uint8), 1, 0, (b"tRNS", b"\0\1"))
    elif mode == "I;16":
        image = png(steps.astype(np.uint16) * 20_000, 16, 0, (b"tRNS", struct.pack(">H", 40_000)))
    elif mode == "RGB of 16 bits":
        grey = np.stack([steps.astype(np.uint16) * 20_000] * 3, -1)
        image = png(grey, 16, 2, (b"tRNS", struct.pack(">HHH", *[40_000] * 3)))
    else:
        image = png(steps, int(mode[0]), 0, (b"tRNS", b"\0\2"))
    if is_loaded:
        image.load()
    with pytest.raises(ImageError, match="transparent"):
        read(image)
    if mode in ("RGB of 16 bits", "2 bits", "4 bits"):
        with pytest.raises(ImageError, match="which pixels of the image are transparent is not known"):
            read(image, ground=(0.5,))
    else:
        composited = read(image, ground=(0.123,))[0]
        assert np.array_equal(composited == 0.123, steps == 2)


def test_a_transparent_colour_that_no_pixel_has_is_none():
    image = saved(Image.fromarray(DIGIT // 2), transparency=255)
    assert np.array_equal(read(image)[0], DIGIT // 2 / 255)


@settings(max_examples=50, deadline=None)
@given(colour=arrays(np.uint8, (4, 5, 3)), alpha=pixels8, ground=st.tuples(*[st.floats(0, 1)] * 3))
def test_compositing_is_a_weighted_mean(colour, alpha, ground):
    opacity = alpha[..., None] / 255
    expected = (opacity * colour / 255 + (1 - opacity) * np.array(ground)).transpose(2, 0, 1)
    composited = read(Image.fromarray(np.dstack([colour, alpha])), COLOUR, ground=ground)
    assert composited == pytest.approx(expected, abs=1e-12)
    grey = read(Image.fromarray(np.dstack([colour[..., 0], alpha])), ground=ground[:1])
    assert grey[0] == pytest.approx((opacity * colour / 255 + (1 - opacity) * ground[0])[..., 0], abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(colour=arrays(np.uint8, (4, 5, 3)))
def test_opaque_is_as_without_transparency(colour):
    image = Image.fromarray(colour)
    expected = read(image, COLOUR)
    assert np.array_equal(expected, colour.transpose(2, 0, 1) / 255)
    opaque = image.convert("RGBA")
    for form in (opaque, opaque.convert("RGBa"), saved(opaque), saved(opaque, "TIFF")):
        assert np.array_equal(read(form, COLOUR), expected)
        assert np.array_equal(read(form, COLOUR, ground=(0.5, 0.5, 0.5)), expected)
    grey = Image.fromarray(colour[..., 0])
    for form in (grey.convert("LA"), grey.convert("LA").convert("La"), grey.convert("RGBA"), saved(grey.convert("LA"))):
        assert np.array_equal(read(form), read(grey))


def test_the_ways_out_of_transparency_lead_out():
    image = FORMS["RGBA"]
    on_black = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    assert np.array_equal(read(on_black)[0], DIGIT > 127)


@pytest.mark.parametrize("given_shape", [(4, 5, 4), (4, 4, 5), (4, 5, 2), (2, 4, 5)])
def test_an_array_with_a_channel_of_transparency_is_refused(given_shape):
    with pytest.raises(ImageError, match="composite it on what is behind its transparent pixels"):
        read(np.zeros(given_shape, np.uint8), COLOUR)


# Modes -----------------------------------------------------------------------------------------


def test_grey_is_equal_channels_and_the_other_way_round():
    grey = Image.fromarray(DIGIT)
    palette = grey.convert("P")
    for form in (grey, grey.convert("RGB"), palette, saved(palette), saved(grey, "JPEG", quality=100).convert("RGB")):
        expected = np.asarray(form.convert("L")) / 255
        assert np.array_equal(read(form)[0], expected)
        assert np.array_equal(read(form, (4, 5)), expected)
        assert np.array_equal(read(form, COLOUR), np.stack([expected] * 3))
    bilevel = Image.fromarray(DIGIT > 127)
    assert np.array_equal(read(bilevel)[0], DIGIT > 127)
    assert np.array_equal(read(saved(bilevel, "TIFF"))[0], DIGIT > 127)
    palette.putpalette(RANDOM.integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert np.array_equal(read(palette, COLOUR), np.asarray(palette.convert("RGB")).transpose(2, 0, 1) / 255)


def test_colours_are_refused_by_a_grey_model():
    nearly = np.stack([DIGIT] * 3, -1)
    nearly[2, 3, 1] ^= 1
    for image in (Image.fromarray(PHOTO), Image.fromarray(nearly), Image.fromarray(PHOTO).quantize(8)):
        with pytest.raises(ImageError, match=r"mode L is expected, got .* with colours: use image.convert\('L'\)"):
            read(image)
        assert read(image.convert("L")).shape == GREY


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_other_colour_spaces_are_refused(mode):
    with pytest.raises(ImageError, match=rf"mode L or RGB is expected, got {mode}: use image.convert\('RGB'\)"):
        read(Image.new(mode, (5, 4)), COLOUR)


def test_files_of_16_bits_are_of_16_bits():
    wide = RANDOM.integers(0, 65536, (4, 5), dtype=np.uint16)
    wide[0, :2] = 0, 65535
    forms = {
        "PNG": png(wide, 16, 0),
        "TIFF": saved(Image.fromarray(wide), "TIFF"),
        "TIFF, big-endian": saved(Image.fromarray(wide.astype(">u2")), "TIFF"),
        "PPM": saved(Image.fromarray(wide), "PPM"),
    }
    in_memory = {
        "array": Image.fromarray(wide),
        "big-endian": Image.fromarray(wide.astype(">u2")),
        "smaller once": png(np.repeat(wide, 2, axis=0), 16, 0).resize((5, 4), Image.Resampling.NEAREST),
    }
    for name, image in in_memory.items():  # no file says which number is white
        assert np.array_equal(read(image, maximum=65535)[0], wide / 65535), name
        with pytest.raises(ImageError, match="say maximum=65535"):
            read(image)
    for name, image in forms.items():
        assert np.array_equal(read(image)[0], wide / 65535), name
        assert np.array_equal(read(image, COLOUR)[2], wide / 65535), name
    twelve = wide >> 4
    assert np.array_equal(read(png(twelve, 16, 0), maximum=4095)[0], twelve / 4095)
    with pytest.raises(ImageError, match=r"pixels in 0..4095 are expected, got 0..65535"):
        read(png(wide, 16, 0), maximum=4095)


def test_colours_of_16_bits_are_what_pil_makes_of_them():
    wide = RANDOM.integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    assert read(png(wide, 16, 2), COLOUR) == pytest.approx(wide.transpose(2, 0, 1) / 65535, abs=1 / 255)


def test_32_bits_do_not_say_what_is_white():
    for image in (Image.fromarray(DIGIT).convert("I"), saved(Image.fromarray(DIGIT.astype(np.int32)), "TIFF")):
        with pytest.raises(ImageError, match="which number is white in a PIL image of mode I is not known: say maxim"):
            read(image)
        assert np.array_equal(read(image, maximum=255)[0], DIGIT / 255)


def test_pictures_of_8_bits_have_no_larger_white():
    with pytest.raises(ImageError, match="white is 255 in a PIL image of mode L, not 65535: give it without maximum="):
        read(Image.fromarray(DIGIT), maximum=65535)


def test_tiff_files_that_pil_takes_for_others_are_not():
    twelve = RANDOM.integers(0, 4096, (4, 6), dtype=np.uint16)
    packed = twelve.astype(np.uint32)
    pairs = packed[:, ::2] << 12 | packed[:, 1::2]
    rows = np.stack([pairs >> 16, pairs >> 8 & 255, pairs & 255], -1).astype(np.uint8).reshape(4, 9)[:, :8]
    assert np.array_equal(read(tiff(rows.tobytes(), 12))[0], twelve[:, :5] / 4095)
    wide = RANDOM.integers(0, 65536, (4, 5), dtype="<u2")
    assert np.array_equal(read(tiff(wide.tobytes(), 16))[0], wide / 65535)
    with pytest.raises(ImageError, match="in this one white is"):
        read(tiff(wide.tobytes(), 16, photometric=0))
    with pytest.raises(ImageError, match="have signs"):
        read(tiff(DIGIT.tobytes(), 8, sample_format=2))
    with pytest.raises(ImageError, match="which number is white"):
        read(tiff(wide.tobytes(), 16, sample_format=2))
    assert np.array_equal(read(tiff(DIGIT.tobytes(), 8, photometric=0))[0], (255 - DIGIT) / 255)
    with pytest.raises(ImageError, match="whether this TIFF image's last channel is its transparency is not known"):
        read(saved(Image.fromarray(PHOTO).convert("RGBX"), "TIFF"), COLOUR)


def test_a_pixel_beyond_the_palette_is_no_black():
    image = Image.new("P", (5, 4), 7)
    with pytest.raises(ImageError, match=r"beyond the . in the image's palette"):
        read(image)


# Files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_frames_none_is_picked(file_format):
    frames = [Image.fromarray(DIGIT).convert("RGB"), Image.fromarray(255 - DIGIT).convert("RGB")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    with pytest.raises(ImageError, match=r"one frame is expected, got 2: use image.copy\(\) after image.seek\(0\)"):
        read(image)
    image.seek(0)
    assert np.array_equal(read(image.copy())[0], DIGIT / 255)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "GIF"])
def test_a_truncated_file_is_an_image_error(file_format):
    file = BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (64, 64), dtype=np.uint8)).save(file, file_format)
    whole = file.getvalue()
    image = Image.open(BytesIO(whole[: len(whole) * 2 // 3]))
    with pytest.raises(ImageError, match="the image cannot be read: "):
        read(image, (1, 64, 64))


def test_a_closed_image_is_an_image_error(tmp_path: Path):
    Image.fromarray(DIGIT).save(tmp_path / "digit.png")
    with Image.open(tmp_path / "digit.png") as image:
        pass
    with pytest.raises(ImageError, match="the image cannot be read: "):
        read(image)


def test_all_that_is_wrong_is_said_at_once():
    image = Image.fromarray(RANDOM.integers(0, 255, (8, 8, 4), dtype=np.uint8))
    with pytest.raises(ImageError) as caught:
        read(image)
    for word in ("(1, 4, 5) or (4, 5) is expected, got (3, 8, 8)", "image.resize((5, 4))", "opaque", "convert('L')"):
        assert word in str(caught.value)


def test_images_of_another_size_are_never_resized():
    with pytest.raises(ImageError, match=r"got \(5, 4\): use image.resize\(\(5, 4\)\)"):
        read(Image.fromarray(DIGIT.T))
    assert read(Image.fromarray(DIGIT.T).resize((5, 4))).shape == GREY


# Values ----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    values=arrays(st.sampled_from([np.dtype(name) for name in ("f2", "f4", ">f8", "i1", "i8", "u2", "u8")]), (6,)),
    divisor=st.sampled_from([1.0, 4.0]),
)
def test_values_are_any_finite_numbers(values, divisor):
    signal = plain(divisor=divisor, mean=(0.5,), std=(2.0,), low=-1e6, high=1e6, kind="values")
    if np.isfinite(values).all():
        expected = (values.astype(np.float64) / divisor - 0.5) / 2
        if np.abs(expected).max() <= 1e6:
            assert np.array_equal(read_image(values, (6,), signal), expected)
        else:
            with pytest.raises(ImageError, match="the model is not made for others"):
                read_image(values, (6,), signal)
    else:
        with pytest.raises(ImageError, match="finite values are expected"):
            read_image(values, (6,), signal)


@pytest.mark.parametrize(
    ("given_values", "reason"),
    [
        (np.zeros(7), r"values of shape \(6,\) are expected, got \(7,\)"),
        (np.zeros((1, 6)), r"got \(1, 6\): encrypt_and_predict_many takes several"),
        (np.zeros(6, bool), "got bool"),
        (np.full(6, np.nan), "NaN"),
        (np.full(6, np.longdouble("1e400")), "infinity"),
        (np.ma.masked_equal(np.zeros(6), 0), "without a mask"),
        (Image.new("L", (6, 1)), "a NumPy array is expected, got Image"),
        ([0.0] * 6, "a NumPy array is expected, got list"),
    ],
)
def test_values_that_do_not_fit_are_refused(given_values, reason):
    with pytest.raises(ImageError, match=reason):
        read_image(given_values, (6,), plain(kind="values"))


def test_values_have_no_white_and_no_other_shape_but_without_a_first_axis_of_one():
    with pytest.raises(SettingError, match="this model takes values: leave it out"):
        read_image(np.zeros(6), (6,), plain(kind="values"), 255)
    assert read_image(np.zeros((4, 5)), GREY, plain(kind="values")).shape == GREY
    with pytest.raises(ImageError, match="values of shape"):
        read_image(np.zeros((5, 4)), GREY, plain(kind="values"))


@pytest.mark.parametrize(
    ("shape", "entries", "kind"),
    [
        ((6,), 1, "values"),
        ((6,), 6, "values"),
        ((1, 187), 1, "values"),
        ((1, 187), 187, "values"),
        ((2, 50), 2, "values"),
        ((2, 50), 100, "values"),
        ((2, 3, 4), 2, "values"),
        ((3, 4, 5), 1, "image"),
        ((3, 4, 5), 3, "image"),
        ((3, 4, 5), 60, "image"),
        ((4, 5), 1, "image"),
        ((4, 5), 20, "image"),
    ],
)
def test_numbers_are_for_all_or_for_each_channel_or_for_each_element(shape, entries, kind):
    rng = np.random.default_rng(entries)
    mean, std, high = rng.uniform(0, 0.5, entries), rng.uniform(0.5, 1, entries), rng.uniform(0.4, 0.9, entries)
    told = plain(mean=tuple(mean), std=tuple(std), low=-9.0, high=tuple(high), kind=kind, divisor=255.0)
    per_channel = entries == shape[0] and (kind == "values" or len(shape) == 3)
    spread = (-1, *(1 for _ in shape[1:])) if per_channel else (1,) * len(shape) if entries == 1 else shape
    mean, std, high = (x.reshape(spread) for x in (mean, std, high))
    given_in = rng.uniform(0, 1, shape)
    if kind == "image":
        assert np.allclose(read_image(given_in, shape, told), np.minimum((given_in - mean) / std, high))
        return
    inside = given_in * (std * high + mean) * 255
    assert np.allclose(read_image(inside, shape, told), (inside / 255 - mean) / std)
    beyond = inside.copy()
    beyond.reshape(-1)[-1] = 1.001 * ((std * high + mean) * 255).reshape(-1)[-1]
    with pytest.raises(ImageError, match="expected: the model is not made for"):
        read_image(beyond, shape, told)


@pytest.mark.parametrize(
    ("shape", "entries", "kind"),
    [((6,), 5, "values"), ((2, 50), 50, "values"), ((4, 5), 4, "image"), (COLOUR, 2, "image")],
)
def test_numbers_for_something_else_fit_no_input(shape, entries, kind):
    told = plain(mean=(0.0,) * entries, std=(1.0,) * entries, kind=kind)
    assert f"not {entries}" in (told.misfit(shape) or "")


def test_values_beyond_what_a_double_holds_are_refused():
    tiny = plain(std=(1e-300,), low=-2.0, high=2.0, kind="values")
    with pytest.raises(ImageError, match="the model is not made for others"):
        read_image(np.array([1e300, -1e300]), (2,), tiny)


# Pictures that change meanwhile -----------------------------------------------------------------


def test_an_image_is_kept_as_it_is_when_it_is_given(tmp_path):
    """Of a buffer, a canvas or a file that is used again and again, every picture is its own."""
    buffer, canvas = np.zeros((2, 2), np.uint8), Image.new("L", (2, 2))
    Image.new("L", (2, 2), 7).save(tmp_path / "seven.png")

    def buffers() -> Iterator[object]:
        for grey in (1, 2, 3):
            buffer[:] = grey
            yield buffer

    def canvases() -> Iterator[object]:
        for grey in (1, 2, 3):
            canvas.paste(grey, (0, 0, 2, 2))
            yield canvas

    def files() -> Iterator[object]:
        for _ in range(3):
            with Image.open(tmp_path / "seven.png") as picture:
                yield picture

    shape, as_they_are = (1, 2, 2), plain(divisor=1.0)
    for give, expected in ((buffers, [1, 2, 3]), (canvases, [1, 2, 3]), (files, [7, 7, 7])):
        several = [kept(image) for image in give()]
        assert [read_image(image, shape, as_they_are)[0, 0, 0] for image in several] == pytest.approx(expected)


def test_a_file_that_threads_read_at_once_is_read_whole(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    for _ in range(5):
        with Image.open(tmp_path / "large.png") as picture, ThreadPoolExecutor(6) as threads:
            found = list(threads.map(lambda _: read_image(picture, (3, 400, 400), plain(3, divisor=1.0)), range(6)))
        for values in found:
            assert np.array_equal(values, pixels.transpose(2, 0, 1))


def test_values_beyond_the_declared_range_are_refused():
    values = Preprocessing(divisor=1, mean=(0.0,), std=(2.0,), low=-1.0, high=1.5, kind="values")
    assert read_image(np.array([-2.0, 3.0]), (2,), values).tolist() == [-1.0, 1.5]
    for beyond in (40.0, -2.1, 3.001):
        with pytest.raises(ImageError, match=r"values between -1 and 1\.5, normalised, are expected"):
            read_image(np.array([0.0, beyond]), (2,), values)


def test_sixteen_bits_that_no_file_says_are_refused_in_a_picture_as_in_an_array():
    numbers = np.full((2, 2), 4095, np.uint16)
    for image in (numbers, Image.fromarray(numbers)):
        with pytest.raises(ImageError):
            read_image(image, (1, 2, 2), plain())
        assert read_image(image, (1, 2, 2), plain(), 4095).max() == 1
