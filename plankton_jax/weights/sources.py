"""Files of weights from anywhere, read into one form: timm's names, and where they come from."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from plankton_jax.errors import UserError, near_miss
from plankton_jax.models import Classifier, ModelInfo, create_model, list_models, unflatten_paths
from plankton_jax.pretrained import PRETRAINED
from plankton_jax.weights import hub
from plankton_jax.weights.files import file_sha256, read_file
from plankton_jax.weights.layouts import unwrap, without_prefixes
from plankton_jax.weights.provenance import OURS, Provenance, WeightsInfo, describe
from plankton_jax.weights.timm_names import to_timm

# What is not on the hub when there is no such file.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz", ".h5")


@dataclasses.dataclass(frozen=True)
class Source:
    """What a file of weights holds.

    Attributes:
      path: the file.
      state_dict: in timm's naming.
      provenance: where the weights come from; of a converted file, where they came from first.
      info: the network, where the file itself says so.
    """

    path: pathlib.Path
    state_dict: dict[str, np.ndarray]
    provenance: Provenance
    info: WeightsInfo | None = None

    @property
    def model(self) -> str:
        """The architecture, where it is known."""
        if self.info:
            return self.info.model
        return PRETRAINED[self.provenance.tag].model if self.provenance.tag else ""


def open_source(
    text: str,
    cache: str | os.PathLike,
    *,
    architecture: ModelInfo | None,
    tag: str = "",
    notify: Callable[[str], None] | None = None,
) -> Source:
    """Reads a file, or the weights of a hub repository, which are downloaded if need be.

    Args:
      text: path of a safetensors or PyTorch file; OWNER/NAME on the hub; or NAME.TAG.
      cache: folder of downloaded weights.
      architecture: the network they are meant for; None: a function builds it.
      tag: the public weights that a file holds, where that is known.

    Raises:
      UserError: no such file or repository, a file that cannot be read, weights that are said to
        be of another architecture.
    """
    path = pathlib.Path(text).expanduser()
    place = text
    from_hub = not path.exists()
    if from_hub:
        if path.suffix in SUFFIXES:
            raise UserError(f"weights: there is no file {path}.")
        place = hub.hub_id(text)
        tag = tag or hub.tag_of(place)
        path = hub.fetch(place, cache, notify)
    if tag and tag not in PRETRAINED:
        raise UserError(f'weights: there is no tag "{tag}". {near_miss(tag, PRETRAINED)}')
    with naming(path):
        source = _read(path, place, architecture, tag)
    if from_hub:
        hub.record(path, notify)
    expected = architecture.name if architecture else source.model
    if source.model not in ("", expected):
        raise UserError(f"{path}: weights of {source.model}; wanted: those of {expected}.")
    return source


def _read(path: pathlib.Path, place: str, architecture: ModelInfo | None, tag: str) -> Source:
    """The content of one file."""
    content, metadata = read_file(path)
    info = described(metadata)
    sha256 = file_sha256(path)
    if info and info.names == OURS:
        skeleton = abstract_model(info)
        with_head = info.num_classes > 0
        named = to_timm(unflatten_paths(content), {}, skeleton, with_head=with_head)
        return Source(path, named, info.provenance, info)
    unwrapped, where = unwrap(content)
    nameless = [repr(name) for name in unwrapped if not isinstance(name, str)]
    if nameless:
        raise UserError(
            f"weights: keys that are no names: {', '.join(nameless)}; allowed: a state dict, as "
            "`model.state_dict()` gives it."
        )
    odd = [str(n) for n, v in unwrapped.items() if not isinstance(v, np.ndarray)]
    if odd:
        raise UserError(f"weights: entries that are no arrays: {', '.join(odd)}.")
    state_dict = without_prefixes(unwrapped)
    if info:  # timm's names, written by this package
        return Source(path, state_dict, info.provenance, info)
    place = f"{place}:{where}" if where else place
    return Source(path, state_dict, describe(place, sha256, architecture, tag))


def described(metadata: Mapping[str, str]) -> WeightsInfo | None:
    """What the metadata of a file says of its network; None where it says nothing.

    Raises:
      UserError: it is of another version, or of a network that is not among the present ones.
    """
    info = WeightsInfo.from_metadata(metadata)
    if info and info.model not in list_models():
        raise UserError(
            f'weights: its metadata says that it is of the network "{info.model}", which is not '
            f"here. {near_miss(info.model, list_models())} "
            "plankton_jax.models.list_models() lists them all."
        )
    return info


def abstract_model(info: WeightsInfo) -> Classifier:
    """The network of a file without values: shapes alone."""
    classes = info.num_classes or 1
    return shapes_of(info.model, classes, info.image_size, info.in_channels, info.pool)


@functools.lru_cache(maxsize=4)
def shapes_of(
    name: str, num_classes: int, image_size: int | None, in_channels: int, pool: str = ""
) -> Classifier:
    """A named network without values: what `create_model` makes, shapes alone."""
    options = {"image_size": image_size, "in_channels": in_channels, "pool": pool}
    make = functools.partial(create_model, name, num_classes, **options)
    return nnx.eval_shape(lambda: make(key=jax.random.key(0)))


@contextlib.contextmanager
def naming(path: Any) -> Iterator[None]:
    """Puts the file's name into the messages of what goes wrong in the block."""
    try:
        yield
    except UserError as error:
        problems = [
            problem.replace("weights:", f"{path}:", 1)
            if problem.startswith("weights:") and not problem.startswith(f"weights: {path}")
            else problem
            for problem in error.problems
        ]
        raise UserError(*problems) from error
