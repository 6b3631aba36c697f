"""Whether a recipe's images are there: a job without them is skipped, and the plan says why."""

import importlib.util
from typing import TYPE_CHECKING

from lowbit.detection.datasets.catalog import find_source

if TYPE_CHECKING:
    from lowbit.detection.recipe import Recipe


def missing_data(recipe: "Recipe") -> str | None:
    """Return what is not there and how to get it, or None where the annotations are.

    A set that is there but damaged is not missing: the job that reads it fails and says so.
    """
    if recipe.config is not None:
        return _missing_of_config(recipe)
    try:
        find_source(recipe.dataset, root=recipe.data_root)
    except FileNotFoundError as error:
        return str(error)
    except ValueError:  # damaged
        pass
    return None


def _missing_of_config(recipe: "Recipe") -> str | None:
    if importlib.util.find_spec("detectron2") is None:
        return None  # that is what the job's identity fails by
    from lowbit.detection.engines import import_detectron2

    import_detectron2()
    from lowbit.detection.with_detectron2 import config_job

    return config_job.missing_data(recipe)
