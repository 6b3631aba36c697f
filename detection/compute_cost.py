"""Estimate the compute of a detection recipe: passes of backbone, pyramid and heads over images."""

from dataclasses import dataclass
from math import sqrt

from lowbit.backbones.counting import NetworkSize, network_size
from lowbit.common.compute_cost import LEARNING, Work
from lowbit.detection.recipe import Recipe
from lowbit.detection.yolov4.operations import neck_and_head

_BYTES = 4  # per number
_STATE = 3  # size of a training state, in detectors
_RATIO = 4 / 3  # typical longer over shorter side of a photograph
_UNKNOWN_TESTS = (
    5_000  # as COCO's val; reading the annotations of other folders to count them takes too long
)
_PHOTOGRAPH = 600  # shorter side if a recipe does not resize images, pixels


@dataclass(frozen=True)
class Shape:
    """The numbers that determine a detector's compute.

    Attributes:
        architecture: the backbone's name.
        pixels: per training image, and per test image.
        batch: images per step.
        steps: optimizer steps; 0: nothing is trained.
        tests: images scored.
        scorings: how often they are scored.
        stages: number of the backbone's last stages that feed the pyramid; 0: no pyramid (C4).
        extra: additional pyramid levels above those.
        channels: channels of the pyramid.
        towers: convolutions in both towers of a RetinaNet head; 0: another detector.
        regions: boxes per image in the second stage, and the width of its head.
        yolov4: whether neck and head are YOLOv4's.
    """

    architecture: str
    pixels: tuple[float, float]
    batch: int
    steps: int
    tests: int
    scorings: int
    stages: int
    extra: int
    channels: int
    towers: int
    regions: tuple[int, int]
    yolov4: bool = False


def work(recipe: Recipe) -> Work | None:
    """Count the work of a recipe that names its architecture; None if it cannot be counted.

    Raises:
        ValueError: there is no network of that name.
    """
    shape = _of_config(recipe) if recipe.config is not None else _of_recipe(recipe)
    if shape is None:
        return None
    learned = LEARNING * shape.steps * shape.batch * _forward(shape, shape.pixels[0])
    scored = shape.scorings * shape.tests * _forward(shape, shape.pixels[1])
    kept = 1 + (_STATE if shape.steps else 0)  # detectors
    return Work(learned + scored, disk=kept * _BYTES * _parameters(shape))


def _of_recipe(recipe: Recipe) -> Shape | None:
    if recipe.architecture is None:
        return None
    if recipe.dataset == "digit-scenes":
        train = test = float(recipe.image_size**2)
    else:
        sizes = recipe.train_sizes or (_PHOTOGRAPH,)
        most = float(recipe.max_size**2)
        train = sum(min(s * s * _RATIO, most) for s in sizes) / len(sizes)
        test = min((recipe.test_size or _PHOTOGRAPH) ** 2 * _RATIO, most)
    one_stage = recipe.meta_architecture == "retinanet"
    two_stage = recipe.meta_architecture == "faster_rcnn"
    return Shape(
        architecture=recipe.architecture,
        pixels=(train, test),
        batch=recipe.batch_size,
        steps=0 if recipe.method == "ptq" else recipe.iterations,
        tests=recipe.test_images or _UNKNOWN_TESTS,
        scorings=len(recipe.precisions) or 1 + len(recipe.evaluate_at),
        stages=len(recipe.features),
        extra=recipe.added_levels,
        channels=recipe.fpn_channels,
        towers=2 * recipe.head_convs if one_stage else 0,
        regions=(recipe.regions_per_image, recipe.box_head_channels) if two_stage else (0, 0),
        yolov4=recipe.meta_architecture == "yolov4",
    )


def _of_config(recipe: Recipe) -> Shape:
    from lowbit.detection.with_detectron2.install import import_detectron2

    import_detectron2()
    from lowbit.detection.with_detectron2.config_job import job_config

    cfg = job_config(recipe)
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    one_stage = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    yolov4 = cfg.MODEL.META_ARCHITECTURE == "YOLOv4"
    pyramid = "fpn" in cfg.MODEL.BACKBONE.NAME or yolov4
    scenes = str(cfg.DATASETS.TEST[0]).startswith("digit_scenes")
    ratio = 1.0 if scenes else _RATIO
    train = sum(min(s * s * ratio, cfg.INPUT.MAX_SIZE_TRAIN**2) for s in sizes) / len(sizes)
    test = (cfg.INPUT.MIN_SIZE_TEST or _PHOTOGRAPH) ** 2 * ratio
    return Shape(
        architecture=cfg.MODEL.LOWBIT.ARCHITECTURE,
        pixels=(
            train or _PHOTOGRAPH**2 * ratio,
            min(test, float(cfg.INPUT.MAX_SIZE_TEST**2)),
        ),
        batch=cfg.SOLVER.IMS_PER_BATCH,
        steps=cfg.SOLVER.MAX_ITER,
        tests=_UNKNOWN_TESTS,
        scorings=1,
        stages=len(cfg.MODEL.LOWBIT.OUT_FEATURES) if pyramid else 0,
        extra=2 * cfg.MODEL.LOWBIT.EXTRA_LEVELS if one_stage else 1,
        channels=cfg.MODEL.FPN.OUT_CHANNELS,
        towers=2 * cfg.MODEL.RETINANET.NUM_CONVS if one_stage else 0,
        regions=(0, 0)
        if one_stage or yolov4
        else (cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_BOX_HEAD.FC_DIM),
        yolov4=yolov4,
    )


def _forward(shape: Shape, pixels: float) -> float:
    """Return the operations of a detector's forward pass over one image."""
    size = network_size(shape.architecture, 32 * round(sqrt(pixels) / 32) or 32)
    if not shape.stages:
        return size.operations + _res5_heads(size, shape)
    if shape.yolov4:
        return size.operations + pixels * neck_and_head(size.levels[-3:], shape.channels)[0]
    strides = [stride for _, stride in size.levels[-shape.stages :]]
    lateral = sum(c * pixels / s**2 for c, s in size.levels[-shape.stages :]) * shape.channels
    strides += [strides[-1] * 2 ** (k + 1) for k in range(shape.extra)]
    cells = sum(pixels / stride**2 for stride in strides)
    square = shape.channels**2
    convolved = 9 * square * cells * (1 + (shape.towers or 1))  # the pyramid's own, and the heads'
    regions, width = shape.regions
    boxes = regions * (49 * shape.channels * width + width**2)
    return size.operations + 2 * (lateral + convolved + boxes)


def _parameters(shape: Shape) -> int:
    """Return the number of a detector's parameters, without norms and predictors."""
    size = network_size(shape.architecture, 224)
    if shape.yolov4:
        return size.parameters + neck_and_head(size.levels[-3:], shape.channels)[1]
    lateral = sum(channels for channels, _ in size.levels[-shape.stages :]) if shape.stages else 0
    convolved = 9 * shape.channels * (shape.stages + (shape.towers or 1))
    regions, width = shape.regions
    boxes = (49 * shape.channels + width) * width if regions and shape.stages else 0
    return size.parameters + shape.channels * (lateral + convolved) + boxes


def _res5_heads(size: NetworkSize, shape: Shape) -> float:
    """Return the operations of the last stage on each region, 7 x 7 of its cells."""
    share = 0.2  # approximate share of the last stage in a ResNet's operations
    cells = 49 * shape.regions[0] * size.levels[-1][1] ** 2
    per_pixel = network_size(shape.architecture, 224).operations / 224**2
    return share * per_pixel * cells
