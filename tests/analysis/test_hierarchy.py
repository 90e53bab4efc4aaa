"""Agreement with the tree against a slow walk over names, image by image; tables and figures."""

import csv
import dataclasses
import io
import json
import math
import pathlib

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from plankton_jax import evaluate, tables
from plankton_jax.analysis import effective_hierarchy, published
from plankton_jax.analysis.hierarchy import measure
from plankton_jax.analysis.predictions import Provenance, read_predictions, write_predictions
from plankton_jax.analysis.report_tables import report_tables
from plankton_jax.decoding import decode
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy

TREE = Taxonomy.from_paths(
    ("side", "group", "taxon"),
    [
        ("relevant", "a1", "x"),
        ("irrelevant", "b1", "p"),
        ("relevant", "a1", "y|z"),
        ("relevant", "a2", "z"),
        ("irrelevant", "b2", "q"),
        ("irrelevant", "b2", "r_&"),
    ],
)
COUNT = 400
BUILDERS = pathlib.Path(__file__).parents[2] / "data_builders"


def write(folder: pathlib.Path, name="run", tree=TREE, decoder="argmax", seed=0, head=""):
    random = np.random.default_rng(seed)
    leaf = random.choice(tree.num_leaves, COUNT, p=_shares(tree.num_leaves)).astype(np.int32)
    logits = []
    for nodes, names in zip(tree.ancestors, tree.node_names, strict=True):
        level = random.normal(0, 1.2, (COUNT, len(names)))
        level[np.arange(COUNT), nodes[leaf]] += 2
        logits.append(level.astype(np.float32))
    path = folder / name / "predictions" / "test.parquet"
    path.parent.mkdir(parents=True)
    provenance = Provenance(
        taxonomy=tree,
        split="test",
        run=name,
        step=1,
        model="m",
        config_hash="0",
        training_counts=np.zeros(tree.num_leaves, np.int64),
        dataset="zooscan",
        licence="none",
        decoder=decoder,
        head=head,
    )
    write_predictions(path, provenance, [str(i) for i in range(COUNT)], leaf, logits)
    return folder / name, leaf, logits


def _shares(count):
    shares = 0.6 ** np.arange(count)
    return shares / shares.sum()


@pytest.fixture(params=["argmax", "routed", "path"])
def case(request, tmp_path):
    folder, leaf, logits = write(tmp_path)
    predictions = read_predictions(folder / "predictions" / "test.parquet")
    nodes = decode(request.param, logits, TREE)
    named = [[TREE.node_names[level][node] for level, node in enumerate(row)] for row in nodes]
    true = [TREE.path(label) for label in leaf]
    return measure(predictions, request.param), named, true


def above(level, name):
    """A node and all above it, as (level, name), by the paths alone."""
    for path in map(TREE.path, range(TREE.num_leaves)):
        if path[level] == name:
            return {(n, path[n]) for n in range(level + 1)}
    raise AssertionError(name)


def test_counts_are_those_of_a_walk_over_names(case):
    found, named, true = case
    for side, side_name in enumerate(TREE.node_names[0]):
        own = [i for i in range(COUNT) if true[i][0] == side_name]
        right = np.mean([tuple(named[i]) == true[i] for i in own])
        paths = np.mean([tuple(named[i]) in map(TREE.path, range(6)) for i in own])
        assert found.coherence_accuracy(side) == pytest.approx(right)
        assert found.consistency(side) == pytest.approx(paths)
    assert found.coherence_accuracy() == pytest.approx(
        np.mean([tuple(a) == b for a, b in zip(named, true, strict=True)])
    )
    shared = predicted = wanted = 0
    heights = []
    for guess, truth in zip(named, true, strict=True):
        guessed = set().union(*(above(level, name) for level, name in enumerate(guess)))
        wants = above(2, truth[2])
        shared, predicted = shared + len(guessed & wants), predicted + len(guessed)
        wanted += len(wants)
        if guess[2] != truth[2]:
            heights.append(3 - len(above(2, guess[2]) & wants))
    precision, recall, f1 = found.hierarchical
    assert precision == pytest.approx(shared / predicted)
    assert recall == pytest.approx(shared / wanted)
    assert f1 == pytest.approx(2 * shared / (predicted + wanted))
    assert found.mistake_height == pytest.approx(np.mean(heights))


def test_metrics_of_a_side_are_scikit_learn_s(case):
    found, named, true = case
    for side in (None, 0, 1):
        own = [i for i in range(COUNT) if side is None or true[i][0] == TREE.node_names[0][side]]
        for level in range(3):
            truth = [true[i][level] for i in own]
            guess = [named[i][level] for i in own]
            labels = sorted(set(truth))
            options = {"labels": labels, "zero_division": 0}
            row = found.level_rows(level, side)
            expected = {
                "recall": sklearn_metrics.recall_score(truth, guess, average="macro", **options),
                "precision": sklearn_metrics.precision_score(
                    truth, guess, average="macro", **options
                ),
                "f1": sklearn_metrics.f1_score(truth, guess, average="weighted", **options),
                "macro_f1": sklearn_metrics.f1_score(truth, guess, average="macro", **options),
                "micro": sklearn_metrics.accuracy_score(truth, guess),
            }
            expected["accuracy"] = expected["recall"]
            assert row == pytest.approx(expected, abs=1e-9)


def test_edges_count_pairs_and_say_what_contradicts_the_tree(case):
    found, named, true = case
    edges = effective_hierarchy.edges_of(found)
    for edge in edges:
        u, v = TREE.node_names[edge.level][edge.u], TREE.node_names[edge.level + 1][edge.v]
        count = sum(row[edge.level] == u and row[edge.level + 1] == v for row in named)
        total = sum(row[edge.level] == u for row in true)
        assert edge.count == count
        assert edge.width == pytest.approx(math.sqrt(count / total))
        assert edge.contradicts == ((edge.level, u) not in above(edge.level + 1, v))
    for level in (0, 1):
        assert sum(edge.count for edge in edges if edge.level == level) == COUNT


def cells(table):
    return list(csv.reader(io.StringIO(table.csv())))


def read(folder):
    return folder.name, read_predictions(folder / "predictions" / "test.parquet")


@pytest.fixture
def of_the_report(monkeypatch):
    """The report's tree has six leaves."""
    monkeypatch.setattr(published, "NUM_LEAVES", 6)


def test_tables_have_the_report_s_layout_and_its_numbers(tmp_path, of_the_report):
    settings = (("one", "argmax", "bcnn"), ("two", "routed", "sbacnn"))
    runs = [read(write(tmp_path, name, decoder=d, head=head)[0]) for name, d, head in settings]
    made = {table.name: table for table in report_tables(runs)}
    assert list(made) == ["table_4", "table_5", "table_6", "table_7", "agreement"]
    four = cells(made["table_4"])
    assert four[0][:5] == ["run", "side Acc", "side F1", "side Pre", "side Rec"]
    assert len(four[0]) == 13
    assert [row[0] for row in four[1:4]] == ["one", "two", "two (true side)"]
    assert four[3][1:5] == ["100.0"] * 4 and four[2][1:5] != four[3][1:5]
    assert "True side" in made["table_4"].note and "True side" not in made["agreement"].note
    row = measure(runs[0][1]).level_rows(1)
    assert four[1][5:9] == [
        f"{100 * row[name]:.1f}" for name in ("accuracy", "f1", "precision", "recall")
    ]
    assert ["BA-CNN (report)", *["98.7"] * 4, "95.9", "95.8"] == next(
        line[:7] for line in four if line[0].startswith("BA-CNN")
    )
    five = cells(made["table_5"])
    assert [line[0] for line in five[1:6]] == [
        "two: binary head",
        "two: relevant, group",
        "two: relevant, taxon",
        "two: irrelevant, group",
        "two: irrelevant, taxon",
    ]
    assert len(five) == 1 + 5 + 5
    row = measure(runs[1][1], "oracle").level_rows(2, 0)
    assert five[3][1:3] == [f"{100 * row[name]:.1f}" for name in ("micro", "macro_f1")]
    assert row["macro_f1"] != pytest.approx(row["f1"], abs=1e-3)
    six = cells(made["table_6"])
    assert [line[0] for line in six[1:4]] == ["one", "two", "two (true side)"]
    assert len(six) == 1 + 2 * (3 + 4)
    assert six[0][:4] == ["run", "side relevant", "side irrelevant", "group Acc"]
    assert {tuple(line[1:3]) for line in six[1:8]} == {("X", "")}
    assert {tuple(line[1:3]) for line in six[8:]} == {("", "X")}
    row = measure(runs[0][1]).level_rows(1, 1)
    assert six[8][0] == "one" and six[8][3] == f"{100 * row['accuracy']:.1f}"
    seven = cells(made["table_7"])
    assert seven[0][:4] == ["side", "one", "two", "two (true side)"]
    assert [line[0] for line in seven[1:]] == ["relevant", "irrelevant", "all"]
    place = seven[0].index("SBA-CNN (report)")
    assert [line[place] for line in seven[1:]] == ["93.7", "87.7", "90.1"]
    assert "consistent" in made["agreement"].markdown()


def test_other_trees_give_other_tables_without_the_report(tmp_path):
    tree = Taxonomy.from_paths(("kind", "taxon"), [("k", "x"), ("l", "p"), ("m", "u"), ("m", "v")])
    folder, _, _ = write(tmp_path, "small", tree)
    (tmp_path / "flat").mkdir()
    flat, _, _ = write(tmp_path / "flat", "flat", Taxonomy.flat(["x", "p", "q"]))
    small = read_predictions(folder / "predictions" / "test.parquet")
    found = report_tables([("small", small)])
    assert [table.name for table in found] == ["table_4", "table_6", "table_7", "agreement"]
    assert not any("report)" in table.csv() for table in found)
    assert [line[0] for line in cells(found[2])] == ["kind", "k", "l", "m", "all"]
    flat_tables = report_tables([("flat", read_predictions(flat / "predictions/test.parquet"))])
    assert [table.name for table in flat_tables] == ["table_4", "agreement"]


def test_heads_behind_a_gate_are_those_of_the_head_not_of_the_decoder(tmp_path):
    settings = {
        "gated": ("path", "sbacnn"),
        "routed": ("routed", "bcnn"),
        "older": ("routed", ""),
        "plain": ("argmax", ""),
    }
    for name, (decoder, head) in settings.items():
        run = read(write(tmp_path, name, decoder=decoder, head=head)[0])
        assert run[1].provenance.head == head
        made = {table.name: table for table in report_tables([run])}
        assert ("table_5" in made) == (name in ("gated", "older"))
        assert ("true side" in made["table_7"].csv()) == (name == "older")
    gated = read(tmp_path / "gated")
    assert "gated (path)," in report_tables([gated])[0].csv()  # not the head's own
    assert "gated," in report_tables([gated], "routed")[0].csv()
    assert "true side" in report_tables([gated], "routed")[0].csv()
    assert "gated (oracle)," in report_tables([gated], "oracle")[0].csv()


def test_the_report_is_not_shown_beside_other_data(tmp_path):
    trees = {
        release: Taxonomy.from_csv(BUILDERS / "zooscan" / f"{release}.csv")
        for release in ("v1", "v2")
    }
    first, second = (read(write(tmp_path, *item)[0])[1] for item in trees.items())
    provenance = dataclasses.replace(first.provenance, dataset="ndsb")
    other = dataclasses.replace(first, provenance=provenance)
    for predictions, shown in ((first, True), (second, False), (other, False)):
        made = report_tables([("run", predictions)])
        assert any("(report)" in table.csv() for table in made) == shown


def test_published_numbers_are_whole():
    assert {name for name, _ in published.TABLE_6} == set(published.TABLE_7)
    for levels in published.TABLE_4.values():
        assert len(levels) == 3 and all(level is None or len(level) == 4 for level in levels)


def test_the_command_writes_tables_and_figures(tmp_path, capsys, of_the_report):
    for name in ("one", "two"):
        write(tmp_path, name)
    out = tmp_path / "out"
    arguments = ["--runs", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(out)]
    assert tables.main([*arguments, "--decoder", "path"]) == 0
    printed = capsys.readouterr().out
    assert "### Coherence accuracy" in printed and "BA-CNN (report)" in printed
    for name in ("table_4", "table_6", "table_7", "agreement"):
        for suffix in (".md", ".csv", ".tex"):
            assert (out / f"{name}{suffix}").stat().st_size > 100
    tex = (out / "table_4.tex").read_text()
    assert r"\toprule" in tex and tex.count(r"\\") == 2 + 2 + len(published.TABLE_4)
    level = r" & \multicolumn{4}{c}{%s}"
    assert "".join(level % name for name in TREE.level_names) in tex
    assert r"\cmidrule(lr){2-5}\cmidrule(lr){6-9}\cmidrule(lr){10-13}" in tex
    agreement = cells_of(out / "agreement.csv")
    assert [line[4] for line in agreement[1:]] == ["100.0", "100.0"]
    for name in ("one", "two"):
        for suffix in (".svg", ".png", ".html"):
            assert (out / f"{name}_path_hierarchy{suffix}").stat().st_size > 1000
    page = (out / "one_path_hierarchy.html").read_text()
    assert "<h1>one (path): effective hierarchy</h1>" in page
    assert "y|z" in page and "r_&amp;" in page and "http" not in page
    assert page.count('class="node"') == 2 + 4 + 6


def test_an_evaluation_prints_and_writes_the_same_tables(tmp_path, capsys):
    folder, _, _ = write(tmp_path)
    predictions = read_predictions(folder / "predictions" / "test.parquet")
    evaluate.report(predictions, folder, as_json=True)
    assert list(json.loads(capsys.readouterr().out)) == ["split", "examples", "levels"]
    evaluate.report(predictions, folder, as_json=False)
    printed = capsys.readouterr().out
    for table in report_tables([("run", predictions)]):
        assert table.markdown() in printed
        for suffix, text in ((".md", table.markdown()), (".csv", table.csv())):
            assert (folder / "tables" / "test" / f"{table.name}{suffix}").read_text() == text
        assert f"test/{table.name}.tex" in printed
    flat, _, _ = write(tmp_path, "flat", Taxonomy.flat(["x", "p", "q"]))
    evaluate.report(read_predictions(flat / "predictions/test.parquet"), flat, as_json=True)
    assert set(json.loads(capsys.readouterr().out)) == {"split", "examples", "levels"}
    assert not (flat / "tables").exists()


def cells_of(path):
    return list(csv.reader(path.read_text().splitlines()))


def test_what_cannot_be_compared_is_refused(tmp_path):
    for name, tree in (("one", TREE), ("other", Taxonomy.flat(["x", "p"]))):
        write(tmp_path, name, tree)
    (tmp_path / "empty").mkdir()
    arguments = ["--out", str(tmp_path / "out"), "--runs"]
    with pytest.raises(UserError) as caught:
        tables.main([*arguments, *(str(tmp_path / name) for name in ("one", "other", "empty"))])
    text = str(caught.value)
    assert "plankton_jax.evaluate --run" in text and "its tree is not that of one" in text
    write(tmp_path, "seed", seed=1)
    with pytest.raises(UserError, match="--runs seed: other images, or the same with other labels"):
        tables.main([*arguments, str(tmp_path / "one"), str(tmp_path / "seed")])
    with pytest.raises(UserError, match="--runs: one twice"):
        tables.main([*arguments, str(tmp_path / "one"), str(tmp_path / "one")])
    assert not (tmp_path / "out").exists()
