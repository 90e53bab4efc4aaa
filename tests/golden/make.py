"""Computes what timm gives for small networks and stores it: `python tests/golden/make.py vit`.

Needs torch and timm. Writes tests/golden/<family>.npz, which also records their versions.
"""

import importlib
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import timm_support
from golden.cases import FAMILIES
from golden.variants import BATCH, VIT_VARIANTS, VitVariant
from golden.weights import checksums, random_images, random_weights, thinned
from timm_support import timm, torch

FOLDER = pathlib.Path(__file__).parent


def vit_results(name: str, variant: VitVariant) -> dict[str, np.ndarray]:
    """Outputs, features of each block and gradient checksums of one network."""
    module = timm.models.deit if variant.config.distilled else timm.models.vision_transformer
    kind = module.VisionTransformerDistilled if variant.config.distilled else None
    kind = kind or module.VisionTransformer
    original = kind(**variant.timm_options(variant.weights_size))
    timm_support.load(original, random_weights(timm_support.shapes(original)))
    original.set_input_size(img_size=(variant.image_size, variant.image_size))
    images = random_images(name, BATCH, variant.image_size, variant.in_channels)
    results = timm_support.run(original, images, np.arange(BATCH) % variant.num_classes)
    sums = checksums(results.pop("gradients"))
    names = sorted(sums)
    return results | {
        "gradient_names": np.array(names),
        "gradient_checksums": np.stack([sums[key] for key in names]),
    }


def make_vit() -> None:
    """Writes vit.npz."""
    arrays = {"versions": np.array([f"timm {timm.__version__}", f"torch {torch.__version__}"])}
    for name, variant in VIT_VARIANTS.items():
        results = vit_results(name, variant)
        arrays |= {f"{name}/{key}": value for key, value in results.items()}
    np.savez_compressed(FOLDER / "vit.npz", **arrays)


def make_family(family: str) -> None:
    """Writes <family>.npz: what timm gives for every case of golden.<family>_cases."""
    arrays = {"versions": np.array([f"timm {timm.__version__}", f"torch {torch.__version__}"])}
    for name, case in importlib.import_module(f"golden.{family}_cases").CASES.items():
        original = case.timm_model(timm)
        timm_support.load(original, case.weights(timm_support.shapes(original)))
        results = timm_support.run_case(original, *case.inputs(f"{family}/{name}"))
        sums = checksums(results["gradients"])
        names = sorted(sums)
        # Of the maps, which are large, those of the first image.
        stored = {f"stage_{number}": stage[:1] for number, stage in enumerate(results["stages"])}
        stored |= {key: results[key] for key in ("pooled", "logits", "loss")}
        stored |= {
            f"buffer/{key}": value
            for key, value in results["buffers"].items()
            if key.endswith(("running_mean", "running_var"))
        }
        stored["gradient_names"] = np.array(names)
        stored["gradient_checksums"] = np.stack([sums[key] for key in names])
        stored["gradient_rounding"] = np.array([results["rounding"][key] for key in names])
        arrays |= {
            f"{name}/{key}": value if key.startswith("gradient") else thinned(key, value, case.kept)
            for key, value in stored.items()
        }
    np.savez_compressed(FOLDER / f"{family}.npz", **arrays)


if __name__ == "__main__":
    for family in sys.argv[1:] or ("vit", *FAMILIES):
        make_vit() if family == "vit" else make_family(family)
