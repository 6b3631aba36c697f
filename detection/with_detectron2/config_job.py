"""Run a Detectron2 configuration as a job of a suite, in `num_gpus` processes.

    config: configs/detection/detectron2/retinanet_R_18_FPN_90k_lsq_w4a4.yaml
    opts: [SOLVER.MAX_ITER, 1000]
    detector: detector.pth

The job's identity is the merged configuration without paths, device and periods. Needs Detectron2.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from lowbit.backbones.costs import backbone_costs
from lowbit.common.file_hash import file_sha256
from lowbit.common.shipped_configs import find_config
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.voc_lists import read_image_names
from lowbit.detection.datasets.voc_xml import digest
from lowbit.detection.evaluation.detections_file import read_detections
from lowbit.detection.evaluation.measurements import (
    all_halves,
    keep,
    overall_numbers,
    score_all,
    scores_on_the_way,
    spread_facts,
)
from lowbit.detection.recipe import VERSION, Recipe
from lowbit.detection.scoring.half_samples import Spread
from lowbit.detection.scoring.halves_file import write_halves
from lowbit.detection.with_detectron2.build_detector import save_trained, start_from
from lowbit.detection.with_detectron2.catalog import (
    INFERENCE,
    load_registered,
    register_named,
    registered_set,
    voc_list,
)
from lowbit.detection.with_detectron2.config import oscillation, quantization, read_config
from lowbit.detection.with_detectron2.config_checks import YOLOV4_KEYS, flat
from lowbit.detection.with_detectron2.hooks import plain_scores
from lowbit.detection.with_detectron2.trainer import LowbitTrainer
from lowbit.training.job_state import claim
from lowbit.training.metrics_log import read_curve, record_scores
from lowbit.training.seeding import resolve_device

_COSMETIC = (
    "OUTPUT_DIR",
    "VIS_PERIOD",
    "LOWBIT_LOG_PERIOD",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.VOC_BASE",  # in the hash of the annotations
    "MODEL.LOWBIT.CHECKPOINT",
    "MODEL.LOWBIT.DETECTOR",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
    "TEST.EXPECTED_RESULTS",
)


# Keys that did not count when ids were first made: unset, they are left out.
_LATER = ("SOLVER.OSCILLATION", "TEST.EVAL_AT")


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that identify the job and determine which results are comparable with it.

    Raises:
        ValueError: the configuration is invalid.
        FileNotFoundError: there is no such file.
    """
    cfg = job_config(recipe)
    asked = quantization(cfg)
    method = cfg.SOLVER.OPTIMIZER.lower() if asked else "fp"
    control = oscillation(cfg)
    parts = [method, *([control.label] if control else [])]
    if cfg.MODEL.QUANT.SCOPE != "backbone":
        parts.append(cfg.MODEL.QUANT.SCOPE)
    return {
        "task": "detection",
        "engine": "detectron2",
        "dataset": cfg.DATASETS.TEST[0],
        "split_sha256": None if missing_data(recipe) else split_sha256(recipe),
        "protocol": cfg.MODEL.META_ARCHITECTURE,
        "image_size": cfg.INPUT.MIN_SIZE_TEST or None,
        "method": method,
        "training": ", ".join(parts),
        "policy": asked[0].name if asked else "-",
        "policy_fingerprint": asked[0].fingerprint if asked else "-",
        "policy_on_board": False,
        "precision": _precision(cfg),
        "config_sha256": _digest(_decisive(cfg)),
        # Some losses, and norms that are not synced, depend on the part of a batch that a process sees.
        **({"processes": recipe.num_gpus} if recipe.num_gpus > 1 else {}),
    }


def split_sha256(recipe: Recipe) -> str:
    """Hash the training and test annotations.

    Raises:
        FileNotFoundError: they are missing.
    """
    names = _register(job_config(recipe), recipe)
    return _digest([_annotations_sha256(name) for name in names])


def scored_set(recipe: Recipe) -> DetectionSet:
    """Return the job's test set."""
    cfg = job_config(recipe)
    _register(cfg, recipe)
    return registered_set(cfg.DATASETS.TEST[0])


def missing_data(recipe: Recipe) -> str | None:
    """Return what is missing and how to get it, or None."""
    try:
        split_sha256(recipe)
    except FileNotFoundError as error:
        return None if recipe.config in str(error) else str(error)
    except ValueError:  # a damaged set or an invalid configuration: the job reports it
        pass
    return None


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train by the configuration, resuming from the state in `folder`, if any, and score.

    In a process group every process calls this.

    Returns:
        Measurements, costs, artifacts, checkpoint and details, in plain JSON types; in the first
        process only.
    """
    key = _decisive(job_config(recipe))
    cfg = job_config(recipe, processes=comm.get_world_size())
    cfg.OUTPUT_DIR, cfg.MODEL.DEVICE = str(folder), str(resolve_device(recipe.device))
    load_registered(_register(cfg, recipe))
    images = scored_set(recipe)
    cfg.freeze()
    start = start_from(cfg)
    claim(folder, {"version": VERSION, "recipe": key, "start": start.report["sha256"]})
    trainer = LowbitTrainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.train_rest():
        results = trainer._last_eval_results
    else:
        results = trainer.evaluate()
        if comm.is_main_process() and (scores := plain_scores(results)):
            record_scores(folder, trainer.max_iter, scores)
    if not comm.is_main_process():
        return {}
    detector = save_trained(cfg, trainer.checkpointer.model)
    detections = list(read_detections(folder / INFERENCE))
    kept = keep(folder, images, detections)
    scored = score_all(images, detections, engine="detectron2")
    _, spreads = overall_numbers(scored)
    curve = read_curve(folder)
    measurements = _measurements(cfg, results, spreads, curve)
    halves = {_precision(cfg): all_halves(scored)}
    kept |= write_halves(folder, images.to_coco(), measurements, halves)
    return {
        "measurements": measurements,
        "costs": _costs(cfg, start.architecture),
        "artifacts": {"checkpoint": detector.name, **kept},
        "checkpoint": start.backbone,
        "details": {
            "start": start.report,
            "config": cfg.dump(),
            "classes": _classes(results),
            "curve": curve,
        },
    }


def job_config(recipe: Recipe, *, processes: int = 1) -> CfgNode:
    """Return the configuration of a job, with the recipe's files and seed, for that many processes.

    Raises:
        FileNotFoundError: there is no such configuration.
        ValueError: it is invalid, or is not evaluated on exactly one set.
    """
    path = find_config(recipe.config, "detection/detectron2")
    opts = json.dumps(recipe.opts)
    cfg = _read(path, opts, path.stat().st_mtime_ns, processes).clone()
    cfg.SEED = recipe.seed
    if recipe.detector:
        cfg.MODEL.LOWBIT.DETECTOR = recipe.detector
    elif recipe.checkpoint:
        cfg.MODEL.LOWBIT.CHECKPOINT = recipe.checkpoint
    if recipe.architecture:
        cfg.MODEL.LOWBIT.ARCHITECTURE = recipe.architecture
    if len(cfg.DATASETS.TEST) != 1:
        raise ValueError(
            f"{recipe.config} is evaluated on {len(cfg.DATASETS.TEST)} sets; nothing was trained. A "
            "job is evaluated on one set: set DATASETS.TEST to it."
        )
    return cfg


@lru_cache
def _read(path: Path, opts: str, changed: int, processes: int) -> CfgNode:
    """Read a configuration once for all jobs of a plan, until its file changes."""
    return read_config(path, json.loads(opts), processes=processes)


def _register(cfg: CfgNode, recipe: Recipe) -> tuple[str, ...]:
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    register_named(names, root=recipe.data_root, voc_base=cfg.DATASETS.VOC_BASE)
    return names


def _annotations_sha256(name: str) -> str:
    """Hash the annotations of a registered set: ours, COCO's file, or the files of VOC's list."""
    if name not in DatasetCatalog.list():
        raise ValueError(
            f"there is no data set {name!r}; nothing was trained. Use Detectron2's names, or SET/SPLIT, "
            "as in voc:raccoon/train."
        )
    metadata = MetadataCatalog.get(name)
    if metadata.get("detection_set"):
        return metadata.detection_set().split_sha256
    file = Path(metadata.get("json_file") or voc_list(name))
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no {file}, which data set {name} needs; set DETECTRON2_DATASETS (or LOWBIT_DATA) "
            "to the folder that has it."
        )
    if file.suffix == ".json":
        return file_sha256(file)
    folder = Path(metadata.dirname, "Annotations")
    return _digest([(image, digest(folder / f"{image}.xml")) for image in read_image_names(file)])


def _decisive(cfg: CfgNode) -> dict[str, str]:
    """Return the keys that determine the numbers; YOLOv4's only with it, so that other jobs keep their ids."""
    left_out = () if cfg.MODEL.META_ARCHITECTURE == "YOLOv4" else YOLOV4_KEYS
    return {
        key: str(value)
        for key, value in flat(cfg)
        if key not in _COSMETIC and (value or key not in _LATER) and not key.startswith(left_out)
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _precision(cfg: CfgNode) -> str:
    asked = quantization(cfg)
    return str(asked[1]) if asked else "FP"


def _measurements(
    cfg: CfgNode, results: dict, spreads: dict[str, Spread], curve: list[dict[str, float]]
) -> list[dict[str, Any]]:
    (name,) = cfg.DATASETS.TEST
    metadata = MetadataCatalog.get(name)
    by_voc = metadata.get("evaluator_type") == "pascal_voc"  # its AP is not COCO's
    suffix = f"_voc{metadata.year % 100:02d}" if by_voc else ""
    common = {"unit": "%", "n": len(DatasetCatalog.get(name)), "precision": _precision(cfg)}
    common["split"] = "test"
    named = {f"{metric}{suffix}": value for metric, value in plain_scores(results).items()}
    return [
        {"metric": metric, "value": value, **common} | spread_facts(spreads.get(metric))
        for metric, value in named.items()
    ] + scores_on_the_way(
        curve, cfg.TEST.EVAL_AT, last=cfg.SOLVER.MAX_ITER, suffix=suffix, **common
    )


def _costs(cfg: CfgNode, architecture: str) -> dict[str, dict[str, int]]:
    """Count the backbone's cost on a square of the test images' shorter side; none if it varies."""
    if not cfg.INPUT.MIN_SIZE_TEST:
        return {}
    policy, precision = quantization(cfg) or (None, "FP")
    size = cfg.INPUT.MIN_SIZE_TEST
    return backbone_costs(architecture, policy, [str(precision)], image_size=size)


def _classes(results: dict[str, dict[str, float]]) -> dict[str, float]:
    found = results.get("bbox", {})
    return {
        key.removeprefix("AP-"): float(value)
        for key, value in found.items()
        if key.startswith("AP-") and value == value  # nan: a class without objects
    }
