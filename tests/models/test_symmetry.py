"""Convolutions that commute with the symmetries of the square: the group, kernels, whole nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plankton_jax.models.convnet import Convnet, ConvnetConfig
from plankton_jax.models.layers import convolve
from plankton_jax.models.symmetry import (
    ORDER,
    SymmetricConvolution,
    expand_kernel,
    over_symmetries,
    symmetries,
)

# The symmetries as NumPy moves images about (rows, columns), in the order of `symmetries`.
MOVES = [lambda x, k=k: np.rot90(x, k, (1, 2)) for k in range(4)]
MOVES += [lambda x, k=k: np.rot90(x[:, :, ::-1], k, (1, 2)) for k in range(4)]


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_symmetries_are_a_group_of_eight():
    matrices = symmetries()
    np.testing.assert_array_equal(matrices[0], np.eye(2))
    known = {matrix.tobytes() for matrix in matrices}
    assert len(known) == len(matrices) == ORDER
    assert all((a @ b).tobytes() in known for a in matrices for b in matrices)


@pytest.mark.parametrize("size", [3, 4])
def test_kernels_of_an_image_are_the_first_turned_and_mirrored(size):
    learned = random(0, size, size, 1, 2, 3)
    whole = over_symmetries(np.asarray(expand_kernel(jnp.asarray(learned))))
    for number, move in enumerate(MOVES):
        moved = move(learned[None, :, :, 0])[0]
        np.testing.assert_array_equal(whole[..., number, :], moved, err_msg=str(number))


@pytest.mark.parametrize(
    ("size", "stride", "of_image"), [(3, 1, False), (4, 2, True), (1, 1, False)]
)
@pytest.mark.parametrize("number", range(1, ORDER))
def test_moving_the_input_moves_the_output_and_permutes_symmetries(size, stride, of_image, number):
    layer = SymmetricConvolution(
        2, 3, size, stride=stride, of_image=of_image, rngs=nnx.Rngs(number)
    )
    inputs = random(1, 2, 8, 8, 2 if of_image else ORDER * 2)
    moved = _move(inputs, number, of_image)
    np.testing.assert_allclose(
        layer(jnp.asarray(moved)), _move(np.asarray(layer(jnp.asarray(inputs))), number), atol=1e-5
    )


def _move(maps: np.ndarray, number: int, is_image: bool = False) -> np.ndarray:
    """The maps turned or mirrored, and their channels where the symmetry puts them."""
    moved = MOVES[number](maps)
    if is_image:
        return moved.copy()
    matrices = symmetries()
    known = {matrix.tobytes(): position for position, matrix in enumerate(matrices)}
    split = over_symmetries(moved)
    result = np.empty_like(split)
    for position, matrix in enumerate(matrices):
        result[..., known[(matrices[number] @ matrix).tobytes()], :] = split[..., position, :]
    return result.reshape(moved.shape)


def test_it_has_an_eighth_of_the_parameters_of_an_ordinary_convolution():
    layer = SymmetricConvolution(2, 3, 3, rngs=nnx.Rngs(0))
    whole = expand_kernel(layer.kernel[...])
    assert whole.shape == (3, 3, 16, 24) and whole.size == ORDER * layer.kernel[...].size
    inputs = jnp.asarray(random(2, 1, 6, 6, 16))
    np.testing.assert_array_equal(layer(inputs), convolve(inputs, whole))


@pytest.mark.parametrize("train", [False, True])
def test_pooled_features_do_not_depend_on_which_way_up_an_image_is(train):
    module = Convnet(ConvnetConfig(16, (16, 32), (1, 2)), rngs=nnx.Rngs(0))
    for stage in module.stages:
        for block in stage:  # The branches start at zero and would not be missed.
            block.second.norm.scale[...] = jnp.ones_like(block.second.norm.scale[...])
    graph, state = nnx.split(module)

    @jax.jit
    def pooled(images):
        return nnx.merge(graph, state, copy=True)(images, train=train).pooled

    images = random(3, 4, 32, 32, 1)
    expected = np.asarray(pooled(images))
    assert expected.std() > 0.01
    for move in MOVES[1:]:
        np.testing.assert_allclose(pooled(move(images).copy()), expected, rtol=1e-4, atol=1e-5)
    shifted = np.roll(images, 3, axis=1)
    assert np.abs(pooled(shifted) - expected).max() > 1e-3
