"""How the branches of a hierarchical network hear of one another: attention.

It is BA-CNN's (Pizarro, Nanculef and Valle 2023). Pure modules of arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from plankton_jax.models.initialisers import glorot


class BranchAttention(nnx.Module):
    """For each branch a mean of the features of all branches, weighted by attention.

    Each of the n * n pairs has a scorer of its own, two linear layers with nothing between:
    s_ij = w_ij . (W_ij b_j + c_ij) + e_ij; the weights of branch i are the softmax over j of s_ij.

    Args:
      foreign: of which pairs (i, j) branch j is only listened to: no gradient of branch i flows
        into it.
      of_first: every image gets the weights of the batch's first one, as the authors' program has
        it by mistake; only to reproduce their figures.
    """

    def __init__(
        self,
        count: int,
        width: int,
        hidden: int,
        *,
        foreign: Bool[np.ndarray, "n n"] | None = None,
        of_first: bool = False,
        rngs: nnx.Rngs,
    ):
        inner, outer = glorot(width, hidden), glorot(hidden, 1)  # of every scorer's own layers
        self.hidden_kernel = nnx.Param(inner(rngs.params(), (count, count, width, hidden)))
        self.hidden_bias = nnx.Param(jnp.zeros((count, count, hidden)))
        self.score_kernel = nnx.Param(outer(rngs.params(), (count, count, hidden)))
        self.score_bias = nnx.Param(jnp.zeros((count, count)))
        none = np.zeros((count, count), bool)
        self.foreign = tuple(map(tuple, (none if foreign is None else foreign).tolist()))
        self.of_first = of_first

    def __call__(
        self, branches: Float[Array, "b n d"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n n"]]:
        """What each branch hears, and the weights (listener, speaker) that it hears the others
        with."""
        # Nothing bends between the two layers, so they are one vector for each pair.
        kernel = jnp.einsum("ijdh,ijh->ijd", self.hidden_kernel[...], self.score_kernel[...])
        bias = jnp.sum(self.hidden_bias[...] * self.score_kernel[...], axis=-1)
        bias = bias + self.score_bias[...]
        foreign = jnp.asarray(np.array(self.foreign))[None, :, :, None]
        speakers = branches.astype(jnp.float32)[:, None]  # b 1 n d
        speakers = jnp.where(foreign, jax.lax.stop_gradient(speakers), speakers)
        scores = jnp.einsum("bijd,ijd->bij", speakers, kernel) + bias[None]
        weights = jax.nn.softmax(scores, axis=-1)
        if self.of_first:
            weights = jnp.broadcast_to(weights[:1], weights.shape)
        return jnp.einsum("bij,bijd->bid", weights, speakers), weights
