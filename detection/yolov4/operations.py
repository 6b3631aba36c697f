"""Count the operations and parameters of YOLOv4's neck and head, on torch's meta device."""

from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lowbit.detection.yolov4.path_aggregation import PathAggregation
from lowbit.detection.yolov4.prediction_head import YOLOv4Head

_CLASSES = 20  # VOC's; the predictors are a small part
_CELLS = 13  # of the coarsest level: 416 pixels


@cache
def neck_and_head(stages: tuple[tuple[int, int], ...], channels: int) -> tuple[float, int]:
    """Return the operations for a pixel of the image, and the number of parameters.

    Args:
        stages: channels and stride of the network's three levels, from fine to coarse.
        channels: of the finest level of the neck.
    """
    with torch.device("meta"):
        neck = PathAggregation([c for c, _ in stages], channels=channels, norm=nn.BatchNorm2d)
        head = YOLOv4Head(
            [channels, 2 * channels, 4 * channels],
            classes=_CLASSES,
            strides=[stride for _, stride in stages],
            norm=nn.BatchNorm2d,
        )
        inputs = [
            torch.empty(1, c, _CELLS << k, _CELLS << k)
            for k, (c, _) in zip((2, 1, 0), stages, strict=True)
        ]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            head.eval()(neck.eval()(inputs))
    pixels = (_CELLS * stages[-1][1]) ** 2
    parameters = sum(p.numel() for part in (neck, head) for p in part.parameters())
    return counter.get_total_flops() / pixels, parameters
