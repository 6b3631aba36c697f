"""Add submissions to a runs folder, remove them, and report on their jobs."""

import fcntl
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lowbit.benchmark.results.result_file import (
    RESULT,
    Result,
    job_folder,
    read_result,
    write_result,
)
from lowbit.benchmark.results.verdicts import (
    SCHEMA_VERSION,
    SUBMISSIONS,
    VERDICT,
    JobVerdict,
    Verdict,
    read_verdict,
)
from lowbit.benchmark.submissions.archive import RECIPE, unpack
from lowbit.benchmark.submissions.check_job import check_job, recipe_text
from lowbit.benchmark.submissions.manifest import BundleError, Entry, RefusedError
from lowbit.common.atomic_file import write_text
from lowbit.common.file_hash import file_sha256
from lowbit.common.input_files.json_values import count_values
from lowbit.common.text import printable

ENTRY = "entry.json"
_MOST_VALUES = 3_000_000  # of all results; one has 700
_UNFINISHED = ".adding-"
_SHOWN = 3  # jobs named for each reason


@dataclass(frozen=True)
class Submission:
    """A checked bundle: its entry, and each job's result and verdict by job id."""

    entry: Entry
    sha256: str
    results: Mapping[str, Result]
    verdicts: Mapping[str, JobVerdict]

    @property
    def counts(self) -> Counter[str]:
        """The number of jobs with each verdict."""
        return Counter(verdict.source for verdict in self.verdicts.values())


def examine(bundle: Path, *, data_root: Path | None = None) -> Submission:
    """Check a bundle and everything in it, without storing anything.

    Args:
        bundle: the ZIP file.
        data_root: folder of the image sets; None: `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: something in it is not as it should be; the message says what.
    """
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        return _check(bundle, Path(scratch), data_root)


def add(bundle: Path, runs_dir: Path, *, data_root: Path | None = None) -> Submission:
    """Check a bundle and store it beside the results of a runs folder, atomically.

    Adding a bundle again checks it again; with an image set that has come since, more is verified.

    Args:
        bundle: the ZIP file.
        runs_dir: where the jobs' folders are.
        data_root: folder of the image sets; None: `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        FileNotFoundError: the bundle or the folder is not there.
        BundleError: something in it is not as it should be, or another submission has one of its
            jobs, or its name.
    """
    if not runs_dir.is_dir():
        raise FileNotFoundError(
            f"there is no folder {runs_dir}; nothing was added. Pass the folder that has the runs; for "
            "a board of others' results alone, make an empty one."
        )
    kept = runs_dir / SUBMISSIONS
    kept.mkdir(exist_ok=True)
    with _alone(kept):
        for left in runs_dir.glob(f"{_UNFINISHED}*"):  # by a process that was killed
            shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=runs_dir))
        try:
            submission = _check(bundle, folder, data_root)
            _check_conflicts(submission, runs_dir)
            _write(submission, folder)
            folder.chmod(kept.stat().st_mode & 0o777)
            _place(folder, kept / submission.entry.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return submission


def remove(name: str, runs_dir: Path) -> None:
    """Remove a submission.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    kept = runs_dir / SUBMISSIONS
    names = [folder.name for folder in _submissions(runs_dir)]
    if name not in names:
        raise FileNotFoundError(
            f"{runs_dir} has no submission {name!r}; nothing was removed. "
            f"It has: {', '.join(names) or 'none'}."
        )
    with _alone(kept):
        (kept / name / VERDICT).unlink()  # first: without it nothing in the folder is read
        shutil.rmtree(kept / name)


def measured_here(submission: Submission, runs_dir: Path) -> Iterator[tuple[Result, Result]]:
    """Yield the submitted results of jobs that also ran here, each with the local one, which is shown."""
    for job_id, result in submission.results.items():
        own = read_result(job_folder(runs_dir, job_id))
        if own is not None and own.status == "completed":
            yield result, own


def describe(submission: Submission) -> Iterator[str]:
    """Report the sender and the verdict on each job, grouped by reason."""
    count = len(submission.results)
    entry = submission.entry
    yield f"{entry.name}, by {entry.submitter}: {count} job{'s' if count > 1 else ''}"
    alike = defaultdict(list)
    for job_id, verdict in submission.verdicts.items():
        alike[verdict.source, verdict.reason].append(submission.results[job_id])
    for (source, reason), results in sorted(alike.items(), key=lambda item: item[0], reverse=True):
        yield f"  {source} ({len(results)}): {reason}"
        for result in results[:_SHOWN]:
            yield f"    {result.job_id}  {_title(result)}"
        if len(results) > _SHOWN:
            yield f"    and {len(results) - _SHOWN} more"


def compare(theirs: Result, own: Result) -> str:
    """Describe how far two results of one job are apart."""
    values = {(m.split, m.precision, m.metric): m.value for m in own.measurements}
    apart = [
        abs(m.value - values[key])
        for m in theirs.measurements
        if (key := (m.split, m.precision, m.metric)) in values
    ]
    said = "they have no number in common"
    if apart:
        said = f"of {len(apart)} numbers the farthest differ by {max(apart):.2f}"
    return f"{theirs.job_id} also ran here, and the board shows that one: {said}"


def _check(bundle: Path, folder: Path, data_root: Path | None) -> Submission:
    try:
        manifest, job_ids = unpack(bundle, folder)
    except BundleError as error:
        raise BundleError(
            f"{printable(str(bundle))} was refused; nothing was added. {_sentence(error)}"
        ) from error
    _check_count(bundle, folder, job_ids)
    results, verdicts, wrong = {}, {}, []
    for job_id in job_ids:
        try:
            result, verdict = check_job(folder / job_id, data_root=data_root)
        except BundleError as error:
            wrong.append(f"job {job_id}: {error}")
            continue
        # Costs cannot be verified, and the board cannot mark part of a row as self-reported.
        results[job_id] = result.model_copy(update={"costs": {}})
        verdicts[job_id] = verdict
    if wrong:
        raise RefusedError(
            f"{printable(str(bundle))} was refused, for {len(wrong)} of its {len(job_ids)} jobs are not what jobs of "
            f"this release leave; nothing was added. Ask {manifest.entry.submitter} for the bundle as "
            "`leaderboard.py bundle` wrote it, with the same release of this suite.",
            wrong,
        )
    return Submission(manifest.entry, file_sha256(bundle), results, verdicts)


def _check_count(bundle: Path, folder: Path, job_ids: list[str]) -> None:
    """Refuse more values than results may keep in memory until the last of them was checked."""
    files = (folder / job_id / RESULT for job_id in job_ids)
    found = sum(count_values(file.read_bytes()) for file in files if file.is_file())
    if found > _MOST_VALUES:
        raise BundleError(
            f"{printable(str(bundle))} was refused; nothing was added. Its results have {found:,} values together, "
            f"where {_MOST_VALUES:,} are allowed: have it sent as several bundles."
        )


def _check_conflicts(submission: Submission, runs_dir: Path) -> None:
    """Refuse a name in use for other content, and jobs that another submission already has results of."""
    name = submission.entry.name
    for folder in _submissions(runs_dir):
        try:
            verdict = read_verdict(folder / VERDICT)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{folder / VERDICT} is damaged ({type(error).__name__}), so its jobs are not known; "
                f"nothing was added. Remove that submission, and add its bundle again."
            ) from error
        if folder.name == name and verdict.bundle_sha256 != submission.sha256:
            raise BundleError(
                f"there is another submission {name!r} already; nothing was added. To put this one in "
                f"its place, remove it first: lowbit-bench leaderboard remove {name} --runs-dir "
                f"{runs_dir}"
            )
        if folder.name != name and (both := verdict.jobs.keys() & submission.verdicts.keys()):
            raise BundleError(
                f"submission {folder.name!r} already has {len(both)} of its jobs, as {min(both)}; "
                "nothing was added. One job has one result: remove that submission, or have the bundle "
                "made without (leaderboard.py bundle --checkpoint NAME)."
            )


def _write(submission: Submission, folder: Path) -> None:
    """Write the validated content, so that the submitted JSON and YAML are not read again."""
    for job_id, result in submission.results.items():
        write_result(folder / job_id, result)
        write_text(folder / job_id / RECIPE, recipe_text(result))
    write_text(folder / ENTRY, submission.entry.model_dump_json(indent=1) + "\n")
    verdict = Verdict(
        schema_version=SCHEMA_VERSION,
        bundle_sha256=submission.sha256,
        jobs=dict(sorted(submission.verdicts.items())),
    )
    write_text(folder / VERDICT, verdict.model_dump_json(indent=1) + "\n")


def _place(new: Path, place: Path) -> None:
    """Move a checked submission into place, so that readers always find it complete."""
    if place.exists() and not (place / VERDICT).exists():  # an interrupted removal
        shutil.rmtree(place)
    if not place.exists():
        new.rename(place)
        return
    # The same bundle again: its files are equal except for the verdict.
    for path in sorted((p for p in new.rglob("*") if p.is_file()), key=lambda p: p.name == VERDICT):
        path.replace(place / path.relative_to(new))


def _submissions(runs_dir: Path) -> list[Path]:
    return [path.parent for path in sorted((runs_dir / SUBMISSIONS).glob(f"*/{VERDICT}"))]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time change the submissions of a runs folder."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sentence(error: BundleError) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}."


def _title(result: Result) -> str:
    facts = [result.identity.get(key) for key in ("dataset", "protocol")]
    seed = f"seed {result.recipe['seed']}" if "seed" in result.recipe else None
    words = [result.stage, result.checkpoint.name, *facts, "/".join(result.precisions), seed]
    return " ".join(str(word) for word in words if word not in (None, "-"))
