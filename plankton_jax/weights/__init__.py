"""Weights files and names of other libraries, to and from the parameters of this one."""

from plankton_jax.weights.files import read_safetensors
from plankton_jax.weights.timm_names import from_timm, to_timm

__all__ = ["from_timm", "read_safetensors", "to_timm"]
