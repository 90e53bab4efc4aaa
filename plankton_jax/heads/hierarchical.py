"""Heads with a branch for each level of the tree: B-CNN, HB-CNN, BA-CNN and what ablates it.

Each returns float32 logits of every level, coarse to fine. The levels are independent of each
other, so they may contradict the tree; `plankton_jax.decoding` says what to make of that.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plankton_jax.config import HeadConfig
from plankton_jax.errors import UserError
from plankton_jax.heads.branches import BranchVectors, DenseLayers
from plankton_jax.heads.coupling import BranchAttention
from plankton_jax.heads.linear import LogitLayer
from plankton_jax.models.features import Features
from plankton_jax.models.regularisation import dropout, fold_in_name
from plankton_jax.taxonomy import Taxonomy


def require_levels(taxonomy: Taxonomy | None, head: str) -> Taxonomy:
    """The tree, which must have two levels or more, of two nodes or more each.

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
        tree = require_levels(taxonomy, self.name)
        if tree.num_leaves != num_classes:
            raise UserError(
                f"config.data.taxonomy_csv: the tree has {tree.num_leaves} leaves for "
                f"{num_classes} classes; allowed: a tree of the data set's classes."
            )
        self.drop_rate = drop_rate
        self.reads_pooled = config.trunk
        self.vectors = BranchVectors(backbone, tree.depth, config, dtype=dtype, rngs=rngs)
        dims = self.make_branches(config, tree.depth, dtype=dtype, rngs=rngs)
        self.logits = nnx.List()
        for width, nodes in zip(dims, tree.node_names, strict=True):
            width += measured_width(backbone)
            self.logits.append(LogitLayer(width, len(nodes), dtype=dtype, rngs=rngs))

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


def measured_width(backbone: Any) -> int:
    """How much longer a vector becomes by the numbers that come with each image."""
    return getattr(backbone, "measured_dim", 0)


def with_measurements(x: Float[Array, "b d"], features: Features) -> Float[Array, "b d2"]:
    """The vector, and behind it the embedded measurements where there are any."""
    if features.measured is None:
        return x
    return jnp.concatenate((x, features.measured.astype(x.dtype)), axis=-1)


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
        widths = config.branch_widths
        own_layers = count - config.trunk  # the trunk has dense layers of its own
        if widths and len(widths) != own_layers:
            raise UserError(
                f"config.head.branch_widths: found {tuple(widths)}; allowed: none, or "
                f"{own_layers} numbers, one for each branch"
                + (" but the last, which reads the trunk." if config.trunk else ".")
            )
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
        for width in self.vectors.dims:
            self.dense.append(DenseLayers(width, config.width, dtype=dtype, rngs=rngs))
        return self.make_coupling(config, count, rngs=rngs)

    def make_coupling(self, config: HeadConfig, count: int, *, rngs: nnx.Rngs) -> tuple[int, ...]:
        """Makes the coupling; the lengths of what the logits read."""
        self.attention = BranchAttention(
            count,
            config.width,
            config.attention_width,
            of_first=config.attention == "batch0",
            rngs=rngs,
        )
        return (2 * config.width,) * count

    def couple(self, branches: Float[Array, "b n d"]) -> list[Float[Array, "b d2"]]:
        """What the logits of each level read."""
        heard, _ = self.attention(branches)
        both = jnp.concatenate((branches.astype(jnp.float32), heard), axis=-1)
        return [both[:, number] for number in range(both.shape[1])]

    def branches(
        self, vectors: list[Array], *, train: bool, key: jax.Array | None
    ) -> list[Float[Array, "b d"]]:
        return self.couple(self._dense(vectors, train=train, key=key))

    def attention_weights(self, features: Features) -> Float[Array, "b n n"]:
        """The weights (listening level, level listened to) of each image, in inference."""
        branches = self._dense(self.vectors(features), train=False, key=None)
        return self.attention(branches)[1]

    def _dense(
        self, vectors: list[Array], *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b n d"]:
        made = [
            layers(x, train=train, key=fold_in_name(key, f"dense{number}"))
            for number, (layers, x) in enumerate(zip(self.dense, vectors, strict=True))
        ]
        return jnp.stack(made, axis=1)


class AddHead(BaCnnHead):
    """BA-CNN with the sum of all branches in the place of attention."""

    name = "add"

    def make_coupling(self, config: HeadConfig, count: int, *, rngs: nnx.Rngs) -> tuple[int, ...]:
        del rngs
        return (2 * config.width,) * count

    def couple(self, branches: Float[Array, "b n d"]) -> list[Float[Array, "b d2"]]:
        total = jnp.sum(branches, axis=1)
        return [
            jnp.concatenate((branches[:, number], total), axis=-1)
            for number in range(branches.shape[1])
        ]


class ConcatHead(BaCnnHead):
    """BA-CNN with all branches side by side in the place of attention."""

    name = "concat"

    def make_coupling(self, config: HeadConfig, count: int, *, rngs: nnx.Rngs) -> tuple[int, ...]:
        del rngs
        return (count * config.width,) * count

    def couple(self, branches: Float[Array, "b n d"]) -> list[Float[Array, "b d2"]]:
        return [branches.reshape(branches.shape[0], -1)] * branches.shape[1]


class SbaCnnHead(nnx.Module):
    """SBA-CNN (the report, section 4.2.3): a gate at the first level, and behind it a BA-CNN for
    each of its nodes ("sides"), all under one attention.

    A side's branches hear those of the other sides and send them no gradient. In training the
    logits of a level hold, of every side, what it would say if the image were its own; so their
    cross-entropy is that of the true side's own branch, up to a constant. In inference they hold
    log-probabilities: of the side, and of the node within it. The decoder "routed" takes the
    predicted side's word alone, as the report does.
    """

    name = "sbacnn"
    reads_pooled = False

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
        del num_classes
        config = config or HeadConfig()
        tree = require_levels(taxonomy, self.name)
        self.drop_rate = drop_rate
        self.sides = len(tree.node_names[0])
        self.depth = tree.depth - 1  # levels of a side
        options = {"dtype": dtype, "rngs": rngs}
        taps = config.taps
        if config.branches in ("stages", "dense") and not taps:
            stages = len(getattr(backbone, "stage_dims", ()))
            taps = tuple(range(-min(tree.depth, stages), 0))
        if taps and len(taps) != tree.depth:
            raise UserError(
                f"config.head.taps: found {tuple(taps)}; allowed: {tree.depth} numbers, one for "
                "each level of the tree."
            )
        self.gate_vectors = BranchVectors(backbone, 1, _with_taps(config, taps[:1]), **options)
        self.side_vectors = nnx.List()
        self.dense = nnx.List()
        for _ in range(self.sides):
            vectors = BranchVectors(backbone, self.depth, _with_taps(config, taps[1:]), **options)
            self.side_vectors.append(vectors)
            for width in vectors.dims:
                self.dense.append(DenseLayers(width, config.width, **options))
        measured = measured_width(backbone)
        self.gate_dense = DenseLayers(self.gate_vectors.dims[0], config.width, **options)
        self.gate = LogitLayer(config.width + measured, self.sides, **options)
        owner = np.repeat(np.arange(self.sides), self.depth)
        self.attention = BranchAttention(
            len(owner),
            config.width,
            config.attention_width,
            foreign=owner[:, None] != owner[None, :],
            of_first=config.attention == "batch0",
            rngs=rngs,
        )
        # Of each lower level the side of every node, and its place among all sides' logits.
        self.side_of, self.place_of = [], []
        self.logits = nnx.List()
        for side in range(self.sides):
            for level in range(1, tree.depth):
                nodes = np.unique(tree.ancestors[level][tree.ancestors[0] == side])
                layer = LogitLayer(2 * config.width + measured, len(nodes), **options)
                self.logits.append(layer)
        for level in range(1, tree.depth):
            sides = np.zeros(len(tree.node_names[level]), np.int64)
            sides[tree.ancestors[level]] = tree.ancestors[0]
            order = np.argsort(sides, kind="stable")
            self.side_of.append(tuple(sides.tolist()))
            self.place_of.append(tuple(np.argsort(order).tolist()))
        self.side_of, self.place_of = tuple(self.side_of), tuple(self.place_of)

    def __call__(
        self, features: Features, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[Float[Array, "b k"], ...]:
        """Logits of every level, coarse to fine."""
        key = key if train else None
        gate = self._gate(features, train=train, key=key)
        read = self._read(features, train=train, key=key)
        outputs = [gate]
        of_side = jax.nn.log_softmax(gate, axis=-1)
        for level in range(self.depth):
            own = []
            for side in range(self.sides):
                number = side * self.depth + level
                x = dropout(read[:, number], self.drop_rate, fold_in_name(key, f"logits{number}"))
                logits = self.logits[number](with_measurements(x, features))
                own.append(jax.nn.log_softmax(logits, axis=-1))
            within = jnp.concatenate(own, axis=-1)[:, np.array(self.place_of[level])]
            if not train:
                within = within + of_side[:, np.array(self.side_of[level])]
            outputs.append(within)
        return tuple(outputs)

    def attention_weights(self, features: Features) -> Float[Array, "b n n"]:
        """The weights (listening branch, branch listened to) of each image, in inference; the
        branches are those of the first side, coarse to fine, then those of the next."""
        return self.attention(self._branches(features, train=False, key=None))[1]

    def _gate(self, features: Features, *, train: bool, key: jax.Array | None) -> Array:
        (vector,) = self.gate_vectors(features, key=fold_in_name(key, "gate_vectors"))
        x = self.gate_dense(vector, train=train, key=fold_in_name(key, "gate_dense"))
        x = dropout(x, self.drop_rate, fold_in_name(key, "gate"))
        return self.gate(with_measurements(x, features))

    def _branches(
        self, features: Features, *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b n d"]:
        vectors = [
            vector
            for side, made in enumerate(self.side_vectors)
            for vector in made(features, key=fold_in_name(key, f"side{side}"))
        ]
        return jnp.stack(
            [
                layers(x, train=train, key=fold_in_name(key, f"dense{number}"))
                for number, (layers, x) in enumerate(zip(self.dense, vectors, strict=True))
            ],
            axis=1,
        ).astype(jnp.float32)

    def _read(
        self, features: Features, *, train: bool, key: jax.Array | None
    ) -> Float[Array, "b n d2"]:
        branches = self._branches(features, train=train, key=key)
        heard, _ = self.attention(branches)
        return jnp.concatenate((branches, heard), axis=-1)


def _with_taps(config: HeadConfig, taps: tuple[int, ...]) -> HeadConfig:
    """The settings of the branches of one side, which read these stages."""
    return dataclasses.replace(config, taps=tuple(taps), trunk=False)
