"""The table of native features is read piece by piece, and gives what reading it whole gives."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv

from data_builders._published import table_batches
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
    assert FeatureTable(pieces, Rows([])).names == ("n",)
    with pytest.raises(NotAFeatureTable, match="is not there"):
        FeatureTable([], Rows(["a"]))
    with pytest.raises(NotAFeatureTable, match="has no column objid"):
        FeatureTable([pieces[0].select(["n"])], Rows(["a"]))


def test_rows_are_found_as_in_a_dictionary():
    keys = [str(key) for key in np.random.default_rng(1).integers(0, 500, 1000)]
    rows = Rows(keys)
    asked = [str(key) for key in range(-3, 503)]
    wanted = [keys.index(key) if key in keys else -1 for key in asked]
    assert rows.find_all(asked).tolist() == wanted == [rows.find(key) for key in asked]
