"""What all tests share: strict array arithmetic, the way to the real images, a finished run."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# TensorBoard's reader imports TensorFlow, and that Keras, which would then not run on JAX.
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import hypothesis
import jax
import pytest
from command_runs import run, train_arguments

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example compiles; how long it takes says nothing.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_images() -> pathlib.Path:
    """The folder of real images beside the project; tests that need it are skipped without."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder ../shared/data with real images is not here")
    return SHARED_DATA


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> pathlib.Path:
    """A folder with a finished run, `whole`, that was never stopped."""
    folder = tmp_path_factory.mktemp("runs")
    run("train", *train_arguments(folder, "whole"))
    return folder
