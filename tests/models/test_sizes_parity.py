"""Parameters and multiply-adds of every named backbone against timm's networks in torch."""

import pytest

pytestmark = pytest.mark.parity
timm_support = pytest.importorskip("timm_support", reason="torch and timm are not installed")
from timm_support import timm, torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from plankton_jax.models import get_info, list_models  # noqa: E402
from plankton_jax.models.sizes import model_size  # noqa: E402

NAMES = [name for name in list_models() if get_info(name).timm_name]


@pytest.fixture(autouse=True)
def _attention_as_products():
    """torch's counter knows matrix products, and not every fused attention."""
    fused = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(bool(fused))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_equal_timms(name):
    side = get_info(name).image_size
    with torch.device("meta"):
        original = timm.create_model(name, num_classes=1000).eval()
        images = torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        original(images)
    size = model_size(name)
    assert size.parameters == sum(p.numel() for p in original.parameters())
    assert 2 * size.multiply_adds == counter.get_total_flops()
