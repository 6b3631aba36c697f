"""Check one job of a submitted bundle: refused, verified by scoring it again, or self-reported.

`verified` means: the id is the hash of the recipe and of the files read, as this version computes it;
everything a ranking compares by follows from the recipe; every number follows from the predictions or
detections; and what these were scored against are the labels of the image set on this machine. Where
one of these cannot be looked at the job is `self-reported`. Where one does not hold it is refused.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lowbit.benchmark.planning.job import canonical_json
from lowbit.benchmark.results.comparability import SELF_REPORTED, VERIFIED
from lowbit.benchmark.results.rescore import NOT_SCORED, PREDICTIONS, Rescored, detections, rescore
from lowbit.benchmark.results.result_file import RESULT, Result
from lowbit.benchmark.results.verdicts import JobVerdict
from lowbit.benchmark.submissions.archive import MOST_BYTES, RECIPE
from lowbit.benchmark.submissions.check_facts import check_id, check_identity, local
from lowbit.benchmark.submissions.check_files import check_detections, check_predictions
from lowbit.benchmark.submissions.manifest import BundleError, problems
from lowbit.benchmark.submissions.untrusted_text import hidden_text, name_problem, shown
from lowbit.common.input_files.json_values import count_values, parse_json
from lowbit.common.input_files.yaml_writer import to_yaml
from lowbit.data.image_sets.spec import resolve_root

_MOST_VALUES = 200_000  # of a result; ImageNet's counts at 7 precisions are 20,000
_MOST_IN_RECIPE = 10_000  # the longest have hundreds


def check_job(folder: Path, *, data_root: Path | None = None) -> tuple[Result, JobVerdict]:
    """Check the files of one job.

    Args:
        folder: they and nothing else, named as the job.
        data_root: folder of the image sets; None: `$LOWBIT_DATA`, else `./datasets`.

    Raises:
        BundleError: something in it is not as the job would have written it.
    """
    result = _read(folder)
    if result.job_id != folder.name:
        raise BundleError(f"it has the result of job {shown(result.job_id)}")
    _check_words(result)
    _check_files(result, folder)
    _check_recipe_file(result, folder)
    recipe = local(result, check_id(result), data_root=data_root)
    _check_numbers(result, recipe)
    unknown = check_identity(result, recipe)
    if not result.artifacts:
        return result, _reported(_without_files(result))
    return result, _score(result, recipe, folder, resolve_root(data_root), unknown)


def recipe_text(result: Result) -> str:
    """Return a result's recipe as a file for people to read."""
    text = to_yaml(result.recipe, sort_keys=True)
    return f"# {result.checkpoint.name}: job {result.job_id} (a {result.stage} recipe)\n{text}"


def _read(folder: Path) -> Result:
    path = folder / RESULT
    if not path.is_file():
        raise BundleError(f"it has no {RESULT}")
    try:
        result = Result.model_validate(
            parse_json(path.read_bytes(), RESULT, limit=MOST_BYTES[RESULT], values=_MOST_VALUES)
        )
    except ValidationError as error:
        raise BundleError(f"its {RESULT} is not one: {problems(error)}") from error
    except ValueError as error:
        raise BundleError(f"its {RESULT} is not one: {error}") from error
    if (found := count_values(canonical_json(result.recipe).encode())) > _MOST_IN_RECIPE:
        raise BundleError(f"its recipe has {found:,} values, where {_MOST_IN_RECIPE:,} are allowed")
    if result.status != "completed":
        raise BundleError(f"it {result.status}, and only numbers are sent")
    return result


def _check_words(result: Result) -> None:
    """Refuse text that would be displayed as something other than it is."""
    for word in _words(result):
        if problem := name_problem(word):
            raise BundleError(f"its name {shown(word)} {problem}")
    if (found := hidden_text(result.model_dump(mode="json"))) is not None:
        raise BundleError(f"its text {shown(found)} has characters that are not seen")


def _words(result: Result) -> Iterator[str]:
    """Yield the values that become cells of the board."""
    yield from (result.checkpoint.name, result.checkpoint.method, result.checkpoint.architecture)
    yield from filter(None, [result.checkpoint.pretraining])
    yield from (str(value) for value in result.identity.values() if value not in (None, ""))
    for measured in result.measurements:
        yield from (measured.metric, measured.unit or "-", measured.precision, measured.split)


def _check_files(result: Result, folder: Path) -> None:
    """Refuse a folder with files the result does not name, or that differ from what the job wrote."""
    there = {path.name for path in folder.iterdir()} - {RESULT, RECIPE}
    if there != set(result.artifacts.values()) or len(there) != len(result.artifacts):
        raise BundleError("its files are not the artifacts that its result names")
    if PREDICTIONS in result.artifacts:
        check_predictions(folder / result.artifacts[PREDICTIONS], result.precisions)
    for name in set(detections(result).values()):
        check_detections(folder / result.artifacts[name])


def _check_recipe_file(result: Result, folder: Path) -> None:
    path = folder / RECIPE
    if path.is_file() and path.read_bytes() != recipe_text(result).encode():
        raise BundleError(f"its {RECIPE} is not the recipe in its {RESULT}")


def _check_numbers(result: Result, recipe: BaseModel) -> None:
    """Refuse duplicate, unrequested and missing numbers."""
    said = [(m.split, m.precision, m.metric) for m in result.measurements]
    if len(set(said)) < len(said):
        raise BundleError("it has a number twice")
    if strange := {m.precision for m in result.measurements} - set(result.precisions):
        raise BundleError(f"it has numbers at {shown(strange.pop())}, which its recipe does not")
    if result.stage == "pretrain" or getattr(recipe, "config", None) is not None:
        return  # no number is requested by name
    asked = getattr(recipe, "metrics", ("AP",))
    split = getattr(recipe, "test_split", "test")
    wanted = {(split, p, metric) for p in result.precisions for metric in asked}
    if left := sorted(wanted - set(said)):
        raise BundleError(f"it leaves out {left[0][2]} at {left[0][1]} on {left[0][0]}")


def _score(
    result: Result, recipe: BaseModel, folder: Path, root: Path, unknown: str | None
) -> JobVerdict:
    """Score a job again; `unknown` lists other reasons not to call it verified."""
    kept = PREDICTIONS if PREDICTIONS in result.artifacts else "detections"
    try:
        found = _rescore(result, recipe, folder, root)
    except FileNotFoundError:
        unknown = unknown or f"there was no {recipe.dataset} to compare with"
        if kept != PREDICTIONS:
            return _reported(unknown)
        found = _rescore(result, recipe, folder, None)
    except ImportError as error:
        return _reported(unknown or str(error).partition(";")[0])
    unscored = [line for line in found if line.problem in NOT_SCORED]
    if wrong := [line for line in found if line.problem and line not in unscored]:
        raise BundleError(_contradiction(wrong))
    if unscored:
        unknown = unknown or unscored[0].problem
    if unknown:
        return _reported(f"{unknown}; the numbers follow from the {kept} as sent")
    return JobVerdict(source=VERIFIED, reason=f"the numbers follow from the {kept} and the labels")


def _rescore(result: Result, recipe: BaseModel, folder: Path, root: Path | None) -> list[Rescored]:
    try:
        return rescore(result, folder, data_root=root, recipe=recipe)
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # whatever a scorer raises on foreign files, the files are at fault
        what = str(error).replace(f"{folder}/", "").partition(";")[0]
        raise BundleError(f"scoring it again failed: {shown(what, 200)}") from error


def _reported(why: str) -> JobVerdict:
    return JobVerdict(source=SELF_REPORTED, reason=why)


def _contradiction(wrong: list[Rescored]) -> str:
    first = wrong[0]
    said = first.measurement
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return (
        f"its {said.metric} at {said.precision} on {said.split}, {said.value:.4f}, does not follow "
        f"from its files: {first.problem}{more}"
    )


def _without_files(result: Result) -> str:
    if result.stage == "pretrain":
        return "a training cannot be scored again"
    return "it has no predictions or detections to score again"
