"""Recompute the id, recipe and identity of a submitted result.

No file that a submitted recipe names is opened: its paths are replaced by local ones.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lowbit.benchmark.planning.job import File, Job, Label, Output, canonical_json
from lowbit.benchmark.recipes.stages import DERIVED_FACTS, STAGES, Stage, get_stage
from lowbit.benchmark.results.result_file import InputRecord, Result
from lowbit.benchmark.submissions.manifest import BundleError, problems
from lowbit.benchmark.submissions.untrusted_text import shown
from lowbit.common.shipped_configs import shipped_config
from lowbit.detection.recipe import SCENES
from lowbit.detection.recipe import Recipe as DetectionRecipe

_ELSEWHERE = "a file of the sender's"
# A set that is always available, to derive those facts of a recipe that do not depend on its set.
_ANY_SET: dict[str, dict[str, Any]] = {
    "transfer": {"dataset": "digits"},
    "pretrain": {"dataset": "digits"},
    "detection": {"dataset": "digit-scenes", "train_images": 1, "test_images": 1},
}
_MEANT = {
    "config",
    "opts",
}  # cosmetic in an identity, which holds their effects; here the facts follow from them
_MOST_PIXELS, _MOST_DIGITS = 32_000_000, 20_000  # of all scenes; the default has a tenth
_OF_THE_SET = ("dataset", "split_sha256", "image_size")


def check_id(result: Result) -> BaseModel:
    """Check that a result belongs to the job it names, by this version's stages; return its recipe.

    Raises:
        BundleError: it is not, or of another version.
    """
    if result.stage not in _ANY_SET:
        if (
            result.stage in STAGES
        ):  # what was measured on the sender's processor cannot be checked here
            raise BundleError(
                f"results of {result.stage} are of the machine that they were measured on"
            )
        raise BundleError(f"its stage {shown(result.stage)} is unknown here")
    stage = get_stage(result.stage)
    if result.protocol_version != stage.VERSION:
        raise BundleError(
            f"it is of version {result.protocol_version} of {result.stage}, and this is version "
            f"{stage.VERSION}: check it with the release that made it"
        )
    recipe = _recipe(result, stage)
    job = Job(
        stage=result.stage,
        version=result.protocol_version,
        recipe={k: v for k, v in result.recipe.items() if k not in result.inputs},
        cosmetic=frozenset(stage.Recipe.cosmetic),
        inputs={name: _source(name, record) for name, record in result.inputs.items()},
        identity=result.identity,
        label=Label(result.checkpoint.name),
    )
    for what, said, found in (
        ("job id", result.job_id, job.id),
        ("question", result.question, job.question),
    ):
        if said != found:
            raise BundleError(
                f"its {what} is {shown(said)}, and its content hashes to {found}: recipe, identity, "
                "inputs or name were changed"
            )
    if tuple(result.precisions) != tuple(job.precisions):
        raise BundleError("its precisions are not those of its recipe")
    read = result.inputs.get("checkpoint")
    if read and result.checkpoint.sha256 not in (None, read.sha256):
        raise BundleError("its checkpoint is another file than its inputs name")
    return recipe


def check_identity(result: Result, recipe: BaseModel) -> str | None:
    """Check the facts that decide what a result is compared with.

    Args:
        result: the foreign one.
        recipe: as `local` returns it.

    Returns:
        Why they could not be worked out here; None: they were, and agree.

    Raises:
        BundleError: one of them is not what the recipe gives.
    """
    unknown, why = (), None
    try:
        found = _identity(result, recipe)
    except FileNotFoundError:
        why = f"there was no {recipe.dataset} to compare with"
        anywhere = recipe.model_copy(update=_ANY_SET[result.stage])
        unknown, found = _OF_THE_SET, _identity(result, anywhere)
    except (ImportError, _NotOursError) as error:
        return str(error).partition(";")[0]
    except (
        Exception
    ) as error:  # whatever a stage raises on a foreign recipe, the recipe is at fault
        raise BundleError(f"its recipe cannot be used: {shown(error)}") from error
    if found.get("split_sha256") is None:  # the data set of a configuration is not available here
        unknown = ("split_sha256",)
        why = f"there was no {shown(result.identity.get('dataset'))} to compare with"
    absent = found.keys() - result.identity.keys()
    if unsaid := sorted(absent - DERIVED_FACTS):
        why = f"it is of an earlier release, which did not say its {unsaid[0]}"
    for key in sorted((found.keys() | result.identity.keys()) - absent):
        if key not in unknown and not _is_same(found.get(key), result.identity.get(key)):
            raise BundleError(
                f"its {shown(key)} is {shown(result.identity.get(key))} where its recipe and the image "
                f"set here give {shown(found.get(key))} in this release"
            )
    return why


def local(result: Result, recipe: BaseModel, *, data_root: Path | None) -> BaseModel:
    """Return a recipe from `check_id` with the paths of this machine filled in."""
    places: dict[str, Any] = {"data_root": None if data_root is None else str(data_root)}
    if getattr(recipe, "config", None) is not None:
        places["config"] = str(shipped_config(recipe.config) or "")
    if getattr(recipe, "distillation", None) is not None:
        places["distillation"] = recipe.distillation.model_copy(update={"teacher": __file__})
    if getattr(recipe, "engine", None) == "auto":
        places["engine"] = _engine(result)
    return recipe.model_copy(update=places)


class _NotOursError(Exception):
    """A file that a recipe refers to is not part of this suite."""


def _recipe(result: Result, stage: Stage) -> BaseModel:
    """Validate a recipe without its cosmetic fields and the paths of its inputs."""
    left_out = stage.Recipe.cosmetic - _MEANT | result.inputs.keys()
    fields = {key: value for key, value in result.recipe.items() if key not in left_out}
    inputs = dict.fromkeys(result.inputs, _ELSEWHERE)
    try:
        recipe = stage.Recipe.model_validate({**fields, **inputs})
    except ValidationError as error:
        raise BundleError(f"its recipe is not one of this version's: {problems(error)}") from error
    _check_scenes(recipe)
    read = recipe.model_dump(mode="json", include=set(fields))
    if changed := sorted(key for key in fields if not _contains(read[key], fields[key])):
        raise BundleError(f"its recipe does not say {shown(changed[0])} as a job writes it")
    return recipe


def _check_scenes(recipe: BaseModel) -> None:
    """Refuse scenes that take gigabytes to draw: the recipe alone says how many and how large."""
    if not isinstance(recipe, DetectionRecipe) or "scenes" not in recipe.dataset:
        return
    count = recipe.test_images or SCENES["test_images"]
    pixels, digits = count * recipe.image_size**2, count * recipe.digits_per_scene[1]
    if pixels > _MOST_PIXELS or digits > _MOST_DIGITS:
        raise BundleError(
            f"its scenes have {pixels:,} pixels and up to {digits:,} digits, where {_MOST_PIXELS:,} and "
            f"{_MOST_DIGITS:,} are allowed"
        )


def _source(name: str, record: InputRecord) -> File | Output:
    if record.path != Path(record.path).name:
        raise BundleError(
            f"its {shown(name)} is a path of the sender's; bundles have names of files"
        )
    if record.job_id is not None:
        return Output(record.job_id)
    if record.sha256 is None:
        raise BundleError(f"it does not say which file its {shown(name)} is")
    return File(Path(record.path), record.sha256)


def _identity(result: Result, recipe: BaseModel) -> dict[str, Any]:
    if getattr(recipe, "config", None) is not None and not Path(recipe.config).is_file():
        raise _NotOursError("its Detectron2 configuration did not come with this suite")
    engine = {}
    if result.stage == "detection" and recipe.config is None:
        # All facts except the engine's name are known without the engine.
        engine = {"engine": recipe.engine}
        recipe = recipe.model_copy(update={"engine": "torchvision"})
    found = {**get_stage(result.stage).identity(recipe), **engine}
    if "teacher_sha256" in found:  # only the hash of the teacher is known
        found = {**found, "teacher_sha256": result.identity.get("teacher_sha256")}
    return found


def _engine(result: Result) -> str:
    """Return the engine that a recipe with `engine: auto` ran on."""
    found = result.identity.get("engine")
    if found not in ("detectron2", "torchvision"):
        raise BundleError(f"its engine {shown(found)} is unknown here")
    return found


def _is_same(one: Any, other: Any) -> bool:
    """Compare as job ids do: 1 equals neither 1.0 nor true."""
    return canonical_json(one) == canonical_json(other)


def _contains(whole: Any, part: Any) -> bool:
    """Whether a recipe agrees with the one an earlier release wrote; sections may have gained fields."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    return _is_same(whole, part)
