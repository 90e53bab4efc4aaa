"""Heads with a branch for each level of the tree: B-CNN, HB-CNN, BA-CNN and what ablates it.

Each returns float32 logits of every level, coarse to fine. The levels are independent of each
other, so they may contradict the tree; `plankton_jax.decoding` says what to make of that.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.config import HeadConfig
from plankton_jax.errors import UserError
from plankton_jax.heads.branches import BranchVectors, DenseLayers
from plankton_jax.heads.coupling import BranchAttention
from plankton_jax.heads.linear import LogitLayer
from plankton_jax.models.features import Features
from plankton_jax.models.initialisers import glorot
from plankton_jax.models.regularisation import dropout, fold_in_name
from plankton_jax.taxonomy import Taxonomy


def require_levels(taxonomy: Taxonomy | None, head: str, num_classes: int) -> Taxonomy:
    """The tree of the classes, which must have two levels or more, of two nodes or more each.

    Raises:
      UserError: it has not.
    """
    if taxonomy is None or taxonomy.depth < 2:
        raise UserError(
            f'config.model.head: found "{head}" for a tree of depth 1; allowed: a data set with a '
            'tree (folders in folders, or config.data.taxonomy_csv), or the head "linear".'
        )
    for name, nodes in zip(taxonomy.level_names, taxonomy.node_names, strict=True):
        if len(nodes) < 2:
            raise UserError(
                f'config.model.head: found "{head}"; the level {name} has one node, '
                f'"{"".join(nodes)}", and nothing to tell apart; allowed: a tree without it.'
            )
    if taxonomy.num_leaves != num_classes:
        raise UserError(
            f"config.data.taxonomy_csv: the tree has {taxonomy.num_leaves} leaves for "
            f"{num_classes} classes; allowed: a tree of the data set's classes."
        )
    return taxonomy


class BranchHead(nnx.Module):
    """What the heads here share: a vector for each branch, logits of each level."""

    name = "bcnn"

    def __init__(
        self,
        backbone: Any,
        num_classes: int,
        *,
        taxonomy: Taxonomy | None = None,
        drop_rate: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        config: HeadConfig | None = None,
    ):
        config = config or HeadConfig()
        tree = require_levels(taxonomy, self.name, num_classes)
        self.drop_rate = drop_rate
        self.reads_pooled = config.trunk
        self.vectors = BranchVectors(backbone, tree.depth, config, dtype=dtype, rngs=rngs)
        dims = self.make_branches(config, tree.depth, dtype=dtype, rngs=rngs)
        self.logits = nnx.List()
        for width, nodes in zip(dims, tree.node_names, strict=True):
            width += measured_width(backbone)
            self.logits.append(branch_logits(width, len(nodes), dtype=dtype, rngs=rngs))

    def make_branches(
        self, config: HeadConfig, count: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> tuple[int, ...]:
        """Makes what lies between vectors and logits; the lengths of what the logits read."""
        raise NotImplementedError

    def branches(
        self, vectors: list[Array], *, train: bool, key: jax.Array | None
    ) -> list[Float[Array, "b d"]]:
        """What the logits of each level read."""
        raise NotImplementedError

    def __call__(
        self, features: Features, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[Float[Array, "b k"], ...]:
        """Logits of every level."""
        key = key if train else None
        vectors = self.vectors(features, key=key)
        read = self.branches(vectors, train=train, key=key)
        outputs = []
        for number, (x, layer) in enumerate(zip(read, self.logits, strict=True)):
            x = dropout(x, self.drop_rate, fold_in_name(key, f"logits{number}"))
            outputs.append(layer(with_measurements(x, features)))
        return tuple(outputs)


def branch_logits(features: int, num_nodes: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> LogitLayer:
    """The logits of a branch. As Keras draws them: from smaller values, such as a flat head's, the
    short vectors of BA-CNN's branches learn several times as slowly."""
    init = glorot(features, num_nodes)
    return LogitLayer(features, num_nodes, kernel_init=init, dtype=dtype, rngs=rngs)


def measured_width(backbone: Any) -> int:
    """How much longer a vector becomes by the numbers that come with each image."""
    return getattr(backbone, "measured_dim", 0)


def with_measurements(x: Float[Array, "b d"], features: Features) -> Float[Array, "b d2"]:
    """The vector, and behind it the embedded measurements where there are any."""
    if features.measured is None:
        return x
    return jnp.concatenate((x, features.measured.astype(x.dtype)), axis=-1)


def checked_widths(config: HeadConfig, count: int, of: str = "each branch") -> tuple[int, ...]:
    """The widths of the dense layers of `count` branches, or none; `of` says which ones.

    Raises:
      UserError: another number of them.
    """
    widths = tuple(config.branch_widths)
    if widths and len(widths) != count:
        raise UserError(
            f"config.head.branch_widths: found {widths}; allowed: none, or {count} numbers, one "
            f"for {of}."
        )
    return widths


class BCnnHead(BranchHead):
    """B-CNN (Zhu & Bain 2017): every level reads its own branch and nothing else."""

    name = "bcnn"

    def connections(self, config: HeadConfig, count: int) -> tuple[tuple[int, ...], ...]:
        """The branches whose vectors each branch reads."""
        del config
        return tuple((number,) for number in range(count))

    def make_branches(
        self, config: HeadConfig, count: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> tuple[int, ...]:
        self.pattern = self.connections(config, count)
        but = " but the last, which reads the trunk" if config.trunk else ""
        widths = checked_widths(config, count - config.trunk, f"each branch{but}")
        read = [sum(self.vectors.dims[j] for j in sources) for sources in self.pattern]
        self.dense = nnx.List()
        for number, width in enumerate(widths):
            self.dense.append(DenseLayers(read[number], width, dtype=dtype, rngs=rngs))
            read[number] = width
        return tuple(read)

    def branches(
        self, vectors: list[Array], *, train: bool, key: jax.Array | None
    ) -> list[Float[Array, "b d"]]:
        read = []
        for number, sources in enumerate(self.pattern):
            x = jnp.concatenate([vectors[j] for j in sources], axis=-1)
            if number < len(self.dense):
                x = self.dense[number](x, train=train, key=fold_in_name(key, f"dense{number}"))
            read.append(x)
        return read


class HbCnnHead(BCnnHead):
    """HB-CNN (Zhang et al. 2021): finer branches read the features of the coarser ones too."""

    name = "hbcnn"

    def connections(self, config: HeadConfig, count: int) -> tuple[tuple[int, ...], ...]:
        pattern = config.connections or tuple(tuple(range(n + 1)) for n in range(count))
        if len(pattern) != count or any(
            not sources or not all(0 <= j < count for j in sources) for sources in pattern
        ):
            raise UserError(
                f"config.head.connections: found {pattern}; allowed: for each of the {count} "
                f"branches the numbers, 0 to {count - 1}, of those that it reads."
            )
        return tuple(tuple(sources) for sources in pattern)


class BaCnnHead(BranchHead):
    """BA-CNN (Pizarro et al. 2023): every level reads its branch beside what attention gathers."""

    name = "bacnn"

    def make_branches(
        self, config: HeadConfig, count: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> tuple[int, ...]:
        self.dense = nnx.List()
        for read in self.vectors.dims:
            self.dense.append(DenseLayers(read, config.width, dtype=dtype, rngs=rngs))
        self.attention = BranchAttention(
            count,
            config.width,
            config.attention_width,
            of_first=config.attention == "batch0",
            rngs=rngs,
        )
        return (2 * config.width,) * count

    def branches(
        self, vectors: list[Array], *, train: bool, key: jax.Array | None
    ) -> list[Float[Array, "b d"]]:
        stacked = jnp.stack(self._dense(vectors, train=train, key=key), axis=1)
        heard, _ = self.attention(stacked)
        both = jnp.concatenate((stacked.astype(jnp.float32), heard), axis=-1)
        return [both[:, number] for number in range(both.shape[1])]

    def attention_weights(self, features: Features) -> Float[Array, "b n n"]:
        """The weights (listening level, level listened to) of each image, in inference."""
        branches = self._dense(self.vectors(features), train=False, key=None)
        return self.attention(jnp.stack(branches, axis=1))[1]

    def _dense(
        self, vectors: list[Array], *, train: bool, key: jax.Array | None
    ) -> list[Float[Array, "b d"]]:
        return [
            layers(x, train=train, key=fold_in_name(key, f"dense{number}"))
            for number, (layers, x) in enumerate(zip(self.dense, vectors, strict=True))
        ]


class AddHead(BranchHead):
    """Add-net (Inoue et al. 2020), as BA-CNN's authors compare with it: what the second dense layer
    of a branch gives is added to the sum of those before it, then normalised and dropped out."""

    name = "add"

    def make_branches(
        self, config: HeadConfig, count: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> tuple[int, ...]:
        widths = self.widths(config, count)
        read = tuple(self.join_width(widths[: number + 1]) for number in range(count))
        self.dense = nnx.List()
        for dim, width, joined in zip(self.vectors.dims, widths, read, strict=True):
            more = joined - width
            self.dense.append(DenseLayers(dim, width, joined=more, dtype=dtype, rngs=rngs))
        return read

    def widths(self, config: HeadConfig, count: int) -> tuple[int, ...]:
        """Of the dense layers of each branch."""
        return (config.width,) * count

    def join_width(self, widths: tuple[int, ...]) -> int:
        """The length of what branches of these widths give together."""
        return widths[-1]

    def join(self, before: Float[Array, "b d"], own: Float[Array, "b d"]) -> Float[Array, "b d2"]:
        """What a branch gives together with those before it."""
        return own + before

    def branches(
        self, vectors: list[Array], *, train: bool, key: jax.Array | None
    ) -> list[Float[Array, "b d"]]:
        read: list[Array] = []
        joined = None
        for number, (layers, x) in enumerate(zip(self.dense, vectors, strict=True)):
            options = {"train": train, "key": fold_in_name(key, f"dense{number}")}
            own = layers.active(x, **options)
            joined = own if joined is None else self.join(joined, own)
            read.append(layers.normalise(joined, **options))
        return read


class ConcatHead(AddHead):
    """Concat-net (Inoue et al. 2020), as BA-CNN's authors compare with it: as Add-net, side by side
    in the place of the sum; branches may be of different widths."""

    name = "concat"

    def widths(self, config: HeadConfig, count: int) -> tuple[int, ...]:
        return checked_widths(config, count) or super().widths(config, count)

    def join_width(self, widths: tuple[int, ...]) -> int:
        return sum(widths)

    def join(self, before: Float[Array, "b d"], own: Float[Array, "b d"]) -> Float[Array, "b d2"]:
        return jnp.concatenate((own, before), axis=-1)
