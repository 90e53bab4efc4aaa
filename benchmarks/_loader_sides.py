"""One side of the loader benchmark, run by `loader.py` in a process of its own.

Prints a line of JSON with its versions when ready, then answers each line on standard input with
the images per second of one pass. Reads images and touches nothing else.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from _results import versions

WARM_UP_BATCHES = 6
_KEPT: list[Any] = []


def ours(
    data_set: pathlib.Path, recipe: str, batch_size: int, size: int, cores: int
) -> Callable[[int], Iterator[Any]]:
    """Our batches on the device, as 8-bit grey levels: flips, rotation 0..180 degrees, resize; or
    the resize and RandAugment's operations."""
    import jax

    from plankton_jax.config import AugmentationConfig
    from plankton_jax.data.dataset import open_dataset
    from plankton_jax.data.loader import make_train_iterator
    from plankton_jax.data.sampling import UniformSampler
    from plankton_jax.data.splits import split_rows

    dataset = open_dataset(data_set)
    rows = split_rows(dataset.hashes, dataset.leaf, (1, 0, 0))["train"]
    sampler, augmentation = UniformSampler(rows, 0), AugmentationConfig()
    if recipe == "randaugment":
        augmentation = AugmentationConfig(manual=False, policy="randaugment")

    def batches(count: int) -> Iterator[Any]:
        workers = cores if cores > 1 else 0
        with make_train_iterator(
            dataset, sampler, batch_size, size, augmentation, 0, 0, count, workers, threads=1
        ) as iterator:
            for batch in iterator:
                yield jax.block_until_ready(jax.device_put(batch))

    return batches


def torchvision(
    folder: pathlib.Path, recipe: str, batch_size: int, size: int, cores: int
) -> Callable[[int], Iterator[Any]]:
    """The same operations on an `ImageFolder`, batched by a `DataLoader`, normalised."""
    import torch

    declare_operators()
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    manual = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.RandomRotation((0, 180)),
        transforms.Resize((size, size)),
    ]
    random = [transforms.Resize((size, size)), transforms.RandAugment(4, 8)]
    steps = [
        *(random if recipe == "randaugment" else manual),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    dataset = datasets.ImageFolder(str(folder), transforms.Compose(steps))

    def batches(count: int) -> Iterator[Any]:
        sampler = RandomSampler(dataset, num_samples=count * batch_size)
        workers = cores if cores > 1 else 0
        yield from DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers)

    return batches


def declare_operators() -> None:
    """Makes torchvision importable where its compiled operators do not load beside torch: it asks
    for two of them by name, though nothing here calls them."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for module in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _KEPT.append(library)  # declarations end with the object


def images_per_second(batches: Iterator[Any], batch_size: int, count: int) -> float:
    """The rate of `count` batches that follow the warm-up."""
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    elapsed = time.perf_counter() - start
    for _ in batches:  # lets worker processes end by themselves
        pass
    return batch_size * count / elapsed


def main() -> None:
    side, path, recipe, *numbers = sys.argv[1:]
    batch_size, size, cores, count = map(int, numbers)
    make, packages = SIDES[side]
    batches = make(pathlib.Path(path), recipe, batch_size, size, cores)
    print(json.dumps(versions(packages)), flush=True)
    for _ in sys.stdin:
        rate = images_per_second(batches(WARM_UP_BATCHES + count), batch_size, count)
        print(json.dumps(rate), flush=True)


SIDES = {
    "ours": (ours, ("jax", "grain", "array_record", "opencv-python-headless", "numpy")),
    "torchvision": (torchvision, ("torch", "torchvision", "pillow")),
}

if __name__ == "__main__":
    main()
