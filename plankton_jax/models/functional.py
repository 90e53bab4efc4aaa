"""Networks as pure functions of plain nested dicts, which is how they are run and stored.

Dicts have string keys throughout (`blocks/0/attn/qkv/kernel`), so they print as paths and any
checkpoint format takes them; list positions become integers again where a network is rebuilt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from plankton_jax.errors import UserError
from plankton_jax.models.features import Features

PyTree = dict[str, Any]


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """Takes a network apart: (static description, parameters, model state such as BN statistics).

    Raises:
      UserError: a module of the network stores a random stream.
    """
    graphdef, streams, params, state = nnx.split(model, nnx.RngState, nnx.Param, ...)
    if nnx.to_flat_state(streams):
        paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(streams)]
        raise UserError(
            f"config.model: {paths} store random streams, which would make steps depend on their "
            "history. Take the key in __call__(x, *, train, key) instead and store no rngs."
        )
    return graphdef, _named(nnx.to_pure_dict(params)), _named(nnx.to_pure_dict(state))


def join_model(graphdef: nnx.GraphDef, params: PyTree, model_state: PyTree) -> Any:
    """The network again, sharing no variable with any other."""
    return nnx.merge(graphdef, _numbered(params), _numbered(model_state), copy=True)


def apply(
    graphdef: nnx.GraphDef,
    params: PyTree,
    model_state: PyTree,
    images: Float[Array, "b h w c"] | Features,
    *,
    measurements: Float[Array, "b m"] | None = None,
    train: bool = False,
    key: jax.Array | None = None,
) -> tuple[tuple[Float[Array, "b k"], ...], PyTree]:
    """The classifier's logits of each level and the model state afterwards.

    `measurements` are for a network that was made for some. `train` uses and moves batch
    statistics; randomness needs `train` and a key.
    """
    model = join_model(graphdef, params, model_state)
    logits = model(images, measurements=measurements, train=train, key=key)
    return logits, _named(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))


def apply_features(
    graphdef: nnx.GraphDef,
    params: PyTree,
    model_state: PyTree,
    images: Float[Array, "b h w c"],
    *,
    indices: int | Sequence[int] | None = None,
    norm: bool = False,
) -> Features:
    """The backbone's features in inference mode; `indices` and `norm` as in `Classifier`."""
    return join_model(graphdef, params, model_state).features(images, indices=indices, norm=norm)


def flatten_paths(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict keyed by paths such as `backbone/norm/scale`."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten_paths(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def unflatten_paths(flat: Mapping[str, Any]) -> PyTree:
    """The reverse of `flatten_paths`."""
    tree: PyTree = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _named(tree: Any) -> Any:
    """With every key a string."""
    if isinstance(tree, dict):
        return {str(key): _named(value) for key, value in tree.items()}
    return tree


def _numbered(tree: Any) -> Any:
    """With keys of digits as the integers that `nnx.List` counts by."""
    if isinstance(tree, Mapping):
        return {int(key) if key.isdigit() else key: _numbered(tree[key]) for key in tree}
    return tree
