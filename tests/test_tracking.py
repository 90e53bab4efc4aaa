"""What a run writes while it goes, read back by others' readers."""

import contextlib
import io
import json
import pathlib
import sys

import pytest

from plankton_jax.tracking import Console, EventsFile, MetricsFile, Tracker


def test_lines_of_steps_that_are_made_again_are_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    file = MetricsFile(path, resume_step=2)
    file.write({"step": 3, "loss": float("nan")})
    file.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1}, {"step": 2}, {"step": 3, "loss": None}]


def test_tensorboard_events_hold_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard's reader is not installed")
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    with Tracker(tmp_path, resume_step=0, tensorboard=True) as tracker:
        tracker.write("train", 5, 0.5, {"loss": 2.5})
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(raw) for raw in RawEventFileLoader(str(file)).Load()]
    values = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert values == [(5, "train/loss", 2.5)]
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 5, "epoch": 0.5, "kind": "train", "loss": 2.5}


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_disk_is_an_error_and_not_a_wait(tmp_path):
    file, events = MetricsFile(tmp_path / "metrics.jsonl", 0), EventsFile(tmp_path / "events", 0)
    record_writer = events._writer._py_recordio_writer
    file.close()
    record_writer.close()
    file._file = open("/dev/full", "a", buffering=1)
    record_writer._writer = open("/dev/full", "wb", buffering=0)
    with pytest.raises(OSError, match="No space left"):
        file.write({"step": 1})
    with pytest.raises(OSError, match="No space left"):
        events.write({"loss": 1.0}, 1)
    with contextlib.suppress(OSError):
        file.close()
    record_writer._writer.close()


def test_without_tensorboard_none_is_written(tmp_path):
    with Tracker(tmp_path, resume_step=0, tensorboard=False) as tracker:
        tracker.write("train", 1, 0.1, {"loss": 1.0})
    assert not (tmp_path / "tensorboard").exists()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, _Terminal])
def test_console_shows_step_rate_and_time_left(monkeypatch, stream):
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    with Console(total_steps=10, batch_size=4, start_step=0) as console:
        console.say("hello [not markup]")
        console.show(5, 0.5, {"loss": 1.25, "images_per_second": console.images_per_second(5)})
    text = written.getvalue()
    assert "hello [not markup]" in text and "loss 1.25" in text
    assert ("step 5/10" in text and "left 0:0" in text) or "5/10" in text


def test_compiling_does_not_slow_the_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(total_steps=10, batch_size=8, start_step=0)
    now[0] = 60.0
    console.begin(0)
    console.begin(1)
    now[0] = 62.0
    assert console.images_per_second(5) == pytest.approx(4 * 8 / 2.0)


def test_what_is_not_counted_does_not_slow_the_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(total_steps=10, batch_size=8, start_step=0)
    now[0] = 2.0
    with console.not_counted():
        now[0] = 7.0
    assert console.images_per_second(5) == pytest.approx(5 * 8 / 2.0)
