"""The names that a configuration may give, to check them before anything heavy is imported.

The registries of `plankton_jax.models` and `plankton_jax.heads` say what the names stand for; a
test holds both equal.
"""

HEADS = ("auxiliary", "linear")

BACKBONES = (
    "bcnn_base_b",
    "bcnn_base_c",
    "deit3_base_patch16_224",
    "deit3_large_patch16_224",
    "deit3_small_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit_base_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_tiny_patch16_224",
    "inception_v3",
    "inception_v4",
    "legacy_xception",
    "plankton_cnn_small",
    "plankton_cnn_tiny",
    "swin_base_patch4_window7_224",
    "swin_large_patch4_window7_224",
    "swin_s3_base_224",
    "swin_s3_small_224",
    "swin_s3_tiny_224",
    "swin_small_patch4_window7_224",
    "swin_tiny_patch4_window7_224",
    "test_vit",
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
