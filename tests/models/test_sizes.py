"""Counted parameters and multiply-adds, and the command that lists the networks."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from plankton_jax.errors import UserError
from plankton_jax.models.__main__ import main
from plankton_jax.models.layers import convolve
from plankton_jax.models.sizes import count_multiply_adds, model_size

IMAGES = jax.ShapeDtypeStruct((2, 9, 9, 4), jnp.float32)


def _shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_products_and_convolutions_count_their_multiply_adds():
    assert count_multiply_adds(jnp.matmul, _shape(3, 5), _shape(5, 7)) == 3 * 5 * 7

    def attention(x, y):
        return jnp.einsum("bnhk,bmhk->bhnm", x, y)

    assert count_multiply_adds(attention, _shape(2, 3, 4, 5), _shape(2, 6, 4, 5)) == 2 * 4 * 18 * 5

    def run(images, kernel, groups=1):
        return convolve(images, kernel, stride=2, groups=groups, method="direct")

    assert count_multiply_adds(run, IMAGES, _shape(3, 3, 4, 6)) == 2 * 25 * 9 * 4 * 6
    # In two groups: half the input channels each.
    grouped = count_multiply_adds(lambda x, k: run(x, k, 2), IMAGES, _shape(3, 3, 2, 6))
    assert grouped == 2 * 25 * 9 * 2 * 6


def test_what_depends_on_constants_alone_does_not_count():
    def run(x, kernel, table):
        return jax.jit(lambda x, k: jax.nn.relu(x @ k))(x, table @ kernel)

    assert count_multiply_adds(run, _shape(3, 5), _shape(9, 7), _shape(5, 9)) == 3 * 5 * 7


def test_repeated_programs_count_each_time():
    def run(x, weights):
        def step(x, weight):
            return jax.checkpoint(lambda x: x @ weight)(x), None

        return jax.lax.scan(step, x, weights)[0]

    assert count_multiply_adds(run, _shape(3, 5), _shape(6, 5, 5)) == 6 * 3 * 25


def test_a_linear_layer_alone_counts_as_on_paper():
    layer = nnx.Linear(5, 7, rngs=nnx.Rngs(0))
    assert count_multiply_adds(layer, _shape(3, 5)) == 3 * 5 * 7


# The public weights' model cards list these, millions and thousand millions, for 1000 classes.
PUBLISHED = {
    "deit_tiny_patch16_224": (5.7, 1.3),
    "deit_small_patch16_224": (22.1, 4.6),
    "swin_tiny_patch4_window7_224": (28.3, 4.5),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name):
    size = model_size(name)
    parameters, multiply_adds = PUBLISHED[name]
    assert size.parameters / 1e6 == pytest.approx(parameters, abs=0.06)
    # The published ones count a few other operations too.
    assert size.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.05)


def test_the_command_prints_a_table_or_json(capsys):
    assert main(["--names", "*_tiny_patch16_224", "--family", "vit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "name", "deit_tiny_patch16_224", "vit_tiny_patch16_224",
    ]  # fmt: skip
    assert lines[1].split()[1:5] == ["vit", "5.72", "1.25", "224"]
    assert lines[1].endswith("  apache-2.0")
    assert main(["--names", "plankton_cnn_tiny", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["family"] == "convnet" and row["image_size"] == 48 and row["licence"] == ""
    assert row["parameters"] > 0 and row["multiply_adds"] > 0


def test_the_command_suggests_names_and_families():
    with pytest.raises(UserError, match='--family: .*"swni".*"swin"'):
        main(["--family", "swni"])
    with pytest.raises(UserError, match="--names: nothing matches"):
        main(["--names", "swni*", "--family", "swin"])
