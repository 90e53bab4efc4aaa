"""Makes one batch from its number: drawn rows are read, decoded, augmented and resized. Reads the
data set's shards; otherwise a pure function, so any process makes any batch.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Integer

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.dataset import Dataset
from plankton_jax.data.draws import Draws, draw_augmentations, no_draws
from plankton_jax.data.geometry import Geometry, decode_grey, render, without_bottom
from plankton_jax.data.measurements import measure
from plankton_jax.data.slots import Layout, aligned_empty
from plankton_jax.errors import UserError

Batch = dict[str, np.ndarray]
"""image uint8 `b h w 1`; measurements float32 `b m`, none by default; leaf int32 `b`; index int64
`b`, the row in the data set's index, -1 for padding; mask bool `b`, False for padding."""

UNREADABLE = "unreadable"
"""Key of a made batch, int64 `b`: the row that was drawn and could not be read, else -1."""

REBUILD_WITHOUT = (
    "Leave it out with config.data.unreadable=skip, or build the data set again without it."
)

_DECODED_TOGETHER = 64  # images; bounds what a thread holds of large ones

AS_IT_IS = Geometry()

Sampler = Callable[[Integer[np.ndarray, " p"]], Integer[np.ndarray, " p"]]
"""From positions in the stream of draws to rows; -1 for a position that has none."""


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """Makes this process's share of any batch from its number; picklable.

    Of the global batch's positions `number * batch_size ...` a process takes every
    `process_count`-th, from `process_index` on, so the processes make together what one would.

    A record that cannot be read is an error, or with `skip_unreadable` is left out: in a training
    batch the image before it comes twice, in an evaluation its place is padding.
    """

    dataset: Dataset
    sampler: Sampler
    batch_size: int
    image_size: int
    augmentation: AugmentationConfig | None
    seed: int
    process_index: int
    process_count: int
    measurements: tuple[str, ...] = ()
    geometry: Geometry = AS_IT_IS
    skip_unreadable: bool = False
    deadly: frozenset[int] = frozenset()
    """Rows that end or stop the process that reads them; they count as unreadable."""

    def __call__(self, number: int) -> Batch:
        return self.fill(number, aligned_empty(self.layout))

    @property
    def layout(self) -> Layout:
        """A batch's large arrays."""
        shape = (len(self.positions(0)), self.image_size, self.image_size, 1)
        return {"image": (shape, np.dtype(np.uint8))}

    def fill(self, number: int, arrays: dict[str, np.ndarray]) -> Batch:
        """A batch, of which the arrays of the layout are written in place."""
        cv2.setNumThreads(1)  # threads across batches scale, threads within an image do not
        positions = self.positions(number)
        rows, draws = self.sampler(positions), self._draws(positions)
        images = arrays["image"]
        images[rows < 0] = 0
        unreadable = np.full(len(rows), -1, np.int64)
        drawn = np.flatnonzero(rows >= 0)
        for start in range(0, len(drawn), _DECODED_TOGETHER):
            places = drawn[start : start + _DECODED_TOGETHER]
            decoded = self._decoded(rows[places])
            bad = np.array([image is None for image in decoded], bool)
            unreadable[places[bad]] = rows[places[bad]]
            places = places[~bad]
            out = [images[place, :, :, 0] for place in places.tolist()]
            good = [image for image in decoded if image is not None]
            render(good, self.image_size, draws.take(places), out, self.geometry.kind)
        missing = np.flatnonzero(unreadable >= 0)
        if len(missing):
            rows, places = self.replaced(rows, unreadable)
            images[missing] = images[places[missing]]
            images[rows < 0] = 0
        return arrays | self.beside_images(rows) | {UNREADABLE: unreadable}

    def beside_images(self, rows: Integer[np.ndarray, " b"]) -> Batch:
        """What a batch of these rows holds beside its images."""
        mask = rows >= 0
        leaf = np.zeros(len(rows), np.int32)
        leaf[mask] = self.dataset.leaf[rows[mask]]
        return {
            "measurements": measure(self.dataset, rows, self.measurements, self.geometry),
            "leaf": leaf,
            "index": rows,
            "mask": mask,
        }

    def replaced(
        self, rows: Integer[np.ndarray, " b"], unreadable: Integer[np.ndarray, " b"]
    ) -> tuple[Integer[np.ndarray, " b"], Integer[np.ndarray, " b"]]:
        """The rows that a batch holds after all, and at which of its places each was drawn.

        Raises:
          UserError: none of a training batch can be read.
        """
        missing, places = np.flatnonzero(unreadable >= 0), np.arange(len(rows))
        if isinstance(self.sampler, InOrder):
            rows = rows.copy()
            rows[missing] = -1
            return rows, places
        there = np.flatnonzero(unreadable < 0)
        if not len(there):
            raise UserError(
                f"{self.problem(int(unreadable[0]))} No other image of its batch can be read."
            )
        places[missing] = there[np.searchsorted(there, missing) - 1]  # of the first: the last one
        return rows[places], places

    def positions(self, number: int) -> Integer[np.ndarray, " b"]:
        """This process's positions in the stream of draws for a batch."""
        places = np.arange(self.process_index, self.batch_size, self.process_count)
        return number * self.batch_size + places

    def rows(self, number: int) -> Integer[np.ndarray, " n"]:
        """The rows that are drawn for this process's share of a batch."""
        rows = self.sampler(self.positions(number))
        return rows[rows >= 0]

    def problem(self, row: int) -> str:
        """What is wrong with a record that cannot be read; empty when it can."""
        try:
            self._strictly(np.array([row]))
        except UserError as error:
            return str(error)
        return ""

    def _draws(self, positions: np.ndarray) -> Draws:
        if self.augmentation is None:
            return no_draws(len(positions))
        return draw_augmentations(self.augmentation, self.seed, positions, self.image_size)

    def _decoded(self, rows: np.ndarray) -> list[np.ndarray | None]:
        """The images; None for one that cannot be read and is to be skipped."""
        try:
            return [*self._strictly(rows)]
        except UserError:
            if not self.skip_unreadable:
                raise
        images: list[np.ndarray | None] = []
        for row in rows.tolist():
            try:
                images += self._strictly(np.array([row]))
            except UserError:
                images.append(None)
        return images

    def _strictly(self, rows: np.ndarray) -> list[np.ndarray]:
        for row in self.deadly.intersection(rows.tolist()) if self.deadly else ():
            raise UserError(
                f"{self.dataset.describe(row)}: reading it ends or stops a loader process. "
                f"{REBUILD_WITHOUT}"
            )
        files = self.dataset.read_images(rows)
        return [self._decode(f, r) for f, r in zip(files, rows.tolist(), strict=True)]

    def _decode(self, file: bytes, row: int) -> np.ndarray:
        try:
            image = decode_grey(file)
        except ValueError as error:
            raise UserError(f"{self.dataset.describe(row)}: {error}. {REBUILD_WITHOUT}") from error
        return without_bottom(image, self.geometry.crop_bottom_px)


@dataclasses.dataclass(frozen=True)
class InOrder:
    """The sampler of an evaluation: position p is the p-th of `rows`, -1 after the last."""

    rows: Integer[np.ndarray, " n"]

    def __call__(self, positions: Integer[np.ndarray, " p"]) -> Integer[np.ndarray, " p"]:
        drawn = np.full(len(positions), -1, np.int64)
        inside = positions < len(self.rows)
        drawn[inside] = self.rows[positions[inside]]
        return drawn
