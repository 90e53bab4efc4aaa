"""Images a second of backbones, in inference and in a full training step, against timm's.

    python benchmarks/backbones.py [--peer-python PYTHON_WITH_TIMM] [--names A B] [--no-compile]

The peer is timm in PyTorch, channels last, eager and compiled; the better of the two counts. The
sides take turns, each in a process of its own that waits while another is measured; the median
counts. On a CPU in float32 with the small networks, on an accelerator in bfloat16 with those of the
report.
Also told: seconds of compiling, peak memory, and on an accelerator the share of its measured matrix
product rate that the network's own multiply-adds take. Writes `results/backbones.<device>.json`,
in which the networks that are not measured stay as they were.

On two cores half an hour (with compilation of the peer), on one H100 about ten minutes.
"""

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
from typing import Any

from _results import device_name, row, with_former_rows, write_results
from _side import Side

# Name: side of the input in pixels.
ON_CPU = {
    "swin_s3_tiny_224": 224,
    "deit_small_patch16_224": 224,
    "convnext_tiny": 224,
    "efficientnetv2_rw_s": 224,
    "legacy_xception": 224,
    "inception_v3": 299,
}
ON_ACCELERATOR = {
    "swin_s3_base_224": 224,
    "deit_base_patch16_224": 224,
    "convnext_base": 224,
    "efficientnetv2_rw_s": 288,
    "legacy_xception": 299,
    "inception_v3": 299,
}
MODES = ("inference", "training")

# Run in a process of its own, so that this one holds no device: what the device is, and how many
# multiply-adds a second its matrix products reach in bfloat16.
_DEVICE = """
import json, time, jax, jax.numpy as jnp
device = jax.devices()[0]
rate = 0.0
if device.platform != "cpu":
    x = jnp.ones((8192, 8192), jnp.bfloat16)
    run = jax.jit(lambda x: jax.lax.fori_loop(0, 50, lambda _, y: (y @ x) * 1e-4, x))
    run(x).block_until_ready()
    began = time.perf_counter()
    run(x).block_until_ready()
    rate = 50 * 8192**3 / (time.perf_counter() - began)
print(json.dumps({"platform": device.platform, "kind": device.device_kind, "rate": rate}))
"""
_SIZE = """
import sys
from plankton_jax.models.sizes import model_size
print(model_size(sys.argv[1], num_classes=93, image_size=int(sys.argv[2])).multiply_adds)
"""


def measure(
    name: str, mode: str, size: int, options: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Median rate, peak memory and compile time of each side, and the versions of what ran."""
    pythons = {"ours": sys.executable, "timm": options.peer_python}
    if options.compile:
        pythons["timm compiled"] = options.peer_python
    arguments = [name, mode, options.batch_size, size, options.precision, options.steps]
    with contextlib.ExitStack() as stack:
        sides = {}
        for side, python in pythons.items():
            sides[side] = Side(
                python,
                "_backbone_sides.py",
                [side, *arguments],
                environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # they share the device
            )
            stack.callback(sides[side].close)
        turns: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(options.repeats):
            for side, process in sides.items():
                turns[side].append(process.measure())
        used = {k: v for side in sides.values() for k, v in side.ready["versions"].items()}
        found = {
            side: {
                "rate": statistics.median(turn["rate"] for turn in each),
                "memory_mib": max(turn["memory_mib"] for turn in each),
                "compile_s": sides[side].ready["compile_s"],
            }
            for side, each in turns.items()
        }
    return found, used


def compare(
    name: str, mode: str, size: int, matmul_rate: float, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, str]]:
    """The row of one network and mode."""
    found, used = measure(name, mode, size, options)
    mine = found["ours"]
    peer_name, peer = max(
        ((side, values) for side, values in found.items() if side != "ours"),
        key=lambda pair: pair[1]["rate"],
    )
    result = row(f"{name} {size} px, {mode}", "images/s", mine["rate"], peer["rate"], peer_name)
    result |= {"sides": found}
    if matmul_rate:
        command = [sys.executable, "-c", _SIZE, name, str(size)]
        counted = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        # Backwards costs twice what forwards does.
        needed = counted * (3 if mode == "training" else 1)
        result["utilisation"] = round(needed * mine["rate"] / matmul_rate, 4)
    print(
        f"{result['name']}: ours {mine['rate']:.1f}, {peer_name} {peer['rate']:.1f} images/s, "
        f"ratio {result['ratio']:.2f}; compiled in {mine['compile_s']:.0f} s",
        flush=True,
    )
    return result, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of timm")
    known = sorted({*ON_CPU, *ON_ACCELERATOR})
    parser.add_argument("--names", nargs="*", choices=known, help="some of them; default: all")
    parser.add_argument("--batch-size", type=int, help="8 on a CPU, 128 elsewhere")
    parser.add_argument("--steps", type=int, help="steps in a turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    text = subprocess.run([sys.executable, "-c", _DEVICE], check=True, capture_output=True)
    device = json.loads(text.stdout)
    on_cpu = device["platform"] == "cpu"
    options.precision = "float32" if on_cpu else "bfloat16"
    options.batch_size = options.batch_size or (8 if on_cpu else 128)
    options.steps = options.steps or (3 if on_cpu else 30)
    networks = ON_CPU if on_cpu else ON_ACCELERATOR
    rows, used = [], {}
    for name in options.names or networks:
        for mode in MODES:
            size = (ON_CPU | ON_ACCELERATOR | networks)[name]
            result, versions = compare(name, mode, size, device["rate"], options)
            rows.append(result)
            used |= versions
    short = device_name(device["platform"], device["kind"])
    settings = {"batch_size": options.batch_size, "precision": options.precision}
    rows = with_former_rows("backbones", rows, short, settings)
    notes = settings | {
        "repeats": options.repeats,
        "matmul_multiply_adds_per_second": device["rate"] or None,
        "geometric_mean_ratio": {
            mode: round(
                math.exp(statistics.mean(math.log(r["ratio"]) for r in rows if mode in r["name"])),
                3,
            )
            for mode in MODES
        },
    }
    write_results("backbones", rows, used, device=short, notes=notes)


if __name__ == "__main__":
    main()
