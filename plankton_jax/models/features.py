"""What every backbone returns. Pure data."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from plankton_jax.errors import UserError


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["stages", "pooled", "tokens", "distilled"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Features:
    """The outputs of a backbone.

    Attributes:
      stages: feature maps, early to late: one for each stage of a convolutional or hierarchical
        network, one for each block of a plain transformer (class tokens left out, before the final
        norm), or those that were asked for by index. Under `jax.jit` unused ones cost nothing.
      pooled: what the head reads.
      tokens: a transformer's sequence after the final norm where that norm comes before pooling,
        prefix tokens (class, distillation) first.
      distilled: the distillation token after the final norm, which a second linear head reads.
    """

    stages: tuple[Float[Array, "b h w c"], ...]
    pooled: Float[Array, "b d"]
    tokens: Float[Array, "b n d"] | None = None
    distilled: Float[Array, "b d"] | None = None


def select_stages(stages: Sequence[Array], indices: Sequence[int] | None) -> tuple[Array, ...]:
    """The stages at `indices` in that order, counted from the end where negative; None: all.

    Raises:
      UserError: an index outside the stages.
    """
    if indices is None:
        return tuple(stages)
    count = len(stages)
    outside = [index for index in indices if not -count <= index < count]
    if outside:
        raise UserError(
            f"feature indices {outside}: the backbone has {count} stages; allowed: {-count} to "
            f"{count - 1}."
        )
    return tuple(stages[index] for index in indices)
