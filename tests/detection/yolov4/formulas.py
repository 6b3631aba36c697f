"""YOLOv4's formulas once more, from the papers, in plain Python: what ours are checked against.

Predictions are in the order level, anchor, row, column; a box is (x1, y1, x2, y2) in pixels.
"""

import math

SENSITIVITY = {8: 1.2, 16: 1.1, 32: 1.05}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cells(strides, sizes, anchors):
    """Yield stride, anchor (width, height), row and column of each prediction."""
    for level, (stride, (rows, columns)) in enumerate(zip(strides, sizes, strict=True)):
        for anchor in anchors[3 * level : 3 * level + 3]:
            for row in range(rows):
                for column in range(columns):
                    yield stride, tuple(anchor), row, column


def decoded(output, stride, anchor, row, column):
    """b = stride (c + s sigmoid(t) - (s - 1) / 2), b_w = a_w e^t."""
    s = SENSITIVITY[stride]
    x = stride * (column + s * sigmoid(output[0]) - (s - 1) / 2)
    y = stride * (row + s * sigmoid(output[1]) - (s - 1) / 2)
    width, height = anchor[0] * math.exp(output[2]), anchor[1] * math.exp(output[3])
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    return overlap / (area(a) + area(b) - overlap)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def shape(box):
    return (box[2] - box[0], box[3] - box[1])


def shape_iou(a, b):
    return iou((0, 0, *a), (0, 0, *b))


def ciou_loss(a, b):
    """Zheng et al. 2020: 1 - IoU + rho^2 / c^2 + alpha v."""
    overlap = iou(a, b)
    rho = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    c = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    angles = [math.atan(w / h) for w, h in (shape(a), shape(b))]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = v / (1 - overlap + v) if v else 0.0
    return 1 - overlap + rho / c + alpha * v


def assigned(boxes, anchors, strides, sizes, threshold=0.213):
    """Return {prediction: object}: the cell of the center, at every anchor that fits or fits best."""
    places = {found: place for place, found in enumerate(cells(strides, sizes, anchors))}
    owners = {}
    for number, box in enumerate(boxes):
        fits = [shape_iou(shape(box), anchor) for anchor in anchors]
        for k, fit in enumerate(fits):
            if not (fit > threshold or k == fits.index(max(fits))):
                continue
            stride, (rows, columns) = strides[k // 3], sizes[k // 3]
            column = min(int((box[0] + box[2]) / 2 // stride), columns - 1)
            row = min(int((box[1] + box[3]) / 2 // stride), rows - 1)
            place = places[stride, tuple(anchors[k]), row, column]
            if place not in owners or fit > owners[place][0]:
                owners[place] = (fit, number)
    return {place: number for place, (_, number) in owners.items()}


def cross_entropy(logit, target):
    p = sigmoid(logit)
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def losses(outputs, targets, anchors, strides, sizes, ignored=0.7):
    """Box, objectness and class losses: sums over predictions, means over images."""
    total = {"loss_box_reg": 0.0, "loss_obj": 0.0, "loss_cls": 0.0}
    whole = strides[0] ** 2 * sizes[0][0] * sizes[0][1]
    for output, (boxes, labels) in zip(outputs, targets, strict=True):
        owners = assigned(boxes, anchors, strides, sizes)
        for place, cell in enumerate(cells(strides, sizes, anchors)):
            row = output[place]
            found = decoded(row, *cell)
            if place in owners:
                truth, label = boxes[owners[place]], labels[owners[place]]
                weight = 2 - area(truth) / whole
                total["loss_box_reg"] += weight * ciou_loss(found, truth)
                total["loss_obj"] += cross_entropy(row[4], 1)
                for k, logit in enumerate(row[5:]):
                    total["loss_cls"] += cross_entropy(logit, float(k == label))
            elif not any(iou(found, truth) > ignored for truth in boxes):
                total["loss_obj"] += cross_entropy(row[4], 0)
    return {name: value / len(targets) for name, value in total.items()}
