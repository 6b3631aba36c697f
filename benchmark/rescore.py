"""Score a finished job's predictions again, and compare with what its result says."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.files import file_sha256
from benchmark.results import RESULT, Measurement, Result, read_result
from data import open_images
from transfer.metrics import accuracy
from transfer.predictions import Predictions, read_predictions

PREDICTIONS = "predictions"  # the artifact
_TOLERANCE = 1e-9  # %: the counts are equal or they are not, and only the arithmetic may differ


@dataclass(frozen=True)
class Rescored:
    """One measurement and what the predictions give; `problem` is empty where the two agree."""

    job_id: str
    checkpoint: str
    measurement: Measurement
    value: float | None
    problem: str


def find_jobs(path: Path) -> list[tuple[Path, Result]]:
    """Return folder and result of the jobs with predictions: one by its folder, or all in it.

    Raises:
        FileNotFoundError: there is none.
    """
    one = (path / RESULT).is_file()
    folders = [path.resolve()] if one else [p.parent for p in sorted(path.glob(f"*/{RESULT}"))]
    found = [(folder, read_result(folder)) for folder in folders]
    kept = [(folder, r) for folder, r in found if r is not None and PREDICTIONS in r.artifacts]
    if not kept:
        raise FileNotFoundError(
            f"{path} holds no finished job with predictions; nothing was scored. Pass the folder of "
            "a classification job or of a suite's runs; a job that ran without save_predictions "
            "runs again with --overwrite always."
        )
    return kept


def rescore(result: Result, folder: Path, *, data_root: Path | None = None) -> list[Rescored]:
    """Compute every measurement of a job again from the predictions in its folder.

    Args:
        result: the job's.
        folder: where its predictions are.
        data_root: folder of the image sets, to compare the labels with; None: they are believed.

    Raises:
        FileNotFoundError: the predictions, or the image set, are not there.
        ValueError: the file is not the one the job wrote, or not of the split it was scored on.
    """
    path = folder / result.artifacts[PREDICTIONS]
    _check_file(result, path)
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


def _check_file(result: Result, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; job {result.job_id} was not scored again. Get its whole folder."
        )
    found, pinned = file_sha256(path), result.artifact_sha256[PREDICTIONS]
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
