"""The public weights that timm names, and what is said of them. Data, and light to import.

One line for each `name.tag`: licence (`-`: none is stated), classes of the head (0: no head), side
of the images, share of the shorter side that the central crop of evaluation keeps, interpolation
of its resize, mean and standard deviation. As in timm 1.0.31; a test compares them.
"""

import dataclasses

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Public weights of one architecture.

    Attributes:
      name: architecture and tag, as in timm.
      licence: SPDX identifier or name; "": none is stated.
      num_classes: of the head; 0: there is none.
      image_size, crop, interpolation, mean, std: as in `plankton_jax.models.ModelInfo`.
      url: of the weights that are not on the hub; "": they are, as `timm/<name>`.
    """

    name: str
    licence: str
    num_classes: int
    image_size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    url: str = ""

    @property
    def model(self) -> str:
        """The architecture's name."""
        return self.name.partition(".")[0]


_URLS = {
    "legacy_xception.tf_in1k": (
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"
        "xception-43020ad28.pth"
    )
}


def _read(table: str) -> dict[str, Pretrained]:
    """The lines of a table by name."""
    found = {}
    for line in table.strip().splitlines():
        name, licence, classes, size, crop, interpolation, statistics = line.split()
        found[name] = Pretrained(
            name,
            "" if licence == "-" else licence,
            int(classes),
            int(size),
            float(crop),
            interpolation,
            *STATISTICS[statistics],
            url=_URLS.get(name, ""),
        )
    return found


PRETRAINED = _read("""
vit_tiny_patch16_224.augreg_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_tiny_patch16_224.augreg_in21k apache-2.0 21843 224 0.9 bicubic half
vit_small_patch16_224.augreg_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_small_patch16_224.augreg_in1k apache-2.0 1000 224 0.9 bicubic half
vit_small_patch16_224.augreg_in21k apache-2.0 21843 224 0.9 bicubic half
vit_small_patch16_224.dino apache-2.0 0 224 0.9 bicubic imagenet
vit_base_patch16_224.augreg2_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_base_patch16_224.augreg_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_base_patch16_224.orig_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_base_patch16_224.augreg_in1k apache-2.0 1000 224 0.9 bicubic half
vit_base_patch16_224.orig_in21k apache-2.0 0 224 0.9 bicubic half
vit_base_patch16_224.augreg_in21k apache-2.0 21843 224 0.9 bicubic half
vit_base_patch16_224.sam_in1k apache-2.0 1000 224 0.9 bicubic half
vit_base_patch16_224.bamboo - 115217 224 1.0 bicubic clip
vit_base_patch16_224.dino apache-2.0 0 224 0.9 bicubic imagenet
vit_base_patch16_224.mae cc-by-nc-4.0 0 224 0.9 bicubic imagenet
vit_large_patch16_224.augreg_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_large_patch16_224.orig_in21k apache-2.0 0 224 0.9 bicubic half
vit_large_patch16_224.augreg_in21k apache-2.0 21843 224 0.9 bicubic half
vit_large_patch16_224.mae cc-by-nc-4.0 0 224 0.9 bicubic imagenet
vit_tiny_patch16_384.augreg_in21k_ft_in1k apache-2.0 1000 384 1.0 bicubic half
vit_small_patch16_384.augreg_in21k_ft_in1k apache-2.0 1000 384 1.0 bicubic half
vit_small_patch16_384.augreg_in1k apache-2.0 1000 384 1.0 bicubic half
vit_base_patch16_384.augreg_in21k_ft_in1k apache-2.0 1000 384 1.0 bicubic half
vit_base_patch16_384.orig_in21k_ft_in1k apache-2.0 1000 384 1.0 bicubic half
vit_base_patch16_384.augreg_in1k apache-2.0 1000 384 1.0 bicubic half
vit_large_patch16_384.augreg_in21k_ft_in1k apache-2.0 1000 384 1.0 bicubic half
vit_small_patch32_224.augreg_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_small_patch32_224.augreg_in21k apache-2.0 21843 224 0.9 bicubic half
vit_base_patch32_224.augreg_in21k_ft_in1k apache-2.0 1000 224 0.9 bicubic half
vit_base_patch32_224.augreg_in1k apache-2.0 1000 224 0.9 bicubic half
vit_base_patch32_224.orig_in21k apache-2.0 0 224 0.9 bicubic half
vit_base_patch32_224.augreg_in21k apache-2.0 21843 224 0.9 bicubic half
vit_base_patch32_224.sam_in1k apache-2.0 1000 224 0.9 bicubic half
deit_tiny_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit_small_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit_base_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit_tiny_distilled_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit_small_distilled_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit_base_distilled_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit3_small_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit3_small_patch16_224.fb_in22k_ft_in1k apache-2.0 1000 224 1.0 bicubic imagenet
deit3_base_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit3_base_patch16_224.fb_in22k_ft_in1k apache-2.0 1000 224 1.0 bicubic imagenet
deit3_large_patch16_224.fb_in1k apache-2.0 1000 224 0.9 bicubic imagenet
deit3_large_patch16_224.fb_in22k_ft_in1k apache-2.0 1000 224 1.0 bicubic imagenet
vit_small_patch14_dinov2.lvd142m apache-2.0 0 518 1.0 bicubic imagenet
vit_base_patch14_dinov2.lvd142m apache-2.0 0 518 1.0 bicubic imagenet
vit_large_patch14_dinov2.lvd142m apache-2.0 0 518 1.0 bicubic imagenet
test_vit.r160_in1k apache-2.0 1000 160 0.95 bicubic half
swin_tiny_patch4_window7_224.ms_in1k mit 1000 224 0.9 bicubic imagenet
swin_tiny_patch4_window7_224.ms_in22k_ft_in1k mit 1000 224 0.9 bicubic imagenet
swin_tiny_patch4_window7_224.ms_in22k mit 21841 224 0.9 bicubic imagenet
swin_small_patch4_window7_224.ms_in22k_ft_in1k mit 1000 224 0.9 bicubic imagenet
swin_small_patch4_window7_224.ms_in1k mit 1000 224 0.9 bicubic imagenet
swin_small_patch4_window7_224.ms_in22k mit 21841 224 0.9 bicubic imagenet
swin_base_patch4_window7_224.ms_in22k_ft_in1k mit 1000 224 0.9 bicubic imagenet
swin_base_patch4_window7_224.ms_in1k mit 1000 224 0.9 bicubic imagenet
swin_base_patch4_window7_224.ms_in22k mit 21841 224 0.9 bicubic imagenet
swin_large_patch4_window7_224.ms_in22k_ft_in1k mit 1000 224 0.9 bicubic imagenet
swin_large_patch4_window7_224.ms_in22k mit 21841 224 0.9 bicubic imagenet
swin_s3_tiny_224.ms_in1k mit 1000 224 0.9 bicubic imagenet
swin_s3_small_224.ms_in1k mit 1000 224 0.9 bicubic imagenet
swin_s3_base_224.ms_in1k mit 1000 224 0.9 bicubic imagenet
convnext_atto.d2_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_nano.in12k_ft_in1k apache-2.0 1000 224 0.95 bicubic imagenet
convnext_nano.d1h_in1k apache-2.0 1000 224 0.95 bicubic imagenet
convnext_nano.r384_in12k_ft_in1k apache-2.0 1000 384 1.0 bicubic imagenet
convnext_nano.in12k apache-2.0 11821 224 0.95 bicubic imagenet
convnext_nano.r384_in12k apache-2.0 11821 384 1.0 bicubic imagenet
convnext_nano.r384_ad_in12k apache-2.0 11821 384 1.0 bicubic imagenet
convnext_tiny.in12k_ft_in1k apache-2.0 1000 224 0.95 bicubic imagenet
convnext_tiny.in12k_ft_in1k_384 apache-2.0 1000 384 1.0 bicubic imagenet
convnext_tiny.in12k apache-2.0 11821 224 0.95 bicubic imagenet
convnext_tiny.fb_in22k_ft_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_tiny.fb_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_tiny.fb_in22k_ft_in1k_384 apache-2.0 1000 384 1.0 bicubic imagenet
convnext_tiny.fb_in22k apache-2.0 21841 224 0.875 bicubic imagenet
convnext_tiny.dinov3_lvd1689m dinov3-license 0 224 1.0 bicubic imagenet
convnext_tiny.eupe_lvd1689m fair-noncommercial-research-license 0 256 1.0 bicubic imagenet
convnext_small.in12k_ft_in1k apache-2.0 1000 224 0.95 bicubic imagenet
convnext_small.in12k_ft_in1k_384 apache-2.0 1000 384 1.0 bicubic imagenet
convnext_small.in12k apache-2.0 11821 224 0.95 bicubic imagenet
convnext_small.fb_in22k_ft_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_small.fb_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_small.fb_in22k_ft_in1k_384 apache-2.0 1000 384 1.0 bicubic imagenet
convnext_small.fb_in22k apache-2.0 21841 224 0.875 bicubic imagenet
convnext_small.dinov3_lvd1689m dinov3-license 0 224 1.0 bicubic imagenet
convnext_small.eupe_lvd1689m fair-noncommercial-research-license 0 256 1.0 bicubic imagenet
convnext_base.fb_in22k_ft_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_base.fb_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_base.fb_in22k_ft_in1k_384 apache-2.0 1000 384 1.0 bicubic imagenet
convnext_base.fb_in22k apache-2.0 21841 224 0.875 bicubic imagenet
convnext_base.clip_laion2b_augreg_ft_in12k_in1k apache-2.0 1000 256 1.0 bicubic clip
convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384 apache-2.0 1000 384 1.0 bicubic clip
convnext_base.clip_laion2b_augreg_ft_in1k apache-2.0 1000 256 1.0 bicubic clip
convnext_base.clip_laiona_augreg_ft_in1k_384 apache-2.0 1000 384 1.0 bicubic clip
convnext_base.clip_laion2b_augreg_ft_in12k apache-2.0 11821 256 1.0 bicubic clip
convnext_base.clip_laion2b apache-2.0 640 256 1.0 bicubic clip
convnext_base.clip_laion2b_augreg apache-2.0 640 256 1.0 bicubic clip
convnext_base.clip_laiona apache-2.0 640 256 1.0 bicubic clip
convnext_base.clip_laiona_320 apache-2.0 640 320 1.0 bicubic clip
convnext_base.clip_laiona_augreg_320 apache-2.0 640 320 1.0 bicubic clip
convnext_base.dinov3_lvd1689m dinov3-license 0 224 1.0 bicubic imagenet
convnext_base.eupe_lvd1689m fair-noncommercial-research-license 0 256 1.0 bicubic imagenet
convnext_large.fb_in22k_ft_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_large.fb_in1k apache-2.0 1000 224 0.875 bicubic imagenet
convnext_large.fb_in22k_ft_in1k_384 apache-2.0 1000 384 1.0 bicubic imagenet
convnext_large.fb_in22k apache-2.0 21841 224 0.875 bicubic imagenet
convnext_large.dinov3_lvd1689m dinov3-license 0 224 1.0 bicubic imagenet
convnextv2_atto.fcmae_ft_in1k cc-by-nc-4.0 1000 224 0.875 bicubic imagenet
convnextv2_atto.fcmae cc-by-nc-4.0 0 224 0.875 bicubic imagenet
convnextv2_nano.fcmae_ft_in22k_in1k cc-by-nc-4.0 1000 224 0.875 bicubic imagenet
convnextv2_nano.fcmae_ft_in22k_in1k_384 cc-by-nc-4.0 1000 384 1.0 bicubic imagenet
convnextv2_nano.fcmae_ft_in1k cc-by-nc-4.0 1000 224 0.875 bicubic imagenet
convnextv2_nano.fcmae cc-by-nc-4.0 0 224 0.875 bicubic imagenet
convnextv2_tiny.fcmae_ft_in22k_in1k cc-by-nc-4.0 1000 224 0.875 bicubic imagenet
convnextv2_tiny.fcmae_ft_in22k_in1k_384 cc-by-nc-4.0 1000 384 1.0 bicubic imagenet
convnextv2_tiny.fcmae_ft_in1k cc-by-nc-4.0 1000 224 0.875 bicubic imagenet
convnextv2_tiny.fcmae cc-by-nc-4.0 0 224 0.875 bicubic imagenet
convnextv2_base.fcmae_ft_in22k_in1k cc-by-nc-4.0 1000 224 0.875 bicubic imagenet
convnextv2_base.fcmae_ft_in22k_in1k_384 cc-by-nc-4.0 1000 384 1.0 bicubic imagenet
convnextv2_base.fcmae_ft_in1k cc-by-nc-4.0 1000 224 0.875 bicubic imagenet
convnextv2_base.fcmae cc-by-nc-4.0 0 224 0.875 bicubic imagenet
tf_efficientnetv2_s.in21k_ft_in1k apache-2.0 1000 300 1.0 bicubic half
tf_efficientnetv2_s.in1k apache-2.0 1000 300 1.0 bicubic half
tf_efficientnetv2_s.in21k apache-2.0 21843 300 1.0 bicubic half
tf_efficientnetv2_m.in21k_ft_in1k apache-2.0 1000 384 1.0 bicubic half
tf_efficientnetv2_m.in1k apache-2.0 1000 384 1.0 bicubic half
tf_efficientnetv2_m.in21k apache-2.0 21843 384 1.0 bicubic half
tf_efficientnetv2_l.in21k_ft_in1k apache-2.0 1000 384 1.0 bicubic half
tf_efficientnetv2_l.in1k apache-2.0 1000 384 1.0 bicubic half
tf_efficientnetv2_l.in21k apache-2.0 21843 384 1.0 bicubic half
tf_efficientnetv2_b0.in1k apache-2.0 1000 192 0.875 bicubic imagenet
efficientnetv2_rw_s.ra2_in1k apache-2.0 1000 288 1.0 bicubic imagenet
legacy_xception.tf_in1k apache-2.0 1000 299 0.8975 bicubic half
xception41.tf_in1k apache-2.0 1000 299 0.903 bicubic half
inception_v3.tv_in1k apache-2.0 1000 299 0.875 bicubic half
inception_v3.tf_in1k apache-2.0 1000 299 0.875 bicubic half
inception_v3.tf_adv_in1k apache-2.0 1000 299 0.875 bicubic half
inception_v3.gluon_in1k apache-2.0 1000 299 0.875 bicubic imagenet
inception_v4.tf_in1k apache-2.0 1000 299 0.875 bicubic half
resnet10t.c3_in1k apache-2.0 1000 176 0.875 bicubic imagenet
resnet18.a1_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet18.a2_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet18.a3_in1k apache-2.0 1000 160 0.95 bicubic imagenet
resnet18.tv_in1k bsd-3-clause 1000 224 0.875 bilinear imagenet
resnet18.fb_ssl_yfcc100m_ft_in1k cc-by-nc-4.0 1000 224 0.875 bilinear imagenet
resnet18.fb_swsl_ig1b_ft_in1k cc-by-nc-4.0 1000 224 0.875 bilinear imagenet
resnet18.gluon_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet34.a1_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet34.a2_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet34.a3_in1k apache-2.0 1000 160 0.95 bicubic imagenet
resnet34.bt_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet34.ra4_e3600_r224_in1k apache-2.0 1000 224 0.9 bicubic half
resnet34.tv_in1k bsd-3-clause 1000 224 0.875 bilinear imagenet
resnet34.gluon_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet50.a1_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50.a1h_in1k apache-2.0 1000 176 0.9 bicubic imagenet
resnet50.a2_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50.a3_in1k apache-2.0 1000 160 0.95 bicubic imagenet
resnet50.b1k_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50.b2k_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50.c1_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50.c2_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50.d_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50.ram_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet50.am_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet50.ra_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet50.bt_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet50.tv_in1k bsd-3-clause 1000 224 0.875 bilinear imagenet
resnet50.tv2_in1k bsd-3-clause 1000 176 0.875 bilinear imagenet
resnet50.bamboo - 0 224 1.0 bicubic imagenet
resnet50.fb_ssl_yfcc100m_ft_in1k cc-by-nc-4.0 1000 224 0.875 bilinear imagenet
resnet50.fb_swsl_ig1b_ft_in1k cc-by-nc-4.0 1000 224 0.875 bilinear imagenet
resnet50.gluon_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet101.a1h_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet101.a1_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet101.a2_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet101.a3_in1k apache-2.0 1000 160 0.95 bicubic imagenet
resnet101.tv_in1k bsd-3-clause 1000 224 0.875 bilinear imagenet
resnet101.tv2_in1k bsd-3-clause 1000 176 0.875 bilinear imagenet
resnet101.gluon_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet50d.ra2_in1k apache-2.0 1000 224 0.875 bicubic imagenet
resnet50d.ra4_e3600_r224_in1k apache-2.0 1000 224 0.95 bicubic half
resnet50d.a1_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50d.a2_in1k apache-2.0 1000 224 0.95 bicubic imagenet
resnet50d.a3_in1k apache-2.0 1000 160 0.95 bicubic imagenet
resnet50d.gluon_in1k apache-2.0 1000 224 0.875 bicubic imagenet
""")
