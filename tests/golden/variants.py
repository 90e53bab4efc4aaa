"""The small networks whose outputs are stored, in this package's words and in timm's."""

import dataclasses
import functools
from typing import Any

import jax

from plankton_jax.models import Classifier, create_model
from plankton_jax.models.vit import VitConfig, build


@dataclasses.dataclass(frozen=True)
class VitVariant:
    """A small vision transformer: its shape, its input, and the size its weights were made for."""

    config: VitConfig
    image_size: int = 32
    weights_size: int = 32
    in_channels: int = 3
    num_classes: int = 7

    def model(self, image_size: int | None = None) -> Classifier:
        """This package's network, at the variant's image size or another."""
        return create_model(
            functools.partial(build, self.config),
            self.num_classes,
            image_size=image_size or self.image_size,
            in_channels=self.in_channels,
            key=jax.random.key(0),
        )

    def timm_options(self, image_size: int) -> dict[str, Any]:
        """What timm's VisionTransformer takes for the same network."""
        return {
            "img_size": image_size,
            "patch_size": self.config.patch_size,
            "in_chans": self.in_channels,
            "num_classes": self.num_classes,
            "global_pool": {"token": "token", "mean": "avg"}[self.config.pool],
            "embed_dim": self.config.width,
            "depth": self.config.depth,
            "num_heads": self.config.heads,
            "mlp_ratio": self.config.mlp_ratio,
            "init_values": self.config.layer_scale,
            "no_embed_class": not self.config.embed_prefix,
        }


BATCH = 3
_SMALL = VitConfig(width=48, heads=3, depth=2, patch_size=8)

VIT_VARIANTS = {
    "class_token": VitVariant(_SMALL),
    "mean_pool": VitVariant(dataclasses.replace(_SMALL, pool="mean"), in_channels=1),
    "distilled": VitVariant(dataclasses.replace(_SMALL, distilled=True)),
    "enlarged": VitVariant(_SMALL, image_size=48),
    "layer_scale": VitVariant(dataclasses.replace(_SMALL, layer_scale=1e-5), weights_size=40),
    "bare_prefix": VitVariant(
        dataclasses.replace(_SMALL, layer_scale=1e-6, embed_prefix=False), image_size=48
    ),
    "shrunk": VitVariant(dataclasses.replace(_SMALL, mlp_ratio=3.0), weights_size=72),
}
