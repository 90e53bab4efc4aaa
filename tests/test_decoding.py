"""Decoders against loops that say the same in words."""

import itertools

import numpy as np
import pytest

from plankton_jax import decoding
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

TREE = Taxonomy.from_paths(
    ("side", "group", "taxon"),
    [
        ("a", "a1", "x"),
        ("b", "b1", "p"),
        ("a", "a1", "y"),
        ("a", "a2", "z"),
        ("b", "b2", "q"),
        ("b", "b2", "r"),
        ("b", "b3", "s"),
    ],
)


@pytest.fixture
def logits():
    random = np.random.default_rng(0)
    return [random.normal(0, 2, (60, len(nodes))) for nodes in TREE.node_names]


def parent_of(level, node):
    """By the names of the paths alone."""
    for path in map(TREE.path, range(TREE.num_leaves)):
        if path[level] == TREE.node_names[level][node]:
            return TREE.node_names[level - 1].index(path[level - 1])
    raise AssertionError


def first_of(level, node):
    return node if level == 0 else first_of(level - 1, parent_of(level, node))


def probabilities(row):
    exponentials = np.exp(row)
    return exponentials / exponentials.sum()


def by_hand(name, rows, label):
    depth, count = TREE.depth, [len(nodes) for nodes in TREE.node_names]
    paths = [[int(TREE.ancestors[level, leaf]) for level in range(depth)] for leaf in range(7)]
    if name == "argmax":
        return [int(np.argmax(row)) for row in rows]
    if name in ("routed", "oracle", "top_down"):
        chosen = [int(np.argmax(rows[0]))] if name != "oracle" else [paths[label][0]]
        for level in range(1, depth):
            if name == "top_down":
                open_nodes = [n for n in range(count[level]) if parent_of(level, n) == chosen[-1]]
            else:
                open_nodes = [n for n in range(count[level]) if first_of(level, n) == chosen[0]]
            chosen.append(max(open_nodes, key=lambda n, level=level: rows[level][n]))
        return chosen
    if name == "leaf":
        return paths[int(np.argmax(rows[-1]))]
    if name == "path":
        chances = [
            np.prod([probabilities(rows[level])[path[level]] for level in range(depth)])
            for path in paths
        ]
        return paths[int(np.argmax(chances))]
    risks = []
    for guess in range(7):
        risk = 0.0
        for true in range(7):
            shared = [a == b for a, b in zip(paths[guess], paths[true], strict=True)]
            together = len(list(itertools.takewhile(bool, shared)))
            risk += (depth - together) / depth * probabilities(rows[-1])[true]
        risks.append(risk)
    return paths[int(np.argmin(risks))]


@pytest.mark.parametrize("name", decoding.DECODERS)
def test_a_decoder_does_what_it_says(name, logits):
    labels = np.random.default_rng(1).integers(0, 7, 60)
    found = decoding.decode(name, logits, TREE, labels)
    assert found.shape == (60, 3)
    for row in range(60):
        expected = by_hand(name, [level[row] for level in logits], labels[row])
        assert found[row].tolist() == expected
    paths = decoding.is_path(found, TREE)
    if name in ("top_down", "leaf", "path", "risk"):
        assert paths.all()
    else:
        assert not paths.all()


def test_an_unknown_decoder_is_named():
    with pytest.raises(UserError, match='--decoder: found "topdown".*top_down'):
        decoding.decode("topdown", [], TREE)


def test_distances_between_leaves():
    distances = TREE.leaf_distances
    names = TREE.leaf_names
    for pair, expected in (("xx", 0), ("xy", 1 / 3), ("xz", 2 / 3), ("xp", 1), ("qr", 1 / 3)):
        one, other = (names.index(letter) for letter in pair)
        assert distances[one, other] == distances[other, one] == pytest.approx(expected)
