"""Reads the bins of an Imaging FlowCytobot: one sample each, as `.hdr`, `.adc` and `.roi` files.

An `.adc` file is a table without a header, a line for each trigger; where the columns lie depends
on the instrument's generation, which the bin's name tells. The `.roi` file holds the pixels of all
regions of interest one after the other.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

# First of the columns x, y, width, height, start byte, by the first letter of a bin's name.
_FIRST_COLUMN = {"I": 9, "D": 13}
MISSING = "bin without its .hdr, .adc and .roi file"
NOT_A_BIN = "not named as a bin"
BAD_LINE = "line of the .adc file that cannot be read"
MAX_SIDE = 1 << 16  # pixels; no camera has more, and no image can be written with many more
TOO_LONG = f"a side over {MAX_SIDE} pixels"
BEYOND_END = "reaches beyond the end of the .roi file"


@dataclasses.dataclass(frozen=True)
class Bin:
    """A sample: its name, and the path of its files without their suffixes."""

    name: str
    stem: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Region:
    """A region of interest.

    Attributes:
      number: of its line in the `.adc` file, from 1 on.
      height, width: pixels.
      start: its first byte in the `.roi` file.
      problem: why it cannot be read; "" when it can.
    """

    number: int
    height: int = 0
    width: int = 0
    start: int = 0
    problem: str = ""


def find_bins(root: pathlib.Path) -> Iterator[Bin | tuple[str, str]]:
    """The bins below a folder by name, and (path, reason) of what is none."""
    stems: dict[pathlib.Path, set[str]] = {}
    for path in root.rglob("*"):
        if path.suffix in (".hdr", ".adc", ".roi") and path.is_file():
            stems.setdefault(path.with_suffix(""), set()).add(path.suffix)
    for stem in sorted(stems, key=lambda stem: (stem.name, str(stem))):
        if stem.name[:1] not in _FIRST_COLUMN:
            yield str(stem.relative_to(root)), NOT_A_BIN
        elif len(stems[stem]) < 3:
            yield str(stem.relative_to(root)), MISSING
        else:
            yield Bin(stem.name, stem)


def read_regions(sample: Bin) -> list[Region]:
    """The regions with pixels, in the order of the `.adc` file."""
    first = _FIRST_COLUMN[sample.name[0]]
    size = sample.stem.with_suffix(".roi").stat().st_size
    regions = []
    text = sample.stem.with_suffix(".adc").read_text(encoding="latin-1")
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split(",")
        try:
            width, height, start = (int(float(cell)) for cell in cells[first + 2 : first + 5])
        except (ValueError, OverflowError):  # infinity is no number of pixels
            if line.strip():
                regions.append(Region(number, problem=BAD_LINE))
            continue
        if width <= 0 or height <= 0:
            continue
        problem = "" if 0 <= start <= size - width * height else BEYOND_END
        if max(width, height) > MAX_SIDE:
            problem = TOO_LONG
        regions.append(Region(number, height, width, start, problem))
    return regions


def read_pixels(roi: bytes, region: Region) -> UInt8[np.ndarray, "h w"]:
    """The pixels of a region."""
    count = region.height * region.width
    pixels = np.frombuffer(roi, np.uint8, count, region.start)
    return pixels.reshape(region.height, region.width)
