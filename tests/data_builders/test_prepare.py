"""Building once, building again when the source changed, and leaving nothing half-built."""

import errno
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds
from image_files import encoded, make_folder

import data_builders
from data_builders import _staging, base
from data_builders._files_builder import FilesBuilder
from plankton_jax.errors import UserError


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    return make_folder(tmp_path / "images", {"a": 120, "b": 80})


def prepare(tmp_path: pathlib.Path, source: pathlib.Path, **options) -> pathlib.Path:
    return data_builders.prepare(
        "image_folder", data_dir=tmp_path / "data", source=source, **options
    )


def remains(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    """Files below the data directory, locks aside."""
    files = (tmp_path / "data").rglob("*")
    return [path for path in files if path.is_file() and path.suffix != ".lock"]


def test_a_built_data_set_is_used_again(tmp_path, source):
    first = prepare(tmp_path, source)
    stamp = (first / "metadata.json").stat().st_mtime_ns
    assert prepare(tmp_path, source) == first
    assert (first / "metadata.json").stat().st_mtime_ns == stamp
    assert data_builders.prepare(str(first), data_dir=tmp_path / "data") == first
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["image_folder"]


@pytest.mark.parametrize("change", ["add", "remove", "rename", "touch"])
def test_a_changed_source_is_built_anew(tmp_path, source, change):
    first = prepare(tmp_path, source)
    image = source / "a/0.png"
    if change == "add":
        (source / "a/new.png").write_bytes(encoded(".png", seed=999))
    elif change == "remove":
        image.unlink()
    elif change == "rename":
        image.rename(source / "a/renamed.png")
    else:
        image.write_bytes(image.read_bytes())
    second = prepare(tmp_path, source)
    assert second != first and base.is_built(first) and base.is_built(second)


def test_incomplete_directory_is_built_again(tmp_path, source):
    directory = prepare(tmp_path, source)
    (directory / "metadata.json").unlink()
    with pytest.raises(UserError, match="holds no built data set"):
        data_builders.prepare(str(directory), data_dir=tmp_path)
    assert prepare(tmp_path, source) == directory
    assert base.is_built(directory)


def test_names_and_options(tmp_path, source):
    with pytest.raises(UserError, match='Did you mean "image_folder"'):
        data_builders.prepare("imagefolder", data_dir=tmp_path)
    with pytest.raises(UserError, match="config.data.dataset=image_folder"):
        data_builders.prepare(str(source), data_dir=tmp_path)
    with pytest.raises(UserError, match="config.data.num_examples: 5 has no meaning"):
        prepare(tmp_path, source, num_examples=5)


def test_progress_and_notices(tmp_path, source):
    steps: list[tuple[int, int | None]] = []
    notices: list[str] = []
    (source / "b/broken.png").write_bytes(b"")
    (source / "b/twin.png").write_bytes((source / "b/0.png").read_bytes())
    prepare(tmp_path, source, progress=lambda *step: steps.append(step), notify=notices.append)
    assert [done for done, _ in steps] == [64, 128, 192, 201]
    assert steps[-1][1] == 201
    assert "1 empty file" in notices[0] and "rejected.csv" in notices[0]
    assert "duplicates.csv" in notices[1]


# ---- builds that do not come to their end --------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path, source, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(base._index, "write_csv", refuse)
        with pytest.raises(UserError, match="config.data.data_dir .*no space left"):
            prepare(tmp_path, source)
    assert {path.parent.name for path in remains(tmp_path)} == {"unfinished.1.0.0"}
    directory = prepare(tmp_path, source)
    assert base.is_built(directory) and list(directory.parent.iterdir()) == [directory]


def test_full_disk_while_a_shard_is_written(tmp_path, source, monkeypatch):
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    make = _staging.ShardWriter
    monkeypatch.setattr(_staging, "ShardWriter", lambda _: make(full))
    with pytest.raises(UserError, match="config.data.data_dir .*no space left"):
        prepare(tmp_path, source)
    assert not remains(tmp_path)


def test_data_directory_that_cannot_be_made(tmp_path, source):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match="config.data.data_dir .*cannot be written"):
        prepare(tmp_path, source)


def test_error_in_the_middle_leaves_nothing(tmp_path, source):
    def stop(done: int, _):
        if done >= 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, source, progress=stop)
    assert not remains(tmp_path)


SCRIPT = """
import sys, time
import data_builders
wait = float(sys.argv[3])
print(data_builders.prepare("image_folder", data_dir=sys.argv[1], source=sys.argv[2],
                            progress=lambda *_: time.sleep(wait),
                            notify=lambda text: print("notice:", text)), flush=True)
"""


def start(
    tmp_path: pathlib.Path, source: pathlib.Path, wait: float, script: str = SCRIPT
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(tmp_path / "data"), str(source), str(wait)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_shard(tmp_path: pathlib.Path) -> pathlib.Path:
    for _ in range(600):
        for path in (tmp_path / "data").rglob("shard-*"):
            return path
        time.sleep(0.05)
    raise AssertionError("no shard was begun")


def test_killed_build_leaves_nothing_that_passes(tmp_path, source):
    process = start(tmp_path, source, 60)
    unfinished = wait_for_shard(tmp_path).parent
    process.kill()
    process.communicate()
    assert unfinished.is_dir() and not base.is_built(unfinished)
    directory = prepare(tmp_path, source)
    assert base.is_built(directory)
    assert list(directory.parent.iterdir()) == [directory]


@pytest.mark.parametrize("stop", ["kill", "error"])
def test_a_stopped_build_goes_on_and_ends_the_same(tmp_path, source, monkeypatch, stop):
    (source / "a/10.png").write_bytes(b"")
    whole = data_builders.prepare("image_folder", data_dir=tmp_path / "whole", source=source)
    monkeypatch.setattr(_staging, "MAX_SHARD_RECORDS", 30)
    if stop == "kill":
        script = SCRIPT.replace("import data_builders", "import data_builders._staging as s\n"
                                "import data_builders\ns.MAX_SHARD_RECORDS = 30")  # fmt: skip
        process = start(tmp_path, source, 60, script)  # waits at the 64th
        while not list((tmp_path / "data").rglob("shard-00002")):
            time.sleep(0.05)
        process.kill()
        process.communicate()
    else:

        def fail(done: int, _) -> None:
            if done >= 64:
                raise OSError(errno.ENOSPC, "no space")

        with pytest.raises(UserError, match="goes on from the last whole shard"):
            prepare(tmp_path, source, progress=fail)
    taken: list[int] = []
    items = FilesBuilder.items

    def noted(self, begin: int):
        taken.append(begin)
        return items(self, begin)

    monkeypatch.setattr(FilesBuilder, "items", noted)
    directory = prepare(tmp_path, source)
    assert taken == [61]  # two shards of 30, and the empty file
    assert list(directory.parent.iterdir()) == [directory]
    for name in ("index.arrow", "rejected.csv", "duplicates.csv", "metadata.json"):
        assert (directory / name).read_bytes() == (whole / name).read_bytes()
    records = [
        list(tfds.builder_from_directory(path).as_data_source("all")) for path in (directory, whole)
    ]
    assert len(list(directory.glob("*array_record*"))) == 7 and records[0] == records[1]


def test_a_damaged_unfinished_build_begins_anew(tmp_path, source, monkeypatch):
    monkeypatch.setattr(_staging, "MAX_SHARD_RECORDS", 30)

    def stop(done: int, _) -> None:
        if done >= 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, source, progress=stop)
    (shard,) = (tmp_path / "data").rglob("shard-00002")
    shard.write_bytes(shard.read_bytes()[:-10])
    directory = prepare(tmp_path, source)
    assert len(tfds.builder_from_directory(directory).as_data_source("all")) == 200


def test_two_processes_build_once(tmp_path, source):
    first = start(tmp_path, source, 0.7)
    wait_for_shard(tmp_path)
    second = start(tmp_path, source, 0)
    texts = [process.communicate(timeout=120)[0].split() for process in (first, second)]
    assert texts[0][-1] == texts[1][-1]
    assert "waiting" in texts[1] and "notice:" not in texts[0]
    assert base.is_built(texts[0][-1])
    shutil.rmtree(texts[0][-1])
