"""Run one transfer job from its recipe to its measurements."""

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from lowbit.backbones import LoadReport, load_backbone
from lowbit.backbones.costs import backbone_costs
from lowbit.backbones.networks.video_frames import average_frames
from lowbit.data import Images, missing_images
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import resolve_device, seeded
from lowbit.transfer.features.extract import CACHE
from lowbit.transfer.recipe.protocol_registry import get_protocol
from lowbit.transfer.recipe.recipe import VERSION, Recipe
from lowbit.transfer.scoring.accuracy import Accuracy, accuracy
from lowbit.transfer.scoring.guarded_splits import GuardedSplits
from lowbit.transfer.scoring.predictions_file import FILE as PREDICTIONS
from lowbit.transfer.scoring.predictions_file import Predictions, write_predictions
from lowbit.transfer.scoring.scored_network import ROLE as SCORED
from lowbit.transfer.scoring.scored_network import write_scored

_logger = logging.getLogger(__name__)


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Score a checkpoint by the recipe's protocol; resume from the state in `folder`.

    No test label is used before everything is trained: the protocol receives the training
    split, and validation images if the recipe has it choose; validation accuracy is reported
    separately, and test is read once, at the end.

    Returns:
        measurements, costs, artifacts, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the checkpoint or the image set is missing.
        ValueError: the checkpoint does not fill the network, or `folder` belongs to another job.
        FloatingPointError: training diverged.
        Preempted: SIGTERM, SIGINT or SIGUSR1 came while a network trained; the state was saved.
    """
    device = resolve_device(recipe.device)
    splits = GuardedSplits(recipe.dataset, train_on=recipe.train_on, root=recipe.data_root)
    with seeded(recipe.seed, device):
        backbone, report = load_backbone(
            recipe.checkpoint, recipe.architecture, allow_partial=recipe.allow_partial
        )
        _logger.info("%s", report)
        costs = backbone_costs(
            report.architecture, recipe.policy, recipe.precisions, image_size=recipe.image_size
        )
        if splits.train.frames is not None:
            average_frames(backbone, splits.train.frames)
        workspace = Workspace(Path(folder), key=_job_key(recipe, report.sha256))
        protocol = get_protocol(recipe.protocol)
        val = {"val": splits.val} if recipe.chooses or protocol.watches else {}
        fitted = protocol.fit(
            backbone, splits.train, recipe=recipe, workspace=workspace, device=device, **val
        )
    val = [_predictions(fitted.predict, splits.val)] if splits.val else []
    predictions = [_predictions(fitted.predict, splits.open_test()), *val]
    if recipe.cache_dir is None:
        shutil.rmtree(workspace.folder / CACHE, ignore_errors=True)
    class_names = splits.train.classes
    scores = {part.split: _score(part, len(class_names)) for part in predictions}
    artifacts = dict(fitted.artifacts)
    if fitted.parts is not None:
        artifacts[SCORED] = write_scored(
            Path(folder), fitted.parts, recipe=recipe, report=report, train=splits.train
        )
    if recipe.save_predictions:
        artifacts["predictions"] = PREDICTIONS
        write_predictions(
            Path(folder) / PREDICTIONS,
            predictions,
            dataset=recipe.dataset,
            split_sha256=splits.train.split_sha256,
            class_names=class_names,
        )
    return {
        "measurements": [
            _measurement(score, metric, precision=precision, split=split)
            for split, by_precision in scores.items()
            for precision, score in by_precision.items()
            for metric in recipe.metrics
        ],
        "costs": costs,
        "artifacts": artifacts,
        "checkpoint": {
            "method": report.meta.get("method", "-"),
            "architecture": report.architecture,
            "sha256": report.sha256,
        },
        "details": {
            "load_report": _load_report(report),
            "test_reads": splits.test_reads,
            "trained_on": splits.train.split,
            "images": {s.split: len(s) for s in filter(None, (splits.train, splits.val))},
            "accuracies": {
                split: {precision: _plain(score) for precision, score in by_precision.items()}
                for split, by_precision in scores.items()
            },
            **fitted.details,
        },
    }


def missing_data(recipe: Recipe) -> str | None:
    """Return what is missing and how to get it, or None if the images can be opened."""
    return missing_images(recipe.dataset, "test", root=recipe.data_root)


def process_group() -> AbstractContextManager[None]:
    """Do nothing: a transfer job has one process."""
    return nullcontext()


def _predictions(predict: Callable[[Images], dict[str, Tensor]], images: Images) -> Predictions:
    return Predictions(images.split, images.ids, images.labels, predict(images))


def _score(found: Predictions, num_classes: int) -> dict[str, Accuracy]:
    scores = {
        precision: accuracy(classes, found.labels, num_classes)
        for precision, classes in found.classes.items()
    }
    text = ", ".join(f"{precision} {score.top1:.2f}" for precision, score in scores.items())
    _logger.info("top-1 on %s (n=%d): %s %%", found.split, len(found.labels), text)
    return scores


def _measurement(score: Accuracy, metric: str, *, precision: str, split: str) -> dict[str, Any]:
    low, high = score.interval(metric) or (None, None)
    return {
        "metric": metric,
        "value": getattr(score, metric),
        "stderr": score.stderr(metric),
        "low": low,
        "high": high,
        "unit": "%",
        "n": score.n,
        "precision": precision,
        "split": split,
    }


def _load_report(report: LoadReport) -> dict[str, Any]:
    """Return the report in JSON types, without the path: a result may be moved, its hash stays."""
    fields = {key: value for key, value in asdict(report).items() if key != "path"}
    return json.loads(json.dumps(fields))


def _plain(score: Accuracy) -> dict[str, Any]:
    return {
        "top1": score.top1,
        "mean_per_class": score.mean_per_class,
        "n": score.n,
        "counts": list(score.counts),
        "correct": list(score.correct),
    }


def _job_key(recipe: Recipe, checkpoint_sha256: str) -> dict[str, Any]:
    fields = recipe.model_dump(mode="json", exclude={*recipe.cosmetic, "checkpoint"})
    key = {"version": VERSION, "recipe": fields, "checkpoint": checkpoint_sha256}
    return {**key, "teacher": recipe.teacher_sha256} if recipe.distillation else key
