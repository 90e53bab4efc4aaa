"""Files of weights converted both ways, and networks from converted files."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from weights_support import equal, networks, random_state_dict, write

from plankton_jax.errors import UserError
from plankton_jax.models import create_model, get_info, join_model, split_model
from plankton_jax.weights import (
    convert,
    from_timm,
    load_model,
    open_source,
    read_safetensors,
    save,
)
from plankton_jax.weights.provenance import OURS, WeightsInfo

KEY = jax.random.key(0)


def _convert(path, out, name="test_vit", *, to="plankton_jax", tag="", **options):
    """Converts a file as the command does; returns what it says on the way."""
    told = []
    source = open_source(str(path), "no cache", architecture=get_info(name), tag=tag)
    save(out, convert(source, get_info(name), notify=told.append, **options), to=to)
    return told


@pytest.mark.parametrize("name", networks())
def test_there_and_back_is_bit_exact(name, tmp_path):
    source = random_state_dict(name)
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    assert _convert(write(tmp_path / "timm.safetensors", source), ours, name) == []
    assert not read_safetensors(ours).keys() & source.keys()
    assert _convert(ours, back, name, to="timm") == []
    assert equal(read_safetensors(back), source)
    again = tmp_path / "again.safetensors"
    _convert(back, again, name)
    assert again.read_bytes() == ours.read_bytes()


def test_a_loaded_network_gives_the_logits_of_the_one_it_was(tmp_path):
    source = random_state_dict("test_vit")
    path = write(tmp_path / "timm.safetensors", source)
    told = _convert(path, tmp_path / "x.safetensors", image_size=64)
    assert told == ["made to fit 64 pixels and 3 channels: pos_embed"]
    loaded = load_model(tmp_path / "x.safetensors")
    expected = create_model("test_vit", 5, image_size=64, key=KEY)
    expected = join_model(split_model(expected)[0], *from_timm(source, expected))
    images = jax.random.normal(KEY, (2, 64, 64, 3))
    np.testing.assert_allclose(loaded(images), expected(images)[0], atol=1e-5)
    (last,) = loaded.features(images, indices=1).stages
    np.testing.assert_allclose(last, expected.features(images, indices=[-1]).stages[0], atol=1e-5)
    found = loaded.features(np.asarray(images), indices=[0, -1])
    wanted = expected.features(images, indices=[0, -1])
    assert len(found.stages) == 2
    np.testing.assert_allclose(found.stages[1], wanted.stages[1], atol=1e-5)
    np.testing.assert_allclose(found.pooled, wanted.pooled, atol=1e-5)
    np.testing.assert_allclose(
        loaded.features(images, indices=[-1], norm=True).stages[0],
        expected.features(images, indices=[-1], norm=True).stages[0],
        atol=1e-5,
    )
    classifier = loaded.classifier
    np.testing.assert_allclose(classifier(images)[0], loaded(images), atol=1e-5)
    assert (classifier.backbone.strides, classifier.backbone.stage_dims) == ((16,) * 6, (64,) * 6)
    with pytest.raises(UserError, match="64"):
        loaded(images[:, :32, :32])


def test_weights_that_pool_the_mean_stay_so(tmp_path):
    source = random_state_dict("test_vit", pool="mean")
    assert "fc_norm.weight" in source and "norm.weight" not in source
    path = write(tmp_path / "timm.safetensors", source)
    told = _convert(path, tmp_path / "x.safetensors")
    assert told == ['it pools the mean of its patches, as timm does with global_pool="avg"']
    _convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", to="timm")
    assert equal(read_safetensors(tmp_path / "y.safetensors"), source)
    loaded = load_model(tmp_path / "x.safetensors")
    images = jax.random.normal(KEY, (2, 160, 160, 3))
    patches = np.asarray(loaded.features(images).tokens)[:, 1:].mean(axis=1)
    pooled = (patches - patches.mean(-1, keepdims=True)) / patches.std(-1, keepdims=True)
    pooled = pooled * source["fc_norm.weight"] + source["fc_norm.bias"]
    expected = pooled @ source["head.weight"].T + source["head.bias"]
    np.testing.assert_allclose(loaded(images), expected, atol=1e-5)


def test_a_converted_file_says_where_it_comes_from(tmp_path):
    path = write(tmp_path / "timm.safetensors", random_state_dict("test_vit"))
    _convert(path, tmp_path / "x.safetensors", tag="test_vit.r160_in1k")
    _convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", to="timm")
    for file in ("x", "y"):
        with safetensors.safe_open(tmp_path / f"{file}.safetensors", "np") as opened:
            info = WeightsInfo.from_metadata(opened.metadata())
        assert (info.model, info.num_classes, info.image_size) == ("test_vit", 5, 160)
        origin = info.provenance
        assert origin.source == str(path) and len(origin.sha256) == 64
        assert (origin.licence, origin.mean, origin.crop) == ("apache-2.0", (0.5,) * 3, 0.95)
    assert load_model(tmp_path / "x.safetensors").info == dataclasses.replace(info, names=OURS)


@pytest.mark.parametrize("way", ["headless source", "left out"])
def test_without_a_head_there_are_features_and_no_logits(tmp_path, way):
    source = random_state_dict("test_vit")
    if way == "headless source":
        source = {name: v for name, v in source.items() if not name.startswith("head")}
        told = _convert(write(tmp_path / "t.safetensors", source), tmp_path / "x.safetensors")
        assert "has no head" in told[0]
    else:
        path = write(tmp_path / "t.safetensors", source)
        _convert(path, tmp_path / "x.safetensors", with_head=False, image_size=32)
    loaded = load_model(tmp_path / "x.safetensors")
    size = loaded.info.image_size
    with pytest.raises(UserError, match="no head"):
        loaded(np.zeros((1, size, size, 3), np.float32))
    assert loaded.features(np.zeros((1, size, size, 3), np.float32)).pooled.shape == (1, 64)
    _convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", to="timm", image_size=160)
    assert not any(name.startswith("head") for name in read_safetensors(tmp_path / "y.safetensors"))


def test_old_names_of_swin_are_understood(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    source = random_state_dict(name)
    old = {"layers.0.blocks.1.attn_mask": np.zeros((64, 49, 49), np.float32)}
    for key, value in source.items():
        parts = key.replace("head.fc.", "head.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        old["model." + ".".join(parts)] = value
    _convert(write(tmp_path / "new.safetensors", source), tmp_path / "x.safetensors", name)
    told = _convert(write(tmp_path / "old.safetensors", old), tmp_path / "y.safetensors", name)
    assert told == []
    found = read_safetensors(tmp_path / "y.safetensors")
    assert equal(found, read_safetensors(tmp_path / "x.safetensors"))


def test_the_layer_before_the_head_of_old_vits_is_left_out(tmp_path):
    source = random_state_dict("test_vit")
    old = source | {
        "pre_logits.fc.weight": np.ones((64, 64), np.float32),
        "pre_logits.fc.bias": np.ones(64, np.float32),
    }
    told = _convert(write(tmp_path / "old.safetensors", old), tmp_path / "x.safetensors")
    assert sorted(told[0].removeprefix("left out: ").split(", ")) == sorted(old.keys() - source)
    _convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", to="timm")
    assert equal(read_safetensors(tmp_path / "y.safetensors"), source)


def test_an_auxiliary_classifier_is_left_out_and_batch_counts_are_not_told(tmp_path):
    auxiliary = {"AuxLogits.conv0.conv.weight": np.ones((128, 768, 1, 1), np.float32),
                 "AuxLogits.conv0.bn.weight": np.ones(128, np.float32),
                 "AuxLogits.fc.bias": np.ones(5, np.float32)}  # fmt: skip
    source = random_state_dict("inception_v3") | auxiliary
    source |= {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(3),
               "AuxLogits.conv0.bn.num_batches_tracked": np.array(3)}  # fmt: skip
    path = write(tmp_path / "t.safetensors", source)
    (told,) = _convert(path, tmp_path / "x.safetensors", "inception_v3")
    assert sorted(told.removeprefix("left out: ").split(", ")) == sorted(auxiliary)


def test_pretraining_without_labels_leaves_the_last_norm_as_it_starts(tmp_path):
    source = random_state_dict("convnextv2_atto")
    bare = {key: value for key, value in source.items() if not key.startswith("head.")}
    path = write(tmp_path / "convnextv2_atto.fcmae.safetensors", bare)
    told = _convert(path, tmp_path / "x.safetensors", "convnextv2_atto")
    assert told[1:] == ["not in the source, so with initial values: backbone/norm"]
    norm = load_model(tmp_path / "x.safetensors").params["backbone"]["norm"]
    assert np.array_equal(norm["scale"], np.ones(320)) and not norm["bias"].any()
    for part in ("head.norm.bias", "head.fc.bias"):
        partly = write(tmp_path / "partly.safetensors", bare | {part: source[part]})
        with pytest.raises(UserError, match="does not fill: backbone/norm/"):
            _convert(partly, tmp_path / "y.safetensors", "convnextv2_atto", with_head=False)


@pytest.mark.parametrize(
    ("name", "head", "other"),
    [
        ("resnet10t", "fc", "last_linear"),
        ("inception_v3", "fc", "last_linear"),
        ("inception_v4", "last_linear", "fc"),
        ("legacy_xception", "fc", "last_linear"),
    ],
)
def test_the_heads_name_in_older_files_is_understood(tmp_path, name, head, other):
    source = random_state_dict(name)
    old = dict(source)
    for part in ("weight", "bias"):
        old[f"{other}.{part}"] = old.pop(f"{head}.{part}")
    path = write(tmp_path / "old.safetensors", old)
    assert _convert(path, tmp_path / "x.safetensors", name, to="timm") == []
    assert equal(read_safetensors(tmp_path / "x.safetensors"), source)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    source = {n: v.astype(dtype) for n, v in random_state_dict("test_vit").items()}
    _convert(write(tmp_path / "t.safetensors", source), tmp_path / "x.safetensors", to="timm")
    expected = {name: value.astype(np.float32) for name, value in source.items()}
    assert equal(read_safetensors(tmp_path / "x.safetensors"), expected)


def test_grey_images_are_kept_or_made(tmp_path):
    path = write(tmp_path / "t.safetensors", random_state_dict("test_vit"))
    told = _convert(path, tmp_path / "grey.safetensors", in_channels=1)
    assert "patch_embed.proj.weight" in told[0]
    assert _convert(tmp_path / "grey.safetensors", tmp_path / "back.safetensors", to="timm") == []
    shape = read_safetensors(tmp_path / "back.safetensors")["patch_embed.proj.weight"].shape
    assert shape == (64, 1, 16, 16)
    loaded, architecture = load_model(tmp_path / "grey.safetensors"), get_info("test_vit")
    statistics = loaded.info.provenance.mean, loaded.info.provenance.std
    assert statistics == ((np.mean(architecture.mean),), (np.mean(architecture.std),))
    with pytest.raises(UserError, match="built for 1 channels and was given 3"):
        loaded(np.zeros((1, 160, 160, 3), np.float32))


def test_values_that_are_not_finite_are_named(tmp_path):
    source = random_state_dict("test_vit")
    source["norm.bias"][3] = np.nan
    source["cls_token"][:] = np.inf
    source["head.bias"] = np.array([0.0, 1e300, -1e300, 1.0, 2.0])
    path = write(tmp_path / "t.safetensors", source)
    with pytest.raises(UserError) as error:
        _convert(path, tmp_path / "x.safetensors")
    assert set(error.value.problems) == {
        f"{path}: norm.bias: 1 of 64 values are NaN or infinite.",
        f"{path}: cls_token: 64 of 64 values are NaN or infinite.",
        f"{path}: head.bias: 2 of 5 values are NaN or infinite.",
    }
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "kept", "missing"),
    [
        ("test_vit", {"head.weight"}, "head/linear/bias"),
        ("test_vit", {"head.bias"}, "head/linear/kernel"),
        (
            "deit_tiny_distilled_patch16_224",
            {"head_dist.weight", "head_dist.bias"},
            "head/linear/bias, head/linear/kernel",
        ),
        ("swin_tiny_patch4_window7_224", {"head.fc.weight"}, "head/linear/bias"),
    ],
)
def test_a_part_of_a_head_is_no_file_without_one(tmp_path, name, kept, missing):
    source = random_state_dict(name)
    part = {n: v for n, v in source.items() if not n.startswith("head") or n in kept}
    path = write(tmp_path / "t.safetensors", part)
    with pytest.raises(UserError, match=f"the source does not fill: {missing}\\."):
        _convert(path, tmp_path / "x.safetensors", name)
    told = _convert(path, tmp_path / "x.safetensors", name, with_head=False)
    assert told == [] and load_model(tmp_path / "x.safetensors").info.num_classes == 0


def test_weights_of_another_network_are_refused(tmp_path):
    path = write(tmp_path / "t.safetensors", random_state_dict("test_vit"))
    _convert(path, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="weights of test_vit; wanted: those of deit_tiny"):
        _convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "deit_tiny_patch16_224")
    with pytest.raises(UserError, match="weights of test_vit; wanted"):
        _convert(path, tmp_path / "y", "deit_tiny_patch16_224", tag="test_vit.r160_in1k")
    with pytest.raises(UserError, match="norm.bias has shape"):
        _convert(path, tmp_path / "y.safetensors", "deit_tiny_patch16_224")


def test_files_that_are_not_converted_or_damaged_are_refused(tmp_path):
    path = write(tmp_path / "t.safetensors", random_state_dict("test_vit"))
    with pytest.raises(UserError, match=f"{path}: not a converted file.*--checkpoint {path}"):
        load_model(path)
    _convert(path, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.safetensors cannot be read: cut short"):
        load_model(tmp_path / "cut.safetensors")
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        metadata = file.metadata()
    arrays = read_safetensors(tmp_path / "x.safetensors")
    arrays["extra"] = arrays.pop("backbone/cls_token")
    safetensors.numpy.save_file(arrays, tmp_path / "z.safetensors", metadata)
    with pytest.raises(UserError, match="z.safetensors: .* no place for: extra"):
        load_model(tmp_path / "z.safetensors")
    del arrays["extra"]
    safetensors.numpy.save_file(arrays, tmp_path / "z.safetensors", metadata)
    with pytest.raises(UserError, match="backbone/cls_token should have shape"):
        load_model(tmp_path / "z.safetensors")
    arrays["backbone/cls_token"] = np.full((1, 1, 64), np.nan, np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "z.safetensors", metadata)
    with pytest.raises(UserError, match="z.safetensors: backbone/cls_token: 64 of 64 values are N"):
        load_model(tmp_path / "z.safetensors")
    safetensors.numpy.save_file(arrays, tmp_path / "z.safetensors", {"plankton_jax": "{}"})
    with pytest.raises(UserError, match="Convert the source anew"):
        load_model(tmp_path / "z.safetensors")
