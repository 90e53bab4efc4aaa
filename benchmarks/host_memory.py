"""Images a second of a training step on a CPU, with and without keeping freed memory.

    python benchmarks/host_memory.py

The step is the training loop's own on a batch that stays where it is, so neither loading nor
compiling counts. Each side runs in processes of its own, in turns; the median counts.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time

from _results import row, versions, write_results

MODELS = {"plankton_cnn_tiny": 48, "plankton_cnn_small": 64}
BATCH, STEPS, TURNS = 64, 40, 3


def measure(name: str, side: int) -> float:
    """Images a second of this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from plankton_jax import losses, models, optim, train
    from plankton_jax.config import Config
    from plankton_jax.experiment import Network, initial_state
    from plankton_jax.train_step import make_train_step

    config = Config()
    model = models.create_model(name, 100, image_size=side, in_channels=1, key=jax.random.key(0))
    graph, params, model_state = models.split_model(model)

    def apply(params, model_state, images, measurements, *, train, key):
        del measurements
        return models.apply(graph, params, model_state, images, train=train, key=key)

    network = Network(params, model_state, apply, apply, (0.5,), (0.2,))
    optimizer = optim.make_optimizer(config.optim, params, lambda step: 1e-3)
    step = make_train_step(
        apply,
        losses.make_loss(config.loss),
        optimizer,
        jnp.arange(100)[None],
        optim.trainable(config.optim, params),
        mean=network.mean,
        std=network.std,
    )
    run = jax.jit(train.accumulating(step), donate_argnums=(0, 1))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 1), dtype=np.uint8)
    batch = {
        "image": jnp.asarray(images),
        "measurements": jnp.zeros((BATCH, 0), jnp.float32),
        "leaf": jnp.zeros(BATCH, jnp.int32),
    }
    held = [initial_state(config, network, optimizer), train.device_window(None)]
    for _ in range(3):
        held[:] = run(*held, batch)
    jax.block_until_ready(held)
    began = time.perf_counter()
    for _ in range(STEPS):
        held[:] = run(*held, batch)
    jax.block_until_ready(held)
    return STEPS * BATCH / (time.perf_counter() - began)


def main() -> None:
    """Runs both sides in turns and writes the result; with --side, one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("kept", "default"), help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=tuple(MODELS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        if options.side == "kept":
            import jax

            from plankton_jax.host_memory import keep_freed_memory

            jax.default_backend()
            keep_freed_memory()
        print(measure(options.model, MODELS[options.model]))
        return
    rows = []
    for name in MODELS:
        rates: dict[str, list[float]] = {"kept": [], "default": []}
        for _ in range(TURNS):
            for side, found in rates.items():
                command = [sys.executable, __file__, "--side", side, "--model", name]
                text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.append(float(text.split()[-1]))
                print(name, side, f"{found[-1]:.1f} images/s", flush=True)
        ours, peer = (statistics.median(rates[side]) for side in ("kept", "default"))
        rows.append(row(f"train step {name}", "images/s", ours, peer, "glibc's own settings"))
    write_results(pathlib.Path(__file__).stem, rows, versions(["jax", "jaxlib"]))


if __name__ == "__main__":
    main()
