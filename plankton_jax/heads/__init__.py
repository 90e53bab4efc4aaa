"""Heads: from a backbone's features to logits of the taxonomy's levels.

A head is made by `head(backbone, num_classes, *, taxonomy, drop_rate, dtype, rngs)` and called as
`head(features, *, train, key) -> tuple of float32 logits`, coarse to fine, the leaves last. Those
with branches take the settings of `config.head` as well; see `configured`.
"""

import functools
from collections.abc import Callable
from typing import Any

from plankton_jax.config import HeadConfig
from plankton_jax.errors import UserError, near_miss
from plankton_jax.heads.auxiliary import AuxiliaryHead
from plankton_jax.heads.coherent import CoherentHead
from plankton_jax.heads.gated import SbaCnnHead
from plankton_jax.heads.hierarchical import (
    AddHead,
    BaCnnHead,
    BCnnHead,
    ConcatHead,
    HbCnnHead,
)
from plankton_jax.heads.linear import LinearHead

__all__ = ["AuxiliaryHead", "CoherentHead", "LinearHead", "configured", "find", "list_heads"]

_BRANCHED: dict[str, Callable[..., Any]] = {
    head.name: head for head in (AddHead, BaCnnHead, BCnnHead, ConcatHead, HbCnnHead, SbaCnnHead)
}
_HEADS: dict[str, Callable[..., Any]] = {
    "auxiliary": AuxiliaryHead,
    "coherent": CoherentHead,
    "linear": LinearHead,
    **_BRANCHED,
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


def configured(head: str | Callable[..., Any], config: HeadConfig) -> str | Callable[..., Any]:
    """The head with its settings, for `create_model`; the same head where it has none."""
    if isinstance(head, str) and head in _BRANCHED:
        return functools.partial(_BRANCHED[head], config=config)
    return head
