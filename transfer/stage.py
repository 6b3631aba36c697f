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
from lowbit.backbones.counting import network_size
from lowbit.backbones.networks.video_frames import average_frames
from lowbit.data import Images, missing_images
from lowbit.quant import FP
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import resolve_device, seeded
from lowbit.transfer.features.extract import CACHE
from lowbit.transfer.recipe.protocol_registry import Fitted, get_protocol
from lowbit.transfer.recipe.recipe import VERSION, Recipe
from lowbit.transfer.scoring.accuracy import INTERVAL, Accuracy, accuracy
from lowbit.transfer.scoring.class_ranking import METRIC as MAP
from lowbit.transfer.scoring.class_ranking import ClassRanking, rank_classes, targets_of
from lowbit.transfer.scoring.guarded_splits import GuardedSplits
from lowbit.transfer.scoring.predictions_file import FILE as PREDICTIONS
from lowbit.transfer.scoring.predictions_file import Predictions, write_predictions
from lowbit.transfer.scoring.rounding import KEY as ROUNDING
from lowbit.transfer.scoring.rounding import rounding_shares, sample_size
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
    ranking: dict[str, dict[str, ClassRanking]] = {}  # by split and precision
    predict = _ranked(fitted, ranking) if MAP in recipe.metrics else fitted.predict
    val = [_predictions(predict, splits.val)] if splits.val else []
    test = splits.open_test()
    predictions = [_predictions(predict, test), *val]
    rounding = _rounding(fitted, test, predictions[0], recipe, report.architecture)
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
            if metric != MAP
            else _map_measurement(ranking[split][precision], precision=precision, split=split)
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
            **rounding,
            **_average_precisions(ranking),
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


def _ranked(
    fitted: Fitted, ranking: dict[str, dict[str, ClassRanking]]
) -> Callable[[Images], dict[str, Tensor]]:
    """Return `predict` from logits, by which it also ranks each class's samples, into `ranking`."""

    def predict(images: Images) -> dict[str, Tensor]:
        logits = fitted.logits(images)
        targets = targets_of(images.labels, images.targets, len(images.classes))
        ranking[images.split] = {p: rank_classes(found, targets) for p, found in logits.items()}
        return {precision: found.argmax(1) for precision, found in logits.items()}

    return predict


def _average_precisions(ranking: dict[str, dict[str, ClassRanking]]) -> dict[str, Any]:
    """Return each class's average precision, in %, as a detail."""
    if not ranking:
        return {}
    found = {
        split: {precision: list(each.classes) for precision, each in by_precision.items()}
        for split, by_precision in ranking.items()
    }
    return {"average_precisions": found}


def _map_measurement(found: ClassRanking, *, precision: str, split: str) -> dict[str, Any]:
    """Return mAP, whose error over the samples is not estimated."""
    common = {"unit": "%", "n": found.n, "precision": precision, "split": split}
    return {"metric": MAP, "value": found.mean, **common}


def _rounding(
    fitted: Fitted, test: Images, found: Predictions, recipe: Recipe, architecture: str
) -> dict[str, Any]:
    """Return, as a detail, the share of low-bit predictions of the test images that rounding decides."""
    classes = {name: c for name, c in found.classes.items() if name != str(FP)}
    if not classes or not fitted.networks:
        return {}
    operations = network_size(architecture, recipe.image_size).operations * (test.frames or 1)
    count = sample_size(len(test), operations * len(found.classes))
    shares = rounding_shares(fitted.predict, fitted.networks, test, classes, count=count)
    return {} if shares is None else {ROUNDING: shares}


def _score(found: Predictions, num_classes: int) -> dict[str, Accuracy]:
    scores = {
        precision: accuracy(classes, found.labels, num_classes)
        for precision, classes in found.classes.items()
    }
    text = ", ".join(f"{precision} {score.top1:.2f}" for precision, score in scores.items())
    _logger.info("top-1 on %s (n=%d): %s %%", found.split, len(found.labels), text)
    return scores


def _measurement(score: Accuracy, metric: str, *, precision: str, split: str) -> dict[str, Any]:
    low, high = score.interval(metric)
    return {
        "metric": metric,
        "value": getattr(score, metric),
        "stderr": score.stderr(metric),
        "low": low,
        "high": high,
        "interval": INTERVAL,
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
