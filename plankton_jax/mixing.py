"""Mixup and CutMix: each example of a batch is mixed with the one before it, the first with the
last. Pure functions of a random key, part of the compiled training step.

Sources: mixup, Zhang et al. 2018 ("mixup: Beyond Empirical Risk Minimization"); CutMix, Yun et al.
2019, with rectangles of the image's aspect about a uniform centre, cut off at the image's edges.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def partners(values: Array) -> Array:
    """What each example of a batch is mixed with."""
    return jnp.roll(values, 1, axis=0)


def draw_weights(
    key: Array, shape: tuple[int, ...], mixup: float, cutmix: float
) -> tuple[Float[Array, "b h w 1"], Float[Array, " b"]]:
    """The share of an example's own image in each of its pixels, and in its label.

    Args:
      key: random key.
      shape: examples, height and width.
      mixup, cutmix: the a of Beta(a, a); 0 for none of this kind, not both.
    """
    count, height, width = shape
    of_choice, of_share, of_centre = jax.random.split(key, 3)
    blended = jax.random.uniform(of_choice, (count,)) < (
        0.5 if cutmix and mixup else float(mixup > 0)
    )
    alpha = jnp.where(blended, mixup or 1.0, cutmix or 1.0)
    share = jax.random.beta(of_share, alpha, alpha, (count,), jnp.float32)
    kept = ~rectangles(of_centre, share, height, width)
    pixels = jnp.where(blended[:, None, None], share[:, None, None], kept.astype(jnp.float32))
    label = jnp.where(blended, share, jnp.mean(kept.astype(jnp.float32), axis=(1, 2)))
    return pixels[..., None], label


def rectangles(
    key: Array, share: Float[Array, " b"], height: int, width: int
) -> Bool[Array, "b h w"]:
    """Which pixels come from the other image: of `1 - share` of the area before it is cut off."""
    count = share.shape[0]
    sides = jnp.array([[height, width]], jnp.float32)
    centre = jax.random.uniform(key, (count, 2)) * sides
    half = jnp.sqrt(1 - share)[:, None] * sides / 2
    low, high = centre - half, centre + half

    def between(axis: int, length: int) -> Array:
        middles = jnp.arange(length, dtype=jnp.float32)[None, :] + 0.5
        return (middles >= low[:, axis, None]) & (middles < high[:, axis, None])

    return between(0, height)[:, :, None] & between(1, width)[:, None, :]
