"""EcoTaxa's exports and import bundles, in every shape that its tables come in."""

import json
import pathlib
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from image_files import encoded

import data_builders
from data_builders.ecotaxa import _tree, _tsv
from plankton_jax.config import Config
from plankton_jax.data.dataset import open_dataset
from plankton_jax.data.measurements import measure
from plankton_jax.errors import UserError
from plankton_jax.run_data import open_data

HEADER = (
    "object_id", "img_file_name", "img_rank", "object_lat", "object_lon", "object_date",
    "object_time", "object_depth_min", "object_area", "object_note", "object_annotation_category",
    "object_annotation_hierarchy", "object_annotation_status", "sample_id",
)  # fmt: skip
TYPES = tuple(f"[{kind}]" for kind in "ttfffttfftttt" + "t")
ROWS = [
    ("o1", "a/1.png", "0", "43.5", "7.25", "20200131", "123456", "5", "100", "'x", "Calanoida",
     "living>Crustacea>Copepoda>Calanoida", "validated", "s1"),
    ("o2", "a/2.png", "0", "43.5", "7.25", "20200131", "", "5", "7.5", '"q\tr"', "part<Crustacea",
     "living>Crustacea>part", "validated", "s1"),
    ("o3", "3.jpg", "0", "", "", "", "", "", "", "", "Copepoda", "living>Crustacea>Copepoda",
     "validated", "s2"),
    ("o4", "4.png", "0", "1", "2", "20200131", "0", "1", "2", "", "fibre", "not-living>fibre",
     "validated", "s2"),
    ("o5", "5.png", "0", "1", "2", "20200131", "0", "1", "2", "", "fibre", "not-living>fibre",
     "predicted", "s3"),
    ("o6", "6.png", "0", "1", "2", "20200131", "0", "1", "2", "", "fibre", "not-living>fibre",
     "dubious", "s3"),
    ("o4", "4b.png", "1", "1", "2", "20200131", "0", "1", "2", "", "fibre", "not-living>fibre",
     "validated", "s2"),
    ("o7", "gone.png", "0", "1", "2", "", "", "1", "2", "", "fibre", "", "validated", "s"),
    ("o8", "8.png", "0", "1", "2", "20200131", "0", "1", "2", "", "", "", "validated", "s3"),
    ("o9", "broken.png", "0", "1", "2", "", "", "1", "2", "", "fibre", "", "validated", "s"),
]  # fmt: skip


def tsv(rows, *, header=HEADER, types: bool = True, encoding: str = "utf-8-sig") -> bytes:
    lines = [header, *([TYPES] if types else []), *rows]
    return "\n".join("\t".join(line) for line in lines).encode(encoding)


def images() -> dict[str, bytes]:
    names = ("a/1.png", "a/2.png", "3.jpg", "4.png", "5.png", "6.png", "4b.png", "8.png")
    return {n: encoded(n[-4:], seed=seed) for seed, n in enumerate(names)} | {"broken.png": b"?"}


def bundle(tmp_path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def build(tmp_path: pathlib.Path, source: pathlib.Path, **options) -> pathlib.Path:
    return data_builders.prepare("ecotaxa", data_dir=tmp_path / "data", source=source, **options)


def columns(directory: pathlib.Path, name: str = "index.arrow") -> dict[str, list]:
    return pa.ipc.open_file(directory / name).read_all().to_pydict()


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    return bundle(tmp_path, {"ecotaxa_1.tsv": tsv(ROWS), **images()})


def test_an_export(tmp_path, source):
    directory = build(tmp_path, source)
    found = columns(directory)
    assert found["id"] == ["o1", "o2", "o3", "o4"]
    assert found["group"] == ["s1", "s1", "s2", "s2"]
    dataset = open_dataset(directory)
    tree = dataset.taxonomy
    assert tree.level_names == ("level1", "level2", "taxon")
    assert {tree.path(leaf) for leaf in found["leaf"]} == {
        ("living", "Copepoda", "Calanoida"), ("living", "Copepoda", "Copepoda"),
        ("living", "part", "part<Crustacea"), ("not-living", "fibre", "fibre"),
    }  # fmt: skip
    metadata = json.loads((directory / "metadata.json").read_text())
    assert metadata["rejected"] == {
        "further image of an object": 1, "status predicted": 1, "status dubious": 1,
        "image named in a table is not there": 1, "no category": 1,
        "unreadable: not the data of a jpg, png, tif or bmp": 1,
    }  # fmt: skip


def test_objects_without_a_status_are_not_validated_but_tables_without_one_are_taken(tmp_path):
    status = HEADER.index("object_annotation_status")
    rows = [row[:status] + ("",) + row[status + 1 :] if row[0] == "o1" else row for row in ROWS]
    directory = build(tmp_path, bundle(tmp_path, {"ecotaxa.tsv": tsv(rows), **images()}))
    assert columns(directory)["id"] == ["o2", "o3", "o4"]
    assert json.loads((directory / "metadata.json").read_text())["rejected"]["no status"] == 1
    without = [row[:status] + row[status + 1 :] for row in ROWS]
    header = HEADER[:status] + HEADER[status + 1 :]
    table = tsv(without, header=header, types=False)
    directory = build(tmp_path, bundle(tmp_path, {"ecotaxa.tsv": table, **images()}))
    assert columns(directory)["id"] == ["o1", "o2", "o3", "o4", "o5", "o6"]


def test_no_table_is_passed_over_in_silence(tmp_path):
    members = {f"b/{name}": data for name, data in images().items()}
    other = [(f"p{row[0]}", *row[1:]) for row in ROWS]
    semicolons = tsv(other).replace(b"\t", b";")
    for table, count in ((tsv(other, encoding="utf-16"), 8), (semicolons, 4)):
        source = bundle(
            tmp_path,
            {"ecotaxa.tsv": tsv(ROWS), "b/more.tsv": table, "read me.txt": b"x"}
            | images() | members,
        )  # fmt: skip
        directory = build(tmp_path, source)
        assert len(columns(directory)["id"]) == count
        listed = (directory / "rejected.csv").read_text()
        assert ("b/more.tsv,no table of EcoTaxa: needed are the columns" in listed) == (count == 4)
        assert "read me" not in listed


def test_images_beside_the_folder_of_their_table_are_found(tmp_path):
    rows = [(row[0], f"../img/{row[1]}", *row[2:]) for row in ROWS]
    members = {f"img/{name}": data for name, data in images().items()}
    source = bundle(tmp_path, {"tables/ecotaxa.tsv": tsv(rows)} | members)
    assert columns(build(tmp_path, source))["id"] == ["o1", "o2", "o3", "o4"]
    rows = [(row[0], "gone.png", *row[2:]) for row in ROWS]
    with pytest.raises(UserError) as caught:
        build(tmp_path, bundle(tmp_path, {"ecotaxa.tsv": tsv(rows)} | members))
    assert "Left out: 10 image named in a table is not there." in str(caught.value)
    assert "config.data.statuses" not in str(caught.value)


def test_objects_of_one_name_in_two_samples_are_two(tmp_path):
    again = [(*row[:-1], "other") for row in ROWS]
    members = {f"b/{name}": data for name, data in images().items()}
    tables = {"a.tsv": tsv(ROWS), "b/b.tsv": tsv(again)}
    found = columns(build(tmp_path, bundle(tmp_path, tables | images() | members)))
    names = ["o1", "o2", "o3", "o4"]
    assert found["id"] == [*names, *(f"other/{name}" for name in names)]
    assert found["group"][4:] == ["other"] * 4


def test_position_and_time_are_kept(tmp_path, source):
    found = columns(build(tmp_path, source), "features.arrow")
    assert set(found) == {
        "object_lat", "object_lon", "object_depth_min", "object_depth_max", "object_time_utc",
    }  # fmt: skip
    np.testing.assert_array_equal(found["object_lat"], [43.5, 43.5, np.nan, 1.0])
    noon = np.datetime64("2020-01-31T12:34:56").astype("datetime64[s]").astype(float)
    night = np.datetime64("2020-01-31").astype("datetime64[s]").astype(float)
    np.testing.assert_array_equal(found["object_time_utc"], [noon, night, np.nan, night])


def test_numeric_columns_on_request(tmp_path, source):
    found = columns(build(tmp_path, source, features=True), "features.arrow")
    np.testing.assert_array_equal(found["object_area"], [100, 7.5, np.nan, 2])
    assert "object_note" not in found  # of text, by the line of types


def test_other_statuses_on_request(tmp_path, source):
    directory = build(tmp_path, source, statuses=("predicted", "validated"))
    assert columns(directory)["id"] == ["o1", "o2", "o3", "o4", "o5"]
    with pytest.raises(UserError, match='Did you mean "validated"'):
        build(tmp_path, source, statuses=("valid",))
    with pytest.raises(UserError, match="of 1 categories with status dubious; two are needed"):
        build(tmp_path, source, statuses=("dubious",))


def test_several_tables_in_folders_without_types_in_latin_1(tmp_path):
    header = ("objid", *HEADER[1:])
    first = [("x1", "1.png", *ROWS[0][2:10], "Cténophore", *ROWS[0][11:])]
    second = [("x2", "2.png", *ROWS[3][2:])]
    members = {
        "p/ecotaxa_a.tsv": tsv(first, header=header, types=False, encoding="latin-1"),
        "q/ecotaxa_b.tsv": tsv(second, types=True, encoding="utf-8"),
        "p/1.png": encoded(seed=1),
        "q/2.png": encoded(seed=2),
    }
    for name, data in members.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    directory = build(tmp_path, tmp_path / "folder")
    assert columns(directory)["id"] == ["x1", "x2"]
    assert set(open_dataset(directory).taxonomy.leaf_names) == {"Cténophore", "fibre"}


def test_quoted_cells_hold_tabs(tmp_path):
    rows = [list(row) for row in ROWS[:4]]
    rows[0][10] = '"Cala\tnoida"'
    source = bundle(tmp_path, {"ecotaxa.tsv": tsv(rows), **images()})
    assert "Cala\tnoida" in open_dataset(build(tmp_path, source)).taxonomy.leaf_names


def with_taxa(*taxa: tuple[str, str]) -> bytes:
    """A table of as many objects as there are images, with these categories and hierarchies."""
    rows = zip(ROWS, taxa, strict=False)
    return tsv([(*row[:10], *taxon, "validated", "s") for row, taxon in rows])


def test_taxa_of_one_last_name_are_told_apart(tmp_path):
    table = with_taxa(
        ("", "living>Crustacea>part"),
        ("", "living>Chaetognatha>part"),
        ("", "not-living>fibre"),
        ("", "living>Crustacea>part"),
    )
    directory = build(tmp_path, bundle(tmp_path, {"ecotaxa.tsv": table, **images()}))
    tree = open_dataset(directory).taxonomy
    assert [tree.path(leaf) for leaf in columns(directory)["leaf"]] == [
        ("living", "part<Crustacea"), ("living", "part<Chaetognatha"), ("not-living", "fibre"),
        ("living", "part<Crustacea"),
    ]  # fmt: skip


def test_names_of_classes():
    pairs = {
        ("", ("a", "b", "egg")): "egg<b<a", ("", ("c", "b", "egg")): "egg<b<c",
        ("", ("c", "egg")): "egg<c", ("", ("c", "tail")): "tail", ("fin", ("c", "d")): "fin",
        ("", ("c", "d")): "fin", ("egg", ()): "egg",
    }  # fmt: skip
    assert _tree.class_names(pairs) == pairs


def test_a_category_of_two_hierarchies_is_refused(tmp_path):
    table = with_taxa(
        ("part", "living>Crustacea>part"), ("part", "living>Chaetognatha>part"), ("fibre", "")
    )
    source = bundle(tmp_path, {"ecotaxa.tsv": table, **images()})
    words = '"part" has two hierarchies, "living>Chaetognatha>part" and "living>Crustacea>part"'
    with pytest.raises(UserError, match=words):
        build(tmp_path, source)


ORDER = """
from data_builders.ecotaxa import _tree
pairs = {("", ("living", name, last)) for name in "abcdef" for last in ("part", name * 2)}
print(_tree.taxonomy_of(_tree.class_names(pairs), "").to_json())
"""


def test_the_order_of_classes_is_the_same_in_every_process():
    told = {
        subprocess.run(
            [sys.executable, "-c", ORDER],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(told) == 1 and "part<a" in told.pop()


def test_numbers_that_are_not_stored_take_no_memory():
    header = (*HEADER, *(f"object_{number}" for number in range(50)))
    rows = [(f"{n}", *ROWS[0][1:], *["1.5"] * 50) for n in range(1000)]
    data = tsv(rows, header=header, types=False)

    def bytes_per_row(features: bool) -> float:
        tracemalloc.start()
        kept = list(_tsv.read_rows(data, features))
        size = tracemalloc.get_traced_memory()[0] / len(kept)
        tracemalloc.stop()
        return size

    assert bytes_per_row(False) < 600
    assert bytes_per_row(True) < 1100


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"", "ecotaxa.tsv: it is empty"),
        (b"name\tfile\n1\t2\n", "object_id"),
        (b"object_id\timg_file_name\n1\t2\t3\n", "line 2 has 3 cells for 2 columns"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, table, words):
    source = bundle(tmp_path, {"ecotaxa.tsv": table, **images()})
    with pytest.raises(UserError, match=words):
        build(tmp_path, source)


@pytest.mark.parametrize(
    ("cell", "words"),
    [('a "', ""), ('"a', "quotation mark that is not closed"), ("a\tb\tc", "line 3 has")],
)
def test_a_table_is_read_whole_or_refused(tmp_path, cell, words):
    """One line that cannot be read must not lose its table beside another that can."""
    lines = tsv(ROWS[2:], types=False).decode().splitlines()
    lines[2] = lines[2].rpartition("\t")[0] + "\t" + cell
    members = {"a.tsv": tsv(ROWS[:2]), "b.tsv": "\n".join(lines).encode(), **images()}
    source = bundle(tmp_path, members)
    if not words:
        build(tmp_path, source)
        return
    with pytest.raises(UserError, match=f"b.tsv cannot be read whole .*{words}"):
        build(tmp_path, source)


def test_an_object_without_an_id_is_left_out(tmp_path):
    nameless = ("", *ROWS[0][1:])
    directory = build(tmp_path, bundle(tmp_path, {"a.tsv": tsv([nameless, *ROWS[1:]]), **images()}))
    assert "" not in columns(directory)["id"]
    assert "no object_id" in (directory / "rejected.csv").read_text()


def test_numbers_go_to_the_network_as_measurements(tmp_path, source):
    dataset = open_dataset(build(tmp_path, source, features=True))
    found = measure(dataset, np.array([0, 1, 2, 3, -1]), ("feature:object_area", "log_side"))
    area = np.array([100, 7.5, 2])
    expected = (area - area.mean()) / area.std()
    np.testing.assert_allclose(found[:, 0], [*expected[:2], 0, expected[2], 0], rtol=1e-5)
    assert found[0, 1] != 0 and found.dtype == np.float32
    config = Config()
    config.data.dataset, config.data.data_dir = "ecotaxa", str(tmp_path / "data")
    config.data.source = str(source)
    config.data.measurements = ("feature:object_areas",)
    with pytest.raises(UserError, match="has no feature"):
        open_data(config)
