"""The names that a configuration may give, to check them before anything heavy is imported.

The registries of `plankton_jax.models` and `plankton_jax.heads` say what the names stand for; a
test holds both equal.
"""

HEADS = ("linear",)

BACKBONES = (
    "deit_base_distilled_patch16_224",
    "deit_base_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_tiny_patch16_224",
    "plankton_cnn_small",
    "plankton_cnn_tiny",
    "test_vit",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch32_224",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch32_224",
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
)
