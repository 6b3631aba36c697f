"""What additions and convolutions read, by the networks' published structure."""

import pytest
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.quant.structure.dataflow import DataflowError, outputs_read


def test_a_resnet_adds_branch_ends_and_shortcuts():
    found = outputs_read(create_backbone("resnet18"), by_convolutions=False)
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    ends = [f"{block}.bn2" for block in blocks]
    projections = [f"layer{stage}.0.downsample.1" for stage in (2, 3, 4)]
    shortcuts = ["act1", *(f"layer{stage}.0.act2" for stage in (1, 2, 3, 4))]
    assert sorted(found) == sorted([*ends, *projections, *shortcuts])


def test_linear_bottlenecks_are_read_without_an_activation():
    found = outputs_read(create_backbone("mobilenetv2"), by_convolutions=True)
    assert {"blocks.0.0.bn2", "blocks.1.0.bn3", "blocks.1.1.bn3"} <= set(found)
    assert "blocks.2.1" in found  # the sum of one block is the shortcut of the next
    assert "blocks.6.0.bn3" in found and "conv_head" not in found


class Forked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) * 2 + self.norm(x)


class Bare(Forked):
    def forward(self, x):
        return self.conv(x) + self.norm(x)


class Branching(Forked):
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Forked(), "no module returns its tensor mul"),
        (Bare(), "nothing follows conv"),
        (Branching(), "traced"),
    ],
)
def test_what_no_module_returns_is_refused(network, reason):
    with pytest.raises(DataflowError, match=reason):
        outputs_read(network, by_convolutions=False)
