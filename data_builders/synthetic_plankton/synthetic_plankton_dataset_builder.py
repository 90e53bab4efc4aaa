"""Drawn plankton as a data set; see README.md beside this file.

Reads nothing; writes nothing but what its base class writes.
"""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from data_builders.base import PlanktonBuilder, Record
from data_builders.synthetic_plankton import classes, drawing
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

DEFAULT_NUM_EXAMPLES = 10_000


class Builder(PlanktonBuilder):
    """Any number of drawn grey images in 28 classes; image `i` depends on `seed` and `i` alone."""

    # To be raised when a drawing changes: a data set that was built before is found by it.
    VERSION = tfds.core.Version("1.0.0")
    licence = "CC0-1.0"
    accepts = frozenset({"num_examples"})

    def directory_name(self) -> str:
        return f"{self.num_records()}-images-seed-{self.options.seed}"

    def taxonomy(self) -> Taxonomy:
        if self.num_records() < 1:
            raise UserError(
                f"config.data.num_examples: found {self.num_records()}; at least 1 image has to be "
                f"drawn. Leave it unset for {DEFAULT_NUM_EXAMPLES}."
            )
        return Taxonomy.from_paths(classes.LEVEL_NAMES, classes.PATHS)

    def num_records(self) -> int:
        given = self.options.num_examples
        return DEFAULT_NUM_EXAMPLES if given is None else given

    def items(self, start: int) -> Iterator[Record]:
        for index in range(start, self.num_records()):
            leaf, image = drawing.draw(index, self.options.seed)
            yield Record(f"{index:08d}", leaf, drawing.encode(image), *image.shape)
