"""Published data sets, built from small archives in the layouts in which they are published."""

import collections
import csv
import gzip
import io
import json
import pathlib
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from image_files import encoded

import data_builders
from data_builders import _entries, _published, _sources, _staging
from data_builders._files_builder import FilesBuilder
from data_builders.whoi import whoi_dataset_builder
from plankton_jax import run_data
from plankton_jax.config import Config
from plankton_jax.data.dataset import open_dataset
from plankton_jax.errors import UserError
from plankton_jax.run_data import open_data
from plankton_jax.taxonomy import Taxonomy

ROOT = pathlib.Path(data_builders.__file__).parent


def jpeg(seed: int) -> bytes:
    return encoded(".jpg", seed=seed, height=9 + seed % 5, width=12)


def write_tar(path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def table(header: str, *rows: str) -> bytes:
    return gzip.compress("\n".join((header, *rows, "")).encode())


def index(directory: pathlib.Path) -> dict[str, list]:
    return pa.ipc.open_file(directory / "index.arrow").read_all().to_pydict()


def labels(directory: pathlib.Path) -> dict[str, str]:
    """The class of every image by its id."""
    names = open_dataset(directory).taxonomy.leaf_names
    columns = index(directory)
    return {i: names[leaf] for i, leaf in zip(columns["id"], columns["leaf"], strict=True)}


def rejected(directory: pathlib.Path) -> dict[str, str]:
    with (directory / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


V1 = {
    "ZooScanSet/imgs/Calanidae/101.jpg": jpeg(1),
    "ZooScanSet/imgs/Calanidae/102.jpg": jpeg(2),
    "ZooScanSet/imgs/Calocalanus pavo/103.jpg": jpeg(3),
    "ZooScanSet/imgs/detritus/104.jpg": jpeg(4),
    "ZooScanSet/imgs/detritus/105.jpg": jpeg(5),
    "ZooScanSet/imgs/detritus/106.jpg": jpeg(6),
    "ZooScanSet/taxa.csv.gz": table(
        "objid,taxon,lineage",
        "101,Calanidae,/living/a",
        "102,Calanidae,/living/a",
        "103,Calocalanus pavo,/living/b",
        "104,detritus,/not-living/detritus",
        "106,Calanidae,/living/a",
    ),
    "ZooScanSet/features_native.csv.gz": table(
        "objid,area,name,mean", "104,12,x,0.5", "101,7,y,1.5", "103,3,z,"
    ),
}


def test_zooscan_v1(tmp_path):
    source = write_tar(tmp_path / "57398.tar", V1)
    directory = data_builders.prepare("zooscan/v1", data_dir=tmp_path / "data", source=source)
    assert labels(directory) == {
        "101": "Calanidae", "102": "Calanidae", "103": "Calocalanus pavo", "104": "detritus",
    }  # fmt: skip
    assert rejected(directory) == {
        "ZooScanSet/imgs/detritus/105.jpg": "not in taxa.csv.gz",
        "ZooScanSet/imgs/detritus/106.jpg": "class in taxa.csv.gz differs from its folder",
    }
    dataset = open_dataset(directory)
    assert dataset.taxonomy.num_leaves == 93 and dataset.taxonomy.depth == 3
    assert dataset.read_images(np.array([2]))[0] == V1["ZooScanSet/imgs/Calocalanus pavo/103.jpg"]
    metadata = json.loads((directory / "metadata.json").read_text())
    assert metadata["lineages"]["detritus"].endswith("detritus")
    assert metadata["licence"] == "CC-BY-NC-4.0"
    assert not (directory / "features.arrow").exists()


def unpack(members: dict[str, bytes], folder: pathlib.Path) -> pathlib.Path:
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def fingerprint(directory: pathlib.Path) -> str:
    return json.loads((directory / "metadata.json").read_text())["fingerprint"]


def test_zooscan_is_the_same_from_a_folder_and_any_archive(tmp_path):
    sources = (
        write_tar(tmp_path / "57398.tar", V1),
        write_zip(tmp_path / "57398.zip", V1),
        unpack(V1, tmp_path / "unpacked"),
    )
    found = {
        fingerprint(
            data_builders.prepare(
                "zooscan/v1", data_dir=tmp_path / "data", source=source, features=True
            )
        )
        for source in sources
    }
    assert len(found) == 1


def test_the_other_release_of_zooscan_is_told(tmp_path):
    source = write_tar(tmp_path / "57398.tar", V1)
    with pytest.raises(UserError) as caught:
        data_builders.prepare("zooscan/v2", data_dir=tmp_path / "data", source=source)
    text = str(caught.value)
    assert f"{source}: ZooScanSet/taxa.csv.gz has no column taxon_level1" in text
    assert "it has objid, taxon, lineage. That is zooscan/v1." in text


REPEATED = "id that occurred before"


def test_zooscan_takes_an_objid_once_also_when_its_build_was_stopped(tmp_path, monkeypatch):
    """By the listing: what a build that went on, or a range of one, has taken itself is too little
    to tell."""
    again = {"ZooScanSet/imgs/Calanidae/101.png": encoded(seed=7)}
    wrong = {"ZooScanSet/imgs/Calanidae/104.jpg": jpeg(4)}  # ahead of the one that is right
    source = write_tar(tmp_path / "57398.tar", wrong | V1 | again)

    def build(name: str) -> pathlib.Path:
        return data_builders.prepare("zooscan/v1", data_dir=tmp_path / name, source=source)

    whole = build("whole")
    assert rejected(whole)["ZooScanSet/imgs/Calanidae/101.png"] == REPEATED
    assert labels(whole)["104"] == "detritus"
    monkeypatch.setattr(_staging, "MAX_SHARD_RECORDS", 2)
    save, saved = _staging.Staging.save, []

    def stop(self):
        save(self)
        saved.append(self.position)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(_staging.Staging, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        build("stopped")
    assert labels(build("stopped")) == labels(whole) and saved[0] > 0


def test_tables_of_features_that_cannot_be(tmp_path):
    name = "ZooScanSet/features_native.csv.gz"
    for features, words in (
        (table("objid,area,area", "101,1,2"), "column area twice"),
        (table("objid,name", "101,x"), "no column of numbers"),
        (table("objid,area", "1000,2"), "no objid of these images"),
        (table("area,mean", "1000,2"), "no column objid"),
    ):
        source = write_tar(tmp_path / "57398.tar", V1 | {name: features})
        with pytest.raises(UserError, match=words):
            data_builders.prepare("zooscan/v1", data_dir=tmp_path, source=source, features=True)


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("lensless", ["a/TRAIN_IMAGE/VOLVOX/1.png", "b/TRAIN_IMAGE/VOLVOX/1.png"]),
        ("ndsb", ["train/fecal_pellet/1.png", "more/fecal_pellet/1.png"]),
        ("whoi", ["2006/mix/x_1.png", "backup/2006/mix/x_1.png"]),
    ],
)
def test_ids_that_are_there_twice_are_taken_once(tmp_path, name, members):
    folder, _, file = members[0].rpartition("/")
    other = {"lensless": "PARAMECIUM BURSARIA", "ndsb": "copepod_calanoid", "whoi": "detritus"}
    second = f"{folder.rpartition('/')[0]}/{other[name]}/{file}"
    source = write_zip(
        tmp_path / "x.tar.zip",  # a zip archive, whatever it is called
        {path: encoded(seed=n) for n, path in enumerate([*members, second])},
    )
    directory = data_builders.prepare(name, data_dir=tmp_path / "data", source=source)
    assert len(index(directory)["id"]) == 2
    assert list(rejected(directory).values()) == [REPEATED]


def test_sources_of_which_a_part_would_be_ignored_are_refused(tmp_path):
    write_zip(tmp_path / "train.zip", {"train/fecal_pellet/1.jpg": jpeg(1)})
    with pytest.raises(UserError, match=r"has no test.zip, which .* set config.data.dataset=ndsb"):
        data_builders.prepare("ndsb/all", data_dir=tmp_path / "data", source=tmp_path)
    write_zip(tmp_path / "2006.zip", {"2006/mix/1.png": encoded()})
    (tmp_path / "2007").mkdir()
    with pytest.raises(UserError, match="archives of 2006 and folders of 2007"):
        data_builders.prepare("whoi", data_dir=tmp_path / "data", source=tmp_path)


def test_a_built_data_set_takes_no_settings_of_its_source(tmp_path):
    source = write_tar(tmp_path / "57398.tar", V1)
    built = data_builders.prepare("zooscan/v1", data_dir=tmp_path / "data", source=source)
    assert data_builders.prepare(str(built), data_dir=tmp_path / "data") == built
    for given in ({"source": source}, {"features": True}, {"statuses": ("validated",)}):
        with pytest.raises(UserError, match=f"config.data.{next(iter(given))}: has no meaning"):
            data_builders.prepare(str(built), data_dir=tmp_path / "data", **given)


def test_zooscan_native_features(tmp_path):
    source = write_tar(tmp_path / "57398.tar", V1)
    directory = data_builders.prepare(
        "zooscan/v1", data_dir=tmp_path / "data", source=source, features=True
    )
    features = pa.ipc.open_file(directory / "features.arrow").read_all()
    assert features.column_names == ["area", "mean"]
    np.testing.assert_array_equal(features["area"].to_numpy(), [7, np.nan, 3, 12])
    np.testing.assert_array_equal(features["mean"].to_numpy(), [1.5, np.nan, np.nan, 0.5])
    statistics = json.loads((directory / "metadata.json").read_text())["features"]
    assert statistics["mean"] == [1.0, 0.5]


def test_zooscan_v2_has_its_official_split(tmp_path):
    paths = {"11": "larvae_Annelida", "12": "larvae_Annelida", "13": "bubble", "14": "bubble"}
    sets = dict(zip(paths, ("train", "val", "valid", "test"), strict=True))
    members = {f"ZooScanNet/imgs/{name}/{i}.jpg": jpeg(int(i)) for i, name in paths.items()}
    members["ZooScanNet/taxa.csv.gz"] = table(
        "objid,taxon_level1,lineage_level1,taxon_level2,plankton,set,img_path",
        *(f"{i},{name},/x,y,TRUE,{sets[i]},imgs/{name}/{i}.jpg" for i, name in paths.items()),
    )
    source = write_tar(tmp_path / "113141.tar", members)
    directory = data_builders.prepare("zooscan/v2", data_dir=tmp_path / "data", source=source)
    columns = index(directory)
    assert dict(zip(columns["id"], columns["split"], strict=True)) == {
        "11": "train", "12": "validation", "13": "validation", "14": "test",
    }  # fmt: skip
    assert open_dataset(directory).taxonomy.path(0)[0] == "relevant"


def test_the_tree_of_zooscan_v2_follows_its_rule():
    with (ROOT / "zooscan/v1.csv").open(newline="", encoding="utf-8") as file:
        v1 = list(csv.DictReader(file))
    relevant = {row["level2"] for row in v1 if row["level1"] == "relevant"}
    with (ROOT / "zooscan/v2.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        known = (
            relevant if row["level1"] == "relevant" else {"artefact", "detritus", "egg", "seaweed"}
        )
        names = [name for name in row["lineage"].split("/") if name in known]
        assert row["level2"] == (names[0] if names else "other")
    assert len(rows) == 120


@pytest.mark.parametrize(
    ("file", "depth", "leaves", "images"),
    [
        ("zooscan/v1.csv", 3, 93, 1_433_278),
        ("zooscan/v2.csv", 3, 120, None),
        ("whoi/tree.csv", 3, 103, None),
        ("zoolake/tree.csv", 3, 35, None),
        ("lensless/tree.csv", 2, 10, 6_400),
        ("ndsb/tree.csv", 3, 121, None),
    ],
)
def test_trees(file, depth, leaves, images):
    tree = Taxonomy.from_csv(ROOT / file)
    assert (tree.depth, tree.num_leaves) == (depth, leaves)
    if images:
        with (ROOT / file).open(newline="", encoding="utf-8") as opened:
            assert sum(int(row["count"]) for row in csv.DictReader(opened)) == images


def test_whoi_merges_its_years(tmp_path):
    pid, other = "IFCB1_2006_158_000036_00002", "IFCB5_2007_028_081515_00011"
    write_zip(tmp_path / "2006.zip", {
        f"2006/mix/{pid}.png": encoded(seed=1), "2006/Chaetoceros/x_00001.png": encoded(seed=2),
    })  # fmt: skip
    write_zip(tmp_path / "2007.zip", {f"2007/mix/{other}.png": encoded(seed=3)})
    directory = data_builders.prepare("whoi", data_dir=tmp_path / "data", source=tmp_path)
    columns = index(directory)
    assert labels(directory) == {
        f"2006/mix/{pid}.png": "mix", "2006/Chaetoceros/x_00001.png": "Chaetoceros",
        f"2007/mix/{other}.png": "mix",
    }  # fmt: skip
    groups = dict(zip(columns["id"], columns["group"], strict=True))
    assert groups[f"2006/mix/{pid}.png"] == "2006/IFCB1_2006_158_000036"
    assert groups[f"2007/mix/{other}.png"] == "2007/IFCB5_2007_028_081515"


def test_progress_knows_the_images_of_archives_that_are_not_open_yet(tmp_path, monkeypatch):
    monkeypatch.setattr("data_builders.base.PROGRESS_EVERY", 1)
    for year, count in ((2006, 6), (2007, 12)):
        members = {
            f"{year}/detritus/{year}_{n:03d}.png": encoded(".png", seed=n, height=20, width=20)
            for n in range(count)
        }
        members[f"{year}/Chaetoceros/{year}_x.png"] = encoded(".png", seed=99)
        write_zip(tmp_path / f"{year}.zip", members)
    steps = []
    data_builders.prepare(
        "whoi", data_dir=tmp_path / "data", source=tmp_path,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert [done for done, _ in steps] == [*range(1, 21), 20]
    assert steps[0][1] == pytest.approx(20, abs=2) and steps[-2][1] == 20


def test_progress_tells_rate_and_time_left(monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = run_data._progress("whoi", told.append)
    for seconds, done, total in (
        (0, 5000, None),
        (5, 5500, 9000),
        (10, 6000, 9000),
        (21, 7100, None),
    ):
        now[0] = 100.0 + seconds
        progress(done, total)
    assert told == [
        "whoi: 6000 images read of about 9000, 0:30 left (100 a second)",
        "whoi: 7100 images read (100 a second)",
    ]


def test_a_class_that_the_tree_lacks_is_refused(tmp_path):
    members = {f"2006/{name}/a_{n}.png": encoded(seed=n) for name in ("mix", "dog") for n in (1, 2)}
    source = write_zip(tmp_path / "2006.zip", members)
    with pytest.raises(
        UserError, match='2006.zip: .*does not have: "dog". Give the archive of whoi'
    ):
        data_builders.prepare("whoi", data_dir=tmp_path / "data", source=source)
    assert not [path for path in (tmp_path / "data").rglob("shard*")]


def test_zoolake_has_its_official_split(tmp_path):
    names = ["daphnia/training_data/1.jpeg", "daphnia/training_data/2.jpeg",
             "cyclops/training_data/3.jpeg", "cyclops/training_data/4.jpeg"]  # fmt: skip
    members = {f"data/zooplankton_0p5x/{name}": encoded(".jpg", seed=n, channels=3)
               for n, name in enumerate(names)}  # fmt: skip
    members |= {
        f"data/zoolake_train_test_val_separated/{part}_filenames.txt": text.encode()
        for part, text in (
            ("train", f"/somewhere/data/zooplankton_0p5x/{names[0]}\n"),
            ("val", f"C:\\x\\{names[1].replace('/', chr(92))}\r\n"),
            ("test", f"{names[2]}\n"),
        )
    }
    source = write_zip(tmp_path / "data.zip", members)
    directory = data_builders.prepare("zoolake", data_dir=tmp_path / "data", source=source)
    columns = index(directory)
    assert dict(zip(columns["id"], columns["split"], strict=True)) == {
        names[0]: "train", names[1]: "validation", names[2]: "test", names[3]: "",
    }  # fmt: skip
    assert set(labels(directory).values()) == {"daphnia", "cyclops"}
    unpack(members, tmp_path / "unpacked")
    unpacked = data_builders.prepare(
        "zoolake", data_dir=tmp_path / "data", source=tmp_path / "unpacked"
    )
    assert fingerprint(unpacked) == fingerprint(directory)
    list_name = "data/zoolake_train_test_val_separated/val_filenames.txt"
    write_zip(tmp_path / "data.zip", members | {list_name: b"\xff\xfe1.jpeg"})
    with pytest.raises(UserError, match="val_filenames.txt, a list of the official split, cannot"):
        data_builders.prepare("zoolake", data_dir=tmp_path / "other", source=source)


def test_lensless_with_a_double_space_in_a_name(tmp_path):
    for n, path in enumerate(("TRAIN_IMAGE/PARAMECIUM  BURSARIA/a.png", "TEST_IMAGE/VOLVOX/b.png")):
        file = tmp_path / "lensless_dataset" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(encoded(seed=n))
    source = tmp_path / "lensless_dataset"
    directory = data_builders.prepare("lensless", data_dir=tmp_path / "data", source=source)
    columns = index(directory)
    assert sorted(zip(columns["split"], columns["id"], strict=True)) == [
        ("test", "TEST_IMAGE/VOLVOX/b.png"),
        ("train", "TRAIN_IMAGE/PARAMECIUM  BURSARIA/a.png"),
    ]


def test_ndsb_with_images_that_have_no_label(tmp_path):
    classes = {"copepod_calanoid": 1, "fecal_pellet": 2}
    members = {f"train/{name}/{n}.jpg": jpeg(n) for name, n in classes.items()}
    write_zip(tmp_path / "train.zip", members)
    write_zip(tmp_path / "test.zip", {"test/7.jpg": jpeg(7), "test/8.jpg": jpeg(8)})
    options = {"data_dir": tmp_path / "data", "source": tmp_path}
    labelled = data_builders.prepare("ndsb", **options)
    assert index(labelled)["id"] == ["copepod_calanoid/1.jpg", "fecal_pellet/2.jpg"]
    everything = data_builders.prepare("ndsb/all", **options)
    columns = index(everything)
    unlabelled = [i for i, leaf in zip(columns["id"], columns["leaf"], strict=True) if leaf < 0]
    assert unlabelled == ["test/7.jpg", "test/8.jpg"] and len(columns["id"]) == 4


def test_images_without_a_label_are_in_no_part(tmp_path):
    classes = ("copepod_calanoid", "fecal_pellet")
    write_zip(
        tmp_path / "train.zip", {f"train/{classes[n % 2]}/{n}.jpg": jpeg(n) for n in range(20)}
    )
    write_zip(tmp_path / "test.zip", {f"test/{n}.jpg": jpeg(n) for n in range(20, 25)})
    config = Config()
    config.data.dataset, config.data.source = "ndsb/all", str(tmp_path)
    config.data.data_dir = str(tmp_path / "data")
    for config.split.method in ("hash", "stratified"):
        data = open_data(config)
        leaf = data.dataset.leaf
        assert (leaf[data.rows["unlabelled"]] == -1).all() and len(data.rows["unlabelled"]) == 5
        parts = np.concatenate([data.rows[part] for part in ("train", "validation", "test")])
        assert sorted(parts) == np.flatnonzero(leaf >= 0).tolist()
    train_rows = data.rows["train"]
    assert data.class_counts("train").sum() == len(train_rows)


def test_variants_and_sources_that_there_are_not(tmp_path):
    options = {"data_dir": tmp_path / "data"}
    with pytest.raises(UserError, match='or "zooscan/v1"'):
        data_builders.prepare("zooscan/v3", **options)
    for name in ("ndsb", "lensless"):
        with pytest.raises(UserError, match="config.data.source: not set. Needed: "):
            data_builders.prepare(name, **options)
    with pytest.raises(UserError, match="config.data.features: True has no meaning"):
        data_builders.prepare("whoi", source=tmp_path, features=True, **options)
    empty = write_zip(tmp_path / "2006.zip", {"readme.txt": b""})
    with pytest.raises(UserError, match="holds no image of whoi in the layout"):
        data_builders.prepare("whoi", source=empty, **options)


def test_the_names_of_variants_are_the_builders():
    for name, variants in data_builders._VARIANTS.items():
        module = __import__(f"data_builders.{name}.{name}_dataset_builder", fromlist=["Builder"])
        assert module.Builder.variants == variants


@pytest.mark.parametrize("damage", ["cut", "gzip", "link"])
def test_tar_archives_that_are_damaged_or_lead_outside(tmp_path, damage):
    source = write_tar(tmp_path / "57398.tar", V1)
    if damage == "cut":
        source.write_bytes(source.read_bytes()[:3000])
        message = "is no whole tar archive .*Copy or download it"
    elif damage == "gzip":
        source.write_bytes(gzip.compress(source.read_bytes()))
        message = "is no whole tar archive .*has to be decompressed first"
    else:
        with tarfile.open(source, "a") as archive:
            info = tarfile.TarInfo("ZooScanSet/imgs/detritus/107.jpg")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
            info = tarfile.TarInfo("../ZooScanSet/imgs/detritus/108.jpg")
            archive.addfile(info)
        message = ""
    options = {"data_dir": tmp_path / "data", "source": source}
    if message:
        with pytest.raises(UserError, match=message):
            data_builders.prepare("zooscan/v1", **options)
        return
    directory = data_builders.prepare("zooscan/v1", **options)
    assert len(labels(directory)) == 4
    reasons = rejected(directory)
    assert reasons["ZooScanSet/imgs/detritus/107.jpg"] == "symbolic link that points outside"
    assert reasons["../ZooScanSet/imgs/detritus/108.jpg"] == "path that leads outside the archive"
    assert len(reasons) == 4 and not [path for path in reasons if path.endswith(".gz")]


def test_archives_are_looked_at_before_the_first_is_built(tmp_path, monkeypatch):
    """Fetched ones: a page of the host in the place of the last, then one that is cut."""
    folder = tmp_path / "data/downloads/whoi"
    folder.mkdir(parents=True)
    for year in whoi_dataset_builder.HANDLES:
        write_zip(folder / f"{year}.zip", {
            f"{year}/{name}/{year}_{n}.png": encoded(seed=n) for n, name in
            enumerate(("mix", "Chaetoceros"))
        })  # fmt: skip
    whole = (folder / "2014.zip").read_bytes()
    steps = []
    monkeypatch.setattr("data_builders.base.PROGRESS_EVERY", 1)
    options = {"data_dir": tmp_path / "data", "progress": lambda *step: steps.append(step)}
    for content in (b"<html>", whole[:-40]):
        (folder / "2014.zip").write_bytes(content)
        with pytest.raises(UserError, match="2014.zip: is neither .*2014.zip is removed, the same"):
            data_builders.prepare("whoi", **options)
    assert not steps
    at = whole.index(b"IDAT") + 8
    (folder / "2014.zip").write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    with pytest.raises(UserError, match="^whoi in .*corrupt archive, 1 .*whoi/2014.zip: 2014/mix"):
        data_builders.prepare("whoi", **options)
    assert not [path for path in (tmp_path / "data").rglob("shard*")]
    (folder / "2014.zip").write_bytes(whole)
    assert len(index(data_builders.prepare("whoi", **options))["id"]) == 18


def test_a_build_goes_on_when_an_archive_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(_staging, "MAX_SHARD_RECORDS", 2)
    for year in (2006, 2007):
        members = {f"{year}/{name}/{year}_{n}.png": encoded(seed=n) for n, name in
                   enumerate(("mix", "mix", "Chaetoceros"))}  # fmt: skip
        write_zip(tmp_path / f"{year}.zip", members)
    options = {"data_dir": tmp_path / "data", "source": tmp_path}
    opened = []

    def gone(path):
        opened.append(path)
        if len(opened) == 4:  # listed both, built the first
            raise UserError("2007.zip: cannot be read")
        return _sources.open_source(path)

    with monkeypatch.context() as patch:
        patch.setattr(_published, "open_source", gone)
        with pytest.raises(UserError, match="cannot be read"):
            data_builders.prepare("whoi", **options)
    begun = []
    items = FilesBuilder.items
    monkeypatch.setattr(
        FilesBuilder, "items", lambda self, start: begun.append(start) or items(self, start)
    )
    directory = data_builders.prepare("whoi", **options)
    assert begun == [2] and len(index(directory)["id"]) == 6
    assert list(directory.parent.iterdir()) == [directory]


def test_tables_that_cannot_be_read(tmp_path):
    without = {name: data for name, data in V1.items() if "taxa" not in name}
    source = write_tar(tmp_path / "57398.tar", without)
    options = {"data_dir": tmp_path / "data", "source": source}
    with pytest.raises(UserError, match="has no taxa.csv.gz"):
        data_builders.prepare("zooscan/v1", **options)
    whole = V1["ZooScanSet/taxa.csv.gz"]
    for bad in (b"\x1f\x8b no gzip", whole[:-9], whole[:30] + bytes(3) + whole[33:]):
        write_tar(source, V1 | {"ZooScanSet/taxa.csv.gz": bad})
        with pytest.raises(UserError, match="taxa.csv.gz cannot be read as a table"):
            data_builders.prepare("zooscan/v1", **options)


def test_a_table_that_grows_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_entries, "MAX_TABLE_BYTES", 2000)
    grown = table("objid,taxon", *["101,Calanidae"] * 1000)
    assert len(grown) < 2000
    source = write_tar(tmp_path / "57398.tar", V1 | {"ZooScanSet/taxa.csv.gz": grown})
    with pytest.raises(UserError, match="taxa.csv.gz .*once it is decompressed"):
        data_builders.prepare("zooscan/v1", data_dir=tmp_path / "data", source=source)


def test_real_ndsb_counts_are_those_of_the_table(real_images, tmp_path):
    directory = data_builders.prepare("ndsb/all", data_dir=tmp_path, source=real_images / "ndsb")
    columns = index(directory)
    counts = collections.Counter(columns["leaf"])
    assert counts.pop(-1) == 6_072
    assert sum(counts.values()) == 24_264 and len(counts) == 121
    with (ROOT / "ndsb/tree.csv").open(newline="", encoding="utf-8") as file:
        published = [int(row["count"]) for row in csv.DictReader(file)]
    # The table counts all 30,336 labelled images, of which this archive holds four fifths.
    found = [counts[leaf] for leaf in range(121)]
    assert sum(published) == 30_336
    assert all(most // 2 <= count <= most for count, most in zip(found, published, strict=True))
