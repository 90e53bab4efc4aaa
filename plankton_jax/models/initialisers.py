"""Random initial values, drawn without compiling anew for every shape.

XLA compiles a random draw once for each shape, about half a second on a CPU, which for a whole
network takes longer than its first steps. Values are therefore drawn in blocks of one length and
cut to shape. Initialisers are called as Flax calls them: `(key, shape, dtype)`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

BLOCK = 2**16
Initialiser = Callable[..., Array]


def normal(std: float) -> Initialiser:
    """Normal with mean 0."""
    return functools.partial(_initialise, jax.random.normal, std)


def uniform(bound: float) -> Initialiser:
    """Uniform in -bound..bound."""
    return functools.partial(_initialise, _symmetric_uniform, bound)


def glorot(fan_in: int, fan_out: int) -> Initialiser:
    """Uniform, of variance `2 / (fan_in + fan_out)` (Glorot & Bengio 2010): Keras's default."""
    return uniform(math.sqrt(6 / (fan_in + fan_out)))


class _Stream(nnx.RngStream):
    """Flax's stream of keys, whose count moves without a look at where it is stored.

    Flax asks that of the count as it is moved, and inside a trace jax answers with an error that
    tells the origin of the value, for which it reads the whole program so far.
    """

    def __call__(self) -> Array:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count.set_value(self.count[...] + 1)
        return key


def parameter_keys(key: Array) -> nnx.Rngs:
    """What `nnx.Rngs(params=key)` gives, quick where shapes alone are wanted."""
    rngs: Any = nnx.Rngs(params=key)
    rngs.params = _Stream(key, tag="params")
    return rngs


def _initialise(
    draw: Callable, scale: float, key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    return jnp.asarray(_values(draw, key, shape) * np.float32(scale), dtype)


def _values(draw: Callable, key: Array, shape: tuple[int, ...]) -> Float[Array | np.ndarray, "..."]:
    """Draws of the standard distribution; inside a trace, where shapes are free, all at once."""
    if isinstance(key, Tracer):
        return _traced_values(draw, key, tuple(shape))
    size = math.prod(shape)
    count = -(-size // BLOCK)
    blocks = [np.asarray(_block(draw, key, number)) for number in range(count)]
    return np.concatenate(blocks)[:size].reshape(shape)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _traced_values(draw: Callable, key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """The same values; as a jitted function, so that each shape is traced once."""
    size = math.prod(shape)
    numbers = jnp.arange(-(-size // BLOCK))
    blocks = jax.vmap(functools.partial(_block, draw), (None, 0))(key, numbers)
    return blocks.reshape(-1)[:size].reshape(shape)


@functools.partial(jax.jit, static_argnums=0)
def _block(draw: Callable, key: Array, number: Array | int) -> Float[Array, "block"]:
    return draw(jax.random.fold_in(key, number), (BLOCK,))


def _symmetric_uniform(key: Array, shape: tuple[int, ...]) -> Float[Array, "block"]:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
