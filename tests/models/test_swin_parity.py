"""What Swin needs beside the network itself, against timm as it runs here."""

import numpy as np
import pytest

pytestmark = pytest.mark.parity
timm_support = pytest.importorskip("timm_support", reason="torch and timm are not installed")
from golden.weights import generator  # noqa: E402
from timm_support import timm, torch  # noqa: E402

from plankton_jax.weights.resample import resize_relative_table  # noqa: E402


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, in timm's interpolation
@pytest.mark.parametrize(
    ("old", "new"), [(7, 14), (7, 12), (14, 7), (12, 16), (7, 6), (7, 1), (1, 7), (2, 3)]
)
def test_resized_relative_tables_equal_timms(old, new):
    table = generator("table").normal(size=((2 * old - 1) ** 2, 3)).astype(np.float32)
    expected = timm.layers.resize_rel_pos_bias_table(
        torch.from_numpy(table), (new, new), ((2 * new - 1) ** 2, 3)
    )
    np.testing.assert_allclose(resize_relative_table(table, new), expected.numpy(), atol=1e-5)
