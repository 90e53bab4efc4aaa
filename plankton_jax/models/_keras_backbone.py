"""A Keras model as a backbone that runs inside the functional step.

Trainable variables are parameters; the others (batch-norm statistics, seeds of dropout) are model
state that training carries on. Paths are Keras's, but for `gamma` and `beta`, which are called
`scale` and `bias` as everywhere here, so that rules over paths hold. Keras is not imported here.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models.features import Features, select_stages

_NAMES = {"gamma": "scale", "beta": "bias"}


class KerasState(nnx.Variable):
    """A variable of Keras that is not trained: a batch-norm statistic, or the state of a seed."""


class KerasBackbone(nnx.Module):
    """A Keras model as a backbone; its randomness goes on from the seeds in the model state.

    Attributes:
      feature_dim: length of the pooled features.
      stage_dims, strides: of the maps of the feature pyramid where there is one, otherwise of the
        last map. A transformer's is behind its final norm, as KerasHub gives it.
      distilled: whether the second token is a distillation token.
    """

    def __init__(self, network: Any, strides: tuple[int, ...], pool: str | None):
        """`network` gives the maps of the pyramid, `strides` pixels apart, and its output."""
        self.network = network
        output = network.outputs[-1]
        self.feature_dim = output.shape[-1]
        self.is_sequence = len(output.shape) == 3
        # What is left of a sequence beside a square of patches are class and distillation tokens.
        self.grid = math.isqrt(output.shape[1]) if self.is_sequence else output.shape[1]
        self.num_prefix_tokens = output.shape[1] - self.grid**2 if self.is_sequence else 0
        self.pool = pool or ("token" if self.num_prefix_tokens else "mean")
        if self.pool == "token" and not self.num_prefix_tokens:
            raise UserError(
                'config.model.pool: found "token"; the backbone has no class token; allowed: "" or '
                '"mean".'
            )
        self.distilled = self.num_prefix_tokens == 2 and self.pool == "token"
        dims = tuple(map.shape[-1] for map in network.outputs[:-1])
        self.stage_dims = dims or (self.feature_dim,)
        self.strides = strides or (round(network.inputs[0].shape[1] / self.grid),)
        self.trainable = tuple(_path(variable) for variable in network.trainable_variables)
        self.carried = tuple(_path(variable) for variable in network.non_trainable_variables)
        self.layers = nnx.Dict()
        for kind, paths, variables in (
            (nnx.Param, self.trainable, network.trainable_variables),
            (KerasState, self.carried, network.non_trainable_variables),
        ):
            for path, variable in zip(paths, variables, strict=True):
                node = self._node(path)
                if path[-1] in node:
                    raise ValueError(f"two variables of Keras are named {'/'.join(path)}")
                node[path[-1]] = kind(variable.value)

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        *,
        train: bool = False,
        key: jax.Array | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> Features:
        """The maps of the pyramid, or the last map; pooled as `pool` says.

        `train` is Keras's `training`: dropout of the backbone's own draws from the seeds in the
        model state, whatever `key` is.

        Raises:
          UserError: an index outside the stages.
        """
        del key
        trainable = [self._node(path)[path[-1]][...] for path in self.trainable]
        carried = [self._node(path)[path[-1]] for path in self.carried]
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            outputs, moved = self.network.stateless_call(
                trainable, [each[...] for each in carried], images, training=train
            )
        if train:
            for variable, value in zip(carried, moved, strict=True):
                variable[...] = value
        *stages, output = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        if not self.is_sequence:
            pooled = jnp.mean(output.astype(jnp.float32), axis=(1, 2))
            return Features(select_stages(stages or [output], indices), pooled=pooled)
        patches = output[:, self.num_prefix_tokens :]
        tokens = output.astype(jnp.float32)
        pooled = tokens[:, 0]
        if self.pool == "mean":
            pooled = jnp.mean(tokens[:, self.num_prefix_tokens :], axis=1)
        maps = [patches.reshape(-1, self.grid, self.grid, self.feature_dim)]
        return Features(
            select_stages(stages or maps, indices),
            pooled=pooled,
            tokens=tokens,
            distilled=tokens[:, 1] if self.distilled else None,
        )

    def _node(self, path: tuple[str, ...]) -> Any:
        """The dict that holds the variable of a path; it is made if need be."""
        node = self.layers
        for name in path[:-1]:
            if name not in node:
                node[name] = nnx.Dict()
            node = node[name]
        return node


def _path(variable: Any) -> tuple[str, ...]:
    """Where a variable of Keras is found."""
    *layers, name = str(variable.path).split("/")
    return (*layers, _NAMES.get(name, name))
