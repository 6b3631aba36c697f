"""Translate a recipe to a Detectron2 configuration. Needs Detectron2."""

import json
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from lowbit.detection.detector.initial_weights import Start
from lowbit.detection.detector.pyramid_levels import anchor_sizes, level_strides
from lowbit.detection.recipe import Recipe
from lowbit.detection.with_detectron2.config import add_lowbit_config


def to_cfg(
    recipe: Recipe, start: Start, *, classes: int, folder: Path | str = "", dataset: str = ""
) -> CfgNode:
    """Return the Detectron2 configuration of a recipe.

    Args:
        recipe: a recipe with engine detectron2.
        start: the initial weights.
        classes: number of classes.
        folder: OUTPUT_DIR.
        dataset: registered name of the training images.

    Detectron2's model zoo is not used: its RetinaNet base needs unsafe YAML and an old setuptools.
    """
    cfg = get_cfg()
    add_lowbit_config(cfg)
    strides = level_strides(start.network, recipe.features, added=recipe.added_levels)
    mean, std = start.normalization
    numbers = recipe.solver
    policy = recipe.quant_policy
    cfg.OUTPUT_DIR = str(folder)
    cfg.SEED = recipe.seed
    cfg.VERSION = 2

    cfg.MODEL.DEVICE = recipe.device
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.PIXEL_MEAN = [255 * value for value in mean]
    cfg.MODEL.PIXEL_STD = [255 * value for value in std]
    cfg.MODEL.BACKBONE.FREEZE_AT = recipe.freeze_at
    cfg.MODEL.LOWBIT.ARCHITECTURE = start.architecture
    cfg.MODEL.LOWBIT.CHECKPOINT = recipe.checkpoint or ""
    cfg.MODEL.LOWBIT.RANDOM = recipe.random_backbone
    cfg.MODEL.LOWBIT.DETECTOR = recipe.detector or ""
    cfg.MODEL.LOWBIT.OUT_FEATURES = list(recipe.features)
    cfg.MODEL.LOWBIT.EXTRA_LEVELS = recipe.extra_levels
    cfg.MODEL.LOWBIT.NORM = recipe.backbone_norm
    cfg.MODEL.LOWBIT.FPN_RELU = recipe.fpn_relu
    norm = "" if recipe.norm == "none" else recipe.norm
    cfg.MODEL.FPN.IN_FEATURES = list(recipe.features)
    cfg.MODEL.FPN.OUT_CHANNELS = recipe.fpn_channels
    cfg.MODEL.FPN.NORM = norm
    levels = [f"p{stride.bit_length() - 1}" for stride in strides]
    if recipe.meta_architecture == "retinanet":
        cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_lowbit_fpn_backbone"
        cfg.MODEL.RETINANET.NORM = norm
        cfg.MODEL.RETINANET.IN_FEATURES = levels
        cfg.MODEL.RETINANET.NUM_CLASSES = classes
        cfg.MODEL.RETINANET.NUM_CONVS = recipe.head_convs
    elif recipe.meta_architecture == "yolov4":
        settings = recipe.yolov4_settings
        cfg.MODEL.META_ARCHITECTURE = "YOLOv4"
        cfg.MODEL.BACKBONE.NAME = "build_lowbit_yolov4_backbone"
        cfg.MODEL.YOLOV4.NUM_CLASSES = classes
        cfg.MODEL.YOLOV4.KMEANS = settings.anchors == "kmeans"
        if not isinstance(settings.anchors, str):
            cfg.MODEL.YOLOV4.ANCHORS = [list(shape) for shape in settings.anchors]
        cfg.INPUT.MOSAIC = settings.mosaic
        cfg.INPUT.COLOR_JITTER = settings.color_jitter
    else:
        cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
        cfg.MODEL.BACKBONE.NAME = "build_lowbit_fpn_backbone"
        cfg.MODEL.RPN.IN_FEATURES = levels
        cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 2000
        cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 1000
        cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 1000  # for FPN; the defaults are for a C4 detector
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        cfg.MODEL.ROI_HEADS.IN_FEATURES = levels[:-1]
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
        cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = recipe.regions_per_image
        cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
        cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
        cfg.MODEL.ROI_BOX_HEAD.FC_DIM = recipe.box_head_channels
        cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = anchor_sizes(strides, recipe.anchor_scales)
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(recipe.aspect_ratios)]
    if policy is not None:
        cfg.MODEL.QUANT.ENABLED = True
        cfg.MODEL.QUANT.POLICY = json.dumps(policy.to_dict())
        cfg.MODEL.QUANT.PRECISION = str(recipe.precision)
        cfg.MODEL.QUANT.SCOPE = recipe.scope
        cfg.MODEL.QUANT.CALIBRATION_IMAGES = recipe.calibration_images

    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(recipe.train_sizes) or (0,)  # 0: as it is
    cfg.INPUT.MIN_SIZE_TEST = recipe.test_size or 0
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = recipe.max_size
    cfg.INPUT.RANDOM_FLIP = "horizontal" if recipe.flip else "none"
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.DATASETS.TEST = ()  # the stage evaluates
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False

    cfg.SOLVER.OPTIMIZER = numbers.optimizer.upper()
    by_steps = numbers.schedule == "step"
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR" if by_steps else "WarmupCosineLR"
    cfg.SOLVER.STEPS = tuple(numbers.milestones)
    cfg.SOLVER.GAMMA = numbers.lr_factor
    cfg.SOLVER.BASE_LR = numbers.lr
    cfg.SOLVER.BASE_LR_END = numbers.lr_end
    cfg.SOLVER.MAX_ITER = numbers.iterations
    cfg.SOLVER.MOMENTUM = numbers.momentum
    cfg.SOLVER.WEIGHT_DECAY = numbers.weight_decay
    cfg.SOLVER.WEIGHT_DECAY_NORM = numbers.weight_decay_norm
    cfg.SOLVER.SCALE_LR_FACTOR = numbers.scale_lr_factor
    cfg.SOLVER.WARMUP_ITERS = numbers.warmup_iterations
    cfg.SOLVER.WARMUP_FACTOR = numbers.warmup_factor
    cfg.SOLVER.LAMBDA = numbers.lambda_
    cfg.SOLVER.TARGET_SCHEDULE = numbers.target_schedule
    cfg.SOLVER.TARGET_STEPS = tuple(numbers.target_milestones)
    cfg.SOLVER.TARGET_GAMMA = numbers.target_factor
    if numbers.oscillation is not None:
        cfg.SOLVER.OSCILLATION = numbers.oscillation.model_dump_json(exclude_unset=True)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = numbers.clip_type is not None
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = numbers.clip_type or "value"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = numbers.clip_value
    cfg.SOLVER.AMP.ENABLED = recipe.amp
    cfg.TEST.EVAL_AT = tuple(recipe.evaluate_at)
    cfg.SOLVER.IMS_PER_BATCH = recipe.batch_size
    cfg.SOLVER.CHECKPOINT_PERIOD = recipe.checkpoint_every
    cfg.LOWBIT_LOG_PERIOD = recipe.log_every
    return cfg
