"""The stages of a job, in the order data flows, and what the package of each offers."""

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.common.compute_cost import Work
from lowbit.common.suggest import did_you_mean

STAGES = ("pretrain", "transfer", "detection")
DERIVED_FACTS = frozenset(
    {"policy_on_board", "adaptive_method", "adaptive_variant", "adaptive_reference"}
)
"""Facts of an identity that follow from the recipe and say how the board shows it; no job id has them."""


@runtime_checkable
class Stage(Protocol):
    """What the package `lowbit.<stage>` offers.

    Attributes:
        VERSION: of the protocol; raised when the same recipe comes to mean other numbers.
        Recipe: the model of its recipes, frozen. `Recipe.cosmetic` names the fields that do not change
            results; a field `num_gpus`, where there is one, is the number of processes of a job.
    """

    VERSION: int
    Recipe: type[BaseModel]

    def identity(self, recipe: BaseModel) -> dict[str, Any]:
        """Return the facts that name a job and say which rows may be compared with it.

        All but `DERIVED_FACTS` enter the job's id.

        Raises:
            ValueError, FileNotFoundError, ImportError: the job cannot run, and why.
        """

    def missing_data(self, recipe: BaseModel) -> str | None:
        """Return how to get a data set whose files are not there, or None.

        A job without its data is skipped, for nothing is wrong with it.
        """

    def work(self, recipe: BaseModel) -> Work | None:
        """Count operations and bytes, for the estimates of a plan; None where they are not known."""

    def run(self, recipe: BaseModel, folder: Path) -> Mapping[str, Any]:
        """Do the job in `folder`, going on from what a killed run left there.

        Returns:
            measurements and, where there are any, costs, artifacts, checkpoint and details.
        """

    def process_group(self) -> AbstractContextManager[None]:
        """Join the processes of one job, each with its rank where torchrun puts it.

        All of them call `run`, and what the first returns counts.
        """


def get_stage(name: str) -> Stage:
    """Import the package of stage `name`; an unknown name is answered with close matches."""
    if name not in STAGES:
        raise RecipeError(
            f"There is no stage {name!r}; nothing was run."
            f"{did_you_mean(name, STAGES)} Stages: {', '.join(STAGES)}."
        )
    return importlib.import_module(f"lowbit.{name}")
