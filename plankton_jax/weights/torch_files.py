"""Reads PyTorch files (`.pth`, `.pt`, `.bin`, `.ckpt`); torch is imported only when one is read.

Only arrays and plain values are unpickled: a file that would run code is refused.
"""

import argparse
import os
import pickle
import warnings
from typing import Any

from plankton_jax.errors import UserError

# The beginnings of a zip archive and of a pickle, which is what torch writes and used to write.
MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_torch(path: str | os.PathLike) -> Any:
    """What a PyTorch file holds, its tensors as NumPy arrays (bfloat16 ones as float32).

    Raises:
      UserError: torch is not installed, the file is damaged or holds code.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"{os.fspath(path)}: a PyTorch file, which torch is needed to read: pip install torch, "
            "or convert the file to safetensors where torch is installed: safetensors.torch."
            'save_file(torch.load(FILE, weights_only=True), "FILE.safetensors").'
        ) from error
    try:
        # timm's own training checkpoints hold the arguments of the command, plain values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*looks like a TorchScript archive")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, torch)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"{os.fspath(path)}: a TorchScript archive, which holds code; allowed: a state "
                'dict. Save that: torch.save(torch.jit.load(FILE).state_dict(), "weights.pth").'
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{os.fspath(path)}: cannot be read: cut short or damaged ({reason}). Get it anew."
        ) from error
    return _as_arrays(loaded, torch)


def _refusal(path: str | os.PathLike, torch: Any) -> str:
    """Says what a file holds that is neither an array nor a plain value."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old format, or a damaged file: the names are a help, no more
        names = []
    listed = f" ({', '.join(names)})" if names else ""
    return (
        f"{os.fspath(path)}: refused: it holds objects{listed} whose loading could run code, or is "
        "damaged. Where the file is trusted, save the bare state dict and convert that: "
        'torch.save(torch.load(FILE, weights_only=False)["state_dict"], "weights.pth").'
    )


def _as_arrays(value: Any, torch: Any, name: str = "") -> Any:
    """Tensors as arrays, in whatever dicts they lie; `name` is that of the value."""
    if isinstance(value, dict):
        return {key: _as_arrays(item, torch, str(key)) for key, item in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    tensor = value.detach()
    if tensor.is_quantized or tensor.layout != torch.strided:
        raise UserError(
            f"weights: quantised or sparse tensors are not supported ({name}); save dense ones."
        )
    if tensor.is_meta:
        raise UserError(
            f"weights: {name} is a tensor without values (device meta). Save the network after its "
            "weights were loaded."
        )
    try:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(force=True)
    except TypeError as error:
        raise UserError(
            f"weights: {name} has the number type {tensor.dtype}, which NumPy lacks. Save it as "
            "float32: tensor.float()."
        ) from error
