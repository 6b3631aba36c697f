"""YOLOv4's neck: the convolutions of the published network, and where their inputs come from."""

import torch
from torch import nn

from lowbit.detection.yolov4.path_aggregation import PathAggregation
from lowbit.detection.yolov4.prediction_head import YOLOv4Head

# Input and output channels and side of each convolution of the published network behind its backbone,
# in the order in which they run; the backbone's levels have 256, 512 and 1,024 channels.
PUBLISHED = [
    *[(1024, 512, 1), (512, 1024, 3), (1024, 512, 1)],
    *[(2048, 512, 1), (512, 1024, 3), (1024, 512, 1)],  # pooled by windows of 5, 9 and 13
    *[(512, 256, 1), (512, 256, 1)],  # to be doubled; of the backbone
    *[(512, 256, 1), (256, 512, 3), (512, 256, 1), (256, 512, 3), (512, 256, 1)],
    *[(256, 128, 1), (256, 128, 1)],
    *[(256, 128, 1), (128, 256, 3), (256, 128, 1), (128, 256, 3), (256, 128, 1)],
    *[(128, 256, 3)],  # stride 2
    *[(512, 256, 1), (256, 512, 3), (512, 256, 1), (256, 512, 3), (512, 256, 1)],
    *[(256, 512, 3)],  # stride 2
    *[(1024, 512, 1), (512, 1024, 3), (1024, 512, 1), (512, 1024, 3), (1024, 512, 1)],
]


def neck(channels=128, stages=(256, 512, 1024), **options):
    return PathAggregation(stages, channels=channels, norm=nn.BatchNorm2d, **options).eval()


def stages(channels=(256, 512, 1024), side=4):
    generator = torch.manual_seed(0)
    return [
        torch.randn(1, c, side << k, side << k, generator=generator)
        for c, k in zip(channels, (2, 1, 0), strict=True)
    ]


def test_convolutions_are_the_published_networks():
    with torch.device("meta"):
        module = neck()
        head = YOLOv4Head([128, 256, 512], classes=80, strides=(8, 16, 32), norm=nn.BatchNorm2d)
    found = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    shapes = sorted((m.in_channels, m.out_channels, m.kernel_size[0]) for m in found)
    assert shapes == sorted(PUBLISHED)
    assert sum(m.stride[0] == 2 for m in found) == 2 and not any(m.bias is not None for m in found)
    predictors = [part.predictor for part in head.levels]
    assert [(m.in_channels, m.out_channels) for m in predictors] == [
        (256, 255),
        (512, 255),
        (1024, 255),
    ]


def test_levels_keep_their_sizes_and_double_their_channels():
    levels = neck(channels=8, stages=(6, 10, 14))(stages((6, 10, 14)))
    assert [tuple(x.shape) for x in levels] == [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4)]
    assert all((x < 0).any() for x in levels)
    levels = neck(channels=8, stages=(6, 10, 14), relu=True)(stages((6, 10, 14)))
    assert all((x >= 0).all() for x in levels)


def test_every_level_sees_every_stage():
    """There is a path down and a path up: each output moves with each input."""
    module, inputs = neck(channels=8, stages=(6, 10, 14)), stages((6, 10, 14))
    before = module(inputs)
    for k in range(3):
        changed = [x + (i == k) for i, x in enumerate(inputs)]
        after = module(changed)
        assert all((a - b).abs().max() > 1e-4 for a, b in zip(after, before, strict=True))


def test_pooling_sees_thirteen_cells():
    """With pointwise convolutions in place of 3x3 ones, the top level sees 6 cells to each side."""
    module = neck(channels=4, stages=(4, 4, 4))
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            kept = conv.weight.data[:, :, 1:2, 1:2].clone()
            conv.weight.data.zero_()
            conv.weight.data[:, :, 1:2, 1:2] = kept
    inputs = [torch.zeros(1, 4, 64, 64), torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 16, 16)]
    before = module(inputs)[2]
    inputs[2][0, :, 8, 8] = 100.0
    moved = (module(inputs)[2] - before).abs().amax(1)[0] > 1e-6
    rows = moved.any(1).nonzero().flatten().tolist()
    assert rows == list(range(rows[0], rows[-1] + 1))
    assert set(rows) <= set(range(2, 15)) and len(rows) == 13
