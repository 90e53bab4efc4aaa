"""Heads: from a backbone's features to logits of the taxonomy's levels.

A head is made by `head(backbone, num_classes, *, taxonomy, drop_rate, dtype, rngs)` and called as
`head(features, *, train, key) -> tuple of float32 logits`, coarse to fine, the leaves last.
"""

from collections.abc import Callable
from typing import Any

from plankton_jax.errors import UserError, near_miss
from plankton_jax.heads.auxiliary import AuxiliaryHead
from plankton_jax.heads.linear import LinearHead

__all__ = ["AuxiliaryHead", "LinearHead", "find", "list_heads"]

_HEADS: dict[str, Callable[..., Any]] = {
    "auxiliary": AuxiliaryHead,
    "linear": LinearHead,
}


def list_heads() -> tuple[str, ...]:
    """The names of all heads, sorted."""
    return tuple(sorted(_HEADS))


def find(head: str | Callable[..., Any]) -> Callable[..., Any]:
    """The head of this name; a function or class is returned as it is.

    Raises:
      UserError: an unknown name.
    """
    if callable(head):
        return head
    if head not in _HEADS:
        raise UserError(f'config.model.head: there is no head "{head}". {near_miss(head, _HEADS)}')
    return _HEADS[head]
