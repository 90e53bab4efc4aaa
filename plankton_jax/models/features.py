"""What every backbone returns. Pure data."""

import dataclasses
import functools
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import jax
from jax.extend import core
from jaxtyping import Array, Float

from plankton_jax.errors import UserError


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["stages", "pooled", "tokens", "distilled", "auxiliary", "measured"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Features:
    """The outputs of a backbone.

    Attributes:
      stages: feature maps, early to late: one for each stage of a convolutional or hierarchical
        network, one for each block of a plain transformer (class tokens left out, before the final
        norm), or those that were asked for by index. Under `jax.jit` unused ones cost nothing.
      pooled: what the head reads. Of a distilled transformer it is the class token alone, and the
        linear head reads the distillation token too; timm's `forward_head(pre_logits=True)` gives
        the mean of both.
      tokens: a transformer's sequence after the final norm where that norm comes before pooling,
        prefix tokens (class, distillation) first.
      distilled: the distillation token after the final norm, which a second linear head reads.
      auxiliary: in training, what an auxiliary classifier within the network reads.
      measured: the embedding of the numbers that came with each image; `pooled` has it in it.
    """

    stages: tuple[Float[Array, "b h w c"], ...]
    pooled: Float[Array, "b d"]
    tokens: Float[Array, "b n d"] | None = None
    distilled: Float[Array, "b d"] | None = None
    auxiliary: Float[Array, "b d2"] | None = None
    measured: Float[Array, "b d"] | None = None


def flatten_features(features: Features) -> dict[str, Any]:
    """The arrays that are there by name: "pooled", "stages/3"."""
    flat = {f"stages/{number}": stage for number, stage in enumerate(features.stages)}
    others = (field.name for field in dataclasses.fields(features) if field.name != "stages")
    flat |= {name: getattr(features, name) for name in others}
    return {name: value for name, value in flat.items() if value is not None}


def unflatten_features(arrays: Mapping[str, Any], num_stages: int) -> Features:
    """The reverse of `flatten_features` for some of the arrays; None in the place of others.

    `num_stages` is how many the backbone has, so that indices from the end find the same.
    """
    stages = tuple(arrays.get(f"stages/{number}") for number in range(num_stages))
    others = {name: value for name, value in arrays.items() if not name.startswith("stages/")}
    return Features(stages=cast(Any, stages), **({"pooled": cast(Any, None)} | others))


def names_read(
    function: Callable[..., Any], features: Features, *arguments: Any
) -> tuple[str, ...]:
    """The names of the arrays that what `function(features, *arguments)` returns depends on.

    Args:
      features, arguments: their shapes are enough.
    """
    jaxpr = jax.make_jaxpr(function)(features, *arguments).jaxpr
    live = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    for equation in reversed(jaxpr.eqns):
        if live.intersection(equation.outvars):
            live.update(v for v in equation.invars if not isinstance(v, core.Literal))
    leaves, structure = jax.tree.flatten(features)
    marked = jax.tree.unflatten(structure, [v in live for v in jaxpr.invars[: len(leaves)]])
    return tuple(name for name, read in flatten_features(marked).items() if read)


def stage_numbers(count: int, indices: int | Sequence[int] | None) -> tuple[int, ...]:
    """Which of `count` stages are asked for, counted from the start.

    Args:
      indices: a number n: the last n, early to late; a sequence: those, in its own order, counted
        from the end where negative; None: all.

    Raises:
      UserError: neither, or stages that are not there.
    """
    if indices is None:
        return tuple(range(count))
    if _is_number(indices):
        last = int(cast(int, indices))
        if not 0 < last <= count:
            raise UserError(
                f"feature indices: found {last}, the last {last} stages; the backbone has {count}; "
                f"allowed: 1 to {count}, or a sequence of indices."
            )
        return tuple(range(count - last, count))
    chosen = list(cast(Sequence[int], indices)) if isinstance(indices, Iterable) else [indices]
    if not all(map(_is_number, chosen)):
        raise UserError(
            f"feature indices: found {indices!r}; allowed: a whole number n, which takes the last "
            "n stages, a sequence of whole numbers, or None."
        )
    outside = [index for index in chosen if not -count <= index < count]
    if outside:
        raise UserError(
            f"feature indices {outside}: the backbone has {count} stages; allowed: {-count} to "
            f"{count - 1}."
        )
    return tuple(int(index) % count for index in chosen)


def _is_number(value: Any) -> bool:
    """Whether it is a whole number, NumPy's included."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def select_stages(
    stages: Sequence[Array], indices: int | Sequence[int] | None
) -> tuple[Array, ...]:
    """The stages at `indices`, as `stage_numbers` understands and refuses them."""
    return tuple(stages[number] for number in stage_numbers(len(stages), indices))


def normalise_stages(
    backbone: Any, stages: Sequence[Array], indices: int | Sequence[int] | None
) -> tuple[Array, ...]:
    """The stages at `indices` behind the backbone's final norm, as timm's `norm=True` gives them.

    A backbone whose final norm applies to a map has `normalise_stage(map, index)`, with the index
    counted from the start. Stages of the others, and stages of another width than the norm's,
    are returned as they are.
    """
    normalise = getattr(backbone, "normalise_stage", None)
    if normalise is None:
        return tuple(stages)
    chosen = stage_numbers(len(backbone.stage_dims), indices)
    return tuple(normalise(stage, number) for stage, number in zip(stages, chosen, strict=True))
