"""Converted weights: a safetensors file under this package's parameter paths, with provenance.

`convert` makes them of any source, `save` writes them, `load_model` gives the network back.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models import (
    Classifier,
    Features,
    ModelInfo,
    apply,
    apply_features,
    flatten_paths,
    join_model,
    split_model,
    unflatten_paths,
)
from plankton_jax.pretrained import PRETRAINED
from plankton_jax.weights.contents import (
    kept_parts,
    left_out,
    source_channels,
    source_classes,
    source_pool,
)
from plankton_jax.weights.files import read_file, write_safetensors
from plankton_jax.weights.likeness import explaining
from plankton_jax.weights.placing import present_names
from plankton_jax.weights.provenance import OURS, WeightsInfo
from plankton_jax.weights.sources import Source, abstract_model, described, naming, shapes_of
from plankton_jax.weights.timm_names import from_timm, not_finite, not_real, to_timm

PyTree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Converted:
    """Parameters and model state of a network, the head's left out where `info` has no classes."""

    params: PyTree
    model_state: PyTree
    info: WeightsInfo


def convert(
    source: Source,
    architecture: ModelInfo,
    *,
    with_head: bool = True,
    image_size: int | None = None,
    in_channels: int | None = None,
    notify: Callable[[str], None] | None = None,
) -> Converted:
    """The source's weights as those of a named network.

    Args:
      with_head: False leaves the source's head out.
      image_size: side of the input; None: what the source is for, or the native one.
      in_channels: 1 or 3; None: what the source is for.
      notify: called with a sentence for what is not carried over as it is.

    Raises:
      UserError: keys without a place, parameters without a key, arrays of another shape, values
        that are not finite.
    """
    notify = notify or (lambda text: None)
    name = architecture.name
    with naming(source.path):
        any_model = shapes_of(name, 1, image_size, 3)
        state_dict = present_names(source.state_dict, any_model)
        classes = source_classes(state_dict, any_model)
        if with_head and not classes:
            notify("the source has no head, so there is none in what is converted")
        channels = in_channels or source_channels(state_dict, any_model) or 3
        info = WeightsInfo(
            model=name,
            num_classes=classes if with_head else 0,
            image_size=image_size or _image_size(source, architecture),
            in_channels=channels,
            provenance=source.provenance.for_channels(channels),
            pool=source_pool(state_dict, any_model),
        )
        model = abstract_model(info)
        with explaining(state_dict, name):
            params, model_state = from_timm(state_dict, model, with_head=info.num_classes > 0)
    if dropped := left_out(state_dict, model):
        notify(f"left out: {', '.join(dropped)}")
    if kept := kept_parts(state_dict, model):
        notify(f"not in the source, so with initial values: {', '.join(kept)}")
    if info.pool == "mean":
        notify('it pools the mean of its patches, as timm does with global_pool="avg"')
    if not info.num_classes:
        params = {group: value for group, value in params.items() if group != "head"}
    converted = Converted(params, model_state, info)
    before = {name: np.shape(value) for name, value in state_dict.items()}
    after = {name: value.shape for name, value in named_as_timm(converted).items()}
    changed = [name for name in after if after[name] != before.get(name, after[name])]
    if changed:
        notify(
            f"made to fit {info.image_size} pixels and {info.in_channels} channels: "
            f"{', '.join(changed)}"
        )
    return converted


def _image_size(source: Source, architecture: ModelInfo) -> int:
    """The side of the images that the source was made for, as far as is known."""
    if source.info:
        return source.info.image_size
    known = PRETRAINED.get(source.provenance.tag)
    return known.image_size if known else architecture.image_size


def named_as_timm(converted: Converted) -> dict[str, np.ndarray]:
    """The state dict that timm's network of the same name loads with `strict=True`."""
    info = converted.info
    with_head = info.num_classes > 0
    return to_timm(
        converted.params, converted.model_state, abstract_model(info), with_head=with_head
    )


def save(path: pathlib.Path, converted: Converted, *, to: str = OURS) -> None:
    """Writes a safetensors file, provenance in its metadata.

    Args:
      to: "plankton_jax" for this package's parameter paths, "timm" for timm's names.
    """
    if to == OURS:
        arrays = flatten_paths(converted.params) | flatten_paths(converted.model_state)
    else:
        arrays = named_as_timm(converted)
    info = dataclasses.replace(converted.info, names=to)
    write_safetensors(path, arrays, info.metadata())


class LoadedModel:
    """A network in evaluation mode, compiled at its first call for each shape of images.

    Attributes:
      info: what the network is and where its weights come from.
      graphdef, params, model_state: as `plankton_jax.models.split_model` gives them.
    """

    def __init__(self, graphdef: Any, params: PyTree, model_state: PyTree, info: WeightsInfo):
        self.info = info
        self.graphdef, self.params, self.model_state = graphdef, params, model_state
        self._apply = jax.jit(functools.partial(apply, graphdef))
        self._features = jax.jit(
            functools.partial(apply_features, graphdef), static_argnames=("indices", "norm")
        )

    @property
    def classifier(self) -> Classifier:
        """A copy as a module, with `backbone.strides` and `backbone.stage_dims`, to train or to
        give to `plankton_jax.keras`. Where the file has no head it has one of zeros, for one class.
        """
        return join_model(self.graphdef, self.params, self.model_state)

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Logits of images normalised with the mean and standard deviation of the provenance.

        Raises:
          UserError: the file has no head, or images of another size.
        """
        if not self.info.num_classes:
            raise UserError(
                f"{self.info.model}: these weights have no head, so there are no logits. Take "
                ".features(images), or convert a source that has one."
            )
        levels, _ = self._apply(self.params, self.model_state, jnp.asarray(images))
        return levels[-1]

    def features(
        self,
        images: Float[Array, "b h w c"],
        *,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
    ) -> Features:
        """The backbone's features; `indices` and `norm` as in `Classifier.features`."""
        # What is static under `jax.jit` has to be hashable.
        chosen = tuple(indices) if isinstance(indices, Iterable) else indices
        return self._features(
            self.params, self.model_state, jnp.asarray(images), indices=chosen, norm=norm
        )


def load_model(path: str | os.PathLike) -> LoadedModel:
    """The network of a converted file.

    Raises:
      UserError: a file that cannot be read, was not converted, lacks a part of the network, or has
        values that are not finite.
    """
    with naming(os.fspath(path)):
        content, metadata = read_file(path)
        info = described(metadata)
        if info is None or info.names != OURS:
            name = info.model if info else "NAME"
            raise UserError(
                "weights: not a converted file. Convert it: python -m plankton_jax.convert "
                f"--model {name} --checkpoint {os.fspath(path)} --out X.safetensors."
            )
        graphdef, params, state = split_model(abstract_model(info))
        extra = sorted(content.keys() - flatten_paths(params).keys() - flatten_paths(state).keys())
        if extra:
            raise UserError(
                f"weights: arrays that the network has no place for: {', '.join(extra)}."
            )
        params, state = _filled(params, content, info), _filled(state, content, info)
    return LoadedModel(graphdef, params, state, info)


def _filled(tree: PyTree, content: dict[str, np.ndarray], info: WeightsInfo) -> PyTree:
    """The leaves of `tree` from a file; zeros for the head of a file without one."""
    filled, problems = {}, []
    for path, leaf in flatten_paths(tree).items():
        if path.startswith("head/") and not info.num_classes:
            filled[path] = jnp.zeros(leaf.shape, leaf.dtype)
        elif path in content and (complex_numbers := not_real(path, content[path])):
            problems += complex_numbers
        elif path not in content or content[path].shape != leaf.shape:
            found = content[path].shape if path in content else "nothing"
            problems.append(f"weights: {path} should have shape {leaf.shape}; found {found}.")
        else:
            filled[path] = jnp.asarray(content[path], leaf.dtype)
            problems += not_finite(path, content[path])
    if problems:
        raise UserError(*problems)
    return unflatten_paths(filled)
