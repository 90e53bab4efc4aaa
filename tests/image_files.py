"""Images and folders of images to build data sets from."""

import pathlib

import cv2
import numpy as np


def picture(seed: int = 0, height: int = 24, width: int = 32, channels: int = 1, dtype=np.uint8):
    """Noise: pixels that no codec can make much smaller."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def encoded(suffix: str = ".png", **kwargs) -> bytes:
    """The bytes of an image file; see `picture`."""
    done, data = cv2.imencode(suffix, picture(**kwargs))
    assert done
    return data.tobytes()


def make_folder(root: pathlib.Path, files: dict[str, bytes | int]) -> pathlib.Path:
    """Writes files given by their bytes, and folders given by their number of images."""
    seed = 0
    root.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        if isinstance(content, bytes):
            numbered = {path: content}
        else:
            numbered = {f"{path}/{n}.png": encoded(seed=seed + n) for n in range(content)}
            seed += content
        for file, data in numbered.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(data)
    return root
