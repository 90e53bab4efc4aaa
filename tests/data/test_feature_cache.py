"""Features of a frozen backbone: which a head reads; that they are computed once, and rightly."""

import dataclasses
import json

import data_support
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plankton_jax import experiment, feature_cache, run_batches
from plankton_jax.config import Config
from plankton_jax.data.dataset import open_dataset
from plankton_jax.errors import UserError
from plankton_jax.models import branch_bases
from plankton_jax.run_data import Data
from plankton_jax.taxonomy import Taxonomy

TREE = Taxonomy.from_paths(
    ("side", "group", "taxon"),
    [("a", "a1", "x"), ("a", "a1", "y"), ("b", "b1", "z"), ("b", "b2", "w")],
)


QUICK = {"xla_backend_optimization_level": 0}


def small(**options):
    """A backbone that compiles in a moment."""
    config = branch_bases.BranchBaseConfig(((4,), (4,), (8,)), dense=(16,))
    return branch_bases.build(config, **options)


class Scaled(branch_bases.BranchBase):
    """Of the same parameters as `small`, and another program with another `FACTOR`."""

    def __call__(self, images, **keywords):
        return super().__call__(FACTOR * images, **keywords)


FACTOR = 1.0


def scaled(**options):
    made = small(**options)
    made.__class__ = Scaled
    return made


@pytest.fixture(autouse=True)
def usual():
    """Optax's schedules count on jax's usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    images = [
        data_support.png(data_support.smooth_image(20 + i % 7, 24, seed=i)) for i in range(60)
    ]
    folder = data_support.write_data_set(
        tmp_path_factory.mktemp("data") / "set", images, [i % 4 for i in range(60)]
    )
    (folder / "taxonomy.json").write_text(json.dumps(TREE.to_json()))
    rows = {"train": np.arange(0, 44), "validation": np.arange(44, 60), "test": np.arange(0)}
    return Data(open_dataset(folder), rows)


def configured(folder, views=2, head="bcnn", **model):
    config = Config()
    config.data.data_dir = str(folder)
    config.data.image_size = 32
    config.model.name = small
    config.model.head = head
    config.model.freeze_backbone = True
    config.model.cache_features = views
    config.head.branches, config.head.width = "dense", 8
    config.train.batch_size, config.optim.name = 8, "sgd"
    config.loss.name = "cross_entropy" if head == "linear" else "level_cross_entropy"
    for name, value in model.items():
        setattr(config.model, name, value)
    return config


def prepare(config, data, stopped=lambda: False, notify=lambda text: None):
    training = experiment.make_training(config, data)
    files = feature_cache.prepare(
        config, data, training.network, training.state, stopped=stopped, notify=notify
    )
    return training, files


@pytest.mark.parametrize(
    ("head", "settings", "expected"),
    [
        ("linear", {}, ["pooled"]),
        ("coherent", {}, ["pooled"]),
        ("bcnn", {}, ["stages/0", "stages/1", "stages/2"]),
        ("bcnn", {"trunk": True}, ["stages/0", "stages/1", "pooled"]),
        ("bcnn", {"branches": "parallel", "window": 4}, ["stages/2"]),
        ("sbacnn", {"branches": "sequence", "window": 4}, ["stages/2"]),
    ],
)
def test_what_a_head_reads_is_found(tmp_path, data, head, settings, expected):
    config = configured(tmp_path, head=head)
    for name, value in settings.items():
        setattr(config.head, name, value)
    training = experiment.make_training(config, data)
    arrays, num_stages = feature_cache.features_read(training.network, config, training.state)
    assert [array.name for array in arrays] == expected and num_stages == 3


@pytest.mark.parametrize("measurements", [(), ("log_side",)])
def test_a_step_on_stored_features_is_one_on_images(tmp_path, data, measurements):
    """With nothing augmented: loss, gradient and parameters of both are the same."""
    config = configured(tmp_path, views=1, head="hbcnn")
    config.augmentation.manual = False
    config.data.measurements = measurements
    training, files = prepare(config, data)
    step = jax.jit(training.train_step, compiler_options=QUICK)
    evaluate = jax.jit(training.eval_step, compiler_options=QUICK)
    ends, seen = [], []
    for features in (files, None):
        state = training.state
        with run_batches.train_batches(
            config, data, start=0, stop=3, features=features, notify=print
        ) as batches:
            for batch in batches:
                state, sums = step(state, run_batches.to_device(batch, features))
                seen.append(jax.device_get(sums))
        ends.append(state)
    for ours, theirs in zip(seen[:3], seen[3:], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), ours, theirs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        ends[0].params,
        ends[1].params,
    )
    sums = []
    for features in (files, None):
        rows = data.rows["validation"]
        with run_batches.eval_batches(
            config, data, rows, features=features, notify=print
        ) as batches:
            for batch in batches:
                batch = run_batches.to_device(batch, features, masked=True)
                _, found = evaluate(training.state.params, training.state.model_state, batch)
                sums.append(jax.device_get(found))
    for ours, theirs in zip(sums[:2], sums[2:], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, theirs)


def test_a_step_on_stored_features_has_no_backbone_in_it(tmp_path, data):
    config = configured(tmp_path, head="linear")
    training, files = prepare(config, data)
    costs = []
    for features in (files, None):
        with run_batches.train_batches(
            config, data, start=0, stop=1, features=features, notify=print
        ) as batches:
            batch = run_batches.to_device(next(batches), features)
        lowered = jax.jit(training.train_step).lower(training.state, batch)
        costs.append(lowered.compile(compiler_options=QUICK).cost_analysis()["flops"])
    assert costs[0] < 0.05 * costs[1]


def test_views_differ_and_are_those_of_the_augmentation(tmp_path, data):
    config = configured(tmp_path, views=3, head="linear")
    training, files = prepare(config, data)
    arrays, missing = files.opened()
    views = arrays["pooled"][: 3 * 44].reshape(3, 44, -1)
    assert not missing.any()
    assert np.abs(views[0] - views[1]).max(axis=-1).min() > 1e-4
    rows = np.tile(np.arange(44), 3)
    state, network = training.state, training.network
    with run_batches.eval_batches(
        config, data, rows, start=7, augmented=True, notify=print
    ) as batches:
        batch = next(batches)
    images = (batch["image"] / np.float32(255) - network.mean[0]) / network.std[0]
    expected = network.backbone(state.params, state.model_state, jnp.asarray(images, jnp.float32))
    np.testing.assert_allclose(arrays["pooled"][56:64], expected.pooled, rtol=1e-4, atol=1e-5)


def test_what_was_stopped_goes_on_and_what_is_there_is_taken(tmp_path, data):
    asked = []

    def stopped():
        asked.append(True)
        return len(asked) == 4

    config = configured(tmp_path / "one")
    _, files = prepare(config, data, stopped)
    assert files is None
    (folder,) = (tmp_path / "one" / "features").iterdir()
    assert json.loads((folder / "journal.json").read_text())["done"] == 32
    told = []
    _, files = prepare(config, data, notify=told.append)
    assert files is not None and files.directory == folder
    assert any("GB in" in line or "MB in" in line for line in told)
    assert any("less for each epoch" in line for line in told)
    _, whole = prepare(configured(tmp_path / "two"), data)
    for name, values in files.opened()[0].items():
        np.testing.assert_array_equal(values, whole.opened()[0][name])
    told.clear()
    prepare(config, data, notify=told.append)
    assert told == [f"features of {len(files)} images and views: {folder}"]


def test_other_features_lie_elsewhere(tmp_path, data, monkeypatch):
    config = configured(tmp_path, head="linear")
    _, files = prepare(config, data)
    same_backbone = dataclasses.replace(config, seed=config.seed)
    same_backbone.model = dataclasses.replace(config.model, head="coherent")
    same_backbone.loss = dataclasses.replace(config.loss, name="level_cross_entropy")
    assert prepare(same_backbone, data)[1].directory == files.directory
    for change in ({"cache_features": 1}, {"in_channels": 3}, {"head": "bcnn"}):
        other = configured(tmp_path, **{"head": "linear"} | change)
        assert prepare(other, data)[1].directory != files.directory
    own = configured(tmp_path, head="linear", name=scaled)
    first = prepare(own, data)[1].directory
    assert prepare(own, data)[1].directory == first
    monkeypatch.setattr(f"{__name__}.FACTOR", 2.0)  # its name stays, and its parameters
    assert prepare(own, data)[1].directory != first
    damaged = files.directory / "0.features"
    before = np.array(files.opened()[0]["pooled"])
    damaged.write_bytes(damaged.read_bytes()[:100])
    np.testing.assert_array_equal(prepare(config, data)[1].opened()[0]["pooled"], before)


def test_no_space_is_told_before_anything_is_computed(tmp_path, data, monkeypatch):
    config = configured(tmp_path, head="linear")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="config.model.cache_features: found 2, which takes"):
        prepare(config, data)
    (folder,) = (tmp_path / "features").iterdir()
    assert not (folder / "journal.json").exists()


def test_two_computations_do_not_meet(tmp_path, data):
    config, refused = configured(tmp_path, head="linear"), []

    def stopped():
        if not refused:
            with pytest.raises(UserError, match="another process is computing them") as caught:
                prepare(config, data)
            refused.append(caught)
        return False

    prepare(config, data, stopped)
    assert refused
