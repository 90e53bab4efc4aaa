"""A small built data set for the tests of this folder."""

import pathlib

import numpy as np
import pytest
from data_support import png, smooth_image, write_data_set

from plankton_jax.data.dataset import Dataset, open_dataset


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """103 images of seven classes and many sizes in two shards."""
    random = np.random.default_rng(1)
    sizes = random.integers(8, 60, (103, 2))
    images = [png(smooth_image(h, w, i)) for i, (h, w) in enumerate(sizes.tolist())]
    leaf = np.sort(random.integers(0, 7, 103) // (1 + random.integers(0, 3, 103))).tolist()
    return write_data_set(tmp_path_factory.mktemp("built") / "tiny", images, leaf)


@pytest.fixture
def tiny(tiny_directory: pathlib.Path) -> Dataset:
    return open_dataset(tiny_directory)
