"""Numbers about an example that go to the network beside its image. NumPy, from the index alone.

Resizing to a square loses an image's absolute size and aspect ratio, which tell many taxa apart;
here they are, unchanged by flips and quarter turns.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Integer

from plankton_jax.config import FEATURE
from plankton_jax.data.dataset import Dataset
from plankton_jax.data.geometry import Geometry

_TYPICAL_SIDE = 64.0  # pixels or micrometres; what log_side counts from
_AS_IT_IS = Geometry()


def measure(
    dataset: Dataset,
    rows: Integer[np.ndarray, " b"],
    names: Sequence[str],
    geometry: Geometry = _AS_IT_IS,
) -> Float32[np.ndarray, "b m"]:
    """The named measurements of these rows, one column each; 0 for a row of -1 (padding).

    Args:
      names: of `config.MEASUREMENTS`, or `feature:` and the name of a number that came with the
        images, which is standardised by the data set's mean and deviation; a missing one is 0.
      geometry: says what is cut off, and the size of a pixel, if sides count in micrometres.
    """
    inside = rows >= 0
    height = np.asarray(dataset.height[rows[inside]], np.float64)
    width = np.asarray(dataset.width[rows[inside]], np.float64)
    cut, unit = geometry.crop_bottom_px, geometry.pixel_size_um or 1.0
    height = np.where(height > cut, height - cut, height) * unit
    width = width * unit
    measured = np.zeros((len(rows), len(names)), np.float32)
    for column, name in enumerate(names):
        if name.startswith(FEATURE):
            values = _standardised(dataset, name.removeprefix(FEATURE), rows[inside])
        else:
            values = _FORMULAS[name](height, width)
        measured[inside, column] = values
    return measured


def _standardised(
    dataset: Dataset, name: str, rows: Integer[np.ndarray, " r"]
) -> Float64[np.ndarray, " r"]:
    """A number that came with the images; what is far out is held at ten deviations."""
    mean, deviation = dataset.metadata["features"][name]
    values = (dataset.features[name][rows] - mean) / deviation
    return np.nan_to_num(np.clip(values, -10, 10))


def _log_side(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Of the side of the square of the same area, against a typical image's."""
    return 0.5 * np.log(height * width) - np.log(_TYPICAL_SIDE)


def _log_height(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Of the height, against a typical side."""
    del width
    return np.log(height / _TYPICAL_SIDE)


def _log_width(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Of the width, against a typical side."""
    del height
    return np.log(width / _TYPICAL_SIDE)


def _log_elongation(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Of the longer side over the shorter one."""
    return np.abs(np.log(width / height))


_FORMULAS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "log_side": _log_side,
    "log_height": _log_height,
    "log_width": _log_width,
    "log_elongation": _log_elongation,
}
