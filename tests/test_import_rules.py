"""Who may import whom: read from the source, and from what is loaded when a room is imported."""

import ast
import pathlib
import subprocess
import sys
import tomllib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "plankton_jax"
COMMANDS = {"train", "evaluate", "predict", "report", "ensemble", "convert", "lr_find", "tables"}
CORE = {"losses", "metrics", "mixing", "decoding", "train_step", "optim", "models", "heads"}
CORE_LIBRARIES = {"jax", "flax", "optax", "chex", "numpy", "jaxtyping"}
HEAVY = {
    "tensorflow_datasets",
    "grain",
    "ml_collections",
    "keras",
    "keras_hub",
    "tensorflow",
    "matplotlib",
    "torch",
}


def _room(path: pathlib.Path) -> str:
    """`models` for everything below plankton_jax/models, `train` for plankton_jax/train.py.

    What `python -m plankton_jax.models` runs is a command, not a part of the room.
    """
    if path.name == "__main__.py":
        return "__main__"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: pathlib.Path) -> set[str]:
    """Dotted names of all that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _rooms_imported(path: pathlib.Path) -> set[str]:
    return {name.split(".")[1] for name in _imports(path) if name.startswith("plankton_jax.")}


# The door to Keras: imported only when one of its backbones is named.
ON_DEMAND = {"models/_keras_hub.py": {"keras", "keras_hub"}}

FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_keep_to_their_doors(path):
    room, imported = _room(path), _rooms_imported(path)
    libraries = {name.split(".")[0] for name in _imports(path)} - set(sys.stdlib_module_names)
    assert not imported & COMMANDS, "commands are imported by nothing"
    if room in CORE:
        assert imported <= CORE | {"config", "taxonomy", "errors", "names"}
        own = ON_DEMAND.get(path.relative_to(PACKAGE).as_posix(), set())
        assert libraries <= CORE_LIBRARIES | {"plankton_jax"} | own
    if room == "data":
        assert not imported & {"models", "heads", "analysis"}
        assert "jax" not in libraries
    if room == "models":
        assert "data" not in imported
    if room == "analysis":
        assert not imported & {"data", "models", "heads"}


@pytest.mark.parametrize("room", ["models", "heads", "losses", "metrics", "train_step", "optim"])
def test_the_core_loads_nothing_heavy(room):
    _assert_free_of(f"plankton_jax.{room}", HEAVY | {"cv2", "orbax", "pyarrow"})


@pytest.mark.parametrize("module", ["experiment", "checkpoints", "data.loader", "evaluate"])
def test_training_loads_neither_tensorflow_nor_torch(module):
    _assert_free_of(f"plankton_jax.{module}", {"tensorflow", "torch", "keras"})


def test_weights_load_torch_and_the_hub_only_when_they_are_needed():
    _assert_free_of("plankton_jax.weights", HEAVY | {"huggingface_hub", "safetensors.torch"})


def test_the_hub_client_is_declared():
    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("huggingface_hub>=") for line in declared["dependencies"])


def _assert_free_of(module: str, unwanted: set[str]) -> None:
    script = (
        f"import sys, {module}\nfound = {unwanted!r} & set(sys.modules)\nassert not found, found\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
