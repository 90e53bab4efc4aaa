"""The hierarchical heads on WHOI-Plankton's tree; all else as in `zooscan_hierarchical.py`.

    python -m plankton_jax.train --config configs/whoi_hierarchical.py:flat \
        --config.data.source=whoi_zips --workdir runs/whoi_flat
    python -m plankton_jax.train --config configs/whoi_hierarchical.py:sbacnn \
        --config.model.initial_weights=runs/whoi_flat --config.data.source=whoi_zips \
        --workdir runs/whoi_sbacnn

Argument: flat, bcnn, hbcnn, bacnn, sbacnn, add, concat or coherent.
"""

import importlib.util
import pathlib

from plankton_jax.config import Config


def get_config(arg: str | None = None) -> Config:
    """The settings of a head."""
    path = pathlib.Path(__file__).with_name("zooscan_hierarchical.py")
    spec = importlib.util.spec_from_file_location("zooscan_hierarchical", path)
    assert spec is not None and spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    return other.settings(arg, "whoi", "configs/whoi_hierarchical.py")
