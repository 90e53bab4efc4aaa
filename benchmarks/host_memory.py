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
    from _training import make_batch, make_training

    from plankton_jax import train
    from plankton_jax.config import Config

    config = Config()
    config.model.name, config.data.image_size = name, side
    step, state = make_training(config, 100)
    run = jax.jit(train.accumulating(step), donate_argnums=(0, 1))
    batch = make_batch(BATCH, side)
    held = [state, train.device_window(None)]
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
