"""The classes: what each is called, where it stands in the tree, how often and how it is drawn.

The shares follow what nets and cameras bring up: detritus above all, then copepods, then a long
tail. Which class an image shows depends on `(seed, index)` alone.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np

from data_builders.synthetic_plankton import (
    animals,
    crustaceans,
    debris,
    gelatinous,
    protists,
)
from data_builders.synthetic_plankton.dice import Dice, generator
from data_builders.synthetic_plankton.shapes import Sketch

LEVEL_NAMES = ("relevance", "group", "taxon")

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio
_CLASS_STREAM = (1 << 64) - 1  # an index no image has


@dataclasses.dataclass(frozen=True)
class PlanktonClass:
    """One leaf of the tree.

    Attributes:
      relevance, group, name: its path, coarse to fine.
      share: images of this class among 10,000.
      length: median of the longest side of what is drawn, in pixels.
      sketch: draws one individual.
    """

    relevance: str
    group: str
    name: str
    share: int
    length: float
    sketch: Callable[[Dice], Sketch]


def _leaf(relevance: str, group: str, share: int, length: float, sketch) -> PlanktonClass:
    return PlanktonClass(relevance, group, sketch.__name__, share, length, sketch)


CLASSES = (
    _leaf("relevant", "crustacean", 1500, 64, crustaceans.copepod_calanoid),
    _leaf("relevant", "crustacean", 400, 56, crustaceans.copepod_cyclopoid),
    _leaf("relevant", "crustacean", 150, 44, crustaceans.nauplius),
    _leaf("relevant", "crustacean", 75, 50, crustaceans.ostracod),
    _leaf("relevant", "crustacean", 22, 52, crustaceans.cladoceran),
    _leaf("relevant", "gelatinous", 130, 66, gelatinous.hydromedusa),
    _leaf("relevant", "gelatinous", 60, 66, gelatinous.ctenophore),
    _leaf("relevant", "gelatinous", 40, 74, gelatinous.siphonophore),
    _leaf("relevant", "gelatinous", 32, 66, gelatinous.salp),
    _leaf("relevant", "gelatinous", 250, 62, gelatinous.appendicularian),
    _leaf("relevant", "worm", 300, 78, animals.chaetognath),
    _leaf("relevant", "worm", 25, 70, animals.polychaete),
    _leaf("relevant", "mollusc", 50, 50, animals.pteropod),
    _leaf("relevant", "mollusc", 19, 44, animals.bivalve_larva),
    _leaf("relevant", "larva", 28, 58, animals.pluteus),
    _leaf("relevant", "larva", 200, 46, animals.fish_egg),
    _leaf("relevant", "larva", 15, 76, animals.fish_larva),
    _leaf("relevant", "protist", 480, 62, protists.diatom_chain),
    _leaf("relevant", "protist", 65, 54, protists.ceratium),
    _leaf("relevant", "protist", 98, 50, protists.radiolarian),
    _leaf("irrelevant", "detritus", 2700, 52, debris.detritus_dark),
    _leaf("irrelevant", "detritus", 1400, 62, debris.marine_snow),
    _leaf("irrelevant", "detritus", 200, 50, debris.faecal_pellet),
    _leaf("irrelevant", "detritus", 800, 72, debris.fibre),
    _leaf("irrelevant", "fragment", 400, 56, debris.copepod_fragment),
    _leaf("irrelevant", "artefact", 350, 46, debris.bubble),
    _leaf("irrelevant", "artefact", 200, 50, debris.out_of_focus),
    _leaf("irrelevant", "artefact", 11, 70, debris.scratch),
)

TOTAL_SHARE = sum(entry.share for entry in CLASSES)
PATHS = tuple((entry.relevance, entry.group, entry.name) for entry in CLASSES)
_UPPER = [(n << 64) // TOTAL_SHARE for n in itertools.accumulate(e.share for e in CLASSES)]


@functools.lru_cache(maxsize=8)
def _offset(seed: int) -> int:
    return int(generator(seed, _CLASS_STREAM).integers(0, 1 << 64, dtype=np.uint64))


def leaf_of(index: int, seed: int) -> int:
    """The class of image `index`.

    Multiples of the golden ratio modulo 1 fill the unit interval evenly, so that after any number
    of images each class has come up nearly as often as its share says.
    """
    position = (_offset(seed) + index * _GOLDEN) & ((1 << 64) - 1)
    return bisect.bisect_right(_UPPER, position)
