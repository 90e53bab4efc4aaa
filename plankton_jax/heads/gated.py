"""SBA-CNN, the report's own head: a gate at the first level, and behind it a BA-CNN for each side.

Returns float32 logits of every level, coarse to fine.
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
from plankton_jax.heads.branches import BranchVectors, DenseLayers, tap_indices
from plankton_jax.heads.coupling import BranchAttention
from plankton_jax.heads.hierarchical import (
    branch_logits,
    measured_width,
    require_levels,
    with_measurements,
)
from plankton_jax.models.features import Features
from plankton_jax.models.regularisation import dropout, fold_in_name
from plankton_jax.taxonomy import Taxonomy


class SbaCnnHead(nnx.Module):
    """SBA-CNN (the report, section 4.2.3): a gate at the first level, and behind it a BA-CNN for
    each of its nodes ("sides"), all under one attention.

    A side's branches hear those of the other sides and send them no gradient. The logits of a level
    are log-probabilities: of the side, and of the node within it. The gate learns from its own
    level alone: in training no gradient of the levels below flows back through the side's
    probability, so their cross-entropy trains the true side's own branch, and labels smoothed over
    all sides' nodes are refused. The decoder "routed" takes the predicted side's word alone, as the
    report does.
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
        config = config or HeadConfig()
        tree = require_levels(taxonomy, self.name, num_classes)
        self.drop_rate = drop_rate
        self.sides = len(tree.node_names[0])
        self.depth = tree.depth - 1  # levels of a side
        options = {"dtype": dtype, "rngs": rngs}
        stages = len(getattr(backbone, "stage_dims", None) or ())
        taps = tap_indices(config, tree.depth, stages) if stages else ()
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
        self.gate = branch_logits(config.width + measured, self.sides, **options)
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
                layer = branch_logits(2 * config.width + measured, len(nodes), **options)
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
        if train:
            of_side = jax.lax.stop_gradient(of_side)
        for level in range(self.depth):
            own = []
            for side in range(self.sides):
                number = side * self.depth + level
                x = dropout(read[:, number], self.drop_rate, fold_in_name(key, f"logits{number}"))
                logits = self.logits[number](with_measurements(x, features))
                own.append(jax.nn.log_softmax(logits, axis=-1))
            within = jnp.concatenate(own, axis=-1)[:, np.array(self.place_of[level])]
            outputs.append(within + of_side[:, np.array(self.side_of[level])])
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
