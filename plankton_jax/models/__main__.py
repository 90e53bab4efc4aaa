"""Lists the backbones that have a name, with their size and what they want of their images.

    python -m plankton_jax.models
    python -m plankton_jax.models --family swin
    python -m plankton_jax.models --names 'vit_*_224' --json

Parameters (millions) and multiply-adds (thousand millions an image, at the native size) are those
with a linear head of 1000 classes. Mean and standard deviation are of red, green and blue in 0..1,
as the public weights were trained with; the licence is that of these weights.
"""

import fnmatch
import gc
import json
from collections.abc import Iterator
from typing import Any

from plankton_jax.command import command_parser, run_command
from plankton_jax.errors import UserError, near_miss

_ROW = "{:<{width}}  {:<10} {:>9} {:>8} {:>5}  {:<17}  {:<17}  {}"


def main(arguments: list[str]) -> int:
    """Reads the arguments and prints a table, row by row, or one list of objects."""
    parser = command_parser("plankton_jax.models", __doc__ or "")
    parser.add_argument("--family", help="of the architecture, such as swin")
    parser.add_argument("--names", default="*", help="a pattern such as 'swin*' (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    options = parser.parse_args(arguments)
    names = _chosen(options.family, options.names)
    rows = _rows(names)
    if options.json:
        print(json.dumps(list(rows), indent=1))
        return 0
    width = max(map(len, names))
    titles = ("family", "params M", "MACs G", "side", "mean", "std", "licence of the weights")
    print(_ROW.format("name", *titles, width=width))
    for row in rows:
        print(_line(row, width), flush=True)
    return 0


def _chosen(family: str | None, pattern: str) -> list[str]:
    """The names of a family that match a pattern.

    Raises:
      UserError: an unknown family, or a pattern that nothing matches.
    """
    from plankton_jax import models

    families = {name: models.get_info(name).family for name in models.list_models()}
    if family is not None and family not in families.values():
        raise UserError(
            f'--family: there is no family "{family}". {near_miss(family, set(families.values()))}'
        )
    within = [name for name, of in families.items() if family in (None, of)]
    names = fnmatch.filter(within, pattern)
    if not names:
        raise UserError(f'--names: nothing matches "{pattern}". {near_miss(pattern, within)}')
    return names


def _rows(names: list[str]) -> Iterator[dict[str, Any]]:
    """What is known of each network, its sizes counted here."""
    from plankton_jax import models
    from plankton_jax.models.sizes import model_size

    for name in names:
        info, size = models.get_info(name), model_size(name)
        yield {
            "name": name,
            "family": info.family,
            "parameters": size.parameters,
            "multiply_adds": size.multiply_adds,
            "image_size": info.image_size,
            "mean": info.mean,
            "std": info.std,
            "weights": info.timm_name,
            "licence": _licence(info.timm_name),
        }


def _licence(weights: str | None) -> str:
    """The licence of public weights; empty where there are none or none is stated."""
    from plankton_jax.pretrained import PRETRAINED

    return PRETRAINED[weights].licence if weights and weights in PRETRAINED else ""


def _line(row: dict[str, Any], width: int) -> str:
    """A row of the table."""
    mean, std = (" ".join(f"{value:g}" for value in row[key]) for key in ("mean", "std"))
    numbers = (f"{row['parameters'] / 1e6:.2f}", f"{row['multiply_adds'] / 1e9:.2f}")
    return _ROW.format(
        row["name"],
        row["family"],
        *numbers,
        row["image_size"],
        mean,
        std,
        row["licence"] or "-",
        width=width,
    )


if __name__ == "__main__":
    gc.disable()  # a third of the time, to free next to nothing
    run_command(main)
