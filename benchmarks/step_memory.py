"""Memory of a training step at batch 64 and 224 pixels, with and without rematerialisation.

    python benchmarks/step_memory.py [--names A B] [--batch-size 64] [--precision float32]

What XLA sets aside for the compiled step: parameters, optimiser state and batch, which come in,
and what lies between forward and backward pass and is free again at the end. The step is compiled
and not run, so it may need more memory than the machine has. Each is compiled in a process of its
own. Writes `results/step_memory.<device>.json`, in which the networks that are not measured stay as
they were; "ours" rematerialises, the peer does not.

On two cores about ten minutes.
"""

import argparse
import json
import subprocess
import sys
import time

from _results import device_name, row, versions, with_former_rows, write_results

NAMES = (
    "swin_s3_base_224",
    "deit_base_patch16_224",
    "convnext_base",
    "efficientnetv2_rw_s",
    "legacy_xception",
    "inception_v3",
    "resnet50",
)
SIZE = 224
CLASSES = 93


def measure(name: str, batch: int, precision: str, rematerialise: bool) -> None:
    """Prints what one compiled step holds, in MiB, and how long tracing and compiling took."""
    import jax
    from _training import make_batch, make_training

    from plankton_jax import train
    from plankton_jax.config import Config

    config = Config()
    config.model.name, config.model.in_channels = name, 3
    config.model.rematerialise = rematerialise
    config.data.image_size, config.train.precision = SIZE, precision
    step, state = make_training(config, CLASSES)
    run = jax.jit(train.accumulating(step), donate_argnums=(0, 1))
    window, images = train.device_window(None), make_batch(batch, SIZE)
    began = time.perf_counter()
    compiled = run.lower(state, window, images).compile()
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    assert memory is not None
    device = jax.devices()[0]
    print(json.dumps({
        "held_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        "compile_s": round(seconds, 1),
        "device": device_name(device.platform, device.device_kind),
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--one", choices=("plain", "rematerialised"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        (name,) = options.names
        measure(name, options.batch_size, options.precision, options.one == "rematerialised")
        return
    rows, device = [], ""
    for name in options.names:
        found = {}
        for kind in ("plain", "rematerialised"):
            command = [sys.executable, __file__, "--names", name, "--one", kind]
            command += ["--batch-size", str(options.batch_size), "--precision", options.precision]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[kind] = json.loads(run.stdout)
            device = found[kind].pop("device")
        total = {kind: sum(each[k] for k in ("held_mib", "temporary_mib"))
                 for kind, each in found.items()}  # fmt: skip
        result = row(
            name, "MiB", round(total["rematerialised"]), round(total["plain"]), "kept",
            less_is_better=True,
        )  # fmt: skip
        rows.append(result | {"sides": found})
        print(f"{name}: {total['plain']:.0f} MiB, rematerialised {total['rematerialised']:.0f}",
              flush=True)  # fmt: skip
    notes = {"batch_size": options.batch_size, "image_size": SIZE, "precision": options.precision}
    used = versions(("jax", "jaxlib", "flax"))
    rows = with_former_rows("step_memory", rows, device, notes)
    write_results("step_memory", rows, used, device=device, notes=notes)


if __name__ == "__main__":
    main()
