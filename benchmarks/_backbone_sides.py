"""One side of the comparison of backbones, run by `backbones.py` in a process of its own.

    python benchmarks/_backbone_sides.py SIDE NAME MODE BATCH SIZE PRECISION STEPS

Prints a line of JSON with its versions and the seconds of compiling when ready, then answers each
line on standard input with images per second and peak memory. Touches nothing else.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _results import versions

CLASSES = 93


def ours(name: str, mode: str, batch: int, size: int, precision: str) -> tuple[Callable, Callable]:
    """Our step as the training loop compiles it, or inference as `evaluate` does; on the device."""
    import jax
    from _training import make_batch, make_model, make_training

    from plankton_jax import models, train
    from plankton_jax.config import Config
    from plankton_jax.host_memory import keep_freed_memory

    if jax.default_backend() == "cpu":
        keep_freed_memory()
    config = Config()
    config.model.name, config.model.in_channels = name, 3
    config.data.image_size, config.train.precision = size, precision
    if mode == "training":
        step, state = make_training(config, CLASSES)
        run = jax.jit(train.accumulating(step), donate_argnums=(0, 1))
        held, images = [state, train.device_window(None)], make_batch(batch, size)

        def once() -> None:
            held[:] = run(*held, images)
    else:
        graph, params, model_state = models.split_model(make_model(config, CLASSES))
        images = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)
        images, held = jax.device_put(images), [None]
        infer = jax.jit(lambda p, s, x: models.apply(graph, p, s, x)[0])

        def once() -> None:
            held[:] = [infer(params, model_state, images)]

    def finish() -> None:
        jax.block_until_ready(held)

    return once, finish


def timm(name: str, mode: str, batch: int, size: int, precision: str) -> tuple[Callable, Callable]:
    """timm in PyTorch, channels last; AdamW as PyTorch makes it quickest."""
    model, torch = _timm_model(name, size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    cast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    if mode == "training":
        model.train()
        model = torch.compile(model) if COMPILED in sys.argv[1] else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

        def once() -> None:
            with cast:
                loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    else:
        model.eval()
        if precision == "bfloat16":  # quicker than casting the weights each time
            model, images = model.to(torch.bfloat16), images.to(torch.bfloat16)
        model = torch.compile(model) if COMPILED in sys.argv[1] else model

        def once() -> None:
            with torch.inference_mode():
                model(images)

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    return once, finish


def _timm_model(name: str, size: int) -> tuple[Any, Any]:
    """timm's network at an image size, and torch."""
    from _loader_sides import declare_operators

    declare_operators()
    import timm as library
    import torch

    torch.backends.cudnn.benchmark = True
    sized = name.startswith(("swin", "vit", "deit"))
    options = {"img_size": size} if sized else {}
    return library.create_model(name, num_classes=CLASSES, **options), torch


def peak_memory() -> float:
    """MiB: of the accelerator's memory, or of the process on a CPU."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.max_memory_allocated() / 2**20
    if "jax" in sys.modules:
        statistics = sys.modules["jax"].local_devices()[0].memory_stats()
        if statistics:
            return statistics["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    side, name, mode, batch, size, precision, steps = sys.argv[1:]
    make, packages = SIDES[side]
    once, finish = make(name, mode, int(batch), int(size), precision)
    began = time.perf_counter()
    once()
    finish()
    first = time.perf_counter() - began
    began = time.perf_counter()
    once()
    finish()
    compiling = max(first - (time.perf_counter() - began), 0.0)
    print(json.dumps({"versions": versions(packages), "compile_s": compiling}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(steps)):
            once()
        finish()
        rate = int(steps) * int(batch) / (time.perf_counter() - began)
        print(json.dumps({"rate": rate, "memory_mib": peak_memory()}), flush=True)


COMPILED = "compiled"
SIDES = {
    "ours": (ours, ("jax", "jaxlib", "flax", "optax")),
    "timm": (timm, ("torch", "timm")),
    f"timm {COMPILED}": (timm, ("torch", "timm")),
}

if __name__ == "__main__":
    main()
