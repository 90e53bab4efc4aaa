"""What timm says of its public weights, and files that torch and timm write and read."""

import argparse
import functools

import numpy as np
import pytest

pytestmark = pytest.mark.parity
timm_support = pytest.importorskip("timm_support", reason="torch and timm are not installed")
from golden.weights import random_images  # noqa: E402
from timm.models import get_arch_pretrained_cfgs  # noqa: E402
from timm_support import timm, torch  # noqa: E402
from weights_support import equal, networks, random_state_dict, write  # noqa: E402

from plankton_jax.errors import UserError  # noqa: E402
from plankton_jax.models import get_info, list_models  # noqa: E402
from plankton_jax.pretrained import PRETRAINED  # noqa: E402
from plankton_jax.weights import (  # noqa: E402
    convert,
    load_model,
    open_source,
    read_safetensors,
    save,
)

PUBLIC = [name for name in list_models() if get_info(name).timm_name]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_weights_are_those_of_timm(name):
    expected = get_arch_pretrained_cfgs(name)
    known = {tag: record for tag, record in PRETRAINED.items() if record.model == name}
    assert known.keys() == expected.keys()
    for tag, record in known.items():
        theirs = expected[tag]
        assert record.licence == (theirs.license or "")
        assert record.num_classes == theirs.num_classes
        assert (3, record.image_size, record.image_size) == theirs.input_size
        assert (record.mean, record.std) == (theirs.mean, theirs.std)
        assert (record.crop, record.interpolation) == (theirs.crop_pct, theirs.interpolation)
        assert (theirs.hf_hub_id, record.url) in ((f"timm/{tag}", ""), (None, theirs.url))
    info = get_info(name)
    default = PRETRAINED[info.timm_name]
    for field in ("mean", "std", "image_size", "crop", "interpolation"):
        assert getattr(info, field) == getattr(default, field), field


def _convert(path, out, name="test_vit", to="timm", **options):
    source = open_source(str(path), "no cache", architecture=get_info(name))
    save(out, convert(source, get_info(name), **options), to=to)
    return read_safetensors(out)


@pytest.mark.parametrize("name", networks())
def test_timm_loads_what_is_converted_back(name, tmp_path):
    model = timm.create_model(name, num_classes=5)
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, tmp_path / "timm.pth")
    _convert(tmp_path / "timm.pth", tmp_path / "ours.safetensors", name, to="plankton_jax")
    back = _convert(tmp_path / "ours.safetensors", tmp_path / "back.safetensors", name)
    expected = {key: value.numpy() for key, value in model.state_dict().items()}
    counts = {key for key in expected if key.endswith("num_batches_tracked")}
    assert equal(back, {key: expected[key] for key in expected.keys() - counts})
    other = timm.create_model(name, num_classes=5)
    other.load_state_dict({key: torch.from_numpy(v) for key, v in back.items()}, strict=True)
    headless = timm.create_model(name, num_classes=0)
    path = tmp_path / "headless.safetensors"
    _convert(tmp_path / "ours.safetensors", path, name, with_head=False)
    timm.models.load_checkpoint(headless, str(path), strict=True)


def test_a_network_that_pools_the_mean_gives_timms_logits(tmp_path):
    model = timm.create_model("test_vit", num_classes=5, global_pool="avg").eval()
    source = random_state_dict("test_vit", pool="mean")
    tensors = {key: torch.from_numpy(value) for key, value in source.items()}
    model.load_state_dict(tensors, strict=True)
    path = write(tmp_path / "timm.safetensors", source)
    _convert(path, tmp_path / "ours.safetensors", to="plankton_jax")
    images = random_images("mean", 2, 160)
    with torch.no_grad():
        expected = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = load_model(tmp_path / "ours.safetensors")(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_old_names_of_swin_mean_what_they_mean_to_timm(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    old = {}
    for key, value in random_state_dict(name).items():
        parts = key.replace("head.fc.", "head.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        old[".".join(parts)] = value
    model = timm.create_model(name, num_classes=5)
    tensors = {key: torch.from_numpy(value) for key, value in old.items()}
    expected = timm.models.swin_transformer.checkpoint_filter_fn(tensors, model)
    found = _convert(write(tmp_path / "old.safetensors", old), tmp_path / "x.safetensors", name)
    assert equal(found, {key: value.numpy() for key, value in expected.items()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("old_format", [False, True])
def test_torch_files_are_read(tmp_path, dtype, old_format):
    tensors = {k: torch.from_numpy(v).to(dtype) for k, v in random_state_dict("test_vit").items()}
    checkpoint = {
        "state_dict": {f"model.{key}": value for key, value in tensors.items()},
        "hyper_parameters": {"lr": 0.1},
        "args": argparse.Namespace(epochs=3),
    }
    save_file = functools.partial(torch.save, _use_new_zipfile_serialization=not old_format)
    save_file(checkpoint, tmp_path / "w.ckpt")
    found = _convert(tmp_path / "w.ckpt", tmp_path / "x.safetensors")
    assert equal(found, {key: value.float().numpy() for key, value in tensors.items()})


class Evil:
    """Pickles as a call."""

    def __reduce__(self):
        return print, ("code of the file runs",)


def test_a_file_that_holds_code_is_refused(tmp_path, capsys):
    checkpoint = {"state_dict": {}, "extra": Evil()}
    torch.save(checkpoint, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="evil.pth: refused: .*print.* could run code"):
        _convert(tmp_path / "evil.pth", tmp_path / "x.safetensors")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UserError, match="module.pt: refused: .*Linear"):
        _convert(tmp_path / "module.pt", tmp_path / "x.safetensors")
    assert "code of the file runs" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_damaged_and_odd_torch_files_are_named(tmp_path):
    tensors = {k: torch.from_numpy(v) for k, v in random_state_dict("test_vit").items()}
    torch.save(tensors, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.pth: cannot be read: cut short"):
        _convert(tmp_path / "cut.pth", tmp_path / "x.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="list.pth: found list; allowed: a state dict"):
        _convert(tmp_path / "list.pth", tmp_path / "x.safetensors")
    torch.save(tensors | {"epoch": 3}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="odd.pth: entries that are no arrays: epoch"):
        _convert(tmp_path / "odd.pth", tmp_path / "x.safetensors")
    torch.save({"norm.bias": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(UserError, match="sparse.pth: quantised or sparse"):
        _convert(tmp_path / "sparse.pth", tmp_path / "x.safetensors")
    bias = tensors["norm.bias"]
    for name, changed, told in (
        ("meta", {"norm.bias": bias.to("meta")}, "norm.bias is a tensor without values"),
        ("float8", {"norm.bias": bias.to(torch.float8_e4m3fn)}, "norm.bias .*float8_e4m3fn"),
        ("complex", {"norm.bias": bias.to(torch.complex64)}, "norm.bias: found complex numbers"),
        ("numbered", {0: bias}, "keys that are no names: 0; allowed: a state dict"),
    ):
        torch.save(tensors | changed, tmp_path / f"{name}.pth")
        with pytest.raises(UserError, match=f"{name}.pth: {told}"):
            _convert(tmp_path / f"{name}.pth", tmp_path / "x.safetensors")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "j.pt")
    with pytest.raises(UserError, match="j.pt: a TorchScript archive.*state_dict"):
        _convert(tmp_path / "j.pt", tmp_path / "x.safetensors")
    assert np.array_equal(
        _convert(tmp_path / "whole.pth", tmp_path / "x.safetensors")["norm.bias"],
        tensors["norm.bias"].numpy(),
    )
