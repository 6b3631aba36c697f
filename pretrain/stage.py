"""One pretraining job from its recipe to a backbone file."""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from backbones import save_backbone
from backbones.runtime import resolve_device, seeded
from data import Split, load
from pretrain.recipe import VERSION, Recipe
from pretrain.trainer import Trainer

_logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pth"
STATE = "last.pth"
METRICS = "metrics.jsonl"


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Pretrain a backbone and save it; resume from what is in `folder`.

    `folder` gets `checkpoint.pth` (the backbone, full-precision weights), `last.pth` (the state to
    go on from) and `metrics.jsonl` (a line an epoch). On a CPU with one thread a run that was
    killed and resumed ends in the same bytes as one that was not.

    Returns:
        measurements, artifacts, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the image set is not there.
        ValueError: the recipe cannot be trained, or `folder` is another recipe's.
        FloatingPointError: the loss or the weights left the finite numbers.
    """
    folder = Path(folder)
    device = resolve_device(recipe.device)
    split = load(recipe.dataset, recipe.split, root=recipe.data_root)
    with seeded(recipe.seed, device):
        trainer = Trainer(recipe, split, device=device)
        _logger.info(
            "%s: %s on %s %s, %d images, %d epochs of %d steps, %s",
            recipe.name,
            recipe.method,
            recipe.architecture,
            recipe.dataset,
            len(split),
            recipe.epochs,
            trainer.steps,
            device,
        )
        last = _train(trainer, recipe, split, folder)
    meta = {
        "method": recipe.method,
        "framework": recipe.framework,
        "pairing": recipe.pairing,
        "data": recipe.dataset,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "config": recipe.results(),
    }
    sha256 = save_backbone(folder / CHECKPOINT, trainer.framework.backbone, meta)
    return {
        "measurements": _measurements(last, split),
        "artifacts": {"checkpoint": CHECKPOINT},
        "checkpoint": {
            "method": recipe.method,
            "architecture": recipe.architecture,
            "sha256": sha256,
        },
        "details": {"images": len(split), "steps": recipe.epochs * trainer.steps, "last": last},
    }


def _train(trainer: Trainer, recipe: Recipe, split: Split, folder: Path) -> dict[str, Any]:
    """Train what is left to train; return the metrics of the last epoch."""
    key = {"version": VERSION, "split_sha256": split.split_sha256, "recipe": recipe.results()}
    start, metrics = _resume(trainer, folder / STATE, key)
    _truncate(folder / METRICS, start)
    for epoch in range(start, recipe.epochs):
        began = time.perf_counter()
        result = trainer.train_epoch(epoch)
        problem = result.divergence()
        if problem:
            raise FloatingPointError(_diverged(problem, epoch, recipe, folder / STATE))
        done = epoch + 1
        metrics = {"epoch": done, "step": done * trainer.steps, **result.metrics()}
        _append(folder / METRICS, metrics)
        _logger.info(
            "epoch %d/%d  loss %.4f  feature std %.3f  lr %.4g  %.1f s",
            done,
            recipe.epochs,
            metrics["loss"],
            metrics["feature_std"],
            metrics["lr"],
            time.perf_counter() - began,
        )
        if done % recipe.checkpoint_every == 0 or done == recipe.epochs:
            state = {"key": json.dumps(key), "epoch": done, "metrics": json.dumps(metrics)}
            with _atomic(folder / STATE) as file:
                torch.save({**state, "trainer": trainer.state_dict()}, file)
    return metrics


def _resume(trainer: Trainer, path: Path, key: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Restore the state in `path`; return the epochs done and the metrics of the last of them."""
    if not path.is_file():
        return 0, {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    if json.loads(state["key"]) != key:
        raise ValueError(
            f"{path} is the state of another recipe; nothing was trained. Choose another output "
            "folder, or delete this one to start over."
        )
    trainer.load_state_dict(state["trainer"])
    _logger.info("resumed from %s after epoch %d", path, state["epoch"])
    return state["epoch"], json.loads(state["metrics"])


def _diverged(problem: str, epoch: int, recipe: Recipe, state: Path) -> str:
    saved = epoch - epoch % recipe.checkpoint_every
    good = f"{state} holds the last good state, of epoch {saved}" if saved else "none was before it"
    return (
        f"{problem} in epoch {epoch + 1} of {recipe.epochs}; training stopped and nothing of this "
        f"epoch was saved ({good}). Lower lr (now {recipe.lr:g}), lengthen warmup_epochs, or narrow "
        "the range of bits."
    )


def _measurements(metrics: dict[str, Any], split: Split) -> list[dict[str, Any]]:
    """Return the last epoch's loss and feature spread; an untrained network has neither."""
    return [
        {
            "metric": name,
            "value": metrics[name],
            "unit": "",
            "n": len(split),
            "precision": "FP",
            "split": split.split,
        }
        for name in ("loss", "feature_std")
        if name in metrics
    ]


def _append(path: Path, metrics: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(metrics) + "\n")


def _truncate(path: Path, epochs: int) -> None:
    """Keep the lines of the first `epochs` epochs: what a killed run wrote after its last state."""
    if path.is_file():
        kept = path.read_bytes().splitlines(keepends=True)[:epochs]
        with _atomic(path) as file:
            file.writelines(kept)


@contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block ends well, and else vanishes."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
