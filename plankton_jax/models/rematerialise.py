"""Blocks whose insides are computed again in the backward pass instead of being kept.

Chen et al. 2016: memory for one more forward pass. A backbone that can do it has an attribute
`rematerialise`, False at first, and runs its blocks through `run_block`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from plankton_jax.models._fusion import never_by
from plankton_jax.models.regularisation import fold_in_name


def run_blocks(
    blocks: Iterable[Callable[..., Any]],
    x: Any,
    *,
    key: jax.Array | None,
    rematerialise: bool,
    **keywords: Any,
) -> Any:
    """What the blocks give one after the other, each with its number's key; see `run_block`."""
    for number, block in enumerate(blocks):
        block_key = fold_in_name(key, number)
        x = run_block(block, x, key=block_key, rematerialise=rematerialise, **keywords)
    return x


def run_block(block: Callable[..., Any], *arrays: Any, rematerialise: bool, **keywords: Any) -> Any:
    """What `block(*arrays, **keywords)` gives; with `rematerialise` only `arrays` are kept.

    Variables that the block moves, such as batch-norm statistics, are moved in both ways.
    """
    if not rematerialise:
        return block(*arrays, **keywords)
    graphdef, params, others = nnx.split(block, nnx.Param, ...)
    keys = {name: value for name, value in keywords.items() if isinstance(value, jax.Array)}
    static = {name: value for name, value in keywords.items() if name not in keys}

    def run(params: Any, fixed: Any, arrays: Any) -> Any:
        others, keys = fixed
        inner: Any = nnx.merge(graphdef, params, others, copy=True)
        outputs = inner(*arrays, **static, **keys)
        return outputs, nnx.state(inner, nnx.Not(nnx.Param))

    outputs, moved = _again_backwards(run)(params, (others, keys), arrays)
    nnx.update(block, moved)
    return outputs


def _again_backwards(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run(params, fixed, arrays)`, of whose insides nothing is kept for the backward pass.

    `jax.checkpoint` does the same with a barrier against the compiler's finding that the two
    computations are one. XLA drops the barrier on a CPU, and then they become one.
    """
    function = jax.custom_vjp(run)

    def forward(params: Any, fixed: Any, arrays: Any) -> Any:
        return run(params, fixed, arrays), (params, fixed, arrays)

    def backward(kept: Any, cotangents: Any) -> Any:
        params, fixed, arrays = kept
        arrays = _after(cotangents[0], arrays)
        _, pull = jax.vjp(lambda params, arrays: run(params, fixed, arrays), params, arrays)
        of_params, of_arrays = pull(cotangents)
        return of_params, None, of_arrays

    function.defvjp(forward, backward)
    return function


def _after(cotangents: Any, values: Any) -> Any:
    """The values, in a way that needs the cotangents first and that no compiler sees through."""
    never = never_by(jax.tree.leaves(cotangents)[0])
    return jax.tree.map(lambda value: jnp.where(never, jnp.zeros_like(value), value), values)
