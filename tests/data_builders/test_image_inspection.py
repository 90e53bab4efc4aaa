"""Whole images pass with their size; every kind of broken file is told apart."""

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, picture
from PIL import Image

from data_builders import _images
from data_builders._images import UnusableImage, inspect_image


def reason(data: bytes) -> str:
    with pytest.raises(UnusableImage) as caught:
        inspect_image(data)
    return str(caught.value)


def pillow_file(kind: str, frames: int = 1, **options) -> bytes:
    pages = [Image.fromarray(picture(seed=seed)) for seed in range(frames)]
    buffer = io.BytesIO()
    if frames > 1:
        options |= {"save_all": True, "append_images": pages[1:]}
    pages[0].save(buffer, kind, **options)
    return buffer.getvalue()


KINDS = [
    *((suffix, dtype, n) for suffix in (".png", ".tif") for dtype in "BH" for n in (1, 3, 4)),
    *((suffix, "B", n) for suffix in (".jpg", ".bmp") for n in (1, 3)),
]


@pytest.mark.parametrize(("suffix", "dtype", "channels"), KINDS)
def test_whole_images_pass_with_their_size(suffix, dtype, channels):
    data = encoded(suffix, height=19, width=33, channels=channels, dtype=np.dtype(dtype))
    assert inspect_image(data) == (19, 33)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "JPEG", "progressive": True},
        {"kind": "JPEG", "exif": b"Exif\0\0" + b"\xff\xd9" * 40},
        {"kind": "PNG", "compress_level": 9},
        {"kind": "TIFF", "compression": "tiff_lzw"},
        {"kind": "TIFF", "compression": "raw"},
        {"kind": "BMP"},
    ],
)
def test_files_of_another_writer_pass(options):
    assert inspect_image(pillow_file(**options)) == (24, 32)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "BMP", "TIFF"]), part=st.floats(0, 1))
def test_no_truncated_file_passes(kind, part):
    data = pillow_file(kind)
    cut = data[: int(part * (len(data) - 1))]
    try:
        size = inspect_image(cut)
    except UnusableImage:
        return
    # Only what no pixel depends on may be missing: Pillow, too, must read the same pixels.
    assert size == (24, 32)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(cut))), picture(seed=0))


HEADS = (
    b"\xff\xd8",
    b"\x89PNG\r\n\x1a\n",
    b"II*\0",
    b"MM\0+",
    b"BM",
    b"GIF89a",
    b"RIFF0000WEBP",
    b"",
)


@settings(max_examples=200, deadline=None)
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else_is_raised(head, tail):
    assert reason(head + tail)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "GIF"]), data=st.data())
def test_damage_raises_nothing_else(kind, data):
    content = bytearray(pillow_file(kind))
    position = data.draw(st.integers(0, min(len(content), 400) - 1))
    content[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnusableImage):
        inspect_image(bytes(content))


def test_truncated_jpeg_with_padding_and_with_whole_thumbnail():
    data = encoded(".jpg", height=64, width=64)
    assert reason(data[:-200] + bytes(198)) == _images.TRUNCATED
    thumbnail = pillow_file("JPEG", exif=b"Exif\0\0" + encoded(".jpg"))
    assert reason(thumbnail[:-100]) == _images.TRUNCATED


def test_damaged_png_chunk():
    data = bytearray(encoded(".png"))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == _images.CORRUPT


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_more_than_one_frame(kind):
    assert reason(pillow_file(kind, frames=3)) == _images.ANIMATED


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_single_frames_of_other_formats(kind):
    assert reason(pillow_file(kind)) == _images.UNSUPPORTED


def test_tiff_with_a_thumbnail_page_is_one_image():
    pages = cv2.imencodemulti(".tif", [picture(), picture(height=6, width=8)])[1].tobytes()
    data = bytearray(pages)
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * count)
    assert reason(pages) == _images.ANIMATED
    # Turn any tag of the second page that nobody needs into NewSubfileType = reduced resolution.
    (count,) = struct.unpack_from("<H", data, second)
    tags = {struct.unpack_from("<H", data, second + 2 + 12 * n)[0]: n for n in range(count)}
    spare = second + 2 + 12 * next(n for tag, n in tags.items() if tag in (254, 266, 274, 284, 317))
    struct.pack_into("<HHII", data, spare, 254, 4, 1, 1)
    assert inspect_image(bytes(data)) == (24, 32)


def test_pixels_that_are_no_whole_numbers():
    data = cv2.imencode(".tif", picture().astype(np.float32))[1].tobytes()
    assert reason(data) == _images.UNREADABLE


def test_orientation_of_a_camera_does_not_turn_the_size():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert inspect_image(pillow_file("JPEG", exif=exif)) == (24, 32)


def png_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header announces this size and these pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_size_is_judged_before_anything_is_decoded():
    assert reason(png_header(100_000, 100_000)) == _images.TOO_LARGE
    assert reason(png_header(0, 10)) == _images.ZERO_SIZED
    assert reason(b"") == _images.EMPTY
    assert reason(b"<html>not found</html>") == _images.NOT_IMAGE_DATA


@pytest.mark.parametrize(
    ("bits", "colour", "pixel_bytes"),
    [(1, 0, 1), (8, 0, 1), (16, 0, 2), (8, 2, 3), (16, 2, 6), (8, 3, 4), (8, 4, 4), (16, 6, 8)],
)
def test_size_counts_all_bytes_of_a_pixel(bits, colour, pixel_bytes):
    width = _images.MAX_PIXEL_BYTES // 1000 // pixel_bytes
    assert reason(png_header(width + 1, 1000, bits, colour)) == _images.TOO_LARGE
    assert reason(png_header(width, 1000, bits, colour)) != _images.TOO_LARGE


@pytest.mark.parametrize(("suffix", "dtype", "channels"), KINDS)
def test_bytes_of_a_pixel_are_at_least_those_that_are_decoded(suffix, dtype, channels):
    data = encoded(suffix, channels=channels, dtype=np.dtype(dtype))
    flags = cv2.IMREAD_GRAYSCALE if suffix == ".jpg" else cv2.IMREAD_UNCHANGED
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    told = _images._walker(data)(data)[2]
    assert decoded.nbytes <= told * 24 * 32 <= max(3, channels) * decoded.nbytes
