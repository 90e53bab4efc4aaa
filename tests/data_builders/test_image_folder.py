"""Folders and archives of every shape: their trees, what is left out, and what is refused."""

import csv
import json
import os
import pathlib
import stat
import struct
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from image_files import encoded, make_folder

import data_builders
from data_builders import _entries, _sources
from plankton_jax.errors import UserError
from plankton_jax.taxonomy import Taxonomy


def build(tmp_path: pathlib.Path, source: pathlib.Path, **options) -> pathlib.Path:
    options = {"data_dir": tmp_path / "data", "source": source} | options
    return data_builders.prepare("image_folder", **options)


def problems(tmp_path: pathlib.Path, source: pathlib.Path, **options) -> str:
    """The message for a source that is refused; nothing may be left of the attempt."""
    with pytest.raises(UserError) as caught:
        build(tmp_path, source, **options)
    data = tmp_path / "data"
    assert not [path for path in data.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return str(caught.value)


def taxonomy(directory: pathlib.Path) -> Taxonomy:
    return Taxonomy.from_json(json.loads((directory / "taxonomy.json").read_text()))


def index(directory: pathlib.Path) -> pa.Table:
    return pa.ipc.open_file(directory / "index.arrow").read_all()


def rejected(directory: pathlib.Path) -> dict[str, str]:
    with (directory / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def paths(directory: pathlib.Path) -> list[tuple[str, ...]]:
    tree = taxonomy(directory)
    return [tree.path(leaf) for leaf in range(tree.num_leaves)]


def write_zip(path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


# ---- trees ---------------------------------------------------------------------------------------


def test_nested_folders_give_their_tree(tmp_path):
    files = {"Diatoms/Chaetoceros": 2, "Diatoms/Thalassiosira": 1, "Jellies/Aurelia": 3}
    source = make_folder(tmp_path / "images", {**files})
    directory = build(tmp_path, source)
    assert taxonomy(directory).level_names == ("level1", "taxon")
    assert paths(directory) == [
        ("Diatoms", "Chaetoceros"), ("Diatoms", "Thalassiosira"), ("Jellies", "Aurelia")
    ]  # fmt: skip
    assert np.bincount(index(directory)["leaf"].to_numpy()).tolist() == [2, 1, 3]


def test_shorter_branches_repeat_their_last_name(tmp_path):
    source = make_folder(tmp_path / "images", {"a/b/c__x": 1, "a/b/d": 1, "a/e": 1, "detritus": 1})
    directory = build(tmp_path, source)
    assert taxonomy(directory).level_names == ("level1", "level2", "taxon")
    assert paths(directory) == [
        ("a", "b", "c__x"), ("a", "b", "d"), ("a", "e", "e"), ("detritus", "detritus", "detritus")
    ]  # fmt: skip


def test_a_folder_with_images_and_folders_is_a_class_as_well(tmp_path):
    source = make_folder(tmp_path / "images", {"a": 1, "a/b": 2, "c": 1})
    assert paths(build(tmp_path, source)) == [("a", "a"), ("a", "b"), ("c", "c")]


@pytest.mark.parametrize("top", ["", "train/", "data/ndsb/train/"])
def test_zip_and_folder_of_the_same_images_are_the_same_data_set(tmp_path, top):
    source = make_folder(tmp_path / "images", {"a b": 2, "c": 2, "notes.txt": b"?"})
    files = [path for path in source.rglob("*") if path.is_file()]
    members = {top + str(path.relative_to(source)): path.read_bytes() for path in files}
    archive = write_zip(tmp_path / "images.zip", members)
    results = [build(tmp_path, source), build(tmp_path, archive)]
    fingerprints = {
        json.loads((directory / "metadata.json").read_text())["fingerprint"]
        for directory in results
    }
    assert len(fingerprints) == 1
    assert index(results[1])["id"].to_pylist() == ["a b/0.png", "a b/1.png", "c/0.png", "c/1.png"]
    assert rejected(results[1]) == {top + "notes.txt": "not an image"}


def test_taxonomy_csv_orders_classes_and_keeps_those_without_images(tmp_path):
    table = tmp_path / "tree.csv"
    table.write_text("level1,taxon\nliving,Zoea\nliving,Calocalanus pavo\nnot living,fibre\n")
    source = make_folder(
        tmp_path / "images", {"2006/calocalanus_pavo": 2, "2006/Zoea": 1, "2007/Zoea": 2}
    )
    directory = build(tmp_path, source, taxonomy_csv=table)
    assert taxonomy(directory).leaf_names == ("Zoea", "Calocalanus pavo", "fibre")
    assert np.bincount(index(directory)["leaf"].to_numpy(), minlength=3).tolist() == [3, 2, 0]
    table.write_text("level1,taxon\nliving,Calocalanus pavo\nliving,Zoea\nnot living,fibre\n")
    assert build(tmp_path, source, taxonomy_csv=table) != directory


def test_folders_that_differ_in_spelling_alone_are_no_one_class(tmp_path):
    source = make_folder(tmp_path / "images", {"2013/egg mass": 1, "2014/Egg_mass": 1, "b/x": 1})
    table = tmp_path / "tree.csv"
    table.write_text("taxon\negg mass\nx\n")
    text = problems(tmp_path, source, taxonomy_csv=table)
    assert 'folders "2013/egg mass" and "2014/Egg_mass" would both be the class "egg mass"' in text


def test_a_class_with_a_slash_is_found_by_its_whole_path(tmp_path):
    source = make_folder(tmp_path / "images", {"egg/larva": 1, "x": 2})
    table = tmp_path / "tree.csv"
    table.write_text("Level1,Taxon,comment\nyoung,egg/larva,small\nother,x,\n")
    directory = build(tmp_path, source, taxonomy_csv=table)
    assert paths(directory) == [("young", "egg/larva"), ("other", "x")]
    assert np.bincount(index(directory)["leaf"].to_numpy()).tolist() == [1, 2]


def test_ids_stay_when_a_folder_grows(tmp_path):
    source = make_folder(tmp_path / "images", {"C/a": 1, "C/b": 1})
    before = index(build(tmp_path, source))["id"].to_pylist()
    make_folder(source, {"D/c": 1})
    assert set(before) < set(index(build(tmp_path, source))["id"].to_pylist())


def test_members_that_begin_with_a_dot_and_a_slash_are_taken(tmp_path):
    members = {f"./{name}/0.png": encoded(seed=ord(name)) for name in "ab"}
    directory = build(tmp_path, write_zip(tmp_path / "images.zip", members))
    assert index(directory)["id"].to_pylist() == ["a/0.png", "b/0.png"]


def test_taxonomy_csv_without_some_folders_names_them_all(tmp_path):
    table = tmp_path / "tree.csv"
    table.write_text("level1,taxon\nliving,copepod\nliving,zoea\n")
    source = make_folder(tmp_path / "images", {"copepods": 1, "zoea": 1, "fibre": 1})
    message = problems(tmp_path, source, taxonomy_csv=table)
    assert "config.data.taxonomy_csv" in message
    assert '"copepods"' in message and 'Did you mean "copepod"?' in message and '"fibre"' in message
    assert "config.data.taxonomy_csv" in problems(tmp_path, source, taxonomy_csv=tmp_path / "no")


# ---- what is left out ----------------------------------------------------------------------------


def test_every_kind_of_broken_file_is_left_out_with_its_reason(tmp_path):
    broken: dict[str, bytes | int] = {
        "a/empty.png": b"",
        "a/half.png": encoded(".png")[:-30],
        "a/half.jpg": encoded(".jpg")[:-30],
        "a/half.bmp": encoded(".bmp")[:-30],
        "a/half.tif": encoded(".tif")[: len(encoded(".tif")) // 3],
        "a/page.jpg": b"<html>404</html>",
        "a/notes.txt": b"words",
        "a/Thumbs.db": b"",
        "a/.DS_Store": b"",
        "__MACOSX/a/._0.png": b"",
        "stray.png": encoded(".png"),
    }
    source = make_folder(tmp_path / "images", {"a": 2, "b": 2} | broken)
    directory = build(tmp_path, source)
    assert rejected(directory) == {
        "a/empty.png": "empty file",
        "a/half.png": "truncated",
        "a/half.jpg": "truncated",
        "a/half.bmp": "truncated",
        "a/half.tif": "truncated",
        "a/page.jpg": "unreadable: not the data of a jpg, png, tif or bmp",
        "a/notes.txt": "not an image",
        "stray.png": "not in a class folder",
    }
    assert index(directory).num_rows == 4


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    source = make_folder(tmp_path / "images", {"a": 2, "b": 2})
    outside = make_folder(tmp_path / "outside", {"c": 2})
    (source / "a/out.png").symlink_to(outside / "c/0.png")
    (source / "a/up.png").symlink_to("../../outside/c/0.png")
    (source / "a/gone.png").symlink_to("nowhere.png")
    (source / "a/self.png").symlink_to("self.png")
    (source / "c").symlink_to(outside / "c")
    (source / "d").symlink_to(source / "b")
    (source / "b/in.png").symlink_to("../a/1.png")
    os.mkfifo(source / "b/pipe.png")
    directory = build(tmp_path, source)
    assert rejected(directory) == {
        "a/out.png": "symbolic link that points outside",
        "a/up.png": "symbolic link that points outside",
        "a/gone.png": "symbolic link that points nowhere",
        "a/self.png": "symbolic link that points nowhere",
        "b/pipe.png": "not a regular file",
        "c": "symbolic link that points outside",
        "d": "symbolic link to a folder",
    }
    assert "b/in.png" in index(directory)["id"].to_pylist()
    assert taxonomy(directory).leaf_names == ("a", "b")


def test_members_that_lead_out_of_the_archive_are_refused(tmp_path):
    image = encoded(".png")
    archive = tmp_path / "images.zip"
    good = {f"{name}/{n}.png": encoded(".png", seed=n) for name in "ab" for n in range(2)}
    write_zip(archive, good | {"../a/x.png": image, "/etc/x.png": image, "a/../../x.png": image})
    with zipfile.ZipFile(archive, "a") as file:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a/0.png", image)
    directory = build(tmp_path, archive)
    assert rejected(directory) == {
        "../a/x.png": "path that leads outside the archive",
        "/etc/x.png": "path that leads outside the archive",
        "a/../../x.png": "path that leads outside the archive",
        "a/link.png": "symbolic link that points outside",
        "a/0.png": "name occurs twice in the archive",
    }
    assert index(directory)["id"].to_pylist() == sorted(good)


def test_name_that_is_not_utf8_is_left_out(tmp_path):
    source = make_folder(tmp_path / "images", {"a": 1, "b": 1})
    with open(os.fsencode(source) + b"/a/\xff.png", "wb") as file:
        file.write(encoded(".png"))
    assert rejected(build(tmp_path, source)) == {"a/\\udcff.png": "name is not UTF-8"}


# ---- what is refused -----------------------------------------------------------------------------


def test_sources_that_hold_no_data_set(tmp_path):
    def folder(name: str, files: dict[str, bytes | int]) -> pathlib.Path:
        return make_folder(tmp_path / name, files)

    assert "is not there" in problems(tmp_path, tmp_path / "nowhere" / "images")
    assert "is empty" in problems(tmp_path, folder("empty", {}))
    assert "1 not an image" in problems(tmp_path, folder("texts", {"a/b.txt": b"?"}))
    stray = folder("stray", {"x.png": encoded(".png")})
    assert "1 not in a class folder" in problems(tmp_path, stray)
    assert 'one class only, "copepod"' in problems(tmp_path, folder("one", {"copepod": 3}))
    bad = folder("bad", {"a/x.png": b"", "b/y.jpg": b"?"})
    assert "a/x.png: empty file" in problems(tmp_path, bad)
    one_is_left = problems(tmp_path, folder("half", {"a/x.png": b"", "b": 3}))
    assert "one class only" in one_is_left and "a/x.png: empty file" in one_is_left
    text = tmp_path / "file.txt"
    text.write_text("no archive")
    assert "neither a folder nor a whole zip or tar archive" in problems(tmp_path, text)
    with pytest.raises(UserError, match="config.data.source: not set"):
        data_builders.prepare("image_folder", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Copepod", "copepod"),
        ("egg mass", "egg_mass"),
        ("egg mass", "egg  mass"),
        ("café", "cafe\N{COMBINING ACUTE ACCENT}"),
        ("x/larva", "y/larva"),
        ("x/Larva", "y/larva"),
    ],
)
def test_class_names_that_clash(tmp_path, first, second):
    source = make_folder(tmp_path / "images", {first: 1, second: 1, "other": 1})
    message = problems(tmp_path, source)
    assert "config.data.source" in message
    assert first.rpartition("/")[2] in message and second.rpartition("/")[2] in message


def test_corrupt_archives(tmp_path):
    members = {f"{name}/{n}.png": encoded(".png", seed=n) for name in "ab" for n in range(40)}
    archive = write_zip(tmp_path / "images.zip", members)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "Copy or download it again" in problems(tmp_path, archive)
    damaged = bytearray(whole)
    for name in ("a/7.png", "a/3.png"):
        damaged[whole.index(members[name]) + 20] ^= 0xFF
    archive.write_bytes(damaged)
    message = problems(tmp_path, archive)
    assert "2 member(s)" in message and "a/7.png" in message and "a/3.png" in message


def test_a_member_that_holds_more_than_it_says_is_not_unpacked(tmp_path):
    stated, held = 1000, 64 << 20
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.png", encoded())
        archive.writestr("b/0.png", bytes(held))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", held), struct.pack("<I", stated)))
    source = _sources.ZipSource(path)
    assert source.read(source.entries[0]) == encoded() and source.entries[1].size == stated
    tracemalloc.start()
    with pytest.raises(_entries.CorruptMemberError, match="CRC"):
        source.read(source.entries[1])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20
    source.close()


def test_zip_archives_of_other_methods_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/0.png", encoded())
    message = problems(tmp_path, tmp_path / "images.zip")
    assert "compressed by method 12" in message and "with deflate" in message


def test_a_member_that_holds_less_than_it_says_is_corrupt(tmp_path):
    members = {f"{name}/0.png": encoded(seed=seed) for seed, name in enumerate("ab")}
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    data = bytearray((tmp_path / "images.zip").read_bytes())
    listed = data.index(b"PK\x01\x02") + 24  # where the listing says the first one's size
    struct.pack_into("<I", data, listed, len(members["a/0.png"]) + 5)
    (tmp_path / "images.zip").write_bytes(data)
    message = problems(tmp_path, tmp_path / "images.zip")
    assert "1 member(s)" in message and "by the archive's listing" in message


def test_files_and_tables_that_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(_entries, "MAX_FILE_BYTES", 5000)
    source = make_folder(tmp_path / "images", {"a": 1, "b": 1, "a/big.png": bytes(5001)})
    assert rejected(build(tmp_path, source)) == {"a/big.png": "file over 64 MiB"}
    monkeypatch.setattr(_entries, "MAX_TABLE_BYTES", 10)
    listed = _sources.FolderSource(source)
    with pytest.raises(_entries.CorruptMemberError, match="over 0 GiB"):
        _entries.read_table_file(listed, listed.entries[0])


def test_file_of_a_folder_that_cannot_be_opened(tmp_path, monkeypatch):
    source = make_folder(tmp_path / "images", {"a": 2, "b": 2})
    read_bytes = pathlib.Path.read_bytes

    def refuse(path: pathlib.Path) -> bytes:
        if path.name == "1.png" and path.parent.name == "a":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    assert rejected(build(tmp_path, source)) == {"a/1.png": "unreadable: cannot be opened"}
