"""What a run writes while it goes, read back by others' readers."""

import contextlib
import io
import json
import pathlib
import sys

import pytest

from plankton_jax import trackers
from plankton_jax.config import Config
from plankton_jax.errors import UserError
from plankton_jax.trackers import Trackers
from plankton_jax.tracking import Console, EventsFile, MetricsFile, Tracker
from plankton_jax.validation import all_problems


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


class _Service:
    """A run in a service that keeps what it is told, and fails when it is told to."""

    def __init__(self, name, run, id, settings):
        self.name, self.id, self.settings, self.points = name, id or "new", settings, []
        _Service.made.append(self)

    def write(self, values, step):
        if "fail" in values:
            raise ConnectionError("no route")
        self.points.append((step, dict(values)))

    def close(self):
        self.points.append("closed")


def test_services_get_every_number_and_are_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "_SERVICES", {"wandb": _Service})
    _Service.made = []
    for _ in range(2):
        services = Trackers(["wandb"], tmp_path, {"seed": 1}, notify=print)
        with Tracker(tmp_path, resume_step=0, tensorboard=False, services=services) as tracker:
            tracker.write("train", 5, 0.5, {"loss": 2.5})
    first, again = _Service.made
    assert first.points == again.points == [(5, {"train/loss": 2.5}), "closed"]
    assert (first.name, first.settings) == (tmp_path.name, {"seed": 1})
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "new"}


def test_a_service_that_fails_is_left_out_and_training_goes_on(tmp_path, monkeypatch):
    def unreachable(name, run, id, settings):
        raise OSError("no such server")

    monkeypatch.setattr(trackers, "_SERVICES", {"wandb": _Service, "mlflow": unreachable})
    _Service.made, told = [], []
    services = Trackers(["mlflow", "wandb"], tmp_path, {}, notify=told.append)
    services.write({"fail": 1.0}, 1)
    services.write({"loss": 1.0}, 2)
    services.close()
    assert _Service.made[0].points == []
    assert ["mlflow failed" in told[0], "wandb failed" in told[1], len(told)] == [True, True, 2]


def test_a_service_that_is_not_installed_or_known_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'found "wandb", which is not installed; .*\[tracking\]'):
        trackers.require_installed(["wandb"])
    config = Config()
    config.logging.trackers = ("wandbs",)
    assert all_problems(config) == [
        'config.logging.trackers: found "wandbs". Did you mean "wandb"?'
    ]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_services_own_libraries_take_it(name, tmp_path, monkeypatch):
    """With the extra `tracking` installed, which the tests' own environment is without."""
    pytest.importorskip(name, reason="the extra `tracking` is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlflow'}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    told, settings = [], {f"group.setting{number}": (number, "x") for number in range(150)}
    for step in (4, 8):
        services = Trackers([name], tmp_path, settings, notify=told.append)
        services.write({"train/loss": 2.5, "train/accuracy": 0.5}, step)
        services.close()
    assert told == []
    (identity,) = json.loads((tmp_path / "trackers.json").read_text()).values()
    if name == "wandb":
        assert len([*(tmp_path / "wandb").glob(f"offline-run-*-{identity}")]) == 2
    else:
        (points,) = (tmp_path / "mlflow").glob(f"*/{identity}/metrics/train/loss")
        assert [line.split()[1:] for line in points.read_text().splitlines()] == [
            ["2.5", "4"],
            ["2.5", "8"],
        ]


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
    assert "5/10" in text and "left 0:0" in text


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
