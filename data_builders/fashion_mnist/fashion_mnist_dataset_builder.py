"""Fashion-MNIST from its four official files; see README.md beside this file.

Reads the four files and the tree beside this module; writes nothing but what its base class writes.
"""

import functools
import gzip
import hashlib
import pathlib
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from data_builders.base import PlanktonBuilder, Record
from plankton_jax.errors import UserError, raise_all
from plankton_jax.taxonomy import Taxonomy

SETTING = "config.data.source"
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
UNSIGNED_BYTE = 8
# An idx file says itself how large it is; one that says more than this is not to be believed.
MAX_ELEMENTS = 1 << 30
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)


class Builder(PlanktonBuilder):
    """70,000 images of clothes and goods, 28 pixels square, with the official train and test."""

    licence = "MIT"
    accepts = frozenset({"source"})

    def directory_name(self) -> str:
        """Holds a hash of the names, sizes and dates of the four files."""
        digest = hashlib.sha256()
        for path in self._paths():
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return f"idx-{digest.hexdigest()[:12]}"

    def taxonomy(self) -> Taxonomy:
        self.num_records()  # checks the files, before anything is written
        return Taxonomy.from_csv(pathlib.Path(__file__).parent / "tree.csv")

    def num_records(self) -> int:
        return sum(len(labels) for _, labels in self._splits.values())

    def items(self, start: int) -> Iterator[Record]:
        for split, (images, labels) in self._splits.items():
            for number in range(start, len(labels)):
                image, label = images[number], labels[number]
                encoded = cv2.imencode(".png", image, PNG_OPTIONS)[1].tobytes()
                height, width = image.shape
                identifier = f"{split}-{number:05d}"
                yield Record(identifier, int(label), encoded, height, width, split=split)
            start = max(start - len(labels), 0)

    @functools.cached_property
    def _splits(self) -> dict[str, tuple[UInt8[np.ndarray, "n h w"], UInt8[np.ndarray, " n"]]]:
        """Images and labels of each split, checked."""
        root = self._paths()[0].parent
        problems: list[str] = []
        splits = {}
        for split, (image_file, label_file) in FILES.items():
            images = _read_idx(root / image_file, 3, problems)
            labels = _read_idx(root / label_file, 1, problems)
            if images is not None and labels is not None:
                problems.extend(_mismatches(root, split, images, labels))
                splits[split] = (images, labels)
        raise_all(problems)
        return splits

    def _paths(self) -> list[pathlib.Path]:
        """The four files.

        Raises:
          UserError: the source is not set, is no folder, or lacks some of the files.
        """
        needed = [name for files in FILES.values() for name in files]
        if not self.options.source:
            raise UserError(
                f"{SETTING}: not set. Set it to the folder with the four official files of "
                f"Fashion-MNIST: {', '.join(needed)}."
            )
        root = pathlib.Path(self.options.source).expanduser()
        if not root.is_dir():
            raise UserError(
                f"{SETTING} {root}: is not a folder. Needed: one with {', '.join(needed)}."
            )
        missing = [name for name in needed if not (root / name).is_file()]
        raise_all([f"{SETTING} {root}: {name} is missing." for name in missing])
        return [root / name for name in needed]


def _read_idx(
    path: pathlib.Path, dimensions: int, problems: list[str]
) -> UInt8[np.ndarray, "..."] | None:
    """The array of a gzipped idx file of bytes; None, and what is wrong added to `problems`.

    The format: two zero bytes, the type, the number of dimensions, the dimensions as 32-bit
    big-endian numbers, the elements, last dimension fastest.
    """
    magic = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    try:
        with gzip.open(path) as file:
            found = file.read(4)
            if found != magic:
                problems.append(
                    f"{SETTING}: {path} begins with {found.hex() or 'nothing'}, an idx file of "
                    f"{dimensions} dimension(s) with {magic.hex()}. Download it again."
                )
                return None
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = int(np.prod(shape, dtype=object))
            content = file.read(min(size, MAX_ELEMENTS) + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        problems.append(f"{SETTING}: {path} is no whole gzip file ({error}). Download it again.")
        return None
    if len(content) != size:
        found_size = "more" if len(content) > size else len(content)
        problems.append(
            f"{SETTING}: {path} announces {size} elements and holds {found_size}. "
            "Download it again."
        )
        return None
    return np.frombuffer(content, np.uint8).reshape(shape)


def _mismatches(
    root: pathlib.Path, split: str, images: UInt8[np.ndarray, "n h w"], labels: np.ndarray
) -> Iterator[str]:
    """What is wrong between the images and the labels of a split."""
    image_file, label_file = FILES[split]
    if len(images) != len(labels):
        yield (
            f"{SETTING} {root}: {image_file} holds {len(images)} images, {label_file} "
            f"{len(labels)} labels. Both must be of the same data set."
        )
    if not images.size:
        yield f"{SETTING} {root}: {image_file} holds no images."
    if labels.size and labels.max() > 9:
        yield f"{SETTING} {root}: {label_file} holds label {labels.max()}; allowed are 0 to 9."
