"""What a deploy job reads of the job whose networks it runs, and what it is told of them."""

from typing import Any

from lowbit.benchmark.planning.job import CALIBRATED, CHECKPOINT, NETWORKS, File, Job, Output
from lowbit.benchmark.recipes.errors import RecipeError

_OF_NETWORKS = ("dataset", "protocol", "image_size", "seed")
_FILES = frozenset({"checkpoint", "detector"})  # of a detection recipe


def deployed_inputs(made_by: Job) -> dict[str, File | Output]:
    """Return the files that a deploy job reads: networks of a transfer job, or a detector.

    Raises:
        RecipeError: the job is a Detectron2 configuration.
    """
    checkpoint = {k: v for k, v in made_by.inputs.items() if k == "checkpoint"}
    if made_by.stage == "transfer":
        return {**checkpoint, "networks": Output(made_by.id, NETWORKS)}
    if made_by.facts.get("config") is not None:
        raise RecipeError(
            f"a deploy entry runs what {made_by.title} trains by a Detectron2 configuration; nothing was "
            "run. Only detectors of recipes are exported: train it by a recipe (docs/detection.md)."
        )
    calibrated = made_by.facts.get("method") == "ptq"
    return {**checkpoint, "detector": Output(made_by.id, CALIBRATED if calibrated else CHECKPOINT)}


def described(made_by: Job) -> dict[str, Any]:
    """Return the fields of a deploy recipe that say what a job made, and from which images."""
    local = {"data_root": made_by.recipe.get("data_root"), "seed": made_by.facts["seed"]}
    if made_by.stage == "detection":
        left_out = made_by.cosmetic | _FILES
        recipe = {name: v for name, v in made_by.recipe.items() if name not in left_out}
        return {**local, "detection": {**recipe, "engine": made_by.facts["engine"]}}
    facts = {field: made_by.facts[field] for field in _OF_NETWORKS}
    return {**local, **facts, "policy": made_by.recipe.get("policy", made_by.facts["policy"])}
