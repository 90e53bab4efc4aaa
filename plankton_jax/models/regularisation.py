"""Random removal of features and of whole residual branches. Pure functions of arrays and keys."""

import zlib
from typing import overload

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Key = jax.Array


@overload
def fold_in_name(key: Key, name: str | int) -> Key: ...
@overload
def fold_in_name(key: None, name: str | int) -> None: ...
@overload
def fold_in_name(key: Key | None, name: str | int) -> Key | None: ...


def fold_in_name(key: Key | None, name: str | int) -> Key | None:
    """The key of a named (or numbered) part of a network; None, which means inference, stays."""
    if key is None:
        return None
    number = name if isinstance(name, int) else zlib.crc32(name.encode())
    return jax.random.fold_in(key, number)


def dropout(x: Float[Array, "..."], rate: float, key: Key | None) -> Float[Array, "..."]:
    """Sets each value to zero with probability `rate` and scales the others by 1 / (1 - rate).

    Srivastava et al. 2014. Without a key (inference) or at rate 0 the input is returned.
    """
    return _keep(x, rate, key, x.shape)


def drop_path(x: Float[Array, "b ..."], rate: float, key: Key | None) -> Float[Array, "b ..."]:
    """Stochastic depth: a residual branch vanishes for whole examples with probability `rate`.

    Huang et al. 2016, with the branches that stay scaled by 1 / (1 - rate), so that the
    expectation is the same. Without a key (inference) or at rate 0 the input is returned.
    """
    return _keep(x, rate, key, (x.shape[0],) + (1,) * (x.ndim - 1))


def drop_path_rates(rate: float, depth: int) -> tuple[float, ...]:
    """Rates that grow linearly from 0 at the first block to `rate` at the last."""
    return tuple(rate * block / max(depth - 1, 1) for block in range(depth))


def _keep(x: Array, rate: float, key: Key | None, shape: tuple[int, ...]) -> Array:
    """Keeps values where a mask of `shape`, which broadcasts to x, is true."""
    if key is None or rate == 0.0:
        return x
    mask = jnp.broadcast_to(jax.random.bernoulli(key, 1.0 - rate, shape), x.shape)
    return jnp.where(mask, x / (1.0 - rate), jnp.zeros((), x.dtype))
