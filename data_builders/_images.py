"""Looks whether the bytes of an image file are one whole image, and how large it is.

OpenCV alone would not do: it decodes a truncated JPEG without a word and paints the rest grey, and
reads only the first frame of an animation. So the structure of the file is walked first. Pure.
"""

import struct
import zlib
from collections.abc import Callable

from plankton_jax.data.geometry import decode_grey

MAX_PIXEL_BYTES = 100_000_000
"""Of the pixels as they are decoded; greying more than one channel takes several times as much."""
EMPTY = "empty file"
NOT_IMAGE_DATA = "unreadable: not the data of a jpg, png, tif or bmp"
UNREADABLE = "unreadable: cannot be decoded to 8- or 16-bit pixels"
TRUNCATED = "truncated"
CORRUPT = "unreadable: checksum of a chunk is wrong"
ANIMATED = "animated: more than one frame"
ZERO_SIZED = "zero-sized image"
TOO_LARGE = f"more than {MAX_PIXEL_BYTES // 1_000_000} MB of pixels"
UNSUPPORTED = "format not supported (jpg, png, tif and bmp are)"

_CRITICAL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_STANDALONE_MARKERS = (0x01, *range(0xD0, 0xD9))
_FRAME_MARKERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_TIFF_TYPE_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}


class UnusableImage(Exception):
    """The image is to be left out; the argument is the reason."""


def inspect_image(data: bytes) -> tuple[int, int]:
    """Height and width, in pixels, of the image as training decodes it.

    Raises:
      UnusableImage: the reason why the file is not one whole image of a sensible size.
    """
    if not data:
        raise UnusableImage(EMPTY)
    try:
        height, width, pixel_bytes = _walker(data)(data)
    except (struct.error, IndexError, OverflowError) as error:  # a field lies beyond the end
        raise UnusableImage(TRUNCATED) from error
    if height < 1 or width < 1:
        raise UnusableImage(ZERO_SIZED)
    if height * width * pixel_bytes > MAX_PIXEL_BYTES:
        raise UnusableImage(TOO_LARGE)
    try:
        pixels = decode_grey(data)
    except ValueError as error:
        raise UnusableImage(UNREADABLE) from error
    return pixels.shape[0], pixels.shape[1]


def _walker(data: bytes) -> Callable[[bytes], tuple[int, int, int]]:
    """The function that walks files of this kind, told by their first bytes; it gives height, width
    and bytes of a decoded pixel."""
    if data.startswith(b"\xff\xd8"):
        return _walk_jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _walk_png
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _walk_tiff
    if data.startswith(b"BM"):
        return _walk_bmp
    if data.startswith((b"GIF87a", b"GIF89a")):
        raise UnusableImage(ANIMATED if _gif_frames(data) > 1 else UNSUPPORTED)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        raise UnusableImage(ANIMATED if b"ANMF" in data else UNSUPPORTED)
    raise UnusableImage(NOT_IMAGE_DATA)


def _walk_jpeg(data: bytes) -> tuple[int, int, int]:
    """Goes from marker to marker up to the scan, which must be followed by the end marker."""
    height = width = 0
    position = 2
    while True:
        if data[position] != 0xFF:
            raise UnusableImage(UNREADABLE)
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE_MARKERS:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:  # ends before any scan
            raise UnusableImage(TRUNCATED)
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 5)
        position += 2 + length
        if marker == 0xDA:
            break
    # Within a scan 0xFF is followed by 0 or by a restart marker, so this is the end of the image.
    if data.find(b"\xff\xd9", position) < 0:
        raise UnusableImage(TRUNCATED)
    return height, width, 1  # only its luma is decoded


def _walk_png(data: bytes) -> tuple[int, int, int]:
    """Goes from chunk to chunk; every chunk must be whole and the last one be the end chunk."""
    position, size, kind = 8, (0, 0, 0), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if kind == b"acTL" and struct.unpack_from(">I", data, position + 8)[0] > 1:
            raise UnusableImage(ANIMATED)
        body = memoryview(data)[position + 4 : position + 8 + length]
        if kind in _CRITICAL_CHUNKS and zlib.crc32(body) != checksum:
            raise UnusableImage(CORRUPT)
        if kind == b"IHDR":
            width, height, bits, colour = struct.unpack_from(">IIBB", data, position + 8)
            # Grey (0) without transparency stays one channel; palettes become colours.
            channels = {0: 1, 2: 3}.get(colour, 4)
            size = (height, width, channels * (2 if bits == 16 else 1))
        position += 12 + length
    return size


def _walk_bmp(data: bytes) -> tuple[int, int, int]:
    """Reads the header and, for uncompressed pixels, whether all of them are there."""
    offset, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows run downwards
    row_bytes = (width * bits + 31) // 32 * 4
    if compression in (0, 3) and offset + row_bytes * height > len(data):
        raise UnusableImage(TRUNCATED)
    return height, width, 4 if bits == 32 else 3


def _walk_tiff(data: bytes) -> tuple[int, int, int]:
    """Goes from directory to directory; exactly one full image, with all of its data."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (position,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    sizes: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    while position and position not in seen:
        seen.add(position)
        tags, position = _tiff_directory(data, order, big, position)
        if tags.get(254, (0,))[0] & 1:  # a smaller copy of another image in the file
            continue
        height, width = tags.get(257, (0,))[0], tags.get(256, (0,))[0]
        channels = 3 if tags.get(262, (0,))[0] == 3 else tags.get(277, (1,))[0]  # 3: a palette
        sizes.append((height, width, channels * (max((8, *tags.get(258, ()))) // 8)))
        starts, lengths = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
        if any(start + length > len(data) for start, length in zip(starts, lengths, strict=False)):
            raise UnusableImage(TRUNCATED)
    if not sizes:
        raise UnusableImage(UNREADABLE)
    if len(sizes) > 1:
        raise UnusableImage(ANIMATED)
    return sizes[0]


def _tiff_directory(
    data: bytes, order: str, big: bool, position: int
) -> tuple[dict[int, tuple[int, ...]], int]:
    """The whole-number tags of the directory at `position` and the position of the next one."""
    count_code, value_code, entry_bytes = ("Q", "Q", 20) if big else ("H", "I", 12)
    (count,) = struct.unpack_from(order + count_code, data, position)
    start = position + struct.calcsize(count_code)
    inline_bytes = struct.calcsize(value_code)
    tags = {}
    for entry in range(start, start + count * entry_bytes, entry_bytes):
        tag, kind, number = struct.unpack_from(order + "HH" + value_code, data, entry)
        if kind not in _TIFF_TYPE_CODES:
            continue
        values = f"{number}{_TIFF_TYPE_CODES[kind]}"
        place = entry + 4 + inline_bytes
        if struct.calcsize(order + values) > inline_bytes:
            (place,) = struct.unpack_from(order + value_code, data, place)
        tags[tag] = struct.unpack_from(order + values, data, place)
    (following,) = struct.unpack_from(order + value_code, data, start + count * entry_bytes)
    return tags, following


def _gif_frames(data: bytes) -> int:
    """How many frames a GIF has, counted up to two."""
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    frames = 0
    while frames < 2 and position < len(data) and data[position] != 0x3B:
        if data[position] == 0x2C:
            frames += 1
            flags = data[position + 9]
            position += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            position += 2
        while data[position]:
            position += data[position] + 1
        position += 1
    return frames
