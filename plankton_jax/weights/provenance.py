"""Where weights come from and what may be done with them; travels in the metadata of their file."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from plankton_jax import __version__
from plankton_jax.errors import UserError
from plankton_jax.models import ModelInfo
from plankton_jax.pretrained import PRETRAINED

OURS, TIMMS = "plankton_jax", "timm"

# The one entry of the metadata: safetensors writes several in an order that changes, and the same
# weights should make the same file.
_KEY = "plankton_jax"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Of one file of weights.

    Attributes:
      source: path or hub id of the file that the weights were read from, with what it held them
        under where that was not its top.
      sha256: of that file.
      tag: the public weights they are, such as `swin_s3_base_224.ms_in1k`; "": not known.
      licence: of the weights; "": not known.
      mean, std, crop, interpolation: how they want their images, as in
        `plankton_jax.models.ModelInfo`; that of the architecture's usual weights without a tag.
        `mean` and `std` have one number for each channel.
      converter: the version of this package that read the source.
    """

    source: str
    sha256: str
    tag: str = ""
    licence: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop: float | None = None
    interpolation: str = ""
    converter: str = f"plankton_jax {__version__}"

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Provenance":
        """What `dataclasses.asdict` gave and JSON carried."""
        lists: dict[str, Any] = {name: tuple(values[name]) for name in ("mean", "std")}
        return cls(**{**values, **lists})

    def for_channels(self, channels: int) -> "Provenance":
        """The same with mean and standard deviation of images of that many channels: of grey ones
        what the three have on average, as a run normalises them."""
        if channels != 1 or not self.mean:
            return self
        mean, std = (float(np.mean(values)) for values in (self.mean, self.std))
        return dataclasses.replace(self, mean=(mean,), std=(std,))

    @property
    def licence_sentence(self) -> str:
        """What a user is to be told of the licence."""
        if self.licence:
            return f"licence of the weights: {self.licence}"
        return "licence of the weights: not stated; see where they come from"


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """The network that a file of weights is of, and the weights' provenance.

    Attributes:
      num_classes: of the head; 0: the file has none.
      names: whose names the arrays have, "plankton_jax" or "timm".
      pool: as `plankton_jax.models.create_model` takes it; "": the architecture's own.
    """

    model: str
    num_classes: int
    image_size: int
    in_channels: int
    provenance: Provenance
    names: str = OURS
    pool: str = ""

    def metadata(self) -> dict[str, str]:
        """As a safetensors file carries it."""
        return {_KEY: json.dumps(dataclasses.asdict(self))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "WeightsInfo | None":
        """What `metadata` wrote, or None where there is nothing of the kind.

        Raises:
          UserError: it is of another version.
        """
        if _KEY not in metadata:
            return None
        try:
            values = json.loads(metadata[_KEY])
            values["provenance"] = Provenance.from_values(values["provenance"])
            info = cls(**values)
            _check_types(info, {"model": str, "names": str, "pool": str, **_NUMBERS})
            _check_types(info.provenance, _TEXTS)
            return info
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"weights: its metadata is not that of plankton_jax {__version__} ({error}). "
                "Convert the source anew."
            ) from error


_NUMBERS = {"num_classes": int, "image_size": int, "in_channels": int}
_TEXTS = {name: str for name in ("source", "sha256", "tag", "licence", "interpolation")}


def _check_types(record: Any, kinds: Mapping[str, type]) -> None:
    """Raises a `TypeError` for a field that is not of its kind."""
    for name, kind in kinds.items():
        value = getattr(record, name)
        if type(value) is not kind:
            raise TypeError(f"{name} is {value!r}, wanted: {kind.__name__}")


def describe(source: str, sha256: str, info: ModelInfo | None, tag: str = "") -> Provenance:
    """The provenance of a file of public weights, or of one of which no more is known.

    Args:
      info: of the architecture; None for a backbone that is a function.
      tag: of the public weights; "": not known.
    """
    known = PRETRAINED[tag] if tag else info
    if known is None:
        return Provenance(source, sha256)
    return Provenance(
        source,
        sha256,
        tag=tag,
        licence=PRETRAINED[tag].licence if tag else "",
        mean=known.mean,
        std=known.std,
        crop=known.crop,
        interpolation=known.interpolation,
    )
