"""Networks: backbones by name, and the classifier that a backbone and a head make.

`create_model` builds; `split_model` turns the result into plain nested dicts and a description
that `apply` runs under `jax.jit`. Pure: no files, no globals but the table of names.
"""

from plankton_jax.models import branch_bases as _branch_bases
from plankton_jax.models import convnet as _convnet
from plankton_jax.models import convnext as _convnext
from plankton_jax.models import efficientnet as _efficientnet
from plankton_jax.models import inception_v3 as _inception_v3
from plankton_jax.models import inception_v4 as _inception_v4
from plankton_jax.models import resnet as _resnet
from plankton_jax.models import swin as _swin
from plankton_jax.models import vit as _vit
from plankton_jax.models import xception as _xception
from plankton_jax.models import xception_aligned as _xception_aligned
from plankton_jax.models._registry import ModelEntry, ModelInfo, get_info, list_models, register
from plankton_jax.models.classifier import Classifier, create_model
from plankton_jax.models.features import Features
from plankton_jax.models.functional import (
    apply,
    apply_features,
    flatten_paths,
    join_model,
    split_model,
    unflatten_paths,
)

__all__ = [
    "Classifier",
    "Features",
    "ModelEntry",
    "ModelInfo",
    "apply",
    "apply_features",
    "create_model",
    "flatten_paths",
    "get_info",
    "join_model",
    "list_models",
    "register",
    "split_model",
    "unflatten_paths",
]

del _branch_bases, _convnet, _convnext, _efficientnet, _inception_v3, _inception_v4, _resnet
del _swin, _vit, _xception, _xception_aligned
