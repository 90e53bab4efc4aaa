"""What a run takes from the weights it starts from: their values and their normalisation."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from weights_support import random_state_dict, write

from plankton_jax import experiment, initial_weights, run_directory, weights
from plankton_jax.command import config_to_json
from plankton_jax.config import Config
from plankton_jax.errors import UserError
from plankton_jax.models import flatten_paths, get_info, inception_v3
from plankton_jax.taxonomy import Taxonomy

DATA = {"mean": 0.9, "std": 0.1}
TREE = Taxonomy.flat(tuple("abcde"))


def _config(**model):
    config = Config()
    config.model.name, config.data.image_size, config.model.in_channels = "test_vit", 32, 3
    config.data.normalisation = "backbone"
    for name, value in model.items():
        setattr(config.model, name, str(value))
    return config


def _network(config, **options):
    told = []
    network = experiment.make_network(config, DATA, TREE, notify=told.append, **options)
    return network, told


@pytest.fixture
def files(tmp_path):
    """The same weights in timm's names, converted, and in the cache."""
    name = "test_vit.r160_in1k"
    write(tmp_path / f"{name}.safetensors", random_state_dict("test_vit"))
    info = get_info("test_vit")
    path = str(tmp_path / f"{name}.safetensors")
    source = weights.open_source(path, "", architecture=info, tag=name)
    weights.save(tmp_path / "converted.safetensors", weights.convert(source, info))
    return tmp_path


def test_a_file_a_converted_one_and_a_name_start_a_run_alike(files):
    name = "test_vit.r160_in1k"
    starts = [
        _config(initial_weights=files / f"{name}.safetensors"),
        _config(initial_weights=files / "converted.safetensors"),
        _config(pretrained=name, weights_cache=files),
    ]
    networks, told = zip(*map(_network, starts), strict=True)
    first = flatten_paths(networks[0].params)
    drawn = flatten_paths(_network(_config())[0].params)
    assert not any(np.array_equal(first[path], drawn[path]) for path in first)
    for network in networks[1:]:
        assert jax.tree.all(jax.tree.map(np.array_equal, network.params, networks[0].params))
    assert [origin.licence for origin in (n.provenance for n in networks)] == [
        "",
        "apache-2.0",
        "apache-2.0",
    ]
    assert all("licence of the weights" in lines[0] for lines in told)
    assert [len(lines) for lines in told] == [1, 2, 2]
    assert all(
        lines[1].endswith("these weights are made for config.data.image_size=160 (found 32)")
        for lines in told[1:]
    )


def test_what_weights_are_made_for_is_told(files, tmp_path):
    path = files / "converted.safetensors"
    config = _config(initial_weights=path)
    config.data.normalisation, config.model.in_channels = "dataset", 1
    assert _network(config)[1][1] == (
        f"{path}: these weights are made for config.data.image_size=160 (found 32), "
        "config.data.normalisation=backbone (found dataset), config.model.in_channels=3 (found 1)"
    )
    mean = write(tmp_path / "mean.safetensors", random_state_dict("test_vit", pool="mean"))
    _, told = _network(_config(initial_weights=mean))
    assert told[1:] == [f"{mean}: these weights are made for config.model.pool=mean (found token)"]
    assert len(_network(_config(initial_weights=mean, pool="mean"))[1]) == 1
    dropped = _with(tmp_path, {"mask_token": np.zeros((1, 64), np.float32)})
    assert _network(_config(initial_weights=dropped))[1][1:] == [f"{dropped}: left out: mask_token"]


def test_a_frozen_backbone_without_weights_is_told(files):
    frozen = _config()
    frozen.model.freeze_backbone = True
    assert len(_network(frozen)[1]) == 1
    assert "config.model.freeze_backbone: found True" in _network(frozen)[1][0]
    assert not _network(frozen, fresh=False)[1] and not _network(_config())[1]
    frozen.model.initial_weights = str(files / "converted.safetensors")
    assert not any("warning" in line for line in _network(frozen)[1])
    assert initial_weights.are_drawn('keras_hub:ViTBackbone{"patch_size": 8}')
    assert initial_weights.are_drawn("keras_hub:folder/config.json")
    assert not initial_weights.are_drawn("keras_hub:vit_base_patch16_224_imagenet")


HEADS = {
    "none": {"head.weight": None, "head.bias": None},
    "other classes": {"head.weight": np.ones((7, 64), np.float32), "head.bias": np.ones(7)},
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_of_other_classes_is_left_out(tmp_path, head):
    network, told = _network(_config(initial_weights=_with(tmp_path, HEADS[head])))
    assert "no head of this run's classes, which starts anew" in told[1]
    drawn = _network(_config())[0].params["head"]
    assert jax.tree.all(jax.tree.map(np.array_equal, network.params["head"], drawn))


FAULTS = {
    "NaN": ({"head.bias": np.full(5, np.nan)}, "head.bias: 5 of 5 values are NaN or infinite"),
    "no kernel": ({"head.weight": None}, "the source does not fill: head/linear/kernel"),
    "no offset": ({"head.bias": None}, "the source does not fill: head/linear/bias"),
    "another width": ({"head.weight": np.ones((5, 63))}, r"head.weight has shape \(5, 63\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_amiss_in_a_head_of_these_classes_is_told(tmp_path, fault):
    changed, message = FAULTS[fault]
    with pytest.raises(UserError, match=message):
        _network(_config(initial_weights=_with(tmp_path, changed)))


def test_a_head_that_timm_does_not_have_starts_anew(tmp_path):
    config = _config(initial_weights=_with(tmp_path, {}))
    config.model.head = _Twice
    network, told = _network(config)
    assert len(told) == 2 and set(network.params["head"]) == {"other"}


class _Twice(nnx.Module):
    """A head of as many classes whose parameters have names of its own."""

    def __init__(self, backbone, num_classes, *, taxonomy, drop_rate, dtype, rngs):
        del taxonomy, drop_rate, dtype
        self.other = nnx.Linear(backbone.feature_dim, num_classes, rngs=rngs)

    def __call__(self, features, *, train=False, key=None):
        return (2 * self.other(features.pooled),)


def _with(folder, changed):
    """A file of weights of five classes, some of them replaced or, where None, left out."""
    arrays = random_state_dict("test_vit") | changed
    kept = {name: value for name, value in arrays.items() if value is not None}
    return write(folder / "changed.safetensors", kept)


def test_normalisation_is_that_of_the_weights_even_when_the_run_goes_on():
    of_tag = weights.Provenance("x", "0", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    config = _config(pretrained="test_vit.r160_in1k", weights_cache="nowhere")
    network, _ = _network(config, fresh=False, provenance=of_tag)
    assert (network.mean, network.std) == (of_tag.mean, of_tag.std)
    assert network.provenance is of_tag
    config.model.in_channels = 1
    network, _ = _network(config, fresh=False, provenance=of_tag)
    assert network.mean == pytest.approx((0.2,)) and network.std == pytest.approx((0.5,))
    assert _network(config, fresh=False)[0].mean == (0.5,)
    config.data.normalisation = "dataset"
    assert _network(config, fresh=False, provenance=of_tag)[0].mean == (0.9,)


def test_a_lost_record_is_refused_where_the_normalisation_is_in_it(tmp_path):
    def save(config):
        (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))

    config = _config(pretrained="test_vit.r160_in1k")
    save(config)
    with pytest.raises(UserError, match="initial_weights.json: it is gone"):
        run_directory.read_provenance(tmp_path)
    config.data.normalisation = "dataset"
    save(config)
    assert run_directory.read_provenance(tmp_path) is None
    save(_config())
    assert run_directory.read_provenance(tmp_path) is None


def test_what_cannot_start_a_run_is_told(files):
    with pytest.raises(UserError, match="initial_weights: there is no file some/where"):
        _network(_config(initial_weights="some/where"))
    config = _config(initial_weights=files / "converted.safetensors")
    config.model.name = "vit_tiny_patch16_224"
    with pytest.raises(UserError, match="weights of test_vit; wanted: those of vit_tiny"):
        _network(config)


def test_an_auxiliary_classifier_that_a_file_lacks_starts_anew(tmp_path):
    path = write(tmp_path / "t.safetensors", random_state_dict("inception_v3"))
    config = _config(initial_weights=path, head="auxiliary")
    config.model.name, config.data.image_size = inception_v3.with_auxiliary, 299
    config.data.normalisation = "dataset"
    network, told = _network(config)
    assert f"{path}: not in it, so with initial values: backbone/AuxLogits, head/auxiliary" in told
    config.model.initial_weights = ""
    drawn, found = (flatten_paths(n.params) for n in (_network(config)[0], network))
    own = {path for path in drawn if np.array_equal(drawn[path], found[path])}
    assert "backbone/AuxLogits/conv0/conv/kernel" in own and "head/auxiliary/kernel" in own
    assert all(path.startswith(("backbone/AuxLogits/", "head/auxiliary/")) for path in own)
