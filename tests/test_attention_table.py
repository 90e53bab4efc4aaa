"""Attention between branches as means over the images of a side, against the head's own weights of
each image."""

import contextlib
import csv
import types

import jax
import numpy as np
import pytest

from plankton_jax import attention_table, experiment, heads, models
from plankton_jax.config import Config
from plankton_jax.errors import UserError
from plankton_jax.models import branch_bases
from plankton_jax.taxonomy import Taxonomy

TREE = Taxonomy.from_paths(
    ("side", "group", "taxon"),
    [("a", "a1", "x"), ("b", "b1", "y"), ("b", "b2", "z"), ("none", "c1", "v"), ("a", "a2", "u")],
)
NAMES = {
    "bacnn": ["side", "group", "taxon"],
    "sbacnn": [f"{side}, {level}" for side in ("a", "b", "none") for level in ("group", "taxon")],
}


def small(**options):
    """A backbone that compiles in a moment."""
    config = branch_bases.BranchBaseConfig(((4,), (4,), (8,)), dense=(16,))
    return branch_bases.build(config, **options)


@pytest.mark.parametrize("head", NAMES)
def test_rows_are_means_over_the_images_of_a_side(head, tmp_path, monkeypatch):
    config = Config()
    config.data.image_size, config.model.name, config.model.head = 16, small, head
    config.head.branches, config.head.width, config.head.attention_width = "dense", 8, 4
    network = experiment.make_network(config, {"mean": 0.5, "std": 0.25}, TREE)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
    leaf = np.array([0, 1, 2, 4, 1, 2, 1, 0], np.int32)
    mask = np.array([True] * 7 + [False])  # the last batch is padded
    batches = [
        {
            "image": images[part],
            "leaf": leaf[part],
            "mask": mask[part],
            "measurements": np.zeros((4, 0), np.float32),
        }
        for part in (slice(0, 4), slice(4, 8))
    ]
    monkeypatch.setattr(
        attention_table.run_batches,
        "eval_batches",
        lambda *arguments, **options: contextlib.nullcontext(batches),
    )
    data = types.SimpleNamespace(taxonomy=TREE, rows={"test": np.arange(7)})
    path = tmp_path / "test_attention.csv"
    attention_table.write_attention(
        path, config, data, network, network.params, network.model_state, split="test", notify=print
    )
    with path.open(newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == ["side", "images", "branch", *NAMES[head]]
    model = models.create_model(
        small, 5, image_size=16, in_channels=1, taxonomy=TREE,
        head=heads.configured(head, config.head),
        key=jax.random.fold_in(jax.random.key(config.seed), 0),
    )  # fmt: skip
    scaled = (images.astype(np.float32) / 255 - 0.5) / 0.25
    weights = np.asarray(model.head.attention_weights(model.features(scaled)))
    for number, (side, chosen) in enumerate({"a": [0, 3], "b": [1, 2, 4, 5, 6]}.items()):
        of_side = rows[number * len(NAMES[head]) :][: len(NAMES[head])]
        assert [row[:3] for row in of_side] == [
            [side, str(len(chosen)), name] for name in NAMES[head]
        ]
        found = np.array([row[3:] for row in of_side], np.float64)
        np.testing.assert_allclose(found, weights[chosen].mean(axis=0), atol=2e-6)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert rows[-1] == ["none", "0", NAMES[head][-1], *[""] * len(NAMES[head])]


@pytest.mark.parametrize(
    ("head", "split", "part"),
    [
        ("add", "test", 'config.model.head="add", which has none; allowed: runs of bacnn or'),
        (small, "test", 'config.model.head="small"'),
        ("bacnn", "unlabelled", "--split unlabelled, whose images have no true first level"),
    ],
)
def test_what_has_no_attention_or_no_labels_is_refused(head, split, part):
    with pytest.raises(UserError, match=part):
        attention_table.refuse_without(head, split)


def test_weights_of_the_first_image_are_told_to_be_a_mistake():
    config, told = Config(), []
    config.data.image_size, config.model.name, config.model.head = 16, small, "bacnn"
    config.head.branches, config.head.width, config.head.attention_width = "dense", 8, 4
    for config.head.attention in ("sample", "batch0"):
        experiment.make_network(config, {"mean": 0.5, "std": 0.25}, TREE, notify=told.append)
    assert len(told) == 1 and "config.head.attention: found batch0" in told[0]
