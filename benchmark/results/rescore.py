"""Score a finished job's predictions or detections again, and compare with its result."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from lowbit.benchmark.results.result_file import RESULT, Measurement, Result, read_result
from lowbit.common.file_hash import file_sha256
from lowbit.data import open_images
from lowbit.transfer.scoring.accuracy import INTERVAL, Accuracy, accuracy
from lowbit.transfer.scoring.predictions_file import Predictions, read_predictions

PREDICTIONS, DETECTIONS = "predictions", "detections"  # the artifacts
MASKS = "its masks were not kept"
LOGITS = "the logits that it ranks samples by were not kept"
ON_THE_WAY = "the detections on the way to it were not kept"
EARLIER = "its interval is an earlier version's, which is not computed again"
NOT_SCORED = (MASKS, LOGITS, ON_THE_WAY, EARLIER)  # numbers that nothing speaks against
_TOLERANCE = 1e-9  # %: the counts are equal or they are not, and only the arithmetic may differ
_DRAWN = 0.2  # of the standard error: how far ends may move that another release of numpy draws
_METRICS = ("top1", "mean_per_class")


@dataclass(frozen=True)
class Rescored:
    """One measurement and its recomputed value; `problem` is empty if the two agree."""

    job_id: str
    checkpoint: str
    measurement: Measurement
    value: float | None
    problem: str


def find_jobs(path: Path) -> list[tuple[Path, Result]]:
    """Return folder and result of the jobs that can be scored: one by its folder, or all in it.

    Raises:
        FileNotFoundError: there is none.
    """
    one = (path / RESULT).is_file()
    folders = [path.resolve()] if one else [p.parent for p in sorted(path.glob(f"*/{RESULT}"))]
    found = [(folder, read_result(folder)) for folder in folders]
    kept = [
        (folder, r)
        for folder, r in found
        if r is not None and (PREDICTIONS in r.artifacts or detections(r))
    ]
    if not kept:
        raise FileNotFoundError(
            f"{path} holds no finished job with predictions or detections; nothing was scored. Pass "
            "the folder of a classification or detection job, or of several; a suite's job that ran "
            "without save_predictions runs again with --overwrite always. A Detectron2 configuration "
            "leaves a result as the `config` of a recipe only."
        )
    return kept


def rescore(
    result: Result,
    folder: Path,
    *,
    data_root: Path | None = None,
    recipe: BaseModel | None = None,
) -> list[Rescored]:
    """Compute every measurement of a job again from the predictions or detections in its folder.

    Args:
        result: the job's.
        folder: where its files are.
        data_root: folder of the image sets. To compare predictions' labels with; None: they are
            believed. Of the annotations that detections are scored against; None: as the job had it.
        recipe: a detection job's, for a result of another's: with this machine's paths; None: the
            result's own.

    Raises:
        FileNotFoundError: the files or the image set are missing.
        ValueError: a file is not the one the job wrote, or not of the split it was scored on.
        ImportError: the detections are Detectron2's, which is not installed.
    """
    if PREDICTIONS not in result.artifacts:
        return list(_rescore_detections(result, folder, recipe or _own_recipe(result, data_root)))
    path = folder / result.artifacts[PREDICTIONS]
    _check_file(result, PREDICTIONS, path)
    parts, facts = read_predictions(path)
    if any(facts[key] != result.identity.get(key) for key in ("dataset", "split_sha256")):
        raise ValueError(
            f"{path} is of another split of {facts['dataset']} than the result of job "
            f"{result.job_id}; nothing was scored. One of the two was exchanged."
        )
    if data_root is not None:
        for part in parts:
            _check_labels(part, facts, data_root, path)
    by_split = {part.split: part for part in parts}
    return list(_compare(result, by_split, len(facts["classes"])))


def _own_recipe(result: Result, data_root: Path | None) -> BaseModel:
    from lowbit.detection import Recipe  # here: predictions need no detector

    elsewhere = {} if data_root is None else {"data_root": str(data_root)}
    return Recipe.model_validate({**result.recipe, **elsewhere})


def _rescore_detections(result: Result, folder: Path, recipe: BaseModel) -> Iterator[Rescored]:
    from lowbit.detection import rescore as rescoring

    files = {}
    for precision, name in detections(result).items():
        files[precision] = folder / result.artifacts[name]
        _check_file(result, name, files[precision])
    found = rescoring.rescore(recipe, files, identity=result.identity)
    if recipe.config is not None:  # says "test" of whatever set the configuration tests on
        found = [measurement | {"split": "test"} for measurement in found]
    again = {(m["metric"], m["precision"]): m for m in found}
    for measured in result.measurements:
        scored = again.get((measured.metric, measured.precision))
        missing = ON_THE_WAY if "@" in measured.metric else MASKS
        problem = missing if scored is None else _difference(measured, scored)
        value = None if scored is None else scored["value"]
        yield Rescored(result.job_id, result.checkpoint.name, measured, value, problem)


def detections(result: Result) -> dict[str, str]:
    """Name the artifact of each precision's detections."""
    precisions = {m.precision for m in result.measurements}
    if DETECTIONS in result.artifacts:
        return dict.fromkeys(precisions, DETECTIONS)
    names = {precision: f"{DETECTIONS}_{precision}" for precision in result.precisions}
    return {precision: name for precision, name in names.items() if name in result.artifacts}


def _check_file(result: Result, name: str, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; job {result.job_id} was not scored again. Get its whole folder."
        )
    found, pinned = file_sha256(path), result.artifact_sha256[name]
    if found != pinned:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}..., the result says {pinned[:12]}...; nothing was "
            "scored. It is not the file the job wrote: get the folder again."
        )


def _check_labels(part: Predictions, facts: Mapping[str, Any], root: Path, path: Path) -> None:
    ids, labels = _truth(facts["dataset"], part.split, facts["split_sha256"], root)
    if not (part.ids.equal(ids) and part.labels.equal(labels)):
        raise ValueError(
            f"{path} has other images or labels than {part.split} of {facts['dataset']} under {root}; "
            "nothing was scored. One of the two was changed."
        )


@lru_cache(maxsize=16)  # many jobs are of one split
def _truth(dataset: str, split: str, split_sha256: str, root: Path) -> tuple[Tensor, Tensor]:
    """Return the ids and labels of a split, which must be the one of that hash."""
    images = open_images(dataset, split, root=root)
    if images.split_sha256 != split_sha256:
        raise ValueError(
            f"{dataset} under {root} has another split than the one predicted; nothing was scored. "
            "Get the image set that the job had."
        )
    return images.ids, images.labels


def _compare(
    result: Result, by_split: dict[str, Predictions], num_classes: int
) -> Iterator[Rescored]:
    for measured in result.measurements:
        part = by_split.get(measured.split)
        value, problem = None, "no predictions"
        if measured.metric == "mAP":
            problem = LOGITS
        elif measured.metric not in _METRICS:
            problem = "predictions do not give this metric"
        elif part is not None and measured.precision in part.classes:
            found = accuracy(part.classes[measured.precision], part.labels, num_classes)
            again = _again(found, measured.metric)
            value, problem = again["value"], _difference(measured, again)
        yield Rescored(result.job_id, result.checkpoint.name, measured, value, problem)


def _again(found: Accuracy, metric: str) -> dict[str, Any]:
    value, stderr = getattr(found, metric), found.stderr(metric)
    low, high = found.interval(metric)
    return {
        "value": value,
        "n": found.n,
        "unit": "%",
        "stderr": stderr,
        "low": low,
        "high": high,
        "interval": INTERVAL,
    }


def _difference(measured: Measurement, again: Mapping[str, Any]) -> str:
    """Say where a measurement differs from what was found; what it does not say cannot differ."""
    if measured.n != again["n"]:
        return f"{again['n']} images predicted, {measured.n} scored"
    for key in ("unit", "split"):
        if key in again and getattr(measured, key) != again[key]:
            return f"its {key} is {again[key]}"
    if abs(again["value"] - measured.value) > _TOLERANCE:
        return f"differs by {again['value'] - measured.value:+.4f}"
    if measured.interval is None and measured.low is not None:
        return EARLIER
    if measured.low is not None and measured.interval != again.get("interval"):
        return f"its interval is {again.get('interval') or 'not known'}"
    if measured.warning != again.get("warning"):
        return f"its warning is {again.get('warning') or 'none'}"
    spread = again.get("stderr") or 0.0
    for key in ("stderr", "low", "high"):
        said, found = getattr(measured, key), again.get(key)
        if said is None:
            continue
        if found is None or abs(found - said) > max(_TOLERANCE, _DRAWN * spread):
            return f"its {key} is {'not known' if found is None else f'{found:.4f}'}"
    return ""
