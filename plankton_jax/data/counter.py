"""Counter-based random numbers: pure functions of (seed, purpose, position), nothing is drawn
in order and nothing is remembered. Touches nothing.

The mixing function is the finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014), a bijection of the 64-bit integers.
"""

import hashlib

import numpy as np
from jaxtyping import Float64, UInt64
from numpy.typing import ArrayLike

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix64(values: ArrayLike) -> np.ndarray:
    """Scrambles unsigned 64-bit integers, one to one; same shape as `values`."""
    # A 0-d array would become a scalar on the first operation, and scalars warn when they wrap.
    mixed = np.atleast_1d(np.asarray(values, np.uint64)) + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).reshape(np.shape(values))


def stream_key(seed: int, purpose: str) -> np.uint64:
    """The key of one stream of random numbers; streams of different purposes are unrelated."""
    return np.uint64(text_hash(f"{purpose}:{int(seed)}"))


def text_hash(text: str) -> int:
    """A 64-bit number that is a function of the text alone, on any machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def random_bits(
    key: ArrayLike, positions: UInt64[np.ndarray, " n"], columns: int
) -> UInt64[np.ndarray, "n columns"]:
    """Independent random 64-bit integers for each position; `key` is one or one a position."""
    column_keys = mix64(np.arange(columns, dtype=np.uint64))
    rows = mix64(np.asarray(positions, np.uint64)) ^ np.asarray(key, np.uint64)
    return mix64(mix64(rows)[:, None] ^ column_keys[None, :])


def to_unit(bits: UInt64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Uniform floats in [0, 1) from the upper 53 bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
