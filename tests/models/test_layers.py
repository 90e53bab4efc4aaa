"""Convolutions against XLA's own, batch normalisation against its published formulae."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from plankton_jax.models.layers import BatchNorm, Convolution, batch_statistics, convolve, gelu

RELATIVE = 1e-5


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def reference(inputs, kernel, stride, padding, groups):
    """XLA's convolution with the padding that torch or TensorFlow would use."""
    before = [((size - 1) // 2,) * 2 for size in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        before if padding == "symmetric" else padding.upper(),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@functools.partial(jax.jit, static_argnums=0)
def value_and_derivatives(function, inputs, kernel, cotangent):
    value, pull = jax.vjp(function, inputs, kernel)
    return value, *pull(cotangent)


def assert_same(inputs, kernel, stride=1, padding="symmetric", groups=1):
    """Values and both derivatives of the matrix form, relative to the largest element."""

    def ours(x, w):
        return convolve(x, w, stride=stride, padding=padding, groups=groups, method="matmul")

    def theirs(x, w):
        return reference(x, w, stride, padding, groups)

    shape = jax.eval_shape(theirs, inputs, kernel).shape
    expected = value_and_derivatives(theirs, inputs, kernel, normal(7, *shape))
    outputs = value_and_derivatives(ours, inputs, kernel, normal(7, *shape))
    for got, wanted in zip(outputs, expected, strict=True):
        scale = max(float(jnp.max(jnp.abs(wanted))), 1.0)
        np.testing.assert_allclose(got / scale, wanted / scale, atol=RELATIVE, rtol=0)


@settings(max_examples=12)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3, 8, 16]),
    features=st.sampled_from([1, 5, 16]),
    size=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 2, 3]),
    padding=st.sampled_from(["symmetric", "same"]),
)
def test_dense_convolution_equals_xla(height, width, channels, features, size, stride, padding):
    if padding == "symmetric" and min(height, width) + 2 * ((size - 1) // 2) < size:
        return
    inputs, kernel = (
        normal(0, 2, height, width, channels),
        normal(1, size, size, channels, features),
    )
    assert_same(inputs, kernel, stride, padding)


@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        ((2, 6), "symmetric"),
        ((16, 8), "symmetric"),
        ((7, 8), "symmetric"),
        ((9, 5), "same"),
        ((1, 1), "symmetric"),
        ((7, 8), "valid"),
        ((3, 5), "valid"),
    ],
)
def test_winograd_products_and_their_derivatives_equal_xla(shape, padding):
    assert_same(normal(0, 3, *shape, 24), normal(1, 3, 3, 24, 40), padding=padding)


@settings(max_examples=6)
@given(
    height=st.integers(3, 9),
    channels=st.sampled_from([2, 8]),
    multiplier=st.sampled_from([1, 2]),
    size=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    padding=st.sampled_from(["symmetric", "same"]),
)
def test_depthwise_convolution_equals_xla(height, channels, multiplier, size, stride, padding):
    kernel = normal(1, size, size, 1, channels * multiplier)
    assert_same(normal(0, 2, height, 8, channels), kernel, stride, padding, groups=channels)


@pytest.mark.parametrize(
    ("height", "width", "size", "stride", "padding"),
    [
        (30, 4, 7, 1, "symmetric"),  # three steps of ten rows
        (17, 5, 7, 1, "symmetric"),  # the second step is filled up
        (31, 7, 3, 2, "symmetric"),  # sixteen rows of output, nothing left over
        (34, 6, 5, 2, "same"),  # the last row of the input meets no output
        (2, 1, 7, 1, "symmetric"),  # a map smaller than half the kernel
    ],
)
def test_depthwise_convolution_in_steps_equals_xla(height, width, size, stride, padding):
    kernel = normal(1, size, size, 1, 4)
    assert_same(normal(0, 2, height, width, 4), kernel, stride, padding, groups=4)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "channels"), [(56, 96), (14, 384), (7, 768)])
def test_depthwise_convolution_of_a_whole_network_equals_xla(side, channels):
    kernel = normal(1, 7, 7, 1, channels)
    assert_same(normal(0, 8, side, side, channels), kernel, groups=channels)


@pytest.mark.parametrize("size", [(1, 7), (7, 1), (1, 3), (3, 1), (3, 3), (5, 5)])
@pytest.mark.parametrize("padding", ["symmetric", "same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
def test_kernels_of_any_shape_and_no_padding_equal_xla(size, padding, stride):
    assert_same(normal(0, 2, 10, 8, 8), normal(1, *size, 8, 5), stride, padding)


def test_grouped_convolution_equals_xla():
    assert_same(normal(0, 2, 6, 6, 8), normal(1, 3, 3, 4, 6), groups=2)


@pytest.mark.parametrize("method", ["auto", "direct"])
def test_every_method_gives_the_same_values(method):
    inputs, kernel = normal(0, 2, 8, 8, 16), normal(1, 3, 3, 16, 16)
    expected = reference(inputs, kernel, 1, "symmetric", 1)
    got = convolve(inputs, kernel, method=method)
    np.testing.assert_allclose(got, expected, atol=RELATIVE * float(jnp.max(jnp.abs(expected))))


def test_second_derivative_exists():
    inputs, kernel = normal(0, 1, 4, 4, 8), normal(1, 3, 3, 8, 2)

    def slope(method):
        def loss(w):
            return jnp.sum(convolve(inputs, w, method=method) ** 3)

        return jax.jit(jax.grad(lambda w: jnp.sum(jax.grad(loss)(w) ** 2)))(kernel)

    expected = slope("direct")
    scale = float(jnp.max(jnp.abs(expected)))
    np.testing.assert_allclose(slope("matmul") / scale, expected / scale, atol=RELATIVE)


def test_convolution_module_computes_in_its_dtype_and_keeps_float32_parameters():
    layer = Convolution(4, 6, use_bias=True, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert layer(normal(0, 2, 8, 8, 4)).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("float32")}


def test_convolution_module_takes_height_and_width():
    module = Convolution(8, 4, (1, 7), padding="valid", rngs=nnx.Rngs(0))
    assert module.kernel.shape == (1, 7, 8, 4)
    assert module(normal(0, 2, 9, 9, 8)).shape == (2, 9, 3, 4)


def test_convolution_starts_with_the_variance_of_he_initialisation():
    kernel = np.asarray(Convolution(64, 128, rngs=nnx.Rngs(0)).kernel[...])
    assert abs(kernel.mean()) < 1e-3
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)


def test_batch_norm_normalises_by_the_batch_and_moves_the_running_statistics():
    """Against the formulae of torch.nn.BatchNorm2d's documentation, in float64."""
    layer = BatchNorm(5)
    layer.scale[...] = normal(1, 5)
    layer.bias[...] = normal(2, 5)
    inputs = 3.0 * normal(0, 4, 6, 6, 5) + 2.0
    outputs = layer(inputs, train=True)
    exact = np.asarray(inputs, np.float64).reshape(-1, 5)
    normalised = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    expected = normalised * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])
    np.testing.assert_allclose(outputs.reshape(-1, 5), expected, atol=1e-5)
    np.testing.assert_allclose(layer.mean[...], 0.1 * exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.variance[...], 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_in_inference_uses_and_keeps_the_running_statistics():
    layer = BatchNorm(3)
    layer.mean[...] = jnp.asarray([1.0, 2.0, 3.0])
    layer.variance[...] = jnp.asarray([4.0, 1.0, 0.25])
    before = nnx.state(layer, nnx.BatchStat)
    inputs = normal(0, 2, 4, 4, 3)
    expected = (np.asarray(inputs) - [1, 2, 3]) / np.sqrt(np.array([4, 1, 0.25]) + 1e-5)
    np.testing.assert_allclose(layer(inputs), expected, atol=1e-5)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, before, nnx.state(layer, nnx.BatchStat)))


def test_batch_statistics_survive_a_large_mean():
    _, variance = batch_statistics(normal(0, 8, 16, 16, 2) + 1000.0)
    np.testing.assert_allclose(variance, 1.0, atol=0.1)


def test_batch_norm_gradient_equals_the_closed_form():
    """Ioffe & Szegedy 2015, section 3: the gradient to the inputs has neither mean nor slope."""
    layer, inputs, weights = BatchNorm(4), normal(0, 3, 5, 5, 4), normal(1, 3, 5, 5, 4)
    graph, state = nnx.split(layer)

    def loss(x):
        return jnp.sum(nnx.merge(graph, state, copy=True)(x, train=True) * weights)

    gradient = np.asarray(jax.grad(loss)(inputs), np.float64).reshape(-1, 4)
    x, g = (np.asarray(array, np.float64).reshape(-1, 4) for array in (inputs, weights))
    normalised = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    expected = (g - g.mean(0) - normalised * (g * normalised).mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_gelu_is_the_normal_distribution_s():
    from scipy import stats

    x = np.linspace(-8, 8, 4001)
    found = np.asarray(gelu(jnp.asarray(x, jnp.float32)))
    np.testing.assert_allclose(found, x * stats.norm.cdf(x), atol=1e-6)
