"""Reading configurations: overrides, near misses, functions; a saved one gives the same."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plankton_jax import command, recipes
from plankton_jax.config import Config, setting_names, walk
from plankton_jax.errors import UserError
from plankton_jax.files import replacing
from plankton_jax.heads import list_heads
from plankton_jax.models import list_models
from plankton_jax.names import BACKBONES, BRANCH_HEADS, HEADS
from plankton_jax.validation import all_problems, unknown_fields

BCNN = ("--config.model.head=bcnn", "--config.loss.name=level_cross_entropy")
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"

WITH_LOSS = """
from plankton_jax.config import Config

def my_loss(level_logits, labels):
    return level_logits[-1].sum(-1)

def get_config(arg=None):
    config = Config()
    config.loss.name = my_loss if arg == "named" else (lambda logits, labels: 0)
    return config
"""


@pytest.fixture
def plain(tmp_path) -> str:
    file = tmp_path / "plain.py"
    file.write_text(
        "from plankton_jax.config import Config\n\ndef get_config(arg=None):\n    return Config()\n"
    )
    return str(file)


def test_every_setting_is_documented_and_valid_by_default():
    for name, field, _ in walk(Config()):
        assert field.metadata.get("doc") or not field.metadata, name
    assert all(field.metadata for _, field, _ in walk(Config()))
    assert unknown_fields(Config()) + all_problems(Config()) == []


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_configuration_file_is_valid(path):
    command.read_config(str(path), [])
    for argument in re.findall(r'arg == "(\w+)"', path.read_text()):
        command.read_config(f"{path}:{argument}", [])


@pytest.mark.parametrize("head", recipes.HEADS)
@pytest.mark.parametrize("name", ["ndsb", "whoi", "zooscan"])
def test_every_head_has_its_configuration(name, head):
    config = command.read_config(f"{CONFIGS / f'{name}_hierarchical.py'}:{head}", [])
    assert config.model.head == ("linear" if head == "flat" else head)
    assert bool(config.loss.level_weights) == (head not in ("flat", "coherent"))
    with pytest.raises(UserError, match=f'{name}_hierarchical.py: found argument "bacn".*bacnn'):
        command.read_config(f"{CONFIGS / f'{name}_hierarchical.py'}:bacn", [])


@pytest.mark.parametrize("head", [*recipes.HEADS, "best"])
def test_the_branch_papers_have_their_configuration(head):
    config = command.read_config(f"{CONFIGS / 'fashion_mnist.py'}:{head}", [])
    assert config.model.name == "bcnn_base_c"
    assert config.model.head == {"flat": "linear", "best": "coherent"}.get(head, head)
    assert (config.loss.name == "cross_entropy") == (head == "flat")
    assert (len(config.loss.level_weights) == 4) == (head in BRANCH_HEADS)
    narrow = command.read_config(f"{CONFIGS / 'fashion_mnist.py'}:{head}/4", [])
    assert narrow.model.name.__name__ == "quarter_base"
    for wrong in ("bacn", f"{head}/3"):
        with pytest.raises(UserError, match="fashion_mnist.py: found argument"):
            command.read_config(f"{CONFIGS / 'fashion_mnist.py'}:{wrong}", [])


def test_names_are_those_of_the_registries():
    assert BACKBONES == list_models()
    assert HEADS == list_heads()


def test_a_file_that_sets_what_is_no_setting_is_told_with_all_else(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from plankton_jax.config import Config\n\n\ndef get_config():\n    config = Config()\n"
        "    config.optim.learning_rte = 3.0\n    config.epochs = 3\n"
        "    config.loss.name = lambda logits, labels: logits[0][:, 0]\n    return config\n"
    )
    with pytest.raises(UserError) as caught:
        command.read_config(
            str(file), ["--config.train.epoch=3", "--config.seed=x", "--config.optim.name=adam"]
        )
    told = str(caught.value)
    for words in (
        'config.optim.learning_rte: there is no such setting. Did you mean "learning_rate"',
        "config.epochs: there is no such setting",
        "config.train.epoch: there is no such setting",
        "config.seed: found",
        'Did you mean "adamw"',
        "defined at the top level",
    ):
        assert words in told


def test_what_means_the_same_is_the_same(tmp_path):
    configs = []
    for epochs, fractions in (("2", "[0.8, 0.2, 0]"), ("2.0", "(0.8, 0.2, 0.0)")):
        file = tmp_path / f"with_{epochs}.py"
        file.write_text(
            "from plankton_jax.config import Config\n\n\ndef get_config():\n"
            f"    config = Config()\n    config.train.epochs = {epochs}\n"
            f"    config.split.fractions = {fractions}\n    return config\n"
        )
        configs.append(command.read_config(str(file), []))
    assert configs[0] == configs[1] and configs[0].split.fractions == (0.8, 0.2, 0.0)
    assert len({command.config_hash(config) for config in configs}) == 1


def test_a_file_that_exits_and_a_folder_are_told(tmp_path):
    (tmp_path / "quits.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(UserError, match=r"quits.py, line 2: SystemExit: 3"):
        command.read_config(str(tmp_path / "quits.py"), [])
    with pytest.raises(UserError, match=r"is a folder; needed: a file. Those in it: .*quits.py"):
        command.read_config(str(tmp_path), [])
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match="found list, not a JSON object"):
        command.read_config(str(tmp_path / "list.json"), [])


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("--config.optim.momentum=0.5", "optim.name=sgd"),
        ("--config.sampling.power=0.5", "sampling.name=weighted"),
        ("--config.data.pixel_size_um=5", "data.measurements [(]log_side, [.]{3}[)]"),
        (
            "--config.data.pixel_size_um=5 --config.data.measurements=('log_elongation',)",
            "data.measurements [(]log_side, [.]{3}[)]",
        ),
        ("--config.data.worker_timeout=7", "data.worker_count over 0"),
        ("--config.optim.final_factor=0.5 --config.optim.schedule=constant", "schedule=cosine"),
        ("--config.optim.plateau_patience=3", "schedule=plateau"),
        ("--config.optim.step_epochs=(3,)", "schedule=step"),
        (
            "--config.model.head=concat --config.loss.name=level_cross_entropy "
            "--config.head.width=9 --config.head.branch_widths=(3,4)",
            "concat without branch_widths",
        ),
        (
            "--config.model.freeze_backbone=true --config.model.drop_path_rate=0.1",
            "model.freeze_backbone=False",
        ),
        (
            "--config.model.freeze_backbone=true --config.model.rematerialise=true",
            "model.freeze_backbone=False",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(plain, override, where):
    with pytest.raises(UserError, match=f"counts with .*{where} alone"):
        command.read_config(plain, override.split())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--config.optim.lr=3"], 'Did you mean "optim.learning_rate"'),
        (["--config.optim.learning_rate=0"], "learning_rate: found 0.0; allowed: more than 0"),
        (
            ["--config.optim.schedule=step", "--config.optim.step_epochs=(1,99)"],
            "step_epochs: found [99]; allowed: less than config.train.epochs",
        ),
        (["--config.checkpoint.monitor=log_loss"], 'checkpoint.mode: found "max"'),
        (["--config.checkpoint.mode=min"], 'checkpoint.mode: found "min"'),
        (
            ["--config.optim.schedule=plateau", "--config.split.fractions=(0.8,0.0,0.2)"],
            "nothing to validation",
        ),
        (
            ["--config.optim.schedule=plateau", "--config.train.evaluate_every_epochs=100"],
            "config.train.evaluate_every_epochs: found 100.0 with config.optim.schedule=plateau",
        ),
        (["--config.data.seed=3", "--config.data.dataset=image_folder"], "config.data.seed"),
        (
            [*BCNN, "--config.head.branch_widths=(5,0,-1)"],
            "config.head.branch_widths: found 0; allowed: numbers of 1 or more",
        ),
        (
            [*BCNN, "--config.head.trunk=true", "--config.head.taps=(1,2,0)"],
            "config.head.taps: found (1, 2, 0) with config.head.trunk=True",
        ),
        (["--config.data.dataset=image_foldr"], 'Did you mean "image_folder"'),
        (["--config.model.name=vit_smal_patch16_224"], 'Did you mean "vit_small_patch16_224"'),
    ],
)
def test_settings_that_would_do_nothing_or_the_reverse_are_refused(plain, overrides, words):
    with pytest.raises(UserError, match=re.escape(words)):
        command.read_config(plain, overrides)


def test_overrides_are_typed(plain):
    config = command.read_config(
        plain,
        [
            "--config.train.epochs=3",
            "--config.optim.step_epochs=(1,2.5)",
            "--config.optim.schedule=step",
            "--config.optim.name=sgd",
            "--config.optim.nesterov=false",
            "--config.loss.name=cross_entropy",
            "--config.data.source=a b",
        ],
    )
    assert config.train.epochs == 3.0 and isinstance(config.train.epochs, float)
    assert config.optim.step_epochs == (1, 2.5)
    assert config.optim.nesterov is False
    assert config.data.source == "a b"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--config.train.epoch=3"], ['Did you mean "train.epochs"']),
        (["--config.epochs=3"], ['Did you mean "train.epochs"']),
        (["--confg=3", "--config.optim.momentun=1"], ["unknown argument", "optim.momentum"]),
        (["--config.train.epochs"], ["a value is missing"]),
        (["--config.train.epochs=x", "--config.seed=1.5"], ["epochs: found", "seed: found"]),
        (["--config.optim.name=adam"], ['Did you mean "adamw"']),
        (["--config.loss.name=crossentropy"], ['Did you mean "cross_entropy"']),
        (["--config.checkpoint.monitor=f1"], ["checkpoint.monitor", "macro_f1"]),
        (["--config.split.fractions=(1,2)"], ["three numbers"]),
        (["--config.split.fractions=('a','b','c')"], ["split.fractions"]),
        (["--config.train.batch_size=0", "--config.seed=-1"], ["1 or more", "0 or more"]),
        (["--config.augmentation.vertical_flip=2"], ["1 or less"]),
        (["--config.optim.learning_rate=nan"], ["finite"]),
        (["--config.loss.level_weights=((float('inf'),),)"], ["level_weights"]),
        (["--config.optim.learning_rate_rules=(('.*',-1.0),)"], ["rules: found -1.0; allowed: 0"]),
        (
            ["--config.optim.schedule=step", "--config.optim.step_epochs=(-3,)"],
            ["step_epochs: found (-3,); allowed: numbers above 0"],
        ),
        (["--config.optim.schedule=step"], ["step_epochs"]),
        *(
            (
                [
                    "--config.optim.schedule=step",
                    "--config.optim.step_epochs=(3,6)",
                    f"--config.optim.step_factor={factors}",
                ],
                [f"step_factor: found {factors}; allowed: a number from 0 to 1, or one for each"],
            )
            for factors in ((0.5, 0.5, 0.5), (1.5,), ())
        ),
        (["--config.model.in_channels=2"], ["1 or 3"]),
        (["--config.train.epochs=0.5"], ["warmup_epochs"]),
        (
            ["--config.loss.name=auxiliary_cross_entropy"],
            ['loss.name: found "auxiliary_cross_entropy" with config.model.head="linear"'],
        ),
        (
            ["--config.model.head=auxiliary", "--config.model.freeze_backbone=true"],
            ['model.head: found "auxiliary" with config.loss.name="cross_entropy"', "model.freeze"],
        ),
        (
            [
                *("--config.model.head=keras_hub:x", "--config.loss.name=keras_hub:x"),
                "--config.optim.schedule=keras_hub:x",
            ],
            [f'{name}: found "keras_hub:x"' for name in ("model.head", "loss.name", "schedule")],
        ),
        (["--config.data.measurements=('log_size',)"], ['Did you mean "log_side"']),
        (["--config.data=3"], ["no such setting"]),
        (["--config.model.pretrained=swin_s3_tiny.ms_in1k"], ['Did you mean "swin_s3_tiny_224']),
        (
            ["--config.model.pretrained=swin_s3_tiny_224.ms_in1k"],
            ["plankton_cnn_tiny", "no public weights"],
        ),
        (
            [
                "--config.model.name=vit_tiny_patch16_224",
                "--config.model.pretrained=swin_s3_tiny_224.ms_in1k",
                "--config.model.initial_weights=x.pth",
            ],
            ["one of the two", "allowed: vit_tiny_patch16_224.augreg_in21k_ft_in1k, vit_tiny"],
        ),
    ],
)
def test_mistakes_are_told_together(plain, overrides, words):
    with pytest.raises(UserError) as caught:
        command.read_config(plain, overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data.dataset = None", "config.data.dataset: found None; allowed: "),
        ("data.dataset = 3", "config.data.dataset: found 3; allowed: "),
        ("data.dataset = pathlib.Path('nowhere')", "config.data.dataset: found "),
        ("data = 'images'", "config.data: found 'images'; allowed: "),
        ("optim.step_epochs = (float('nan'),)", "step_epochs: found (nan,); allowed: finite"),
    ],
)
def test_what_is_of_the_wrong_type_in_a_file_is_told(tmp_path, setting, words):
    file = tmp_path / "wrong.py"
    file.write_text(
        "import pathlib\nfrom plankton_jax.config import Config\n\n\ndef get_config():\n"
        f"    config = Config()\n    config.{setting}\n    return config\n"
    )
    with pytest.raises(UserError, match=re.escape(words)):
        command.read_config(str(file), [])


def test_a_path_may_have_colons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = pathlib.Path("run_at_10:30")
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from plankton_jax.config import Config\n\n\ndef get_config(arg='5'):\n"
        "    return Config(seed=int(arg))\n"
    )
    assert command.read_config("run_at_10:30/mine.py", []).seed == 5
    assert command.read_config("run_at_10:30/mine.py:7", []).seed == 7
    saved = folder / "config.json"
    saved.write_text(json.dumps(command.config_to_json(Config(seed=3))))
    assert command.read_config(str(saved), []).seed == 3
    with pytest.raises(UserError, match="there is no file run_at_10"):
        command.read_config("run_at_10:31/mine.py:7", [])


def test_a_home_folder_holds_data_sets_too(tmp_path, monkeypatch, plain):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "built").mkdir()
    config = command.read_config(plain, ["--config.data.dataset=~/built"])
    assert config.data.dataset == "~/built"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOSPC])
def test_what_the_system_refuses_is_told(monkeypatch, capsys, code):
    def refused(arguments):
        raise OSError(code, os.strerror(code), "runs/theirs/predictions")

    monkeypatch.setattr(sys, "argv", ["evaluate"])
    with pytest.raises(SystemExit) as ended:
        command.run_command(refused)
    assert ended.value.code == 2
    assert "runs/theirs/predictions" in capsys.readouterr().err


def test_what_is_no_refusal_keeps_its_traceback(monkeypatch):
    def broken(arguments):
        raise OSError(errno.EIO, "Input/output error", "disk")

    monkeypatch.setattr(sys, "argv", ["evaluate"])
    with pytest.raises(OSError, match="Input/output"):
        command.run_command(broken)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:\n", "line 1"),
        ("import no_such_module_here\n", "ModuleNotFoundError"),
        ("x = 1\n", "no function get_config"),
        ("def get_config(arg=None):\n    return {}\n", "returned dict"),
        ("def get_config(arg=None):\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        ("def get_config():\n    pass\n", "takes no argument"),
    ],
)
def test_files_that_do_not_run_are_told(tmp_path, text, words):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        command.read_config(f"{file}:arg", [])


def test_a_missing_file_suggests_its_neighbours(plain):
    with pytest.raises(UserError, match=r'Did you mean ".*plain\.py"'):
        command.read_config(plain.replace("plain", "plane"), [])


def test_a_function_survives_saving(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(WITH_LOSS)
    config = command.read_config(f"{file}:named", ["--config.seed=7"])
    (tmp_path / "run").mkdir()
    saved = tmp_path / "run" / "config.json"
    saved.write_text(json.dumps(command.config_to_json(config)))
    (tmp_path / "run" / command.CONFIG_COPY).write_text(WITH_LOSS)
    again = command.read_config(str(saved), [])
    assert again.seed == 7 and again.loss.name.__name__ == "my_loss"
    assert command.config_hash(again) == command.config_hash(config)


def test_a_run_that_was_saved_with_one_step_factor_is_read(plain, tmp_path):
    """Runs of before each of `step_epochs` could have its own."""
    saved = command.config_to_json(command.read_config(plain, []))
    saved["optim"]["step_factor"] = 0.1
    file = tmp_path / "config.json"
    file.write_text(json.dumps(saved))
    config = command.read_config(plain, [])
    assert command.read_config(str(file), []) == config
    # What its checkpoints were marked with is what this version finds.
    flat = dict(command._flattened(saved))
    then = hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()
    assert command.config_hash(config) == then


def test_a_function_without_a_name_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(WITH_LOSS)
    with pytest.raises(UserError, match=r"config.loss.name.*Give it a name"):
        command.config_to_json(command.read_config(str(file), []))


@given(
    st.integers(0, 100),
    st.lists(st.floats(0.1, 50, allow_nan=False), max_size=4),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=10),
)
def test_saving_gives_the_same_settings(tmp_path_factory, seed, epochs, source):
    config = Config(seed=seed)
    config.optim.step_epochs = tuple(epochs)
    config.data.source = source
    file = tmp_path_factory.mktemp("saved") / "config.json"
    file.write_text(json.dumps(command.config_to_json(config)))
    assert dataclasses.asdict(command.config_from_json(file)) == dataclasses.asdict(config)


def test_a_saved_file_with_unknown_settings_is_refused(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"train": {"epohcs": 3}}))
    with pytest.raises(UserError, match="train.epochs"):
        command.read_config(str(file), [])
    file.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        command.read_config(str(file), [])


def test_settings_that_cannot_change_a_result_do_not_change_its_hash():
    before, after = Config(), Config()
    after.data.worker_count = 2
    after.logging.every_steps = 7
    assert command.config_hash(before, True) == command.config_hash(after, True)
    assert command.config_hash(before) != command.config_hash(after)
    after.seed = 1
    assert command.config_hash(before, True) != command.config_hash(after, True)


def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_checking_settings_imports_nothing_heavy(plain):
    script = (
        "import sys\nfrom plankton_jax import train\n"
        f"sys.argv = ['train', '--config', {plain!r}, '--config.seed=x', '--workdir', 'w']\n"
        "try:\n    train.run_command(train.main)\n"
        "except SystemExit as end:\n    assert end.code == 2, end.code\n"
        "heavy = {'jax', 'flax', 'grain', 'tensorflow', 'cv2', 'orbax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_all_settings_have_distinct_names():
    names = setting_names(Config())
    assert len(names) == len(set(names)) > 50
