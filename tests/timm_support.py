"""Imports timm beside a torchvision whose compiled operators do not load (CPU-only machines).

torchvision registers metadata for two operators when it is imported; where its library does not
load, they are declared here first. Tests skip when torch or timm is missing.
"""

import copy
import warnings

import numpy as np
import pytest
from golden.cases import relative_norm

torch = pytest.importorskip("torch", reason="torch is not installed")

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # kept alive: it undoes itself
for _signature in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    _name = _signature.partition("(")[0]
    if not hasattr(torch.ops.torchvision, _name):
        _LIBRARY.define(_signature)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    timm = pytest.importorskip("timm", reason="timm is not installed")

torch.set_num_threads(2)


def shapes(model) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's state dict."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def load(model, weights: dict[str, np.ndarray]) -> None:
    """Sets a network's weights."""
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})


def run_case(model, images: np.ndarray, labels: np.ndarray) -> dict:
    """What a network gives for `b h w c` images: in evaluation mode, then in one training step.

    Returns stages (each `b h w c`), pooled and logits of the evaluation mode; loss (the mean
    cross-entropy), gradients by name and buffers (the state dict's entries that are no parameters)
    after a step's forward pass in training mode. Of the gradients also the `rounding`: what timm's
    own differ by from those it computes in float64, as a share of their norm.
    """
    exact = gradients(copy.deepcopy(model).double(), images, labels)
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    model.eval()
    with torch.no_grad():
        last, maps = model.forward_intermediates(inputs)
        results = {
            "stages": [stage.numpy().transpose(0, 2, 3, 1) for stage in maps],
            "pooled": model.forward_head(last, pre_logits=True).numpy(),
            "logits": model(inputs).numpy(),
        }
    model.train()
    loss = torch.nn.functional.cross_entropy(model(inputs), torch.from_numpy(labels))
    loss.backward()
    parameters = dict(model.named_parameters())
    return results | {
        "loss": loss.detach().numpy(),
        "gradients": exact,
        "rounding": {
            name: relative_norm(p.grad.numpy(), exact[name]) for name, p in parameters.items()
        },
        "buffers": {n: v.numpy() for n, v in model.state_dict().items() if n not in parameters},
    }


def gradients(model, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients of the mean cross-entropy in training mode, by name, in the model's precision."""
    inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    dtype = next(model.parameters()).dtype
    logits = model.train()(torch.from_numpy(inputs).to(dtype))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


def run(model, images: np.ndarray, labels: np.ndarray) -> dict:
    """What a network gives for `b h w c` images, without dropout.

    Returns logits, pooled features, the token sequence, each block's map `b h w c`, the mean
    cross-entropy and its gradients by name.
    """
    model.eval()
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    tokens, maps = model.forward_intermediates(inputs)
    logits = model(inputs)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()
    return {
        "logits": logits.detach().numpy(),
        "pooled": model.forward_head(tokens, pre_logits=True).detach().numpy(),
        "tokens": tokens.detach().numpy(),
        "blocks": np.stack([m.detach().numpy().transpose(0, 2, 3, 1) for m in maps]),
        "loss": loss.detach().numpy(),
        "gradients": {name: p.grad.numpy() for name, p in model.named_parameters()},
    }
