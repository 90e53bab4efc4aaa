"""Losses of several levels against slow references, and the schedule of their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plankton_jax import losses
from plankton_jax.config import Config, LossConfig
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy
from plankton_jax.validation import all_problems

TREE = Taxonomy.from_paths(
    ("side", "group", "taxon"),
    [("a", "a1", "x"), ("b", "b1", "p"), ("a", "a1", "y"), ("a", "a2", "z"), ("b", "b2", "q")],
)
PAPERS = ((0.98, 0.01, 0.01), (0.1, 0.8, 0.1), (0.1, 0.2, 0.7), (0.01, 0.01, 0.98))


@pytest.fixture
def drawn():
    random = np.random.default_rng(0)
    logits = [random.normal(0, 2, (9, len(nodes))) for nodes in TREE.node_names]
    leaf = random.integers(0, 5, 9)
    return tuple(jnp.asarray(z, jnp.float32) for z in logits), TREE.ancestors.T[leaf]


def log_softmax(row):
    row = np.asarray(row, np.float64)
    return row - np.log(np.exp(row).sum())


def test_level_cross_entropy_is_the_weighted_sum(drawn):
    logits, labels = drawn
    for weights in (None, (0.1, 0.2, 0.7)):
        found = losses.level_cross_entropy(
            logits, jnp.asarray(labels), weights=None if weights is None else jnp.array(weights)
        )
        for row in range(9):
            expected = -sum(
                (1 if weights is None else weights[level])
                * log_softmax(logits[level][row])[labels[row, level]]
                for level in range(3)
            )
            assert found[row] == pytest.approx(expected, rel=1e-5)


def test_smoothing_is_that_of_each_level(drawn):
    logits, labels = drawn
    found = losses.level_cross_entropy(logits, jnp.asarray(labels), label_smoothing=0.1)
    each = [
        losses.cross_entropy((z,), jnp.asarray(labels[:, n : n + 1]), label_smoothing=0.1)
        for n, z in enumerate(logits)
    ]
    np.testing.assert_allclose(found, sum(each), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_hierarchical_cross_entropy_walks_down_the_tree(drawn, alpha):
    logits, labels = drawn
    found = losses.hierarchical_cross_entropy(
        logits, jnp.asarray(labels), ancestors=TREE.ancestors, alpha=alpha
    )
    for row in range(9):
        leaves = np.exp(log_softmax(logits[-1][row]))
        expected, above = 0.0, 1.0
        for level in range(3):
            mass = leaves[TREE.leaves_under(level, labels[row, level])].sum()
            height = 2 - level
            expected -= np.exp(-alpha * height) * np.log(mass / above)
            above = mass
        assert found[row] == pytest.approx(expected, rel=1e-4)
    if alpha == 0:  # the steps' product is the leaf's own probability
        plain = losses.cross_entropy(logits, jnp.asarray(labels))
        np.testing.assert_allclose(found, plain, rtol=1e-4)


@pytest.mark.parametrize("beta", [0.5, 4.0, 1000.0])
def test_soft_labels_fall_off_with_the_distance(drawn, beta):
    logits, labels = drawn
    found = losses.tree_soft_labels(
        logits, jnp.asarray(labels), distances=TREE.leaf_distances, beta=beta
    )
    for row in range(9):
        true, logs = labels[row, -1], log_softmax(logits[-1][row])
        shares = np.exp([-beta * TREE.leaf_distances[true, leaf] for leaf in range(5)])
        assert found[row] == pytest.approx(-(shares / shares.sum() * logs).sum(), rel=1e-4)
    if beta == 1000:
        plain = losses.cross_entropy(logits, jnp.asarray(labels))
        np.testing.assert_allclose(found, plain, rtol=1e-5)


def schedule(**settings):
    config = LossConfig(name="level_cross_entropy", **settings)
    return losses.make_loss(config, TREE, steps_per_epoch=10)


def test_weights_switch_at_their_epochs():
    branch_training = schedule(level_weights=PAPERS, level_epochs=(15, 25, 35))
    weights_at = jax.jit(branch_training.weights_at)
    for epoch, row in ((0, 0), (14.9, 0), (15, 1), (24.9, 1), (25, 2), (34.9, 2), (35, 3), (49, 3)):
        np.testing.assert_allclose(weights_at(round(epoch * 10)), PAPERS[row], rtol=1e-6)


def test_a_row_of_weights_that_would_never_count_is_refused():
    for epochs in ((0.01,), (0.3, 0.31)):
        with pytest.raises(UserError, match="level_epochs: found .* every row of level_weights"):
            schedule(level_weights=PAPERS[: 1 + len(epochs)], level_epochs=epochs)


def test_linear_weights_reach_each_row_at_its_epoch():
    linear = schedule(level_weights=PAPERS, level_epochs=(15, 25, 35), level_schedule="linear")
    for step, expected in ((0, PAPERS[0]), (150, PAPERS[1]), (350, PAPERS[3]), (500, PAPERS[3])):
        np.testing.assert_allclose(linear.weights_at(step), expected, rtol=1e-5)
    middle = (np.array(PAPERS[0]) + np.array(PAPERS[1])) / 2
    np.testing.assert_allclose(linear.weights_at(75), middle, rtol=1e-5)


def test_learned_weights_are_those_of_uncertainty(drawn):
    logits, labels = drawn
    learned = schedule(level_schedule="learned")
    np.testing.assert_array_equal(learned.initial_params()["level_log_variance"], np.zeros(3))
    variance = jnp.array([0.5, -0.3, 0.1])
    found = learned.at(0, {"level_log_variance": variance})(logits, jnp.asarray(labels))
    each = [
        np.asarray(losses.cross_entropy((z,), jnp.asarray(labels[:, n : n + 1])))
        for n, z in enumerate(logits)
    ]
    expected = sum(np.exp(-s) * v for s, v in zip((0.5, -0.3, 0.1), each, strict=True)) + 0.15
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert schedule().initial_params() == {}


def test_levels_of_another_number_are_named(drawn):
    logits, labels = drawn
    with pytest.raises(UserError, match="logits of 1 of the tree's 3 levels"):
        losses.level_cross_entropy(logits[-1:], jnp.asarray(labels))
    with pytest.raises(UserError, match=r"level_weights: found \(1, 2\); the tree has 3 levels"):
        schedule(level_weights=((1, 2),))
    with pytest.raises(UserError, match='found "tree_soft_labels" for a tree of depth 1'):
        losses.make_loss(LossConfig(name="tree_soft_labels"), Taxonomy.flat(["a", "b"]))


def problems(head, **settings):
    config = Config()
    config.model.head = head
    for name, value in settings.items():
        setattr(config.loss, name, value)
    return all_problems(config)


@pytest.mark.parametrize(
    ("head", "settings", "part"),
    [
        (
            "sbacnn",
            {"name": "level_cross_entropy", "label_smoothing": 0.05},
            "learn from images of the other sides",
        ),
        ("bcnn", {}, "would leave its coarser branches untrained"),
        ("linear", {"name": "level_cross_entropy"}, "logits of the leaves alone"),
        ("bcnn", {"level_weights": ((0.0, 0.0),)}, "not all 0"),
        ("bcnn", {"level_weights": ((0.5, -1.0),)}, "numbers of 0 or more"),
        ("bcnn", {"level_weights": PAPERS, "level_epochs": (15, 25)}, "one rising number above 0"),
        ("bcnn", {"level_weights": PAPERS, "level_epochs": (15, 35, 25)}, "one rising number"),
        ("bcnn", {"level_epochs": (15,)}, "one rising number"),
        ("bcnn", {"level_weights": PAPERS, "level_epochs": (15, 25, 60)}, "would never count"),
        ("bcnn", {"level_schedule": "linear"}, "between which nothing changes"),
        ("sbacnn", {"name": "level_cross_entropy", "level_schedule": "learned"}, "hold the gate's"),
        ("bcnn", {"level_weights": ((0, 0, 1),)}, "found 0 in every row for level 0"),
        ("bcnn", {"level_weights": PAPERS[:1], "level_schedule": "learned"}, "finds its own"),
        ("linear", {"level_weights": PAPERS[:1]}, "counts with loss.name=level_cross_entropy"),
        ("linear", {"name": "cross_entropy", "tree_beta": 2.0}, "loss.name=tree_soft_labels"),
        ("linear", {"name": "tree_soft_labels", "label_smoothing": 0.1}, "the tree spreads"),
    ],
)
def test_settings_that_make_no_sense_are_refused(head, settings, part):
    name = "level_cross_entropy" if head == "bcnn" and settings else "cross_entropy"
    found = problems(head, **{"name": name, **settings})
    assert any(part in problem for problem in found), found


def test_branch_training_as_in_the_papers_is_allowed():
    assert not problems(
        "bacnn",
        name="level_cross_entropy",
        level_weights=PAPERS,
        level_epochs=(1, 2, 3),
    )
