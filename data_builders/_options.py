"""What a data set is built from. Pure data."""

import dataclasses

import tensorflow_datasets as tfds


@dataclasses.dataclass(eq=False)
class Options(tfds.core.BuilderConfig):
    """What a data set is built from. Each builder takes those it names in `accepts`.

    Attributes:
      name: the directory of the built data set; left empty, the builder derives it.
      source: the folder or archive that holds the images.
      taxonomy_csv: the tree of the classes, as `Taxonomy.from_csv` reads it.
      variant: which of the builder's `variants`.
      num_examples: images to draw.
      seed: of what is drawn.
      features: whether numbers that come with the images are stored too.
      statuses: of EcoTaxa's annotations, those whose images are taken.
      labels: table or class scores that label images which have none.
    """

    name: str = ""
    source: str | None = None
    taxonomy_csv: str | None = None
    variant: str = ""
    num_examples: int | None = None
    seed: int = 0
    features: bool = False
    statuses: tuple[str, ...] = ()
    labels: str | None = None
