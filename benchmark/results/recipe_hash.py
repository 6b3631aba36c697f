"""What of a recipe tells results apart, and its hash.

Nothing heavy is imported here: commands that only read results start without torch.
"""

import hashlib
import json
from typing import Any

from lowbit.benchmark.results.result_file import Result

RECIPE, START = "recipe_sha256", "start"  # hash of a recipe; the job whose output it started from
# Fields of which a row may have several values, and those that its own labels say.
_NO_VARIANTS = frozenset(
    {"seed", "precision", "precisions", "metrics"}
    | {"policy", "architecture", "dataset", "image_size", "engine"}
)


def recipe_sha256(result: Result) -> str:
    """Return a hash that is equal for results of equal recipes, whatever their seed and precisions."""
    text = json.dumps(telling_fields(result), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def start_job(result: Result) -> str:
    """Return the job that made what a job started from beside the checkpoint, or "-"."""
    jobs = (source.job_id for name, source in result.inputs.items() if name != "checkpoint")
    return next(filter(None, jobs), "-")


def telling_fields(result: Result) -> dict[str, Any]:
    """Return the recipe's fields in which results of one row agree."""
    left_out = _NO_VARIANTS | result.inputs.keys()
    fields = {name: value for name, value in result.recipe.items() if name not in left_out}
    if "config_sha256" in result.identity:  # a Detectron2 configuration, often one a precision
        content = str(result.identity["config_sha256"])[:8]
        fields[f"configuration at {'/'.join(result.precisions)}"] = content
    return fields
