"""The table of native features is read piece by piece, and gives what reading it whole gives."""

import gzip
import io
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv

from data_builders._csv_tables import MissingColumn, UnreadableTable, table_batches
from data_builders._sources import open_source
from data_builders.zooscan._feature_table import FeatureTable, NotAFeatureTable, Rows

NAME = "features_native.csv.gz"
COUNT = 60_000  # three megabytes, of which one is read at a time


def text_of(count: int = COUNT) -> str:
    """A table whose columns show late what they are."""
    random = np.random.default_rng(0)
    keys = random.permutation(count)
    lines = ["objid,whole,late_fraction,late_text,empty,late_number,padded,missing,flag"]
    for i, key in enumerate(keys.tolist()):
        late = i == count - 1
        lines.append(
            f"{key},{i},{i / 7 if late else i},{'x' if late else i},,{i if late else ''},"
            f" {i}.25 ,{'NaN' if i % 3 else random.normal()},{'true' if i % 2 else 'false'}"
        )
    return "\n".join((*lines, ""))


def write(path, data: bytes) -> str:
    """The table in a folder, a zip archive or a tar archive, by the path's suffix."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"a/{NAME}", data)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(f"a/{NAME}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    else:
        path.mkdir()
        (path / NAME).write_bytes(data)
    return str(path)


@pytest.mark.parametrize("name", ["folder", "x.zip", "x.tar"])
def test_pieces_give_what_the_whole_gives(tmp_path, name):
    text = text_of()
    whole = arrow_csv.read_csv(io.BytesIO(text.encode()))
    source = open_source(write(tmp_path / name, gzip.compress(text.encode(), 1)))
    batches = list(table_batches(source, NAME, nulls=True))
    assert len(batches) > 2
    labels = [str(key) for key in range(-5, COUNT, 2)]
    found = FeatureTable(batches, Rows(labels))
    assert found._values.shape[1] == 7  # whose first rows are numbers or empty; none for the flag
    assert found.names == ("whole", "late_fraction", "late_number", "padded", "missing")
    rows = {str(key): row for row, key in enumerate(whole["objid"].to_pylist())}
    columns = [whole[n].cast(pa.float64()).to_numpy() for n in found.names]
    for row in (0, 1, 2, 3, 4, len(labels) - 1, *range(5, len(labels), 997)):
        place = rows.get(labels[row])
        wanted = [np.nan] * 5 if place is None else [column[place] for column in columns]
        np.testing.assert_array_equal(found.values(row), wanted)


def test_the_first_row_of_a_key_counts_within_and_across_pieces():
    def batch(keys, numbers):
        columns = [pa.array(keys, pa.string()), pa.array(numbers, pa.string())]
        return pa.record_batch(columns, names=["objid", "n"])

    pieces = [batch(["a", "b", "a", None], ["1", None, "2", "9"]), batch(["b", "c"], ["3", "4"])]
    found = FeatureTable(pieces, Rows(["a", "b", "c", "d"]))
    np.testing.assert_array_equal([found.values(i)[0] for i in range(4)], [1, np.nan, 4, np.nan])
    assert found.missing == 1
    for keys, words in (
        ([], "no number of these"),
        (["d"], "no objid of these"),
        (["x"], "no objid"),
    ):
        with pytest.raises(NotAFeatureTable, match=words):
            FeatureTable(pieces, Rows(keys))
    with pytest.raises(NotAFeatureTable, match="is not there"):
        FeatureTable([], Rows(["a"]))
    with pytest.raises(NotAFeatureTable, match="has no column objid"):
        FeatureTable([pieces[0].select(["n"])], Rows(["a"]))


def test_text_in_another_encoding_is_no_number(tmp_path):
    data = "objid,name,area\n1,Caf\xe9,2\n".encode("latin-1")
    source = open_source(write(tmp_path / "x.tar", gzip.compress(data)))
    assert FeatureTable(table_batches(source, NAME, nulls=True), Rows(["1"])).names == ("area",)
    with pytest.raises(UnreadableTable, match="a/features_native.csv.gz cannot be read"):
        list(table_batches(source, NAME))


def test_a_table_of_a_header_alone_is_there(tmp_path):
    source = open_source(write(tmp_path / "x.tar", gzip.compress(b"objid,area\n")))
    (batch,) = table_batches(source, NAME)
    assert batch.num_rows == 0 and batch.schema.names == ["objid", "area"]
    with pytest.raises(MissingColumn, match="no column taxon; it has objid, area"):
        list(table_batches(source, NAME, ["taxon"]))
    assert not list(table_batches(source, "other.csv"))


SCRIPT = """
import sys
import data_builders
try:
    data_builders.prepare("zooscan/v1", data_dir=sys.argv[1], source=sys.argv[2], features=True)
except Exception as error:
    sys.exit(type(error).__name__)
"""


def test_a_large_table_that_is_refused_does_not_take_the_process_with_it(tmp_path):
    """It is left behind its first piece; a reader that reads ahead would be in the middle."""
    text = "objid,a,a\n" + "".join(f"{i},{i},{i}\n" for i in range(900_000))
    members = {
        "imgs/Calanidae/1.jpg": b"",
        "taxa.csv.gz": gzip.compress(b"objid,taxon\n1,Calanidae\n"),
        NAME: gzip.compress(text.encode(), 1),
    }
    with tarfile.open(tmp_path / "57398.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"ZooScanSet/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    command = [sys.executable, "-c", SCRIPT, tmp_path / "data", tmp_path / "57398.tar"]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr.strip()) == (1, "UserError")


def test_rows_are_found_as_in_a_dictionary():
    keys = [str(key) for key in np.random.default_rng(1).integers(0, 500, 1000)]
    rows = Rows(keys)
    asked = [str(key) for key in range(-3, 503)]
    wanted = [keys.index(key) if key in keys else -1 for key in asked]
    assert rows.find_all(asked).tolist() == wanted == [rows.find(key) for key in asked]
