"""How large a network is: its parameters, and the multiply-adds of one image.

Both are counted on abstract arrays, so that nothing is allocated or computed. Pure functions.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from plankton_jax.models import _registry
from plankton_jax.models.classifier import create_model
from plankton_jax.models.functional import apply, split_model


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Numbers of a network with its head.

    Attributes:
      parameters: that are trained; batch-norm statistics are none.
      multiply_adds: of convolutions and matrix products, for one image in inference.
    """

    parameters: int
    multiply_adds: int


def model_size(name: str, *, num_classes: int = 1000, image_size: int | None = None) -> ModelSize:
    """The size of a named backbone with a linear head, at its native or another image size.

    Raises:
      UserError: an unknown name, or an image size that the network cannot take.
    """
    size = image_size or _registry.find(name).info.image_size
    # In bfloat16 convolutions are one operation each on every device; see `layers.convolve`.
    make = functools.partial(
        create_model, name, num_classes, image_size=size, dtype=jnp.bfloat16, key=jax.random.key(0)
    )
    graphdef, params, state = split_model(nnx.eval_shape(make))
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

    def run(images, params, state):
        return apply(graphdef, params, state, images)[0]

    return ModelSize(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        multiply_adds=count_multiply_adds(run, images, params, state),
    )


def count_multiply_adds(function: Callable[..., Any], inputs: Any, *constants: Any) -> int:
    """Multiply-adds of the convolutions and matrix products in `function(inputs, *constants)`.

    What depends on the constants alone, as a kernel that is made from another, does not count:
    inference does it once for all images. Where a kernel meets padding counts like the rest.
    Arguments may be arrays or `jax.ShapeDtypeStruct`.
    """
    closed = jax.make_jaxpr(function)(inputs, *constants)
    count = len(jax.tree.leaves(inputs))
    moving = [number < count for number in range(len(closed.jaxpr.invars))]
    return _count(closed.jaxpr, moving)[0]


def _count(jaxpr: Any, moving: list[bool]) -> tuple[int, list[bool]]:
    """Multiply-adds, and which outputs depend on the inputs that are marked as moving."""
    known = {var for var, moves in zip(jaxpr.invars, moving, strict=True) if moves}
    total = 0
    for equation in jaxpr.eqns:
        marks = [not isinstance(var, core.Literal) and var in known for var in equation.invars]
        if not any(marks):
            continue
        outputs = [True] * len(equation.outvars)
        if equation.primitive.name == "dot_general":
            total += _of_product(equation)
        elif equation.primitive.name == "conv_general_dilated":
            total += _of_convolution(equation)
        else:
            for inner in _inner(equation):
                same = len(inner.invars) == len(marks) and equation.primitive.name != "scan"
                found, inner_outputs = _count(inner, marks if same else [True] * len(inner.invars))
                total += found * equation.params.get("length", 1)
                outputs = inner_outputs if same else outputs
        known |= {var for var, moves in zip(equation.outvars, outputs, strict=True) if moves}
    return total, [not isinstance(var, core.Literal) and var in known for var in jaxpr.outvars]


def _inner(equation: Any) -> list[Any]:
    """The programs that an operation runs: those of a jitted or custom function, or of a scan."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    programs = [equation.params[name] for name in names if name in equation.params]
    return [getattr(program, "jaxpr", program) for program in programs]


def _of_product(equation: Any) -> int:
    """Every element of the result is a sum over the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation: Any) -> int:
    """Every element of the result is a sum over the kernel's places and a group's inputs."""
    kernel = equation.invars[1].aval
    outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return equation.outvars[0].aval.size * (kernel.size // outputs)
