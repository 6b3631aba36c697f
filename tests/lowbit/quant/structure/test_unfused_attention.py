"""Attention as matrix products that torch's counter sees."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lowbit.quant.structure.unfused_attention import unfused_attention

QKV = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(0))  # 2 images, 4 heads


def counted(call):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"attn_mask": torch.zeros(9, 9)}, {"scale": 0.5}],
)
def test_both_products_are_counted(options):
    """2 FLOPs per multiply-add, 9 x 9 x 8 of them per image, head and product."""
    with unfused_attention():
        found = counted(lambda: F.scaled_dot_product_attention(*QKV, **options))
    assert found == 2 * (2 * 2 * 4 * 9 * 9 * 8)


def test_values_are_those_of_attention():
    with unfused_attention():
        found = F.scaled_dot_product_attention(*QKV)
    q, k, v = QKV.double()
    wanted = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(found, wanted.float())


def test_the_fast_path_of_torchs_layers_is_off_within_the_block_only():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tokens = torch.rand(2, 5, 8)
    before = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError), unfused_attention():
        macs = 2 * 5 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * (2 * 5 * 5 * 8)
        assert counted(lambda: layer(tokens)) == 2 * macs
        _ = 1 / 0
    assert torch.backends.mha.get_fastpath_enabled() == before
