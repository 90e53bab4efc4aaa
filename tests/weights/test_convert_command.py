"""The convert command: what it says, and what it refuses."""

import errno
import os
import pathlib
import stat
import sys

import pytest
from weights_support import random_state_dict, write

from plankton_jax import convert
from plankton_jax.command import run_command
from plankton_jax.errors import UserError


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "t.safetensors", random_state_dict("test_vit"))


def _arguments(source, out, *more):
    return ["--model", "test_vit", "--checkpoint", str(source), "--out", str(out), *more]


def test_what_was_written_is_said(source, tmp_path, capsys):
    out = tmp_path / "x.safetensors"
    assert convert.main(_arguments(source, out)) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert (
        first == f"wrote {out}: test_vit, 5 classes, 160 pixels, 3 channels, names of plankton_jax"
    )
    assert second.startswith(f"from {source} (sha256 ")
    assert third == "licence of the weights: not stated; see where they come from"
    tagged = ("--tag", "test_vit.r160_in1k", "--to", "timm", "--without-head")
    assert convert.main(_arguments(source, tmp_path / "y.safetensors", *tagged)) == 0
    assert "no head" in (told := capsys.readouterr().out) and "apache-2.0" in told


def test_bad_arguments_are_told_together(source):
    arguments = ["--model", "tst_vit", "--checkpoint", str(source), "--out", "x.pth"]
    with pytest.raises(UserError) as error:
        convert.main([*arguments, "--tag", "test_vit.r160", "--image-size", "0"])
    told = "\n".join(error.value.problems)
    assert len(error.value.problems) == 4
    assert 'Did you mean "test_vit"' in told and "--out: found x.pth" in told
    assert 'Did you mean "test_vit.r160_in1k"' in told and "--image-size: found 0" in told
    with pytest.raises(UserError, match="^--checkpoint: found nothing; allowed: a file"):
        convert.main(_arguments("", "x.safetensors"))
    with pytest.raises(UserError, match="which is the source"):
        convert.main(_arguments(source, source))


def test_bad_files_are_named(source, tmp_path):
    out = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match="there is no file .*nowhere.pth"):
        convert.main(_arguments(tmp_path / "nowhere.pth", out))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        convert.main(_arguments(tmp_path, out))
    (tmp_path / "cut.safetensors").write_bytes(source.read_bytes()[:-10])
    with pytest.raises(UserError, match="cut.safetensors cannot be read: cut short"):
        convert.main(_arguments(tmp_path / "cut.safetensors", out))
    with pytest.raises(UserError, match="^--image-size: found 100; allowed: a multiple"):
        convert.main(_arguments(source, out, "--image-size", "100"))
    assert not out.exists()


def test_the_file_can_be_read_by_whom_the_umask_lets(source, tmp_path):
    before = os.umask(0o027)
    try:
        convert.main(_arguments(source, tmp_path / "x.safetensors"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("reason", "told"),
    [(errno.EACCES, "x.safetensors: Permission denied"), (errno.ENOSPC, "no space left on the")],
)
def test_what_the_system_refuses_is_told(source, tmp_path, monkeypatch, capsys, reason, told):
    def refuse(path, content):
        raise OSError(reason, os.strerror(reason), str(path))

    monkeypatch.setattr(pathlib.Path, "write_bytes", refuse)
    monkeypatch.setattr(sys, "argv", ["convert", *_arguments(source, tmp_path / "x.safetensors")])
    with pytest.raises(SystemExit) as ended:
        run_command(convert.main)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.replace(f".{os.getpid()}.tmp", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.safetensors"]


@pytest.mark.skipif(os.geteuid() == 0, reason="to the superuser every folder is open")
def test_a_folder_that_may_not_be_written_is_named(source, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(PermissionError, match="closed"):
        convert.main(_arguments(source, tmp_path / "closed" / "x.safetensors"))


def test_a_torch_file_without_torch_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="w.pth: a PyTorch file.*pip install torch"):
        convert.main(_arguments(tmp_path / "w.pth", tmp_path / "x.safetensors"))
