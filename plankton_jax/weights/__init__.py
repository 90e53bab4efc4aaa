"""Weights files and names of other libraries, to and from the parameters of this one."""

from plankton_jax.weights.contents import (
    fits_head,
    kept_parts,
    left_out,
    source_channels,
    source_pool,
)
from plankton_jax.weights.converted import LoadedModel, convert, load_model, save
from plankton_jax.weights.files import read_safetensors
from plankton_jax.weights.likeness import explaining
from plankton_jax.weights.provenance import Provenance, WeightsInfo
from plankton_jax.weights.sources import Source, naming, open_source
from plankton_jax.weights.timm_names import from_timm, to_timm

__all__ = [
    "LoadedModel",
    "Provenance",
    "Source",
    "WeightsInfo",
    "convert",
    "explaining",
    "fits_head",
    "from_timm",
    "kept_parts",
    "left_out",
    "load_model",
    "naming",
    "open_source",
    "read_safetensors",
    "save",
    "source_channels",
    "source_pool",
    "to_timm",
]
