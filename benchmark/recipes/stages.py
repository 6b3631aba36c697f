"""The stages in the order of data flow, and the interface of their packages."""

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.common.compute_cost import Work
from lowbit.common.suggest import did_you_mean

STAGES = ("pretrain", "transfer", "detection", "deploy")
DERIVED_FACTS = frozenset(
    {"policy_on_board", "adaptive_method", "adaptive_variant", "adaptive_reference"}
)
"""Identity facts that only determine how the board shows a job; not part of its id."""


@runtime_checkable
class Stage(Protocol):
    """The interface of the package `lowbit.<stage>`.

    Attributes:
        VERSION: of the protocol; raised when the same recipe gives different numbers.
        Recipe: the model of its recipes, frozen. `Recipe.cosmetic` names the fields that do not change
            results; a field `num_gpus`, where there is one, is the number of processes of a job.
    """

    VERSION: int
    Recipe: type[BaseModel]

    def identity(self, recipe: BaseModel) -> dict[str, Any]:
        """Return the facts that identify a job and determine which results are comparable with it.

        All except `DERIVED_FACTS` are part of the job's id.

        Raises:
            ValueError, FileNotFoundError, ImportError: the job cannot run, and why.
        """

    def missing_data(self, recipe: BaseModel) -> str | None:
        """Return how to get what is missing, a data set or an optional package, or None.

        A job without it is skipped, not failed.
        """

    def work(self, recipe: BaseModel) -> Work | None:
        """Count operations and bytes, for the estimates of a plan; None if unknown."""

    def run(self, recipe: BaseModel, folder: Path) -> Mapping[str, Any]:
        """Run the job in `folder`, resuming from the state there, if any.

        Returns:
            measurements and, where there are any, costs, artifacts, checkpoint and details.
        """

    def process_group(self) -> AbstractContextManager[None]:
        """Join the processes of one job, each with its rank in torchrun's variables.

        All of them call `run`; the result of the first is used.
        """


def get_stage(name: str) -> Stage:
    """Import the package of stage `name`; the error for an unknown name suggests close matches."""
    if name not in STAGES:
        raise RecipeError(
            f"There is no stage {name!r}; nothing was run."
            f"{did_you_mean(name, STAGES)} Stages: {', '.join(STAGES)}."
        )
    return importlib.import_module(f"lowbit.{name}")
