"""The tree of classes: refusals, and the arrays against a slow, obvious reading of the paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

PATHS = [
    ("relevant", "Copepoda", "Calocalanus pavo"),
    ("relevant", "Copepoda", "nauplii__Crustacea"),
    ("irrelevant", "other", "T-shirt/top"),
    ("relevant", "other", "egg"),
]


@pytest.fixture
def tree() -> Taxonomy:
    return Taxonomy.from_paths(("level1", "level2", "taxon"), PATHS)


def test_arrays(tree):
    assert tree.depth == 3 and tree.num_leaves == 4
    assert tree.leaf_names == tuple(path[-1] for path in PATHS)
    assert tree.ancestors.tolist() == [[0, 0, 1, 0], [0, 0, 1, 2], [0, 1, 2, 3]]
    assert tree.parents[1].tolist() == [0, 1, 0]
    assert tree.children(0, 0).tolist() == [0, 2]
    assert tree.children(2, 0).size == 0
    assert tree.leaves_under(0, 0).tolist() == [0, 1, 3]


def test_equal_inner_names_under_two_parents_are_two_nodes(tree):
    assert tree.node_names[1] == ("Copepoda", "other", "other")


def test_json_round_trip(tree):
    assert Taxonomy.from_json(tree.to_json()).to_json() == tree.to_json()


names = st.text(st.sampled_from("abcXY _/é"), min_size=1, max_size=4).filter(lambda s: s.strip())


@given(st.lists(st.tuples(names, names), min_size=1, max_size=20))
def test_every_node_lies_above_exactly_its_leaves(parents):
    paths = [(*pair, f"leaf {i}") for i, pair in enumerate(parents)]
    tree = Taxonomy.from_paths(("a", "b", "c"), paths)
    for level in range(3):
        for node in range(len(tree.node_names[level])):
            below = tree.leaves_under(level, node).tolist()
            prefix = paths[below[0]][: level + 1]
            assert below == [i for i, path in enumerate(paths) if path[: level + 1] == prefix]
        for leaf in range(tree.num_leaves):
            assert tree.path(leaf)[level] == paths[leaf][level]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([("a", "x"), ("a", "x")], 'duplicate leaf "x"'),
        ([("a", "x"), ("b", "x")], 'leaf "x" has two parents, "a" and "b"'),
        ([("a", "x"), ("a", " ")], "row 2 has an empty name"),
        ([("a", "x"), ("", "y")], "row 2 has an empty name"),
        ([("a", "x y"), ("a", "X_y")], "differ only in case"),
        ([("a", "x"), ("b",)], "row 2 has 1 names for 2 levels"),
        ([], "no levels or no leaves"),
    ],
)
def test_what_is_no_tree_is_refused(paths, words):
    with pytest.raises(UserError, match=words):
        Taxonomy.from_paths(("level1", "taxon"), paths)


def test_all_problems_come_together():
    with pytest.raises(UserError) as caught:
        Taxonomy.from_paths(("a", "b"), [("a", "x"), ("b", "x"), ("c", ""), ("a", "x")])
    assert len(caught.value.problems) == 3


def test_csv_takes_the_path_columns_and_leaves_the_others(tmp_path):
    table = tmp_path / "tree.csv"
    table.write_text("\ufefftaxon,count,level2,level1\nb,3,B,R\n\n'q,r',1,B,I\n".replace("'", '"'))
    tree = Taxonomy.from_csv(table)
    assert tree.level_names == ("level1", "level2", "taxon")
    assert tree.leaf_names == ("b", "q,r") and tree.path(1) == ("I", "B", "q,r")


@pytest.mark.parametrize("text", ["", "taxon\n", "level1,taxon\nonly\n"])
def test_csv_without_a_table_is_refused(tmp_path, text):
    table = tmp_path / "tree.csv"
    table.write_text(text)
    with pytest.raises(UserError, match="tree.csv"):
        Taxonomy.from_csv(table)


def test_csv_that_is_not_text_is_refused(tmp_path):
    table = tmp_path / "tree.csv"
    table.write_bytes(b"\xff\xfe\x00taxon")
    with pytest.raises(UserError, match="cannot be read"):
        Taxonomy.from_csv(table)
    with pytest.raises(UserError, match="cannot be read"):
        Taxonomy.from_csv(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("zooscan_v1", [2, 17, 93]),
        ("whoi", [2, 14, 103]),
        ("ndsb", [2, 17, 121]),
        ("fashion_mnist", [2, 6, 10]),
    ],
)
def test_published_trees(real_images, name, sizes):
    tree = Taxonomy.from_csv(real_images.parent / "facts" / f"{name}_tree.csv")
    assert [len(names) for names in tree.node_names] == sizes
