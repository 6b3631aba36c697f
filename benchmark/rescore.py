"""Score a finished job's predictions or detections again, and compare with what its result says."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.files import file_sha256
from benchmark.results import RESULT, Measurement, Result, read_result
from data import open_images
from transfer.metrics import accuracy
from transfer.predictions import Predictions, read_predictions

PREDICTIONS, DETECTIONS = "predictions", "detections"  # the artifacts
_TOLERANCE = 1e-9  # %: the counts are equal or they are not, and only the arithmetic may differ


@dataclass(frozen=True)
class Rescored:
    """One measurement and what its files give; `problem` is empty where the two agree."""

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
        if r is not None and (PREDICTIONS in r.artifacts or _detections(r))
    ]
    if not kept:
        raise FileNotFoundError(
            f"{path} holds no finished job with predictions or detections; nothing was scored. Pass "
            "the folder of a classification or detection job or of a suite's runs; a job that ran "
            "without save_predictions runs again with --overwrite always."
        )
    return kept


def rescore(result: Result, folder: Path, *, data_root: Path | None = None) -> list[Rescored]:
    """Compute every measurement of a job again from the predictions or detections in its folder.

    Args:
        result: the job's.
        folder: where its files are.
        data_root: folder of the image sets. To compare predictions' labels with; None: they are
            believed. Of the annotations that detections are scored against; None: as the job had it.

    Raises:
        FileNotFoundError: the files, or the image set, are not there.
        ValueError: a file is not the one the job wrote, or not of the split it was scored on.
        ImportError: the detections are Detectron2's, which is not installed.
    """
    if PREDICTIONS not in result.artifacts:
        return list(_rescore_detections(result, folder, data_root))
    path = folder / result.artifacts[PREDICTIONS]
    _check_file(result, PREDICTIONS, path)
    parts, facts = read_predictions(path)
    if facts["split_sha256"] != result.identity.get("split_sha256"):
        raise ValueError(
            f"{path} is of another split of {facts['dataset']} than the result of job "
            f"{result.job_id}; nothing was scored. One of the two was exchanged."
        )
    if data_root is not None:
        for part in parts:
            _check_labels(part, facts["dataset"], data_root, path)
    by_split = {part.split: part for part in parts}
    return list(_compare(result, by_split, len(facts["classes"])))


def _rescore_detections(result: Result, folder: Path, root: Path | None) -> Iterator[Rescored]:
    from detection import Recipe, rescoring  # here: predictions need no detector

    files = {}
    for precision, name in _detections(result).items():
        files[precision] = folder / result.artifacts[name]
        _check_file(result, name, files[precision])
    elsewhere = {} if root is None else {"data_root": str(root)}
    recipe = Recipe.model_validate({**result.recipe, **elsewhere})
    found = rescoring.rescore(recipe, files, identity=result.identity)
    values = {(m["metric"], m["precision"]): m for m in found}
    for measured in result.measurements:
        again = values.get((measured.metric, measured.precision))
        if again is None:
            value, problem = None, "masks are not scored again"
        else:
            value = again["value"]
            problem = _difference(measured, value, again["n"])
        yield Rescored(result.job_id, result.checkpoint.name, measured, value, problem)


def _detections(result: Result) -> dict[str, str]:
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


def _check_labels(part: Predictions, dataset: str, root: Path, path: Path) -> None:
    images = open_images(dataset, part.split, root=root)
    if not (part.ids.equal(images.ids) and part.labels.equal(images.labels)):
        raise ValueError(
            f"{path} has other images or labels than {part.split} of {dataset} under {root}; nothing "
            "was scored. One of the two was changed."
        )


def _compare(
    result: Result, by_split: dict[str, Predictions], num_classes: int
) -> Iterator[Rescored]:
    for measured in result.measurements:
        part = by_split.get(measured.split)
        if part is None or measured.precision not in part.classes:
            value, problem = None, "no predictions"
        else:
            found = accuracy(part.classes[measured.precision], part.labels, num_classes)
            value = getattr(found, measured.metric)
            problem = _difference(measured, value, found.n)
        yield Rescored(result.job_id, result.checkpoint.name, measured, value, problem)


def _difference(measured: Measurement, value: float, n: int) -> str:
    if n != measured.n:
        return f"{n} images predicted, {measured.n} scored"
    if abs(value - measured.value) > _TOLERANCE:
        return f"differs by {value - measured.value:+.4f}"
    return ""
