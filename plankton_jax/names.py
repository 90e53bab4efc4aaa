"""The names that a configuration may give, to check them before anything heavy is imported.

The registries of `plankton_jax.models` and `plankton_jax.heads` say what the names stand for; a
test holds both equal.
"""

UNLABELLED = "unlabelled"
"""Not a part of a split: the images of a data set that have no label."""

BRANCH_HEADS = ("add", "bacnn", "bcnn", "concat", "hbcnn", "sbacnn")
"""Heads with a branch for each level, which config.head describes."""

ATTENTION_HEADS = ("bacnn", "sbacnn")
"""Those of them whose branches hear each other by attention."""

HEADS = tuple(sorted(("auxiliary", "coherent", "linear", *BRANCH_HEADS)))

DECODERS = ("argmax", "routed", "oracle", "top_down", "leaf", "path", "risk")
"""Ways to predict nodes of all levels; see `plankton_jax.decoding`."""

DECODER_OF_HEAD = {"sbacnn": "routed", "coherent": "leaf"}
"""The one that a head is made for, where it is not "argmax"."""

TRACKERS = ("mlflow", "wandb")
"""Services that metrics can go to; see `plankton_jax.trackers`."""

BACKBONES = (
    "bcnn_base_b",
    "bcnn_base_c",
    "convnext_atto",
    "convnext_base",
    "convnext_large",
    "convnext_nano",
    "convnext_small",
    "convnext_tiny",
    "convnextv2_atto",
    "convnextv2_base",
    "convnextv2_nano",
    "convnextv2_tiny",
    "deit3_base_patch16_224",
    "deit3_large_patch16_224",
    "deit3_small_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit_base_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_tiny_patch16_224",
    "efficientnetv2_rw_s",
    "inception_v3",
    "inception_v4",
    "legacy_xception",
    "plankton_cnn_small",
    "plankton_cnn_tiny",
    "resnet101",
    "resnet10t",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet50d",
    "swin_base_patch4_window7_224",
    "swin_large_patch4_window7_224",
    "swin_s3_base_224",
    "swin_s3_small_224",
    "swin_s3_tiny_224",
    "swin_small_patch4_window7_224",
    "swin_tiny_patch4_window7_224",
    "test_vit",
    "tf_efficientnetv2_b0",
    "tf_efficientnetv2_l",
    "tf_efficientnetv2_m",
    "tf_efficientnetv2_s",
    "vit_base_patch14_dinov2",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch32_224",
    "vit_large_patch14_dinov2",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch32_224",
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
    "xception41",
)


def own_decoder(head: object) -> str:
    """The decoder of a head, by its name; of a user's own, every level by itself."""
    return DECODER_OF_HEAD.get(head, "argmax") if isinstance(head, str) else "argmax"
