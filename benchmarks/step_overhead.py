"""What Python costs in a training step: the time to dispatch it, beside the time it takes.

    python benchmarks/step_overhead.py

The network, optimiser and step are those of configs/quickstart.py. Overhead is measured on a batch
so small that the device has next to nothing to do: there, wall time a step is what the host spends,
an upper bound of it at any batch size. The peer is the same step on `nnx.Module` through `nnx.jit`.
"""

import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import optax
from _results import row, versions, write_results
from _training import make_batch, make_model, make_training
from flax import nnx

from plankton_jax import losses, train
from plankton_jax.command import read_config

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "quickstart.py"
CLASSES, STEPS, REPEATS = 28, 200, 7


def ours(config, batch):
    """Seconds a step of the training loop's own body; returns a function that measures once."""
    step, state = make_training(config, CLASSES)
    run = jax.jit(train.accumulating(step), donate_argnums=(0, 1))
    held = [state, train.device_window(None)]

    def once() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            held[:] = run(*held, batch)
        jax.block_until_ready(held)
        return (time.perf_counter() - began) / STEPS

    return once


def peer(config, batch):
    """The same with `nnx.jit` on module and optimiser, as Flax's own tutorial does it."""
    model = make_model(config, CLASSES)
    optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, batch):
        def objective(model):
            images = (batch["image"].astype(jnp.float32) / 255.0 - 0.5) / 0.2
            (logits,) = model(images, train=True)
            return losses.cross_entropy((logits,), batch["leaf"][:, None]).mean()

        loss, gradients = nnx.value_and_grad(objective)(model)
        optimizer.update(model, gradients)
        return loss

    def once() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            loss = step(model, optimizer, batch)
        jax.block_until_ready(loss)
        return (time.perf_counter() - began) / STEPS

    return once


def device_time(config, batch) -> float:
    """Seconds a step that the device needs, from one compiled call that loops over the step."""
    step, state = make_training(config, CLASSES)
    count = 50
    looped = jax.jit(
        lambda state, batch: jax.lax.fori_loop(0, count, lambda _, s: step(s, batch)[0], state)
    )
    jax.block_until_ready(looped(state, batch))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(looped(state, batch))
        times.append((time.perf_counter() - began) / count)
    return statistics.median(times)


def main() -> None:
    """Measures both in turn and writes the result."""
    config = read_config(str(CONFIG), [])
    batch = make_batch(1, 16)
    config.data.image_size = 16
    run_ours, run_peer = ours(config, batch), peer(config, batch)
    run_ours(), run_peer()  # compile
    pairs = [(run_ours(), run_peer()) for _ in range(REPEATS)]
    device = device_time(config, batch)
    ours_s, peer_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    rows = [
        row("step of one 16-pixel image, wall", "ms", ours_s * 1e3, peer_s * 1e3, "nnx.jit",
            less_is_better=True),
        row("the same, device alone", "ms", device * 1e3),
        row("overhead of Python", "ms", (ours_s - device) * 1e3, (peer_s - device) * 1e3,
            "nnx.jit", less_is_better=True),
    ]  # fmt: skip
    write_results(
        "step_overhead", rows, versions(["jax", "flax", "optax"]),
        notes={"steps": STEPS, "repeats": REPEATS, "network": config.model.name},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
