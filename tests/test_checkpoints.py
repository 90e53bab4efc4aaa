"""Checkpoints in one process: what is kept, what is verified, what a full disk does."""

import errno
import gc
import json
import logging
import os
import shutil
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plankton_jax import optim
from plankton_jax.checkpoints import Checkpoints, best_step, digest, read_records
from plankton_jax.command import quiet_libraries
from plankton_jax.config import OptimConfig
from plankton_jax.errors import UserError
from plankton_jax.train_step import TrainState

# TensorStore reads the arrays of a checkpoint side by side; when one is damaged, the errors of the
# others are told as the objects go.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    """What a test leaves for the collector is collected in it."""
    yield
    gc.collect()


def _state(value: float) -> TrainState:
    params = {"head": {"kernel": jnp.full((50, 3), value), "blocks": {"0": jnp.arange(4.0)}}}
    return TrainState(
        step=jnp.asarray(int(value), jnp.int32),
        params=params,
        model_state={},
        opt_state=(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)),
        plateau=optim.plateau_init(OptimConfig()),
        ema={},
        key=jax.random.key_data(jax.random.key(0)),
    )


def _open(folder, keep=2, mode="max", **options) -> Checkpoints:
    return Checkpoints(folder, keep=keep, monitor="macro_f1", mode=mode, **options)


def _save_all(folder, scores, **options):
    with _open(folder, **options) as checkpoints:
        for step, score in enumerate(scores, 1):
            metrics = None if score is None else {"macro_f1": score}
            checkpoints.save(step, _state(step), {"metrics": metrics, "window": {}})
        checkpoints.wait()


@pytest.mark.parametrize(("mode", "kept"), [("max", [2, 5, 6]), ("min", [1, 5, 6])])
def test_the_newest_and_the_best_are_kept(tmp_path, mode, kept):
    scores = [0.1, 0.9, None, 0.5, 0.9, None]
    _save_all(tmp_path, scores[:4], mode=mode)
    with _open(tmp_path, mode=mode) as checkpoints:  # a restart forgets nothing
        for step in (5, 6):
            metrics = None if scores[step - 1] is None else {"macro_f1": scores[step - 1]}
            checkpoints.save(step, _state(step), {"metrics": metrics, "window": {}})
        checkpoints.wait()
        assert checkpoints.steps == kept
        assert checkpoints.best == kept[0]


def test_what_is_restored_is_what_was_saved(tmp_path):
    _save_all(tmp_path, [0.1, 0.2])
    with _open(tmp_path) as checkpoints:
        state, record, problems = checkpoints.restore_newest(_state(0))
    assert not problems and record["step"] == 2 and int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, state, _state(2))
    assert digest(jax.device_get(state.params)) == record["params_sha256"]
    assert jax.tree.structure(state) == jax.tree.structure(_state(2))


def test_saving_is_not_disturbed_by_donated_buffers(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = _state(1)
    with _open(tmp_path, keep=100) as checkpoints:
        for number in range(1, 6):
            checkpoints.save(number, state, {"metrics": None, "window": {}})
            for _ in range(20):
                state = step(state)
        checkpoints.wait()
        for number in checkpoints.steps:
            checkpoints.restore(number, _state(0))  # verified against its sha256


def test_a_network_of_another_shape_is_told(tmp_path):
    _save_all(tmp_path, [0.1])
    other = _state(0)
    other.params["head"]["kernel"] = jnp.zeros((2, 2))
    with _open(tmp_path) as checkpoints, pytest.raises(UserError, match="cannot be restored"):
        checkpoints.restore(1, other)


def test_arrays_of_any_network_are_read_and_verified(tmp_path):
    _save_all(tmp_path, [0.1])
    with _open(tmp_path) as checkpoints:
        arrays, sha256 = checkpoints.arrays(1)
        jax.tree.map(np.testing.assert_array_equal, arrays["params"], _state(1).params)
        assert sha256 == digest(jax.device_get(_state(1)))
    record = tmp_path / "checkpoints" / "1" / "record" / "metadata"
    text = record.read_text()
    record.write_text(text.replace(digest(arrays["params"]), 64 * "0"))
    with _open(tmp_path) as checkpoints, pytest.raises(UserError, match="damaged; its content"):
        checkpoints.arrays(1)


def test_damage_is_found_and_set_aside(tmp_path):
    _save_all(tmp_path, [0.1, 0.2])
    shutil.rmtree(tmp_path / "checkpoints" / "2" / "state" / "d")
    with _open(tmp_path) as checkpoints:
        state, record, problems = checkpoints.restore_newest(_state(0))
        assert record["step"] == 1 and int(state.step) == 1
        assert len(problems) == 1 and "checkpoints/2" in problems[0]
        checkpoints.save(2, _state(2), {"metrics": None, "window": {}})
        checkpoints.wait()
        assert checkpoints.steps == [1, 2]
    assert (tmp_path / "damaged_checkpoints" / "2").is_dir()


def test_a_changed_number_is_found(tmp_path):
    _save_all(tmp_path, [0.1])
    record = tmp_path / "checkpoints" / "1" / "record" / "metadata"
    content = json.loads(record.read_text())
    content["state_sha256"] = "0" * 64
    record.write_text(json.dumps(content))
    with _open(tmp_path) as checkpoints, pytest.raises(UserError, match="differs from what"):
        checkpoints.restore(1, _state(0))


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    _save_all(tmp_path, [0.1])
    with _open(tmp_path) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(UserError, match="Make room and run the same command again"):
            checkpoints.save(2, _state(2), {"metrics": None, "window": {}})
        assert checkpoints.steps == [1]


def test_a_disk_that_fills_during_a_save_is_told(tmp_path, monkeypatch):
    with _open(tmp_path) as checkpoints:

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(UserError, match="no space left"):
            checkpoints.save(1, _state(1), {"metrics": None, "window": {}})


def test_a_disk_that_fills_in_the_background_is_told_without_a_traceback(
    tmp_path, monkeypatch, caplog
):
    rename = os.rename

    def full(*arguments, **options):
        if threading.current_thread() is not threading.main_thread():
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(sys, "argv", ["train"])
    level = logging.getLogger("absl").level
    try:
        quiet_libraries()
        with _open(tmp_path) as checkpoints:
            checkpoints.save(1, _state(1), {"metrics": None, "window": {}})
            with pytest.raises(UserError, match="no space left"):
                checkpoints.wait()
    finally:
        logging.getLogger("absl").setLevel(level)
    assert not [record for record in caplog.records if record.exc_info]


def test_reading_only_leaves_remains_alone(tmp_path):
    _save_all(tmp_path, [0.1])
    remains = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    remains.mkdir()
    with _open(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps == [1]
    assert remains.is_dir()
    with _open(tmp_path) as checkpoints:
        assert checkpoints.steps == [1]
    assert not remains.exists()


def test_the_digest_tells_any_difference():
    base = {"a": np.zeros(2, np.float32), "b": np.ones((), np.float32)}
    others = [
        {"a": np.zeros(2, np.float32), "c": np.ones((), np.float32)},
        {"a": np.zeros((2, 1), np.float32), "b": np.ones((), np.float32)},
        {"a": np.zeros(2, np.int32), "b": np.ones((), np.float32)},
        {"a": np.array([0, 1e-30], np.float32), "b": np.ones((), np.float32)},
    ]
    assert digest(base) == digest({key: base[key].copy() for key in reversed(base)})
    assert len({digest(base), *map(digest, others)}) == 5


def test_the_best_is_the_earliest_of_equals_and_never_nan():
    records = {
        1: {"metrics": {"m": 0.5}},
        2: {"metrics": {"m": 0.5}},
        3: {"metrics": None},
        4: {"metrics": {"m": float("nan")}},
    }
    assert best_step(records, "m", "max") == 1
    assert best_step({3: records[3]}, "m", "max") is None


def test_unreadable_records_are_left_out(tmp_path):
    _save_all(tmp_path, [0.1, 0.2])
    (tmp_path / "checkpoints" / "2" / "record" / "metadata").write_text("{")
    assert list(read_records(tmp_path / "checkpoints")) == [1]
