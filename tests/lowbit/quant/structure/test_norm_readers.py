"""What reads a norm's output."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowbit.quant.structure.norm_readers import WatchNorms


class Net(nn.Module):
    """A norm whose output goes through `between` to a linear layer."""

    def __init__(self, between, norm):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer, self.between = norm(4), nn.Linear(4, 4), between

    def forward(self, x):
        return self.layer(self.between(self.norm(x)))


def found(net, *inputs):
    with torch.no_grad(), WatchNorms(net) as watch:
        for x in inputs:
            watch.returned(net(x))
    return watch.found()


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize(
    "between",
    [
        lambda y: y,
        lambda y: y[:, 1:],
        lambda y: y.transpose(0, 1),
        lambda y: y.reshape(-1, 4),
        lambda y: y.roll(1, 1),
        lambda y: F.pad(y, (0, 0, 0, 2)),
        lambda y: y.view(2, 2, 2, 4).permute(0, 2, 1, 3).contiguous(),
    ],
)
def test_moved_tokens_are_followed(between, norm):
    net, x = Net(between, norm), torch.randn(2, 4, 4)
    (group,) = found(net, x, 3 * x)
    assert group.weight is net.norm.weight and group.bias is getattr(net.norm, "bias", None)
    assert [reader is net.layer.weight for reader in group.readers] == [True]
    seen = torch.cat([between(net.norm(scaled)).flatten(0, -2) for scaled in (x, 3 * x)])
    torch.testing.assert_close(group.largest, seen.abs().amax(0))


@pytest.mark.parametrize(
    "between",
    [
        lambda y: y.flip(-1),
        lambda y: y.transpose(1, 2),
        lambda y: y.roll(1, 2),
        lambda y: y.flatten(1).view(2, 4, 4)[..., [1, 0, 2, 3]],
        lambda y: F.pad(y, (0, 0, 0, 1), value=1.0),
        lambda y: y + 1,
        lambda y: torch.cat([y, y], 1),
    ],
)
def test_other_reads_exclude_a_norm(between):
    assert found(Net(between, nn.LayerNorm), torch.randn(2, 4, 4)) == []


def test_what_it_does_not_follow():
    x = torch.randn(2, 4, 4)
    assert found(nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 4)), x) == []
    assert found(nn.Sequential(nn.LayerNorm((4, 4)), nn.Linear(4, 4)), x) == []
    assert found(nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4)), x) == []
    twice = nn.Linear(4, 4)
    assert found(nn.Sequential(nn.LayerNorm(4), twice, nn.LayerNorm(4), twice), x) == []


def test_attention_of_one_tensor_is_a_linear_layer():
    class Attention(nn.Module):
        def __init__(self, batch_first):
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)

        def forward(self, x):
            y = self.norm(x)
            return self.attention(y, y, y)[0]

    for batch_first in (False, True):
        net = Attention(batch_first).eval()
        (group,) = found(net, torch.randn(2, 4, 4))
        assert group.readers[0] is net.attention.in_proj_weight
