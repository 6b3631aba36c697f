"""YOLOv4's head: at each cell and anchor a box, its objectness and its classes (YOLOv3, Sec. 2.1).

    b_x = stride (c_x + s sigmoid(t_x) - (s - 1) / 2)      b_w = a_w exp(t_w)

with the cell's column c_x and the anchor's width a_w, likewise for y and h. s > 1 lets a center reach
its cell's border (YOLOv4, Sec. 4.3: grid sensitivity).
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lowbit.detection.yolov4.anchors import ORIGINAL
from lowbit.detection.yolov4.detection_losses import detection_losses
from lowbit.detection.yolov4.detections import Selection, select_detections
from lowbit.detection.yolov4.path_aggregation import convolution

ANCHORS_PER_LEVEL = 3
SENSITIVITY = (1.2, 1.1, 1.05)  # s of each level (the published configuration's scale_x_y)
_LARGEST = 62.5  # width over the anchor's, as in R-CNN (1000 / 16): keeps exp finite
_PRIOR = 0.01  # objectness at the start, as in RetinaNet


class YOLOv4Head(nn.Module):
    """A 3x3 convolution and a predictor for each level, and what their outputs mean.

    Args:
        channels: of the levels, from fine to coarse.
        classes: number of classes.
        strides: of the levels, pixels.
        norm: as in `PathAggregation`.
        anchors: nine widths and heights, pixels.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        classes: int,
        strides: Sequence[int],
        norm: Callable[[int], nn.Module] | None,
        anchors: Sequence[Sequence[float]] = ORIGINAL,
    ) -> None:
        super().__init__()
        self.classes, self.strides = classes, tuple(strides)
        self.selection = Selection()
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32))  # (9, 2)
        self.levels = nn.ModuleList()
        for count in channels:
            predictor = nn.Conv2d(2 * count, ANCHORS_PER_LEVEL * (5 + classes), 1)
            nn.init.normal_(predictor.weight, std=0.01)
            nn.init.zeros_(predictor.bias)
            objectness = predictor.bias.view(ANCHORS_PER_LEVEL, -1)[:, 4]
            nn.init.constant_(objectness, -math.log(1 / _PRIOR - 1))
            block = convolution(count, 2 * count, 3, norm=norm)
            self.levels.append(nn.Sequential(OrderedDict(block=block, predictor=predictor)))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Return the outputs (N, P, 5 + K), float32, by level, anchor, row, column; and the levels' sizes."""
        found, sizes = [], []
        for part, level in zip(self.levels, levels, strict=True):
            x = part(level)  # (N, A (5 + K), H, W)
            count, _, rows, columns = x.shape
            x = x.view(count, ANCHORS_PER_LEVEL, 5 + self.classes, rows * columns)
            found.append(x.transpose(2, 3).flatten(1, 2).float())
            sizes.append((rows, columns))
        return torch.cat(found, 1), sizes

    def boxes(self, outputs: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return the boxes that outputs (N, P, 5 + K) stand for: (N, P, 4) x1 y1 x2 y2, pixels."""
        return decode(outputs, self.anchors, self.strides, sizes)

    def losses(
        self, levels: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the training losses of a batch; see `detection_losses`."""
        outputs, sizes = self(levels)
        with torch.autocast(outputs.device.type, enabled=False):
            return detection_losses(
                outputs,
                self.boxes(outputs, sizes),
                targets,
                anchors=self.anchors,
                strides=self.strides,
                sizes=sizes,
            )

    def detect(
        self, levels: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return boxes, scores and labels of each image; `image_sizes` are without padding."""
        outputs, sizes = self(levels)
        boxes = self.boxes(outputs, sizes)
        scores = outputs[..., 4:5].sigmoid() * outputs[..., 5:].sigmoid()  # (N, P, K)
        return [
            select_detections(found, score, size, self.selection)
            for found, score, size in zip(boxes, scores, image_sizes, strict=True)
        ]


def decode(
    outputs: Tensor, anchors: Tensor, strides: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """Return the boxes of outputs (N, P, 4 or more), (N, P, 4) x1 y1 x2 y2; the rest as in `assign`."""
    cells, shapes, steps, reach = [], [], [], []
    per_level = len(anchors) // len(strides)
    for k, (stride, (rows, columns)) in enumerate(zip(strides, sizes, strict=True)):
        y, x = torch.meshgrid(
            torch.arange(rows, device=outputs.device),
            torch.arange(columns, device=outputs.device),
            indexing="ij",
        )
        cells.append(torch.stack([x, y], -1).view(1, -1, 2).expand(per_level, -1, 2).flatten(0, 1))
        own = anchors[k * per_level : (k + 1) * per_level]
        shapes.append(own[:, None].expand(-1, rows * columns, 2).flatten(0, 1))
        places = per_level * rows * columns
        steps.append(outputs.new_full((places, 1), float(stride)))
        reach.append(outputs.new_full((places, 1), SENSITIVITY[k]))
    s = torch.cat(reach)
    offset = s * outputs[..., :2].sigmoid() - (s - 1) / 2
    center = torch.cat(steps) * (torch.cat(cells) + offset)
    scale = outputs[..., 2:4].clamp(max=math.log(_LARGEST)).exp()
    half = torch.cat(shapes) * scale / 2
    return torch.cat([center - half, center + half], -1)
