"""Builds in ranges side by side end as a build in one piece does."""

import concurrent.futures
import multiprocessing
import shutil
import threading

import pytest
import tensorflow_datasets as tfds
from image_files import make_folder

import data_builders
from data_builders import _ranges, _staging
from plankton_jax.errors import UserError

FILES = ("index.arrow", "rejected.csv", "duplicates.csv", "metadata.json")


@pytest.fixture
def source(tmp_path):
    folder = make_folder(tmp_path / "images", {"a": 60, "b": 40})
    for name in ("a/10.png", "b/39.png"):  # the second is the last of all
        (folder / name).write_bytes(b"")
    return shutil.make_archive(str(tmp_path / "images"), "zip", folder)


@pytest.fixture
def ranges(monkeypatch):
    """Ranges of 30 files in the place of Beam's pipeline; the function that runs them."""
    monkeypatch.setattr(_ranges, "ITEMS", 30)
    monkeypatch.setattr(_ranges, "beam_options", lambda flags: flags)

    def use(run):
        monkeypatch.setattr(_ranges, "beam_runner", lambda options: run)

    return use


def prepare(folder, source, **options):
    return data_builders.prepare("image_folder", data_dir=folder, source=source, **options)


def assert_same(one, other):
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    records = [list(tfds.builder_from_directory(d).as_data_source("all")) for d in (one, other)]
    assert records[0] == records[1]


def in_processes(work, ranges):
    """Two at a time, in processes that know nothing of this one, the last range first."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(work, reversed(ranges)))


def test_ranges_in_processes_make_the_same_data_set(tmp_path, source, ranges):
    whole = prepare(tmp_path / "whole", source)
    ranges(in_processes)
    told = []
    built = prepare(tmp_path / "ranges", source, beam="--any", notify=told.append)
    assert_same(built, whole)
    assert list(built.parent.iterdir()) == [built]
    assert "100 files in ranges of 30" in told[0]


def test_ranges_that_are_done_are_not_done_again(tmp_path, source, ranges, monkeypatch):
    whole = prepare(tmp_path / "whole", source)
    done = []

    def stopped(work, ranges):
        for bounds in ranges[2:]:
            work(bounds)
            done.append(bounds)
            if len(done) == 2:
                raise KeyboardInterrupt

    def serial(work, ranges):
        for bounds in ranges:
            work(bounds)

    ranges(stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "ranges", source, beam="--any")
    assert done == [(60, 90), (90, 100)]
    read = []
    add = _staging.Staging.add

    def noted(self, item):
        read.append(item)
        add(self, item)

    monkeypatch.setattr(_staging.Staging, "add", noted)
    ranges(serial)
    built = prepare(tmp_path / "ranges", source, beam="--any")
    assert len(read) == 60
    assert_same(built, whole)


def test_ranges_tell_how_much_is_done(tmp_path, source, ranges, monkeypatch):
    monkeypatch.setattr(_ranges, "WATCH_SECONDS", 0.001)
    steps, told = [], threading.Event()

    def progress(done, total):
        steps.append((done, total))
        told.set()

    def serial(work, ranges):
        for bounds in ranges:
            work(bounds)
            for _ in range(2):  # the first may have been looked up before
                told.clear()
                assert told.wait(60)

    ranges(serial)
    prepare(tmp_path, source, beam="--any", progress=progress)
    assert {(30, 100), (60, 100), (90, 100), (100, 100)} <= set(steps)
    assert steps[-1] == (98, 98)  # images, without the two empty files


def test_a_data_set_that_is_built_in_one_piece_is_told(tmp_path, ranges):
    with pytest.raises(UserError, match="config.data.beam: .*synthetic_plankton, which is built"):
        data_builders.prepare(
            "synthetic_plankton", data_dir=tmp_path, num_examples=100, beam="--any"
        )


def test_without_beam_it_is_told_what_to_install(tmp_path, source, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(UserError, match="config.data.beam: .* Apache Beam is not installed"):
        prepare(tmp_path, source, beam="--runner=DirectRunner")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_apache_beam_runs_the_ranges(tmp_path, source, monkeypatch):
    """In an environment of its own, as its versions do not fit to those of the tests."""
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed")
    monkeypatch.setattr(_ranges, "ITEMS", 30)
    whole = prepare(tmp_path / "whole", source)
    flags = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
    assert_same(prepare(tmp_path / "beam", source, beam=flags), whole)
    with pytest.raises(
        UserError, match="found --runer=DirectRunner, which Apache Beam does not know"
    ):
        prepare(tmp_path / "other", source, beam="--runer=DirectRunner")
