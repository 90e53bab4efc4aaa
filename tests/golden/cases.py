"""Networks that are compared with timm: how timm makes each and how this package does."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from golden.weights import random_images, random_weights

from plankton_jax.models import (
    Classifier,
    apply,
    apply_features,
    create_model,
    split_model,
)
from plankton_jax.weights import from_timm, to_timm

# Modules of this folder, `golden.<name>_cases`, each with
#   CASES: dict[str, Case], the networks whose outputs are stored, small enough to run in seconds;
#   reduced(name) -> Case, any registered name of the family at reduced depth, for the live parity.
FAMILIES: tuple[str, ...] = ("convnext", "efficientnet", "inception", "resnet", "swin", "xception")


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
      timm_name, timm_options: what `timm.create_model` takes, beside classes and channels.
      backbone: what `create_model` takes: a name, or a function of the registry's keywords.
      image_size: side of the input, pixels.
      options: more keywords of `create_model`.
      kept: how many values are stored of each map and each running statistic, drawn by its name;
        0: all.
      offset: added to the offsets of batch norms. Deep networks of random weights double a
        rounding error every few layers, as a ReLU cuts half of the values off; the more of them
        pass, the less.
    """

    timm_name: str
    timm_options: Mapping[str, Any]
    backbone: str | Callable[..., Any]
    image_size: int
    in_channels: int = 3
    num_classes: int = 7
    batch: int = 4
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kept: int = 0
    offset: float = 0.0

    def model(self) -> Classifier:
        """This package's network."""
        return create_model(
            self.backbone,
            self.num_classes,
            image_size=self.image_size,
            in_channels=self.in_channels,
            key=jax.random.key(0),
            **self.options,
        )

    def timm_model(self, timm: Any) -> Any:
        """timm's network, without anything random in training."""
        return timm.create_model(
            self.timm_name,
            num_classes=self.num_classes,
            in_chans=self.in_channels,
            drop_rate=0.0,
            **({"drop_path_rate": 0.0} | dict(self.timm_options)),
        )

    def weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Random values for a state dict in timm's naming."""
        values = random_weights(shapes)
        for name in shapes:
            norm, _, last = name.rpartition(".")
            if last == "bias" and f"{norm}.running_mean" in shapes:
                values[name] += np.float32(self.offset)
        return values

    def inputs(self, seed: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels, from the seed's text alone."""
        images = random_images(seed, self.batch, self.image_size, self.in_channels)
        return images, np.arange(self.batch) % self.num_classes


def stored_cases() -> dict[str, Case]:
    """Every case whose outputs are stored, as `family/case`."""
    found = {}
    for family in FAMILIES:
        module = importlib.import_module(f"golden.{family}_cases")
        found |= {f"{family}/{name}": case for name, case in module.CASES.items()}
    return found


def run_ours(case: Case, seed: str) -> dict[str, Any]:
    """The same as `timm_support.run_case` gives, from this package, names and layouts timm's."""
    model = case.model()
    graphdef, params, state = split_model(model)
    named = to_timm(params, state, model)
    weights = case.weights({name: value.shape for name, value in named.items()})
    params, state = from_timm(weights, model)
    images, labels = case.inputs(seed)

    def objective(params):
        (logits,), moved = apply(graphdef, params, state, images, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), moved

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def both(params):
        features = apply_features(graphdef, params, state, images)
        (logits,), _ = apply(graphdef, params, state, images)
        (loss, moved), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        return features, logits, loss, moved, gradients

    features, logits, loss, moved, gradients = both(params)
    zeros = jax.tree.map(jnp.zeros_like, state)
    return {
        "stages": [np.asarray(stage) for stage in features.stages],
        "pooled": np.asarray(features.pooled),
        "logits": np.asarray(logits),
        "loss": np.asarray(loss),
        "gradients": _without(to_timm(gradients, zeros, model), to_timm({}, zeros, model)),
        "buffers": to_timm({}, moved, model),
    }


def _without(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in others}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in units of the largest value that is expected."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))


def relative_norm(found: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference, in norms of what is expected."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12))


def gradient_bounds(norms: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """How far each parameter's gradient may be from the exact one.

    1e-3 of its norm, or twice what timm's own float32 gradient is off by where that is more: a ReLU
    whose input rounds to the other side of zero changes a gradient in one step. A case where timm
    itself is off by much, or for many parameters, shows nothing and fails. What is zero in exact
    arithmetic, as an offset's gradient before a batch norm, may be as large as rounding makes it:
    1e-5 of the whole gradient.
    """
    whole = np.linalg.norm(norms)
    zero = norms < 1e-9 * whole
    relative = np.maximum(1e-3, 2.0 * rounding[~zero])
    assert relative.max() < 1e-2 and np.mean(relative > 1e-3) < 0.2, "choose another input"
    bounds = np.full(norms.shape, 1e-5 * whole)
    bounds[~zero] = relative * norms[~zero]
    return bounds


def assert_equal_features(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Features, logits and loss to 1e-4 of their scale."""
    assert len(found["stages"]) == len(expected["stages"])
    for number, (ours, theirs) in enumerate(zip(found["stages"], expected["stages"], strict=True)):
        assert ours.shape == theirs.shape, number
        assert relative(ours, theirs) < 1e-4, f"stage {number}"
    for name in ("pooled", "logits", "loss"):
        assert relative(found[name], expected[name]) < 1e-4, name
