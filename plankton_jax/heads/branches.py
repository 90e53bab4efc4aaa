"""What a branch of the hierarchical heads reads: one map or vector of features for each level.

On a transformer or any other backbone a branch has a Swin block of its own, randomly initialised:
in sequence on the last map (the report's choice: each block reads the one before it and feeds its
own level), in parallel on the last map, or each on a stage of its own. On the bases of the branch
papers a branch reads a stage's map as it is, through dense layers. Pure modules of arrays.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.config import HeadConfig
from plankton_jax.errors import UserError
from plankton_jax.models.branch_bases import DenseLayer
from plankton_jax.models.features import Features
from plankton_jax.models.normalisation import LayerNorm
from plankton_jax.models.regularisation import fold_in_name
from plankton_jax.models.swin import EPSILON, Block
from plankton_jax.models.transformer import Linear

HEAD_WIDTH = 32  # channels of an attention head, as in every Swin


class BranchVectors(nnx.Module):
    """One vector for each branch.

    Attributes:
      dims: their lengths.
    """

    def __init__(
        self, backbone: Any, count: int, config: HeadConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        stage_dims = getattr(backbone, "stage_dims", None)
        if not stage_dims:
            raise UserError(
                "config.model.head: the backbone names no stage_dims, so branches cannot read its "
                'maps; allowed with it: the heads "linear" and "coherent".'
            )
        self.taps = tap_indices(config, count, len(stage_dims))
        self.kind, self.window, self.trunk = config.branches, config.window, config.trunk
        widths = [stage_dims[tap] for tap in self.taps]
        self.blocks, self.norms = nnx.List(), nnx.List()
        if self.kind == "dense":
            sides = getattr(backbone, "stage_sides", None)
            if sides is None:
                raise UserError(
                    'config.head.branches: found "dense", which reads whole maps of the bases of '
                    'the branch papers; allowed with this backbone: "sequence", "parallel" or '
                    '"stages".'
                )
            widths = [sides[tap] ** 2 * width for tap, width in zip(self.taps, widths, strict=True)]
        else:
            for width in widths[: count - self.trunk]:
                heads = math.gcd(width, max(width // HEAD_WIDTH, 1))
                options = {"window": self.window, "shift": 0, "drop_path_rate": 0.0}
                self.blocks.append(Block(width, heads, **options, dtype=dtype, rngs=rngs))
                self.norms.append(LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs))
        self.projections = nnx.List()
        if config.bilinear:
            for tap in self.taps[: count - self.trunk]:
                self.projections.append(
                    Linear(stage_dims[tap], config.bilinear_width, dtype=dtype, rngs=rngs)
                )
            widths = [config.bilinear_width**2] * count
        if self.trunk:
            widths[-1] = backbone.feature_dim
        self.dims = tuple(widths)

    def __call__(self, features: Features, *, key: jax.Array | None = None) -> list[Array]:
        """The vectors `b d` of all branches, d as in `dims`."""
        maps = self._maps(features, key)[: len(self.dims) - self.trunk]
        vectors = [self._vector(number, x) for number, x in enumerate(maps)]
        return [*vectors, features.pooled] if self.trunk else vectors

    def _maps(self, features: Features, key: jax.Array | None) -> list[Array]:
        tapped = [features.stages[tap] for tap in self.taps]
        if self.kind == "dense":
            return tapped
        small = min(min(x.shape[1:3]) for x in tapped)
        if small < self.window:
            raise UserError(
                f"config.head.window: found {self.window}; a branch reads a map of {small} tokens "
                f"a side; allowed: {small} or less."
            )
        maps: list[Array] = []
        for number, block in enumerate(self.blocks):
            read = maps[-1] if self.kind == "sequence" and maps else tapped[number]
            maps.append(block(read, None, key=fold_in_name(key, f"branch{number}")))
        return maps

    def _vector(self, number: int, x: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        if len(self.norms):
            x = self.norms[number](x)
        if len(self.projections):
            return bilinear_pool(self.projections[number](x).astype(jnp.float32))
        if self.kind == "dense":
            return x.reshape(x.shape[0], -1)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def tap_indices(config: HeadConfig, count: int, stages: int) -> tuple[int, ...]:
    """The stage that each of `count` branches reads, counted from the first.

    Raises:
      UserError: taps of another number than the branches, or outside of the stages; different
        ones for blocks in sequence, of which only the first reads a stage.
    """
    taps = config.taps
    if not taps:
        last = config.branches in ("sequence", "parallel")
        taps = (-1,) * count if last else tuple(range(-min(count, stages), 0))
    if len(taps) != count:
        raise UserError(
            f"config.head.taps: found {tuple(taps)}; the tree has {count} levels and the backbone "
            f"{stages} stages; allowed: one stage for each level."
        )
    outside = [tap for tap in taps if not -stages <= tap < stages]
    if outside:
        raise UserError(
            f"config.head.taps: found {outside}; the backbone has {stages} stages; allowed: "
            f"{-stages} to {stages - 1}."
        )
    found = tuple(tap % stages for tap in taps)
    if config.branches == "sequence" and len(set(found)) > 1:
        raise UserError(
            f'config.head.taps: found {tuple(taps)} with config.head.branches="sequence", where '
            "every block reads the one before it; allowed: one stage for all, or "
            'config.head.branches="stages".'
        )
    return found


def bilinear_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c*c"]:
    """The sum of the outer products of all places, its signed square root, of length 1 (Lin et al.
    2015)."""
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    products = jnp.einsum("bnc,bnd->bcd", flat, flat).reshape(x.shape[0], -1)
    # The square root's gradient at 0 is infinite; this much above 0 nothing changes.
    rooted = jnp.sign(products) * jnp.sqrt(jnp.abs(products) + 1e-12)
    norm = jnp.sqrt(jnp.sum(rooted**2, axis=-1, keepdims=True) + 1e-12)
    return rooted / norm


class DenseLayers(nnx.Module):
    """Two dense layers of one width, each with ReLU, batch norm and dropout; `joined` as of
    `DenseLayer`, for the second."""

    def __init__(
        self, features: int, width: int, *, joined: int = 0, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.first = DenseLayer(features, width, dtype=dtype, rngs=rngs)
        self.second = DenseLayer(width, width, joined=joined, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b c"], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b d"]:
        return self.normalise(self.active(x, train=train, key=key), train=train, key=key)

    def active(
        self, x: Float[Array, "b c"], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b d"]:
        """All up to the second layer's ReLU."""
        x = self.first(x, train=train, key=fold_in_name(key, "first"))
        return self.second.active(x)

    def normalise(
        self, x: Float[Array, "b d"], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b d"]:
        """The second layer's batch norm and dropout."""
        return self.second.normalise(x, train=train, key=fold_in_name(key, "second"))
