"""Cases of `lowbit-bench bench detection`: an iteration of our detectors, over Detectron2's own and over FP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from lowbit.detection.with_detectron2.install import import_detectron2
from lowbit.tools.benchmarks.timing import Case, ratio_rows

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "detection" / "detectron2"
FILES = {
    "RetinaNet R-18-FPN": ("Base-RetinaNet-Lowbit.yaml", 18, "build_retinanet_resnet_fpn_backbone"),
    "Faster R-CNN R-50-FPN": ("Base-RCNN-FPN-Lowbit.yaml", 50, "build_resnet_fpn_backbone"),
}
COMMON = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64, "SOLVER.BASE_LR", 1e-5]
QUANT = ["MODEL.QUANT.ENABLED", True, "MODEL.QUANT.PRECISION", "4w4a"]
METHODS = {
    "LSQ 4w4a": [*QUANT, "MODEL.QUANT.POLICY", "lsq"],
    "SGDT 4w4a": [*QUANT, "MODEL.QUANT.POLICY", "tr", "SOLVER.OPTIMIZER", "SGDT"],
}


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows of the table; all variants of a detector are timed in turn, in one run."""
    import_detectron2()
    side = 96 if quick else 160
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for detector in FILES:
        batch = batch_of(2, side)
        stock, full = f"{detector}, Detectron2's", f"{detector}, full precision"
        variants = {
            stock: stock_step(detector, batch, device),
            full: our_step(detector, batch, device),
        }
        for scope in ("backbone", "full"):
            for method, opts in METHODS.items():
                opts = [*opts, "MODEL.QUANT.SCOPE", scope]
                variants[f"{detector}, {method}, {scope}"] = our_step(detector, batch, device, opts)
        note = f"2 x {side} px, {device}"
        rounds = 2 if quick else 7
        rows = list(ratio_rows(variants, stock, rounds, {full: 1.02}, note=note))
        yield rows[0]  # ours over Detectron2's, in full precision
        del variants[stock]
        limits = {f"{detector}, {method}, backbone": 1.15 for method in METHODS}
        yield from ratio_rows(variants, full, rounds, limits, note=note)


def batch_of(images: int, side: int) -> list[dict]:
    """Return images of noise with one object each, in the format of Detectron2's mapper."""
    from detectron2.structures import Boxes, Instances

    generator = torch.Generator().manual_seed(0)
    batch = []
    for _ in range(images):
        pixels = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
        objects = Instances((side, side))
        objects.gt_boxes = Boxes(torch.tensor([[side * 0.2, side * 0.2, side * 0.8, side * 0.8]]))
        objects.gt_classes = torch.zeros(1, dtype=torch.int64)
        batch.append({"image": pixels, "instances": objects, "height": side, "width": side})
    return batch


def our_step(detector: str, batch: list[dict], device: str, opts=()) -> Callable[[], None]:
    """Return one iteration of our detector, quantized as the overrides say."""
    from lowbit.detection.detector.quantize import quantize_detector
    from lowbit.detection.with_detectron2.build_detector import build_detector
    from lowbit.detection.with_detectron2.config import quantization, read_config
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer
    from lowbit.quant import reuse_weights

    file, depth, _ = FILES[detector]
    own = ["MODEL.DEVICE", device, "MODEL.LOWBIT.ARCHITECTURE", f"resnet{depth}"]
    cfg = read_config(CONFIGS / file, [*COMMON, *own, *opts])
    model = build_detector(cfg)
    if (asked := quantization(cfg)) is not None:
        quantize_detector(model, *asked, batches=[batch], scope=cfg.MODEL.QUANT.SCOPE)
    optimizer = LowbitTrainer.build_optimizer(cfg, model)

    def step() -> None:
        with reuse_weights(model):
            _iterate(model, optimizer, batch)

    return step


def stock_step(detector: str, batch: list[dict], device: str) -> Callable[[], None]:
    """Return one iteration of Detectron2's own detector and optimizer, with trained norms."""
    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer

    from lowbit.detection.with_detectron2.config import default_config

    file, depth, backbone = FILES[detector]
    cfg = default_config()
    cfg.merge_from_file(str(CONFIGS / file))
    features = list(cfg.MODEL.LOWBIT.OUT_FEATURES)
    cfg.merge_from_list(
        [*COMMON, "MODEL.DEVICE", device, "MODEL.BACKBONE.NAME", backbone]
        + ["MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.NORM", "BN"]
        + ["MODEL.RESNETS.OUT_FEATURES", features, "MODEL.RESNETS.STRIDE_IN_1X1", False]
        + ["MODEL.RESNETS.RES2_OUT_CHANNELS", 64 if depth == 18 else 256]
    )
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    return lambda: _iterate(model, optimizer, batch)


def _iterate(model, optimizer, batch: list[dict]) -> None:
    from detectron2.utils.events import EventStorage

    with EventStorage(0):
        losses = model(batch)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
